-- What the specs of the language share: a check or a load on the fake host.
local fake_host = require("moonlatch.testing.fake_host")
local moonlatch = require("moonlatch")

local checking = {}

-- files: name -> text of the files beside the policy.
local function host_of(options)
  local host = fake_host.new { env = options.env, now = options.now, answer = options.answer }.host
  host.module = function(name)
    local text = (options.files or {})[name]
    return text, text and "policies/" .. name .. ".lua"
  end
  return host
end

--- report, errors, warnings
function checking.check(source, options)
  options = options or {}
  return moonlatch.check(host_of(options), options.name or "p.lua", source)
end

--- A policy around fields, with the least that a policy needs.
function checking.policy(fields)
  return 'return { api = 1, providers = { corp = { issuer = "https://login.example.com" } },\n'
    .. 'authenticators = { authn.opaque { provider = "corp" } },\n' .. fields .. "\n}"
end

--- The normalised policy; fails the test when there are errors.
function checking.normalised(source, options)
  options = options or {}
  local host = host_of(options)
  local load = require("moonlatch.load").new(host, "policies/p.lua", options.checking)
  local value, diagnostic = load:run(source)
  if diagnostic then error(diagnostic.text, 2) end
  local diagnostics, policy = require("moonlatch.check").run(host, load, value)
  if not policy then error(diagnostics[1].text, 2) end
  return policy, load, host
end

return checking
