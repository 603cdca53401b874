--- authn.custom: the policy's own function(req) -> accept{} | skip() | reject().
local plain = require("moonlatch.plain")
local results = require("moonlatch.results")

local ANSWERS = "return accept{}, skip() or reject()"

local function name_of(value)
  if value == nil or type(value) == "boolean" then return tostring(value) end
  return "a " .. (results.kind(value) or type(value))
end

-- The wrapper of an accept{}, made of copies.
local function accepted(host, answer)
  local claims = plain(host, answer.claims)
  if claims == nil then claims = {} end
  if type(claims) ~= "table" then error("accept{} takes claims as a table, not a " .. type(claims), 0) end
  return { claims = claims, user = plain(host, answer.user), groups = plain(host, answer.groups) }
end

-- What the function answered, as an outcome. Raises what the function raises.
local function ask(host, run, req)
  local answer = run(req)
  local kind = results.kind(answer)
  if kind == "accept" then return "accept", accepted(host, answer) end
  if kind == "skip" then return "skip", answer.why or "the function skipped" end
  if kind == "reject" then return "invalid", answer.why or "the function rejected", answer.status end
  return "error", ("the function returned %s; %s"):format(name_of(answer), ANSWERS)
end

return function(host, options)
  return function(req)
    local ran, outcome, value, status = pcall(ask, host, options.run, req)
    if ran then return outcome, value, status end
    local why = results.outage_reason(outcome)
    return why and "unavailable" or "error", why or tostring(outcome)
  end, { credential = "header" }
end
