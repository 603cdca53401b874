local jose = require("moonlatch.testing.jose")
local keys = require("moonlatch.testing.keys")
local made = require("made")

local ISSUER = "https://login.example.com"

local function corp(more)
  local spec = { name = "corp", issuer = ISSUER, client_id = "gate", timeout = 5 }
  for name, value in pairs(more or {}) do spec[name] = value end
  return spec
end

-- A policy with authn.jwt for the audience "api" in front of whoever else is named.
local function play(options, more, testing_options)
  more = more or {}
  local provider = corp(more.provider)
  local own = { provider = provider, audience = { "api" }, cache = 300 }
  for name, value in pairs(options or {}) do own[name] = value end
  local steps = { made.authn(more.type or "jwt", own) }
  for i, step in ipairs(more.behind or {}) do steps[i + 1] = step end
  local p = made.play({ providers = { corp = provider }, authenticators = steps }, testing_options)
  return p, p:idp("corp")
end

local function api(options)
  local all = { audience = "api" }
  for name, value in pairs(options or {}) do all[name] = value end
  return all
end

-- Denied with 401 and this why; the outcome of the step is "skip" or "reject".
local function refused(p, token, outcome, why)
  local d = p:request { bearer = token }
  assert.denied(d, 401, why)
  assert.steps(d, "jwt:corp:" .. outcome)
  return d
end

