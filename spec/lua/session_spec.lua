-- authn.session: the check, the refresh, the strict mode, the store's outages.
local idps = require("moonlatch.testing.idp")
local keys = require("moonlatch.testing.keys")
local made = require("made")
local session_policy = require("session_policy")

local function play(...) return session_policy.play(...) end

describe("a session", function()
  local p, corp, id

  local function setup(more, options)
    p = play(more, options)
    corp = p:idp("corp")
    id = corp:login({ email = "alice@example.com", groups = { "g" } })
  end
  before_each(function() setup() end)

  local function removed(d) return idps.cookie(d, "authservice_session") == "" end

  it("costs one look and one allow", function()
    p:request { session = id }
    local d = p:request { session = id }
    assert.equal(1, d.calls.session_read)
    assert.equal(1, d.calls.allow)
    assert.equal(1, d.calls.now)
    for _, name in ipairs { "fetch", "begin", "session_tokens", "json_decode", "unseal" } do assert.is_nil(d.calls[name], name) end
  end)

  it("is taken from its header, for programs", function()
    local d = p:request { headers = { ["X-Session"] = id } }
    assert.sends(d, { ["X-User"] = "alice@example.com", ["X-How"] = "header" })
    assert.allowed(p:request { headers = { ["X-Session"] = "Bearer " .. id } })
    assert.sends(p:request { session = id }, { ["X-How"] = "cookie" })
    assert.denied(p:request { headers = { ["X-Session"] = "mls_" .. ("b"):rep(43), Accept = "application/json" } }, 401)
  end)

  it("is looked for in the cookie when the header has something else", function()
    assert.allowed(p:request { session = id, headers = { ["X-Session"] = "other" } })
    assert.allowed(p:request { session = id, headers = { ["X-Session"] = "mls_" .. ("b"):rep(43) } })
  end)

  it("is not read when the cookie is there twice", function()
    local d = p:request { headers = { Cookie = ("authservice_session=%s; authservice_session=%s"):format(id, id), Accept = "a/b" } }
    assert.denied(d, 401)
  end)

  for name, value in pairs { garbage = "x", empty = "", long = ("a"):rep(4000), ["a changed id"] = "mls_" .. ("a"):rep(43), ["an id and more"] = ("a"):rep(44),
                             ["chunk counts"] = "4294967295", quotes = '"' .. ("a"):rep(41) .. '"' } do
    it("is no session and loses its cookie: " .. name .. " (S-069, S-073)", function()
      local d = p:request { session = value, headers = { Accept = "application/json" } }
      assert.denied(d, 401)
      assert.is_true(removed(d))
      d = p:request { session = value, browser = true }
      assert.login(d)
      assert.is_true(removed(d))
    end)
  end

  it("ends with its lifetime, and with its idle time", function()
    setup { session = { max_age = 3600, idle = 600 } }
    for _ = 1, 6 do
      p:advance(599)
      assert.allowed(p:request { session = id })
    end
    p:advance(10)
    assert.login(p:request { session = id, browser = true })
    setup { session = { max_age = 3600, idle = 600 } }
    p:advance(601)
    assert.login(p:request { session = id, browser = true })
  end)

  it("goes on to the next authenticator when it has ended, and guests stay guests", function()
    p = session_policy.play()
    p = made.play(function(host)
      local corp_spec = { name = "corp", issuer = "https://login.example.com", client_id = "gate", client_secret = host.secret("S"), timeout = 5 }
      return { providers = { corp = corp_spec }, authenticators = { made.authn("session", { provider = corp_spec }), made.authn("anonymous", { user = "guest" }) } }
    end, { env = { S = "s" } })
    assert.sends(p:request { session = "mls_" .. ("a"):rep(43) }, { ["X-User"] = "guest" })
  end)

  it("is 503 and keeps its cookie while the store is down (S-420)", function()
    p.fake.session_failure = "connection refused"
    for _, request in ipairs { { session = id }, { session = id, browser = true }, { headers = { ["X-Session"] = id } } } do
      local d = p:request(request)
      assert.unavailable(d)
      assert.is_false(removed(d))
    end
    assert.login(p:request { browser = true })
    p.fake.session_failure = nil
    assert.allowed(p:request { session = id })
  end)

  it("is nobody else's: one of another provider is none", function()
    p.fake.sessions[id].open.owner = "other"
    assert.login(p:request { session = id, browser = true })
  end)

  for name, provider in pairs { ["another issuer"] = { issuer = "https://other.example.com" }, ["another client"] = { client_id = "other" } } do
    it("is none, and so is a login, once the provider's name means " .. name .. " (S-205, S-210)", function()
      p:advance(3600)
      local started = corp:start { path = "/x" }
      local query = corp:authorize(started, { email = "alice@example.com" })
      local sessions = p.fake.sessions
      setup { provider = provider }
      for key, record in pairs(sessions) do p.fake.sessions[key] = record end
      local old = next(sessions)
      assert.login(p:request { session = old, browser = true })
      assert.denied(p:request { headers = { ["X-Session"] = old, Accept = "a/b" } }, 401)
      local asked = corp:times("token")
      assert.equal(400, corp:finish(started, query).status)
      assert.equal(asked, corp:times("token"))
    end)
  end

  it("is never shown to the API server or to UserInfo (Q7)", function()
    setup { session = { header = "Authorization" }, authenticators = { made.authn("kubernetes"), made.authn("opaque", { provider = made.corp }) } }
    local asked, reviewed = corp:times("userinfo"), p:http("POST", "https://10.0.0.1:443/apis/authentication.k8s.io/v1/tokenreviews"):replies(201, {}):times(0)
    local d = p:request { bearer = id }
    assert.allowed(d)
    assert.steps(d, "kubernetes:skip opaque:corp:skip session:corp:accept")
    assert.equal(asked, corp:times("userinfo"))
    assert.equal(0, reviewed.used)
  end)

  it("leaves tokens alone while the store is down", function()
    setup { session = { header = "Authorization" }, authenticators = { made.authn("opaque", { provider = made.corp }) } }
    local token = ("t"):rep(43)
    corp.tokens[token] = { email = "bob@example.com" }
    p.fake.session_failure = "down"
    assert.allowed(p:request { bearer = token })
  end)

  it("says when the policy has two kinds of one provider's sessions", function()
    assert.error_matches(function()
      play { authenticators = { made.authn("session", { provider = made.corp, cookie = "other" }) } }
    end, "authn.session: cookie is not the same everywhere for provider 'corp'", 1, true)
  end)

  it("does not load when the callback is somewhere else", function()
    assert.error_matches(function() play { provider = { redirect_url = "https://app.example.com/login" } } end, "must be that of the callback, /authservice/oidc/callback", 1, true)
    assert.truthy(play({ provider = { redirect_url = "https://app.example.com/login" } }, { env = { CORP_SECRET = "s", REDIRECT_URL = "/login" } }))
  end)
end)

