-- A library for the tests of src/script: a policy file returns what the real library would make of it.
local moonlatch = {}

local function run(host, filename, source)
  local env = host.base()
  env.host = host
  env.require_library = require
  local chunk, why = host.load_chunk(source, "@" .. filename, env)
  if not chunk then error(why, 0) end
  return chunk()
end

function moonlatch.load(host, filename, source)
  local ok, policy, report = xpcall(run, function(e) return e end, host, filename, source)
  if not ok then return nil, "bad policy: " .. tostring(policy) end
  if not policy then return nil, report or "no policy" end
  policy.report = policy.report or ""
  return policy
end

function moonlatch.check(host, filename, source)
  local policy, report = moonlatch.load(host, filename, source)
  if not policy then return report, 1, 0 end
  return policy.report, 0, policy.report == "" and 0 or 1
end

return moonlatch
