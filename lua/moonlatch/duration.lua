--- Durations are text with a unit: "500ms" "30s" "5m" "1h". A bare number has no unit and is refused.
local duration = {}

duration.EXAMPLES = '"500ms", "30s", "5m", "1h"'

local UNITS = { ms = 0.001, s = 1, m = 60, h = 3600 }
local MAX = 366 * 24 * 3600

--- Seconds of a text, or nil when it is no duration (or one of more than a year).
function duration.seconds(text)
  if type(text) ~= "string" then return nil end
  local number, unit = text:match("^(%d+%.?%d*)(%l+)$")
  local factor = UNITS[unit]
  if not factor or #number > 12 then return nil end
  local seconds = tonumber(number) * factor
  if seconds > MAX then return nil end
  return seconds
end

return duration
