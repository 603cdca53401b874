--- A provider's keys (JWK Set, RFC 7517 section 5): on the board, where host.jwt_verify finds them.
--
-- A background task reads them again when the answer's max-age has passed; a token signed by a key that is not there has
-- them read at once, but at most each 10 seconds whoever asks (S-049). The last good set is kept through failures. A set that
-- the policy has in a file (jwks_file) is what it is until the policy is loaded again; the provider is not asked for keys.
local jwks = {}
jwks.__index = jwks

local KEEP, KEEP_MIN, KEEP_MAX = 900, 300, 86400 -- seconds between readings: without max-age; its limits
local RETRY_MAX = 30
local UNDISCOVERED = 0.2 -- seconds between two looks for the keys' address
local LOOK = 1       -- seconds between two looks at what there is to do
local PAUSE = 10     -- seconds between two readings that tokens ask for
local KEYS_MAX = 64


-- RFC 9111 section 5.2.2.1.
local function keep_seconds(answer)
  local seconds = tonumber((answer.headers["cache-control"] or ""):lower():match("max%-age%s*=%s*\"?(%d+)")) or KEEP
  return math.max(KEEP_MIN, math.min(KEEP_MAX, seconds))
end

local function accept_keys(body)
  if type(body) ~= "table" or type(body.keys) ~= "table" then return nil, "no JWK Set" end
  if #body.keys == 0 then return nil, "the set has no keys" end
  if #body.keys > KEYS_MAX then return nil, "the set has more than 64 keys" end
  return { keys = body.keys }
end

-- The set of a file. Raises a text when it is none.
local function read_file(host, provider)
  local text, why = host.read_file(provider.jwks_file)
  local body, broken = nil, nil
  if text then body, broken = host.json_decode(text) end
  local set, bad = accept_keys(body)
  if not set then error(("provider '%s': %s: %s"):format(provider.name, provider.jwks_file, why or broken or bad), 0) end
  return set, text
end

--- While loading only. Raises a text when jwks_file cannot be used.
function jwks.new(provider)
  local host = provider.host
  local self = setmetatable({ host = host, provider = provider }, jwks)
  local source = provider.jwks_url or ""
  if provider.jwks_file then self.pinned, source = read_file(host, provider) end
  self.board = "jwks " .. host.sha256(provider.board .. source):sub(1, 16) .. " " .. provider.issuer
  self.asked = self.board .. " asked"
  return self
end

-- The set and the seconds that it is good for, or nil and why.
local function fetch(self)
  if self.pinned then return self.pinned, KEEP_MAX end
  local host, url, why = self.host, self.provider:keys_url()
  if not url then return nil, why end
  local answer, down = host.fetch {
    upstream = self.provider.upstream, method = "GET", url = url, timeout = self.provider.timeout,
    headers = { accept = "application/json" },
  }
  if not answer then return nil, down end
  if answer.status ~= 200 then return nil, "the keys' address answered " .. answer.status end
  local body, broken = host.json_decode(answer.body)
  local set, bad = accept_keys(body)
  if not set then return nil, "keys: malformed answer: " .. (broken or bad) end
  return set, keep_seconds(answer)
end

-- Reads and posts. Returns the seconds until the next reading, or nil and why.
local function read(self)
  local ran, set, keep = pcall(fetch, self)
  if not ran then set, keep = nil, tostring(set) end
  if set then
    self.host.post(self.board, set)
    return keep
  end
  self.host.post_failure(self.board, keep)
  self.host.log("warn", "a provider's keys could not be read", { provider = self.provider.name, why = keep })
  return nil, keep
end

-- A reading that a request asked for, from its beginning to its end.
local function read_for_token(self)
  local at = self.host.now()
  self.host.post(self.asked, { at = at })
  local done = read(self)
  self.host.post(self.asked, { at = at, over = self.host.now(), done = done ~= nil })
  return done
end

-- Whether a request began a reading and did not end it: its client went away. Else whoever goes away could keep new keys from us.
local function is_abandoned(self)
  local last = self.host.read(self.asked)
  return last ~= nil and not last.over and self.host.now() - last.at >= LOOK
end

-- One look of the background task at what there is to do. state: { at = when it read last, keep = seconds until the next reading,
-- failures }. Returns the seconds until the next look.
local function look(self, state)
  if not self.pinned and not self.provider:keys_url() then return UNDISCOVERED end -- the provider's own task says why
  local now, abandoned = self.host.now(), is_abandoned(self)
  if not abandoned and state.at and now - state.at < state.keep and now >= state.at then return LOOK end
  local keep = abandoned and read_for_token(self) or not abandoned and read(self)
  state.at, state.failures = self.host.now(), keep and 0 or state.failures + 1
  state.keep = keep or math.min(RETRY_MAX, 2 ^ math.min(state.failures - 1, 10))
  return LOOK
end

--- The background task: never returns.
function jwks:task()
  return function()
    local state = { failures = 0 }
    while true do self.host.sleep(look(self, state)) end
  end
end

--- For a token whose key is not there: reads the keys again, unless that was done less than 10 s ago. One reading at a time;
-- the others wait for it. Waits. Whether the set may have changed since the caller looked.
function jwks:refresh()
  local host = self.host
  if self.pinned then return not host.read(self.board) and read(self) ~= nil end
  local state, value = host.begin("jwks", "refresh", self.board)
  if state ~= "lead" then return state == "hit" end
  local ticket <close> = value
  local last = host.read(self.asked)
  if last and math.abs(host.now() - last.at) < PAUSE then
    host.settle(ticket, "fail", "the keys were read just now")
    return last.done == true and host.now() - last.over < LOOK -- perhaps while the caller looked
  end
  local done = read_for_token(self) ~= nil
  host.settle(ticket, done and "accept" or "fail", done and {} or "the keys could not be read", 0)
  return done
end

return jwks
