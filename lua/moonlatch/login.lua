--- The start of the Authorization Code Flow (OpenID Connect Core 1.0 section 3.1.2; RFC 9700 section 2.1): a browser that nobody
-- knows is sent to the provider, with PKCE and nonce always, and with a state that only this browser can use.
local client = require("moonlatch.client")
local is_browser = require("moonlatch.browser")
local parameters = require("moonlatch.parameters")
local tabs = require("moonlatch.tabs")
local target = require("moonlatch.target")

local login = {}
login.__index = login

local RETRY = { ["Retry-After"] = "1" }

-- "openid" first, each once; the policy may write several in one text.
local function scope_of(provider)
  local list, seen = { "openid" }, { openid = true }
  for _, text in ipairs(provider.scopes or { "email" }) do
    for name in text:gmatch("[^%s,]+") do
      if not seen[name] then
        seen[name], list[#list + 1] = true, name
      end
    end
  end
  return table.concat(list, " ")
end

local function sorted_pairs(map)
  local list = {}
  for name, value in pairs(map or {}) do list[#list + 1] = { name, value } end
  table.sort(list, function(a, b) return a[1] < b[1] end)
  return list
end

--- options: of `login`; session: of session.lua, for the same provider.
function login.new(host, options, session)
  local provider = session.provider
  return setmetatable({
    host = host, session = session, provider = provider, all = options.clients == "all", hosts = options.hosts or {},
    scope = scope_of(provider), more = sorted_pairs(provider.authorize_params),
  }, login)
end

--- Whether this request's client is sent to the login page.
function login:wants(req)
  if req.verify then return false end
  return self.all or is_browser(req)
end

-- The parameters of the authorization request, in order; none but the policy's can be added (S-080).
local function request_pairs(self, secret, state)
  local provider, host = self.provider, self.host
  local list = {
    { "client_id", provider.client_id }, { "redirect_uri", provider.redirect_uri }, { "response_type", "code" },
    { "scope", self.scope }, { "state", state }, { "nonce", tabs.nonce(host, secret) },
    { "code_challenge", tabs.challenge(host, secret) }, { "code_challenge_method", "S256" },
  }
  if provider.response_mode == "form_post" then list[#list + 1] = { "response_mode", "form_post" } end
  return table.move(self.more, 1, #self.more, #list + 1, list)
end

-- What the browser takes to the provider: the parameters, or the name under which they were pushed there (RFC 9126).
local function query_of(self, list)
  local document = self.provider:document() or {}
  if self.provider.push or document.require_pushed_authorization_requests then
    if not document.pushed_authorization_request_endpoint then return nil, "the provider takes no pushed authorization requests" end
    local uri, why = client.push(self.provider, list)
    if not uri then return nil, why end
    list = { list[1], { "request_uri", uri } }
  end
  return parameters.encode(self.host, list)
end

local function unavailable(self, req, why)
  self.host.step(req, "login", "unavailable", why)
  self.host.deny(req, 503, "unavailable", "the login page cannot be reached", RETRY)
  return true
end

-- S-081: somebody with a good session whom no authenticator of this route takes would come back for ever.
local function loops(self, req)
  local id = self.session:cookie_id(req)
  return id ~= nil and self.session:read(id) == "hit"
end

--- Where the state leads back to, sealed: { h = hash of the tab's secret, u = target, p = owner of the session, n = how often it was
-- tried before }.
function login:state(secret, url, tries)
  local host = self.host
  local text = host.json_encode { h = tabs.hash(host, secret), u = url, p = self.session.owner, n = tries }
  return host.seal("state", text, tabs.LIFE)
end

--- Sends the browser to the provider. gone: Set-Cookie of a session that is no more, or nil. Waits. Returns false when it has not
-- answered, as no login would help.
function login:start(req, gone)
  local host = self.host
  if loops(self, req) then return false end
  local where, unknown = self.provider:authorize()
  if not where then return unavailable(self, req, unknown) end
  local open = tabs.read(host, req)
  local tries = tabs.take_tries(host, open)
  local secret = tabs.add(host, open)
  local url = target.of_request(req, self.hosts, self.provider.https and "https" or req.scheme)
  local query, why = query_of(self, request_pairs(self, secret, self:state(secret, url, tries)))
  if not query then return unavailable(self, req, why) end
  host.step(req, "login", "redirect", self.provider.name)
  host.deny(req, 302, "login", "please log in", {
    Location = where .. (where:find("?", 1, true) and "&" or "?") .. query,
    ["Set-Cookie"] = { tabs.cookie(host, open, tabs.attributes(self.session, req)), gone },
  })
  return true
end

return login
