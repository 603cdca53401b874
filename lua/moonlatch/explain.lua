--- One decision as text: what a failing test, `moonlatch explain` and the debug log print (policy.md 3.2).
--
--   GET app.example.com /ns/team-b/x
--     route      default
--     kubernetes skip: no bearer token in Authorization
--     opaque:corp accept: bob@example.com
--     => allow (bob@example.com)
--        X-User: bob@example.com
local WIDTH = 10 -- columns of a step's name

local VALUES = { blank = "(removed)", remove = "(removed by the policy)" }

-- Headers by name, so that the text is the same each time.
local function header_lines(lines, headers)
  local sorted = table.move(headers, 1, #headers, 1, {})
  table.sort(sorted, function(a, b) return a.name:lower() < b.name:lower() end)
  for _, header in ipairs(sorted) do
    lines[#lines + 1] = ("     %s: %s"):format(header.name, VALUES[header.op] or header.value)
  end
end

--- decision: { action, status, reason, message, user, route, steps = list of {name, outcome, reason}, headers = list of {name, value,
-- op = "set"|"blank"|"remove"}, request = {method, host, path} }.
return function(decision)
  local request = decision.request
  local lines = { ("%s %s %s"):format(request.method, request.host, request.path) }
  lines[2] = ("  %-" .. WIDTH .. "s %s"):format("route", decision.route or "default")
  for _, step in ipairs(decision.steps) do
    local why = step.reason and step.reason ~= "" and ": " .. step.reason or ""
    lines[#lines + 1] = ("  %-" .. WIDTH .. "s %s%s"):format(step.name, step.outcome, why)
  end
  if decision.action == "allow" then
    lines[#lines + 1] = ("  => allow (%s)"):format(decision.user or decision.reason)
    header_lines(lines, decision.headers)
  elseif decision.action == "answer" then
    lines[#lines + 1] = ("  => answer %d (%s)"):format(decision.status, decision.reason)
  else
    lines[#lines + 1] = ("  => deny %d (%s)"):format(decision.status, decision.message)
  end
  return table.concat(lines, "\n")
end
