-- Access tokens asked of the provider's introspection endpoint; /mail wants a scope that nobody has, /api an audience.
local provider = "main"
return {
  api = 1,
  providers = { main = { issuer = env("OIDC_PROVIDER"), client_id = env("CLIENT_ID"), client_secret = secret("CLIENT_SECRET"), timeout = "2s",
                         auth_method = env("AUTH_METHOD", "client_secret_basic") } },
  authenticators = { authn.introspection { provider = provider, cache = "5m", scope = { "email" }, timeout = "2s" } },
  identity = { user = "sub", groups = { claim = "scope", default = {} } },
  headers = { ["kubeflow-userid"] = "{user}", ["auth-method"] = "{credential}" },
  routes = {
    { prefix = "/mail", authenticators = { authn.introspection { provider = provider, cache = "5m", scope = { "mail" } } } },
    { prefix = "/api", authenticators = { authn.introspection { provider = provider, cache = "5m", audience = "my-api" } } },
  },
}
