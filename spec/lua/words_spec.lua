local checking = require("checking")
local fake_host = require("moonlatch.testing.fake_host")
local results = require("moonlatch.results")

-- A policy whose name tells what an expression came to.
local function named(expression) return "return { api = 1, authenticators = { authn.anonymous { } }, name = tostring(" .. expression .. ") }" end

local function value_of(expression, env, files) return checking.normalised(named(expression), { env = env, files = files }).name end

local function problem_of(source, options)
  local report = checking.check(source, options)
  return report:match("^[^\n]*") or report
end

describe("env", function()
  it("reads variables and defaults; empty counts as set", function()
    assert.equal("x", value_of('env("A")', { A = "x" }))
    assert.equal("d", value_of('env("A", "d")', {}))
    assert.equal("0", value_of('#env("A", "d")', { A = "" }))
  end)

  for _, word in ipairs { "1", "t", "T", "true", "True", "TRUE", "on", "yes" } do
    it("takes " .. word .. " for true", function() assert.equal("true", value_of('env.bool("A")', { A = word })) end)
  end
  for _, word in ipairs { "0", "f", "F", "false", "False", "FALSE", "off", "no" } do
    it("takes " .. word .. " for false", function() assert.equal("false", value_of('env.bool("A", true)', { A = word })) end)
  end
  it("takes nothing else for a boolean", function()
    for _, word in ipairs { "", "2", "ON", "maybe", " true" } do
      local why = problem_of(named 'env.bool("STRICT")', { env = { STRICT = word } })
      assert.equal("p.lua:1:1: error[load]: STRICT must be true or false, on or off, yes or no, 1 or 0", why)
    end
  end)

  it("splits lists at commas and trims", function()
    assert.equal("a|b c|d", value_of('table.concat(env.list("A"), "|")', { A = " a ,, b c, ,d," }))
    assert.equal("0", value_of('#env.list("A", "x")', { A = "" }))
    assert.equal("x|y", value_of('table.concat(env.list("A", "x,y"), "|")', {}))
    assert.equal("x,y", value_of('env.list("A", { "x,y" })[1]', {}))
  end)

  it("decodes JSON", function()
    assert.equal("7", value_of('env.json("A").x', { A = '{"x":7}' }))
    assert.equal("0", value_of('#env.json("A", "[]")', {}))
    assert.equal("0", value_of('#env.json("A", "[]")', { A = "" }))
    local why = problem_of(named 'env.json("A")', { env = { A = "{" } })
    assert.truthy(why:find("p.lua:1:1: error[load]: A is no JSON: ", 1, true), why)
  end)

  it("names the variable that is missing", function()
    for _, call in ipairs { 'env("OIDC_PROVIDER")', 'env.bool("OIDC_PROVIDER")', 'env.list("OIDC_PROVIDER")', 'env.json("OIDC_PROVIDER")' } do
      local why = problem_of("local x = 1\n" .. named(call))
      assert.equal("p.lua:2:1: error[load]: OIDC_PROVIDER is not set; the policy needs it", why)
    end
  end)

end)

