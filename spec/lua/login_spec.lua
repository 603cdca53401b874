-- The start of a login and its end, on the fake host. spec/lua/callback_spec.lua has what can be wrong at the end.
local idps = require("moonlatch.testing.idp")
local session_policy = require("session_policy")

local function play(...) return session_policy.play(...) end

local function lines(d)
  local value = d.client_headers["Set-Cookie"]
  return type(value) == "table" and value or { value }
end

describe("login", function()
  local p, corp

  before_each(function()
    p = play()
    corp = p:idp("corp")
  end)

  it("takes a browser to the provider and back to where it was", function()
    local id, started, d = corp:login({ email = "alice@example.com", groups = { "g" } }, { path = "/a/b?x=1&y=%2F" })
    assert.equal(303, d.status)
    assert.equal("/a/b?x=1&y=%2F", d.client_headers.Location)
    assert.equal("no-referrer", d.client_headers["Referrer-Policy"])
    assert.is_nil(started.cookies.oidc_state_csrf)
    local after = p:request { session = id }
    assert.allowed(after)
    assert.sends(after, { ["X-User"] = "alice@example.com", ["X-Groups"] = "g", ["X-How"] = "cookie" })
  end)

  it("sends what the standards want, and nothing of the client's (S-080)", function()
    local started = corp:start { path = "/login?scope=admin&prompt=none&client_id=x" }
    local q = started.parameters
    assert.same({ client_id = "gate", redirect_uri = "https://app.example.com/authservice/oidc/callback", response_type = "code",
      scope = "openid email groups", code_challenge_method = "S256", state = q.state, nonce = q.nonce, code_challenge = q.code_challenge }, q)
    assert.equal(43, #q.nonce)
    assert.equal(43, #q.code_challenge)
    for name in pairs(q) do
      local _, count = started.location:gsub("[?&]" .. name .. "=", "")
      assert.equal(1, count, name)
    end
    local cookie = lines(started.decision)[1]
    assert.truthy(cookie:find("^oidc_state_csrf=[%w_-]+; Path=/; Max%-Age=1200; HttpOnly; SameSite=Lax; Secure$"))
  end)

  it("draws everything anew for each login", function()
    local one, two = corp:start(), corp:start()
    for _, name in ipairs { "state", "nonce", "code_challenge" } do assert.are_not.equal(one.parameters[name], two.parameters[name]) end
  end)

  it("writes nothing down for somebody who has not logged in", function()
    for _ = 1, 50 do corp:start() end
    assert.same({}, p.fake.sessions)
    assert.same({}, p.fake.cache)
    assert.equal(0, corp:times("token"))
  end)

  it("answers 503 when the generator fails (S-072)", function()
    p.fake.no_random = true
    assert.equal(503, p:request({ browser = true }).status)
  end)

  -- S-082 and policy.md 1.3
  for name, request in pairs {
    ["a fetch"] = { headers = { ["Sec-Fetch-Mode"] = "cors" } }, ["an XHR"] = { browser = true, headers = { ["X-Requested-With"] = "XMLHttpRequest" } },
    JSON = { headers = { Accept = "application/json" } }, POST = { browser = true, method = "POST" }, OPTIONS = { browser = true, method = "OPTIONS" },
    PUT = { browser = true, method = "PUT" }, ["an upgrade"] = { browser = true, headers = { Upgrade = "websocket" } },
    gRPC = { browser = true, headers = { ["Content-Type"] = "application/grpc+proto" } }, verify = { browser = true, verify = true },
    ["a bearer"] = { browser = true, bearer = "nobody" }, ["an image"] = { headers = { Accept = "image/*", ["Sec-Fetch-Mode"] = "no-cors" } },
  } do
    it("answers 401 to " .. name, function()
      local d = p:request(request)
      assert.denied(d, 401)
      assert.is_nil(d.client_headers.Location)
    end)
  end

  for name, request in pairs { ["a bare GET"] = {}, HEAD = { method = "HEAD" }, ["Accept with HTML"] = { headers = { Accept = "text/html;q=0.9,*/*" } },
                               ["a navigation"] = { headers = { ["Sec-Fetch-Mode"] = "navigate" } } } do
    it("sends to the login page: " .. name, function() assert.login(p:request(request)) end)
  end

  it("sends everybody there when the policy says so, but a verify", function()
    p = play { login = { clients = "all" } }
    assert.login(p:request { method = "POST", headers = { Accept = "application/json" } })
    assert.login(p:request { bearer = "nobody" })
    assert.denied(p:request { verify = true, browser = true }, 401)
  end)

  it("sends nobody when the policy says so", function()
    p = play { login = { clients = "none" } }
    assert.denied(p:request { browser = true }, 401)
  end)

  it("is 503 and no login while the provider was not found, and while a store is down", function()
    p = play({}, { discovery = false })
    assert.unavailable(p:request { browser = true })
    p:discover()
    p.fake.session_failure = "down"
    local d = p:request { browser = true, session = "mls_" .. ("a"):rep(43) }
    assert.unavailable(d)
    assert.is_nil(d.client_headers["Set-Cookie"])
  end)

  it("does not begin where no authenticator would take the session (S-081)", function()
    assert.denied(p:request { browser = true, path = "/machines" }, 401)
  end)

  it("does not send somebody round who has a good session", function()
    p = play { session = { when = "none" } }
    corp = p:idp("corp")
    local id = corp:login { email = "a" }
    assert.denied(p:request { browser = true, session = id }, 401)
  end)

  it("tells a denied user once, with a page, never with a login (S-081)", function()
    p = play { only = "somebody@else" }
    corp = p:idp("corp")
    local id = corp:login { email = "a<script>@example.com" }
    local d = p:request { browser = true, session = id }
    assert.denied(d, 403)
    assert.equal("text/html; charset=utf-8", d.content_type)
    assert.truthy(d.body:find("a&lt;script&gt;@example.com", 1, true))
    assert.is_nil(d.body:find("<script", 1, true))
    assert.denied(p:request { session = id, headers = { Accept = "application/json" } }, 403)
    for _, request in ipairs { { headers = { Accept = "application/json" } }, { browser = true, verify = true }, { browser = true, method = "POST" } } do
      request.session = id
      assert.is_nil(p:request(request).body)
    end
  end)

  it("lets each of five tabs come back, and drops the sixth's oldest (S-074)", function()
    local started, jar = {}, {}
    for i = 1, 6 do
      started[i] = corp:start { path = "/tab/" .. i, cookies = jar }
      jar = started[i].cookies
      assert.is_true(#jar.oidc_state_csrf < 1000)
    end
    for _, i in ipairs { 4, 2, 6, 3, 5 } do
      started[i].cookies = jar
      local d = corp:finish(started[i], corp:authorize(started[i], { email = "a" }))
      assert.equal(303, d.status)
      assert.equal("/tab/" .. i, d.client_headers.Location)
    end
    assert.is_nil(jar.oidc_state_csrf)
    started[1].cookies = {}
    assert.equal(400, corp:finish(started[1], corp:authorize(started[1], { email = "a" })).status)
  end)

  it("stays under 4 KiB however many tabs begin", function()
    local jar = {}
    for _ = 1, 50 do jar = corp:start({ cookies = jar, path = "/" .. ("x"):rep(1400) }).cookies end
    assert.is_true(#jar.oidc_state_csrf < 1000)
  end)

  it("goes on to where a tab was when another one has logged in meanwhile", function()
    local one, two = corp:start { path = "/one" }, corp:start { path = "/two" } -- each got its cookie; the second overwrote it
    corp:finish(two, corp:authorize(two, { email = "a" }))
    one.cookies = two.cookies
    local d = corp:finish(one, corp:authorize(one, { email = "a" }))
    assert.equal(303, d.status)
    assert.equal("/one", d.client_headers.Location)
    assert.equal(1, corp:times("token"))
  end)

  it("tries three times when two tabs overwrote each other's cookie, and then only says so (S-081)", function()
    local one, d = corp:start { path = "/one" }, nil
    for try = 1, 3 do
      one.cookies = { oidc_state_csrf = corp:start({ path = "/other" }).cookies.oidc_state_csrf }
      d = corp:finish(one, corp:authorize(one, { email = "a" }))
      assert.equal(400, d.status)
      if try == 3 then break end
      assert.truthy(d.body:find('http%-equiv="refresh" content="[123]; url=/one"'))
      one = corp:start { path = "/one", cookies = one.cookies }
    end
    assert.is_nil(d.body:find("refresh", 1, true))
    assert.truthy(d.body:find('href="/one"', 1, true))
  end)

  it("tries again when another tab's login has just replaced the session and used up the cookie", function()
    local first = corp:login { email = "a" }
    local replacing = corp:start { path = "/" }
    replacing.cookies.authservice_session = first
    corp:finish(replacing, corp:authorize(replacing, { email = "a" }))
    local started = corp:start { path = "/one" }
    started.cookies = { authservice_session = first }
    local d = corp:finish(started, corp:authorize(started, { email = "a" }))
    assert.equal(400, d.status)
    assert.truthy(d.body:find("refresh", 1, true))
  end)

  it("forgets failed tries when a tab has come to its end", function()
    local one, two = corp:start { path = "/one" }, corp:start { path = "/two" }
    one.cookies = two.cookies
    corp:finish(one, corp:authorize(one, { email = "a" }))
    two.cookies = one.cookies
    local d = corp:finish(two, corp:authorize(two, { email = "a" }))
    assert.equal(303, d.status)
    assert.equal("", (idps.cookie(d, "oidc_state_csrf")))
  end)

  it("does not go round with a browser that keeps no cookies", function()
    local started = corp:start { path = "/one" }
    started.cookies = {}
    local d = corp:finish(started, corp:authorize(started, { email = "a" }))
    assert.equal(400, d.status)
    assert.is_nil(d.body:find("refresh", 1, true))
    assert.equal(0, corp:times("token"))
  end)

  it("drops a long query, then a long path", function()
    local _, _, d = corp:login({ email = "a" }, { path = "/a?q=" .. ("x"):rep(1500) })
    assert.equal("/a", d.client_headers.Location)
    _, _, d = corp:login({ email = "a" }, { path = "/" .. ("x"):rep(1500) })
    assert.equal("/", d.client_headers.Location)
    for _, long in ipairs { ("\u{e9}"):rep(700), ('"'):rep(1499) } do -- longer still as it is sent
      _, _, d = corp:login({ email = "a" }, { path = "/" .. long })
      assert.equal("/", d.client_headers.Location)
      _, _, d = corp:login({ email = "a" }, { path = "/a?q=" .. long })
      assert.equal("/a", d.client_headers.Location)
    end
    local fits = "/a?q=" .. ('"\u{e9}\u{fc}'):rep(99)
    _, _, d = corp:login({ email = "a" }, { path = fits })
    assert.equal(fits:gsub('[\128-\255"]', function(c) return ("%%%02X"):format(c:byte()) end), d.client_headers.Location)
  end)

  for year, moment in pairs { ["2038"] = 2 ^ 31 - 10, ["2106"] = 2 ^ 32 - 10 } do
    it("begins, ends and expires as ever in " .. year .. " (S-079)", function()
      p = play({}, { now = moment })
      local id = p:idp("corp"):login({ email = "a" })
      for _ = 1, 3 do
        p:advance(20)
        assert.allowed(p:request { session = id })
      end
      p:advance(86400)
      assert.login(p:request { session = id, browser = true })
    end)
  end

  it("keeps the host only when it is on the list", function()
    local _, _, d = corp:login({ email = "a" }, { path = "/a", host = "b.example.com" })
    assert.equal("/a", d.client_headers.Location)
    p = play { login = { hosts = { "*.example.com" } }, session = { domain = "example.com" } }
    local _, begun, done = p:idp("corp"):login({ email = "a" }, { path = "/a" })
    assert.truthy(begun.decision.client_headers["Set-Cookie"][1]:find("; Path=/; Domain=example.com; Max%-Age=1200;"))
    for i, line in ipairs(done.client_headers["Set-Cookie"]) do
      assert.truthy(line:find("; Path=/; Domain=example.com; Max-Age=" .. (i == 1 and "0" or "86400") .. ";", 1, true))
    end
    _, _, d = p:idp("corp"):login({ email = "a" }, { path = "/a?b", host = "b.example.com" })
    assert.equal("https://b.example.com/a?b", d.client_headers.Location)
    _, _, d = p:idp("corp"):login({ email = "a" }, { path = "/a", host = "b.example.com.evil.io" })
    assert.equal("/a", d.client_headers.Location)
  end)

  it("never answers with another host's address for a path that looks like one", function()
    for _, path in ipairs { "//evil.com", "/\\evil.com", "/.//evil.com", "/\t/evil.com", "/..//evil.com" } do
      local _, _, d = corp:login({ email = "a" }, { path = path })
      assert.equal("/", d.client_headers.Location)
    end
  end)

  it("makes a new session at each login, and ends the old one (S-070)", function()
    local first = corp:login { email = "a" }
    local started = corp:start { path = "/" }
    started.cookies.authservice_session = first
    corp:finish(started, corp:authorize(started, { email = "a" }))
    local second = started.cookies.authservice_session
    assert.are_not.equal(first, second)
    local d = p:request { browser = true, session = first }
    assert.login(d)
    -- A request of another tab that was under way: its answer must not delete the new cookie.
    assert.is_nil(idps.cookie(d, "authservice_session"))
    p:advance(61)
    assert.equal("", (idps.cookie(p:request { browser = true, session = first }, "authservice_session")))
    assert.allowed(p:request { browser = true, session = second })
  end)

  it("goes to AFTER_LOGIN_URL with the place as next", function()
    p = play { login = { after_login = "/welcome?a=b" } }
    local _, _, d = p:idp("corp"):login({ email = "a" }, { path = "/x?y" })
    assert.equal("/welcome?a=b&next=%2Fx%3Fy", d.client_headers.Location)
  end)

  it("begins a Strict session from a page of its own", function()
    p = play { session = { same_site = "Strict" } }
    local _, _, d = p:idp("corp"):login({ email = "a" }, { path = "/x?y=1&z" })
    assert.equal(201, d.status)
    assert.truthy(d.body:find("url=/x?y=1&amp;z", 1, true))
    assert.truthy(lines(d)[2]:find("SameSite=Strict", 1, true))
  end)

  -- session options, provider's redirect_url, scheme that the gateway tells, whether the cookies are Secure
  for _, case in ipairs {
    { {}, "/authservice/oidc/callback", "http", false }, { {}, "/authservice/oidc/callback", "https", true },
    { {}, "https://app.example.com/authservice/oidc/callback", "http", true }, { {}, "http://app.example.com/authservice/oidc/callback", "http", false },
    { { same_site = "None" }, "/authservice/oidc/callback", "http", true },
    { { cookie = "__Host-s" }, "/authservice/oidc/callback", "http", true }, { { cookie = "__Secure-s" }, "/authservice/oidc/callback", "http", true },
  } do
    it(("sets Secure: %s %s over %s"):format(case[1].cookie or case[1].same_site or "plain", case[2], case[3]), function()
      p = play({ session = case[1], provider = { redirect_url = case[2] } }, { session_cookie = case[1].cookie })
      corp = p:idp("corp")
      local started = corp:start { scheme = case[3] }
      local d = corp:finish(started, corp:authorize(started, { email = "a" }), { scheme = case[3] })
      local line = lines(d)[2]
      assert.equal(case[4], line:find("; Secure", 1, true) ~= nil)
      assert.truthy(line:find((case[1].cookie or "authservice_session") .. "=", 1, true))
      assert.truthy(line:find("; HttpOnly; SameSite=" .. (case[1].same_site or "Lax"), 1, true))
      assert.is_nil(line:find("Domain", 1, true))
    end)
  end
end)

describe("pushed authorization requests", function()
  it("are made when the provider requires them, with our credentials", function()
    local p = session_policy.play({}, { discovery = false })
    local corp = p:idp("corp")
    corp.metadata.require_pushed_authorization_requests = true
    p:discover()
    local started = corp:start()
    assert.equal("https://login.example.com/auth?client_id=gate&request_uri=urn%3Aietf%3Aparams%3Aoauth%3Arequest_uri%3A1", started.location)
    assert.equal("S256", corp.pushed.code_challenge_method)
    assert.equal("gate", corp.pushed.client_id)
    assert.equal(303, corp:finish(started, corp:authorize(started, { email = "a" })).status)
  end)

  it("are 503 when the provider does not take them", function()
    local p = session_policy.play { provider = { push = true } }
    p:http("POST", "https://login.example.com/par"):replies(400, { error = "invalid_request" })
    assert.unavailable(p:request { browser = true })
    p:http("POST", "https://login.example.com/par"):replies(201, { request_uri = "a\nb" })
    assert.unavailable(p:request { browser = true })
  end)
end)
