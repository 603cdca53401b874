--- authn.custom: the policy's own function(req) -> accept{} | skip() | reject().
local results = require("moonlatch.results")

local ANSWERS = "return accept{}, skip() or reject()"

local function name_of(value)
  if value == nil or type(value) == "boolean" then return tostring(value) end
  return "a " .. (results.kind(value) or type(value))
end

return function(_, options)
  local run = options.run
  return function(req)
    local ran, answer = pcall(run, req)
    if not ran then
      local why = results.outage_reason(answer)
      if why then return "unavailable", why end
      return "error", tostring(answer)
    end
    local kind = results.kind(answer)
    if kind == "accept" then
      return "accept", { claims = answer.claims or {}, user = answer.user, groups = answer.groups }
    end
    if kind == "skip" then return "skip", answer.why or "the function skipped" end
    if kind == "reject" then return "invalid", answer.why or "the function rejected", answer.status end
    return "error", ("the function returned %s; %s"):format(name_of(answer), ANSWERS)
  end, { credential = "header" }
end
