local testing = require("moonlatch.testing")

describe("public_routes", function()
  local p, corp

  before_each(function()
    -- printf s3cret | sha256sum
    local digest = "1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0"
    p = testing.load("policies/public_routes.lua", { env = { HOOK_KEY_SHA256 = digest } })
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
    assert.denied(p:request { path = "/static/a.css" }, 401)
    assert.denied(p:request { host = "www.example.com", path = "/staticfiles" }, 401)
    assert.denied(p:request { host = "www.example.com", path = "/private?/static" }, 401)
    assert.denied(p:request { host = "www.example.com", path = "/static;a=1/b" }, 401)
  end)

  it("takes the hook key on one segment below /hooks", function()
    local function hook(path, key) return p:request { path = path, headers = { ["X-Hook-Key"] = key } } end
    assert.sends(hook("/hooks/github", "s3cret"), { ["X-User"] = "hook" })
    assert.denied(hook("/hooks/github", "guess"), 401, "unknown hook key")
    assert.denied(hook("/hooks/a/b", "s3cret"), 401)
    assert.denied(hook("/hooks", "s3cret"), 401)
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

  it("takes guests, but not on an ambiguous path", function()
    assert.sends(p:request { path = "/community" }, { ["X-User"] = "guest", ["X-Groups"] = "" })
    assert.sends(p:request { path = "/community/x", bearer = corp:opaque { email = "a" } }, { ["X-User"] = "a" })
    assert.denied(p:request { path = "/community;x/y" }, 401)
  end)
end)
