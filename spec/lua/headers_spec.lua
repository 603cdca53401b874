local made = require("made")
local results = require("moonlatch.results")

local function request(headers, claims, more)
  local policy = { headers = headers }
  for key, value in pairs(more or {}) do policy[key] = value end
  local p = made.play(policy)
  claims.email = claims.email or "e"
  return p:request { bearer = p:idp("corp"):opaque(claims) }
end

describe("headers", function()
  it("join lists, default what is missing, and are not sent without a value", function()
    local d = request({ A = "{claims.list}", B = "{claims.x|none}", C = "{claims.x}", D = "a{claims.x}b", E = "{user}/{method}/{credential}/{provider}",
                        F = "text", G = "{claims.n}-{claims.b}", H = "{claims.x|}" }, { list = { "a", "b" }, n = 7, b = true })
    assert.sends(d, { A = "a,b", B = "none", E = "e/opaque/header/corp", F = "text", G = "7-true", H = "" })
    assert.removes(d, "C")
    assert.removes(d, "D")
  end)

  it("are removed where the policy says false", function()
    local d = request({ Authorization = false }, {})
    assert.removes(d, "authorization")
    assert.equal("remove", d.headers[1].op)
  end)

  it("refuse a claim that is no text", function()
    assert.denied(request({ A = "{claims.x}" }, { x = { a = "b" } }), 403, "header A: {claims.x} is no text")
    assert.denied(request({ A = "{claims.x}" }, { x = 1.5 }), 403)
    assert.denied(request({ A = "{claims.x}" }, { x = { "a", 1 } }), 403)
  end)

  it("refuse what is longer than 16 KiB", function()
    assert.allowed(request({ A = "{claims.x}" }, { x = ("x"):rep(16384) }))
    assert.denied(request({ A = "{claims.x}" }, { x = ("x"):rep(16385) }), 403, "header A is longer than 16 KiB")
  end)

  it("call functions with the identity and the request", function()
    local d = request({ A = function(id, req) return id.user .. req.path end, B = function() return { "x", "y" } end, C = function() end,
                        D = function(id) return id:in_group("g") and "in" or "out" end }, { groups = { "g" } })
    assert.sends(d, { A = "e/", B = "x,y", D = "in" })
    assert.removes(d, "C")
  end)

  it("call functions for each request", function()
    local p = made.play { headers = { A = function(_, req) return req.path end, B = "{user}" } }
    local token = p:idp("corp"):opaque { email = "e" }
    for _, path in ipairs { "/a", "/b" } do assert.sends(p:request { bearer = token, path = path }, { A = path, B = "e" }) end
  end)

  for name, fn in pairs { raises = function() error("bug") end, ["returns a number"] = function() return 1 end, ["returns false"] = function() return false end,
                          ["returns a control character"] = function() return "a\nb" end, ["returns a map"] = function() return { a = "b" } end,
                          ["writes to the identity"] = function(id) id.user = "x" end } do
    it("answer 503 when a function " .. name, function()
      local d = request({ A = fn }, {})
      assert.denied(d, 503)
      assert.equal("error", d.reason)
    end)
  end

  it("answer 503 unavailable when a function cannot reach the outside", function()
    assert.unavailable(request({ A = function() error(results.outage("down")) end }, {}), "down")
  end)

  it("never let through a header that any route names", function()
    local p = made.play {
      headers = { A = "{user}" },
      routes = { { name = "pub", path = { "/pub" }, public = true }, { name = "b", path = { "/b" }, headers = { B = "{user}" } } },
    }
    local token = p:idp("corp"):opaque { email = "e" }
    for path, sent in pairs { ["/pub"] = {}, ["/b"] = { A = "e", B = "e" }, ["/"] = { A = "e" } } do
      local d = p:request { path = path, bearer = token }
      assert.allowed(d)
      assert.equal(2, #d.headers)
      assert.sends(d, sent)
      for _, name in ipairs { "A", "B" } do
        if not sent[name] then assert.removes(d, name) end
      end
    end
    assert.same({ "a", "b" }, p.loaded.headers)
  end)

  it("are removed on a route that says false", function()
    local p = made.play { headers = { A = "{user}" }, routes = { { name = "r", prefix = { "/r" }, headers = { A = false } } } }
    local token = p:idp("corp"):opaque { email = "e" }
    assert.removes(p:request { path = "/r", bearer = token }, "A")
    assert.sends(p:request { bearer = token }, { A = "e" })
  end)

  it("refuse one name in two spellings, and too many", function()
    assert.error_matches(function() request({ ["X-A"] = "a", ["x-a"] = "b" }, {}) end, "write it one way")
    local many = {}
    for i = 1, 33 do many["H" .. i] = "x" end
    assert.error_matches(function() request(many, {}) end, "at most 32 headers")
  end)

  it("put no text of the policy into generated code (S-026)", function()
    local p
    local sources = {}
    p = require("moonlatch.testing").play(function(host)
      local load_chunk = host.load_chunk
      host.load_chunk = function(source, ...)
        sources[#sources + 1] = source
        return load_chunk(source, ...)
      end
      return require("moonlatch.compile")(host, made.policy {
        headers = { ["X-User"] = '{claims.x"]os.exit()--}]]', Y = function() return "y" end, Z = '"..os.exit().."' },
      })
    end, "./")
    assert.equal(1, #sources)
    for _, source in ipairs(sources) do assert.is_nil(source:find("X-User", 1, true) or source:find("os", 1, true)) end
    assert.allowed(p:request { bearer = p:idp("corp"):opaque { email = "e" } })
  end)
end)
