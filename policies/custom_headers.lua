-- custom_headers.lua: claim paths, fallbacks and rewrites; headers as templates and as functions.
local admin = regex("^adm-(.+)@corp\\.example$")

local function display_name(id)
  local c = id.claims
  if c.given_name and c.family_name then return c.given_name .. " " .. c.family_name end
  return c.name                                     -- nil: the header is not sent
end

return {
  api = 1,

  providers = {
    corp = { issuer = "https://login.example.com" },
  },

  authenticators = {
    authn.opaque { provider = "corp", cache = "1m" },
  },

  identity = {
    user   = { claim = { "preferred_username", "email" }, lower = true,
               rewrite = { { matches = "@corp\\.example$", replaces = "" } } },
    groups = { claim = "resource_access.portal.roles", default = {}, prefix = "portal:" },
    tenant = { claim = "https://example.com/tenant", default = "public" },
    level  = function(claims) return claims.acr == "mfa" and "high" or "low" end,
  },

  headers = {
    ["X-User"]         = "{user}",
    ["X-Tenant"]       = "{tenant}",
    ["X-Department"]   = "{claims.department|none}",         -- with a default
    ["X-Full-Name"]    = display_name,                       -- a function of the identity
    ["X-Assurance"]    = "{level}; via={method}",
    ["X-Admin"]        = function(id) return admin:test(id.user) and "yes" or "no" end,
    ["Authorization"]  = false,                              -- do not pass the credential on
  },
}
