local testing = require("moonlatch.testing")

describe("kubeflow", function()
  local p, dex

  before_each(function()
    p = testing.load("policies/kubeflow.lua", { env = { CLIENT_ID = "kubeflow", CLIENT_SECRET = "s" } })
    dex = p:idp("dex")
  end)
  after_each(function() p:verify() end)

  it("logs people in at Dex behind the same gateway", function()
    local id, started, d = dex:login({ email = "Alice@example.com", groups = { "ml" } }, { path = "/_/pipeline/?ns=alice" })
    assert.truthy(started.location:find("/dex/auth?client_id=kubeflow&redirect_uri=%2Fauthservice%2Foidc%2Fcallback&", 1, true) == 1)
    assert.equal("openid profile email groups", started.parameters.scope)
    assert.equal("/_/pipeline/?ns=alice", d.client_headers.Location)
    assert.sends(p:request { session = id }, { ["kubeflow-userid"] = "alice@example.com", ["kubeflow-groups"] = "ml" })
  end)

  it("takes the tokens of pipelines", function()
    local d = p:request { path = "/pipeline/apis/v1", bearer = p:kube_token("system:serviceaccount:alice:default-editor") }
    assert.sends(d, { ["kubeflow-userid"] = "system:serviceaccount:alice:default-editor", ["kubeflow-groups"] = "system:authenticated" })
    assert.login(p:request { browser = true, session = "mls_" .. ("a"):rep(43) })
  end)

  it("answers machines with 401, and opens Dex and health", function()
    assert.denied(p:request { path = "/pipeline/apis/v1", browser = true }, 401)
    assert.denied(p:request { path = "/api/x" }, 401)
    for _, path in ipairs { "/dex", "/dex/auth", "/healthz" } do
      local d = p:request { path = path, headers = { ["kubeflow-userid"] = "root" } }
      assert.allowed(d)
      assert.removes(d, "kubeflow-userid")
    end
    assert.login(p:request { path = "/dexter", browser = true })
  end)

  it("is closed while Dex is away, open again for sessions that are there", function()
    local id = dex:login { email = "a" }
    dex:down()
    assert.allowed(p:request { session = id })
    p:advance(3700) -- the access token has expired
    assert.allowed(p:request { session = id })
    p:advance(86400)
    assert.login(p:request { session = id, browser = true })
  end)
end)
