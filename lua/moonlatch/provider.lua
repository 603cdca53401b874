--- An OpenID provider as this policy uses it: its discovery document, fetched by a background task and shared on the board
-- (OpenID Connect Discovery 1.0 section 4), and the endpoints that the policy names itself.
--
-- The task runs on one worker for ever; every worker reads what it posted. A document that was read once stays when a
-- later refresh fails.
local provider = {}
provider.__index = provider

local REFRESH = 900       -- seconds between two good readings, give or take a tenth
local RETRY_MAX = 30      -- seconds; the back-off is 1, 2, 4 ... 30
local TIMEOUT = 3         -- seconds for one answer, unless the policy says otherwise
local ENDPOINTS = { "authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri", "introspection_endpoint",
                    "revocation_endpoint", "end_session_endpoint" }

--- spec: a provider of the normalised policy. Raises a text when its CA file cannot be used.
function provider.new(host, spec)
  local upstream, why = host.upstream { name = spec.name, ca_file = spec.ca_file }
  if not upstream then error(("provider '%s': %s"):format(spec.name, why), 0) end
  local self = setmetatable({ host = host, name = spec.name, issuer = spec.issuer, upstream = upstream }, provider)
  self.timeout = spec.timeout or TIMEOUT
  self.userinfo_url = spec.userinfo_url
  self.board = "discovery " .. host.sha256(host.json_encode { spec.issuer, spec.ca_file or "" }):sub(1, 16) .. " " .. spec.issuer
  self.identity = host.json_encode { spec.issuer, spec.ca_file or "", spec.userinfo_url or "" }
  return self
end

--- The discovery document as posted, or nil and why there is none yet.
function provider:document() return self.host.read(self.board) end

--- Where UserInfo is asked: the policy's own URL, else the document's. nil and why when it is not known.
function provider:userinfo()
  if self.userinfo_url then return self.userinfo_url end
  local document, why = self:document()
  if not document then return nil, why end
  if not document.userinfo_endpoint then return nil, "its discovery document names no userinfo_endpoint" end
  return document.userinfo_endpoint
end

-- The host and scheme are the operator's or the document's; anything but http and https is refused, and so is the way down
-- from https to http, on which tokens would travel in clear.
local function endpoint_problem(host, issuer, name, url)
  if type(url) ~= "string" then return name .. " is no text" end
  local parts = host.url_parse(url)
  local scheme = parts and parts.scheme:lower()
  if scheme ~= "https" and scheme ~= "http" then return name .. " is no http or https URL" end
  if scheme == "http" and issuer:lower():find("^https:") then return name .. " is http while the issuer is https" end
end

-- What of a discovery document is posted, or nil and why it is not believed.
local function accept_document(host, issuer, document)
  if document.issuer ~= issuer then return nil, "the document is for another issuer" end
  local posted = { issuer = issuer }
  for _, name in ipairs(ENDPOINTS) do
    local url = document[name]
    local why = url ~= nil and endpoint_problem(host, issuer, name, url)
    if why then return nil, why end
    posted[name] = url
  end
  return posted
end

local function discover(self)
  local host = self.host
  local answer, why = host.fetch {
    upstream = self.upstream, method = "GET", timeout = self.timeout, headers = { accept = "application/json" },
    url = self.issuer:gsub("/+$", "") .. "/.well-known/openid-configuration",
  }
  if not answer then return nil, why end
  if answer.status ~= 200 then return nil, "discovery answered " .. answer.status end
  local document, broken = host.json_decode(answer.body)
  if type(document) ~= "table" then return nil, "discovery: malformed answer: " .. (broken or "no JSON object") end
  return accept_document(host, self.issuer, document)
end

-- The same for each worker and reading, different between servers that started at different moments.
local function jitter(host, name)
  return tonumber(host.sha256(name .. host.now()):sub(1, 4), 16) / 0xffff
end

-- One reading: posts what came of it. Returns the seconds until the next one and the failures in a row.
local function round(self, failures)
  local host = self.host
  local ran, document, why = pcall(discover, self)
  if not ran then document, why = nil, tostring(document) end
  if document then
    host.post(self.board, document)
    return REFRESH * (0.9 + 0.2 * jitter(host, self.board)), 0
  end
  host.post_failure(self.board, why)
  host.log("warn", "provider could not be discovered", { provider = self.name, issuer = self.issuer, why = why })
  return math.min(RETRY_MAX, 2 ^ math.min(failures, 10)), failures + 1
end

--- The background task: never returns.
function provider:task()
  return function()
    local failures = 0
    while true do
      local wait
      wait, failures = round(self, failures)
      self.host.sleep(wait)
    end
  end
end

return provider
