--- Tests of policies: loads a policy into the fake host, plays requests, and stands in for the world outside.
--
--   local testing = require("moonlatch.testing")
--   local p = testing.load("policies/opaque_only.lua", { env = { A = "b" }, now = 1700000000 })
--   local d = p:request { path = "/x", bearer = p:idp("corp"):opaque { email = "alice@example.com" } }
--   assert.allowed(d)
--   assert.login(p:request { path = "/x", browser = true })               -- a person without a session is sent to the provider
--   local id = p:idp("corp"):login { email = "alice@example.com" }        -- logs in (idp.lua has the single steps)
--   assert.allowed(p:request { session = id })
--   p:request { endpoint = "logout", method = "POST", session = id, headers = { Origin = "https://app.example.com" } }
--
-- Runs under plain busted with LUA_PATH pointing at this library; each load has caches of its own.
local bytes = require("moonlatch.testing.bytes")
local explain = require("moonlatch.explain")
local fake_host = require("moonlatch.testing.fake_host")
local idp = require("moonlatch.testing.idp")
local json = require("moonlatch.testing.json")

local testing = {}

local ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/"
local CLUSTER_ISSUER = "https://kubernetes.default.svc.cluster.local"
local REVIEW_URL = "https://10.0.0.1:443/apis/authentication.k8s.io/v1/tokenreviews"
local SNAPSHOTS = "spec/snapshots/"

local function jwt(claims)
  local function part(t) return bytes.base64_encode(json.encode(t), true) end
  return ("%s.%s.%s"):format(part { alg = "RS256" }, part(claims), bytes.base64_encode("not a signature", true))
end

local function reply(status, body)
  if type(body) == "table" then body = json.encode(body) end
  return { status = status, headers = { ["content-type"] = "application/json" }, body = body }
end

-- ---------------------------------------------------------------- stand-ins

local stub = {}
stub.__index = stub

--- What is answered: a status and a body (a table becomes JSON). Headers are optional.
function stub:replies(status, body, headers)
  self.answer = reply(status, body or "")
  for name, value in pairs(headers or {}) do self.answer.headers[name:lower()] = value end
  return self
end

--- Nobody answers.
function stub:fails(why)
  self.answer, self.why = nil, why or "connection refused"
  return self
end

--- How often it must have been asked when p:verify() runs; at least once without this.
function stub:times(n)
  self.expected = n
  return self
end

--- check(body, request) runs at each call; what it raises fails the test. A JSON body is decoded.
function stub:receives(check)
  self.check = check
  return self
end

local function serve_review(self, request)
  if request.method ~= "POST" or request.url ~= REVIEW_URL then return nil end
  local token = json.decode(request.body).spec.token
  local known = self.kube_tokens[token]
  local status = known and { authenticated = true, user = known, audiences = json.decode(request.body).spec.audiences }
    or { authenticated = false, error = "invalid bearer token" }
  return reply(201, { apiVersion = "authentication.k8s.io/v1", kind = "TokenReview", status = status })
end

-- ------------------------------------------------------------------ the policy

local policy = {}
policy.__index = policy

--- The stand-in of a provider of the policy.
function policy:idp(name) return self.idps[name] or error("the policy has no provider '" .. tostring(name) .. "'", 2) end

--- A service account's token for which the API server says: this user, these groups.
function policy:kube_token(user, groups)
  self.count = self.count + 1
  local token = jwt { iss = CLUSTER_ISSUER, sub = user, jti = tostring(self.count) }
  self.kube_tokens[token] = { username = user, uid = "uid-" .. self.count, groups = groups and json.list(groups) or nil }
  return token
end

function policy:api_key() error("p:api_key comes with authn.api_key, which is not available yet", 2) end

--- A JWT that nobody has signed: with these claims in clear.
function policy:unsigned_jwt(claims) return jwt(claims) end

--- Stands in for one address; the latest one for an address counts.
function policy:http(method, url)
  local made = setmetatable({ method = method, url = url, used = 0, why = "connection refused" }, stub)
  table.insert(self.stubs, 1, made)
  return made
end

local function ask_stub(self, made, request)
  made.used = made.used + 1
  if made.check then
    local ran, why = pcall(made.check, json.decode(request.body or "") or request.body, request)
    if not ran then self.failure = self.failure or why end
  end
  return made.answer, made.why
end

function policy:answer(request)
  for _, made in ipairs(self.stubs) do
    if made.method == request.method and made.url == request.url then return ask_stub(self, made, request) end
  end
  for _, provider in pairs(self.idps or {}) do
    local answer, why = provider:serve(request)
    if answer ~= nil then return answer or nil, why end
  end
  local review = serve_review(self, request)
  if review then return review end
  self.failure = self.failure or ('unexpected %s %s; write p:http("%s", "%s"):replies(200) first'):format(
    request.method, request.url, request.method, request.url)
  return nil, "nobody stands in for it"
end

-- A failure inside a policy function must fail the test, whatever the policy makes of it.
function policy:raise(level)
  local failure = self.failure
  self.failure = nil
  if failure then error(failure, level + 1) end
end

local BROWSER = { Accept = "text/html,application/xhtml+xml", ["Sec-Fetch-Mode"] = "navigate" }

