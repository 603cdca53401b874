local made = require("made")
local results = require("moonlatch.results")
local testing = require("moonlatch.testing")

local function fetching(url)
  return made.play(function(host)
    return { authenticators = { made.authn("custom", { name = "c", run = function()
      host.fetch { method = "POST", url = url, body = "{}" }
      return results.accept { user = "u" }
    end }) } }
  end)
end

describe("testing", function()
  it("fails a test on a call that nobody stands in for, with the line to add", function()
    local p = fetching("http://x.example.com/check")
    assert.error_matches(function() p:request {} end,
      'unexpected POST http://x.example.com/check; write p:http("POST", "http://x.example.com/check"):replies(200) first', 1, true)
    p:http("POST", "http://x.example.com/check"):replies(200)
    assert.allowed(p:request {})
  end)

  it("fails a test on what :receives raises, whatever the policy makes of it", function()
    local p = fetching("http://x/")
    p:http("POST", "http://x/"):replies(200):receives(function(body) assert.same({ a = 1 }, body) end)
    assert.has_error(function() p:request {} end)
  end)

  it("verifies how often was asked", function()
    local p = fetching("http://x/")
    local asked = p:http("POST", "http://x/"):replies(200)
    assert.error_matches(function() p:verify() end, "POST http://x/ was never asked", 1, true)
    p:request {}
    p:verify()
    asked:times(2)
    assert.error_matches(function() p:verify() end, "POST http://x/ was asked 1 times, not 2", 1, true)
  end)

  it("explains failures", function()
    local p = made.play { authorize = { made.authz("groups", { any = { "staff" } }) } }
    local d = p:request { path = "/x?y=z", bearer = p:idp("corp"):opaque { email = "bob@example.com" } }
    local ran, why = pcall(function() assert.allowed(d) end)
    assert.is_false(ran)
    assert.is_truthy(tostring(why.message or why):find([[
Expected the request to be allowed, but:
GET app.example.com /x
  route      default
  opaque:corp accept: bob@example.com
  groups     no: none of the user's groups is allowed
  => deny 403 (none of the user's groups is allowed)]], 1, true))
  end)

  it("has assertions that fail", function()
    local p = made.play({})
    local allowed, denied = p:request { bearer = p:idp("corp"):opaque { email = "e" } }, p:request {}
    p:idp("corp"):down()
    local down = p:request { bearer = "t" }
    local function fails(name, ...)
      local args = table.pack(...)
      assert.has_error(function() assert[name](table.unpack(args, 1, args.n)) end)
    end
    fails("allowed", denied)
    fails("denied", allowed)
    fails("denied", denied, 403)
    fails("denied", denied, 401, "something else")
    fails("denied", down)
    fails("unavailable", denied)
    fails("unavailable", allowed)
    fails("unavailable", down, "another why")
    fails("login", denied)
    fails("sends", allowed, { ["X-User"] = "other" })
    fails("sends", allowed, { ["X-Other"] = "e" })
    fails("removes", allowed, "X-User")
    fails("removes", allowed, "X-Other")
    fails("steps", allowed, "opaque:corp:skip")
    assert.allowed(allowed)
    assert.unavailable(down, "connection refused")
  end)

  it("says what comes later", function()
    local idp = made.play({}):idp("corp")
    assert.error_matches(function() idp:login {} end, "no login began")
    assert.error_matches(function() made.play({}):idp("crop") end, "no provider 'crop'", 1, true)
  end)

  it("keeps each load apart", function()
    local one, two = made.play({}), made.play({})
    local token = one:idp("corp"):opaque { email = "e" }
    assert.allowed(one:request { bearer = token })
    assert.denied(two:request { bearer = token }, 401)
    one:clear_cache()
    one:idp("corp"):down()
    assert.unavailable(one:request { bearer = token })
  end)

  it("raises the report of a policy that does not load, and a missing file", function()
    assert.error_matches(function() testing.load("policies/none.lua") end, "policies/none.lua")
    assert.error_matches(function() testing.load("policies/default.lua") end, "OIDC_PROVIDER is not set", 1, true)
  end)

  it("compares with snapshots", function()
    local d = made.play({}):request {}
    assert.is_false((testing.snapshot("no_such_snapshot", d)))
    assert.error_matches(function() testing.snapshot("../x", d) end, "letters")
  end)
end)

describe("results", function()
  it("check what they are given", function()
    assert.has_error(function() results.accept() end)
    assert.has_error(function() results.accept("alice") end)
    assert.has_error(function() results.skip {} end)
    for _, status in ipairs { 200, 302, 399, 500, 401.0, "401" } do assert.has_error(function() results.reject(status, "x") end) end
    for _, status in ipairs { 200, 302, 399, 600 } do assert.has_error(function() results.deny(status, "x") end) end
    assert.has_error(function() results.deny(nil) end)
    assert.has_error(function() results.reject(401, {}) end)
  end)

  it("cannot be made by hand", function()
    for _, value in pairs { {}, { kind = "accept" }, "accept", 1, true, print } do assert.is_nil(results.kind(value)) end
    assert.is_nil(results.kind(nil))
    assert.equal("accept", results.kind(results.accept {}))
    assert.is_nil(results.outage_reason("down"))
    assert.equal("down", results.outage_reason(results.outage("down")))
  end)
end)
