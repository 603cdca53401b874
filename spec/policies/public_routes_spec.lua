local testing = require("moonlatch.testing")

describe("public_routes", function()
  local p, corp

  before_each(function()
    -- printf s3cret | sha256sum
    local digest = "1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0"
    p = testing.load("policies/public_routes.lua", { env = { HOOK_KEY_SHA256 = digest, CLIENT_SECRET = "s" } })
    corp = p:idp("corp")
  end)
  after_each(function() p:verify() end)

  it("opens assets on one host, for GET", function()
    local asset = { host = "www.example.com", path = "/static/a.css", headers = { ["X-User"] = "root" } }
    local d = p:request(asset)
    assert.allowed(d)
    assert.equal("assets", d.route)
    assert.removes(d, "X-User")
    assert.removes(d, "X-Groups")
    asset.method = "POST"
    assert.denied(p:request(asset), 401)
    assert.login(p:request { path = "/static/a.css" })
    assert.login(p:request { host = "www.example.com", path = "/staticfiles" })
    assert.login(p:request { host = "www.example.com", path = "/private?/static" })
    assert.login(p:request { host = "www.example.com", path = "/static;a=1/b" })
  end)

  it("takes the hook key on one segment below /hooks", function()
    local function hook(path, key) return p:request { path = path, headers = { ["X-Hook-Key"] = key } } end
    assert.sends(hook("/hooks/github", "s3cret"), { ["X-User"] = "hook" })
    assert.denied(hook("/hooks/github", "guess"), 401, "unknown hook key")
    assert.login(hook("/hooks/a/b", "s3cret"))
    assert.login(hook("/hooks", "s3cret"))
    assert.denied(p:request { path = "/hooks/github", bearer = corp:opaque { email = "alice" } }, 401)
  end)

  it("lets only administrators into the admin hosts", function()
    local admin, user = corp:opaque { email = "a", groups = { "platform-admins" } }, corp:opaque { email = "b" }
    for _, host in ipairs { "admin.example.com", "x.admin.example.com" } do
      assert.allowed(p:request { host = host, bearer = admin })
      assert.denied(p:request { host = host, bearer = user }, 403)
    end
    assert.allowed(p:request { host = "notadmin.example.com", bearer = user })
  end)

  it("logs people in, except at the hooks, whose senders no session would help", function()
    local id = corp:login { email = "alice" }
    assert.sends(p:request { session = id }, { ["X-User"] = "alice" })
    assert.login(p:request { browser = true })
    assert.sends(p:request { path = "/community", session = id }, { ["X-User"] = "alice" })
    assert.sends(p:request { path = "/community", browser = true }, { ["X-User"] = "guest" })
    assert.denied(p:request { path = "/hooks/github", browser = true }, 401)
    local d = p:request { host = "admin.example.com", session = id, browser = true }
    assert.denied(d, 403)
    assert.truthy(d.body:find("<h1>You may not see this page</h1>", 1, true))
  end)

  it("takes guests, but not on an ambiguous path", function()
    assert.sends(p:request { path = "/community" }, { ["X-User"] = "guest", ["X-Groups"] = "" })
    assert.sends(p:request { path = "/community/x", bearer = corp:opaque { email = "a" } }, { ["X-User"] = "a" })
    assert.login(p:request { path = "/community;x/y" })
  end)
end)
