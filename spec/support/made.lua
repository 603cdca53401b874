--- Plays a normalised policy made by hand: what check would hand to compile, without check.
local compile = require("moonlatch.compile")
local testing = require("moonlatch.testing")

local made = {}

local CORP = { name = "corp", issuer = "https://login.example.com", timeout = 5 }
made.corp = CORP

--- Authenticators as the checker returns them.
function made.authn(type, options)
  options = options or {}
  local unrecognised = type == "opaque" or type == "kubernetes" or type == "introspection"
  options.invalid = options.invalid or (unrecognised and "next" or "reject")
  options.cache = options.cache or 0
  if type == "opaque" then options.provider = options.provider or CORP end
  return { kind = "authn", type = type, options = options, line = 1 }
end

function made.authz(type, options) return { kind = "authz", type = type, options = options, line = 1 } end

--- A normalised policy with the parts that the checker always fills in.
function made.policy(policy)
  policy.name, policy.timeout = policy.name or "made", 5
  policy.providers = policy.providers or { corp = CORP }
  policy.authenticators = policy.authenticators or { made.authn("opaque", { cache = 60 }) }
  policy.identity = policy.identity or {}
  policy.identity.user = policy.identity.user or { claim = { "email" } }
  policy.identity.groups = policy.identity.groups or { claim = { "groups" }, default = {} }
  policy.headers = policy.headers or { ["X-User"] = "{user}", ["X-Groups"] = "{groups}" }
  for _, spec in pairs(policy.identity) do
    spec.claim = type(spec.claim) == "string" and { spec.claim } or spec.claim
  end
  return policy
end

--- policy: a table, or a function(host) that returns one. options: of testing.load.
function made.play(policy, options)
  return testing.play(function(host)
    return compile(host, made.policy(type(policy) == "function" and policy(host) or policy)), ""
  end, "./", options)
end

return made