local function request_of(self, options)
  local path, query = (options.path or "/"):match("^([^?]*)%??(.*)$")
  local headers = {}
  for name, value in pairs(options.browser and BROWSER or {}) do headers[name] = value end
  for name, value in pairs(options.headers or {}) do headers[name] = value end
  if options.bearer then headers.Authorization = "Bearer " .. options.bearer end
  local cookies = {}
  for name, value in pairs(options.cookies or {}) do cookies[#cookies + 1] = name .. "=" .. value end
  if options.session then cookies[#cookies + 1] = self.session_cookie .. "=" .. options.session end
  table.sort(cookies)
  if #cookies > 0 then headers.Cookie = table.concat(cookies, "; ") end
  self.count = self.count + 1
  return {
    method = options.method or "GET", scheme = options.scheme or "https", host = options.host or "app.example.com",
    path = path:gsub(";[^/]*", ""), raw_path = path, query = query, headers = headers, client_ip = "192.0.2.1", id = "test-" .. self.count,
    has_params = path:find(";", 1, true) ~= nil, verify = options.verify or false, endpoint = options.endpoint, web = options.web,
    body = options.body,
  }
end

local decision_type = { __tostring = explain }

--- Plays one request: { method, scheme, host, path (with ?query), headers, bearer, session (an id, in the cookie), cookies, browser =
-- true, verify, endpoint (one of our own places), web (it came on the web port), body }. Returns the decision; tostring of it is
-- the explanation.
function policy:request(options)
  options = options or {}
  local decide = self.loaded.decide
  if options.endpoint then decide = self.loaded.answer or error("the policy has no sessions, and no such places", 2) end
  local decision = setmetatable(self.fake:decide(decide, request_of(self, options)), decision_type)
  self:raise(2)
  return decision
end

--- Moves the clock; background tasks that are due run.
function policy:advance(seconds)
  self.fake.now = self.fake.now + seconds
  self.fake:run_tasks()
  self:raise(2)
end

function policy:clear_cache() self.fake.cache = {} end

--- Fails when an address that was to be asked was not, or not as often as said.
function policy:verify()
  for _, made in ipairs(self.stubs) do
    if made.expected and made.used ~= made.expected then
      error(("%s %s was asked %d times, not %d"):format(made.method, made.url, made.used, made.expected), 2)
    elseif not made.expected and made.used == 0 then
      error(("%s %s was never asked"):format(made.method, made.url), 2)
    end
  end
end

local function make_idps(self, loaded)
  local idps = {}
  for name, spec in pairs(loaded.specs) do idps[name] = idp.new(self, name, spec) end
  return idps
end

-- The pages' templates come from the repository unless a spec brings its own.
local function from_web(_, path)
  local file = path:find("^web/") and io.open(path, "rb")
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

local function with_cluster(options)
  local env = { KUBERNETES_SERVICE_HOST = "10.0.0.1", KUBERNETES_SERVICE_PORT = "443" }
  local files = { [ACCOUNT .. "ca.crt"] = "test CA", [ACCOUNT .. "token"] = jwt { iss = CLUSTER_ISSUER, sub = "moonlatch" } }
  for name, value in pairs(options.env or {}) do env[name] = value or nil end
  if options.cluster == false then env.KUBERNETES_SERVICE_HOST = nil end
  for path, text in pairs(options.files or {}) do files[path] = text end
  return env, setmetatable(files, { __index = from_web })
end

--- Plays a policy that load(host) makes: returns the loaded policy or nil and a report. directory: where `require` of a policy
-- looks. options: see load.
function testing.play(load, directory, options)
  options = options or {}
  local self = setmetatable({ stubs = {}, kube_tokens = {}, count = 0, session_cookie = options.session_cookie or "authservice_session" },
    policy)
  local env, files = with_cluster(options)
  self.fake = fake_host.new {
    env = env, files = files, now = options.now, directory = directory,
    answer = function(request) return self:answer(request) end,
  }
  local loaded, report = load(self.fake.host)
  if not loaded then error(report, 0) end
  self.loaded, self.idps, self.report = loaded, make_idps(self, loaded), report
  self.fake:loaded(loaded.tasks)
  if options.discovery ~= false then self:discover() end
  return self
end

--- Loads a policy file. options: env = {name = text}, now = moment, files = {path = text} for read_file, session_cookie = the name of
-- the policy's session cookie when it is not the ancestor's, cluster = false (there is no API server), discovery = false (no
-- provider has been discovered yet: p:discover() does it). Raises the report when it does not load.
function testing.load(path, options)
  local file, why = io.open(path, "rb")
  if not file then error(why, 2) end
  local source = file:read("a")
  file:close()
  return testing.play(function(host) return require("moonlatch").load(host, path, source) end, path:match("^.*/") or "./", options)
end

--- Runs the background tasks that are due.
function policy:discover() self.fake:run_tasks() end

--- Compares a decision's explanation with spec/snapshots/NAME.txt; UPDATE_SNAPSHOTS=1 writes it. Returns same, wanted, got.
function testing.snapshot(name, decision)
  if not name:find("^[%w_.-]+$") then error("a snapshot's name has letters, digits, _ . - only", 2) end
  local path, got = SNAPSHOTS .. name .. ".txt", tostring(decision) .. "\n"
  if os.getenv("UPDATE_SNAPSHOTS") == "1" then
    os.execute("mkdir -p " .. SNAPSHOTS)
    local file = assert(io.open(path, "wb"))
    file:write(got)
    file:close()
    return true, got, got
  end
  local file = io.open(path, "rb")
  local wanted = file and file:read("a") or "(there is no snapshot: run with UPDATE_SNAPSHOTS=1)"
  if file then file:close() end
  return wanted == got, wanted, got
end

require("moonlatch.testing.asserts")

return testing
