local json = require("moonlatch.testing.json")
local made = require("made")

local DISCOVERY = "https://login.example.com/.well-known/openid-configuration"

local function undiscovered(policy) return made.play(policy or {}, { discovery = false }) end
local function board(p) return p.fake.host.read(p.loaded.providers[1]) end

local function discovered(body, status)
  local p = undiscovered()
  p:http("GET", DISCOVERY):replies(status or 200, body)
  p:discover()
  return board(p)
end

describe("provider", function()
  it("posts what the document says", function()
    assert.same({ issuer = "https://login.example.com", userinfo_endpoint = "https://login.example.com/userinfo" },
      (discovered { issuer = "https://login.example.com", userinfo_endpoint = "https://login.example.com/userinfo", other = "x" }))
  end)

  it("has one task and one name on the board, named by issuer and CA", function()
    local p = made.play { authenticators = { made.authn("opaque"), made.authn("opaque", { name = "again" }) } }
    assert.equal(1, #p.loaded.tasks)
    assert.truthy(p.loaded.providers[1]:find("https://login.example.com", 1, true))
  end)

  for name, body in pairs {
    ["another issuer"] = { issuer = "https://evil.example.com", userinfo_endpoint = "https://login.example.com/u" },
    ["an issuer with a slash more"] = { issuer = "https://login.example.com/", userinfo_endpoint = "https://login.example.com/u" },
    ["no issuer"] = { userinfo_endpoint = "https://login.example.com/u" },
    ["a file endpoint"] = { issuer = "https://login.example.com", userinfo_endpoint = "file:///etc/passwd" },
    ["an ftp endpoint"] = { issuer = "https://login.example.com", token_endpoint = "ftp://login.example.com/" },
    ["a relative endpoint"] = { issuer = "https://login.example.com", userinfo_endpoint = "/userinfo" },
    ["an endpoint that is no text"] = { issuer = "https://login.example.com", jwks_uri = 1 },
    ["a way down to http"] = { issuer = "https://login.example.com", userinfo_endpoint = "http://login.example.com/u" },
    ["HTML"] = "<html>", ["nothing"] = "", ["a list"] = "[]", ["null"] = "null", ["text"] = '"x"',
    ["a member twice"] = '{"issuer":"https://login.example.com","issuer":"https://login.example.com"}',
  } do
    it("does not believe " .. name, function()
      local value, why = discovered(body)
      assert.is_nil(value)
      assert.is_string(why)
    end)
  end

  for _, status in ipairs { 204, 301, 302, 401, 404, 429, 500, 503 } do
    it("does not believe a " .. status, function()
      local _, why = discovered({ issuer = "https://login.example.com" }, status)
      assert.equal("discovery answered " .. status, why)
    end)
  end

  it("keeps trying, ever more slowly, at most each 30 s", function()
    local p = undiscovered()
    local asked = p:http("GET", DISCOVERY):fails("connection refused")
    p:discover()
    local times, start = {}, p.fake.now
    for _ = 1, 200 do
      local before = asked.used
      p:advance(1)
      if asked.used > before then times[#times + 1] = p.fake.now - start end
    end
    assert.same({ 1, 3, 7, 15, 31, 61, 91, 121, 151, 181 }, times)
    local _, why = board(p)
    assert.equal("connection refused", why)
    assert.truthy(#p.fake.log > 0)
  end)

  it("reads again after a quarter of an hour, and keeps what it has when that fails", function()
    local p = made.play({})
    local asked = p:http("GET", DISCOVERY):fails("timeout")
    p:advance(800)
    assert.equal(0, asked.used)
    p:advance(200)
    assert.equal(1, asked.used)
    assert.truthy(board(p))
    assert.allowed(p:request { bearer = p:idp("corp"):opaque { email = "a" } })
    p:advance(1)
    assert.equal(2, asked.used)
  end)

  it("needs no discovery when the policy says it all", function()
    local corp = { name = "corp", issuer = "https://login.example.com", userinfo_url = "http://userinfo.local/me", timeout = 1 }
    local p = undiscovered { providers = { corp = corp }, authenticators = { made.authn("opaque", { provider = corp }) } }
    assert.same({}, p.loaded.providers)
    assert.allowed(p:request { bearer = p:idp("corp"):opaque { email = "a" } })
  end)

  it("refuses a CA file that is not there", function()
    local corp = { name = "corp", issuer = "https://login.example.com", ca_file = "/none.pem" }
    assert.error_matches(function()
      made.play { providers = { corp = corp }, authenticators = { made.authn("opaque", { provider = corp }) } }
    end, "provider 'corp': /none.pem", 1, true)
  end)

  it("says so when there is no UserInfo", function()
    local p = undiscovered()
    p:http("GET", DISCOVERY):replies(200, json.encode { issuer = "https://login.example.com" })
    p:discover()
    assert.unavailable(p:request { bearer = "t" }, "no userinfo_endpoint")
  end)
end)