describe("authn.jwt", function()
  local p, idp
  before_each(function() p, idp = play() end)

  it("accepts a good token, and asks nobody but for the keys", function()
    local d = p:request { bearer = idp:jwt({ email = "alice@example.com", groups = { "a", "b" } }, api()) }
    assert.allowed(d)
    assert.steps(d, "jwt:corp:accept")
    assert.sends(d, { ["X-User"] = "alice@example.com", ["X-Groups"] = "a,b" })
    assert.equal(1, idp:times("jwks"))
    assert.equal(0, idp:times("userinfo"))
  end)

  it("takes one of several audiences, on either side", function()
    for _, aud in ipairs { "api", { "api" }, { "x", "api" } } do
      assert.allowed(p:request { bearer = idp:jwt({ email = "a" }, { audience = aud }) })
    end
    p, idp = play { audience = { "other", "api" } }
    assert.allowed(p:request { bearer = idp:jwt({ email = "a" }, api()) })
  end)

  it("takes the types of access tokens (RFC 9068 section 4)", function()
    for _, typ in ipairs { false, "JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt" } do
      assert.allowed(p:request { bearer = idp:jwt({ email = "a" }, api { header = { typ = typ } }) })
    end
  end)

  describe("leaves to others", function()
    it("what is no JWT", function()
      for _, token in ipairs { "opaque", "a.b", "a.b.c", "e30.e30", "a..b", "...", ("."):rep(8000), "e30.e30.AA=", "e30.e30.A+A",
                               "a.b.c.d.e", jose.sign('{"iss":"' .. ISSUER .. '","aud":"api","aud":"api"}', { alg = "RS256" }, "key-1") } do
        refused(p, token, "skip", "the token is no JWT")
      end
    end)

    -- S-103, S-104
    for name, claims in pairs {
      ["another issuer"] = { iss = "https://evil.example.com" }, ["a longer issuer"] = { iss = ISSUER .. "/" },
      ["a shorter issuer"] = { iss = ISSUER:sub(1, -2) }, ["an issuer in capitals"] = { iss = ISSUER:upper() },
      ["a list of issuers"] = { iss = { ISSUER } }, ["a number for issuer"] = { iss = 1 },
      ["another audience"] = { aud = "other" }, ["no audience in it"] = { aud = "" }, ["an empty list"] = { aud = {} },
      ["a longer audience"] = { aud = "api2" }, ["a shorter audience"] = { aud = "ap" }, ["an audience in capitals"] = { aud = "API" },
      ["a nested list"] = { aud = { { "api" } } }, ["an object"] = { aud = { x = "api" } }, ["a number"] = { aud = 1 }, ["a boolean"] = { aud = true },
    } do
      it(name, function()
        claims.email = "mallory"
        refused(p, idp:jwt(claims, api()), "skip", claims.iss and "the token is from another issuer" or "the token is for another audience")
      end)
    end

    it("tokens without issuer or audience", function()
      for _, name in ipairs { "iss", "aud" } do refused(p, idp:jwt({ email = "a" }, api { without = { name } }), "skip") end
    end)

    it("and remembers it for a while", function()
      local token = idp:jwt({ email = "a", aud = "other" })
      for _ = 1, 2 do refused(p, token, "skip", "the token is for another audience") end
    end)
  end)

  describe("refuses", function()
    it("a bad signature, and asks nobody else", function()
      p, idp = play({}, { behind = { made.authn("anonymous", { user = "guest", groups = {} }) } })
      local d = refused(p, idp:jwt({ email = "a" }, api { signature = "bad" }), "reject", "bad signature")
      assert.equal('Bearer error="invalid_token", error_description="bad signature"', d.client_headers["WWW-Authenticate"])
    end)

    it("any changed character of it", function()
      local token = idp:jwt({ email = "alice" }, api())
      for i = 1, #token do
        local other = token:sub(i, i) == "A" and "B" or "A"
        assert.denied(p:request { bearer = token:sub(1, i - 1) .. other .. token:sub(i + 1) }, 401)
        assert.denied(p:request { bearer = token:sub(1, i - 1) .. token:sub(i + 1) }, 401)
      end
      assert.allowed(p:request { bearer = token })
    end)

    it("tokens that are not signed (S-090), whatever is behind", function()
      p, idp = play({}, { behind = { made.authn("anonymous", { user = "guest", groups = {} }) } })
      local head, payload, signed = idp:jwt({ email = "a" }, api()):match("^(.*)%.(.*)%.(.*)$")
      refused(p, head .. "." .. payload .. ".", "reject", "the token has an empty part")
      for _, alg in ipairs { '"none"', '"None"', '"nOnE"', '""', "null", '["RS256"]', '"HS256"', '"dir"', "1" } do
        local other = p.fake.host.base64_encode('{"kid":"key-1","alg":' .. alg .. "}", true)
        refused(p, other .. "." .. payload .. "." .. signed, "reject")
      end
      refused(p, p.fake.host.base64_encode("{}", true) .. "." .. payload .. "." .. signed, "reject", "no alg")
    end)

    it("headers that change what it means (S-097, S-108)", function()
      for _, header in ipairs { { crit = { "exp" } }, { crit = {} }, { b64 = true }, { zip = "DEF" }, { enc = "A256GCM" } } do
        refused(p, idp:jwt({ email = "a" }, api { header = header }), "reject")
      end
    end)

    it("what is past, and says since when", function()
      local token = idp:jwt({ email = "a" }, api { ttl = 60 })
      assert.allowed(p:request { bearer = token })
      p:advance(59)
      assert.allowed(p:request { bearer = token })
      for _, case in ipairs { { 2, "1s" }, { 118, "119s" }, { 1, "2m" }, { 7200, "2h" }, { 864000, "10d" } } do
        p:advance(case[1])
        p:clear_cache()
        local d = refused(p, token, "reject", "expired " .. case[2] .. " ago")
        assert.equal(('Bearer error="invalid_token", error_description="expired %s ago"'):format(case[2]), d.client_headers["WWW-Authenticate"])
      end
    end)

    it("moments that are none (S-105)", function()
      for _, value in ipairs { "9999999999", 0, -1, 1e300, 1e-300, 9007199254740993, 1e11, true, { 1 } } do
        refused(p, idp:jwt({ email = "a", exp = value }, api()), "reject", value == 0 and "ago" or value == 1e-300 and "ago" or "exp is no moment")
      end
      refused(p, idp:jwt({ email = "a" }, api { without = { "exp" } }), "reject", "exp is missing")
      for _, name in ipairs { "nbf", "iat" } do
        for _, value in ipairs { "1", -1, 1e300, {} } do
          refused(p, idp:jwt({ email = "a", [name] = value }, api()), "reject", name .. " is no moment")
        end
      end
      assert.allowed(p:request { bearer = idp:jwt({ email = "a", exp = p.fake.now + 0.5 }, api()) })
    end)

    it("what is not valid yet", function()
      refused(p, idp:jwt({ email = "a", nbf = p.fake.now + 61 }, api()), "reject", "the token is not valid yet")
      refused(p, idp:jwt({ email = "a", iat = p.fake.now + 61 }, api()), "reject", "iat is in the future")
      assert.allowed(p:request { bearer = idp:jwt({ email = "a", nbf = p.fake.now + 60, iat = p.fake.now + 60 }, api()) })
    end)

    it("other kinds of tokens (S-112, S-249)", function()
      for _, typ in ipairs { "logout+jwt", "secevent+jwt", "dpop+jwt", "at", "jwt2", "" } do
        refused(p, idp:jwt({ email = "a" }, api { header = { typ = typ } }), "reject", "it is another kind of token")
      end
      refused(p, idp:jwt({ email = "a", events = { x = {} } }, api()), "reject", "it is another kind of token")
      for _, claims in ipairs { { nonce = "n" }, { at_hash = "h" }, { c_hash = "h" }, { typ = "ID" } } do
        claims.email = "a"
        refused(p, idp:jwt(claims, api()), "reject", "it is an ID token")
      end
    end)

    it("but no nonce of one that says it is an access token", function()
      assert.allowed(p:request { bearer = idp:jwt({ email = "a", nonce = "n" }, api { header = { typ = "at+jwt" } }) })
      assert.allowed(p:request { bearer = idp:jwt({ email = "a", nonce = "n", typ = "Bearer" }, api()) })
    end)

    it("a bad signature before anything else is said (S-114)", function()
      refused(p, idp:jwt({ email = "a" }, api { signature = "bad", ttl = -100 }), "reject", "bad signature")
    end)

    it("algorithms that are not on its list", function()
      p, idp = play { algorithms = { "ES256" } }
      refused(p, idp:jwt({ email = "a" }, api()), "reject", "the token's alg is not one of those accepted")
    end)

    it("a key of another issuer (S-246)", function()
      local claims = { iss = ISSUER, aud = "api", email = "a", exp = p.fake.now + 60 }
      refused(p, keys.sign(keys.second, claims), "reject", "the token's key is not known")
      refused(p, keys.sign(keys.second, claims, { kid = "key-1" }), "reject", "bad signature")
    end)

    it("and lets others have a look where invalid is next", function()
      p, idp = play({ invalid = "next" }, { behind = { made.authn("anonymous", { user = "guest", groups = {} }) } })
      local d = p:request { bearer = idp:jwt({ email = "a" }, api { signature = "bad" }) }
      assert.sends(d, { ["X-User"] = "guest" })
      p, idp = play { invalid = "next" }
      assert.denied(p:request { bearer = idp:jwt({ email = "a" }, api { signature = "bad" }) }, 401, "bad signature")
    end)

    it("and shows nothing of the token (S-038)", function()
      local token = idp:jwt({ email = "a" }, api { signature = "bad" })
      local d = p:request { bearer = token }
      for part in token:gmatch("[^.]+") do
        assert.is_nil((tostring(d) .. d.client_headers["WWW-Authenticate"]):find(part, 1, true))
      end
    end)
  end)

  it("bears with clocks that differ as long as it is told to", function()
    p, idp = play { leeway = 30 }
    local token = idp:jwt({ email = "a" }, api { ttl = 60 })
    assert.allowed(p:request { bearer = token })
    p:advance(89)
    assert.allowed(p:request { bearer = token })
    p:clear_cache()
    assert.allowed(p:request { bearer = token })
    p:advance(1)
    refused(p, token, "reject", "expired 30s ago")
    refused(p, idp:jwt({ email = "a", nbf = p.fake.now + 31 }, api()), "reject", "not valid yet")
    assert.error_matches(function() play { leeway = 301 } end, "leeway is more than 5m", 1, true)
  end)

  it("wants all scopes that it is told to (RFC 6750 section 3.1)", function()
    p, idp = play { scope = { "read", "write" } }
    for _, claims in ipairs { { scope = "write x read" }, { scope = { "read", "write" } }, { scp = "read write" }, { scp = { "write", "read" } } } do
      claims.email = "a"
      assert.allowed(p:request { bearer = idp:jwt(claims, api()) })
    end
    for _, claims in ipairs { { scope = "read" }, { scope = "read writes" }, { scope = "READ WRITE" }, { scope = "read,write" }, { scope = 1 },
                              { scope = {} }, {}, { scope = "read", scp = "write" } } do
      claims.email = "a"
      local token = idp:jwt(claims, api())
      for _ = 1, 2 do
        local d = p:request { bearer = token }
        assert.denied(d, 403, "the token lacks the scope")
        assert.steps(d, "jwt:corp:reject")
        assert.truthy(d.client_headers["WWW-Authenticate"]:find('^Bearer error="insufficient_scope", error_description="the token lacks'))
      end
    end
    assert.error_matches(function() play { scope = { "a b" } } end, "no scope is", 1, true)
  end)

  it("needs an audience", function()
    assert.error_matches(function() play { audience = {} } end, "audience is empty", 1, true)
  end)

  it("reads the header that it is told to", function()
    p, idp = play { header = "X-Token" }
    local token = idp:jwt({ email = "a" }, api())
    assert.denied(p:request { bearer = token }, 401)
    assert.allowed(p:request { headers = { ["X-Token"] = token } })
  end)
end)

