local made = require("made")

local URL = "https://login.example.com/introspect"
local ENV = { S = "s3cr3t%", PEM = "pem" }

-- provider: over its options; options: of the authenticator; introspection alone, cached for a minute.
local function play(options, provider)
  options = options or {}
  options.cache = options.cache or 60
  return made.play(function(host)
    local corp = { name = "corp", issuer = "https://login.example.com", timeout = 5, client_id = "gate", client_secret = host.secret("S") }
    for name, value in pairs(provider or {}) do corp[name] = value or nil end
    if corp.private_key then corp.private_key = host.secret(corp.private_key) end
    options.provider = corp
    return { providers = { corp = corp }, authenticators = { made.authn("introspection", options) } }
  end, { env = ENV })
end

local function answered(status, body, headers, options)
  local p = play(options)
  p:http("POST", URL):replies(status, body, headers)
  return p:request { bearer = "t" }, p
end

local function member(name, value, options)
  local p = play(options)
  local idp = p:idp("corp")
  return p:request { bearer = idp:opaque { email = "a", [name] = value } }, p
end

describe("authn.introspection", function()
  it("posts the token as a form, as our client (S-251)", function()
    local p = play()
    p:http("POST", URL):replies(200, { active = true, email = "a" }):receives(function(body, request)
      assert.equal("token=s3cr3t.to-ken%2B&token_type_hint=access_token", body)
      assert.equal("application/x-www-form-urlencoded", request.headers["content-type"])
      assert.equal("Basic Z2F0ZTpzM2NyM3QlMjU=", request.headers.authorization) -- gate:s3cr3t%25
      assert.equal("application/json", request.headers.accept)
      assert.equal(5, request.timeout)
    end)
    assert.sends(p:request { bearer = "s3cr3t.to-ken+" }, { ["X-User"] = "a" })
  end)

  it("shows who we are in the other ways", function()
    local p = play({}, { auth_method = "client_secret_post" })
    assert.allowed(p:request { bearer = p:idp("corp"):opaque { email = "a" } })
    assert.equal("gate", p:idp("corp").form.client_id)
    assert.equal("s3cr3t%", p:idp("corp").form.client_secret)
    assert.is_nil(p:idp("corp").authorization)
  end)

  it("signs an assertion for a provider that has our key", function()
    local keys = require("moonlatch.testing.keys")
    local p = play({}, { auth_method = "private_key_jwt", private_key = "PEM", introspection_url = URL })
    p.fake.host.jwt_sign = function(claims) return keys.sign(keys.first, claims) end
    assert.allowed(p:request { bearer = p:idp("corp"):opaque { email = "a" } })
    assert.equal("urn:ietf:params:oauth:client-assertion-type:jwt-bearer", p:idp("corp").form.client_assertion_type)
    local claims = p.fake.host.jwt_peek(p:idp("corp").form.client_assertion)
    assert.same({ "gate", "gate", "https://login.example.com/token" }, { claims.iss, claims.sub, claims.aud })
  end)

  it("is for clients that the provider can know", function()
    assert.error_matches(function() play({}, { client_secret = false }) end, "provider 'corp' needs 'client_secret' or 'private_key'", 1, true)
    assert.error_matches(function() play({}, { client_id = false }) end, "needs 'client_id'", 1, true)
    assert.error_matches(function() play { audience = {} } end, "audience is empty", 1, true)
    assert.error_matches(function() play { scope = { "a b" } } end, "a word that no scope is", 1, true)
  end)

  it("asks at the policy's own address, without waiting for discovery", function()
    local p = play({}, { introspection_url = "https://other.example.com/i" })
    p:http("POST", "https://other.example.com/i"):replies(200, { active = true, email = "a" })
    assert.equal(0, p:idp("corp"):times("discovery"))
    assert.allowed(p:request { bearer = "t" })
  end)

  it("takes active for true only when it is true (S-252)", function()
    assert.denied(answered(200, { active = false, email = "a" }), 401, "the provider refused the token")
    for _, active in ipairs { '"true"', "1", "{}", "[true]", "null", '"active"', "0", '""' } do
      assert.unavailable(answered(200, '{"active":' .. active .. ',"email":"a"}'), "active is neither true nor false")
    end
    assert.unavailable(answered(200, { email = "a" }), "active is neither true nor false")
  end)

  for _, status in ipairs { 201, 202, 204, 206, 301, 302, 307, 400, 401, 403, 404, 405, 429, 500, 502, 503, 504 } do
    it("takes " .. status .. " for an outage", function()
      local d = answered(status, { active = true, email = "a" })
      assert.unavailable(d, "the introspection endpoint answered " .. status)
      assert.equal("1", d.client_headers["Retry-After"])
    end)
  end

  for name, body in pairs {
    ["HTML"] = "<html>ok</html>", ["nothing"] = "", ["a list"] = '[{"active":true}]', ["text"] = '"active"', ["null"] = "null", ["true"] = "true",
    ["a truncated object"] = '{"active":true', ["bytes behind"] = '{"active":true} x', ["a member twice"] = '{"active":false,"active":true,"email":"a"}',
    ["1 MiB and more"] = '{"active":true,"x":"' .. ("x"):rep(1048576) .. '"}', ["exp as text"] = '{"active":true,"email":"a","exp":"9999999999"}',
    ["nbf as text"] = '{"active":true,"email":"a","nbf":"1"}', ["depth"] = '{"active":true,"a":' .. ("["):rep(70) .. ("]"):rep(70) .. "}",
  } do
    it("takes a malformed answer for an outage: " .. name, function() assert.unavailable(answered(200, body), "malformed answer") end)
  end

  for _, kind in ipairs { "text/html", "text/plain", "", "application/jwt", "application/xml" } do
    it("reads no answer of the type " .. kind, function()
      assert.unavailable(answered(200, { active = true, email = "a" }, { ["Content-Type"] = kind }), "malformed answer")
    end)
  end

  it("blames nobody's token for a refusal of ourselves, says so in the log, and keeps nothing (S-254)", function()
    for _, status in ipairs { 401, 403 } do
      local p = play()
      local asked = p:http("POST", URL):replies(status, { error = "invalid_client" })
      assert.unavailable(p:request { bearer = "t" })
      local line = p.fake.log[#p.fake.log]
      assert.same({ "error", "the introspection endpoint refuses our credentials" }, { line.level, line.message })
      assert.same({ provider = "corp", status = status }, line.fields)
      asked:replies(200, { active = true, email = "a" })
      assert.allowed(p:request { bearer = "t" })
    end
  end)

  it("keeps neither an outage (S-046) nor, for long, a refusal", function()
    local p = play { cache = 300 }
    local asked = p:http("POST", URL):fails("timeout")
    assert.unavailable(p:request { bearer = "t" }, "timeout")
    asked:replies(200, { active = false })
    for _ = 1, 3 do assert.denied(p:request { bearer = "t" }, 401) end
    assert.equal(2, asked.used)
    asked:replies(200, { active = true, email = "a" })
    p:advance(6)
    assert.allowed(p:request { bearer = "t" })
  end)

  it("never keeps an answer past its exp (S-045)", function()
    local p = play { cache = 300 }
    local asked = p:http("POST", URL):replies(200, { active = true, email = "a", exp = p.fake.now + 2 })
    assert.allowed(p:request { bearer = "t" })
    p:advance(1)
    assert.allowed(p:request { bearer = "t" })
    assert.equal(1, asked.used)
    p:advance(1)
    assert.denied(p:request { bearer = "t" }, 401, "expired")
    assert.equal(2, asked.used)
  end)

  local now = 1700000000
  for _, case in ipairs { -- S-253
    { "iss", "https://login.example.com/", "another issuer" }, { "iss", 5, "another issuer" }, { "iss", { "https://login.example.com" }, "another issuer" },
    { "exp", now, "expired 0s ago" }, { "exp", now - 60, "expired 60s ago" }, { "exp", -1, "exp is no moment" }, { "exp", 1e300, "exp is no moment" },
    { "nbf", now + 61, "not valid yet" }, { "iat", now + 61, "in the future" },
    { "aud", "other", "another audience" }, { "aud", {}, "another audience" }, { "aud", { "other" }, "another audience" }, { "aud", 5, "another audience" },
    { "token_type", "DPoP", "no bearer token" }, { "token_type", "refresh_token", "no bearer token" }, { "token_type", 1, "no bearer token" },
    { "token_type", "", "no bearer token" }, { "token_use", "refresh_token", "no bearer token" }, { "typ", "Refresh", "no bearer token" },
  } do
    it(("enforces %s %s"):format(case[1], tostring(case[2])), function() assert.denied(member(case[1], case[2]), 401, case[3]) end)
  end
  for _, case in ipairs {
    { "iss", "https://login.example.com" }, { "exp", now + 1 }, { "nbf", now + 60 }, { "aud", "gate" }, { "aud", { "x", "gate" } },
    { "token_type", "bearer" }, { "token_type", "access_token" }, { "token_use", "access_token" }, { "typ", "Bearer" },
  } do
    it(("is content with %s %s"):format(case[1], tostring(case[2])), function() assert.allowed((member(case[1], case[2]))) end)
  end

  it("wants an audience that the policy names to be there", function()
    for _, aud in ipairs { "api", { "x", "api" } } do assert.allowed((member("aud", aud, { audience = { "api", "b" } }))) end
    for _, aud in ipairs { "gate", "API", { "gate" }, {} } do assert.denied(member("aud", aud, { audience = { "api" } }), 401, "another audience") end
    assert.denied(member("x", 1, { audience = { "api" } }), 401, "another audience")
  end)

  it("wants all scopes, compared exactly", function()
    local options = function() return { scope = { "read", "write" } } end
    for _, scope in ipairs { "read write", "x write read", { "write", "read" } } do assert.allowed((member("scope", scope, options()))) end
    for _, scope in ipairs { "read", "read,write", "READ write", "read\twrite", "readwrite", "", 5 } do
      assert.denied(member("scope", scope, options()), 401, "lacks the scope")
    end
    assert.denied(member("x", 1, options()), 401, "lacks the scope read")
  end)

  it("asks once for a scope, an audience and a client each (S-040 to S-042)", function()
    local p = made.play(function(host)
      local corp = { name = "corp", issuer = "https://login.example.com", client_id = "gate", client_secret = host.secret("S") }
      local function route(path, options)
        options.provider, options.cache = corp, 60
        return { name = path, path = { path }, authenticators = { made.authn("introspection", options) } }
      end
      return { providers = { corp = corp }, routes = { route("/r", { scope = { "read" } }), route("/w", { scope = { "write" } }), route("/a", { audience = { "api" } }) } }
    end, { env = ENV })
    local token = p:idp("corp"):opaque { email = "a", scope = "read" }
    for _ = 1, 2 do
      assert.allowed(p:request { path = "/r", bearer = token })
      assert.denied(p:request { path = "/w", bearer = token }, 401)
      assert.denied(p:request { path = "/a", bearer = token }, 401)
    end
    assert.equal(3, p:idp("corp"):times("introspect"))
  end)

  it("leaves others' tokens to others", function()
    local p = play()
    local stranger = p:unsigned_jwt { iss = "https://evil.example" }
    for _, token in ipairs { stranger, "mls_" .. ("A"):rep(43) } do
      assert.denied(p:request { bearer = token }, 401)
    end
    assert.denied(p:request {}, 401)
    assert.equal(0, p:idp("corp"):times("introspect"))
    assert.steps(p:request { bearer = stranger }, "introspection:corp:skip")
    assert.allowed(p:request { bearer = p:idp("corp"):opaque { email = "a" } })
  end)

  it("is skipped when nobody could be asked, and is 503 with nobody behind it", function()
    local p = play()
    p:idp("corp"):down()
    assert.unavailable(p:request { bearer = "t" }, "connection refused")
  end)
end)

describe("a signed answer (RFC 9701)", function()
  local function signing(bend, options)
    local p = play(options)
    local idp = p:idp("corp")
    idp.metadata.introspection_signing_alg_values_supported = { "RS256" }
    idp.signed = bend or function() end
    p:advance(1000) -- discovered again
    return p, p:request { bearer = idp:opaque { email = "a" } }
  end

  it("is asked for where the provider names it, and verified", function()
    local p, d = signing()
    assert.sends(d, { ["X-User"] = "a" })
    assert.equal("application/token-introspection+jwt, application/json;q=0.5", p:idp("corp").accept)
    assert.truthy(d.calls.jwt_verify)
    local _, other = signing(function(outer) outer.aud = "api" outer.token_introspection.aud = "api" end, { audience = { "api" } })
    assert.allowed(other)
  end)

  for name, case in pairs {
    ["of another issuer"] = { function(outer) outer.iss = "https://evil.example" end, "iss is not the provider" },
    ["for another client"] = { function(outer) outer.aud = "other" end, "aud is not our client_id" },
    ["for nobody"] = { function(outer) outer.aud = nil end, "aud is not our client_id" },
    ["an access token"] = { function(_, header) header.typ = "at+jwt" end, "another kind" },
    ["of no type"] = { function(_, header) header.typ = nil end, "another kind" },
    ["an old one"] = { function(outer) outer.iat = outer.iat - 301 end, "too long ago" },
    ["of no time"] = { function(outer) outer.iat = nil end, "iat is missing" },
    ["about nothing"] = { function(outer) outer.token_introspection, outer.active = nil, true end, "token_introspection is missing" },
    ["about a text"] = { function(outer) outer.token_introspection = "active" end, "token_introspection is missing" },
    ["about a list"] = { function(outer) outer.token_introspection = { "active" } end, "active is neither" },
  } do
    it("is malformed: " .. name, function()
      local _, d = signing(case[1])
      assert.unavailable(d, case[2])
    end)
  end

  it("decides by what is in it", function()
    local _, d = signing(function(outer) outer.token_introspection = { active = false } end)
    assert.denied(d, 401, "the provider refused the token")
  end)

  it("is not believed when the signature is not the provider's", function()
    local p = play()
    p:http("POST", URL):replies(200, p:idp("corp"):jwt({ token_introspection = { active = true, email = "a" } },
      { signature = "bad", header = { typ = "token-introspection+jwt" } }), { ["Content-Type"] = "application/token-introspection+jwt" })
    assert.unavailable(p:request { bearer = "t" }, "bad signature")
  end)

  it("is no access token (S-112)", function()
    local p = made.play { providers = { corp = made.corp }, authenticators = { made.authn("jwt", { provider = made.corp, audience = { "api" }, cache = 0 }) } }
    local token = p:idp("corp"):jwt({ email = "a", token_introspection = { active = true } }, { audience = "api", header = { typ = "token-introspection+jwt" } })
    assert.denied(p:request { bearer = token }, 401, "another kind of token")
  end)
end)
