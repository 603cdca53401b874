-- How we show the provider who we are, and how requests and answers travel: one login each.
local key = env("TEST_KEY", "")
local mode = env("TEST_RESPONSE_MODE", "")

return {
  api = 1,
  providers = {
    main = {
      issuer = env("OIDC_PROVIDER"), client_id = env("CLIENT_ID"), client_secret = env("CLIENT_SECRET", "") ~= "" and secret("CLIENT_SECRET") or nil,
      auth_method = env("TEST_AUTH_METHOD", "client_secret_basic"), private_key = key ~= "" and secret("TEST_KEY") or nil, key_id = key ~= "" and "ours" or nil,
      response_mode = mode ~= "" and mode or nil, push = env.bool("TEST_PUSH", false), redirect_url = env("REDIRECT_URL"),
      scopes = { "openid", "email", "groups" },
    },
  },
  authenticators = { authn.opaque { provider = "main" }, authn.session { provider = "main" } },
  headers = { ["kubeflow-userid"] = "{user}", ["kubeflow-groups"] = "{groups}" },
  login = { provider = "main" },
}