describe("a verified token", function()
  local function verifications(p) return p.fake.calls.jwt_verify or 0 end

  it("costs a look-up until it expires", function()
    local p, idp = play()
    local token = idp:jwt({ email = "a" }, api { ttl = 100 })
    for i = 1, 3 do
      local d = p:request { bearer = token }
      assert.allowed(d)
      assert.equal(i == 1 and 1 or nil, d.calls.jwt_verify)
    end
    assert.same({ credential = 1, begin = 1, step = 1, allow = 1, req = 1 }, p:request({ bearer = token }).calls)
    p:advance(99)
    assert.is_nil(p:request({ bearer = token }).calls.jwt_verify)
    p:advance(1)
    assert.denied(p:request { bearer = token }, 401, "expired 0s ago")
  end)

  it("is verified again when its time in the cache is over", function()
    local p, idp = play { cache = 60 }
    local token = idp:jwt({ email = "a" }, api())
    p:request { bearer = token }
    p:advance(61)
    assert.allowed(p:request { bearer = token })
    assert.equal(1, verifications(p))
  end)

  it("is verified each time where nothing is to be cached", function()
    local p, idp = play { cache = 0 }
    local good, bad = idp:jwt({ email = "a" }, api()), idp:jwt({ email = "a" }, api { signature = "bad" })
    for _ = 1, 2 do
      assert.allowed(p:request { bearer = good })
      assert.equal(1, verifications(p))
      assert.denied(p:request { bearer = bad }, 401)
      assert.equal(1, verifications(p))
    end
  end)

  it("that is bad is remembered for five seconds", function()
    local p, idp = play()
    local bad = idp:jwt({ email = "a" }, api { signature = "bad" })
    for _, wanted in ipairs { 1, 0, 0 } do
      refused(p, bad, "reject", "bad signature")
      assert.equal(wanted, verifications(p))
    end
    p:advance(6)
    refused(p, bad, "reject", "bad signature")
    assert.equal(1, verifications(p))
  end)

  it("is another one for another authenticator", function()
    local p, idp = play({ audience = { "other" } }, { behind = { made.authn("jwt", { provider = corp(), audience = { "api" }, cache = 300 }) } })
    local token = idp:jwt({ email = "a" }, api())
    for _ = 1, 2 do assert.steps(p:request { bearer = token }, "jwt:corp:skip jwt:corp:accept") end
  end)
end)

