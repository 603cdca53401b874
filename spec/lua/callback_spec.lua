-- What can be wrong when the browser comes back: a small page each, and no question to the provider before all is right.
local idps = require("moonlatch.testing.idp")
local json = require("moonlatch.testing.json")
local keys = require("moonlatch.testing.keys")
local made = require("made")
local session_policy = require("session_policy")

local function play(...) return session_policy.play(...) end

describe("callback", function()
  local p, corp, started, good

  before_each(function()
    p = play()
    corp = p:idp("corp")
    started = corp:start { path = "/where?it=was" }
    good = corp:authorize(started, { email = "alice@example.com" })
  end)

  local function page(d, status)
    assert.equal("answer", d.action)
    assert.equal(status, d.status)
    assert.equal("text/html; charset=utf-8", d.content_type)
    assert.equal("nosniff", d.client_headers["X-Content-Type-Options"])
    assert.truthy(d.client_headers["Content-Security-Policy"]:find("default-src 'none'", 1, true))
    assert.truthy(d.client_headers["Content-Security-Policy"]:find("frame-ancestors 'none'", 1, true))
    assert.truthy(d.body:find(d.request.id, 1, true))
    assert.is_nil(idps.cookie(d, "authservice_session"))
    return d
  end

  local function refused(query, status, asked)
    local d = page(corp:finish(started, query), status or 400)
    assert.equal(asked or 0, corp:times("token"))
    assert.same({}, p.fake.sessions)
    return d
  end

  local BIG = ("x"):rep(65536)
  -- S-062, S-063: name of the case, what becomes of the good query
  for name, change in pairs {
    ["nothing"] = function() return "" end, ["&"] = function() return "&" end, ["&&="] = function() return "&&=" end, ["?"] = function() return "?" end,
    ["no code"] = function(q) return (q:gsub("code=[^&]*&", "")) end, ["an empty code"] = function(q) return (q:gsub("code=[^&]*", "code=")) end,
    ["no state"] = function(q) return (q:gsub("&state=[^&]*", "")) end, ["an empty state"] = function(q) return (q:gsub("state=[^&]*", "state=")) end,
    ["no iss"] = function(q) return (q:gsub("&iss=[^&]*", "")) end, ["an empty iss"] = function(q) return (q:gsub("iss=[^&]*", "iss=")) end,
    ["another iss"] = function(q) return (q:gsub("iss=[^&]*", "iss=https%%3A%%2F%%2Fevil.example.com")) end,
    ["iss with a slash more"] = function(q) return q .. "%2F" end,
    ["two codes"] = function(q) return q .. "&code=x" end, ["two states"] = function(q) return q .. "&state=x" end,
    ["the same state twice"] = function(q) return q .. "&" .. q:match("state=[^&]*") end, ["two iss"] = function(q) return q .. "&iss=x" end,
    ["two others"] = function(q) return q .. "&session_state=1&session_state=1" end,
    ["a code of 64 KiB"] = function(q) return (q:gsub("code=[^&]*", "code=" .. BIG)) end, ["a state of 64 KiB"] = function(q) return (q:gsub("state=[^&]*", "state=" .. BIG)) end,
    ["an iss of 64 KiB"] = function(q) return (q:gsub("iss=[^&]*", "iss=" .. BIG)) end, ["another of 64 KiB"] = function(q) return q .. "&x=" .. BIG end,
    ["a code of 4097"] = function(q) return (q:gsub("code=[^&]*", "code=" .. ("x"):rep(4097))) end,
    ["a code that is no UTF-8"] = function(q) return (q:gsub("code=[^&]*", "code=%%ff")) end, ["a state that is no UTF-8"] = function(q) return (q:gsub("state=[^&]*", "state=%%c0%%80")) end,
    ["a line end"] = function(q) return (q:gsub("code=", "code=a%%0d%%0a")) end, ["NUL"] = function(q) return (q:gsub("code=", "code=%%00")) end,
    ["half an escape"] = function(q) return (q:gsub("code=", "code=%%zz")) end, ["a name that is no UTF-8"] = function(q) return q .. "&%ff=1" end,
    ["code and error"] = function(q) return q .. "&error=access_denied" end, ["an empty error beside"] = function(q) return q .. "&error=" end,
    ["100 parameters"] = function(q)
      for i = 1, 100 do q = q .. "&p" .. i .. "=" end
      return q
    end,
    ["a state with a byte changed"] = function(q) return (q:gsub("state=(%w)", function(c) return "state=" .. (c == "A" and "B" or "A") end)) end,
    ["a state that is text"] = function(q) return (q:gsub("state=[^&]*", "state=abc")) end,
    ["a state sealed for something else"] = function(q) return (q:gsub("state=[^&]*", function() return "state=" .. p.fake.sealed_otherwise end)) end,
  } do
    it("refuses " .. name, function()
      p.fake.sealed_otherwise = started.cookies.oidc_state_csrf
      refused(change(good))
    end)
  end

  -- S-064, S-204: whose browser is it?
  it("refuses another browser, and one without our cookie", function()
    local other = corp:start { path = "/" }
    for _, cookie in ipairs { "none", "garbage", other.cookies.oidc_state_csrf } do
      started.cookies = { oidc_state_csrf = cookie ~= "none" and cookie or nil }
      page(corp:finish(started, good), 400)
    end
    assert.equal(0, corp:times("token"))
  end)

  it("refuses a second use, with and without the old cookie (S-204)", function()
    local cookies = { oidc_state_csrf = started.cookies.oidc_state_csrf }
    assert.equal(303, corp:finish(started, good).status)
    started.cookies = cookies
    page(corp:finish(started, good), 400)
    started.cookies = {}
    page(corp:finish(started, good), 400)
    assert.equal(1, corp:times("token"))
  end)

  it("refuses a login that took longer than 20 minutes", function()
    p:advance(1201)
    refused(good)
  end)

  it("refuses another person's code in this browser (S-206)", function()
    local mallory = corp:start {}
    local code = corp:authorize(mallory, { email = "mallory@example.com" }):match("^code=([^&]*)")
    local d = refused((good:gsub("^code=[^&]*", "code=" .. code)), 400, 1)
    assert.truthy(d.body:find("used already", 1, true))
  end)

  for _, word in ipairs { "access_denied", "login_required", "interaction_required", "server_error", "<script>alert(1)</script>" } do
    it("ends with a page when the provider says " .. word .. " (S-235, S-076)", function()
      local query = good:gsub("^code=[^&]*", "error=" .. word:gsub("<", "%%%%3C") .. "&error_description=%%3Cb%%3Ehello")
      local d = refused(query)
      assert.is_nil(d.body:find(word, 1, true))
      assert.is_nil(d.body:find("hello", 1, true))
      assert.truthy(tostring(d):find("error " .. (word:find("<") and "unknown" or word), 1, true))
      assert.truthy(d.body:find('href="/where?it=was"', 1, true))
      assert.is_nil(d.body:find("refresh", 1, true))
    end)
  end

  it("wants iss for an error, too (S-260)", function() refused("error=access_denied&" .. good:match("state=[^&]*")) end)

  it("does without iss where the provider does not promise it, but then it must be right", function()
    p = play({}, { discovery = false })
    corp = p:idp("corp")
    corp.metadata.authorization_response_iss_parameter_supported = false
    p:discover()
    started = corp:start {}
    local query = corp:authorize(started, { email = "a" })
    page(corp:finish(started, (query:gsub("iss=[^&]*", "iss=https%%3A%%2F%%2Fevil.example.com"))), 400)
    assert.equal(303, corp:finish(started, (query:gsub("&iss=[^&]*", ""))).status)
  end)

  it("takes no code without iss where people log in at several providers: it may be another one's (S-205)", function()
    p = made.play(function(host)
      local function provider(name)
        return { name = name, issuer = "https://" .. name .. ".example.com", client_id = "gate", client_secret = host.secret("S"), timeout = 5 }
      end
      local one, two = provider("one"), provider("two")
      return {
        providers = { one = one, two = two }, authenticators = { made.authn("session", { provider = one }), made.authn("session", { provider = two }) },
        login = { provider = one, clients = "browsers" },
        routes = { { name = "two", prefix = { "/two" }, login = { provider = two, clients = "browsers" } } },
      }
    end, { env = { S = "s" }, discovery = false })
    local one, two = p:idp("one"), p:idp("two")
    for _, idp in ipairs { one, two } do idp.metadata.authorization_response_iss_parameter_supported = false end
    p:discover()
    -- Two sends the browser, which it was to log in, to one, with a request of its own making.
    local at_two = two:start { path = "/two" }
    local lured = { state = at_two.state, nonce = "n", parameters = at_two.parameters, cookies = at_two.cookies }
    local stolen = one:authorize(lured, { email = "alice@example.com" })
    for _, query in ipairs { stolen, (stolen:gsub("&iss=[^&]*", "")) } do
      page(two:finish(at_two, query), 400)
      assert.equal(0, two:times("token") + one:times("token"))
    end
    for _, idp in ipairs { one, two } do assert.is_string((idp:login({ email = "bob@example.com" }, { path = "/" .. idp.spec.name }))) end
  end)

  for _, method in ipairs { "POST", "PUT", "HEAD", "DELETE" } do
    it("is not for " .. method, function()
      local d = corp:finish(started, good, { method = method })
      assert.equal(405, d.status)
      assert.equal("GET", d.client_headers.Allow)
    end)
  end

  -- S-237: what the token endpoint says, the status of the page
  for name, case in pairs {
    ["500"] = { function(s) s:replies(500, "") end, 424 }, ["429"] = { function(s) s:replies(429, "") end, 424 },
    ["nothing"] = { function(s) s:fails("timeout") end, 424 }, ["invalid_client"] = { function(s) s:replies(401, { error = "invalid_client" }) end, 424 },
    ["invalid_grant"] = { function(s) s:replies(400, { error = "invalid_grant" }) end, 400 },
    ["invalid_request"] = { function(s) s:replies(400, { error = "invalid_request" }) end, 424 },
    ["HTML"] = { function(s) s:replies(200, "<html>", { ["Content-Type"] = "text/html" }) end, 424 },
    ["JSON as text"] = { function(s) s:replies(200, { access_token = "a", token_type = "Bearer" }, { ["Content-Type"] = "text/plain" }) end, 424 },
    ["a member twice"] = { function(s) s:replies(200, '{"access_token":"a","access_token":"b","token_type":"Bearer"}') end, 424 },
    ["a redirect"] = { function(s) s:replies(302, "", { Location = "https://evil.example.com" }) end, 424 },
  } do
    it("shows a page when the token endpoint answers " .. name, function()
      case[1](p:http("POST", "https://login.example.com/token"))
      page(corp:finish(started, good), case[2])
    end)
  end

  it("answers before the provider was found, as the logout does (Q28)", function()
    p = play({}, { discovery = false })
    corp = p:idp("corp")
    page(corp:finish({ cookies = {} }, "code=x&state=y"), 400)
    page(corp:finish(started, good), 424) -- begun when it was known; another process, the same keys
    assert.equal(0, corp:times("token"))
    assert.equal(401, p:request { endpoint = "logout", method = "POST", path = "/authservice/logout" }.status)
    assert.equal(405, p:request { endpoint = "logout", path = "/authservice/logout" }.status)
  end)

  it("asks again after an outage, when the page is loaded again", function()
    corp:down()
    local d = page(corp:finish(started, good), 424)
    assert.equal("1", d.client_headers["Retry-After"])
    corp:up()
    assert.equal(303, corp:finish(started, good).status)
  end)

  for name, change in pairs {
    ["no token_type"] = function(t) t.token_type = nil end, ["token_type mac"] = function(t) t.token_type = "mac" end,
    ["token_type as list"] = function(t) t.token_type = { "Bearer" } end, ["no access_token"] = function(t) t.access_token = nil end,
    ["an empty access_token"] = function(t) t.access_token = "" end, ["access_token as number"] = function(t) t.access_token = 1 end,
    ["access_token with a space"] = function(t) t.access_token = "a b" end, ["expires_in as text"] = function(t) t.expires_in = "300" end,
    ["expires_in below 0"] = function(t) t.expires_in = -1 end, ["expires_in without end"] = function(t) t.expires_in = 1e300 end,
    ["no id_token"] = function(t) t.id_token = nil end, ["id_token as list"] = function(t) t.id_token = {} end,
    ["refresh_token as number"] = function(t) t.refresh_token = 5 end,
  } do
    it("believes no tokens with " .. name, function()
      corp.tokens_answer = function(t) change(t) return t end
      page(corp:finish(started, good), 424)
      assert.equal(0, corp:times("userinfo"))
    end)
  end

  it("takes token_type in any case, and no expires_in", function()
    corp.tokens_answer = function(t)
      t.token_type, t.expires_in = "bEARER", nil
      return t
    end
    assert.equal(303, corp:finish(started, good).status)
  end)

  -- S-220 to S-229: a change of the ID token's claims, of its header
  local OTHER = "https://evil.example.com"
  for name, change in pairs {
    ["another iss"] = function(c) c.iss = OTHER end, ["iss with a slash"] = function(c) c.iss = c.iss .. "/" end, ["iss as list"] = function(c) c.iss = { c.iss } end,
    ["no iss"] = function(c) c.iss = nil end, ["another aud"] = function(c) c.aud = "other" end, ["no aud"] = function(c) c.aud = nil end,
    ["an empty aud"] = function(c) c.aud = "" end, ["aud as number"] = function(c) c.aud = 5 end, ["a part of aud"] = function(c) c.aud = "gat" end,
    ["an empty list as aud"] = function(c) c.aud = json.list {} end, ["another aud with our azp"] = function(c) c.aud, c.azp = "other", "gate" end,
    ["aud in a list in a list"] = function(c) c.aud = { { "gate" } } end,
    ["more than one aud without azp"] = function(c) c.aud = { "gate", "other" } end, ["another azp"] = function(c) c.azp = "other" end,
    ["more than one aud with another azp"] = function(c) c.aud, c.azp = { "gate", "other" }, "other" end,
    ["no exp"] = function(c) c.exp = nil end, ["exp in the past"] = function(c) c.exp = c.iat - 60 end, ["exp as text"] = function(c) c.exp = "9999999999" end,
    ["exp 1e300"] = function(c) c.exp = 1e300 end, ["exp 0"] = function(c) c.exp = 0 end, ["exp -1"] = function(c) c.exp = -1 end,
    ["no iat"] = function(c) c.iat = nil end, ["iat in the future"] = function(c) c.iat = c.iat + 61 end, ["iat as text"] = function(c) c.iat = "1" end,
    ["nbf in the future"] = function(c) c.nbf = c.iat + 61 end, ["nbf as text"] = function(c) c.nbf = "1" end,
    ["no nonce"] = function(c) c.nonce = nil end, ["another nonce"] = function(c) c.nonce = "other" end, ["nonce as number"] = function(c) c.nonce = 1 end,
    ["no sub"] = function(c) c.sub = nil end, ["an empty sub"] = function(c) c.sub = "" end, ["sub of 256"] = function(c) c.sub = ("x"):rep(256) end,
    ["sub with a line end"] = function(c) c.sub = "a\n" end, ["sub as number"] = function(c) c.sub = 5 end,
    ["another sub than UserInfo (S-230)"] = function(c) c.sub = "mallory" end, ["another at_hash"] = function(c) c.at_hash = "AAAAAAAAAAAAAAAAAAAAAA" end,
    ["at_hash as number"] = function(c) c.at_hash = 5 end, ["events, as a logout token"] = function(c) c.events = {} end,
  } do
    it("believes no ID token with " .. name, function()
      corp.id_token = function(c) change(c) return c end
      page(corp:finish(started, good), 424)
      assert.same({}, p.fake.sessions)
      assert.truthy(#p.fake.log > 0)
    end)
  end

  for name, change in pairs {
    ["a nbf of now"] = function(c) c.nbf = c.iat end, ["aud as list"] = function(c) c.aud = { "gate" } end,
    ["two aud and our azp"] = function(c) c.aud, c.azp = { "other", "gate" }, "gate" end, ["no at_hash"] = function(c) c.at_hash = nil end,
    ["exp 59 s ago"] = function(c) c.exp = c.iat - 59 end, ["iat 59 s ahead"] = function(c) c.iat = c.iat + 59 end,
  } do
    it("believes an ID token with " .. name, function()
      corp.id_token = function(c) change(c) return c end
      assert.equal(303, corp:finish(started, good).status)
    end)
  end

  for name, header in pairs {
    ["alg none"] = { alg = "none" }, ["HS256"] = { alg = "HS256" }, ["an unknown kid"] = { kid = "unknown" }, ["typ of an access token"] = { typ = "at+jwt" },
    ["typ of a logout token"] = { typ = "logout+jwt" },
  } do
    it("believes no ID token with " .. name, function()
      corp.sign = function(self, claims) return keys.sign(self.key, claims, header) end
      page(corp:finish(started, good), 424)
    end)
  end

  it("believes no bad signature, whatever else is wrong", function()
    corp.sign = function(self, claims) return (keys.sign(self.key, claims):gsub("%.[^.]*$", ".AAAA")) end
    page(corp:finish(started, good), 424)
  end)

  -- S-049, S-234: a key that is not there
  it("reads the keys again for a new key, at most each 10 s", function()
    corp.key, corp.published = keys.second, { keys.first, keys.second }
    local before = corp:times("jwks")
    assert.equal(303, corp:finish(started, good).status)
    assert.equal(before + 1, corp:times("jwks"))
    corp.sign = function(self, claims) return keys.sign(self.key, claims, { kid = "unknown" }) end
    for _ = 1, 5 do
      started = corp:start {}
      page(corp:finish(started, corp:authorize(started, { email = "a" })), 424)
    end
    assert.equal(before + 1, corp:times("jwks"))
    p:advance(10)
    started = corp:start {}
    page(corp:finish(started, corp:authorize(started, { email = "a" })), 424)
    assert.equal(before + 2, corp:times("jwks"))
  end)

  it("is 503 while there are no keys at all", function()
    p = play({}, { discovery = false })
    corp = p:idp("corp")
    p:http("GET", "https://login.example.com/jwks"):replies(500, "")
    p:discover()
    started = corp:start {}
    page(corp:finish(started, corp:authorize(started, { email = "a" })), 424)
  end)

  -- UserInfo
  for name, case in pairs {
    ["a refusal"] = { function(s) s:replies(401, "") end, 424 }, ["500"] = { function(s) s:replies(500, "") end, 424 },
    ["nothing"] = { function(s) s:fails("timeout") end, 424 }, ["HTML"] = { function(s) s:replies(200, "<html>") end, 424 },
    ["no sub"] = { function(s) s:replies(200, { email = "mallory" }) end, 424 },
    ["another sub"] = { function(s) s:replies(200, { sub = "mallory", email = "mallory" }) end, 424 },
    ["text that says it is a JWT (S-231)"] = { function(s) s:replies(200, { sub = "alice@example.com" }, { ["Content-Type"] = "application/jwt" }) end, 424 },
  } do
    it("makes no session when UserInfo answers " .. name, function()
      case[1](p:http("GET", "https://login.example.com/userinfo"))
      page(corp:finish(started, good), case[2])
      assert.same({}, p.fake.sessions)
    end)
  end

  it("reads UserInfo as a signed JWT, with iss and aud (S-231)", function()
    local claims = { iss = "https://login.example.com", aud = "gate", sub = "alice@example.com", email = "signed@example.com" }
    local function answer() p:http("GET", "https://login.example.com/userinfo"):replies(200, keys.sign(keys.first, claims), { ["Content-Type"] = "application/jwt; charset=utf-8" }) end
    claims.aud = "other"
    answer()
    page(corp:finish(started, good), 424)
    claims.aud = "gate"
    answer()
    started = corp:start {}
    corp:finish(started, corp:authorize(started, { email = "alice@example.com" }))
    assert.sends(p:request { session = started.cookies.authservice_session }, { ["X-User"] = "signed@example.com" })
  end)

  it("fills in from the ID token what UserInfo lacks, never about the token itself", function()
    corp.id_token = function(c)
      c.groups, c.email = { "from-id-token" }, "other@example.com"
      return c
    end
    corp:finish(started, good)
    local d = p:request { session = started.cookies.authservice_session }
    assert.sends(d, { ["X-User"] = "alice@example.com", ["X-Groups"] = "from-id-token" })
    local _, record = next(p.fake.sessions)
    for _, name in ipairs { "nonce", "at_hash", "exp", "iat", "aud" } do assert.is_nil(record.open.claims[name], name) end
  end)

  it("does with the ID token alone where there is no UserInfo", function()
    p = play({}, { discovery = false })
    corp = p:idp("corp")
    corp.metadata.userinfo_endpoint = false
    p:discover()
    corp.id_token = function(c) c.email = "token@example.com" return c end
    local id = corp:login { email = "alice@example.com" }
    assert.sends(p:request { session = id }, { ["X-User"] = "token@example.com" })
  end)

  it("tells somebody whose account lacks the claim, by name", function()
    local d = refused(corp:authorize(started, { sub = "x", name = "Nobody" }), 403, 1)
    assert.truthy(d.body:find("claim email is missing", 1, true))
  end)

  it("is 503 when the session cannot be stored", function()
    p.fake.session_failure = "disk full"
    page(corp:finish(started, good), 424)
  end)

  it("checks auth_time when max_age was asked for (S-227)", function()
    p = play { provider = { authorize_params = { max_age = "600" } } }
    corp = p:idp("corp")
    for auth_time, status in pairs { [-599] = 303, [-661] = 424 } do
      started = corp:start {}
      assert.equal("600", started.parameters.max_age)
      local query = corp:authorize(started, { email = "a", auth_time = p.fake.now + auth_time })
      assert.equal(status, corp:finish(started, query).status)
    end
    started = corp:start {}
    page(corp:finish(started, corp:authorize(started, { email = "a" })), 424)
  end)

  it("answers a page to whatever is sent, and asks nobody: 2,000 mutations", function()
    math.randomseed(20)
    local pieces = { "&", "=", "%", "%00", "%ff", "code=", "state=", "iss=", "error=", "?", "#", "a", "\r\n", "%0a", ("x"):rep(5000), good, "&&=", "+", "%u0041", "\xff" }
    for _ = 1, 2000 do
      local at, piece = math.random(#good), pieces[math.random(#pieces)]
      local query = good:sub(1, at) .. piece .. good:sub(at + math.random(0, 3))
      local jar = { oidc_state_csrf = started.cookies.oidc_state_csrf }
      local d = p:request { endpoint = "callback", path = "/authservice/oidc/callback?" .. query, cookies = jar }
      assert.is_nil(d.fault, query)
      assert.truthy(d.status == 400 or d.status == 303 or d.status == 424, query)
    end
    assert.is_true(corp:times("token") <= 2000)
    for _, record in pairs(p.fake.sessions) do assert.equal("alice@example.com", record.open.claims.email) end
  end)

  it("never tells secrets to the log or the trace", function()
    corp.id_token = function(c) c.nonce = "other" return c end
    local d = corp:finish(started, good)
    local text = tostring(d)
    for _, entry in ipairs(p.fake.log) do
      text = text .. entry.message
      for _, value in pairs(entry.fields) do text = text .. tostring(value) end
    end
    for _, secret in ipairs { "s&cret", started.state, good:match("code=([^&]*)"), "corp-token", "corp-refresh" } do
      assert.is_nil(text:find(secret, 1, true), secret)
    end
  end)
end)

describe("client authentication", function()
  local function login(provider, metadata, options)
    local p = session_policy.play({ provider = provider }, options)
    local corp = p:idp("corp")
    for name, value in pairs(metadata or {}) do corp.metadata[name] = value end
    if options then p:discover() end
    corp:login { email = "a" }
    return corp, p
  end
  local late = { discovery = false }

  it("is Basic, both parts form-encoded", function()
    local corp = login { client_id = "ga:te" }
    assert.equal("Basic Z2ElM0F0ZTpzJTI2Y3JldA==", corp.authorization)
    assert.is_nil(corp.form.client_secret)
    assert.equal(43, #corp.form.code_verifier)
    assert.truthy(corp.form.code_verifier:find("^[%w_-]+$"))
  end)

  it("is what the provider offers, or what the policy says", function()
    local corp = login({}, { token_endpoint_auth_methods_supported = { "private_key_jwt", "client_secret_post" } }, late)
    assert.equal("s&cret", corp.form.client_secret)
    assert.equal("gate", corp.form.client_id)
    assert.is_nil(corp.authorization)
    assert.equal("s&cret", login({ auth_method = "client_secret_post" }).form.client_secret)
    corp = login { auth_method = "none" }
    assert.is_nil(corp.form.client_secret)
    assert.is_nil(corp.authorization)
    assert.equal("gate", corp.form.client_id)
  end)

  it("is a signed assertion, good for a minute (RFC 7523)", function()
    local pem = "-----BEGIN PRIVATE KEY-----\nfake\n-----END PRIVATE KEY-----"
    local p = session_policy.play({ signed = "KEY" }, { env = { CORP_SECRET = "s", KEY = pem } })
    local corp = p:idp("corp")
    corp:login { email = "a" }
    assert.equal("urn:ietf:params:oauth:client-assertion-type:jwt-bearer", corp.form.client_assertion_type)
    local claims, header = p.fake.host.jwt_peek(corp.form.client_assertion)
    assert.same({ alg = "RS256", kid = "sign-1", typ = "JWT" }, header)
    assert.equal(22, #claims.jti)
    claims.jti = nil
    assert.same({ iss = "gate", sub = "gate", aud = "https://login.example.com/token", iat = p.fake.now, exp = p.fake.now + 60 }, claims)
    assert.is_nil(corp.authorization)
    assert.is_nil(corp.form.client_secret)
  end)
end)
