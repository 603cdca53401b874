local made = require("made")
local results = require("moonlatch.results")
local accept, skip, reject = results.accept, results.skip, results.reject

local function custom(name, run, more)
  local options = { name = name, run = run }
  for key, value in pairs(more or {}) do options[key] = value end
  return made.authn("custom", options)
end

local function says(answer) return function() return answer end end
local alice = accept { user = "alice", groups = { "a", "b" } }

describe("chain", function()
  describe("a cache hit", function()
    it("takes four host calls", function()
      local p = made.play({})
      local token = p:idp("corp"):opaque { email = "alice@example.com", groups = { "a", "b" } }
      assert.allowed(p:request { bearer = token })
      local d = p:request { bearer = token }
      assert.allowed(d)
      assert.sends(d, { ["X-User"] = "alice@example.com", ["X-Groups"] = "a,b" })
      assert.same({ credential = 1, begin = 1, step = 1, allow = 1, req = 1 }, d.calls) -- req: read by the fake's credential
    end)

    it("makes no garbage of its own", function()
      local p = made.play({})
      local token = p:idp("corp"):opaque { email = "alice@example.com" }
      p:request { bearer = token }
      -- the same call with a host that answers constants: what is allocated now is the library's
      local wrapper = select(2, next(p.fake.cache)).value
      local req = { credential = function() return token end }
      local function nothing() end
      local quiet = setmetatable({ begin = function() return "hit", wrapper end, step = nothing, allow = nothing, route = nothing },
        { __index = p.fake.host })
      p.fake.loading = true
      local policy = made.policy {}
      local decide = require("moonlatch.compile")(quiet, policy).decide
      decide(req)
      collectgarbage()
      collectgarbage("stop")
      local before = collectgarbage("count")
      for _ = 1, 100 do decide(req) end
      local used = collectgarbage("count") - before
      collectgarbage("restart")
      assert.equal(0, used)
    end)

    it("renders each route's headers for itself", function()
      local p = made.play {
        routes = { { name = "r", prefix = { "/r" }, headers = { ["X-User"] = "r:{user}" } } },
      }
      local token = p:idp("corp"):opaque { email = "alice" }
      for _ = 1, 2 do
        assert.sends(p:request { bearer = token }, { ["X-User"] = "alice" })
        assert.sends(p:request { bearer = token, path = "/r" }, { ["X-User"] = "r:alice" })
      end
    end)
  end)

  it("keeps what it worked out for eight routes, and no more", function()
    local list = {}
    for i = 1, 20 do list[i] = { name = "r" .. i, prefix = { "/r" .. i } } end
    local count = 0
    local p = made.play { routes = list, identity = { user = { claim = "email" }, n = { map = function() count = count + 1 return "n" end } } }
    local token = p:idp("corp"):opaque { email = "alice" }
    for _ = 1, 2 do
      for i = 1, 20 do assert.sends(p:request { bearer = token, path = "/r" .. i }, { ["X-User"] = "alice" }) end
    end
    local wrapper, fields = select(2, next(p.fake.cache)).value, 0
    for _ in pairs(wrapper) do fields = fields + 1 end
    assert.equal(11, fields) -- claims, the identity, eight routes, their number
    assert.equal(1, count)   -- the identity is one for all routes
  end)

  describe("outcomes", function()
    it("goes on after skip and ends at accept", function()
      local p = made.play { authenticators = { custom("one", says(skip("not mine"))), custom("two", says(alice)) } }
      local d = p:request {}
      assert.allowed(d)
      assert.steps(d, "one:skip two:accept")
    end)

    it("ends at reject with 401 and invalid_token", function()
      local p = made.play { authenticators = { custom("one", says(reject(401, "unknown"))), custom("two", says(alice)) } }
      local d = p:request {}
      assert.denied(d, 401, "unknown")
      assert.steps(d, "one:reject")
      assert.equal('Bearer error="invalid_token"', d.client_headers["WWW-Authenticate"])
    end)

    it("goes on after reject where invalid is next, and remembers that one was refused", function()
      local p = made.play { authenticators = { custom("one", says(reject(401, "unknown")), { invalid = "next" }) } }
      local d = p:request {}
      assert.denied(d, 401, "unknown")
      assert.steps(d, "one:skip")
      assert.equal('Bearer error="invalid_token"', d.client_headers["WWW-Authenticate"])
    end)

    it("answers 401 without an error when there was no credential", function()
      local d = made.play({}):request {}
      assert.denied(d, 401)
      assert.equal("Bearer", d.client_headers["WWW-Authenticate"])
    end)

    it("says 503 when nobody accepts and one could not be asked", function()
      local p = made.play { authenticators = {
        custom("one", function() error(results.outage("timeout")) end), custom("two", says(skip("no"))) } }
      local d = p:request {}
      assert.unavailable(d, "could not ask one")
      assert.equal("1", d.client_headers["Retry-After"])
      assert.steps(d, "one:unavailable two:skip")
    end)

    it("names all that could not be asked", function()
      local function down() error(results.outage("timeout")) end
      local d = made.play({ authenticators = { custom("one", down), custom("two", down) } }):request {}
      assert.unavailable(d, "could not ask one, two")
    end)

    it("lets another one accept although one could not be asked", function()
      local p = made.play { authenticators = {
        custom("one", function() error(results.outage("timeout")) end), custom("two", says(alice)) } }
      assert.allowed(p:request {})
    end)

    it("takes a later reject before an outage", function()
      local p = made.play { authenticators = {
        custom("one", function() error(results.outage("timeout")) end), custom("two", says(reject(403, "no"))) } }
      assert.denied(p:request {}, 403, "no")
    end)

    it("ends at an error, whoever would come next", function()
      local p = made.play { authenticators = { custom("one", function() error("bug") end), custom("two", says(alice)) } }
      local d = p:request {}
      assert.denied(d, 503, "bug")
      assert.equal("error", d.reason)
      assert.equal("the policy failed", d.message) -- the client does not read our bugs
      assert.steps(d, "one:error")
    end)
  end)

  describe("what a custom function returns", function()
    local bad = {
      ["nil"] = says(nil), ["true"] = says(true), ["false"] = says(false), ["0"] = says(0), ["1"] = says(1),
      ["an empty text"] = says(""), ['"allow"'] = says("allow"), ["{}"] = says({}), ["{ allow = true }"] = says({ allow = true }),
      ["{ kind = 'accept' }"] = says({ kind = "accept", user = "root" }), ["a function"] = says(print), ["userdata"] = says(io.stdout),
      ["allow()"] = says(results.allow()), ["deny()"] = says(results.deny(403, "x")), ["two values"] = function() return true, alice end,
    }
    for name, run in pairs(bad) do
      it("is an error when it is " .. name, function()
        local d = made.play({ authenticators = { custom("one", run) } }):request {}
        assert.denied(d, 503, "return accept{}, skip() or reject()")
        assert.equal("error", d.reason)
      end)
    end

    it("names nil", function()
      local d = made.play({ authenticators = { custom("one", says(nil)) } }):request {}
      assert.denied(d, 503, "the function returned nil; return accept{}, skip() or reject()")
    end)

    for name, fields in pairs { ["no user"] = {}, ["a float"] = { user = 1.5 }, ["a table"] = { user = {} }, ["empty"] = { user = "" } } do
      it("is no identity: " .. name, function()
        assert.denied(made.play({ authenticators = { custom("one", says(accept(fields))) } }):request {}, 401)
      end)
    end
  end)

  describe("when", function()
    it("skips, and must say true or false", function()
      local p = made.play { authenticators = { custom("one", says(alice), { when = function(req) return req.path == "/x" end }) } }
      assert.denied(p:request {}, 401)
      assert.allowed(p:request { path = "/x" })
      p = made.play { authenticators = { custom("one", says(alice), { when = function() end }) } }
      assert.denied(p:request {}, 503, "when returned nil")
    end)
  end)

  it("drops what is not enabled", function()
    local p = made.play { authenticators = { custom("one", says(alice), { enabled = false }) } }
    assert.denied(p:request {}, 401)
  end)

  it("takes everybody in as anonymous, once", function()
    local p = made.play { authenticators = { made.authn("anonymous", { user = "guest", groups = { "g" } }) } }
    assert.sends(p:request {}, { ["X-User"] = "guest", ["X-Groups"] = "g" })
    assert.steps(p:request {}, "anonymous:accept")
  end)

  describe("setup", function()
    it("keeps everybody out but public routes until each provider was discovered once", function()
      local p = made.play({
        authenticators = { custom("one", says(alice)), made.authn("opaque") },
        routes = { { name = "open", prefix = { "/open" }, public = true } },
      }, { discovery = false })
      local d = p:request {}
      assert.unavailable(d, "setup is not complete yet")
      assert.equal("1", d.client_headers["Retry-After"])
      assert.allowed(p:request { path = "/open" })
      p:idp("corp"):down()
      p:discover()
      assert.unavailable(p:request {}, "connection refused")
      p:idp("corp"):up()
      p:advance(1)
      assert.allowed(p:request {})
    end)

    it("is over once it was complete: an outage is one authenticator's", function()
      local p = made.play { authenticators = { made.authn("opaque"), custom("one", says(alice)) } }
      p:idp("corp"):down()
      p:advance(2000)
      assert.allowed(p:request { bearer = "x" })
    end)
  end)

  describe("responses", function()
    it("say what the policy wants", function()
      local p = made.play {
        authorize = { made.authz("groups", { any = { "staff" } }) },
        responses = { denied = function(id, req, reason) return results.deny(404, id.user .. req.path .. reason) end,
                      unauthenticated = function() return results.deny(401, "come back") end },
      }
      assert.denied(p:request {}, 401, "come back")
      local token = p:idp("corp"):opaque { email = "alice" }
      assert.denied(p:request { bearer = token }, 404, "alice/none of the user's groups is allowed")
    end)

    for name, fn in pairs { raise = function() error("x") end, ["nil"] = says(nil), allow = says(results.allow()), accept = says(alice) } do
      it("never turn a denial into anything else: " .. name, function()
        local p = made.play { authorize = { made.authz("groups", { any = { "staff" } }) }, responses = { denied = fn } }
        assert.denied(p:request { bearer = p:idp("corp"):opaque { email = "alice" } }, 403)
      end)
    end
  end)
end)

describe("what a policy's own tables are to the chain", function()
  -- On the server a view is a userdata; here it is a table that only pairs, ipairs and # see into.
  local sandbox = require("moonlatch.testing.sandbox")
  local users = sandbox.readonly { alice = { user = "alice", groups = { "a", "b" }, claims = { x = { "y", "z" } } } }

  it("copies, though they are read-only views", function()
    local p = made.play {
      authenticators = { custom("c", function() return accept(users.alice) end) },
      headers = { U = "{user}", G = "{groups}", X = "{claims.x}", F = function(id) return id.groups end },
    }
    assert.sends(p:request {}, { U = "alice", G = "a,b", X = "y,z", F = "a,b" })
  end)

  it("refuses claims that are no table, and tables that hold themselves", function()
    local function with(fields) return made.play({ authenticators = { custom("c", function() return accept(fields) end) } }):request {} end
    assert.denied(with { user = "a", claims = "x" }, 503, "claims as a table")
    local loop = {}
    loop.loop = loop
    assert.denied(with { user = "a", claims = loop }, 503, "nested too deeply")
  end)
end)