describe("a refresh", function()
  local p, corp, id

  local function setup(more)
    p = play(more)
    corp = p:idp("corp")
    corp.expires_in = 300
    id = corp:login({ email = "alice@example.com" })
  end
  before_each(function() setup() end)

  local function asked() return corp:times("token") - 1 end -- one was the login's

  it("waits for the access token to expire, and rotates", function()
    p:advance(299)
    assert.allowed(p:request { session = id })
    assert.equal(0, asked())
    for round = 1, 3 do
      p:advance(301)
      assert.allowed(p:request { session = id })
      assert.allowed(p:request { session = id })
      assert.equal(round, asked())
    end
    assert.equal(4, p.fake.sessions[id].revision)
  end)

  it("goes on with the first refresh token where the provider does not rotate", function()
    local first = p.fake.sessions[id].tokens.refresh_token
    local person = corp.refresh_tokens[first]
    corp.tokens_answer = function(t) t.refresh_token = nil return t end
    for round = 1, 3 do
      corp.refresh_tokens[first] = person
      p:advance(301)
      assert.allowed(p:request { session = id })
      assert.equal(round, asked())
    end
    assert.equal(first, p.fake.sessions[id].tokens.refresh_token)
  end)

  it("keeps every audience of the login (S-232)", function()
    corp.id_token = function(c) c.aud, c.azp = { "gate", "other" }, "gate" return c end
    id = corp:login { email = "alice@example.com" }
    p:advance(301)
    assert.allowed(p:request { session = id })
    corp.id_token = function(c) c.azp = "gate" return c end
    p:advance(301)
    assert.login(p:request { session = id, browser = true })
  end)

  it("is not done without a refresh token", function()
    corp.tokens_answer = function(t) t.refresh_token = nil return t end
    id = corp:login { email = "a" }
    p:advance(1000)
    local before = corp:times("token")
    assert.allowed(p:request { session = id })
    assert.equal(before, corp:times("token"))
  end)

  it("waits no longer than a check can", function()
    p:advance(301)
    p:http("POST", "https://login.example.com/token"):fails("timeout"):receives(function(_, request) assert.is_true(request.timeout <= 2) end)
    assert.allowed(p:request { session = id })
  end)

  it("keeps the lifetime of the login (Q12)", function()
    setup { session = { max_age = 1000 } }
    for _ = 1, 3 do
      p:advance(301)
      assert.allowed(p:request { session = id })
    end
    p:advance(100)
    assert.login(p:request { session = id, browser = true })
  end)

  it("goes on after somebody else's logout (Q11)", function()
    local other = corp:login({ email = "bob@example.com" })
    assert.equal(201, p:request { endpoint = "logout", method = "POST", path = "/authservice/logout", headers = { ["X-Session"] = other } }.status)
    for _ = 1, 2 do
      p:advance(301)
      assert.allowed(p:request { session = id })
    end
    assert.equal(3, p.fake.sessions[id].revision)
    assert.is_nil(p.fake.sessions[other])
  end)

  it("ends the session when the grant is not good any more (S-210)", function()
    corp.refresh_tokens = {}
    p:advance(301)
    local d = p:request { session = id, browser = true }
    assert.login(d)
    assert.equal("", idps.cookie(d, "authservice_session"))
    assert.is_nil(p.fake.sessions[id])
    assert.equal(1, asked())
  end)

  for name, answer in pairs {
    ["an outage"] = function() p:http("POST", "https://login.example.com/token"):fails("timeout") end,
    ["503"] = function() p:http("POST", "https://login.example.com/token"):replies(503, "") end,
    ["429"] = function() p:http("POST", "https://login.example.com/token"):replies(429, "") end,
    ["invalid_client"] = function() p:http("POST", "https://login.example.com/token"):replies(401, { error = "invalid_client" }) end,
    ["nonsense"] = function() p:http("POST", "https://login.example.com/token"):replies(200, "{}") end,
    ["invalid_grant as 401"] = function() p:http("POST", "https://login.example.com/token"):replies(401, { error = "invalid_grant" }) end,
    ["invalid_grant with another status"] = function() p:http("POST", "https://login.example.com/token"):replies(500, { error = "invalid_grant" }) end,
  } do
    it("lets the session go on after " .. name .. ", and the provider in peace (Q8)", function()
      answer()
      local stub = p.stubs[1]
      p:advance(301)
      for _ = 1, 5 do assert.allowed(p:request { session = id }) end
      assert.equal(1, stub.used)
      p:advance(11)
      assert.allowed(p:request { session = id })
      assert.equal(2, stub.used)
      table.remove(p.stubs, 1)
      p:advance(11)
      assert.allowed(p:request { session = id })
      assert.equal(1, asked())
      assert.equal(2, p.fake.sessions[id].revision)
    end)
  end

  it("goes on while the provider's new key cannot be read yet (Q8, S-413)", function()
    local first, sign, old = corp:start { path = "/x" }, corp.sign, p.fake.sessions[id].tokens.refresh_token
    local person = corp.refresh_tokens[old]
    p:advance(301)
    corp.sign = function(self, claims) return keys.sign(self.key, claims, { kid = "unknown" }) end
    corp:finish(first, corp:authorize(first, { email = "mallory@example.com" })) -- has the keys read: no more for 10 s
    corp.sign, corp.key, corp.published = sign, keys.second, { keys.first, keys.second }
    assert.allowed(p:request { session = id })
    assert.equal(old, p.fake.sessions[id].tokens.refresh_token)
    p:advance(11)
    corp.refresh_tokens[old] = person -- of a provider that does not rotate
    assert.allowed(p:request { session = id })
    assert.not_equal(old, p.fake.sessions[id].tokens.refresh_token)
  end)

  it("goes on with the claims when another replica is at it", function()
    p:advance(301)
    p.fake.session_locks[id] = p.fake.now + 5
    assert.allowed(p:request { session = id })
    assert.equal(0, asked())
  end)

  it("takes what another replica has stored", function()
    p:advance(301)
    local record = p.fake.sessions[id]
    record.tokens.access_expires, record.revision = p.fake.now + 300, 2
    assert.allowed(p:request { session = id })
    assert.equal(0, asked())
  end)

  it("gives the lock back, also when the store fails at the end", function()
    p:advance(301)
    local replace = p.fake.host.session_replace
    p.fake.host.session_replace = function() return nil, "failed", "disk full" end
    assert.allowed(p:request { session = id })
    assert.same({}, p.fake.session_locks)
    p.fake.host.session_replace = replace
  end)

  -- S-232: what of the new ID token, whether the session goes on
  for name, case in pairs {
    ["the same"] = { function() end, true }, ["none"] = { "none", true },
    ["another sub"] = { function(c) c.sub = "mallory" end, false }, ["another iss"] = { function(c) c.iss = "https://evil.example.com" end, false },
    ["another aud"] = { function(c) c.aud = "other" end, false }, ["an azp that was not there"] = { function(c) c.azp = "gate" end, false },
    ["an earlier iat"] = { function(c) c.iat = c.iat - 400 end, false }, ["another nonce"] = { function(c) c.nonce = "other" end, false },
    ["another auth_time"] = { function(c) c.auth_time = 5 end, true }, -- the first had none to compare with
    ["no exp"] = { function(c) c.exp = nil end, false }, ["a bad at_hash"] = { function(c) c.at_hash = "AAAA" end, false },
  } do
    it(("with an ID token: %s: the session %s"):format(name, case[2] and "goes on" or "ends"), function()
      if case[1] == "none" then corp.tokens_answer = function(t) t.id_token = nil return t end
      else corp.id_token = function(c) case[1](c) return c end end
      p:advance(301)
      local d = p:request { session = id, browser = true }
      if case[2] then assert.allowed(d) else assert.login(d) end
      assert.equal(case[2], p.fake.sessions[id] ~= nil)
    end)
  end
end)

