local testing = require("moonlatch.testing")

local ENV = { STAFF_CLIENT_SECRET = "s", PARTNER_CLIENT_SECRET = "p" }

describe("multi_issuer", function()
  local p, staff, partner

  before_each(function()
    p = testing.load("policies/multi_issuer.lua", { env = ENV })
    staff, partner = p:idp("staff"), p:idp("partner")
  end)
  after_each(function() p:verify() end)

  it("lets staff in with the roles of their realm", function()
    local d = p:request { bearer = staff:jwt({ email = "alice@example.com", realm_access = { roles = { "dev", "ops" } } }, { audience = "my-api" }) }
    assert.allowed(d)
    assert.sends(d, { ["X-User"] = "alice@example.com", ["X-Groups"] = "dev,ops", ["X-Provider"] = "staff" })
  end)

  it("tells the providers apart by issuer", function()
    local d = p:request { bearer = partner:jwt({ sub = "bob", entitlements = "read" }, { audience = "my-api" }) }
    assert.allowed(d)
    assert.steps(d, "jwt:staff:skip jwt:partner:accept")
    assert.sends(d, { ["X-User"] = "partner:bob", ["X-Groups"] = "read" })
  end)

  it("refuses a bad signature and does not try anything else", function()
    local d = p:request { bearer = staff:jwt({ email = "m@example.com" }, { audience = "my-api", signature = "bad" }) }
    assert.denied(d, 401, "bad signature")
    assert.steps(d, "jwt:staff:reject")
  end)

  it("refuses an expired token", function()
    local token = staff:jwt({ email = "alice@example.com" }, { audience = "my-api", ttl = 60 })
    assert.allowed(p:request { bearer = token })
    p:advance(61)
    assert.denied(p:request { bearer = token }, 401, "expired 1s ago")
  end)

  it("remembers an introspection for 30 s", function()
    local asked = p:http("POST", "https://id.partner.example/introspect"):replies(200, { active = true, sub = "carol" }):times(2)
    for _ = 1, 5 do assert.allowed(p:request { bearer = "opaque" }) end
    assert.equal(1, asked.used)
    p:advance(31)
    assert.allowed(p:request { bearer = "opaque" })
  end)

  it("fails closed when the provider is down", function()
    partner:down()
    assert.unavailable(p:request { bearer = "opaque" })
  end)

  it("shows the partner no token of the staff, nor a JWT of somebody else", function()
    for _, token in ipairs { staff:jwt({ email = "a" }, { audience = "other" }), p:unsigned_jwt { iss = "https://evil.example" } } do
      assert.denied(p:request { bearer = token, headers = { Accept = "application/json" } }, 401)
    end
    assert.equal(0, partner:times("introspect"))
  end)

  it("knows nobody whose keys it never saw", function()
    local q = testing.load("policies/multi_issuer.lua", { env = ENV, discovery = false })
    q:idp("partner"):down()
    q:discover()
    assert.unavailable(q:request { bearer = q:idp("partner"):jwt({ sub = "bob" }, { audience = "my-api" }) })
  end)

  it("sends browsers to the login page and API clients away", function()
    assert.login(p:request { browser = true })
    assert.denied(p:request { headers = { Accept = "application/json" } }, 401)
  end)

  it("never passes on a header it did not set", function()
    local d = p:request { headers = { ["X-User"] = "root", ["X-Groups"] = "admin" }, bearer = partner:jwt({ sub = "bob" }, { audience = "my-api" }) }
    assert.sends(d, { ["X-User"] = "partner:bob", ["X-Groups"] = "" })
  end)

  -- a table of cases: who, how, what comes out
  for _, case in ipairs {
    { "Basic is not ours",     { headers = { Authorization = "Basic YTpi" } },      401 },
    { "empty bearer",          { headers = { Authorization = "Bearer " } },         401 },
    { "two tokens in one",     { headers = { Authorization = "Bearer a b" } },      401 },
    { "POST from a browser",   { method = "POST", browser = true },                 401 },
    { "unknown session",       { session = "gone" },                                401 },
  } do
    it("answers " .. case[3] .. ": " .. case[1], function()
      local request = case[2]
      request.headers = request.headers or {}
      request.headers.Accept = "application/json"
      assert.denied(p:request(request), case[3])
    end)
  end

  it("decides as it did before", function()
    local token = partner:opaque { sub = "carol", entitlements = { "read" } }
    local same, want, got = testing.snapshot("multi_issuer_partner", p:request { bearer = token })
    if not same then assert.equal(want, got) end
  end)
end)