describe("the keys", function()
  local KEYS = '{"keys":[{"kty":"RSA","kid":"key-1","alg":"RS256","fake":"key-1"}]}'

  it("are read again for a key that is new, at once (S-234)", function()
    local p, idp = play()
    idp.published, idp.key = { keys.first, keys.second }, keys.second
    assert.allowed(p:request { bearer = idp:jwt({ email = "a" }, api()) })
    assert.equal(2, idp:times("jwks"))
  end)

  it("are asked for once in ten seconds, however many tokens come (S-049)", function()
    local p, idp = play()
    for i = 1, 1000 do
      local token = keys.sign(keys.first, { iss = ISSUER, aud = "api", email = "a", exp = p.fake.now + 60 }, { kid = "kid-" .. i })
      refused(p, token, "reject", "the token's key is not known")
    end
    assert.equal(2, idp:times("jwks"))
    p:advance(9)
    idp.published, idp.key = { keys.second }, keys.second
    local token = idp:jwt({ email = "a" }, api())
    refused(p, token, "reject", "the token's key is not known")
    assert.equal(2, idp:times("jwks"))
    p:advance(1)
    assert.allowed(p:request { bearer = token }) -- the refusal was not remembered
    assert.equal(3, idp:times("jwks"))
  end)

  it("are looked at again by those who looked while they were read", function()
    local p = play()
    local corp_keys = p.loaded.by_name.corp.keys
    assert.is_true(corp_keys:refresh())
    assert.is_true(corp_keys:refresh())
    p:advance(1)
    assert.is_false(corp_keys:refresh())
  end)

  it("are read even if the client that wants it goes away", function()
    local p, idp = play()
    p.fake.host.post(p.loaded.by_name.corp.keys.asked, { at = p.fake.now }) -- as far as it came
    idp.published, idp.key = { keys.second }, keys.second
    local token = idp:jwt({ email = "a" }, api())
    refused(p, token, "reject", "the token's key is not known")
    p:advance(1)
    assert.allowed(p:request { bearer = token })
    assert.equal(2, idp:times("jwks"))
    p:advance(8)
    assert.equal(2, idp:times("jwks"))
  end)

  it("that are withdrawn stop verifying", function()
    local p, idp = play()
    local old, older = idp:jwt({ email = "a" }, api()), idp:jwt({ email = "b" }, api())
    assert.allowed(p:request { bearer = older })
    idp.published, idp.key = { keys.second }, keys.second
    assert.allowed(p:request { bearer = idp:jwt({ email = "a" }, api()) })
    refused(p, old, "reject", "the token's key is not known")
    assert.allowed(p:request { bearer = older }) -- it is cached
    p:advance(301)
    refused(p, older, "reject", "the token's key is not known")
  end)

  it("that are withdrawn without a new one stop with the next reading", function()
    local p, idp = play { cache = 0 }
    local token = idp:jwt({ email = "a" }, api())
    assert.allowed(p:request { bearer = token })
    idp.published = { keys.second }
    p:advance(901)
    refused(p, token, "reject", "the token's key is not known")
  end)

  it("stay good while the provider is down", function()
    local p, idp = play { cache = 0 }
    idp:down()
    p:advance(3000)
    assert.allowed(p:request { bearer = idp:jwt({ email = "a" }, api()) })
  end)

  it("that were never read are an outage, not a refusal", function()
    local p, idp = play({}, { provider = { jwks_url = ISSUER .. "/jwks" } }, { discovery = false })
    idp:down()
    p:discover()
    local token = idp:jwt({ email = "a" }, api())
    local d = p:request { bearer = token }
    assert.unavailable(d, "the provider's keys are not known")
    assert.equal("1", d.client_headers["Retry-After"])
    idp:up()
    p:advance(31)
    assert.allowed(p:request { bearer = token })
    assert.equal(0, idp:times("discovery")) -- nothing of its document is needed
  end)

  it("are read for the first token, if nobody has read them before", function()
    for _, provider in ipairs { { jwks_url = ISSUER .. "/jwks" }, { jwks_file = "/keys.json" } } do
      local p, idp = play({}, { provider = provider }, { discovery = false, files = { ["/keys.json"] = KEYS } })
      assert.allowed(p:request { bearer = idp:jwt({ email = "a" }, api()) })
    end
    local p, idp = play({}, {}, { discovery = false })
    assert.unavailable(p:request { bearer = idp:jwt({ email = "a" }, api()) }, "not asked yet") -- where they are is not known yet
  end)

  local function from_file(text)
    return play({}, { provider = { jwks_file = "/keys.json" } }, { files = { ["/keys.json"] = text } })
  end

  it("can be in a file: then nobody is asked, ever", function()
    local p, idp = from_file(KEYS)
    idp:down()
    assert.allowed(p:request { bearer = idp:jwt({ email = "a" }, api()) })
    refused(p, keys.sign(keys.second, { iss = ISSUER, aud = "api", exp = p.fake.now + 60 }), "reject", "the token's key is not known")
    p:advance(100000)
    assert.allowed(p:request { bearer = idp:jwt({ email = "a" }, api()) })
    assert.equal(0, idp:times("jwks") + idp:times("discovery"))
  end)

  it("in a file must be a JWK Set", function()
    for text, why in pairs { ["{}"] = "no JWK Set", ["x"] = "/keys.json", ['{"keys":[]}'] = "the set has no keys" } do
      assert.error_matches(function() from_file(text) end, why, 1, true)
    end
    assert.error_matches(function() play({}, { provider = { jwks_file = "/none.json" } }) end, "no such file", 1, true)
  end)
end)

