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
    ["PKCE methods as text"] = { issuer = "https://login.example.com", code_challenge_methods_supported = "S256" },
    ["authentication methods as text"] = { issuer = "https://login.example.com", token_endpoint_auth_methods_supported = "none" },
    ["a flag as text"] = { issuer = "https://login.example.com", authorization_response_iss_parameter_supported = "true" },
    ["an end of session on http"] = { issuer = "https://login.example.com", end_session_endpoint = "http://login.example.com/end" },
    ["keys in a file"] = { issuer = "https://login.example.com", jwks_uri = "file:///etc/keys" },
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

describe("a provider's metadata", function()
  it("is posted as far as a login needs it", function()
    local metadata = {
      issuer = "https://login.example.com", authorization_endpoint = "https://login.example.com/a", token_endpoint = "https://login.example.com/t",
      jwks_uri = "https://login.example.com/k", end_session_endpoint = "https://login.example.com/e", revocation_endpoint = "https://login.example.com/r",
      pushed_authorization_request_endpoint = "https://login.example.com/p", code_challenge_methods_supported = { "plain", "S256" },
      token_endpoint_auth_methods_supported = { "client_secret_post" }, id_token_signing_alg_values_supported = { "RS256" },
      authorization_response_iss_parameter_supported = true, require_pushed_authorization_requests = false, backchannel_logout_supported = true,
      backchannel_logout_session_supported = true,
    }
    assert.same(metadata, (discovered(metadata)))
  end)

  -- S-203
  it("must announce S256 when the policy wants it; else a warning says so", function()
    local corp = { name = "corp", issuer = "https://login.example.com", timeout = 5 }
    local function with(require_pkce, methods)
      corp.require_pkce = require_pkce
      local p = undiscovered { providers = { corp = corp }, authenticators = { made.authn("opaque", { provider = corp }) } }
      p:http("GET", DISCOVERY):replies(200, { issuer = "https://login.example.com", code_challenge_methods_supported = methods })
      p:discover()
      return board(p) ~= nil, #p.fake.log
    end
    assert.same({ true, 0 }, { with(nil, { "S256" }) })
    assert.same({ true, 0 }, { with(true, { "S256" }) })
    assert.same({ true, 0 }, { with(true, nil) })
    assert.same({ true, 1 }, { with(nil, { "plain" }) })
    assert.same({ false, 1 }, { with(true, { "plain" }) })
    assert.same({ false, 1 }, { with(true, json.list {}) })
  end)
end)

describe("a provider's keys", function()
  local session_policy = require("session_policy")
  local KEYS = "https://login.example.com/jwks"

  local function times(headers, body, status)
    local p = session_policy.play({}, { discovery = false })
    local stub = p:http("GET", KEYS):replies(status or 200, body or { keys = json.list { { kty = "RSA", kid = "a", fake = "a" } } }, headers)
    p:discover()
    p:advance(1) -- the task waits for the document
    return p, stub
  end

  -- the answer's Cache-Control, seconds after which they are read again
  for control, seconds in pairs { [""] = 900, ["max-age=600"] = 600, ["public, max-age=3600, x"] = 3600, ["MAX-AGE = 700"] = 700, ["max-age=1"] = 300, ["max-age=0"] = 300,
                                  ["no-store"] = 900, ["max-age=999999999"] = 86400, ["max-age=abc"] = 900 } do
    it(("are read again after %d s for %q"):format(seconds, control), function()
      local p, stub = times { ["Cache-Control"] = control }
      local before = stub.used
      p:advance(seconds - 2)
      assert.equal(before, stub.used)
      p:advance(3)
      assert.equal(before + 1, stub.used)
    end)
  end

  local function board_of(p)
    for name, entry in pairs(p.fake.board) do
      if name:find("^jwks ") and not name:find("asked$") then return entry end
    end
    return {}
  end

  it("stay when a later reading fails", function()
    local p, stub = times {}
    assert.equal(1, #board_of(p).value.keys)
    stub:fails("timeout")
    p:advance(901)
    assert.equal(1, #board_of(p).value.keys)
    local used = stub.used
    p:advance(1)
    assert.equal(used + 1, stub.used)
  end)

  local many = {}
  for i = 1, 65 do many[i] = { kty = "RSA", kid = tostring(i) } end
  for name, body in pairs { HTML = "<html>", ["no keys"] = { keys = json.list {} }, ["65 keys"] = { keys = many }, ["keys as text"] = { keys = "x" }, ["a list"] = "[]", null = "null" } do
    it("are not believed: " .. name, function()
      local p = times({}, body)
      assert.is_nil(board_of(p).value)
      assert.is_string(board_of(p).why)
    end)
  end

  it("are not believed with another status", function() assert.equal("the keys' address answered 404", board_of((times({}, {}, 404))).why) end)

  it("are read from the policy's own address", function()
    local p = session_policy.play({ provider = { jwks_url = "https://keys.example.com/all" } }, { discovery = false })
    local stub = p:http("GET", "https://keys.example.com/all"):replies(200, { keys = json.list { { kty = "RSA", kid = "a" } } })
    p:discover()
    assert.equal(1, stub.used)
  end)
end)