describe("strict", function()
  local p, corp, id

  local function setup(strict)
    p = play { session = { strict = strict } }
    corp = p:idp("corp")
    corp.expires_in = 300
    id = corp:login({ email = "alice@example.com" })
    return corp:times("userinfo")
  end

  it("asks UserInfo each time", function()
    local before = setup(0)
    for i = 1, 3 do
      assert.allowed(p:request { session = id })
      assert.equal(before + i, corp:times("userinfo"))
    end
  end)

  it("asks each so many seconds", function()
    local before = setup(30)
    for _ = 1, 3 do assert.allowed(p:request { session = id }) end
    assert.equal(before + 1, corp:times("userinfo"))
    p:advance(31)
    assert.allowed(p:request { session = id })
    assert.equal(before + 2, corp:times("userinfo"))
  end)

  it("ends the session when the provider refuses the token", function()
    setup(0)
    corp.tokens = {}
    local d = p:request { session = id, browser = true }
    assert.login(d)
    assert.equal("", idps.cookie(d, "authservice_session"))
    assert.is_nil(p.fake.sessions[id])
  end)

  it("ends the session when the provider refuses a token that is fresh from a refresh (Q13)", function()
    corp.expires_in = 300
    id = corp:login({ email = "bob@example.com" })
    p:advance(301)
    p:http("GET", "https://login.example.com/userinfo"):replies(401, "")
    local d = p:request { session = id, browser = true }
    assert.login(d)
    assert.is_nil(d.fault)
    assert.is_nil(p.fake.sessions[id])
  end)

  it("ends the session when UserInfo is about somebody else", function()
    setup(0)
    for _, claims in pairs(corp.tokens) do claims.sub = "mallory" end
    assert.login(p:request { session = id, browser = true })
  end)

  it("is 503 in an outage, and the session is there afterwards", function()
    setup(0)
    corp:down()
    assert.unavailable(p:request { session = id })
    corp:up()
    assert.allowed(p:request { session = id })
  end)

  it("refreshes first, and is 503 when that fails or another replica is at it", function()
    setup(0)
    p:advance(301)
    p.fake.session_locks[id] = p.fake.now + 5
    assert.unavailable(p:request { session = id })
    p.fake.session_locks[id] = nil
    assert.allowed(p:request { session = id })
    p:advance(301)
    p:http("POST", "https://login.example.com/token"):fails("timeout")
    assert.unavailable(p:request { session = id })
  end)
end)
