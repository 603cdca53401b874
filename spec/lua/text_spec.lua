-- How the library reads Lua text: tokens, places, names; templates, durations, suggestions.
local duration = require("moonlatch.duration")
local lex = require("moonlatch.lex")
local locate = require("moonlatch.locate")
local scope = require("moonlatch.scope")
local suggest = require("moonlatch.suggest")
local template = require("moonlatch.template")

local function texts(source)
  local list = {}
  for i, token in ipairs(lex(source)) do list[i] = token.kind == "string" and "<" .. token.text .. ">" or token.text end
  return table.concat(list, " ")
end

describe("tokens", function()
  for _, case in ipairs {
    { "a.b(c)", "a . b ( c ) " },
    { [["x\"y" 'z']], [[<x\"y> <z> ]] },
    { "[[ long ]] [==[ ]] ]==]", "< long > < ]] > " },
    { "a --[[ b\n ]] c -- d\ne --[==[ ]] ]==] f", "a c e f " },
    { "a==b~=c<=d>=e//f<<g>>h::i::...", "a == b ~= c <= d >= e // f << g >> h :: i :: ... " },
    { "'a\\\nb' c", "<a\\\nb> c " },
    { "", "" },
  } do
    it("of " .. case[1], function() assert.equal(case[2], texts(case[1])) end)
  end

  it("of numbers", function() assert.equal("1 .5 0x1p-4 1e+5 0xA 7 .. 8 ", texts("1 .5 0x1p-4 1e+5 0xA 7 .. 8")) end)

  it("know their places", function()
    local tokens = lex("a\n  [[x\ny]] b")
    assert.same({ 1, 1 }, { tokens[1].line, tokens[1].column })
    assert.same({ 2, 3 }, { tokens[2].line, tokens[2].column })
    assert.same({ 3, 5 }, { tokens[3].line, tokens[3].column })
  end)
end)

describe("places", function()
  local function at(source, ...)
    local path = ""
    for _, key in ipairs { ... } do path = locate.join(path, key) end
    local place, own = locate.find(locate.index(lex(source)), path)
    return { place.line, place.column, own }
  end

  it("of fields, in any form", function()
    local source = 'return {\n a = { b = 1 },\n ["X-Y"] = f { c = { 5, d = 6 } },\n [g()] = 1,\n "z" }'
    assert.same({ 2, 8, true }, at(source, "a", "b"))
    assert.same({ 3, 2, true }, at(source, "X-Y"))
    assert.same({ 3, 22, true }, at(source, "X-Y", "c", 1))
    assert.same({ 3, 25, true }, at(source, "X-Y", "c", "d"))
    assert.same({ 5, 2, true }, at(source, 1))
  end)

  it("fall back to the parent, and to return", function()
    assert.same({ 2, 2, false }, at("return {\n a = g(1) }", "a", "b"))
    assert.same({ 3, 1, false }, at("local x = 1\nlocal function f() return 5 end\nreturn f()", "a"))
  end)

  it("are found behind a local, and past functions", function()
    assert.same({ 1, 13, true }, at("local p = { a = 1 } return p", "a"))
    assert.same({ 3, 2, true }, at("return { f = function(a)\n if a then return { b = 1 } elseif c then repeat until d else for _ in e do end end end,\n g = 1 }", "g"))
  end)

  it("are not confused by brackets in texts", function()
    assert.same({ 1, 24, true }, at('return { a = "}", "{", b = 1 }', "b"))
  end)

  it("count what a list has", function()
    local index = locate.index(lex("return { a = { 1, nil, 3 }, b = { 1, f() }, c = { ... } }"))
    assert.same({ count = 3, exact = true }, index.counts.a)
    assert.is_false(index.counts.b.exact)
    assert.is_false(index.counts.c.exact)
  end)
end)

describe("names", function()
  local function free(source)
    local names = {}
    for i, reference in ipairs(scope.read(lex(source)).free) do
      names[i] = reference.token.text .. (reference.assigned and "=" or "")
    end
    return table.concat(names, " ")
  end

  for _, case in ipairs {
    { "local a = a", "a" }, { "local function a() return a end", "" }, { "local a = function() return a end", "a" },
    { "for i, v in pairs(i) do local x = v end return v", "pairs i v" }, { "for i = 1, n do end return i", "n i" },
    { "while a do local a = 1 end return a", "a a" }, { "repeat local a = 1 until a return a", "a" },
    { "if a then local b = 1 elseif b then local c else return c end", "a b c" }, { "do local a end return a", "a" },
    { "return { a = 1, [b] = c, d }", "b c d" }, { "a.b.c = d.e", "a d" }, { "function f(x) return x end", "f=" },
    { "local t = {} function t.f(x) return x, self end function t:g() return self end", "self" },
    { "goto a ::a:: return b", "b" }, { "local x <const>, y <close> = 1, z return x, y", "z" },
    { "local a local b a, c, b.d = 1, 2, 3", "c=" }, { "a 'x' b = 1", "a b=" }, { "a{} b[1], c = 2, 3", "a b c=" },
    { "return f(function(...) local a, b = ... return a end, a)", "f a" }, { "local a = 1; a = 2; return a", "" },
    { "repeat local a until f(function() local b return a, b end) return b", "f b" }, { "x = 1", "x=" },
    { "return _ENV", "" }, { "local _ENV = {} return a", "a" },
  } do
    it("that are free in " .. case[1], function()
      assert(load(case[1]))
      assert.equal(case[2], free(case[1]))
    end)
  end

  -- The compiler knows too: what it reads from _ENV is what is free.
  it("agree with the compiler on our own library", function()
    for file in io.popen("ls lua/moonlatch/*.lua lua/moonlatch/*/*.lua"):lines() do
      local handle = assert(io.open(file))
      local source = handle:read("a")
      handle:close()
      local seen, want = {}, {}
      for _, reference in ipairs(scope.read(lex(source)).free) do seen[reference.token.text] = true end
      for line in io.popen("luac5.4 -l -l -p " .. file):lines() do
        local name = line:match("[GS]ETTABUP.*_ENV \"([^\"]*)\"")
        if name then want[name] = true end
      end
      assert.same(want, seen, file)
    end
  end)

  it("that functions assign outside of themselves", function()
    local function outer(source)
      local names = {}
      for _, fn in ipairs(scope.read(lex(source)).functions) do
        for name in pairs(fn.outer) do names[#names + 1] = fn.line .. name end
      end
      table.sort(names)
      return table.concat(names, " ")
    end
    assert.equal("2n", outer("local n\nlocal function f() n = 1 end"))
    assert.equal("2a 3a", outer("local a\nlocal function f()\nreturn function() a, b.c = 1, 2 end end"))
    assert.equal("", outer("local n\nlocal function f(n) n = 1 end local function g() local n n = 1 end"))
    assert.equal("", outer("local n = {} local function f() n.x = 1 n[1] = 2 f{n = 1} return { n = 2 } end"))
    assert.equal("1f", outer("local f local function g() function f() end end"))
  end)
end)

describe("templates", function()
  it("are text and fields", function()
    assert.same({ { field = "user" } }, template.parse("{user}"))
    assert.same({ "a ", { field = "claims.x", default = "none" }, "; b" }, template.parse("a {claims.x|none}; b"))
    assert.same({ { field = "x", default = "" } }, template.parse("{x|}"))
    assert.same({}, template.parse(""))
  end)

  for _, text in ipairs { "{", "}", "{a", "a}", "{}", "{|x}", "{a{b}}", ("{a}"):rep(17) } do
    it("refuse " .. text, function() assert.is_nil((template.parse(text))) end)
  end
end)

describe("durations", function()
  for text, seconds in pairs { ["500ms"] = 0.5, ["30s"] = 30, ["5m"] = 300, ["1h"] = 3600, ["1.5s"] = 1.5, ["0s"] = 0 } do
    it(text, function() assert.equal(seconds, duration.seconds(text)) end)
  end
  for _, text in ipairs { "", "5", "s", "-5s", "5 s", "5S", "1d", "1e3s", "0x5s", "99999999h", "1..5s", " 5s", "5s\n", ("9"):rep(400) .. "s" } do
    it("refuse " .. text:sub(1, 20), function() assert.is_nil(duration.seconds(text)) end)
  end
end)

describe("suggestions", function()
  for _, case in ipairs {
    { "nxt", { "reject", "next" }, "next" }, { "crop", { "corp", "x" }, "corp" }, { "lax", { "Lax", "Strict" }, "Lax" },
    { "zzz", { "abc" }, nil }, { "x", { "y" }, nil }, { ("a"):rep(100), { "a" }, nil }, { "", { "a" }, nil },
  } do
    it("for " .. case[1]:sub(1, 20), function() assert.equal(case[3], suggest(case[1], case[2])) end)
  end
end)
