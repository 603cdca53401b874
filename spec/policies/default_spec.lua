local testing = require("moonlatch.testing")

local function load(env, options)
  options = options or {}
  options.env = { OIDC_PROVIDER = "https://id.example.com", ACCESS_TOKEN_AUTHN = "opaque" }
  for name, value in pairs(env or {}) do options.env[name] = value end
  return testing.load("policies/default.lua", options)
end

describe("default", function()
  it("asks the API server, then the provider", function()
    local p = load()
    local d = p:request { bearer = p:idp("main"):opaque { email = "alice@example.com", groups = { "a", "b" } } }
    assert.allowed(d)
    assert.steps(d, "kubernetes:skip opaque:main:accept")
    assert.sends(d, { ["kubeflow-userid"] = "alice@example.com", ["kubeflow-groups"] = "a,b", ["Auth-Method"] = "header" })
  end)

  it("takes a service account's token", function()
    local p = load { GROUPS_ALLOWLIST = "admins,system:serviceaccounts" }
    local d = p:request { bearer = p:kube_token("system:serviceaccount:ns:sa", { "system:serviceaccounts" }) }
    assert.allowed(d)
    assert.sends(d, { ["kubeflow-userid"] = "system:serviceaccount:ns:sa",
                      ["kubeflow-groups"] = "system:serviceaccounts,system:authenticated" })
    assert.denied(p:request { bearer = p:kube_token("system:serviceaccount:ns:sa", { "other" }) }, 403)
  end)

  it("answers 401 to whoever nobody accepts", function()
    local p = load()
    assert.denied(p:request {}, 401)
    assert.denied(p:request { browser = true }, 401)
    assert.denied(p:request { bearer = "unknown" }, 401)
  end)

  it("never sends an expired service account token to UserInfo", function()
    local p = load()
    local token = p:unsigned_jwt { iss = "https://kubernetes.default.svc.cluster.local", exp = 1 }
    local asked = p:http("GET", "https://id.example.com/userinfo"):replies(200, { email = "mallory" }):times(0)
    local d = p:request { bearer = token }
    assert.denied(d, 401)
    assert.steps(d, "kubernetes:skip opaque:main:skip")
    assert.equal(0, asked.used)
    p:verify()
  end)

  it("opens the skipped prefixes, by whole segments, without an identity", function()
    local p = load { SKIP_AUTH_URLS = "/dex, /pub/x/" }
    for _, path in ipairs { "/dex", "/dex/auth", "/pub/x", "/pub/x/y" } do
      local d = p:request { path = path, headers = { ["kubeflow-userid"] = "root" } }
      assert.allowed(d)
      assert.removes(d, "kubeflow-userid")
      assert.removes(d, "kubeflow-groups")
      assert.removes(d, "Auth-Method")
    end
    for _, path in ipairs { "/", "/dexter", "/pub", "/pub/xy", "/DEX", "/x?/dex", "/dex;a=b/x" } do
      assert.denied(p:request { path = path }, 401)
    end
  end)

  for _, list in ipairs { "/", "/dex,/", "//", "dex", "/dex,*" } do
    it("refuses to open everything: " .. list, function()
      assert.error_matches(function() load { SKIP_AUTH_URLS = list } end, "SKIP_AUTH_URLS")
    end)
  end

  it("rewrites and prefixes what the application sees, not what is judged", function()
    local p = load { USERID_PREFIX = "u:", USERID_TRANSFORMERS = '[{"matches":"@example\\\\.com$","replaces":""},{"matches":"a","replaces":"b"}]' }
    assert.sends(p:request { bearer = p:idp("main"):opaque { email = "alice@example.com" } }, { ["kubeflow-userid"] = "u:alice" })
    assert.sends(p:request { bearer = p:idp("main"):opaque { email = "aha" } }, { ["kubeflow-userid"] = "u:bhb" })
  end)

  it("does not send a header whose variable is empty", function()
    local p = load { USERID_HEADER = "", GROUPS_HEADER = "X-Groups" }
    local d = p:request { bearer = p:idp("main"):opaque { email = "alice@example.com" } }
    assert.allowed(d)
    assert.equal(2, #d.headers)
    assert.sends(d, { ["X-Groups"] = "", ["Auth-Method"] = "header" })
  end)

  it("reads the token and the claims it is told to", function()
    local p = load { ID_TOKEN_HEADER = "X-Token", USERID_CLAIM = "sub", GROUPS_CLAIM = "roles", KUBERNETES_AUTHN_ENABLED = "false" }
    local token = p:idp("main"):opaque { sub = "bob", roles = { "r" } }
    assert.sends(p:request { headers = { ["X-Token"] = token } }, { ["kubeflow-userid"] = "bob", ["kubeflow-groups"] = "r" })
    assert.denied(p:request { bearer = token }, 401)
  end)

  it("keeps a token apart from the same one in another header (Q5)", function()
    local p = load { ID_TOKEN_HEADER = "X-Token", CACHE_ENABLED = "true", KUBERNETES_AUTHN_ENABLED = "false" }
    local alice, bob = p:idp("main"):opaque { email = "alice" }, p:idp("main"):opaque { email = "bob" }
    for _ = 1, 2 do
      local same = { Authorization = "Bearer same" }
      same["X-Token"] = alice
      assert.sends(p:request { headers = same }, { ["kubeflow-userid"] = "alice" })
      same["X-Token"] = bob
      assert.sends(p:request { headers = same }, { ["kubeflow-userid"] = "bob" })
    end
  end)

  it("caches only when told to", function()
    local p = load { KUBERNETES_AUTHN_ENABLED = "false" }
    local asked = p:http("GET", "https://id.example.com/userinfo"):replies(200, { email = "x" })
    for _ = 1, 3 do assert.allowed(p:request { bearer = "t" }) end
    assert.equal(3, asked.used)
    p = load { KUBERNETES_AUTHN_ENABLED = "false", CACHE_ENABLED = "true", CACHE_EXPIRATION_MINUTES = "1" }
    asked = p:http("GET", "https://id.example.com/userinfo"):replies(200, { email = "x" })
    for _ = 1, 3 do assert.allowed(p:request { bearer = "t" }) end
    assert.equal(1, asked.used)
    p:advance(61)
    assert.allowed(p:request { bearer = "t" })
    assert.equal(2, asked.used)
  end)

  it("asks the external authorizer after the groups, as the ancestor did", function()
    local p = load { EXTERNAL_AUTHZ_URL = "http://authz.example.com/check", GROUPS_ALLOWLIST = "a", USERID_PREFIX = "u:" }
    local asked = p:http("POST", "http://authz.example.com/check"):replies(204, ""):receives(function(body)
      assert.same({ name = "alice", id = "", groups = { "a", "b" }, extra = { ["auth-method"] = { "header" } } }, body.user)
      assert.same({ host = "app.example.com", port = 80, path = "/x", method = "GET" }, body.request)
    end)
    local alice = p:idp("main"):opaque { email = "alice", groups = { "a", "b" } }
    local d = p:request { bearer = alice, path = "/x?y=1" }
    assert.steps(d, "kubernetes:skip opaque:main:accept groups:yes external:yes")
    assert.sends(d, { ["kubeflow-userid"] = "u:alice" })
    asked:replies(403, "<b>not you</b>")
    assert.denied(p:request { bearer = alice, path = "/x" }, 403, "<b>not you</b>")
    asked:replies(500, "")
    assert.unavailable(p:request { bearer = alice, path = "/x" }, "the authorizer answered 500")
    assert.equal(3, asked.used)
    assert.denied(p:request { bearer = p:idp("main"):opaque { email = "bob", groups = { "c" } }, path = "/x" }, 403)
    assert.equal(3, asked.used)
  end)

  it("is not ready before the provider was found", function()
    local p = load({ SKIP_AUTH_URLS = "/dex" }, { discovery = false })
    assert.unavailable(p:request { bearer = "t" })
    assert.allowed(p:request { path = "/dex/x" })
  end)

  it("does not load what is not built, without a cluster, or without a provider", function()
    assert.error_matches(function() load { ACCESS_TOKEN_AUTHN = "Opaque" } end, "ACCESS_TOKEN_AUTHN must be jwt or opaque", 1, true)
    assert.truthy(load { ACCESS_TOKEN_AUTHN = "Opaque", ACCESS_TOKEN_AUTHN_ENABLED = "false" })
    assert.error_matches(function() load { EXTERNAL_AUTHZ_URL = "x" } end, "must begin with http:// or https://", 1, true)
    assert.error_matches(function() load({}, { cluster = false }) end, "the policy asks Kubernetes and needs a cluster", 1, true)
    assert.error_matches(function() load { AUDIENCES = "" } end, "audiences is empty", 1, true)
    assert.error_matches(function() load { OIDC_PROVIDER = "" } end, "issuer")
    assert.error_matches(function() load { KUBERNETES_AUTHN_ENABLED = "maybe" } end, "KUBERNETES_AUTHN_ENABLED")
  end)
end)

describe("default with JWT access tokens, as the ancestor by default", function()
  local AUDIENCE = "istio-ingressgateway.istio-system.svc.cluster.local"
  local function jwts(env)
    local all = { ACCESS_TOKEN_AUTHN = "jwt" }
    for name, value in pairs(env or {}) do all[name] = value end
    return load(all)
  end

  it("takes a token for the gateway; groups are not required (Q30)", function()
    local p = jwts()
    local idp = p:idp("main")
    for _, groups in ipairs { false, { "a", "b" } } do
      local d = p:request { bearer = idp:jwt({ email = "alice@example.com", groups = groups or nil }, { audience = AUDIENCE }) }
      assert.steps(d, "kubernetes:skip jwt:main:accept")
      assert.sends(d, { ["kubeflow-userid"] = "alice@example.com", ["kubeflow-groups"] = groups and "a,b" or "", ["Auth-Method"] = "header" })
    end
    assert.allowed(jwts({ AUDIENCES = "x, y" }):request { bearer = idp:jwt({ email = "a" }, { audience = "y" }) })
  end)

  it("refuses a bad one, and leaves others' to others", function()
    local p = jwts()
    local idp = p:idp("main")
    assert.denied(p:request { bearer = idp:jwt({ email = "a" }, { audience = AUDIENCE, signature = "bad" }) }, 401, "bad signature")
    assert.denied(p:request { bearer = idp:jwt({ email = "a" }, { audience = AUDIENCE, ttl = -5 }) }, 401, "expired 5s ago")
    assert.denied(p:request { bearer = idp:jwt({}, { audience = AUDIENCE }) }, 401, "claim email is missing")
    for _, token in ipairs { idp:jwt({ email = "a" }, { audience = "other" }), idp:jwt({ email = "a", iss = "https://x.example.com" }, { audience = AUDIENCE }) } do
      assert.steps(p:request { bearer = token }, "kubernetes:skip jwt:main:skip")
    end
  end)

  it("remembers a verified one, whatever CACHE_ENABLED says: nobody is asked", function()
    local p = jwts()
    local token = p:idp("main"):jwt({ email = "a" }, { audience = AUDIENCE })
    for i = 1, 2 do assert.equal(i == 1 and 1 or nil, p:request({ bearer = token }).calls.jwt_verify) end
  end)

  it("takes ID tokens of its client, unless they are switched off", function()
    local env = { CLIENT_ID = "gate", CLIENT_SECRET = "s", KUBERNETES_AUTHN_ENABLED = "false" }
    local p = jwts(env)
    local d = p:request { bearer = p:idp("main"):jwt { sub = "s", email = "a", nonce = "n" } }
    assert.steps(d, "jwt:main:skip session:main:skip id_token:main:accept")
    assert.sends(d, { ["Auth-Method"] = "header" })
    env.IDTOKEN_AUTHN_ENABLED = "off"
    p = jwts(env)
    assert.denied(p:request { bearer = p:idp("main"):jwt { sub = "s", email = "a" } }, 401)
  end)
end)

describe("default with a client at the provider", function()
  local function with(env)
    local all = { CLIENT_ID = "gate", CLIENT_SECRET = "s", KUBERNETES_AUTHN_ENABLED = "false" }
    for name, value in pairs(env or {}) do all[name] = value end
    return load(all, { session_cookie = all.SESSION_COOKIE_NAME })
  end

  it("logs people in", function()
    local p = with { OIDC_AUTH_URL = "/dex/auth", REDIRECT_URL = "/login/oidc", OIDC_SCOPES = "profile email groups" }
    local id, started, d = p:idp("main"):login({ email = "alice@example.com", groups = { "a" } }, { path = "/x?y" })
    assert.equal("/x?y", d.client_headers.Location)
    assert.equal(1, started.location:find("/dex/auth?client_id=gate&redirect_uri=%2Flogin%2Foidc&response_type=code&scope=openid%20profile%20email%20groups&", 1, true))
    local answer = p:request { session = id }
    assert.sends(answer, { ["kubeflow-userid"] = "alice@example.com", ["kubeflow-groups"] = "a", ["Auth-Method"] = "cookie" })
    assert.steps(answer, "opaque:main:skip session:main:accept")
    answer = p:request { bearer = id }
    assert.sends(answer, { ["kubeflow-userid"] = "alice@example.com", ["Auth-Method"] = "header" })
    assert.equal(1, p:idp("main"):times("userinfo")) -- the session's id was not shown to it
  end)

  it("takes commas and spaces between scopes, and puts openid first", function()
    for text, scope in pairs { ["email,openid"] = "openid email", ["openid, email , profile"] = "openid email profile", ["a b,c"] = "openid a b c", [""] = "openid" } do
      assert.equal(scope, with({ OIDC_SCOPES = text }):idp("main"):start().parameters.scope)
    end
    assert.equal("openid email", with():idp("main"):start().parameters.scope)
  end)

  it("reads the session's settings", function()
    local p = with { AUTH_HEADER = "X-Auth-Token", SESSION_MAX_AGE = "100", SESSION_IDLE_TIME = "60", SESSION_SAME_SITE = "None", SESSION_COOKIE_NAME = "__Host-s" }
    local id, _, d = p:idp("main"):login { email = "a" }
    assert.truthy(d.client_headers["Set-Cookie"][2]:find("^__Host%-s=[%w_-]+; Path=/; Max%-Age=100; HttpOnly; SameSite=None; Secure$"))
    assert.allowed(p:request { headers = { ["X-Auth-Token"] = id } })
    p:advance(61)
    assert.login(p:request { session = id, browser = true })
    assert.truthy(with({ SESSION_SAME_SITE = "whatever" }))
    assert.error_matches(function() with { SESSION_MAX_AGE = "soon" } end, "max_age", 1, true)
    assert.error_matches(function() with { SESSION_COOKIE_NAME = "a b" } end, "is no cookie name", 1, true)
  end)

  it("asks each time when it is to be strict", function()
    for _, word in ipairs { "true", "on", "yes", "1" } do -- Q19
      local p = with { STRICT_SESSION_VALIDATION = word }
      local id = p:idp("main"):login { email = "a" }
      for _ = 1, 2 do assert.allowed(p:request { session = id }) end
      assert.equal(3, p:idp("main"):times("userinfo"))
    end
  end)

  it("goes where it is told", function()
    local p = with { AFTER_LOGIN_URL = "/in", AFTER_LOGOUT_URL = "/", HOMEPAGE_URL = "https://home.example.com/" }
    local id, _, d = p:idp("main"):login({ email = "a" }, { path = "/x" })
    assert.equal("/in?next=%2Fx", d.client_headers.Location)
    d = p:request { endpoint = "logout", method = "POST", path = "/authservice/logout", bearer = id }
    assert.equal('{"afterLogoutURL":"/"}', d.body)
    d = p:request { endpoint = "callback", path = "/authservice/oidc/callback" }
    assert.truthy(d.body:find('href="https://home.example.com/"', 1, true))
  end)

  it("sends to the login whom it is told to", function()
    assert.login(with({ LOGIN_CLIENTS = "all" }):request { method = "POST", headers = { Accept = "application/json" } })
    assert.denied(with({ LOGIN_CLIENTS = "none" }):request { browser = true }, 401)
    assert.error_matches(function() with { LOGIN_CLIENTS = "some" } end, "it must be one of: browsers, all, none", 1, true)
  end)

  it("takes an empty secret, as the ancestor did, but not a missing one", function()
    assert.truthy(with { CLIENT_SECRET = "" })
    assert.error_matches(function() load({ CLIENT_ID = "gate" }) end, "the secret CLIENT_SECRET is not set", 1, true)
  end)

  it("has an absolute prefix of its own (Q2)", function()
    local p = with { AUTHSERVICE_URL_PREFIX = "https://app.example.com/auth" }
    local started = p:idp("main"):start { scheme = "http" }
    assert.equal("https://app.example.com/auth/oidc/callback", started.parameters.redirect_uri)
    assert.truthy(started.decision.client_headers["Set-Cookie"][1]:find("; Secure", 1, true))
  end)
end)

