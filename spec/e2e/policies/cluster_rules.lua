-- The cluster's own rules decide about namespaces: may this user read the notebooks there?
return {
  api = 1,
  authenticators = { authn.kubernetes { audiences = env.list("AUDIENCES"), identity = { user = "username" } } },
  authorize = {
    authz.kubernetes {
      verb = function(_, req) return req.method == "GET" and "get" or "update" end, resource = "notebooks", group = "kubeflow.org", cache = "1m",
      namespace = function(_, req) return req.path:match("^/ns/([%w-]+)$") or "none" end,
    },
  },
  headers = { ["kubeflow-userid"] = "{user}" },
}
