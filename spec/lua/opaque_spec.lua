local made = require("made")

local URL = "https://login.example.com/userinfo"

local function play(options)
  options = options or {}
  options.cache = options.cache or 60
  return made.play { authenticators = { made.authn("opaque", options) } }
end

local function answered(status, body, headers, options)
  local p = play(options)
  p:http("GET", URL):replies(status, body, headers)
  return p:request { bearer = "t" }
end

describe("authn.opaque", function()
  it("sends the token to UserInfo and nowhere else", function()
    local p = play()
    p:http("GET", URL):replies(200, { email = "a" }):receives(function(_, request)
      assert.equal("Bearer s3cr3t.to-ken", request.headers.authorization)
      assert.equal("", request.body or "")
      assert.equal(5, request.timeout)
    end)
    assert.allowed(p:request { bearer = "s3cr3t.to-ken" })
  end)

  for _, status in ipairs { 401, 403 } do
    it("takes " .. status .. " for a refusal", function()
      local d = answered(status, "")
      assert.denied(d, 401, "the provider refused the token")
      assert.steps(d, "opaque:corp:skip")
      assert.equal('Bearer error="invalid_token"', d.client_headers["WWW-Authenticate"])
    end)
  end

  it("takes a 400 for a refusal only when it says invalid_token", function()
    assert.denied(answered(400, { error = "invalid_token" }), 401)
    assert.denied(answered(400, "", { ["WWW-Authenticate"] = 'Bearer error="invalid_token"' }), 401)
    assert.unavailable(answered(400, { error = "invalid_request" }), "UserInfo answered 400")
    assert.unavailable(answered(400, "invalid_token"))
  end)

  for _, status in ipairs { 100, 201, 202, 204, 206, 301, 302, 307, 404, 405, 408, 410, 418, 429, 500, 502, 503, 504, 599 } do
    it("takes " .. status .. " for an outage", function()
      local d = answered(status, { email = "a" })
      assert.unavailable(d, "UserInfo answered " .. status)
      assert.equal("1", d.client_headers["Retry-After"])
    end)
  end

  for name, body in pairs {
    ["HTML"] = "<html>ok</html>", ["nothing"] = "", ["a list"] = "[]", ["a list of objects"] = '[{"email":"a"}]', ["text"] = '"a"',
    ["null"] = "null", ["true"] = "true", ["a truncated object"] = '{"email":"a"', ["bytes behind"] = '{"email":"a"} x',
    ["a member twice"] = '{"email":"a","email":"root"}', ["invalid UTF-8"] = '{"email":"\xff"}', ["a JWT"] = "e30.e30.x",
    ["1 MiB and more"] = '{"email":"a","x":"' .. ("x"):rep(1048576) .. '"}', ["depth"] = '{"a":' .. ("["):rep(70) .. ("]"):rep(70) .. "}",
    ["exp as text"] = '{"email":"a","exp":"9999999999"}',
  } do
    it("takes a malformed answer for an outage: " .. name, function() assert.unavailable(answered(200, body), "malformed answer") end)
  end

  it("does not mind the content type", function()
    assert.allowed(answered(200, '{"email":"a"}', { ["Content-Type"] = "text/plain" }))
  end)

  it("is unavailable when nobody answers, and remembers nothing of it (S-046)", function()
    local p = play()
    local asked = p:http("GET", URL):fails("timeout")
    assert.unavailable(p:request { bearer = "t" }, "timeout")
    asked:replies(200, { email = "a" })
    assert.allowed(p:request { bearer = "t" })
    assert.equal(2, asked.used)
  end)

  it("never keeps an answer past its exp or the token's own (S-045)", function()
    local p = play { cache = 300 }
    local asked = p:http("GET", URL):replies(200, { email = "a", exp = p.fake.now + 2 })
    assert.allowed(p:request { bearer = "t" })
    p:advance(1)
    assert.allowed(p:request { bearer = "t" })
    assert.equal(1, asked.used)
    p:advance(1)
    assert.denied(p:request { bearer = "t" }, 401, "expired")
    local token = p:unsigned_jwt { iss = "https://login.example.com", exp = p.fake.now + 2 }
    asked = p:http("GET", URL):replies(200, { email = "a" })
    assert.allowed(p:request { bearer = token })
    p:advance(2)
    assert.allowed(p:request { bearer = token })
    assert.equal(2, asked.used)
  end)

  it("remembers a refusal for five seconds, and only when it may cache", function()
    local p = play()
    local asked = p:http("GET", URL):replies(401, "")
    for _ = 1, 3 do assert.denied(p:request { bearer = "t" }, 401) end
    assert.equal(1, asked.used)
    p:advance(6)
    assert.denied(p:request { bearer = "t" }, 401)
    assert.equal(2, asked.used)
    p = play { cache = 0 }
    asked = p:http("GET", URL):replies(401, "")
    for _ = 1, 3 do assert.denied(p:request { bearer = "t" }, 401) end
    assert.equal(3, asked.used)
  end)

  it("skips a JWT of somebody else without asking", function()
    local p = play { invalid = "reject" }
    local asked = p:http("GET", URL):replies(200, { email = "a" }):times(1)
    for _, iss in ipairs { "https://evil.example.com", "https://login.example.com/", 1 } do
      for _ = 1, 2 do
        local d = p:request { bearer = p:unsigned_jwt { iss = iss } }
        assert.denied(d, 401)
        assert.steps(d, "opaque:corp:skip")
      end
    end
    assert.equal(0, asked.used)
    assert.allowed(p:request { bearer = p:unsigned_jwt { iss = "https://login.example.com" } })
    assert.allowed(p:request { bearer = p:unsigned_jwt { sub = "no issuer" } })
  end)

  it("ends the chain at a refusal where invalid is reject", function()
    local d = answered(401, "", nil, { invalid = "reject" })
    assert.denied(d, 401)
    assert.steps(d, "opaque:corp:reject")
  end)

  it("wants the audience it was told to", function()
    local function with(aud) return (answered(200, { email = "a", aud = aud }, nil, { require_audience = { "api" } })) end
    assert.allowed(with("api"))
    assert.allowed(with({ "x", "api" }))
    for _, aud in ipairs { "x", {}, { "API" }, 1, { { "api" } } } do assert.denied(with(aud), 401, "another audience") end
    assert.denied(with(nil), 401)
  end)

  it("does not send what is no token", function()
    local p = play { header = "X-Token" }
    p:http("GET", URL):replies(200, { email = "a" }):times(0)
    for _, value in ipairs { "a,b", 'a"b', "é", "a;b", "Bearer a\\b" } do
      assert.denied(p:request { headers = { ["X-Token"] = value } }, 401)
    end
    p:verify()
  end)

  it("keeps two providers apart (S-041, S-042)", function()
    local a = { name = "a", issuer = "https://a.example.com", timeout = 5 }
    local b = { name = "b", issuer = "https://b.example.com", timeout = 5 }
    local p = made.play { providers = { a = a, b = b }, authenticators = { made.authn("opaque", { provider = a, cache = 60 }) },
                          routes = { { name = "b", prefix = { "/b" }, authenticators = { made.authn("opaque", { provider = b, cache = 60 }) } } } }
    p:http("GET", "https://a.example.com/userinfo"):replies(200, { email = "alice" })
    p:http("GET", "https://b.example.com/userinfo"):replies(401, "")
    for _ = 1, 2 do
      assert.allowed(p:request { bearer = "t" })
      assert.denied(p:request { path = "/b", bearer = "t" }, 401)
    end
  end)

  it("shows the token to nobody (S-038)", function()
    for _, status in ipairs { 200, 401, 500, 204 } do
      local p = play()
      p:http("GET", URL):replies(status, { sub = "x" })
      local d = p:request { bearer = "s3cr3t" }
      assert.is_nil(tostring(d):find("s3cr3t", 1, true))
      for _, line in ipairs(p.fake.log) do assert.is_nil(line.message:find("s3cr3t", 1, true) or (line.fields.why or ""):find("s3cr3t", 1, true)) end
    end
  end)
end)
