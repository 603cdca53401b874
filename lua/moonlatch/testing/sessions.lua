--- The fake host's session store: a table. `self.sessions` maps ids to records, for specs to look at; `self.session_failure = why`
-- makes every call fail, as a store that is down does; `self.session_locks` maps ids to the moment when another replica's lock ends.
local bytes = require("moonlatch.testing.bytes")
local json = require("moonlatch.testing.json")

local sessions = {}

local PART_MAX = 65536

local function want(kind, value, what)
  if type(value) ~= kind then error(("%s takes a %s, not a %s"):format(what, kind, type(value)), 3) end
  return value
end

local function seconds(value, what)
  if want("number", value, what) ~= value or value <= 0 or value == math.huge then error(what .. " takes a positive number", 3) end
  return value
end

local function copy(value) return json.decode(json.encode(value)) end

local function live(self, id)
  local record = self.sessions[want("string", id, "a session's id")]
  if not record then return nil end
  local dead = record.ends <= self.now or record.idle and record.touched + record.idle <= self.now
  if dead then self.sessions[id] = nil end
  return not dead and not self.ended[id] and record or nil
end

local function index_of(index)
  local found = {}
  for _, kind in ipairs { "user", "subject", "sid" } do
    found[kind] = index and index[kind] and want("string", index[kind], "session_create.index")
  end
  return found
end

local function writing_functions(host, self)
  function host.session_create(options)
    want("table", want("table", options, "session_create").open, "session_create.open")
    local record = {
      open = copy(options.open), tokens = copy(want("table", options.tokens, "session_create.tokens")), revision = 1,
      ends = self.now + seconds(options.lifetime, "session_create.lifetime"), touched = self.now,
      idle = options.idle and seconds(options.idle, "session_create.idle"), index = index_of(options.index),
    }
    if #json.encode(record.open) + #json.encode(record.tokens) > PART_MAX then return nil, "the session is larger than 64 KiB" end
    if self.session_failure then return nil, self.session_failure end
    self.session_count = self.session_count + 1
    local id = "mls_" .. bytes.base64_encode(("%032d"):format(self.session_count), true)
    self.sessions[id] = record
    return id
  end
  function host.session_replace(id, revision, open, tokens)
    local record = live(self, id)
    if math.type(revision) ~= "integer" then error("session_replace takes a revision", 2) end
    open, tokens = copy(want("table", open, "session_replace")), copy(want("table", tokens, "session_replace"))
    if self.session_failure then return nil, "failed", self.session_failure end
    if not record then return nil, "none" end
    if record.revision ~= revision then return nil, "conflict" end
    record.open, record.tokens, record.revision, record.touched = open, tokens, revision + 1, self.now
    return true
  end
  function host.session_delete(id)
    self.ended[want("string", id, "session_delete")] = true
    if self.session_failure then return nil, self.session_failure end
    self.sessions[id] = nil
    return true
  end
  function host.session_kill(kind, value)
    if kind ~= "user" and kind ~= "subject" and kind ~= "sid" then error("session_kill: user, subject or sid", 2) end
    want("string", value, "session_kill")
    if self.session_failure then return nil, self.session_failure end
    local count = 0
    for id, record in pairs(self.sessions) do
      if record.index[kind] == value then
        count = count + (live(self, id) and 1 or 0)
        self.sessions[id], self.ended[id] = nil, true
      end
    end
    return count
  end
end

local function reading_functions(host, self)
  function host.session_read(id)
    local record = live(self, id)
    if self.session_failure and not self.ended[id] then return "failed", self.session_failure end
    if not record then return "none" end
    record.touched = self.now
    return "hit", record.open
  end
  function host.session_tokens(id)
    local record = live(self, id)
    if self.session_failure and not self.ended[id] then return nil, "failed", self.session_failure end
    if not record then return nil, "none" end
    return copy(record.tokens), record.revision
  end
  function host.session_lock(id, life)
    want("string", id, "session_lock")
    local ends = self.now + seconds(life, "session_lock")
    if self.session_failure then return "failed", self.session_failure end
    if (self.session_locks[id] or 0) > self.now then return "taken" end
    self.session_locks[id] = ends
    return "ours"
  end
  function host.session_unlock(id) self.session_locks[want("string", id, "session_unlock")] = nil end
end

--- Adds the session functions to host. can_wait(self) raises where nothing may wait.
function sessions.add(host, self, can_wait)
  self.sessions, self.session_locks, self.session_count, self.ended = {}, {}, 0, {}
  local functions = {}
  writing_functions(functions, self)
  reading_functions(functions, self)
  for name, fn in pairs(functions) do
    host[name] = function(...)
      if name ~= "session_unlock" then can_wait(self) end
      return fn(...)
    end
  end
end

return sessions
