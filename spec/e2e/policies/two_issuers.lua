-- Two providers on one header, told apart by iss.
return {
  api = 1,
  providers = { first = { issuer = env("OIDC_PROVIDER") }, second = { issuer = env("SECOND_ISSUER") } },
  authenticators = {
    authn.jwt { provider = "first", audience = "my-api", cache = "off" },
    authn.jwt { provider = "second", audience = "my-api", cache = "off", scope = { "email" }, identity = { user = { claim = "sub", prefix = "second:" } } },
  },
  headers = { ["kubeflow-userid"] = "{user}", ["x-provider"] = "{provider}" },
}
