--- What may stand in a header value. The host refuses control characters as well; this says why, and refuses what a server
-- behind us might read as a line end or trim away.
local text = {}

text.MAX = 16384 -- bytes of one value

--- Why a value cannot be sent as it is, or nil (RFC 9110 section 5.5; S-032). The length comes first: patterns are bounded.
function text.problem(host, value)
  if #value > text.MAX then return "is longer than 16 KiB" end
  if value:find("^[ -~]*$") then return nil end -- printable ASCII: the usual case
  if value:find("[\0-\31\127]") then return "has a control character" end
  if not host.utf8_ok(value) then return "is not valid UTF-8" end
  if value:find("\xC2[\x80-\x9F]") or value:find("\xE2\x80[\xA8\xA9]") then return "has a control character" end
end

--- The same for names that decide: who somebody is must not change when a space is trimmed.
function text.name_problem(host, value)
  if #value <= text.MAX and value:find("^[!-~]+$") then return nil end -- the usual name: printable ASCII without spaces
  local first, last = value:sub(1, 1), value:sub(-1)
  if first == " " or first == "\t" or last == " " or last == "\t" then return "begins or ends with a space" end
  return text.problem(host, value)
end

--- Is value a list of texts? Empty tables are.
function text.is_list(value)
  if type(value) ~= "table" then return false end
  local n = 0
  for _, item in pairs(value) do
    n = n + 1
    if type(item) ~= "string" then return false end
  end
  return n == #value
end

return text