describe("the environment", function()
  -- what is tried at load, what the operator reads
  for _, case in ipairs {
    { "authn.kubernets { }", "there is no authn.kubernets; did you mean authn.kubernetes?" },
    { "authn.kubernetes = 1", "authn cannot be changed" },
    { "json.encode = 1", "json cannot be changed" },
    { "accept = skip", "write 'local accept = ...'; a policy has no global variables" },
    { "x = 1", "write 'local x = ...'; a policy has no global variables" },
    { "_ENV.x = 1", "write 'local x = ...'" },
    { "_ENV.accept = 1", "write 'local accept = ...'" },
    { "return setmetatable({}, {})", "a policy has no 'setmetatable'" },
    { "return getmetatable('')", "a policy has no 'getmetatable'" },
    { "print('x')", "a policy has no 'print'; use log.info(\"text\")" },
    { "return io.open('/etc/passwd')", "a policy has no 'io'" },
    { "return load('return 1')", "a policy has no 'load'" },
    { "return debug.getinfo(1)", "a policy has no 'debug'" },
    { "return string.dump(function() end)", "'dump' is nil" },
    { "return authn.opaque 'x'", "authn.opaque takes its options in braces" },
    { "return kube.access_review()", "kube.access_review takes a table, not nil" },
    { "return kube.access_review { verb = 'get', resource = 'pods' }", "kube.access_review: user must be a text" },
    { "return kube.access_review { user = 'a', verb = 'get', resource = 'pods', verbs = 'x' }", "kube.access_review has no 'verbs'" },
    { "return kube.access_review { user = 'a', verb = 'get', resource = 'pods' }", "kube.access_review is for functions, not for loading" },
    { "return jwt.peek()", "jwt.peek takes a text, not nil" },
    { "return jwt.verify('x', 'corp', 'api')", "jwt.verify is for functions, not for loading" },
    { "return secret('K') .. 'x'", "a secret cannot be joined to other text; pass it to an option as it is" },
    { "return regex('(')", "regex: " },
    { "return cache.get('x')", "the cache is for functions, not for loading" },
    { "error('no jwt here')", "p.lua:1:1: error[load]: no jwt here" },
    { "error('no jwt here', 0)", "p.lua:1:1: error[load]: no jwt here" },
    { "error({})", "error() takes a text, not a table" },
    { "local t = {} return t.a.b", "the field 'a' is nil here" },
    { "return 'a' .. {}", "a table cannot be joined to text" },
    { "while true do local t = {} t = t.x.y end", "the field 'x' is nil here" },
  } do
    it("answers " .. case[1], function()
      local why = problem_of(case[1], { env = { K = "v" } })
      assert.truthy(why:find(case[2], 1, true), why)
    end)
  end

  -- S-507
  for _, trick in ipairs {
    "_ENV = { }", "local _ENV = { }", "local _ENV <const> = { }", "local function f(_ENV) return 1 end", "local function f() _ENV = nil end",
    "local function f() return _ENV end", "for _ENV in pairs { } do end",
  } do
    it("refuses " .. trick, function()
      local report = checking.check(('require("other")\n' .. named '"x"'), { files = { other = trick .. "\nreturn { }" } })
      local line, column = report:match("policies/other.lua:(%d+):(%d+): error%[unknown%-word%]: a policy has no '_ENV'")
      assert.same({ "1", tostring(trick:find("_ENV", 1, true)) }, { line, column }, report)
    end)
  end

  it("refuses setmetatable(_ENV, ...)", function()
    assert.truthy(problem_of("setmetatable(_ENV, { __index = 5 })"):find("a policy has no 'setmetatable'", 1, true))
  end)

  it("shares nothing between two loads", function()
    local source = "local t = string\nreturn { api = 1, authenticators = { authn.anonymous { } }, name = tostring(rawequal) }"
    assert.truthy(problem_of(source):find("a policy has no 'rawequal'", 1, true))
    assert.truthy(problem_of(named "tostring(string.x)"):find("there is no string.x", 1, true))
  end)

  it("offers every word of the vocabulary, and nothing else", function()
    local globals = require("moonlatch.vocab").globals()
    local _, load = checking.normalised(named '"x"')
    for name, fields in pairs(globals) do
      local value = rawget(load.words, name)
      if name ~= "redirect" then assert.is_not_nil(value, name) end -- comes with login
      for field in pairs(type(fields) == "table" and fields or {}) do
        local exists = name == "math" and field == "random" or value[field] ~= nil
        assert.is_true(exists, name .. "." .. field)
      end
    end
    for name in pairs(load.words) do assert.is_not_nil(globals[name], name) end
  end)
end)

describe("require", function()
  it("runs a file once", function()
    local files = { a = "return { n = 1 }" }
    assert.equal("true", value_of('require("a") == require("a")', {}, files))
  end)

  it("refuses circles, with their names", function()
    local files = { a = 'return require("b")', b = 'return require("a")' }
    local why = problem_of('return require("a")', { files = files })
    assert.equal("policies/b.lua:1:1: error[load]: require: a requires itself (a > b > a)", why)
  end)

  it("can be tried", function()
    local files = { broken = "error(1)", good = "return 1" }
    assert.equal("false 1", value_of('tostring(pcall(require, "broken")) .. " " .. require("good")', {}, files))
  end)

  it("names the file in which an error is", function()
    local files = { a = "\nreturn { x = nofoo }", b = "return {\n a = }" }
    assert.equal("policies/a.lua:2:1: error[load]: 'nofoo' is not defined (text needs quotes: \"nofoo\")", problem_of('require("a")', { files = files }))
    assert.equal("policies/b.lua:2:1: error[syntax]: unexpected symbol near '}'", problem_of('require("b")', { files = files }))
  end)

  it("takes names, not paths", function()
    for _, name in ipairs { "../etc/passwd", "/etc/passwd", "a.b", "", "a/b", "\0" } do
      assert.truthy(problem_of(("return require(%q)"):format(name)):find("require takes the name of a file beside the policy", 1, true))
    end
    assert.truthy(problem_of('return require("nope")'):find("there is no file nope.lua beside the policy", 1, true))
  end)

  it("stops at 32 files", function()
    local files = {}
    for i = 1, 40 do files["f" .. i] = ('return require("f%d")'):format(i + 1) end
    assert.truthy(problem_of('return require("f1")', { files = files }):find("the policy requires more than 32 files", 1, true))
  end)

  it("checks the functions of required files", function()
    local files = { rules = "local n = 0\nreturn { rule = function() n = n + 1 return true end }" }
    local source = 'local rules = require("rules")\nreturn { api = 1, authenticators = { authn.anonymous { } }, authorize = { rules.rule } }'
    assert.equal("policies/rules.lua:2:28: error[shared-state]: 'n' is shared by all requests; a function cannot change it",
      problem_of(source, { files = files }))
  end)
end)

