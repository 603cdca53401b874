local made = require("made")
local routes = require("moonlatch.routes")
local results = require("moonlatch.results")

local function matches(route, strict, req)
  route.name = "r"
  req.method, req.host, req.path = req.method or "GET", req.host or "a.example.com", req.path or "/"
  req.has_params = req.has_params or false
  return routes.matcher(route, strict)(req)
end

local function case(route, strict, path, wanted)
  it(("%s %s %s%s"):format(path, wanted and "is in" or "is not in", table.concat(route.path or route.prefix, " "), strict and " (public)" or ""),
    function() assert.equal(wanted, matches(route, strict, { path = path })) end)
end

describe("routes", function()
  for path, wanted in pairs { ["/p"] = true, ["/p/"] = true, ["/p/a"] = true, ["/pa"] = false, ["/"] = false, ["/x/p"] = false, ["/P"] = false } do
    case({ prefix = { "/p" } }, true, path, wanted)
    case({ prefix = { "/p" } }, false, path, wanted)
  end
  for path, wanted in pairs { ["/a"] = true, ["/a/"] = false, ["/a/b"] = false, ["/A"] = false } do case({ path = { "/a" } }, true, path, wanted) end
  for path, wanted in pairs { ["/a"] = true, ["/a/"] = true, ["/a/b"] = false } do
    case({ path = { "/a" } }, false, path, wanted)
    case({ path = { "/a/" } }, false, path, wanted)
  end
  for path, wanted in pairs { ["/h/x"] = true, ["/h/x/"] = false, ["/h/"] = false, ["/h"] = false, ["/h/x/y"] = false } do
    case({ path = { "/h/*" } }, true, path, wanted)
  end
  for path, wanted in pairs { ["/h/x/z"] = true, ["/h/x/z/"] = true, ["/h//z"] = false, ["/h/x/y/z"] = false } do
    case({ path = { "/h/*/z" } }, false, path, wanted)
  end
  case({ path = { "/" } }, true, "/", true)
  case({ path = { "/" } }, true, "/a", false)
  case({ prefix = { "" } }, false, "/a", true)
  case({ path = { "/x" }, prefix = { "/p" } }, false, "/x", true) -- alternatives
  case({ path = {} }, true, "/", false)

  it("compares hosts by name and by what is below", function()
    assert.is_true(matches({ host = { "a.example.com" } }, false, {}))
    assert.is_false(matches({ host = { "example.com" } }, false, {}))
    assert.is_true(matches({ host = { "*.example.com" } }, false, {}))
    assert.is_false(matches({ host = { "*.example.com" } }, false, { host = "example.com" }))
    assert.is_false(matches({ host = { "*.example.com" } }, false, { host = "evilexample.com" }))
    assert.is_false(matches({ host = { "*.example.com" } }, false, { host = ".example.com" }))
  end)

  it("want every condition", function()
    local route = { host = { "a.example.com" }, method = { "GET", "HEAD" }, prefix = { "/p" } }
    assert.is_true(matches(route, true, { path = "/p" }))
    assert.is_false(matches(route, true, { path = "/p", method = "POST" }))
    assert.is_false(matches(route, true, { path = "/p", method = "get" }))
    assert.is_false(matches(route, true, { path = "/p", host = "b" }))
  end)

  it("know those that no request takes", function()
    assert.equal(routes.never, routes.matcher({ name = "r", prefix = {} }, true))
    assert.equal(routes.never, routes.matcher({ name = "r", prefix = {}, path = {}, host = { "a" } }, false))
    assert.not_equal(routes.never, routes.matcher({ name = "r", prefix = {}, path = { "/x" } }, true))
    assert.not_equal(routes.never, routes.matcher({ name = "r", host = { "a" } }, true))
  end)

  it("never open a path with parameters", function()
    assert.is_false(matches({ prefix = { "/p" } }, true, { path = "/p", has_params = true }))
    assert.is_false(matches({ host = { "a.example.com" } }, true, { has_params = true }))
    assert.is_true(matches({ prefix = { "/p" } }, false, { path = "/p", has_params = true }))
  end)

  it("have a condition", function() assert.error_matches(function() matches({}, false, {}) end, "no condition") end)

  it("take the first that matches, and inherit what they do not name", function()
    local p = made.play {
      routes = { { name = "one", prefix = { "/a" }, authorize = { made.authz("groups", { any = { "x" } }) } }, { name = "two", prefix = { "/a/b" }, public = true } },
    }
    local token = p:idp("corp"):opaque { email = "e" }
    assert.denied(p:request { path = "/a/b", bearer = token }, 403)
    assert.denied(p:request { path = "/a/b" }, 401)
    assert.equal("one", p:request { path = "/a/b" }.route)
    assert.allowed(p:request { path = "/c", bearer = token })
  end)

  it("keep a credential's rules apart: the claims are cached, not the decision (S-040)", function()
    local p = made.play { routes = {
      { name = "r", prefix = { "/r" }, authorize = { made.authz("groups", { any = { "read" } }) } },
      { name = "w", prefix = { "/w" }, authorize = { made.authz("groups", { any = { "write" } }) } } } }
    local token = p:idp("corp"):opaque { email = "e", groups = { "read" } }
    for _ = 1, 2 do
      assert.allowed(p:request { path = "/r", bearer = token })
      assert.denied(p:request { path = "/w", bearer = token }, 403)
    end
    p:clear_cache()
    assert.denied(p:request { path = "/w", bearer = token }, 403)
    assert.allowed(p:request { path = "/r", bearer = token })
  end)

  describe("with a when", function()
    local function with(when)
      return made.play { routes = { { name = "w", when = when, public = true } } }
    end
    it("ask it", function()
      local p = with(function(req) return req.headers["X-A"] == "1" end)
      assert.allowed(p:request { headers = { ["x-a"] = "1" } })
      assert.denied(p:request {}, 401)
    end)
    for name, fn in pairs { ["nil"] = function() end, text = function() return "yes" end, one = function() return 1 end, a_bug = function() error("x") end } do
      it("answer 503 when it returns " .. name, function()
        local d = with(fn):request {}
        assert.denied(d, 503)
        assert.equal("error", d.reason)
      end)
    end
    it("are unavailable when it cannot reach the outside", function()
      assert.unavailable(with(function() error(results.outage("down")) end):request {})
    end)
  end)

  it("read guests' paths exactly", function()
    local p = made.play { routes = { { name = "g", path = { "/g" }, authenticators = { made.authn("anonymous") } } } }
    assert.allowed(p:request { path = "/g" })
    assert.denied(p:request { path = "/g/" }, 401)
    assert.denied(p:request { path = "/g;x" }, 401)
  end)
end)
