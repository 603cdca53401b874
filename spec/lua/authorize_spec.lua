local made = require("made")
local results = require("moonlatch.results")

local function request(rules, claims)
  local p = made.play { authorize = rules }
  claims = claims or {}
  claims.email = claims.email or "alice"
  return p:request { bearer = p:idp("corp"):opaque(claims) }
end

local function groups(options) return { made.authz("groups", options) } end
local function own(run) return made.authz("custom", { run = run }) end
local function says(answer) return function() return answer end end

describe("authorize", function()
  it("wants one of any, all of all", function()
    assert.allowed(request(groups { any = { "a", "b" } }, { groups = { "b" } }))
    assert.denied(request(groups { any = { "a", "b" } }, { groups = { "c" } }), 403, "none of the user's groups is allowed")
    assert.denied(request(groups { any = { "a" } }), 403)
    assert.allowed(request(groups { all = { "a", "b" } }, { groups = { "b", "x", "a" } }))
    assert.denied(request(groups { all = { "a", "b" } }, { groups = { "a" } }), 403, "lacks a group")
    assert.denied(request(groups { any = { "x" }, all = { "a" } }, { groups = { "a" } }), 403)
    assert.denied(request(groups { any = { "a" }, all = { "x" } }, { groups = { "a" } }), 403)
    assert.denied(request(groups { any = {} }, { groups = { "a" } }), 403)
    assert.allowed(request(groups { any = { "*" } }))
    assert.allowed(request(groups { any = { "a", "*" } }))
    assert.denied(request(groups { any = { "*" }, all = { "a" } }), 403)
    assert.denied(request(groups { all = { "*", "a" } }), 403)
    assert.denied(request(groups { any = { "A" } }, { groups = { "a" } }), 403)
  end)

  it("wants the user on the list", function()
    assert.allowed(request({ made.authz("users", { any = { "alice", "bob" } }) }))
    assert.denied(request({ made.authz("users", { any = { "bob" } }) }), 403, "not on the list")
    assert.denied(request({ made.authz("users", { any = { "ALICE" } }) }), 403)
  end)

  it("asks every rule", function()
    local d = request { made.authz("groups", { any = { "a" } }), own(says(true)) }
    assert.denied(d, 403)
    assert.steps(d, "opaque:corp:accept groups:no")
    d = request({ made.authz("groups", { any = { "a" } }), own(says(results.allow())) }, { groups = { "a" } })
    assert.allowed(d)
    assert.steps(d, "opaque:corp:accept groups:yes custom:yes")
  end)

  it("takes true, allow(), false and deny() from functions", function()
    assert.allowed(request { own(says(true)) })
    assert.denied(request { own(says(false)) }, 403)
    assert.denied(request { own(says(results.deny(404, "nothing here"))) }, 404, "nothing here")
  end)

  local bad = { ["nil"] = says(nil), ["0"] = says(0), ["1"] = says(1), ["'allow'"] = says("allow"), ["{}"] = says({}),
                ["{allow=true}"] = says({ allow = true }), accept = says(results.accept {}), skip = says(results.skip()),
                ["a function"] = says(print), ["a bug"] = function() error("bug") end, ["nil, true"] = function() return nil, true end }
  for name, run in pairs(bad) do
    it("denies everything else: " .. name, function()
      local d = request { own(run), own(says(true)) }
      assert.denied(d, 503)
      assert.equal("error", d.reason)
    end)
  end

  it("is unavailable when the outside cannot be asked", function()
    assert.unavailable(request { own(function() error(results.outage("timeout")) end), own(says(true)) }, "timeout")
  end)

  it("gives functions an identity they cannot change", function()
    assert.denied(request { own(function(id) id.user = "root" return true end) }, 503, "read-only")
    assert.denied(request { own(function(id) id.groups[1] = "root" return true end) }, 503, "read-only")
    assert.denied(request { own(function(id) id.claims.x = "root" return true end) }, 503, "read-only")
    assert.allowed(request({ own(function(id, req)
      return id:in_group("g") and not id:in_group("h") and id.method == "opaque" and id.provider == "corp" and req.method == "GET"
    end) }, { groups = { "g" } }))
  end)
end)
