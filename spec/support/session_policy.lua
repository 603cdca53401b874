--- A policy with sessions and a login at provider "corp", for specs; what is to be different is named.
local made = require("made")

local session_policy = {}

local function merged(base, more)
  for name, value in pairs(more or {}) do base[name] = value end
  return base
end

--- more: { provider, session, login = options to add, only = the one user who may pass, signed = the variable
-- with the client's private key, authenticators = a list in front }. options: of
-- testing.load. session.when = "none" makes the session's authenticator take nothing.
function session_policy.play(more, options)
  more = more or {}
  options = merged({ env = { CORP_SECRET = "s&cret" } }, options)
  return made.play(function(host)
    local corp = merged({
      name = "corp", issuer = "https://login.example.com", client_id = "gate", client_secret = host.secret("CORP_SECRET"), timeout = 5,
      scopes = { "email groups" }, redirect_url = "https://app.example.com/authservice/oidc/callback",
    }, more.provider)
    if more.signed then corp.private_key, corp.key_id = host.secret(more.signed), "sign-1" end
    local session = merged({ provider = corp, header = "X-Session" }, more.session)
    if session.when == "none" then session.when = function() return false end end
    local steps = { made.authn("session", session) }
    for i, step in ipairs(more.authenticators or {}) do table.insert(steps, i, step) end
    return {
      providers = { corp = corp }, authenticators = steps, login = merged({ provider = corp, clients = "browsers" }, more.login),
      headers = { ["X-User"] = "{user}", ["X-Groups"] = "{groups}", ["X-How"] = "{credential}" },
      authorize = more.only and { made.authz("users", { any = { more.only } }) } or nil,
      routes = { { name = "machines", prefix = { "/machines" }, authenticators = { made.authn("opaque", { provider = corp }) } } },
    }
  end, options)
end

return session_policy
