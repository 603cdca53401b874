local made = require("made")

local URL = "http://authz.example.com/check"
local ENV = { KEY = "k3y", S = "s" }

-- options: of authz.external; authn: authenticators. One rule, and whatever the spec says of them.
local function play(options, authn, claims)
  options = options or {}
  options.url, options.cache = URL, options.cache or 0
  local p = made.play(function(host)
    if options.secret then options.headers, options.secret = { ["X-Key"] = host.secret("KEY"), ["x-plain"] = "p" }, nil end
    return { authenticators = authn, authorize = { made.authz("external", options) } }
  end, { env = ENV })
  return p, p:idp("corp"):opaque(claims or { email = "alice", groups = { "a", "b" } })
end

local function answered(status, body)
  local p, token = play()
  p:http("POST", URL):replies(status, body)
  return p:request { bearer = token }
end

-- What is sent, as text, for a request to a policy.
local function sent(p, request)
  local text
  p:http("POST", URL):replies(200, ""):receives(function(_, got) text = got.body end)
  assert.allowed(p:request(request))
  return text
end

describe("authz.external", function()
  it("sends the ancestor's document", function()
    local p, token = play()
    local seen
    p:http("POST", URL):replies(200, ""):receives(function(body, request)
      assert.same({
        timestamp = "2023-11-14T22:13:20Z",
        user = { name = "alice", id = "", groups = { "a", "b" }, extra = { ["auth-method"] = { "header" } } },
        request = { host = "app.example.com", port = 80, path = "/a b", method = "POST" },
      }, body)
      assert.equal("application/json", request.headers["content-type"])
      assert.is_nil(request.headers.authorization)
      assert.equal(3, request.timeout)
      seen = request.body
    end)
    assert.allowed(p:request { bearer = token, path = "/a b?secret=1", method = "POST" })
    assert.truthy(seen:find('"claims":null', 1, true))
  end)

  it("counts time as everybody does", function()
    for _, moment in ipairs { 0, 951782399, 951782400, 951868800, 1709164800, 1709251199, 1735689599, 1735689600, 4102444800, 1700000000.9 } do
      local p, token = play()
      p.fake.now = moment
      assert.truthy(sent(p, { bearer = token }):find(os.date("!%Y-%m-%dT%H:%M:%SZ", moment // 1 | 0), 1, true))
    end
  end)

  it("says the port, and groups that are none", function()
    for host, port in pairs { ["app.example.com:8443"] = 8443, ["[::1]:90"] = 90, ["[::1]"] = 80, ["app.example.com"] = 80 } do
      local p, token = play(nil, nil, { email = "a" })
      local text = sent(p, { bearer = token, headers = { Host = host } })
      assert.truthy(text:find('"port":' .. port .. ",", 1, true), text)
      assert.truthy(text:find('"groups":[]', 1, true), text)
    end
  end)

  it("sends the claims of the JWT that was accepted, as they stand there", function()
    local function jwt(options)
      options.provider, options.audience, options.cache = made.corp, { "api" }, 0
      return made.authn("jwt", options)
    end
    local p = play(nil, { jwt {} })
    local token = p:idp("corp"):jwt({ email = "a", none = { list = "x" } }, { audience = "api" })
    local payload = p.fake.host.base64_decode(token:match("%.(.-)%."), true)
    assert.truthy(sent(p, { bearer = token }):find('"claims":' .. payload .. "}", 1, true))
    -- in another header it is not the one that applications and authorizers know
    p = play(nil, { jwt { header = "X-Token" } })
    local forged = p:unsigned_jwt { email = "root", admin = true }
    token = p:idp("corp"):jwt({ email = "a" }, { audience = "api" })
    assert.truthy(sent(p, { headers = { ["X-Token"] = token, Authorization = "Bearer " .. forged } }):find('"claims":null', 1, true))
  end)

  it("never sends claims that nobody has verified", function()
    local p = play(nil, { made.authn("anonymous", { user = "guest" }) })
    assert.truthy(sent(p, { bearer = p:unsigned_jwt { admin = true } }):find('"claims":null', 1, true))
  end)

  it("sends a service account's uid and no claims, as the ancestor did", function()
    local p = play(nil, { made.authn("kubernetes", { identity = { user = { claim = { "username" } } } }) })
    local text = sent(p, { bearer = p:kube_token("system:serviceaccount:a:b", { "g" }) })
    assert.truthy(text:find('"name":"system:serviceaccount:a:b","id":"uid-1","groups":["g","system:authenticated"]', 1, true), text)
    assert.truthy(text:find('"claims":null', 1, true))
  end)

  for _, status in ipairs { 200, 201, 204, 299 } do
    it("takes " .. status .. " for a yes", function() assert.allowed(answered(status, "no")) end)
  end

  for _, status in ipairs { 401, 403 } do
    it("takes " .. status .. " for a no, and the body for the reason", function()
      local d = answered(status, " not\tyou,\r\n<b>alice</b> ")
      assert.denied(d, 403, "not you,  <b>alice</b>")
      assert.equal("denied", d.reason)
      assert.is_nil(d.client_headers["WWW-Authenticate"])
      assert.steps(d, "opaque:corp:accept external:no")
    end)
  end

  it("has a reason of its own when there is none to show", function()
    for _, body in ipairs { "", " \r\n", "\xff", "\0" } do assert.denied(answered(403, body), 403, "the authorizer does not allow it") end
    local long = answered(403, ("ä"):rep(1000))
    assert.denied(long, 403, ("ä"):rep(50))
    assert.is_true(#long.message <= 200)
  end)

  for _, status in ipairs { 100, 300, 301, 302, 304, 307, 400, 402, 404, 405, 407, 408, 418, 429, 500, 502, 503, 504 } do
    it("takes " .. status .. " for an outage: 503, not 403", function()
      local d = answered(status, "allow")
      assert.unavailable(d, "the authorizer answered " .. status)
      assert.equal("1", d.client_headers["Retry-After"])
    end)
  end

  it("is an outage when nobody answers, in time", function()
    local p, token = play { timeout = 0.5, cache = 60 }
    local asked = p:http("POST", URL):fails("timeout"):receives(function(_, request) assert.equal(0.5, request.timeout) end)
    assert.unavailable(p:request { bearer = token }, "timeout")
    asked:replies(200, "")
    assert.allowed(p:request { bearer = token })
  end)

  it("asks each time unless the policy says otherwise", function()
    local p, token = play()
    local asked = p:http("POST", URL):replies(200, "")
    for _ = 1, 3 do assert.allowed(p:request { bearer = token }) end
    asked:replies(403, "no")
    assert.denied(p:request { bearer = token }, 403)
    assert.equal(4, asked.used)
  end)

  it("keeps a yes as long as it may, a no for a moment, under everything that was sent", function()
    local p, token = play { cache = 60 }
    local asked = p:http("POST", URL):replies(200, "")
    local count = 0
    local function asks(request)
      count = count + 1
      assert.allowed(p:request(request))
      assert.equal(count, asked.used)
      assert.allowed(p:request(request))
      assert.equal(count, asked.used)
    end
    asks { bearer = token }
    asks { bearer = token, path = "/b" }
    asks { bearer = token, method = "POST" }
    asks { bearer = token, host = "b.example.com" }
    asks { bearer = token, headers = { Host = "app.example.com:81" } }
    asks { bearer = p:idp("corp"):opaque { email = "bob", groups = { "a", "b" } } }
    asks { bearer = p:idp("corp"):opaque { email = "alice", groups = { "a" } } }
    asks { bearer = p:idp("corp"):opaque { email = "alice", groups = { "b", "a" } } }
    assert.allowed(p:request { bearer = p:idp("corp"):opaque { email = "alice", groups = { "a", "b" } }, path = "/?query" })
    asked:replies(403, "<i>no</i>")
    p:advance(61)
    for _ = 1, 2 do assert.denied(p:request { bearer = token }, 403, "<i>no</i>") end
    assert.equal(count + 1, asked.used)
    p:advance(6)
    asked:replies(200, "")
    assert.allowed(p:request { bearer = token })
  end)

  it("sends the policy's own document and headers", function()
    local p, token = play { secret = true, body = function(id, req) return { who = id.user, groups = id.groups, path = req.path } end }
    p:http("POST", URL):replies(200, ""):receives(function(body, request)
      assert.same({ who = "alice", groups = { "a", "b" }, path = "/x" }, body)
      assert.equal("k3y", request.headers["x-key"])
      assert.equal("p", request.headers["x-plain"])
    end)
    assert.allowed(p:request { bearer = token, path = "/x" })
  end)

  it("is an error when the policy's own function is wrong", function()
    for name, body in pairs { ["nil"] = function() end, text = function() return "x" end, bug = function() error("bug") end, ["a function"] = function() return { f = print } end } do
      local p, token = play { body = body }
      local d = p:request { bearer = token }
      assert.denied(d, 503)
      assert.equal("error", d.reason, name)
    end
  end)

  it("has no use for headers that are HTTP's own", function()
    for _, name in ipairs { "Host", "Content-Length", "a b", "" } do
      assert.error_matches(function() play { headers = { [name] = "x" } } end, "authz.external: headers", 1, true)
    end
  end)

  it("does not ask about a path that no document could hold", function()
    local p, token = play()
    assert.denied(p:request { bearer = token, path = "/\xff" }, 403, "not valid UTF-8")
  end)

  it("is asked after what is free", function()
    local p = made.play { authorize = { made.authz("groups", { any = { "x" } }), made.authz("external", { url = URL }) } }
    assert.denied(p:request { bearer = p:idp("corp"):opaque { email = "a" } }, 403)
  end)
end)
