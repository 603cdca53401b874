local json = require("moonlatch.testing.json")
local made = require("made")
local results = require("moonlatch.results")

-- One request of a caller with these claims, under this mapping.
local function request(identity, claims, headers, more)
  local p = made.play(function(host)
    local policy = { identity = identity, headers = headers or { ["X-User"] = "{user}", ["X-Groups"] = "{groups}" } }
    for _, spec in pairs(identity) do
      for _, rule in ipairs(spec.rewrite or {}) do rule.regex = host.regex(rule.matches) end
    end
    for key, value in pairs(more or {}) do policy[key] = value end
    return policy
  end)
  if type(claims) == "string" then p:http("GET", "https://login.example.com/userinfo"):replies(200, claims) end
  return p:request { bearer = type(claims) == "string" and "t" or p:idp("corp"):opaque(claims) }
end

local EMAIL = { user = { claim = "email" }, groups = { claim = "groups", default = {} } }

local function denied(claims, status, text) assert.denied(request(EMAIL, claims), status, text) end

local function list_of(n, make)
  local list = {}
  for i = 1, n do list[i] = make(i) end
  return list
end

describe("identity", function()
  it("takes the first claim that is present", function()
    local spec = { user = { claim = { "preferred_username", "email" } } }
    assert.sends(request(spec, { email = "e", preferred_username = "p" }), { ["X-User"] = "p" })
    assert.sends(request(spec, { email = "e" }), { ["X-User"] = "e" })
    assert.sends(request(spec, '{"email":"e","preferred_username":null}'), { ["X-User"] = "e" })
  end)

  it("reads a path literally first, then by its dots", function()
    local spec = { user = { claim = "a.b" } }
    assert.sends(request(spec, { ["a.b"] = "literal", a = { b = "nested" } }), { ["X-User"] = "literal" })
    assert.sends(request(spec, { a = { b = "nested" } }), { ["X-User"] = "nested" })
    assert.denied(request(spec, { a = "text" }), 401, "claim a.b is missing")
    assert.sends(request({ user = { claim = "https://example.com/name" } }, { ["https://example.com/name"] = "n" }), { ["X-User"] = "n" })
  end)

  it("lowers, rewrites with the first rule that matches, and prefixes", function()
    local function rewritten(rules, value)
      return request({ user = { claim = "email", lower = true, prefix = "p:", rewrite = rules } }, { email = value })
    end
    local rules = { { matches = "@(corp)\\.example", replaces = "-$1" }, { matches = "a", replaces = "X" } }
    assert.sends(rewritten(rules, "Alice@Corp.Example"), { ["X-User"] = "p:alice-corp" })
    assert.sends(rewritten(rules, "banana"), { ["X-User"] = "p:bXnXnX" })
    assert.sends(rewritten(rules, "bob"), { ["X-User"] = "p:bob" })
  end)

  it("derives names from others", function()
    local spec = { user = { claim = "email" }, groups = { claim = "g", prefix = "g:", default = {} },
                   z = { from = "y", prefix = "z" }, y = { from = "user", prefix = "y" } }
    local d = request(spec, { email = "e", g = { "a", "b" } }, { A = "{z}", B = "{y}", C = "{groups}" })
    assert.sends(d, { A = "zye", B = "ye", C = "g:a,g:b" })
  end)

  it("refuses to compile what derives from itself", function()
    assert.error_matches(function() request({ user = { from = "a" }, a = { from = "user" } }, {}) end, "derives from itself")
  end)

  it("computes names with functions that cannot change anything", function()
    local spec = { user = { claim = "email" }, level = { map = function(claims, id) return claims.acr .. id.user end } }
    assert.sends(request(spec, { email = "e", acr = "mfa" }, { L = "{level}" }), { L = "mfae" })
    spec.level = { map = function(claims) claims.x = 1 end }
    assert.denied(request(spec, { email = "e" }, { L = "{level}" }), 503, "read-only")
    spec.level = { map = function(_, id) id.user = "root" end }
    assert.denied(request(spec, { email = "e" }, { L = "{level}" }), 503, "read-only")
    spec.level = { map = function() error(results.outage("timeout")) end }
    assert.unavailable(request(spec, { email = "e" }, { L = "{level}" }), "timeout")
  end)

  it("overlays the policy's mapping by the kind's and the authenticator's own", function()
    local p = made.play {
      identity = { user = { claim = "email" }, upstream = { from = "user", prefix = "u:" } },
      authenticators = {
        made.authn("kubernetes", { identity = { groups = { claim = { "nothing" }, default = { "own" } } } }), made.authn("opaque") },
      headers = { U = "{upstream}", G = "{groups}" },
    }
    assert.sends(p:request { bearer = p:kube_token("sa", { "g" }) }, { U = "u:sa", G = "own" })
    assert.sends(p:request { bearer = p:idp("corp"):opaque { email = "e", groups = { "g" } } }, { U = "u:e", G = "g" })
  end)

  describe("of a wrong type", function()
    it("is refused as a user, but for an integer", function()
      assert.sends(request(EMAIL, '{"email":1}'), { ["X-User"] = "1" })
      assert.sends(request(EMAIL, '{"email":12345678901}'), { ["X-User"] = "12345678901" })
      for _, value in ipairs { "1.0", "1.5", "true", "{}", "[]", '["a"]', '{"a":"b"}' } do
        denied(('{"email":%s}'):format(value), 401, "claim email")
      end
      denied('{"email":""}', 401, "the user is empty")
      denied("{}", 401, "claim email is missing")
      denied('{"email":null}', 401, "claim email is missing")
    end)

    it("is refused as groups", function()
      for _, value in ipairs { "1", "true", '{"admin":1}', '[["admin"]]', '["admin",1]', "1.5", "[true]" } do
        denied(('{"email":"a","groups":%s}'):format(value), 401, "claim groups")
      end
      assert.sends(request(EMAIL, '{"email":"a","groups":"admin"}'), { ["X-Groups"] = "admin" })
      assert.sends(request(EMAIL, '{"email":"a","groups":[]}'), { ["X-Groups"] = "" })
      assert.sends(request(EMAIL, '{"email":"a","groups":null}'), { ["X-Groups"] = "" })
    end)

    it("is refused as email_verified", function()
      for _, value in ipairs { "1", '"yes"', "[true]", "{}", '"TRUE"', "0.0" } do
        denied(('{"email":"a","email_verified":%s}'):format(value), 401, "claim email_verified")
      end
      for _, value in ipairs { "true", "false", '"true"', '"false"', "null" } do
        assert.allowed(request(EMAIL, ('{"email":"a","email_verified":%s}'):format(value)))
      end
    end)
  end)

  describe("that would break a header", function()
    local breaking = { CRLF = "\r\nX: 1", CR = "\r", LF = "\n", TAB = "a\tb", DEL = "\127", C1 = "\u{80}", NEL = "\u{85}",
                       ["U+2028"] = "\u{2028}", ["U+2029"] = "\u{2029}" }
    for name, text in pairs(breaking) do
      it("is denied: " .. name, function()
        denied({ email = "bob" .. text .. "x" }, 403)
        denied({ email = "bob", groups = { "a", "b" .. text .. "x" } }, 403)
      end)
    end

    it("is denied: NUL", function()
      local d = request(EMAIL, '{"email":"bob\\u0000x"}') -- our JSON has none
      assert.unavailable(d, "malformed answer")
      local p = made.play { authenticators = { made.authn("custom", { name = "c", run = function()
        return results.accept { user = "bob\0x" }
      end }) } }
      assert.denied(p:request {}, 403, "control character")
    end)

    it("is denied: invalid UTF-8", function()
      local p = made.play { authenticators = { made.authn("custom", { name = "c", run = function(req)
        return results.accept { user = req.path, groups = { "g" } }
      end }) } }
      assert.denied(p:request { path = "/\xff" }, 403, "UTF-8")
      assert.denied(p:request { path = "/\xc0\xaf" }, 403, "UTF-8")
      assert.allowed(p:request { path = "/é" })
    end)

    it("is denied: a space that would be trimmed", function()
      for _, name in ipairs { " root", "root ", "\troot" } do
        denied({ email = name }, 403)
        denied({ email = "a", groups = { name } }, 403)
      end
    end)

    it("is denied: a comma in a group", function()
      denied({ email = "a", groups = { "x,admin" } }, 403, "comma")
      denied({ email = "a", groups = "x,admin" }, 403, "comma")
      denied({ email = "a", groups = { "" } }, 403, "empty")
    end)
  end)

  it("bounds groups by number and bytes", function()
    local short = function(i) return "g" .. i end
    assert.allowed(request(EMAIL, { email = "a", groups = list_of(1000, short) }))
    denied({ email = "a", groups = list_of(1001, short) }, 403, "more than 1000 groups")
    local long = function() return ("x"):rep(1023) end
    assert.allowed(request(EMAIL, { email = "a", groups = list_of(16, long) }))
    assert.allowed(request(EMAIL, { email = "a", groups = { ("x"):rep(16384) } }))
    denied({ email = "a", groups = { ("x"):rep(16385) } }, 403, "16 KiB")
    denied({ email = "a", groups = { ("x"):rep(16384), "y" } }, 403, "longer than 16 KiB")
    denied({ email = "a", groups = list_of(17, long) }, 403, "longer than 16 KiB")
    denied({ email = ("x"):rep(16385) }, 403, "16 KiB")
  end)

  it("bounds names that no header carries", function()
    local headers = { M = "{method}" }
    local function long(n) return ("x"):rep(n) end
    assert.allowed(request(EMAIL, { email = long(16384), groups = { long(16384) } }, headers))
    assert.denied(request(EMAIL, { email = long(16385) }, headers), 403, "the user's name is longer than 16 KiB")
    assert.denied(request(EMAIL, { email = "a", groups = { long(16385) } }, headers), 403, "a group's name is longer than 16 KiB")
    assert.allowed(request(EMAIL, { email = "a", groups = { long(16382), "y" } }, headers))
    assert.denied(request(EMAIL, { email = "a", groups = { long(16383), "y" } }, headers), 403, "groups are longer than 16 KiB")
  end)

  it("derives no user from a list", function()
    local spec = { user = { from = "all" }, all = { claim = "groups" } }
    assert.denied(request(spec, { groups = { "root" } }), 401, "all is not of a type that user can have")
    assert.sends(request(spec, { groups = "root" }), { ["X-User"] = "root" })
  end)

  it("says when the credential expires", function()
    local headers = { E = "{expires_at}", F = function(id) return tostring(id.expires_at) end }
    assert.sends(request(EMAIL, { email = "a", exp = 1700000100 }, headers), { E = "1700000100", F = "1700000100" })
    assert.removes(request(EMAIL, { email = "a" }, { E = "{expires_at}" }), "E")
  end)

  it("maps again after an outage", function()
    local down = true
    local p = made.play { identity = { n = { map = function() if down then error(results.outage("timeout")) end return "n" end } } }
    local token = p:idp("corp"):opaque { email = "e" }
    assert.unavailable(p:request { bearer = token }, "timeout")
    down = false
    assert.allowed(p:request { bearer = token })
  end)

  it("maps a cached caller once", function()
    local count = 0
    local p = made.play { identity = { user = { claim = "email" }, n = { map = function() count = count + 1 return "n" end } } }
    local token = p:idp("corp"):opaque { email = "e" }
    for _ = 1, 3 do assert.allowed(p:request { bearer = token }) end
    assert.equal(1, count)
  end)

  it("keeps names of the wrapper out of the identity", function()
    local p = made.play { authenticators = { made.authn("custom", { name = "c", run = function()
      return results.accept { user = "u", claims = { expires = "claimed" } }
    end }) }, identity = { expires = { claim = "expires" } }, headers = { E = "{expires}" } }
    assert.sends(p:request {}, { E = "claimed" })
  end)

  it("tells groups from text in JSON lists", function() assert.same({ "a" }, json.decode('["a"]')) end)
end)
