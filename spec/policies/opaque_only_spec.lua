local testing = require("moonlatch.testing")

describe("opaque_only", function()
  local p, corp

  before_each(function()
    p = testing.load("policies/opaque_only.lua")
    corp = p:idp("corp")
  end)
  after_each(function() p:verify() end)

  it("lets in who has a token, by the first name there is", function()
    for claim, name in pairs { email = "alice@example.com", preferred_username = "alice", sub = "0815" } do
      local d = p:request { bearer = corp:opaque { [claim] = name, groups = { "dev", "ops" } } }
      assert.allowed(d)
      assert.sends(d, { ["kubeflow-userid"] = name, ["kubeflow-groups"] = "dev,ops" })
      assert.steps(d, "opaque:corp:accept")
    end
  end)

  it("sends empty groups when there are none", function()
    local d = p:request { bearer = corp:opaque { email = "alice@example.com" }, headers = { ["kubeflow-groups"] = "admin" } }
    assert.sends(d, { ["kubeflow-groups"] = "" })
  end)

  it("remembers a token for five minutes", function()
    local url = "https://login.example.com/userinfo"
    local asked = p:http("GET", url):replies(200, { email = "carol@example.com" }):times(2)
    for _ = 1, 5 do assert.allowed(p:request { bearer = "t" }) end
    assert.equal(1, asked.used)
    p:advance(299)
    assert.allowed(p:request { bearer = "t" })
    assert.equal(1, asked.used)
    p:advance(2)
    assert.allowed(p:request { bearer = "t" })
  end)

  it("fails closed when the provider is down", function()
    corp:down()
    assert.unavailable(p:request { bearer = "new" })
  end)

  for _, case in ipairs {
    { "no credential", {} },
    { "an unknown token", { bearer = "unknown" } },
    { "Basic", { headers = { Authorization = "Basic YTpi" } } },
    { "an empty bearer", { headers = { Authorization = "Bearer " } } },
    { "two tokens in one", { headers = { Authorization = "Bearer a b" } } },
    { "a browser", { browser = true } },
    { "a cookie", { session = "s" } },
  } do
    it("answers 401: " .. case[1], function() assert.denied(p:request(case[2]), 401) end)
  end

  it("decides as it did before", function()
    local same, want, got = testing.snapshot("opaque_only", p:request { bearer = corp:opaque { sub = "carol", groups = "one" } })
    if not same then assert.equal(want, got) end
  end)
end)
