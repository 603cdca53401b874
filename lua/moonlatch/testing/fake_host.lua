--- The host seam in plain Lua, for specs under busted. host.lua is the contract; spec/lua/host_contract_spec.lua checks this
-- file and the server against it. Nothing here opens a socket: `answer` of new() is asked for what the outside says.
local bytes = require("moonlatch.testing.bytes")
local jose = require("moonlatch.testing.jose")
local json = require("moonlatch.testing.json")
local regex = require("moonlatch.testing.regex")
local sandbox = require("moonlatch.testing.sandbox")
local seal = require("moonlatch.testing.seal")
local sessions = require("moonlatch.testing.sessions")

local fake_host = {}

local FILE_MAX = 1048576

local function want(kind, value, what)
  if type(value) ~= kind then error(("%s takes a %s, not a %s"):format(what, kind, type(value)), 3) end
  return value
end

local function printable(value, without)
  if type(value) ~= "string" or not value:find("^[ -~]+$") then return nil end
  for byte in (without or ""):gmatch(".") do
    if value:find(byte, 1, true) then return nil end
  end
  return #value
end

local function text_functions(host)
  host.json_decode, host.json_encode, host.json_list = json.decode, json.encode, json.list
  host.base64_encode = function(text, url) return bytes.base64_encode(want("string", text, "base64_encode"), url) end
  host.base64_decode = function(text, url) return bytes.base64_decode(want("string", text, "base64_decode"), url) end
  host.sha256 = function(text) return bytes.sha256(want("string", text, "sha256")) end
  host.equals = function(a, b) return want("string", a, "equals") == want("string", b, "equals") end
  host.url_escape = function(text) return bytes.url_escape(want("string", text, "url_escape")) end
  host.url_parse = function(text) return bytes.url_parse(want("string", text, "url_parse")) end
  host.utf8_ok = function(text) return utf8.len(want("string", text, "utf8_ok")) ~= nil end
  host.b64token = function(text) return want("string", text, "b64token"):find("^[%w%-%._~%+/=]+$") ~= nil end
  host.printable = function(value, without)
    if type(value) ~= "table" then return printable(value, without) end
    local total, items = 0, 0
    for key, item in pairs(value) do
      local n = printable(item, without)
      if not n or math.type(key) ~= "integer" or key < 1 or key > #value then return nil end
      total, items = total + n, items + 1
    end
    if items == #value then return total, items end
  end
  -- JSON is YAML; block style is left to the server.
  host.yaml_decode = function(text)
    local value, why = json.decode(want("string", text, "yaml_decode"))
    return value, why and "the fake host reads YAML only in its JSON form: " .. why
  end
end

