local testing = require("moonlatch.testing")

describe("custom_headers", function()
  local p

  before_each(function() p = testing.load("policies/custom_headers.lua") end)
  after_each(function() p:verify() end)

  local function request(claims) return p:request { bearer = p:idp("corp"):opaque(claims) } end

  it("maps, rewrites, defaults and removes", function()
    local d = request {
      preferred_username = "Alice@corp.example", given_name = "Alice", family_name = "Ash", acr = "mfa",
      ["https://example.com/tenant"] = "blue", department = "lab", resource_access = { portal = { roles = { "dev" } } },
    }
    assert.allowed(d)
    assert.sends(d, { ["X-User"] = "alice", ["X-Tenant"] = "blue", ["X-Department"] = "lab", ["X-Full-Name"] = "Alice Ash",
                      ["X-Assurance"] = "high; via=opaque", ["X-Admin"] = "no" })
    assert.removes(d, "Authorization")
  end)

  it("falls back, and does not send what it does not have", function()
    local d = request { email = "adm-bob@corp.example" }
    assert.sends(d, { ["X-User"] = "adm-bob", ["X-Tenant"] = "public", ["X-Department"] = "none", ["X-Assurance"] = "low; via=opaque" })
    assert.removes(d, "X-Full-Name")
  end)

  for name, value in pairs { CRLF = "x\r\nX-Admin: yes", DEL = "a\127", ["U+2028"] = "a\u{2028}b", C1 = "a\u{85}b" } do
    it("never lets a claim break a header: " .. name, function()
      assert.denied(request { email = "a" .. value }, 403)
      assert.denied(request { email = "a", department = value }, 403)
      assert.denied(request { email = "a", ["https://example.com/tenant"] = value }, 403)
      assert.denied(request { email = "a", name = value }, 503) -- through a function: the policy's fault
    end)
  end
end)
