-- The policy of the reload tests: one provider, one header that tells which version of this file decided.
return {
  api = 1,
  name = "marker",
  providers = {
    idp = { issuer = env("OIDC_PROVIDER"), client_id = env("CLIENT_ID"), client_secret = secret("CLIENT_SECRET") },
  },
  authenticators = { authn.opaque { provider = "idp", cache = "5m" } },
  identity = { user = "email", groups = "groups" },
  headers = { ["Kubeflow-Userid"] = "{user}", ["X-Marker"] = "one" },
}
