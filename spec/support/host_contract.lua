--- What both hosts must do alike: the list in lua/moonlatch/host.lua as cases. busted runs it on the fake host
-- (spec/lua/host_contract_spec.lua), the server's tests run it on the real one.
--
-- return function(host, test, options): test(name, fn) runs or registers a case; nothing else is asked of the test library, nor of
-- Lua but what policies have.
-- options.phase: "loading", or "running" (in a request; functions may wait); options.seam: the list of lua/moonlatch/host.lua;
-- options.env: a variable that is set to "value", and is a secret's source as well.
local function same(want, got, what)
  if want ~= got then error(("%s: wanted %s, got %s"):format(what or "value", tostring(want), tostring(got)), 2) end
end

local function fails(fn, ...)
  local ran, value = pcall(fn, ...)
  if ran then error("this should have raised, and returned " .. tostring(value), 2) end
  return tostring(value)
end

-- nil, why
local function refuses(fn, ...)
  local value, why = fn(...)
  same(nil, value)
  if type(why) ~= "string" then error("a refusal without a why", 2) end
end

local function json_cases(host, test)
  test("json: integers stay integers, floats floats", function()
    same("integer", math.type(host.json_decode("12345678901")))
    same("float", math.type(host.json_decode("1.0")))
    same("float", math.type(host.json_decode("1e2")))
    same("float", math.type(host.json_decode(host.json_encode(1.0))))
    same("1", host.json_encode(1))
  end)
  test("json: null is absent, false is not", function()
    same(nil, host.json_decode("null"))
    local t = host.json_decode('{"a":null,"b":false}')
    same(nil, t.a)
    same(false, t.b)
  end)
  test("json: what is refused", function()
    for _, text in ipairs { "", " ", "{", "[1,]", "{\"a\":1,}", '{"a":1,"a":1}', "1 1", "[] x", "nul", "'a'", "01", "1.", '"\\x"', '"\n"', '"\xff"',
                            '"\\ud800"', "NaN", "Infinity", "1e999", ("["):rep(65) .. ("]"):rep(65), '"\\u0000"' } do
      refuses(host.json_decode, text)
    end
    same("table", type(host.json_decode(("["):rep(63) .. ("]"):rep(63))))
  end)
  test("json: text comes back as it was", function()
    for _, text in ipairs { "", "a\"b\\c/d", "\1\31\127", "é\u{1F600}\u{2028}", "<script>" } do
      same(text, host.json_decode(host.json_encode(text)))
    end
    same("é\u{1F600}", host.json_decode('"\\u00e9\\ud83d\\ude00"'))
  end)
  test("json: lists and objects", function()
    same("{}", host.json_encode {})
    same("[]", host.json_encode(host.json_list {}))
    same("[]", host.json_encode(host.json_decode("[]")))
    same("{}", host.json_encode(host.json_decode("{}")))
    same("[1,2]", host.json_encode { 1, 2 })
    same('{"a":[]}', host.json_encode { a = host.json_list {} })
  end)
  test("json: what cannot be encoded raises", function()
    local cycle = {}
    cycle.self = cycle
    for _, value in ipairs { cycle, type, 0 / 0, math.huge } do fails(host.json_encode, value) end
    fails(host.json_encode, { [true] = 1 })
    fails(host.json_encode, { a = type })
    fails(host.json_decode, {})
  end)
end

