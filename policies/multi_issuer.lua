-- multi_issuer.lua: two identity providers. Their JWTs are told apart by `iss`; people log in at the first.
return {
  api = 1,

  providers = {
    staff   = { issuer = "https://sso.example.com/realms/staff", client_id = "gate",
                client_secret = secret("STAFF_CLIENT_SECRET") },
    partner = { issuer = "https://id.partner.example" },
  },

  authenticators = {
    authn.jwt     { provider = "staff",   audience = "my-api", algorithms = { "RS256", "ES256" } },
    authn.jwt     { provider = "partner", audience = "my-api",
                    identity = { user = { claim = "sub", prefix = "partner:" }, groups = "entitlements" } },
    authn.session { provider = "staff" },
  },

  identity = {
    user   = "email",
    groups = { claim = "realm_access.roles", default = {} },
  },

  headers = {
    ["X-User"]     = "{user}",
    ["X-Groups"]   = "{groups}",
    ["X-Provider"] = "{provider}",
  },

  login = { provider = "staff" },            -- browsers; API clients get 401
}
