local contract = require("host_contract")
local jose = require("moonlatch.testing.jose")
local keys = require("key_contract")
local seam = require("moonlatch.host")
local fake_host = require("moonlatch.testing.fake_host")

local function signed(kid) return jose.sign({ sub = "alice" }, { alg = "ES256", kid = kid, typ = "JWT" }, "secret") end
local jwt = {
  set = { keys = { { kty = "EC", crv = "P-256", kid = "k1", fake = "secret" } } }, good = signed("k1"), unknown = signed("k2"), alg = "ES256",
  pem = "KEY_PEM", not_pem = "MOONLATCH_CONTRACT",
}

describe("the fake host while loading", function()
  local fake = fake_host.new { env = { MOONLATCH_CONTRACT = "value", KEY_PEM = "-----BEGIN PRIVATE KEY-----" } }
  contract(fake.host, it, { phase = "loading", seam = seam, env = "MOONLATCH_CONTRACT" })
  keys(fake.host, it, { phase = "loading", jwt = jwt })
end)

describe("the fake host in a request", function()
  local fake = fake_host.new {}
  fake:loaded()
  contract(fake.host, it, { phase = "running", seam = seam })
  keys(fake.host, it, { phase = "running", jwt = jwt })
end)

describe("the fake host's decision", function()
  local fake, plan

  before_each(function()
    fake = fake_host.new {}
    plan = fake.host.plan({ "A", "B", "C" }, { "set", "set", "remove" })
    fake:loaded()
  end)

  local function decide(fn, request) return fake:decide(fn, request or { method = "GET", host = "h", path = "/", headers = {} }) end

  it("is the first one", function()
    local d = decide(function(req)
      fake.host.deny(req, 403, "denied", "no")
      pcall(fake.host.allow, req, plan, "u", "allowed", "a")
    end)
    assert.equal(403, d.status)
  end)

  it("is 503 without an answer, or after an error", function()
    assert.equal(503, decide(function() end).status)
    assert.equal(503, decide(function() error("x") end).status)
    assert.equal(503, decide(function(req) fake.host.allow(req, plan, "u", "allowed", "a\n") end).status)
    assert.equal(503, decide(function(req) fake.host.allow(req, plan, "u", "whatever") end).status)
    assert.equal(503, decide(function(req) fake.host.deny(req, 200, "denied", "x") end).status)
  end)

  it("sets, blanks and removes", function()
    local d = decide(function(req) fake.host.allow(req, plan, "u", "allowed", "", nil, "ignored") end)
    assert.same({ { name = "A", value = "", op = "set" }, { name = "B", op = "blank" }, { name = "C", op = "remove" } }, d.headers)
  end)

  it("ends with the request", function()
    local kept
    decide(function(req) kept = req end)
    assert.error_matches(function() return kept.path end, "this request has ended")
    assert.error_matches(function() return fake.host.credential(kept, "Authorization") end, "this request has ended")
    assert.error_matches(function() return fake.host.cookie(kept, "a") end, "this request has ended")
    assert.error_matches(function() fake.host.step(kept, "a", "b") end, "this request has ended")
    assert.error_matches(function() fake.host.allow(kept, plan, "u", "allowed") end, "this request has ended")
  end)

  it("reads the request", function()
    local seen = {}
    decide(function(req)
      seen.bearer, seen.token, seen.bare, seen.spaced = req.bearer, req:credential("AUTHORIZATION"), req:credential("X-T"), req:credential("X-S")
      assert.same({ "tok", "bare" }, { fake.host.credential(req, "AUTHORIZATION"), fake.host.credential(req, "X-T") })
      seen.header, seen.cookie, seen.twice = req.headers["x-t"], req.cookies.a, req.cookies.b
      seen.query, seen.raw, seen.gone = req.query.q, tostring(req.query), req.nothing
      assert.error_matches(function() req.path = "/x" end, "read%-only")
      assert.error_matches(function() req.headers.x = "/x" end, "read%-only")
    end, { method = "GET", host = "h", path = "/", query = "q=a%20b&q=c", headers = {
      Authorization = "bEARER tok", ["X-T"] = "bare", ["X-S"] = "Basic x", Cookie = "a=1; b=2; b=3" } })
    assert.same({ bearer = "tok", token = "tok", bare = "bare", header = "bare", cookie = "1", query = "a b", raw = "q=a%20b&q=c" }, seen)
  end)
end)