local function text_cases(host, test)
  test("base64 is strict, and comes back", function()
    same("aGVsbG8=", host.base64_encode("hello"))
    same("-_8", host.base64_encode("\xfb\xff", true))
    same("hello", host.base64_decode("aGVsbG8="))
    same("\xfb\xff", host.base64_decode("-_8", true))
    same("", host.base64_decode(""))
    for _, text in ipairs { "a", "aGVsbG8", "aGVs bG8=", "aGVsbG8-", "aGVsbG9=", "====", "a\0b=" } do refuses(host.base64_decode, text) end
    for _, text in ipairs { "-_8=", "-/8", "a", "-_9" } do refuses(host.base64_decode, text, true) end
  end)
  test("sha256", function()
    same("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", host.sha256("abc"))
    same("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", host.sha256(""))
    fails(host.sha256, {})
  end)
  test("equals", function()
    same(true, host.equals("abc", "abc"))
    same(false, host.equals("abc", "abd"))
    same(false, host.equals("abc", "ab"))
    same(true, host.equals("", ""))
    fails(host.equals, "a", nil)
  end)
  test("utf8_ok", function()
    for _, text in ipairs { "", "abc", "é", "\u{10FFFF}", "\0" } do same(true, host.utf8_ok(text)) end
    for _, text in ipairs { "\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x80", "a\x80" } do same(false, host.utf8_ok(text)) end
  end)
  test("b64token", function()
    for byte = 0, 255 do
      local text = string.char(byte)
      same(text:find("^[%w%-._~+/=]$") ~= nil, host.b64token(text), byte)
      same(host.b64token(text), host.b64token(("ab12"):rep(9) .. text .. "z"), byte)
    end
    same(false, host.b64token(""))
    same(true, host.b64token("a=b=="))
    fails(host.b64token, nil)
  end)
  test("printable: a text", function()
    for byte = 0, 255 do
      local text = string.char(byte)
      for _, whole in ipairs { text, "a" .. text, ("x"):rep(20) .. text .. "yz" } do
        same(byte >= 32 and byte < 127 and #whole or nil, (host.printable(whole)), byte)
        same(byte > 32 and byte < 127 and byte ~= 44 and #whole or nil, (host.printable(whole, " ,")), byte)
      end
    end
    same(1, select("#", host.printable("a")))
    for _, value in ipairs { "", 5, true, 1.5, print } do same(nil, host.printable(value), tostring(value)) end
    same(nil, host.printable(nil))
    fails(host.printable, "a", {})
  end)
  test("printable: a list", function()
    local function list(value, without) return { host.printable(value, without) } end
    for _, case in ipairs { { {}, 0, 0 }, { { "dev", "ops 1" }, 8, 2 }, { host.json_decode("[]"), 0, 0 } } do
      local got = list(case[1])
      same(case[2], got[1])
      same(case[3], got[2])
    end
    for _, value in ipairs {
      { "a", "" }, { "a", "\n" }, { "a", 1 }, { "a", { "b" } }, { a = "b" }, { "a", x = "b" }, { [2] = "a" }, { [0] = "a" },
      { "a", [3] = "c" }, { "a", [1.5] = "b" }, { false },
    } do same(0, #list(value)) end
    same(0, #list({ "a", "b,c" }, ","))
    same(0, #list({ "a b" }, ", "))
  end)
  test("url_escape", function() same("a%20b%2F%25-._~", host.url_escape("a b/%-._~")) end)
  test("url_parse", function()
    local u = host.url_parse("https://login.example.com:8443/a/b?c=d")
    same("https", u.scheme)
    same("login.example.com", u.host)
    same(8443, u.port)
    same("/a/b", u.path)
    same("c=d", u.query)
    same("HTTPS", host.url_parse("HTTPS://A").scheme) -- parts are as written
    same("A", host.url_parse("HTTPS://A").host)
    for _, part in ipairs { "port", "path", "query" } do same(nil, host.url_parse("https://a")[part], part) end
    for _, text in ipairs { "", "a", "/a", "//a", "http://", "http://[::1", "http:///a", "http://a b/" } do refuses(host.url_parse, text) end
  end)
  test("now is a number of seconds", function() same(true, host.now() > 1.6e9 and host.now() < 1e11) end)
end

local function loading_cases(host, test, options)
  test("regex", function()
    local re = host.regex("^adm-(.+)@(corp)\\.example$")
    same(true, re:test("adm-bob@corp.example"))
    same(false, re:test("adm-bob@corpXexample"))
    local a, b = re:match("adm-bob@corp.example")
    same("bob", a)
    same("corp", b)
    same(nil, re:match("bob"))
    same("abc", host.regex("a.c"):match("xabcx"))
    local none, some = host.regex("(a)|(b)"):match("b")
    same(nil, none)
    same("b", some)
    same("b-a b-a", host.regex("(a)(b)"):replace("ab ab", "$2-$1"))
    same("x", host.regex("y"):replace("x", "z"))
    refuses(host.regex, "(")
    refuses(host.regex, "[")
  end)
  test("regex: a runaway match raises", function() fails(function() return host.regex("^(a+)+$"):test(("a"):rep(64) .. "b") end) end)
  test("env and secret", function()
    same("value", host.env(options.env))
    same(nil, host.env("MOONLATCH_NOT_SET"))
    same(nil, host.secret("MOONLATCH_NOT_SET"))
    local secret = host.secret(options.env)
    same("<secret " .. options.env .. ">", tostring(secret))
    same(false, secret == "value")
    fails(function() return secret .. "" end)
    fails(function() return "" .. secret end)
    fails(function() return secret.value end)
  end)
  test("read_file refuses what is not there", function() refuses(host.read_file, "/nonexistent/file") end)
  test("module finds nothing outside the policy's directory", function()
    for _, name in ipairs { "no_such_module", "../../etc/passwd", "/etc/passwd", "a/b", "" } do same(nil, (host.module(name))) end
  end)
  test("load_chunk takes text only, in the environment it is given", function()
    same(7, host.load_chunk("return x", "=c", { x = 7 })())
    same(nil, host.load_chunk("return string", "=c", {})())
    refuses(host.load_chunk, "return return", "=c", {})
    refuses(host.load_chunk, "\27Lua", "=c", {})
  end)
  test("base is fresh and closed", function()
    local a, b = host.base(), host.base()
    same(false, a == b)
    for _, name in ipairs { "io", "os", "debug", "package", "load", "loadfile", "dofile", "require", "coroutine", "setmetatable", "getmetatable",
                            "rawset", "rawget", "collectgarbage", "_G", "print" } do
      same(nil, a[name], name)
    end
    for _, name in ipairs { "assert", "error", "ipairs", "next", "pairs", "pcall", "select", "tonumber", "tostring", "type", "xpcall" } do
      same("function", type(a[name]), name)
    end
    for _, name in ipairs { "string", "table", "math", "utf8" } do same(true, a[name] ~= nil, name) end
    same(nil, a.string.dump)
  end)
  test("upstream refuses a CA file that is not there", function() refuses(host.upstream, { name = "x", ca_file = "/nonexistent.pem" }) end)
  test("plan refuses bad names", function()
    for _, name in ipairs { "", "a b", "a:b", "a\n", "é" } do fails(host.plan, { name }, { "set" }) end
    fails(host.plan, { "A" }, { "maybe" })
    same(true, host.plan({ "X-User", "Authorization" }, { "set", "remove" }) ~= nil)
  end)
  test("nothing waits while loading", function()
    fails(host.fetch, { method = "GET", url = "http://127.0.0.1:1/" })
    fails(host.bearer_get, host.upstream { name = "x" }, "http://127.0.0.1:1/", "t", 1)
    fails(host.sleep, 0)
    fails(host.begin, "s", "n", "c")
    fails(host.session_read, "mls_" .. ("A"):rep(43))
    fails(host.session_create, { open = {}, tokens = {}, lifetime = 60 })
  end)
end

local function view_cases(host, test)
  test("readonly", function()
    local base = host.base
    local inner = { 1, 2 }
    local view = host.readonly { a = inner, n = 1, f = function() return "f" end }
    same(1, view.n)
    same("f", view.f())
    same(2, #view.a)
    same(2, view.a[2])
    same(nil, view.missing)
    fails(function() view.n = 2 end)
    fails(function() view.new = 2 end)
    fails(function() view.a[1] = 2 end)
    local count = 0
    for key, value in pairs(view) do
      count = count + 1
      if key == "a" then fails(function() value[1] = 3 end) end
    end
    same(3, count)
    local sum = 0
    for _, value in ipairs(view.a) do sum = sum + value end
    same(3, sum)
    same("function", type(base))
  end)
end

local function cache_cases(host, test)
  test("begin leads, settles, hits", function()
    local state, ticket = host.begin("contract", "n", "accept")
    same("lead", state)
    local value = host.settle(ticket, "accept", { claims = { a = 1, list = { "x" } } }, 60)
    same(1, value.claims.a)
    local again, hit = host.begin("contract", "n", "accept")
    same("hit", again)
    same("x", hit.claims.list[1])
    local _, twice = host.begin("contract", "n", "accept")
    same(hit, twice, "the same table for every hit")
  end)
  test("a hit keeps what the library adds to it", function()
    local _, ticket = host.begin("contract", "n", "memo")
    host.settle(ticket, "accept", { claims = {} }, 60)
    local key = {}
    local _, hit = host.begin("contract", "n", "memo")
    hit[key] = "ready"
    local _, next_hit = host.begin("contract", "n", "memo")
    same("ready", next_hit[key])
  end)
  test("scope, name and credential are told apart", function()
    local _, ticket = host.begin("contract", "ab", "c")
    host.settle(ticket, "accept", { v = 1 }, 60)
    for _, key in ipairs { { "contract", "a", "bc" }, { "contracta", "b", "c" }, { "contract", "ab", "d" }, { "contract", "", "abc" } } do
      local state, other = host.begin(key[1], key[2], key[3])
      same("lead", state)
      host.settle(other, "fail", "x")
    end
  end)
  test("a refusal is kept, a failure is not", function()
    local _, ticket = host.begin("contract", "n", "refuse")
    host.settle(ticket, "refuse", "because", 60)
    local state, why = host.begin("contract", "n", "refuse")
    same("refused", state)
    same("because", why)
    _, ticket = host.begin("contract", "n", "fail")
    host.settle(ticket, "fail", "down")
    state, ticket = host.begin("contract", "n", "fail")
    same("lead", state)
    host.settle(ticket, "fail", "down")
  end)
  test("ttl 0 and a past expiry keep nothing", function()
    for name, ttl_expires in pairs { zero = { 0 }, past = { 60, host.now() - 1 } } do
      local _, ticket = host.begin("contract", name, "c")
      host.settle(ticket, "accept", { v = 1 }, ttl_expires[1], ttl_expires[2])
      local state, again = host.begin("contract", name, "c")
      same("lead", state)
      host.settle(again, "fail", "x")
    end
  end)
  test("a ticket that is closed unsettled lets the next one lead", function()
    pcall(function()
      local _, opened = host.begin("contract", "n", "closed")
      local ticket <close> = opened
      error(ticket)
    end)
    local state, ticket = host.begin("contract", "n", "closed")
    same("lead", state)
    host.settle(ticket, "fail", "x")
  end)
  test("a ticket settles once", function()
    local _, ticket = host.begin("contract", "n", "once")
    host.settle(ticket, "fail", "x")
    fails(host.settle, ticket, "fail", "x")
    fails(host.settle, {}, "fail", "x")
  end)
  test("cache_get, cache_set, cache_delete", function()
    same(nil, host.cache_get("contract", "n", "value"))
    host.cache_set("contract", "n", "value", { a = { 1 } }, 60)
    same(1, host.cache_get("contract", "n", "value").a[1])
    host.cache_delete("contract", "n", "value")
    same(nil, host.cache_get("contract", "n", "value"))
  end)
end

local function new_session(host, user)
  local id = host.session_create {
    open = { claims = { sub = "s", n = 7, list = { "x" } } }, tokens = { refresh = "r" }, lifetime = 60, idle = 30,
    index = { user = user or "alice", sid = "sid-1" },
  }
  same(47, #id)
  return id
end

local function session_cases(host, test)
  test("session: created, read, replaced, deleted", function()
    local id = new_session(host)
    local state, open = host.session_read(id)
    same("hit", state)
    same("x", open.claims.list[1])
    same("integer", math.type(open.claims.n))
    local tokens, revision = host.session_tokens(id)
    same("r", tokens.refresh)
    same(true, host.session_replace(id, revision, { claims = { sub = "t" } }, { refresh = "s" }))
    same("t", select(2, host.session_read(id)).claims.sub)
    tokens = host.session_tokens(id)
    same("s", tokens.refresh)
    same(true, host.session_delete(id))
    same("none", (host.session_read(id)))
    local gone, why = host.session_tokens(id)
    same(nil, gone)
    same("none", why)
    gone, why = host.session_replace(id, revision + 1, {}, {})
    same(nil, gone)
    same("none", why)
    same(true, host.session_delete(id))
  end)
  test("session: a hit keeps what the library adds to it, until it changes", function()
    local id, key = new_session(host), {}
    local _, open = host.session_read(id)
    open[key] = "ready"
    local _, again = host.session_read(id)
    same("ready", again[key])
    local _, revision = host.session_tokens(id)
    host.session_replace(id, revision, { claims = {} }, {})
    local _, other = host.session_read(id)
    same(nil, other[key])
  end)
  test("session: the second one to replace a revision is told", function()
    local id = new_session(host)
    local _, revision = host.session_tokens(id)
    same(true, host.session_replace(id, revision, { a = 1 }, {}))
    local done, why = host.session_replace(id, revision, { a = 2 }, {})
    same(nil, done)
    same("conflict", why)
    same(1, select(2, host.session_read(id)).a)
  end)
  test("session: what is no id is nobody's", function()
    local id = new_session(host)
    for _, text in ipairs { "", "a", id:sub(1, 46), id:sub(5), id .. "A", id .. "=", "mls_" .. ("A"):rep(43), ("A"):rep(10000), id:sub(1, 46) .. " ", (id:gsub("^.", "\0")) } do
      same("none", (host.session_read(text)), text)
      same(nil, (host.session_tokens(text)))
      same(nil, (host.session_replace(text, 1, {}, {})))
      same(true, host.session_delete(text))
    end
    same("hit", (host.session_read(id)))
  end)
  test("session: locks", function()
    local id = new_session(host)
    same("ours", (host.session_lock(id, 2)))
    host.session_unlock(id)
    same("ours", (host.session_lock(id, 2)))
    host.session_unlock(id)
  end)
  test("session: ended by index", function()
    local a, b, c = new_session(host, "kill-a"), new_session(host, "kill-a"), new_session(host, "kill-b")
    same(0, host.session_kill("user", "kill"))
    same(0, host.session_kill("subject", "kill-a"))
    same(2, host.session_kill("user", "kill-a"))
    same(0, host.session_kill("user", "kill-a"))
    same("none", (host.session_read(a)))
    same("none", (host.session_read(b)))
    same("hit", (host.session_read(c)))
    same(true, host.session_kill("sid", "sid-1") > 0)
    same("none", (host.session_read(c)))
  end)
  test("session: too large is refused", function()
    refuses(host.session_create, { open = {}, tokens = { t = ("x"):rep(65536) }, lifetime = 60 })
  end)
  test("session: wrong arguments raise", function()
    local id = new_session(host)
    for _, name in ipairs { "read", "tokens", "delete", "replace", "lock", "unlock", "kill", "create" } do fails(host["session_" .. name]) end
    for _, life in ipairs { 0, -1, 0 / 0, 1 / 0, "x", {} } do
      fails(host.session_create, { open = {}, tokens = {}, lifetime = life })
      fails(host.session_create, { open = {}, tokens = {}, lifetime = 60, idle = life })
      fails(host.session_lock, id, life)
    end
    fails(host.session_create, { open = 1, tokens = {}, lifetime = 60 })
    fails(host.session_create, { open = {}, lifetime = 60 })
    fails(host.session_create, { open = { f = fails }, tokens = {}, lifetime = 60 })
    fails(host.session_create, { open = {}, tokens = {}, lifetime = 60, index = { user = 1 } })
    fails(host.session_replace, id, "x", {}, {})
    fails(host.session_replace, id, 1, {})
    fails(host.session_kill, "group", "g")
    fails(host.session_kill, "user", 7)
  end)
end

local function board_cases(host, test)
  test("the board keeps the last value through a failure", function()
    same(nil, (host.read("contract")))
    host.post_failure("contract", "first")
    local value, why = host.read("contract")
    same(nil, value)
    same("first", why)
    host.post("contract", { a = 1 })
    same(1, host.read("contract").a)
    host.post_failure("contract", "later")
    same(1, host.read("contract").a)
  end)
end

return function(host, test, options)
  test("the seam has every function, and no other", function()
    local listed = {}
    for _, name in ipairs(options.seam) do
      listed[name] = true
      same("function", type(host[name]), name)
    end
    for name in pairs(host) do same(true, listed[name] ~= nil, name) end
  end)
  json_cases(host, test)
  text_cases(host, test)
  view_cases(host, test)
  if options.phase == "loading" then
    loading_cases(host, test, options)
  else
    cache_cases(host, test)
    session_cases(host, test)
    board_cases(host, test)
    test("env and plan are for loading only", function()
      fails(host.env, "PATH")
      fails(host.plan, { "A" }, { "set" })
    end)
    test("sleep is for background tasks", function() fails(host.sleep, 0) end)
  end
end
