--- May he? Every rule must say yes (policy.md 1.3; S-523: all must allow, an error denies).
--
-- A rule is { name, pure = function(values) -> why | nil } when it depends on the identity alone, so that its verdict is kept with
-- it, or { name, run = function(view, req) -> verdict, why, status } with verdict "yes", "no", "unavailable" or "error".
local results = require("moonlatch.results")

local ASKED = {
  external = require("moonlatch.authz.external"),
  kubernetes = require("moonlatch.authz.kubernetes"),
}

local authorize = {}

local function set_of(list)
  local set = {}
  for _, item in ipairs(list) do set[item] = true end
  return set
end

-- Rules that everybody passes are no rules: nil.
local function groups_rule(options)
  local any, all = options.any and set_of(options.any), options.all and set_of(options.all)
  if any and any["*"] then any = nil end
  if all then all["*"] = nil end
  if not any and not (all and next(all)) then return nil end
  return function(values)
    local missing, found = all and set_of(options.all) or {}, not any
    missing["*"] = nil
    for _, group in ipairs(values.groups) do
      missing[group] = nil
      found = found or any[group] == true
    end
    if not found then return "none of the user's groups is allowed" end
    if next(missing) then return "the user lacks a group that is needed" end
  end
end

local function users_rule(options)
  local any = set_of(options.any)
  if any["*"] then return nil end
  return function(values)
    if not any[values.user] then return "the user is not on the list" end
  end
end

local function own_rule(run)
  return function(view, req)
    local ran, answer = pcall(run, view, req)
    if not ran then
      local why = results.outage_reason(answer)
      return why and "unavailable" or "error", why or tostring(answer)
    end
    if answer == true then return "yes" end
    if answer == false then return "no", "the policy does not allow it" end
    local kind = results.kind(answer)
    if kind == "allow" then return "yes" end
    if kind == "deny" then return "no", answer.why or "the policy does not allow it", answer.status end
    return "error", ("the function returned %s; return true, false or deny()"):format(
      answer == nil and "nil" or "a " .. (kind or type(answer)))
  end
end

-- A rule that asks somebody. What it raises is the policy's fault, unless it is an outage.
local function asking_rule(ask)
  return function(view, req)
    local ran, verdict, why = pcall(ask, view, req)
    if ran then return verdict, why end
    local outage = results.outage_reason(verdict)
    return outage and "unavailable" or "error", outage or tostring(verdict)
  end
end

--- steps: the normalised `authorize`; context: { of_bearer = whether all authenticators read Authorization, kube = function() ->
-- kube }. Returns the rules in order; raises a text for what cannot work here.
function authorize.compile(host, steps, context)
  local rules = {}
  for _, step in ipairs(steps or {}) do
    local options, rule = step.options, { name = step.options.name or step.type }
    if step.type == "groups" then
      rule.pure = groups_rule(options)
    elseif step.type == "users" then
      rule.pure = users_rule(options)
    elseif step.type == "custom" then
      rule.run = own_rule(options.run)
    elseif options.enabled ~= false then
      rule.run = asking_rule(ASKED[step.type](host, options, context))
    end
    if options.enabled ~= false and (rule.pure or rule.run) then rules[#rules + 1] = rule end
  end
  return rules
end

return authorize
