--- The logins that a browser has under way, one secret a tab, in one small sealed cookie of its own: nothing is stored here for
-- somebody who has not logged in (S-074, Q14, Q15).
--
-- What goes to the provider is derived from a tab's secret: the nonce and the challenge of the code verifier; the state
-- parameter holds the secret's hash, sealed with the place to go back to. A callback counts only in the browser whose cookie
-- has the secret.
local cookie = require("moonlatch.cookie")

local tabs = {}

local NAME = "oidc_state_csrf" -- the ancestor's
local LIFE = 1200              -- seconds that a login may take
local MAX = 5                  -- tabs; the oldest is dropped
local SECRET = 32              -- bytes (RFC 7636 section 7.1)
local RETRY_LIFE = 10          -- seconds in which a login begun counts as a further try of one that failed

tabs.NAME, tabs.LIFE = NAME, LIFE

local function derived(host, label, secret) return host.base64_encode(host.digest("sha256", label .. "\0" .. secret), true) end

local function is_entry(entry) return type(entry) == "table" and type(entry.s) == "string" and type(entry.t) == "number" end

--- The tabs of a request, oldest first; known says that there was a cookie of ours. Anything that does not open is none.
function tabs.read(host, req)
  local self = { list = {}, known = false }
  local text = req.cookies[NAME]
  local plain = text and #text < 4096 and host.unseal("login", text)
  local value = plain and host.json_decode(plain)
  if type(value) ~= "table" or type(value.tabs) ~= "table" then return self end
  self.known = true
  if type(value.retry) == "number" and type(value.tries) == "number" then self.retry, self.tries = value.retry, value.tries end
  for _, entry in ipairs(value.tabs) do
    if #self.list < MAX and is_entry(entry) and entry.t + LIFE > host.now() then self.list[#self.list + 1] = entry end
  end
  return self
end

--- A new tab's secret. Raises when the generator fails (S-072).
function tabs.add(host, self)
  while #self.list >= MAX do table.remove(self.list, 1) end
  local secret = host.random(SECRET)
  self.list[#self.list + 1] = { s = secret, t = math.floor(host.now()) }
  return secret
end

--- How often the browser has tried before the login that begins now; asked once.
function tabs.take_tries(host, self)
  local at, tries = self.retry, self.tries
  self.retry, self.tries = nil, nil
  return at ~= nil and host.now() - at < RETRY_LIFE and host.now() >= at and tries or 0
end

--- The next login is one that was tried so often before; nil: it is a first one.
function tabs.set_tries(host, self, tries) self.retry, self.tries = tries and math.floor(host.now()), tries end

--- Takes the tab of that hash out. Its secret, or nil.
function tabs.take(host, self, hash)
  for i, entry in ipairs(self.list) do
    if host.equals(tabs.hash(host, entry.s), hash) then
      table.remove(self.list, i)
      return entry.s
    end
  end
end

function tabs.hash(host, secret) return derived(host, "state", secret) end
function tabs.nonce(host, secret) return derived(host, "nonce", secret) end
function tabs.verifier(host, secret) return derived(host, "verifier", secret) end -- RFC 7636: 43 characters
function tabs.challenge(host, secret) return host.base64_encode(host.digest("sha256", tabs.verifier(host, secret)), true) end

--- Attributes of the cookie in the answer to req. A form_post comes from the provider's page, so that Lax would keep the cookie
-- back (S-236).
function tabs.attributes(session, req)
  return session:attributes(req, session.provider.response_mode == "form_post" and "None" or "Lax")
end

--- The Set-Cookie of what is left; deletes the cookie when nothing is.
function tabs.cookie(host, self, attributes)
  if #self.list == 0 and not self.retry then return cookie.delete(NAME, attributes) end
  local text = host.json_encode { tabs = host.json_list(self.list), retry = self.retry, tries = self.tries }
  return cookie.set(NAME, host.seal("login", text, LIFE), LIFE, attributes)
end

return tabs
