-- Logout: ours, and the provider's.
local idps = require("moonlatch.testing.idp")
local json = require("moonlatch.testing.json")
local keys = require("moonlatch.testing.keys")
local session_policy = require("session_policy")

local function play(...) return session_policy.play(...) end

describe("logout", function()
  local p, corp, id

  local function setup(more)
    p = play(more)
    corp = p:idp("corp")
    id = corp:login({ email = "alice@example.com" })
  end
  before_each(function() setup() end)

  local function post(options)
    local request = { method = "POST", endpoint = "logout", path = "/authservice/logout" }
    for key, value in pairs(options) do request[key] = value end
    return p:request(request)
  end

  local function gone()
    assert.is_nil(p.fake.sessions[id])
    assert.denied(p:request { session = id, headers = { Accept = "a/b" } }, 401)
  end

  it("by header is the ancestor's: 201, JSON, the cookie deleted, both tokens revoked", function()
    local tokens = p.fake.sessions[id].tokens
    local d = post { headers = { ["X-Session"] = "Bearer " .. id } }
    assert.equal(201, d.status)
    assert.equal("application/json", d.content_type)
    assert.same({ afterLogoutURL = "/authservice/site/after_logout" }, json.decode(d.body))
    local value, attributes = idps.cookie(d, "authservice_session")
    assert.equal("", value)
    assert.equal("; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure; Expires=Thu, 01 Jan 1970 00:00:00 GMT", attributes)
    assert.same({ tokens.refresh_token, tokens.access_token }, corp.revoked)
    gone()
  end)

  for name, headers in pairs { nothing = {}, ["an unknown id"] = { ["X-Session"] = "mls_" .. ("b"):rep(43) }, ["garbage"] = { ["X-Session"] = "x" }, ["only Authorization"] = { Authorization = "Bearer abc" } } do
    it("by header with " .. name .. " is 401", function()
      assert.equal(401, post({ headers = headers }).status)
      assert.allowed(p:request { session = id })
    end)
  end

  local PROOFS = {
    { "Origin of our host", { Origin = "https://app.example.com" }, true }, { "Origin with a port", { Origin = "https://app.example.com:8443" }, true },
    { "Sec-Fetch-Site same-origin", { ["Sec-Fetch-Site"] = "same-origin" }, true }, { "nothing", {}, false }, { "another Origin", { Origin = "https://evil.com" }, false },
    { "Origin null", { Origin = "null" }, false }, { "an empty Origin", { Origin = "" }, false }, { "Origin with our name in front", { Origin = "https://app.example.com.evil.com" }, false },
    { "Origin with a user", { Origin = "https://app.example.com@evil.com" }, false }, { "cross-site", { ["Sec-Fetch-Site"] = "cross-site" }, false },
    { "same-site", { ["Sec-Fetch-Site"] = "same-site" }, false }, { "Sec-Fetch-Site none", { ["Sec-Fetch-Site"] = "none" }, false },
    { "cross-site with our Origin", { ["Sec-Fetch-Site"] = "cross-site", Origin = "https://app.example.com" }, false },
  }
  for _, case in ipairs(PROOFS) do
    it(("by cookie with %s: %s"):format(case[1], case[3] and "done" or "401"), function()
      local d = post { session = id, headers = case[2] }
      assert.equal(case[3] and 303 or 401, d.status)
      if case[3] then gone() else assert.allowed(p:request { session = id }) end
    end)
  end

  it("by cookie goes on to the provider's logout, after the session has ended (S-261)", function()
    local hint = p.fake.sessions[id].tokens.id_token
    local d = post { session = id, cookies = { oidc_state_csrf = "x" }, headers = { Origin = "https://app.example.com" } }
    local location = d.client_headers.Location
    assert.truthy(location:find("https://login.example.com/logout?id_token_hint=" .. hint .. "&client_id=gate&post_logout_redirect_uri="
      .. "https%3A%2F%2Fapp.example.com%2Fauthservice%2Fsite%2Fafter_logout&state=", 1, true))
    assert.equal("", idps.cookie(d, "authservice_session"))
    assert.equal("", idps.cookie(d, "oidc_state_csrf"))
    assert.equal("no-referrer", d.client_headers["Referrer-Policy"])
    assert.equal(2, #corp.revoked)
  end)

  it("leaves out a hint that would make the address too long", function()
    p.fake.sessions[id].tokens.id_token = ("x"):rep(4097)
    local location = post({ session = id, headers = { Origin = "https://app.example.com" } }).client_headers.Location
    assert.truthy(location:find("https://login.example.com/logout?client_id=gate&post_logout", 1, true))
  end)

  it("by cookie tells a script where to go", function()
    for _, headers in ipairs { { ["Sec-Fetch-Mode"] = "cors" }, { Accept = "application/json" } } do
      headers.Origin = "https://app.example.com"
      id = corp:login { email = "a" }
      local d = post { session = id, headers = headers }
      assert.equal(201, d.status)
      assert.truthy(json.decode(d.body).afterLogoutURL:find("https://login.example.com/logout?id_token_hint=", 1, true))
      assert.equal("", idps.cookie(d, "authservice_session"))
      gone()
    end
  end)

  it("by cookie goes to our page when the provider has none of its own", function()
    p = play({ login = { after_logout = "/bye" } }, { discovery = false })
    corp = p:idp("corp")
    corp.metadata.end_session_endpoint = false
    p:discover()
    id = corp:login { email = "a" }
    assert.equal("/bye", post({ session = id, headers = { ["Sec-Fetch-Site"] = "same-origin" } }).client_headers.Location)
  end)

  it("ends the session here though the provider fails (Q10, S-256)", function()
    corp:down()
    for _, request in ipairs { { headers = { ["X-Session"] = id } } } do
      assert.equal(201, post(request).status)
      gone()
    end
    corp:up()
    local stub = p:http("POST", "https://login.example.com/revoke"):replies(503, "", { ["Retry-After"] = "1" })
    id = corp:login { email = "a" }
    assert.equal(201, post({ headers = { ["X-Session"] = id } }).status)
    assert.equal(2, stub.used) -- the refresh token, twice; then the provider is left alone
    gone()
  end)

  it("is remembered though the store is down", function()
    p.fake.session_failure = "down"
    assert.equal(201, post({ headers = { ["X-Session"] = id } }).status)
    p.fake.session_failure = nil
    assert.denied(p:request { session = id, headers = { Accept = "a/b" } }, 401)
  end)

  it("is 503 when it could not even be remembered", function()
    p.fake.session_failure = "down"
    p.fake.host.session_delete = function() return nil, "too many sessions wait for their end" end
    for _, request in ipairs { { headers = { ["X-Session"] = id } }, { session = id, headers = { ["Sec-Fetch-Site"] = "same-origin" } } } do
      local d = post(request)
      assert.equal(503, d.status)
      assert.is_nil(d.client_headers["Set-Cookie"])
    end
  end)

  it("asks when somebody follows a link, and the page's button works through any gateway (Q21)", function()
    local d = p:request { endpoint = "logout", path = "/authservice/logout", session = id }
    assert.equal(405, d.status)
    assert.equal("POST", d.client_headers.Allow)
    assert.equal("same-origin", d.client_headers["Referrer-Policy"])
    assert.truthy(d.client_headers["Content-Security-Policy"]:find("form-action 'self' https://login.example.com;", 1, true))
    assert.allowed(p:request { session = id })
    local action = d.body:match('action="([^"]*)"')
    assert.equal(303, post({ session = id, path = action }).status)
    gone()
    d = post { path = action } -- the button of a page that was open before
    assert.equal(303, d.status)
    assert.equal("/authservice/site/after_logout", d.client_headers.Location)
    assert.is_nil(d.client_headers["Set-Cookie"])
  end)

  it("of nobody shows a person of our own pages that, and takes no cookie back that was not sent", function()
    local ours = { Origin = "https://app.example.com" }
    local d = post { headers = ours }
    assert.equal(303, d.status)
    assert.is_nil(d.client_headers["Set-Cookie"])
    d = post { headers = ours, session = "mls_" .. ("b"):rep(43) }
    assert.equal(303, d.status)
    assert.equal("", (idps.cookie(d, "authservice_session")))
    ours.Accept = "application/json"
    assert.equal(401, post({ headers = ours }).status)
    for _, headers in ipairs { {}, { Origin = "https://evil.com" }, { ["Sec-Fetch-Site"] = "cross-site" } } do
      assert.equal(401, post({ headers = headers }).status)
      assert.equal(401, post({ headers = headers, path = "/authservice/logout?proof=x" }).status)
    end
  end)

  it("takes no proof of another session, of another purpose, or an old one", function()
    local other = corp:login { email = "b" }
    local function action(of) return p:request({ endpoint = "logout", path = "/authservice/logout", session = of }).body:match('action="([^"]*)"') end
    assert.equal(401, post({ session = id, path = action(other) }).status)
    assert.equal(401, post({ session = id, path = "/authservice/logout?proof=" .. corp:start({}).state }).status)
    assert.equal(401, post({ session = id, path = "/authservice/logout?proof=x" }).status)
    local old = action(id)
    p:advance(601)
    assert.equal(401, post({ session = id, path = old }).status)
  end)

  for _, method in ipairs { "PUT", "DELETE", "OPTIONS", "PATCH" } do
    it("is not for " .. method, function()
      assert.equal(405, post({ method = method, session = id, headers = { Origin = "https://app.example.com" } }).status)
      assert.allowed(p:request { session = id })
    end)
  end

  it("takes back the cookie of a session that has ended already", function()
    local d = post { session = "mls_" .. ("a"):rep(43), headers = { Origin = "https://app.example.com" } }
    assert.equal(303, d.status)
    assert.equal("", idps.cookie(d, "authservice_session"))
    assert.equal(401, post({ session = "mls_" .. ("a"):rep(43) }).status)
  end)
end)

describe("back-channel logout", function()
  local p, corp, id

  before_each(function()
    p = play()
    corp = p:idp("corp")
    id = corp:login({ email = "alice@example.com" }) -- sub and sid are made of the address
  end)

  local FORM = { ["Content-Type"] = "application/x-www-form-urlencoded" }
  local function send(token, options)
    local request = { method = "POST", endpoint = "backchannel_logout", path = "/authservice/backchannel_logout", web = true, headers = FORM, body = "logout_token=" .. token }
    for key, value in pairs(options or {}) do request[key] = value end
    return p:request(request)
  end

  local function refused(d)
    assert.equal(400, d.status)
    assert.allowed(p:request { session = id })
  end

  for name, claims in pairs { sid = { sid = "sid-alice@example.com" }, sub = { sub = "alice@example.com" }, both = { sid = "sid-alice@example.com", sub = "alice@example.com" } } do
    it("ends the sessions of a " .. name, function()
      local other = corp:login { email = "bob@example.com" }
      local d = send(corp:logout_token(claims))
      assert.equal(200, d.status)
      assert.denied(p:request { session = id, headers = { Accept = "a/b" } }, 401)
      assert.allowed(p:request { session = other })
      assert.equal(0, corp:times("revoke"))
    end)
  end

  it("is 200 for a sid that nobody has", function()
    assert.equal(200, send(corp:logout_token { sid = "unknown" }).status)
    assert.allowed(p:request { session = id })
  end)

  it("takes a token once (S-078)", function()
    local token = corp:logout_token { sid = "unknown" }
    assert.equal(200, send(token).status)
    refused(send(token))
    p:advance(599)
    refused(send(token))
    p:advance(200)
    refused(send(token)) -- by now it is too old
  end)

  -- S-262, S-264: claims to change (a function) or to leave out (a name)
  local OTHER = "https://evil.example.com"
  local EVENT = "http://schemas.openid.net/event/backchannel-logout"
  for name, change in pairs {
    ["no jti"] = "jti", ["no iat"] = "iat", ["no events"] = "events", ["no iss"] = "iss", ["no aud"] = "aud", ["neither sid nor sub"] = "sid",
    ["a nonce"] = { nonce = "n" }, ["another iss"] = { iss = OTHER }, ["another aud"] = { aud = "other" }, ["another event"] = { events = { ["http://x/y"] = {} } },
    ["two events"] = { events = { [EVENT] = {}, ["http://x/y"] = {} } }, ["an event that says something"] = { events = { [EVENT] = { a = 1 } } },
    ["an event that is no object"] = { events = { [EVENT] = true } }, ["an event that is a list"] = { events = { [EVENT] = json.list {} } }, ["events as list"] = { events = json.list { EVENT } }, ["events as text"] = { events = EVENT },
    ["an empty jti"] = { jti = "" }, ["jti as number"] = { jti = 5 }, ["an empty sid"] = { sid = "" }, ["sid as number"] = { sid = 5 }, ["sub as number"] = { sub = 5 },
    ["an exp in the past"] = { exp = 1699999000 }, ["an iat in the future"] = { iat = 1700000100 }, ["an iat long ago"] = { iat = 1699999399 - 10 },
    ["an exp as text"] = { exp = "1800000000" },
  } do
    it("refuses " .. name, function()
      local claims, without = { sid = "sid-alice@example.com" }, nil
      if type(change) == "string" then without = { change } else for k, v in pairs(change) do claims[k] = v end end
      refused(send(corp:logout_token(claims, without)))
    end)
  end

  for name, header in pairs { ["alg none"] = { alg = "none" }, ["HS256"] = { alg = "HS256" }, ["another kid"] = { kid = "x" }, ["typ of an access token"] = { typ = "at+jwt" } } do
    it("refuses " .. name, function() refused(send(corp:logout_token({ sid = "sid-alice@example.com" }, nil, header))) end)
  end

  it("refuses an ID token (S-112) and a bad signature", function()
    refused(send(p.fake.sessions[id].tokens.id_token))
    refused(send((corp:logout_token({ sid = "sid-alice@example.com" }):gsub("%.[^.]*$", ".AAAA"))))
    refused(send(keys.sign(keys.second, { iss = corp.issuer, aud = "gate", iat = p.fake.now, jti = "j", sid = "sid-alice@example.com", events = { [EVENT] = {} } })))
  end)

  for name, body in pairs { nothing = "", ["an empty token"] = "logout_token=", ["two tokens"] = "logout_token=a&logout_token=b", ["another name"] = "token=a", ["64 KiB"] = "logout_token=" .. ("a"):rep(65536) } do
    it("refuses " .. name, function() refused(send("", { body = body })) end)
  end

  it("is POST only, and on the check port the gateway's to pass on", function()
    local d = send("", { method = "GET", body = "", path = "/authservice/backchannel_logout?logout_token=" .. corp:logout_token { sub = "alice@example.com" } })
    assert.equal(405, d.status)
    d = send(corp:logout_token { sub = "alice@example.com" }, { web = false })
    assert.equal("allow", d.action)
    assert.equal("public", d.reason)
    assert.allowed(p:request { session = id })
  end)

  it("is 503 while the store is down, and the same token works afterwards", function()
    p.fake.session_failure = "down"
    local token = corp:logout_token { sid = "sid-alice@example.com" }
    assert.equal(503, send(token).status)
    p.fake.session_failure = nil
    assert.equal(200, send(token).status)
  end)
end)

describe("front-channel logout", function()
  local p, corp, id

  before_each(function()
    p = play()
    corp = p:idp("corp")
    id = corp:login({ email = "alice@example.com" })
  end)

  local function visit(query, options)
    local request = { endpoint = "frontchannel_logout", path = "/authservice/frontchannel_logout" .. query, web = true }
    for key, value in pairs(options or {}) do request[key] = value end
    return p:request(request)
  end

  it("by iss and sid, without a word to the provider (S-078, S-263)", function()
    local before = corp:times("token")
    local d = visit("?iss=https%3A%2F%2Flogin.example.com&sid=sid-alice%40example.com")
    assert.equal(200, d.status)
    assert.is_nil(p.fake.sessions[id])
    assert.equal(0, corp:times("revoke"))
    assert.equal(before, corp:times("token"))
  end)

  it("ends nothing for an id that nobody has: each end is remembered and told around", function()
    for _, session in ipairs { "mls_" .. ("a"):rep(43), "x" } do
      local d = visit("", { session = session })
      assert.equal(200, d.status)
      assert.is_nil(d.calls.session_delete)
    end
    p.fake.session_failure = "down"
    p.fake.host.session_delete = function() return nil, "too many sessions wait for their end" end
    assert.equal(503, visit("", { session = id }).status)
  end)

  it("by the cookie alone", function()
    assert.equal(200, visit("", { session = id }).status)
    assert.is_nil(p.fake.sessions[id])
  end)

  for _, query in ipairs { "?iss=https%3A%2F%2Flogin.example.com", "?sid=sid-alice%40example.com", "?iss=https%3A%2F%2Fevil.example.com&sid=sid-alice%40example.com",
                           "?iss=https%3A%2F%2Flogin.example.com&sid=", "?iss=a&iss=b&sid=c", "?iss=https%3A%2F%2Flogin.example.com&sid=sid-alice%40example.com&sid=x" } do
    it("refuses " .. query, function()
      assert.equal(400, visit(query, { session = id }).status)
      assert.allowed(p:request { session = id })
    end)
  end

  it("is passed on by the check port, and is GET only", function()
    assert.equal("allow", visit("", { web = false, session = id }).action)
    assert.equal(405, visit("", { method = "POST", session = id }).status)
    assert.allowed(p:request { session = id })
    p.fake.session_failure = "down"
    assert.equal(503, visit("?iss=https%3A%2F%2Flogin.example.com&sid=x").status)
  end)
end)

describe("form_post (S-236)", function()
  it("comes back by POST, with a cookie that browsers send along", function()
    local p = play { provider = { response_mode = "form_post" } }
    local corp = p:idp("corp")
    local started = corp:start { path = "/x" }
    assert.equal("form_post", started.parameters.response_mode)
    local _, attributes = idps.cookie(started.decision, "oidc_state_csrf")
    assert.truthy(attributes:find("SameSite=None; Secure", 1, true))
    local form = corp:authorize(started, { email = "a" })
    local headers = { ["Content-Type"] = "application/x-www-form-urlencoded" }
    assert.equal("allow", corp:finish(started, "", { method = "POST", headers = headers }).action) -- to the web port, with its body
    local d = corp:finish(started, "", { method = "POST", web = true, headers = headers, body = form })
    assert.equal(303, d.status)
    assert.equal("/x", d.client_headers.Location)
  end)
end)
