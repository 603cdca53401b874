--- Header templates: "{user}", "{level}; via={method}", "{claims.department|none}".
--
-- A template is text with fields in braces. A field is a name and, behind a bar, what to send when it has no value.
local template = {}

local FIELDS_MAX = 16

--- parts | nil, why. A part is a text, or { field = "claims.department", default = text or nil }.
function template.parse(text)
  local parts, at, fields = {}, 1, 0
  while at <= #text do
    local brace = text:find("[{}]", at)
    if brace ~= at then parts[#parts + 1] = text:sub(at, (brace or #text + 1) - 1) end
    if not brace then break end
    local inside = text:match("^{([^{}]*)}", brace)
    if not inside then return nil, "a { or } has no partner" end
    local field, default = inside:match("^([^|]+)|?(.*)$")
    if not field then return nil, "a field is empty" end
    fields = fields + 1
    if fields > FIELDS_MAX then return nil, ("there are more than %d fields"):format(FIELDS_MAX) end
    parts[#parts + 1] = { field = field, default = inside:find("|", 1, true) and default or nil }
    at = brace + #inside + 2
  end
  return parts
end

return template
