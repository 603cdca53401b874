--- What rules share that ask somebody whether a user may: the answer, kept for as long as the policy says under everything that
-- was asked, so that nobody gets another question's answer (S-040). An outage is never kept, and lets nobody in.
local REFUSED_TTL = 5 -- seconds at most that a no is remembered

local function verdict(allowed, why)
  if allowed == true then return "yes" end
  if allowed == false then return "no", why end
  return "unavailable", why
end

-- It is ours to find out: nobody has asked this lately.
local function lead(host, spec, question, opened)
  local ticket <close> = opened -- whoever waits leads next if this raises
  local allowed, why = spec.ask(question)
  if allowed == true then
    host.settle(ticket, "accept", true, spec.cache)
  elseif allowed == false then
    host.settle(ticket, "refuse", why, math.min(spec.cache, REFUSED_TTL))
  else
    host.settle(ticket, "fail", why)
  end
  return verdict(allowed, why)
end

--- spec: { scope = text that tells apart who is asked and how, cache = seconds (0: every request asks), ask(question) -> true |
-- false, why | nil, why (it could not be found out) }. Returns judge(question) -> "yes" | "no" | "unavailable", why. question: text
-- that holds all that the answer depends on. Waits.
return function(host, spec)
  if spec.cache == 0 then return function(question) return verdict(spec.ask(question)) end end
  return function(question)
    local state, value = host.begin(spec.scope, "authz", question)
    if state == "hit" then return "yes" end
    if state == "lead" then return lead(host, spec, question, value) end
    return state == "refused" and "no" or "unavailable", value
  end
end
