-- public_routes.lua: some paths are open, one is for a machine with its own key, one for administrators, one for guests too.
-- Routes are read from top to bottom; the first match wins; what no route matches gets the defaults below.
local hook_key = env("HOOK_KEY_SHA256")       -- the digest of the machine's key: the policy never holds the key itself

local function hook(req)
  local key = req.headers["X-Hook-Key"]
  if not key then return skip("no X-Hook-Key") end
  if not hash.equals(hash.sha256(key), hook_key) then return reject(401, "unknown hook key") end
  return accept { user = "hook" }
end

return {
  api = 1,

  providers = {
    corp = { issuer = "https://login.example.com", client_id = "web", client_secret = secret("CLIENT_SECRET") },
  },

  authenticators = {
    authn.opaque  { provider = "corp", cache = "1m" },
    authn.session { provider = "corp" },
  },

  identity = { user = "email", groups = { claim = "groups", default = {} } },
  headers  = { ["X-User"] = "{user}", ["X-Groups"] = "{groups}" },

  routes = {
    { name = "assets", host = "www.example.com", prefix = { "/static", "/docs" }, method = "GET", public = true },
    { name = "hooks",  path = "/hooks/*",                                       -- one segment: /hooks/github
      authenticators = { authn.custom { name = "hook", run = hook } } },
    { name = "admin",  host = { "admin.example.com", "*.admin.example.com" },
      authorize = { authz.groups { any = { "platform-admins" } } } },
    { name = "guests", prefix = "/community",                                  -- identity if there is one
      authenticators = { authn.opaque { provider = "corp", cache = "1m" }, authn.session { provider = "corp" },
                         authn.anonymous { user = "guest" } } },
  },

  login = { provider = "corp" },
}