local function read_disk(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local text = file:read(FILE_MAX + 1)
  file:close()
  return text
end

local function loading_functions(host, self)
  local function loading(what)
    if not self.loading then error(what .. " works only while loading", 3) end
  end
  function host.env(name) loading("env") return self.env[want("string", name, "env")] end
  function host.secret(name)
    loading("secret")
    local value = self.env[want("string", name, "secret")]
    return value and sandbox.secret(name, value) or nil
  end
  function host.read_file(path)
    loading("read_file")
    local text = self.files[want("string", path, "read_file")]
    if text == nil then return nil, "no such file" end
    if #text > FILE_MAX then return nil, "longer than 1 MiB" end
    return text
  end
  function host.module(name)
    loading("module")
    if not want("string", name, "module"):find("^[%w_]+$") then return nil end
    local path = self.directory .. name .. ".lua"
    local source = read_disk(path)
    return source, source and path or nil
  end
  function host.regex(pattern)
    loading("regex")
    return regex.compile(want("string", pattern, "regex"))
  end
  function host.upstream(options)
    loading("upstream")
    want("string", options.name, "upstream.name")
    if options.ca_file and options.ca_file ~= "" and not self.files[options.ca_file] then
      return nil, options.ca_file .. ": no such file"
    end
    return { name = options.name, options = options }
  end
  function host.load_chunk(source, name, env) return load(want("string", source, "load_chunk"), name, "t", env) end
  host.base, host.readonly = sandbox.base, sandbox.readonly
end

local function sent_header(value)
  if type(value) == "table" and not sandbox.revealed(value) then
    return sent_header(value[1]) .. sent_header(value[2])
  end
  return sandbox.revealed(value) or want("string", value, "a header of fetch")
end

local function can_wait(self)
  if self.loading then error("cannot wait here", 3) end
end

local function outside_functions(host, self)
  function host.fetch(request)
    can_wait(self)
    local headers = {}
    for name, value in pairs(request.headers or {}) do headers[name:lower()] = sent_header(value) end
    local options = request.upstream and request.upstream.options or {}
    if options.token_file then
      local token = self.files[options.token_file]
      if not token then return nil, "the token file cannot be read" end
      headers.authorization = "Bearer " .. token:match("^%s*(.-)%s*$")
    end
    return self.answer {
      method = request.method or "GET", url = want("string", request.url, "fetch.url"), headers = headers, body = request.body,
      timeout = request.timeout,
    }
  end
  function host.bearer_get(upstream, url, token, timeout)
    if want("string", token, "bearer_get") == "" then error("bearer_get: this token cannot be sent", 2) end
    local answer, why = host.fetch {
      upstream = upstream, url = url, timeout = timeout, headers = { authorization = "Bearer " .. token, accept = "application/json" },
    }
    if not answer then return nil, why end
    return answer.status, answer.body, answer.headers["content-type"], answer.headers["www-authenticate"]
  end
  function host.sleep(seconds)
    if not self.in_task then error("cannot wait here", 2) end
    coroutine.yield(want("number", seconds, "sleep"))
  end
  function host.post(name, value)
    self.board[want("string", name, "post")] = { value = json.decode(json.encode(value)) }
  end
  function host.post_failure(name, why)
    local entry = self.board[want("string", name, "post_failure")]
    self.board[name] = { value = entry and entry.value, why = want("string", why, "post_failure") }
  end
  function host.read(name)
    local entry = self.board[want("string", name, "read")]
    if entry and entry.value ~= nil then return entry.value end
    return nil, entry and entry.why
  end
end

local function cache_key(scope, name, credential)
  return ("s4s4s4"):pack(want("string", scope, "scope"), want("string", name, "name"), want("string", credential, "credential"))
end

local function live(self, key)
  local entry = self.cache[key]
  if entry and entry.until_ > self.now then return entry end
  self.cache[key] = nil
end

local function cache_functions(host, self)
  local open = {}
  local ticket_type = { __name = "ticket" }
  function ticket_type.__close(ticket) open[ticket.key] = nil end
  local function keep(key, state, value, ttl)
    if want("number", ttl, "ttl") > 0 then self.cache[key] = { state = state, value = value, until_ = self.now + ttl } end
  end
  function host.begin(scope, name, credential)
    can_wait(self)
    local key = cache_key(scope, name, credential)
    local entry = live(self, key)
    if entry then return entry.state, entry.value end
    if open[key] then error("the fake host would wait here for ever: this key is led already", 2) end
    open[key] = true
    return "lead", setmetatable({ key = key }, ticket_type)
  end
  function host.settle(ticket, how, value, ttl, expires)
    if getmetatable(ticket) ~= ticket_type then error("settle takes a ticket", 2) end
    if not open[ticket.key] then error("this ticket is settled already", 2) end
    open[ticket.key] = nil
    if how == "accept" then
      value = json.decode(json.encode(value))
      if expires then ttl = math.min(want("number", ttl, "ttl"), expires - self.now) end
      keep(ticket.key, "hit", value, ttl)
      return value
    end
    want("string", value, "why")
    if how == "refuse" then keep(ticket.key, "refused", value, ttl)
    elseif how ~= "fail" then error("settle: accept, refuse or fail", 2) end
  end
  function host.cache_get(scope, name, credential)
    local entry = live(self, cache_key(scope, name, credential))
    return entry and entry.value
  end
  function host.cache_set(scope, name, credential, value, ttl)
    keep(cache_key(scope, name, credential), "hit", json.decode(json.encode(value)), ttl)
  end
  function host.cache_delete(scope, name, credential) self.cache[cache_key(scope, name, credential)] = nil end
end

local function no_control(value, what)
  if value:find("[\0-\31\127]") then error(what .. " has control characters", 3) end
  return value
end

local REASONS = { unauthenticated = true, denied = true, unavailable = true, error = true, login = true }

-- headers: name to text, or to a list of texts.
local function check_lines(headers)
  for name, value in pairs(headers or {}) do
    for _, line in ipairs(type(value) == "table" and value or { value }) do no_control(want("string", line, name), name) end
  end
end

local function decision_functions(host, self)
  local function current(req)
    if self.decision == nil or self.decision.req ~= req then error("this request has ended", 3) end
    return self.decision
  end
  local function open(req)
    local decision = current(req)
    if decision.action then error("this request is decided already", 3) end
    return decision
  end
  function host.plan(names, kinds)
    if not self.loading then error("plan works only while loading", 2) end
    for i, name in ipairs(names) do
      if not name:find("^[%w!#$%%&'*+.^_`|~-]+$") then error(name .. " is no header name", 2) end
      if kinds[i] ~= "set" and kinds[i] ~= "remove" then error("a plan's kinds are set and remove", 2) end
    end
    return { names = names, kinds = kinds }
  end
  function host.allow(req, plan, user, reason, ...)
    local decision, sent = open(req), {}
    for i, name in ipairs(plan.names) do
      local value = select(i, ...)
      if plan.kinds[i] == "remove" then value = nil end
      sent[i] = { name = name, value = value and no_control(want("string", value, name), name), op = value and "set" or
        (plan.kinds[i] == "remove" and "remove" or "blank") }
    end
    if reason ~= "allowed" and reason ~= "public" then error("allow: allowed or public", 2) end
    decision.action, decision.status, decision.user, decision.reason, decision.headers = "allow", 200, user, reason, sent
  end
  function host.deny(req, status, reason, message, headers)
    local decision = open(req)
    if math.type(status) ~= "integer" or status < 301 or status > 599 then error("deny: a status from 301 to 599", 2) end
    if not REASONS[reason] then error("deny: an unknown reason", 2) end
    check_lines(headers)
    decision.action, decision.status, decision.reason = "deny", status, reason
    decision.message, decision.client_headers = want("string", message, "deny"), headers or {}
  end
  function host.answer(req, status, reason, content_type, body, headers)
    local decision = open(req)
    if not req.endpoint and status < 400 then error("answer: of a check only a denial", 2) end
    if math.type(status) ~= "integer" or status < 200 or status > 599 then error("answer: the status", 2) end
    if status < 300 and status ~= 201 and not req.web then error("answer: the status", 2) end
    if not REASONS[reason] then error("answer: an unknown reason", 2) end
    check_lines(headers)
    decision.action, decision.status, decision.reason = "answer", status, reason
    decision.content_type, decision.body = no_control(content_type or "", "content type"), body or ""
    decision.message, decision.client_headers = decision.body, headers or {}
  end
  function host.pass(req)
    local decision = open(req)
    if not req.endpoint or req.web then error("pass: this request is no place of ours on the check port", 2) end
    decision.action, decision.status, decision.reason, decision.headers = "allow", 200, "public", {}
  end
  function host.step(req, name, outcome, reason)
    local steps = current(req).steps
    steps[#steps + 1] = { name = want("string", name, "step"), outcome = want("string", outcome, "step"), reason = reason }
  end
  function host.credential(req, name) return req:credential(name) end
  function host.cookie(req, name) return req.cookies[name] end
  function host.route(req, name) current(req).route = want("string", name, "route") end
  function host.log(level, message, fields) self.log[#self.log + 1] = { level = level, message = message, fields = fields or {} } end
end

--- options: env {name = text}, files {path = text}, directory (of the policy), now, answer = function(request) -> {status,
-- headers, body} | nil, why. Returns a control object: .host is the seam, .calls counts calls of it by name in a decision, .log,
-- .board and .now can be looked at.
function fake_host.new(options)
  local self = {
    env = options.env or {}, files = options.files or {}, directory = options.directory or "./", now = options.now or 1700000000,
    answer = options.answer or function() return nil, "connection refused" end, loading = true, cache = {}, board = {}, log = {},
    calls = {}, tasks = {},
  }
  local host = { now = function() return self.now end }
  text_functions(host)
  loading_functions(host, self)
  outside_functions(host, self)
  cache_functions(host, self)
  seal.add(host, self)
  jose.add(host)
  sessions.add(host, self, can_wait)
  decision_functions(host, self)
  for name, fn in pairs(host) do
    host[name] = function(...)
      if self.decision then self.calls[name] = (self.calls[name] or 0) + 1 end
      return fn(...)
    end
  end
  self.host = host
  return setmetatable(self, { __index = fake_host })
end

--- Loading is over: env, regex and their like raise from now on. tasks: the policy's background tasks.
function fake_host:loaded(tasks)
  self.loading = false
  for _, task in ipairs(tasks or {}) do self.tasks[#self.tasks + 1] = { run = coroutine.create(task), due = self.now } end
end

--- Runs each background task until all sleep past the present moment.
function fake_host:run_tasks()
  for _, task in ipairs(self.tasks) do
    while task.due <= self.now do
      self.in_task = true
      local ran, wait = coroutine.resume(task.run)
      self.in_task = false
      if not ran then error("a background task ended: " .. tostring(wait), 0) end
      task.due = self.now + math.max(wait, 0.001)
    end
  end
end

--- Decides. request: see sandbox.request. Returns the decision: { action, status, reason, message, user, route, steps, headers =
-- list of {name, value, op}, client_headers, request, calls }.
function fake_host:decide(decide, request)
  self.calls = {}
  local req, finish = sandbox.request(request, function() self.calls.req = (self.calls.req or 0) + 1 end)
  local decision = { req = req, steps = {}, request = request }
  self.decision = decision
  local ran, why = pcall(decide, req)
  self.decision = nil
  finish()
  decision.req, decision.calls = nil, self.calls
  if not ran then
    decision.fault = why
    decision.steps[#decision.steps + 1] = { name = "policy", outcome = "error", reason = tostring(why) }
  end
  if not ran or not decision.action then
    decision.action, decision.status, decision.reason = "deny", 503, "error"
    decision.message, decision.client_headers, decision.headers = "the policy failed", {}, nil
  end
  return decision
end

return fake_host