describe("the text of a policy", function()
  -- S-510, S-511
  for _, case in ipairs {
    { "bytecode", "\27Lua\x54\0", "this is compiled code; a policy is text" },
    { "real bytecode", string.dump(function() return { api = 1 } end), "this is compiled code; a policy is text" },
    { "a byte order mark", "\xEF\xBB\xBFreturn {}", "byte order mark" },
    { "a mark and bytecode", "\xEF\xBB\xBF\27Lua", "byte order mark" },
    { "a shell line and bytecode", "#!/usr/bin/lua\n\27Lua", "error[syntax]" },
    { "a NUL byte", "return {\0}", "NUL byte" },
    { "300 parentheses", "return " .. ("("):rep(300) .. "1" .. (")"):rep(300), "error[syntax]" },
    { "300 functions", ("return function() "):rep(300) .. ("end "):rep(300), "error[syntax]" },
    { "300 tables", "return " .. ("{"):rep(300) .. ("}"):rep(300), "error[syntax]" },
    { "250 locals", ("local a = 1 "):rep(250) .. "return {}", "error[syntax]" },
    { "an unfinished comment", "--[[ x", "error[syntax]" },
    { "an unfinished text", 'return "x', "error[syntax]" },
    { "a bad escape", 'return "\\u{110000000000}"', "error[syntax]" },
    { "goto into a scope", "goto a local x ::a:: return {}", "error[syntax]" },
    { "65 KiB", "return {" .. ("1,"):rep(33000) .. "}", "the file is larger than 64 KiB" },
    { "10 MiB", ("x"):rep(10 * 1024 * 1024), "the file is larger than 64 KiB" },
  } do
    it("is refused: " .. case[1], function()
      local began = os.clock()
      local report, errors = checking.check(case[2])
      assert.equal(1, errors)
      assert.truthy(report:find(case[3], 1, true), report)
      assert.is_true(os.clock() - began < 0.5)
    end)
  end

  it("may be one long line of 60 KiB", function()
    local began = os.clock()
    local report, errors = checking.check("local t = {" .. ("{1},"):rep(15000) .. "} return { api = 1, authenticators = { authn.anonymous { } } }")
    assert.equal(0, errors, report)
    assert.is_true(os.clock() - began < 1)
  end)

  it("may have a long name", function()
    local report = checking.check("return { x = nofoo }", { name = "/etc/" .. ("d"):rep(100) .. "/" .. ("n"):rep(100) .. ".lua" })
    assert.truthy(report:find(("n"):rep(100) .. ".lua:1:1: error[load]: 'nofoo'", 1, true), report)
  end)
end)

