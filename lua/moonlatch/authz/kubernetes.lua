--- authz.kubernetes: the cluster's own rules decide (SubjectAccessReview): may this user do this to that resource?
local asked = require("moonlatch.authz.asked")
local plain = require("moonlatch.plain")

local TIMEOUT = 3 -- seconds
local TEXT_MAX = 1024
local REFUSED = "the cluster does not allow it"

-- An attribute of the policy: a text, or what its function says.
local function attribute(options, name, id, req)
  local value = options[name]
  if type(value) == "function" then
    value = value(id, req)
    if type(value) ~= "string" then error(("the function of %s must return a text, not a %s"):format(name, type(value)), 0) end
  end
  local needed = name == "verb" or name == "resource"
  if needed and value == "" then error(name .. " is empty", 0) end
  if value and #value > TEXT_MAX then error(name .. " is longer than 1024 bytes", 0) end
  return value
end

-- Who asks. Names that begin with system: are the cluster's own: only its own tokens may bring them, or a provider that puts
-- system:masters into groups would make administrators of the cluster.
local function subject(host, id)
  local user, groups, ours = id.user, plain(host, id.groups), id.method == "kubernetes"
  if ours then return user, groups, type(id.claims.uid) == "string" and id.claims.uid or nil end
  if user:find("^system:") then return nil end
  local kept = {}
  for _, group in ipairs(groups) do
    if not group:find("^system:") then kept[#kept + 1] = group end
  end
  return user, kept
end

--- context: { kube = function() -> kube }. Returns run(id, req) -> verdict, why. Raises what the policy's own functions raise.
return function(host, options, context)
  local cluster, cache = context.kube(), options.cache or 0
  local judge = asked(host, {
    scope = "subject access " .. host.sha256(host.json_encode { cluster.url, cache }), cache = cache,
    ask = function(question)
      local allowed, why = cluster:access_review(question, TIMEOUT)
      if allowed == false then return false, REFUSED end
      return allowed, why
    end,
  })
  return function(id, req)
    local user, groups, uid = subject(host, id)
    if not user then return "no", "the user's name is one of the cluster's own" end
    return judge(cluster:access_question {
      user = user, groups = groups, uid = uid, verb = attribute(options, "verb", id, req),
      resource = attribute(options, "resource", id, req), group = attribute(options, "group", id, req),
      namespace = attribute(options, "namespace", id, req),
    })
  end
end
