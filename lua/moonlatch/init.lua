--- Moonlatch's policy library: the entry for the server and for specs.
--
-- moonlatch.load(host, filename, source) -> policy | nil, report
-- moonlatch.check(host, filename, source) -> report, errors, warnings
-- report: what operators read, one diagnostic after the other; "" when there is nothing to say. policy: see
-- docs/architecture.md.
local check = require("moonlatch.check")
local compile = require("moonlatch.compile")
local load = require("moonlatch.load")
local report = require("moonlatch.report")

local moonlatch = {}

-- Runs and checks. Returns the load, the diagnostics, and the normalised policy when there is no error.
local function examine(host, filename, source, checking)
  local loading = load.new(host, filename, checking)
  local value, diagnostic = loading:run(source)
  if diagnostic then return loading, { diagnostic } end
  return loading, check.run(host, loading, value)
end

local function render(loading, diagnostics) return report.render(diagnostics, loading.sources, loading.files) end

--- Says what is wrong with a policy, without using it: secrets need not be set, and no cluster is asked for.
function moonlatch.check(host, filename, source)
  local loading, diagnostics = examine(host, filename, source, true)
  return render(loading, diagnostics)
end

--- Makes a policy ready to decide.
function moonlatch.load(host, filename, source)
  local loading, diagnostics, checked = examine(host, filename, source, false)
  if not checked then return nil, (render(loading, diagnostics)) end
  local ok, made = xpcall(function()
    if loading.uses_kube then loading.cluster = require("moonlatch.kube").connect(host) end
    local made = compile(host, checked, loading.uses_jwt)
    loading.providers = made.by_name
    return made
  end, tostring)
  if not ok then
    diagnostics[#diagnostics + 1] = { file = filename, line = 1, column = 1, level = "error", code = "load", text = made }
    return nil, (render(loading, diagnostics))
  end
  made.name, made.timeout = checked.name, checked.timeout
  made.report = render(loading, diagnostics)
  return made
end

return moonlatch