describe("what functions can call", function()
  -- Runs body as a function of a policy: v.run(body) -> pcall results
  local function run(body, options)
    options = options or {}
    local fake = fake_host.new { env = {}, answer = options.answer }
    local load = require("moonlatch.load").new(fake.host, "p.lua", false)
    local source = "return { api = 1, authenticators = { function(req) " .. body .. " end } }"
    local value = assert(load:run(source))
    local diagnostics, policy = require("moonlatch.check").run(fake.host, load, value)
    assert(policy, diagnostics[1] and diagnostics[1].text)
    fake:loaded {}
    local thread = coroutine.create(policy.authenticators[1].options.run)
    local ok, result = coroutine.resume(thread, options.req)
    return ok, result, load, fake
  end

  it("raises an outage when nobody answers, and names no path", function()
    local ok, raised = run 'http.fetch("http://a.example.com/secret?token=x", { timeout = "1s" })'
    assert.is_false(ok)
    local why = results.outage_reason(raised)
    assert.truthy(why and why:find("a.example.com could not be asked: ", 1, true), tostring(raised))
    assert.is_nil(why:find("token"))
  end)

  for _, case in ipairs {
    { 'http.fetch(5)', "http.fetch takes a text" },
    { 'http.fetch("ftp://x")', "http.fetch: this is no http or https address" },
    { 'http.fetch("http://x", { timout = "1s" })', "http.fetch: has no option 'timout'; did you mean 'timeout'?" },
    { 'http.fetch("http://x", { timeout = 5 })', "http.fetch: timeout must be a text" },
    { 'http.fetch("http://x", { timeout = "5" })', "http.fetch: timeout must be a duration" },
    { 'http.fetch("http://x", 5)', "http.fetch: takes its options as a table" },
    { 'json.decode("{")', "json.decode: " },
    { 'json.decode(nil)', "json.decode takes a text, not nil" },
    { 'base64.decode("\\255")', "base64.decode: " },
    { 'cache.remember("k", 5, function() return 1 end)', "cache.remember takes a duration" },
    { 'cache.remember("k", "5s")', "cache.remember takes a function" },
    { 'cache.remember("k", "5s", function() return nil end)', "returned nil; return false" },
    { 'cache.set("k", nil, "5s")', "cache.set takes a value" },
    { 'log.info({})', "log.info takes a text" },
    { 'log.info("x", { t = {} })', "the field t must be text" },
    { 'env("HOME", "x")', "env is for the top of the file" },
    { 'secret("K")', "secret is for the top of the file" },
    { 'regex("a")', "regex is for the top of the file" },
    { 'require("a")', "require is for the top of the file" },
    { 'authn.anonymous { }', "authn.anonymous is for the top of the file" },
    { 'kube.token_review("x")', "kube.token_review is for functions" },
    { 'local t = {} t.t = t cache.set("k", t, "5s")', "contains itself" },
  } do
    it("refuses " .. case[1], function()
      local ok, why = run(case[1])
      assert.is_false(ok)
      assert.is_nil(results.outage_reason(why))
      assert.truthy(tostring(why):find(case[2], 1, true), tostring(why))
      if not case[2]:find("itself") then assert.truthy(tostring(why):find("^p.lua:1: "), tostring(why)) end
    end)
  end

  it("copies what the cache gives and takes", function()
    local ok, result = run [[
      local made = { list = { 1 } }
      local a = cache.remember("k", "1m", function() return made end)
      made.list[1] = 5
      a.list[1] = 7
      local b = cache.remember("k", "1m", function() return { list = { 9 } } end)
      b.list[1] = 8
      local c = cache.remember("k", "1m", function() return 0 end)
      return { a.list[1], b.list[1], c.list[1] }
    ]]
    assert.is_true(ok, result)
    assert.same({ 7, 8, 1 }, result)
  end)

  it("remembers false", function()
    local ok, result = run [[
      local asked = 0
      for _ = 1, 3 do cache.remember("k", "1m", function() asked = asked + 1 return false end) end
      return asked
    ]]
    assert.is_true(ok, result)
    assert.equal(1, result)
  end)

  it("asks again after a failure", function()
    local ok, result = run [[
      local one = pcall(cache.remember, "k", "1m", function() error("down") end)
      return { one, cache.remember("k", "1m", function() return "up" end) }
    ]]
    assert.is_true(ok, result)
    assert.same({ false, "up" }, result)
  end)

  it("has a cache, JSON, base64, hashes, addresses, a clock and a log", function()
    local ok, result = run [[
      cache.set("k", { 1 }, "1m")
      local got = cache.get("k")
      cache.delete("k")
      log.info("seen", { n = 1 })
      local parts = url.parse("https://a.example.com:444/x?y=1")
      return { got[1], cache.get("k") == nil, json.decode(json.encode { a = { 1, 2 } }).a[2], json.encode(json.list {}),
               base64.decode(base64.encode("x")), #hash.sha256("x"), hash.equals("a", "b"), url.escape("a b"), parts.host, time.now() > 0 }
    ]]
    assert.is_true(ok, result)
    assert.same({ 1, true, 2, "[]", "x", 64, false, "a%20b", "a.example.com", true }, result)
  end)

  it("forgets when a text of the policy changes", function()
    local _, _, load = run "return skip()"
    local _, _, same = run "return skip()"
    local _, _, other = run "return skip('x')"
    assert.equal(load:fingerprint(), same:fingerprint())
    assert.not_equal(load:fingerprint(), other:fingerprint())
  end)

  it("makes results that plain tables cannot be", function()
    local ok, result = run 'return accept { user = "a", claims = { x = 1 } }'
    assert.is_true(ok, result)
    assert.equal("accept", results.kind(result))
    for _, forged in ipairs { '{ kind = "accept", user = "root" }', "{ allow = true }", "{ }", '"accept"', "1" } do
      ok, result = run("return " .. forged)
      assert.is_true(ok)
      assert.is_nil(results.kind(result))
    end
  end)
end)
