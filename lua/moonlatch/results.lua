--- What policy functions answer with: accept{}, skip(), reject(), deny(), allow().
--
-- A result is told from any other table by its metatable, which policies cannot reach: nothing but these constructors
-- makes one, so that {} or { allow = true } never lets anybody in (S-522).
local results = {}

local result_type = { __name = "result" }
local outage_type = { __name = "outage", __tostring = function(self) return self.why end }

local function result(kind, fields)
  fields.kind = kind
  return setmetatable(fields, result_type)
end

local function text_or_nil(what, value)
  if value ~= nil and type(value) ~= "string" then error(what .. " takes a text, not a " .. type(value), 3) end
  return value
end

local function status_in(what, status, low, high)
  if math.type(status) ~= "integer" or status < low or status > high then
    error(("%s takes a status from %d to %d"):format(what, low, high), 3)
  end
  return status
end

--- I know this caller. fields: user (text or integer), groups (list of texts or one text), claims (table). What is not given
-- is mapped from claims by the policy's identity.
function results.accept(fields)
  local kind = type(fields) -- a read-only view of the file's own tables is a userdata
  if kind ~= "table" and kind ~= "userdata" then error('accept takes a table: accept { user = "name" }', 2) end
  return result("accept", { user = fields.user, groups = fields.groups, claims = fields.claims })
end

--- Not a credential of my kind.
function results.skip(why) return result("skip", { why = text_or_nil("skip", why) }) end

--- My kind, and bad. status: 400 to 499.
function results.reject(status, why)
  return result("reject", { status = status_in("reject", status, 400, 499), why = text_or_nil("reject", why) })
end

--- The same as true, for authorisation functions.
function results.allow() return result("allow", {}) end

--- The answer to the client. status: 400 to 599, message: plain text.
function results.deny(status, message)
  return result("deny", { status = status_in("deny", status, 400, 599), why = text_or_nil("deny", message) })
end

--- The kind of a result ("accept" ...), or nil when value is none.
function results.kind(value)
  return getmetatable(value) == result_type and value.kind or nil
end

--- What http.fetch and its like raise when the outside could not be asked: the chain answers "unavailable" where any other
-- error is the policy's fault. why: text without credentials.
function results.outage(why) return setmetatable({ why = why }, outage_type) end

--- The why of an outage, or nil when a raised value is none.
function results.outage_reason(value) return getmetatable(value) == outage_type and value.why or nil end

return results
