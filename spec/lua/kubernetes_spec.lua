local made = require("made")

local URL = "https://10.0.0.1:443/apis/authentication.k8s.io/v1/tokenreviews"
local CLUSTER = "https://kubernetes.default.svc.cluster.local"

local function play(options, load)
  return made.play({ authenticators = { made.authn("kubernetes", options) } }, load)
end

local function reviewed(status, options)
  local p = play(options)
  local body = type(status) == "table" and { kind = "TokenReview", status = status } or status
  p:http("POST", URL):replies(201, body)
  return p:request { bearer = "t" }
end

describe("authn.kubernetes", function()
  it("asks for a TokenReview with its own token", function()
    local p = play { audiences = { "gate" } }
    p:http("POST", URL):receives(function(body, request)
      assert.same({ apiVersion = "authentication.k8s.io/v1", kind = "TokenReview", spec = { token = "t", audiences = { "gate" } } }, body)
      assert.matches("^Bearer ey", request.headers.authorization)
    end):replies(201, { kind = "TokenReview", status = {
      authenticated = true, audiences = { "gate" }, user = { username = "u", uid = "1", groups = { "g" }, extra = { k = { "v" } } } } })
    assert.sends(p:request { bearer = "t" }, { ["X-User"] = "u", ["X-Groups"] = "g,system:authenticated" })
  end)

  it("refuses an empty list of audiences: it would ask for none", function()
    assert.error_matches(function() play { audiences = {} } end, "audiences is empty", 1, true)
  end)

  it("adds system:authenticated once", function()
    assert.sends(reviewed { authenticated = true, user = { username = "u", groups = { "system:authenticated", "g" } } },
      { ["X-Groups"] = "system:authenticated,g" })
    assert.sends(reviewed { authenticated = true, user = { username = "u" } }, { ["X-Groups"] = "system:authenticated" })
  end)

  it("skips what the API server refuses", function()
    for _, status in ipairs { { authenticated = false }, { user = { username = "u" } }, { authenticated = false, error = "has expired" },
                              { authenticated = true, error = "x", user = { username = "u" } }, { authenticated = "true", user = { username = "u" } },
                              { authenticated = 1, user = { username = "u" } } } do
      local d = reviewed(status)
      assert.denied(d, 401, "the API server refused the token")
      assert.steps(d, "kubernetes:skip")
    end
    assert.denied(reviewed { authenticated = false, error = "has expired" }, 401, "has expired")
    assert.is_nil(tostring(reviewed { authenticated = false, error = "bad token t" }):find("bad token", 1, true))
  end)

  it("wants one of its audiences back", function()
    local function with(audiences)
      return (reviewed({ authenticated = true, audiences = audiences, user = { username = "u" } }, { audiences = { "gate", "b" } }))
    end
    assert.allowed(with { "b" })
    for _, audiences in ipairs { { "x" }, {}, "gate", { "GATE" } } do assert.denied(with(audiences), 401, "another audience") end
    assert.denied(with(nil), 401)
  end)

  for name, status in pairs {
    ["no user"] = { authenticated = true }, ["no name"] = { authenticated = true, user = {} },
    ["an empty name"] = { authenticated = true, user = { username = "" } }, ["a number"] = { authenticated = true, user = { username = 1 } },
    ["groups as text"] = { authenticated = true, user = { username = "u", groups = "admin" } },
    ["groups of numbers"] = { authenticated = true, user = { username = "u", groups = { 1 } } },
    ["HTML"] = "<html>", ["nothing"] = "", ["a list"] = "[]", ["another kind"] = '{"kind":"Status","status":"Failure"}',
    ["a review of something else"] = '{"kind":"SelfSubjectReview","status":{"authenticated":true,"user":{"username":"u"}}}',
    ["status as text"] = '{"kind":"TokenReview","status":"x"}', ["no status"] = '{"kind":"TokenReview"}',
  } do
    it("takes a malformed answer for an outage: " .. name, function() assert.unavailable(reviewed(status), "malformed answer") end)
  end

  for _, status in ipairs { 400, 401, 403, 404, 422, 429, 500, 503, 302, 204 } do
    it("takes a " .. status .. " of the API server for an outage", function()
      local p = play()
      p:http("POST", URL):replies(status, { kind = "TokenReview", status = { authenticated = true, user = { username = "u" } } })
      assert.unavailable(p:request { bearer = "t" }, (status == 401 or status == 403) and "does not let us ask it" or "answered " .. status)
    end)
  end

  it("is unavailable when the API server is down", function()
    local p = play()
    p:http("POST", URL):fails("connection refused")
    assert.unavailable(p:request { bearer = "t" }, "connection refused")
  end)

  it("does not send the tokens of the policy's providers, but for KUBERNETES_REVIEW_ALL", function()
    local p = play()
    local asked = p:http("POST", URL):replies(201, { kind = "TokenReview", status = { authenticated = true, user = { username = "u" } } })
    local token = p:unsigned_jwt { iss = made.corp.issuer }
    local d = p:request { bearer = token }
    assert.denied(d, 401)
    assert.steps(d, "kubernetes:skip")
    assert.equal(0, asked.used)
    assert.allowed(p:request { bearer = p:unsigned_jwt { iss = CLUSTER } })
    assert.allowed(p:request { bearer = p:unsigned_jwt { iss = 5 } })
    p = play({}, { env = { KUBERNETES_REVIEW_ALL = "true" } })
    p:http("POST", URL):replies(201, { kind = "TokenReview", status = { authenticated = true, user = { username = "u" } } })
    assert.allowed(p:request { bearer = token })
  end)

  it("never lets the cluster's tokens get to UserInfo, nor a provider's to the API server (Q7)", function()
    local p = made.play { authenticators = { made.authn("kubernetes"), made.authn("opaque") } }
    p:http("GET", "https://login.example.com/userinfo"):replies(200, { email = "mallory" }):times(0)
    p:http("POST", URL):replies(201, { kind = "TokenReview", status = { authenticated = false, error = "expired" } }):times(1)
    local d = p:request { bearer = p:unsigned_jwt { iss = CLUSTER, exp = 1 } }
    assert.denied(d, 401)
    assert.steps(d, "kubernetes:skip opaque:corp:skip")
    p:verify()
  end)

  it("caches as long as the token lives", function()
    local p = play { cache = 300 }
    local asked = p:http("POST", URL):replies(201, { kind = "TokenReview", status = { authenticated = true, user = { username = "u" } } })
    local token = p:unsigned_jwt { iss = CLUSTER, exp = p.fake.now + 10 }
    for _ = 1, 3 do assert.allowed(p:request { bearer = token }) end
    assert.equal(1, asked.used)
    p:advance(10)
    assert.allowed(p:request { bearer = token })
    assert.equal(2, asked.used)
  end)
end)
