local made = require("made")
local testing = require("moonlatch.testing")

local URL = "https://10.0.0.1:443/apis/authorization.k8s.io/v1/subjectaccessreviews"

local function answer(status) return { apiVersion = "authorization.k8s.io/v1", kind = "SubjectAccessReview", status = status } end

local function play(options, authn)
  options = options or {}
  options.verb, options.resource, options.cache = options.verb or "get", options.resource or "pods", options.cache or 0
  local p = made.play { authenticators = authn, authorize = { made.authz("kubernetes", options) } }
  return p, p:http("POST", URL):replies(201, answer { allowed = true })
end

local function token(p, claims) return p:idp("corp"):opaque(claims or { email = "alice", groups = { "a" } }) end

describe("authz.kubernetes", function()
  it("asks about the user and the resource", function()
    local p, asked = play { group = "kubeflow.org", resource = "notebooks/status", verb = function(_, req) return req.method:lower() end,
      namespace = function(_, req) return req.path:match("^/ns/([%w-]+)/") end }
    asked:receives(function(body)
      assert.same({
        apiVersion = "authorization.k8s.io/v1", kind = "SubjectAccessReview", spec = {
          user = "alice", groups = { "a" },
          resourceAttributes = { verb = "get", resource = "notebooks", subresource = "status", group = "kubeflow.org", namespace = "team-a" },
        },
      }, body)
    end)
    local d = p:request { bearer = token(p), path = "/ns/team-a/x" }
    assert.allowed(d)
    assert.steps(d, "opaque:corp:accept kubernetes:yes")
  end)

  it("is an error without a text from the policy's functions", function()
    for _, verb in ipairs { function() end, function() return true end, function() return "" end, function() return ("x"):rep(1025) end } do
      local p = play { verb = verb }
      assert.denied(p:request { bearer = token(p) }, 503)
    end
  end)

  it("denies in its own words", function()
    local p, asked = play()
    for _, status in ipairs { { allowed = false, reason = "secret role" }, { allowed = true, denied = true }, { allowed = false, denied = true } } do
      asked:replies(201, answer(status))
      assert.denied(p:request { bearer = token(p) }, 403, "the cluster does not allow it")
    end
  end)

  it("takes everything else for an outage", function()
    local p, asked = play { cache = 60 }
    for _, status in ipairs { 200, 201 } do
      for _, body in ipairs { "", "{}", "[]", "x", answer {}, answer { allowed = "true" }, answer { allowed = 1 }, { kind = "Pod", status = { allowed = true } } } do
        asked:replies(status, body)
        assert.unavailable(p:request { bearer = token(p) }, "malformed answer")
      end
    end
    for _, status in ipairs { 202, 302, 400, 401, 403, 404, 409, 429, 500, 503 } do
      asked:replies(status, answer { allowed = true })
      assert.unavailable(p:request { bearer = token(p) })
    end
    asked:fails("timeout")
    assert.unavailable(p:request { bearer = token(p) }, "timeout")
    asked:replies(201, answer { allowed = true })
    assert.allowed(p:request { bearer = token(p) })
  end)

  it("takes no name of the cluster's own from elsewhere", function()
    local p, asked = play()
    asked:receives(function(body) assert.same({ "a" }, body.spec.groups) end)
    assert.allowed(p:request { bearer = token(p, { email = "alice", groups = { "system:masters", "a" } }) })
    assert.denied(p:request { bearer = token(p, { email = "system:admin" }) }, 403, "one of the cluster's own")
    assert.equal(1, asked.used)
  end)

  it("asks about service accounts as they are", function()
    local p, asked = play({}, { made.authn("kubernetes", { identity = { user = { claim = { "username" } } } }) })
    asked:receives(function(body)
      assert.same({ "system:serviceaccount:a:b", "uid-1", { "system:serviceaccounts", "system:authenticated" } },
        { body.spec.user, body.spec.uid, body.spec.groups })
    end)
    assert.allowed(p:request { bearer = p:kube_token("system:serviceaccount:a:b", { "system:serviceaccounts" }) })
  end)

  it("keeps the answer under everything that was asked", function()
    local p, asked = play { cache = 60, namespace = function(_, req) return req.path:sub(2) end }
    local alice = token(p)
    for _ = 1, 3 do
      assert.allowed(p:request { bearer = alice, path = "/a" })
      assert.allowed(p:request { bearer = alice, path = "/b" })
      assert.allowed(p:request { bearer = token(p, { email = "bob" }), path = "/a" })
    end
    assert.equal(3, asked.used)
    asked:replies(201, answer { allowed = false })
    assert.denied(p:request { bearer = alice, path = "/c" }, 403)
    assert.equal(4, asked.used)
  end)
end)

describe("kube.access_review", function()
  it("says true or false, and raises an outage", function()
    local source = [[
      return { api = 1, authenticators = { authn.anonymous { } }, authorize = { function(_, req)
        return kube.access_review { user = "alice", groups = { "a" }, verb = "get", resource = "pods", name = req.path }
      end } }]]
    local p = testing.play(function(host) return require("moonlatch").load(host, "p.lua", source) end, "./")
    local asked = p:http("POST", URL):replies(201, answer { allowed = true }):receives(function(body)
      assert.same({ verb = "get", resource = "pods", name = "/x" }, body.spec.resourceAttributes)
      assert.same({ "a" }, body.spec.groups)
    end)
    assert.allowed(p:request { path = "/x" })
    asked:replies(201, answer { allowed = false })
    assert.denied(p:request { path = "/x" }, 403)
    asked:fails("timeout")
    assert.unavailable(p:request { path = "/x" }, "timeout")
  end)
end)
