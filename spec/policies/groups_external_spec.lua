local testing = require("moonlatch.testing")

local URL = "http://authorizer.auth.svc/check"

describe("groups_external", function()
  local p, corp, asked

  before_each(function()
    p = testing.load("policies/groups_external.lua", { env = { CLIENT_SECRET = "s" } })
    corp = p:idp("corp")
    asked = p:http("POST", URL):replies(200, ""):times(1)
  end)
  after_each(function() p:verify() end)

  local function alice(groups) return corp:jwt({ email = "alice@example.com", groups = groups }, { audience = "gate" }) end

  it("asks the authorizer about members of the namespace", function()
    asked:receives(function(body)
      assert.equal("alice@example.com", body.user.name)
      assert.same({ "kubeflow-users", "ns-team-a" }, body.user.groups)
      assert.equal("/ns/team-a/x", body.request.path)
      assert.equal("gate", body.user.claims.aud)
    end)
    local d = p:request { path = "/ns/team-a/x", bearer = alice { "kubeflow-users", "ns-team-a" } }
    assert.steps(d, "kubernetes:skip jwt:corp:accept groups:yes custom:yes external:yes")
    assert.sends(d, { ["kubeflow-userid"] = "alice@example.com", ["kubeflow-groups"] = "kubeflow-users,ns-team-a" })
  end)

  it("does not ask it about anybody else", function()
    asked:times(0)
    assert.denied(p:request { bearer = alice { "other" } }, 403, "none of the user's groups is allowed")
    local d = p:request { path = "/ns/team-b/x", bearer = alice { "kubeflow-users" } }
    assert.denied(d, 403, "Sorry alice@example.com, you are not a member of namespace team-b (GET /ns/team-b/x)")
  end)

  it("says why the authorizer refuses", function()
    asked:replies(403, "quota used up")
    assert.denied(p:request { path = "/x", bearer = alice { "kubeflow-users" } }, 403, "Sorry alice@example.com, quota used up (GET /x)")
  end)

  it("is 503 when the authorizer cannot be asked", function()
    asked:fails("timeout")
    assert.unavailable(p:request { bearer = alice { "kubeflow-users" } }, "timeout")
  end)

  it("takes service accounts, and people who have logged in", function()
    asked:times(2)
    assert.allowed(p:request { bearer = p:kube_token("system:serviceaccount:a:b", { "system:serviceaccounts" }) })
    local id = corp:login { email = "bob@example.com", groups = { "kubeflow-users" } }
    assert.sends(p:request { session = id }, { ["kubeflow-userid"] = "bob@example.com" })
  end)

  it("keeps the answer for 30 s", function()
    asked:times(2)
    local token = alice { "kubeflow-users" }
    for _ = 1, 3 do assert.allowed(p:request { bearer = token }) end
    assert.equal(1, asked.used)
    p:advance(31)
    assert.allowed(p:request { bearer = token })
  end)
end)
