--- Assertions about decisions for busted; their failures print the explanation. Without luassert this does nothing.
local found, assert = pcall(require, "luassert")
if not found then return false end

local function register(name, check)
  assert:register("assertion", name, function(state, arguments)
    local expectation = check(table.unpack(arguments, 1, arguments.n))
    if not expectation then return true end
    state.failure_message = ("Expected %s, but:\n%s"):format(expectation, tostring(arguments[1]))
    return false
  end)
end

local function header_of(decision, name)
  for _, header in ipairs(decision.headers or {}) do
    if header.name:lower() == name:lower() then return header end
  end
end

register("allowed", function(d)
  return d.action ~= "allow" and "the request to be allowed" or nil
end)

-- A denial that is no outage: 503 has its own assertion.
register("denied", function(d, status, text)
  local ended = d.action == "deny" or d.action == "answer"
  local right = ended and (status == nil or d.status == status) and (status == 503 or d.reason ~= "unavailable")
  if not right then return "the request to be denied" .. (status and " with " .. status or "") end
  if text and not tostring(d):find(text, 1, true) then return ('the denial to say "%s"'):format(text) end
end)

register("login", function(d)
  return (d.action ~= "deny" or d.reason ~= "login" or d.status ~= 302) and "the request to be sent to the login page" or nil
end)

register("unavailable", function(d, text)
  if d.action ~= "deny" or d.status ~= 503 or d.reason ~= "unavailable" then return "the answer to be 503, unavailable" end
  if text and not tostring(d):find(text, 1, true) then return ('the answer to say "%s"'):format(text) end
end)

register("sends", function(d, headers)
  for name, value in pairs(headers) do
    local header = header_of(d, name)
    if not header or header.value ~= value then return ("%s: %s to be sent"):format(name, value) end
  end
end)

register("removes", function(d, name)
  local header = header_of(d, name)
  return (not header or header.op == "set") and name .. " to be removed" or nil
end)

register("steps", function(d, wanted)
  local steps = {}
  for i, step in ipairs(d.steps) do steps[i] = step.name .. ":" .. step.outcome end
  return table.concat(steps, " ") ~= wanted and "the steps " .. wanted or nil
end)

return true
