-- multi_issuer.lua: two identity providers. JWTs are told apart by their `iss`; what is not a JWT is asked of the partner's
-- introspection endpoint. People log in at the first.
return {
  api = 1,

  providers = {
    staff   = { issuer = "https://sso.example.com/realms/staff", client_id = "gate",
                client_secret = secret("STAFF_CLIENT_SECRET") },
    partner = { issuer = "https://id.partner.example", client_id = "gate",
                client_secret = secret("PARTNER_CLIENT_SECRET") },
  },

  authenticators = {
    authn.jwt           { provider = "staff",   audience = "my-api", algorithms = { "RS256", "ES256" } },
    authn.jwt           { provider = "partner", audience = "my-api",
                          identity = { user = { claim = "sub", prefix = "partner:" }, groups = "entitlements" } },
    authn.introspection { provider = "partner", cache = "30s",
                          identity = { user = { claim = "sub", prefix = "partner:" }, groups = "entitlements" } },
    authn.session       { provider = "staff" },
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
