local testing = require("moonlatch.testing")

describe("custom_authenticator", function()
  local URL = "http://tokens.internal/v1/check"
  local p

  before_each(function() p = testing.load("policies/custom_authenticator.lua", { env = { TOKEN_SERVICE_KEY = "k3y" } }) end)
  after_each(function() p:verify() end)

  local function with(token) return { headers = { ["X-Legacy-Token"] = token } } end

  it("asks the token service once a minute", function()
    p:http("POST", URL):replies(200, { login = "alice", teams = { "a", "b" } }):times(2):receives(function(body, request)
      assert.same({ token = "t" }, body)
      assert.equal("k3y", request.headers["x-key"])
    end)
    for _ = 1, 3 do assert.sends(p:request(with("t")), { ["X-User"] = "alice", ["X-Groups"] = "a,b" }) end
    p:advance(61)
    assert.allowed(p:request(with("t")))
  end)

  it("answers 401 to an unknown token, and skips without one", function()
    p:http("POST", URL):replies(404, ""):times(1)
    for _ = 1, 2 do assert.denied(p:request(with("t")), 401, "unknown legacy token") end
    assert.steps(p:request {}, "legacy:skip")
  end)

  it("fails closed", function()
    p:http("POST", URL):fails("timeout")
    assert.unavailable(p:request(with("t")), "timeout")
    p:http("POST", URL):replies(500, "")
    assert.denied(p:request(with("u")), 503, "token service answered 500")
    p:http("POST", URL):replies(200, { teams = { "a" } })
    assert.denied(p:request(with("v")), 401)
  end)
end)