describe("authn.id_token", function()
  local function id_play(options, more)
    more = more or {}
    more.type = "id_token"
    return play(options, more)
  end
  local function why_of(p, token)
    local d = p:request { bearer = token }
    assert.denied(d, 401)
    return d.message, d.steps[1].outcome
  end

  it("accepts an ID token of ours", function()
    local p, idp = id_play()
    local token = idp:jwt({ sub = "s", email = "alice", nonce = "n" })
    for _ = 1, 2 do
      local d = p:request { bearer = token }
      assert.sends(d, { ["X-User"] = "alice" })
      assert.steps(d, "id_token:corp:accept")
    end
    p:advance(3600)
    assert.equal("expired 0s ago", (why_of(p, token)))
  end)

  it("leaves tokens for others to others", function()
    local p, idp = id_play()
    assert.same({ "the token is for another audience", "skip" }, { p:request { bearer = idp:jwt({ sub = "s" }, api()) }.steps[1].reason, "skip" })
    assert.same("skip", select(2, why_of(p, idp:jwt { sub = "s", iss = "https://evil.example.com" })))
  end)

  it("refuses other kinds of tokens, and what an ID token must not be (S-112, S-222, S-229)", function()
    local p, idp = id_play()
    for why, token in pairs {
      ["it is another kind of token"] = idp:jwt({ sub = "s", email = "a" }, { header = { typ = "at+jwt" } }),
      ["it is another kind of token "] = idp:logout_token { sub = "s" },
      ["it is another kind of token  "] = idp:jwt { sub = "s", email = "a", typ = "Bearer" },
      ["azp is not our client_id"] = idp:jwt { sub = "s", email = "a", azp = "other" },
      ["azp is not our client_id "] = idp:jwt({ sub = "s", email = "a" }, { audience = { "gate", "other" } }),
      ["sub is missing or no subject"] = idp:jwt { email = "a" },
      ["iat is missing"] = idp:jwt({ sub = "s", email = "a" }, { without = { "iat" } }),
      ["exp is missing"] = idp:jwt({ sub = "s", email = "a" }, { without = { "exp" } }),
      ["bad signature"] = idp:jwt({ sub = "s", email = "a" }, { signature = "bad" }),
    } do
      local said, outcome = why_of(p, token)
      assert.equal((why:gsub(" +$", "")), said)
      assert.equal("reject", outcome)
    end
  end)

  it("needs a client_id", function()
    assert.error_matches(function() id_play({ provider = { name = "corp", issuer = ISSUER, timeout = 5 } }) end, "needs 'client_id'", 1, true)
  end)
end)

