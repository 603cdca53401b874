--- Sessions of one provider as this policy has them: the cookie, the record, and who may use it. The store is the host's.
--
-- The open part is { claims, owner, expires = moment or nil, refresh_at = moment or nil }: all a check needs. The other part is
-- { access_token, refresh_token, id_token, access_expires, first = claims of the first ID token that a refresh must keep }.
local cookie = require("moonlatch.cookie")

local session = {}
session.__index = session

local COOKIE = "authservice_session" -- the ancestor's
local MAX_AGE = 86400
local PREFIX, ID = "mls_", 47 -- the prefix tells an id from a token (Q7); then base64url of 32 bytes
local REPLACED = 60 -- seconds that requests under way may take

-- Whose sessions and logins these are: a policy that gives the name to another issuer or client takes none of them, nor does another
-- deployment with the same keys and store; their tokens would go to a stranger (S-205, S-210).
local function owner_of(host, provider)
  return provider.name .. " " .. host.sha256(host.json_encode { provider.issuer, provider.client_id or "" }):sub(1, 16)
end

--- options: of authn.session.
function session.new(host, options, provider)
  local name = options.cookie or COOKIE
  return setmetatable({
    host = host, provider = provider, owner = owner_of(host, provider), name = name, header = options.header,
    max_age = options.max_age or MAX_AGE, idle = options.idle,
    same_site = options.same_site or "Lax", domain = options.domain,
    secure = provider.https or options.same_site == "None" or cookie.demands_secure(name),
  }, session)
end

--- Whether a text has the form of a session's id.
function session.is_id(text)
  return text ~= nil and #text == ID and text:sub(1, #PREFIX) == PREFIX and not text:find("[^%w_-]")
end

--- Attributes of a cookie in the answer to req: Secure when users come over https, for all that is known.
function session:attributes(req, same_site)
  same_site = same_site or self.same_site
  return { same_site = same_site, secure = self.secure or same_site == "None" or req.scheme == "https", domain = self.domain }
end

function session:cookie(req, id) return cookie.set(self.name, id, self.max_age, self:attributes(req)) end
function session:removal(req) return cookie.delete(self.name, self:attributes(req)) end

--- The id in the request's cookie, or nil.
function session:cookie_id(req)
  local id = req.cookies[self.name]
  return session.is_id(id) and id or nil
end

--- The id in the request's header, or nil when it has none, or something else in it.
function session:header_id(req)
  local id = self.header and self.host.credential(req, self.header)
  return session.is_id(id) and id or nil
end

--- The session of an id, if it is one of this owner. Waits. As host.session_read.
function session:read(id)
  local state, open = self.host.session_read(id)
  if state == "hit" and open.owner ~= self.owner then return "none" end
  return state, open
end

--- Ends a session, in an outage, too: the host remembers that it is dead. Waits. Whether it is: not when the store is away and too
-- many wait for their end already.
function session:finish(id) return self.host.session_delete(id) ~= nil or self.host.session_read(id) == "none" end

--- Ends a session in whose place a login has put another one. Requests of the browser's other tabs still carry its id: their answers
-- must not take back the new cookie. Waits.
function session:replace(id)
  self.host.session_delete(id)
  self.host.cache_set("replaced session", self.provider.name, id, {}, REPLACED)
end

--- Whether a session has ended that way a moment ago.
function session:replaced(id) return self.host.cache_get("replaced session", self.provider.name, id) ~= nil end

--- When a check has to have the access token renewed: never, without the means to.
function session.refresh_at(tokens) return tokens.refresh_token and tokens.access_expires or nil end

-- How sessions are found by what providers and operators call them.
local function index_of(provider, user, first)
  local index = { user = user, subject = session.subject(provider, first.sub) }
  if type(first.sid) == "string" and first.sid ~= "" then index.sid = session.subject(provider, first.sid) end
  return index
end

--- A subject or sid as it is indexed: they mean something to their issuer only.
function session.subject(provider, name) return provider.issuer .. " " .. name end

--- A new session. user: the mapped name; first: claims of the ID token. Waits. id | nil, why
function session:create(claims, user, tokens, first)
  local host = self.host
  tokens.first = { iss = first.iss, sub = first.sub, aud = first.aud, azp = first.azp, iat = first.iat, nonce = first.nonce,
                   auth_time = first.auth_time }
  return host.session_create {
    open = { claims = claims, owner = self.owner, expires = host.now() + self.max_age, refresh_at = session.refresh_at(tokens) },
    tokens = tokens, lifetime = self.max_age, idle = self.idle, index = index_of(self.provider, user, first),
  }
end

return session