describe("several providers", function()
  it("are told apart by issuer, each with its own keys", function()
    local a, b = corp { name = "a", issuer = "https://a.example.com" }, corp { name = "b", issuer = "https://b.example.com" }
    local p = made.play {
      providers = { a = a, b = b },
      authenticators = { made.authn("jwt", { provider = a, audience = { "api" }, cache = 60 }), made.authn("jwt", { provider = b, audience = { "api" }, cache = 60 }) },
    }
    local one, two = p:idp("a"), p:idp("b")
    two.key, two.published = keys.second, { keys.second }
    p:advance(1000)
    assert.steps(p:request { bearer = one:jwt({ email = "x" }, api()) }, "jwt:a:accept")
    assert.steps(p:request { bearer = two:jwt({ email = "x" }, api()) }, "jwt:a:skip jwt:b:accept")
    one:down() -- one that is down does not stand in the other's way
    assert.steps(p:request { bearer = two:jwt({ email = "y" }, api()) }, "jwt:a:skip jwt:b:accept")
    assert.denied(p:request { bearer = two:jwt({ email = "x", iss = "https://a.example.com" }, api()) }, 401, "the token's key is not known")
  end)
end)

-- A policy function's jwt.verify and jwt.peek.
describe("a policy's own function", function()
  local testing = require("moonlatch.testing")
  local POLICY = [[
return { api = 1,
  providers = { corp = { issuer = "https://login.example.com", client_id = "gate" }, other = { issuer = "https://other.example.com" } },
  authenticators = { function(req)
    local token = req.headers["X-Token"]
    if not token then return skip("no token") end
    local peeked = jwt.peek(token)
    if not peeked then return skip("no JWT") end
    local claims, why = jwt.verify(token, %s)
    if not claims then return reject(401, why) end
    return accept { user = claims.sub, groups = { peeked.sub } }
  end }, headers = { ["X-User"] = "{user}", ["X-Groups"] = "{groups}" } }]]

  local function load(arguments)
    local p = testing.play(function(host) return require("moonlatch").load(host, "p.lua", POLICY:format(arguments or '"corp", "api"')) end, "./")
    return p, p:idp("corp")
  end
  local function ask(p, token) return p:request { headers = { ["X-Token"] = token } } end

  it("verifies a token", function()
    local p, idp = load()
    assert.sends(ask(p, idp:jwt({ sub = "alice" }, api())), { ["X-User"] = "alice", ["X-Groups"] = "alice" })
    assert.allowed(ask(p, idp:jwt({ sub = "alice", nonce = "n" }, api())))
    assert.steps(ask(p, "x.y.z"), "custom:skip")
  end)

  it("is told why not", function()
    local p, idp = load('"corp", { "api", "more" }')
    for why, token in pairs {
      ["bad signature"] = idp:jwt({ sub = "a" }, api { signature = "bad" }), ["expired 2m ago"] = idp:jwt({ sub = "a" }, api { ttl = -120 }),
      ["iss is not the provider"] = idp:jwt({ sub = "a", iss = "https://other.example.com" }, api()),
      ["the token is for another audience"] = idp:jwt({ sub = "a" }),
      ["it is another kind of token"] = idp:jwt({ sub = "a" }, api { header = { typ = "logout+jwt" } }),
      ["the token's key is not known"] = p:idp("other"):sign({ sub = "a" }, { kid = "nope" }),
    } do
      assert.denied(ask(p, token), 401, why)
    end
    assert.allowed(ask(p, idp:jwt({ sub = "a" }, { audience = "more" })))
  end)

  it("meets an outage where the keys are not known", function()
    local p = testing.play(function(host)
      return require("moonlatch").load(host, "p.lua", (POLICY:gsub('client_id = "gate"', 'jwks_url = "https://login.example.com/jwks"')):format('"corp", "api"'))
    end, "./", { discovery = false })
    local corp_idp = p:idp("corp")
    corp_idp:down()
    p:discover()
    assert.unavailable(ask(p, corp_idp:jwt({ sub = "a" }, api())), "the provider's keys are not known")
  end)

  for arguments, why in pairs {
    ['"corp"'] = "jwt.verify takes the audience that the token must be for", ['"corp", {}'] = "jwt.verify takes the audience",
    ['"corp", 5'] = "jwt.verify takes the audience", ['"corp", { 5 }'] = "jwt.verify takes the audience",
    ['"crop", "api"'] = "there is no provider 'crop'; did you mean 'corp'?", ['nil, "api"'] = "jwt.verify takes a text, not nil",
  } do
    it("is wrong with " .. arguments, function()
      local p, idp = load(arguments)
      local d = ask(p, idp:jwt({ sub = "a" }, api()))
      assert.equal("error", d.reason)
      assert.truthy(tostring(d):find(why, 1, true), tostring(d))
    end)
  end
end)
