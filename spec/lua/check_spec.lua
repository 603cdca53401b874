local checking = require("checking")
local policy = checking.policy

-- fields: of the provider; session: options of authn.session, beside them.
local function policy_with_session(fields)
  local session, login = fields:match("session = (%b{})") or "{ }", fields:match("login = (%b{})")
  fields = fields:gsub(",? ?session = %b{}", ""):gsub(",? ?login = %b{}", "")
  return 'local s = ' .. session .. '\ns.provider = "corp"\nreturn { api = 1, providers = { corp = { issuer = "https://login.example.com"' ..
    (fields ~= "" and ", " .. fields or "") .. ' } },\nauthenticators = { authn.session(s) }' .. (login and ', login = { provider = "corp", ' .. login:sub(2) or "") .. " }"
end

local function read(path)
  local file = assert(io.open(path))
  local text = file:read("a")
  file:close()
  return text
end

describe("the checker", function()
  it("says what the acceptance cases want", function()
    local out = {}
    for _, name in ipairs { "typo", "word", "quotes", "syntax", "global", "secret", "downgrade" } do
      local file = ("bad/%s.lua"):format(name)
      local report, errors = checking.check(read("spec/lua/" .. file), { name = file })
      out[#out + 1] = ("%s %s  0.00 ms\n%s"):format(errors > 0 and "FAIL" or "ok  ", file, report)
    end
    local expected = read("spec/lua/bad/expected.txt"):gsub("(%.lua)  [%d.]+ ms", "%1  0.00 ms")
    assert.equal(expected, table.concat(out))
  end)

  -- what is wrong, the policy, what the report must say
  for _, case in ipairs {
    { "no table", "return 5", "p.lua:1:1: error[wrong-type]: a policy must return a table, not 5" },
    { "nothing", "", "a policy must return a table, not nil" },
    { "no api", "return { authenticators = { authn.anonymous { } } }", "p.lua:1:1: error[missing-option]: policy needs 'api'" },
    { "another api", "return { api = 2, authenticators = { authn.anonymous { } } }", "policy.api is 2; this moonlatch speaks 1" },
    { "api as text", 'return { api = "1", authenticators = { authn.anonymous { } } }', 'policy.api is "1"' },
    { "no authenticators", "return { api = 1 }", "policy needs 'authenticators'" },
    { "all switched off", "return { api = 1, authenticators = { authn.anonymous { enabled = false } } }", "no authenticator is enabled" },
    { "a plain table", 'return { api = 1, authenticators = { { kind = "authn", type = "anonymous", options = {} } } }',
      "policy.authenticators[1] must be an authenticator such as authn.opaque { ... }, or a function, not a table" },
    { "a rule among authenticators", 'return { api = 1, authenticators = { authz.users { any = "a" } } }', "not authz.users { ... }" },
    { "a typo in what is switched off", 'return { api = 1, authenticators = { authn.jwt { enabled = false, audiance = "a" }, authn.anonymous { } } }',
      "^ did you mean 'audience'?" },
    { "a spec that is changed", 'local a = authn.anonymous { }\na.type = "x"\nreturn { }', "p.lua:2:1: error[load]: authn.anonymous cannot be changed once it is made" },
    { "false in the list", "return { api = 1, authenticators = { false, authn.anonymous { } } }", "^ use enabled = false" },
    { "a hole in front", "return { api = 1, authenticators = { nil, authn.anonymous { } } }",
      "error[hole]: policy.authenticators[1] is nil, so what follows it is lost" },
    { "a hole at the end", "return { api = 1, authenticators = { authn.anonymous { }, nil } }", "error[hole]: policy.authenticators[2]" },
    { "a hole in texts", policy 'authorize = { authz.users { any = { "a", nil, "b" } } }', "error[hole]: authz.users.any[2]" },
    { "a text for a list", policy 'authorize = "all"', 'policy.authorize must be a list, not "all"' },
    { "names in a list", policy "authorize = { first = function() return true end }", "policy.authorize is a list; it has no names such as 'first'" },
    { "no any, no all", policy "authorize = { authz.groups { } }", "authz.groups needs 'any' or 'all'" },
    { "all of nothing", policy "authorize = { authz.groups { all = {} } }", "authz.groups.all is empty, so it would let everybody in" },
    { "an empty group", policy 'authorize = { authz.groups { any = { "" } } }', "authz.groups.any[1] is empty" },
    { "a number as name", policy "name = 5", "policy.name must be a text, not 5" },
    { "no unit", policy 'timeout = "5"', 'policy.timeout must be a duration such as "500ms", "30s", "5m", "1h", not "5"' },
    { "no time", policy 'timeout = "0s"', "policy.timeout must be more than zero" },
    { "endless time", policy 'timeout = "9999999999h"', "must be a duration" },
    { "a secret as text", policy 'name = secret("K")', "policy.name must be a text, not a secret" },
    { "issuer of another kind", 'return { api = 1, providers = { c = { issuer = "ftp://x" } }, authenticators = { authn.anonymous { } } }',
      "policy.providers.c.issuer must begin with http:// or https://" },
    { "a password in an address", 'return { api = 1, providers = { c = { issuer = "https://u:p@x" } }, authenticators = { authn.anonymous { } } }',
      "policy.providers.c.issuer must not hold a user or password" },
    { "no issuer", "return { api = 1, providers = { c = { } }, authenticators = { authn.anonymous { } } }", "policy.providers.c needs 'issuer'" },
    { "an empty issuer", 'return { api = 1, providers = { c = { issuer = "" } }, authenticators = { authn.anonymous { } } }', "needs 'issuer'" },
    { "a header of HTTP", policy 'headers = { Host = "{user}" }', 'policy.headers.Host belongs to HTTP itself' },
    { "framing", policy 'headers = { ["content-length"] = "{user}" }', "belongs to HTTP itself" },
    { "a pseudo header", policy 'headers = { [":path"] = "{user}" }', "names with a colon in front are HTTP/2's own" },
    { "no header name", policy 'headers = { ["X User"] = "{user}" }', "is no header name" },
    { "the same header twice", policy 'headers = { ["X-User"] = "{user}", ["x-user"] = "{user}" }', "error[duplicate-header]" },
    { "an alias", policy 'headers = { ["X-User"] = "{user}", ["X_User"] = "{user}" }', "error[duplicate-header]" },
    { "a line end in a header", policy 'headers = { ["X-User"] = "a\\r\\nb" }', "has a control character" },
    { "true as header", policy 'headers = { ["X-User"] = true }', "must be a template" },
    { "half a field", policy 'headers = { ["X-User"] = "{user" }', "is no template: a { or } has no partner" },
    { "claims without a path", policy 'headers = { ["X-User"] = "{claims}" }', "there is no {claims}" },
    { "a part of a user", policy 'headers = { ["X-User"] = "{user.x}" }', "there is no {user.x}" },
    { "an unknown field of a route", policy 'routes = { { prefix = "/a", headers = { A = "{usr}" } } }', "policy.routes[1].headers.A: there is no {usr}" },
    { "identity without a source", policy "identity = { user = { lower = true } }", "policy.identity.user needs one of 'claim', 'map' and 'from'" },
    { "identity with two", policy 'identity = { user = { claim = "a", from = "groups" } }', "needs one of" },
    { "a name that is taken", policy 'identity = { claims = "x" }', "policy.identity.claims is the identity's own" },
    { "from nowhere", policy 'identity = { up = { from = "usr" } }', "policy.identity.up: identity has no 'usr'" },
    { "from itself", policy 'identity = { a = { from = "b" }, b = { from = "a" } }', "is derived from itself" },
    { "a bad rewrite", policy 'identity = { user = { claim = "a", rewrite = { { matches = "(", replaces = "" } } } }', "is no regular expression" },
    { "a route of all paths", policy 'routes = { { prefix = "/", public = true } }', 'the prefix "/" matches every path' },
    { "all paths in a list", policy 'routes = { { prefix = { "/a", "/" }, public = true } }', "error[route-matches-all]" },
    { "a query in a path", policy 'routes = { { path = "/a?public", public = true } }', "must be a path only" },
    { "an encoded path", policy 'routes = { { path = "/a%20b" } }', "write it decoded" },
    { "dots", policy 'routes = { { prefix = "/a/../b" } }', "has a dot segment" },
    { "half a star", policy 'routes = { { path = "/a*" } }', "only as a whole segment" },
    { "a relative path", policy 'routes = { { path = "a" } }', "must begin with /" },
    { "a host with a port", policy 'routes = { { host = "a.example.com:80" } }', "must not have a port" },
    { "a star in a host", policy 'routes = { { host = "a.*.com" } }', "is no host name" },
    { "a lower case method", policy 'routes = { { method = "get" } }', 'did you mean "GET"?' },
    { "two routes of one name", policy 'routes = { { name = "a", path = "/a" }, { name = "a", path = "/b" } }', "error[duplicate-name]" },
    { "rules on a public route", policy 'routes = { { path = "/a", public = true, authorize = { } } }', "has no effect on a public route" },
    { "a session without a client", policy_with_session 'session = { }', "authn.session: provider 'corp' needs 'client_id'" },
    { "a session's cookie", policy_with_session 'client_id = "g", session = { cookie = "a b" }', "authn.session.cookie is no cookie name" },
    { "an empty cookie name", policy_with_session 'client_id = "g", session = { cookie = "" }', "authn.session.cookie is no cookie name" },
    { "a domain that is none", policy_with_session 'client_id = "g", session = { domain = "com" }', "authn.session.domain is no domain such as" },
    { "a domain with a dot in front", policy_with_session 'client_id = "g", session = { domain = ".example.com" }', "authn.session.domain is no domain" },
    { "an address as domain", policy_with_session 'client_id = "g", session = { domain = "192.0.2.1" }', "authn.session.domain is no domain" },
    { "attributes in a domain", policy_with_session 'client_id = "g", session = { domain = "a.example.com; Secure" }', "authn.session.domain is no domain" },
    { "__Host- with a domain (S-265)", policy_with_session 'client_id = "g", session = { domain = "example.com", cookie = "__Host-s" }',
      "authn.session.domain cannot be with a cookie named __Host-" },
    { "__Host- over http", policy_with_session 'client_id = "g", session = { cookie = "__Host-s" }, redirect_url = "http://a/authservice/oidc/callback"',
      "authn.session.cookie '__Host-s' needs https" },
    { "hosts without a domain", policy_with_session 'client_id = "g", login = { hosts = { "*.example.com" } }', "policy.login.hosts: authn.session needs 'domain'" },
    { "strict as text", policy_with_session 'client_id = "g", session = { strict = "often" }', 'authn.session.strict must be a duration such as "500ms", "30s", "5m", "1h", or true or false, not "often"' },
    { "strict as a number", policy_with_session 'client_id = "g", session = { strict = 5 }', "or true or false, not 5" },
    { "a parameter of ours (S-080)", policy_with_session 'client_id = "g", authorize_params = { state = "x" }', "policy.providers.corp.authorize_params.state is moonlatch's own; it cannot be set" },
    { "a redirect_uri of one's own", policy_with_session 'client_id = "g", authorize_params = { redirect_uri = "x" }', "it cannot be set" },
    { "a response type", policy_with_session 'client_id = "g", authorize_params = { response_type = "token" }', "it cannot be set" },
    { "a parameter that is none", policy_with_session 'client_id = "g", authorize_params = { ["a b"] = "x" }', "is no parameter name" },
    { "a parameter as number", policy_with_session 'client_id = "g", authorize_params = { max_age = 5 }', "must be a text, not 5" },
    { "alg none (S-224)", policy_with_session 'client_id = "g", algorithms = { "none" }', "it must be one of: RS256" },
    { "HS256", policy_with_session 'client_id = "g", algorithms = { "HS256" }', "it must be one of: RS256" },
    { "form_post over http (S-236)", policy_with_session 'client_id = "g", response_mode = "form_post", redirect_url = "http://a/authservice/oidc/callback"',
      "has response_mode form_post: it needs a redirect_url with https" },
    { "form_post without an address", policy_with_session 'client_id = "g", response_mode = "form_post"', "it needs a redirect_url with https" },
    { "a response mode in the address", policy_with_session 'client_id = "g", response_mode = "fragment"', "it must be one of: query, form_post" },
    { "a key that is not there", policy_with_session 'client_id = "g", auth_method = "private_key_jwt"', "provider 'corp' needs 'private_key'" },
    { "a client secret in clear", policy_with_session 'client_id = "g", client_secret = "s"', "must be a secret, not text" },
    { "a host with a port", policy 'login = { provider = "corp", hosts = { "a:80" } }', "policy.login.hosts[1] must not have a port" },
    { "every host", policy 'login = { provider = "corp", hosts = { "*" } }', "policy.login.hosts[1] is no host name" },
    { "an address of nobody's", policy 'login = { provider = "corp", after_login = "//evil.com" }', "policy.login.after_login must begin with http:// or https://" },
    { "a script as address", policy 'login = { provider = "corp", homepage = "javascript:x" }', "policy.login.homepage must begin with" },
    { "a backslash", policy [[login = { provider = "corp", after_logout = "/a\\b" }]], "policy.login.after_logout" },
    { "a login that nobody comes back from", policy 'login = { provider = "corp" }', "error[missing-option]: policy.login: no authn.session has provider 'corp'" },
    { "an authorizer that is nowhere", policy 'authorize = { authz.external { url = "authorizer/check" } }', "must begin with http:// or https://" },
    { "a later authenticator", 'return { api = 1, authenticators = { authn.basic { users = secret("S") } } }', "authn.basic comes with a later version" },
    { "an unknown word in a function", policy "authorize = { function(id) return alow() end }", "'alow' is not defined; did you mean allow?" },
    { "an unknown host word", policy "authorize = { function() return http.fetchh('x') end }", "there is no http.fetchh; did you mean http.fetch?" },
    { "a global in a function", policy "authorize = { function(id) seen = id return true end }", "error[global]: write 'local seen = ...'" },
    { "stock Lua", policy "authorize = { function(id) return os.getenv('X') end }", "a policy has no 'os'" },
    { "_ENV", policy "authorize = { function(id) local x = _ENV return true end }", "a policy has no '_ENV'" },
    { "a shared local", "local seen\n" .. policy "authorize = { function(id)\n  seen = id\n  return true\nend }",
      "p.lua:5:3: error[shared-state]: 'seen' is shared by all requests" },
    { "shared, one deep", "local n = 0\nlocal function count() n = n + 1 return true end\n" .. policy "authorize = { function() return count() end }",
      "p.lua:2:24: error[shared-state]: 'n'" },
    { "shared, made by a factory", "local function rule()\n local n = 0\n return function() n = n + 1 return true end\nend\n" .. policy "authorize = { rule() }",
      "p.lua:3:20: error[shared-state]: 'n'" },
    { "shared, a nested function", "local last\n" .. policy "authorize = { function(id) local function f() last = id end f() return true end }",
      "error[shared-state]: 'last'" },
  } do
    it("refuses " .. case[1], function()
      local report, errors = checking.check(case[2])
      assert.is_true(errors > 0, report)
      assert.truthy(report:find(case[3], 1, true), report)
    end)
  end

  for _, case in ipairs {
    { "what a function keeps for itself", policy "authorize = { function(id) local n = 0 n = n + 1 return n > 0 end }" },
    { "a closure of one request", policy "authorize = { function(id) local found local function f() found = true end f() return found end }" },
    { "counting while loading", "local n = 0\nlocal function add() n = n + 1 return n end\n" .. policy 'name = "n" .. add()' },
    { "an empty list of prefixes", policy 'routes = { { prefix = env.list("SKIP", ""), public = true } }' },
    { "switched off with empty values", policy 'authorize = { authz.external { enabled = false, url = "" } }' },
    { "no login for anybody", policy 'login = { provider = "corp", clients = "none" }' },
    { "a public route with headers", policy 'routes = { { path = "/a", public = true, headers = { A = false } } }' },
    { "a relative authorize_url",
      'return { api = 1, providers = { d = { issuer = "http://dex:5556/dex", authorize_url = "/dex/auth" } }, authenticators = { authn.anonymous { } } }' },
    { "names of an authenticator's identity", 'return { api = 1, authenticators = { authn.anonymous { identity = { team = "t" } } }, headers = { A = "{team|x}" } }' },
  } do
    it("accepts " .. case[1], function()
      local report, errors, warnings = checking.check(case[2])
      assert.same({ "", 0, 0 }, { report, errors, warnings })
    end)
  end

  for _, case in ipairs {
    { "the default of opaque before anonymous", 'return { api = 1, providers = { c = { issuer = "https://a" } }, authenticators = {\n'
      .. '  authn.opaque { provider = "c" }, authn.anonymous { } } }', 'p.lua:2:3: warning[downgrade]', 'write invalid = "reject"' },
    { "a pattern that backtracks", policy "authorize = { function(id, req) return req.path:match('^(.-)a(.-)b$') ~= nil end }", "warning[slow-pattern]", "regex" },
    { "such a pattern in string.find", policy "authorize = { function(id, req) return string.find(req.path, '.*a.*b') ~= nil end }", "warning[slow-pattern]", "regex" },
    { "or true", policy "authorize = { function(id) return id.user == 'a' or true end }", "warning[always-true]", "always true" },
    { "no return", policy "authorize = { function(id) local x = id end }", "warning[no-return]", "returns nothing" },
  } do
    it("warns of " .. case[1], function()
      local report, errors, warnings = checking.check(case[2])
      assert.same({ 0, 1 }, { errors, warnings }, report)
      assert.truthy(report:find(case[3], 1, true) and report:find(case[4], 1, true), report)
    end)
  end

  it("does not take sets and plain lists for slow patterns", function()
    local report = checking.check(policy "authorize = { function(id, req) return req.path:match('^/ns/([%w-*]+)/[a-z]*$') ~= nil end }")
    assert.equal("", report)
  end)

  it("never shows a secret, nor what stands where one belongs", function()
    local source = 'return { api = 1, providers = { c = { issuer = "https://a", client_secret = "hunter2" } }, authenticators = { authn.anonymous { } } }'
    local report = checking.check(source, { env = { K = "hunter2" } })
    assert.truthy(report:find("client_secret must be a secret, not text", 1, true))
    local message = report:match("^[^\n]*")
    assert.is_nil(message:find("hunter2"))
    report = checking.check('return { api = 1, name = secret("K"), authenticators = { secret("K") } }', { env = { K = "hunter2" } })
    assert.is_nil(report:find("hunter2"))
  end)

  it("needs no secrets of production", function()
    local source = 'return { api = 1, providers = { c = { issuer = "https://a", client_secret = secret("UNSET") } }, authenticators = { authn.anonymous { } } }'
    assert.same({ "", 0, 0 }, { checking.check(source) })
    assert.has_error(function() checking.normalised(source) end, "the secret UNSET is not set; the policy needs it")
  end)

  it("bounds what it prints", function()
    local lines = {}
    for i = 1, 300 do lines[i] = ("x%d = 1,"):format(i) end
    local report, errors = checking.check("return { api = 1, authenticators = { authn.anonymous { } },\n" .. table.concat(lines, "\n") .. "}")
    assert.equal(300, errors)
    assert.truthy(report:find("... and 200 more", 1, true))
  end)

  it("says the same thing of the same place once", function()
    local source = 'local routes = {} for i = 1, 9 do routes[i] = { path = "/" .. i, login = { provider = "crop", clients = "none" } } end\n'
    local report, errors = checking.check(source .. policy "routes = routes")
    assert.equal(1, errors)
    assert.equal(1, select(2, report:gsub("there is no provider 'crop'", "")))
  end)

  it("freezes specs too", function()
    local p = checking.normalised('local own = authn.anonymous { user = "a" }\nreturn { api = 1, authenticators = { own }, '
      .. "authorize = { function(id) own.options.user = id return true end } }")
    assert.is_false((pcall(p.authorize[1].options.run, "root")))
    assert.equal("a", p.authenticators[1].options.user)
  end)

  it("bounds lists", function()
    local source = "local rules = {} for i = 1, 33 do rules[i] = function() return true end end\n" .. policy "authorize = rules"
    assert.truthy(checking.check(source):find("policy.authorize has more than 32 elements", 1, true))
  end)

  it("finds options of constructors outside of the returned table", function()
    local report = checking.check('local a = authn.anonymous {\n  usr = "x" }\nreturn { api = 1, authenticators = { a } }')
    assert.truthy(report:find("p.lua:2:3: error[unknown-option]: authn.anonymous has no option 'usr'", 1, true), report)
  end)

  it("falls back to the constructor's line for what is computed", function()
    local report = checking.check('local o = { usr = "x" }\nlocal a =\n  authn.anonymous(o)\nreturn { api = 1, authenticators = { a } }')
    assert.truthy(report:find("p.lua:3:1: error[unknown-option]: authn.anonymous has no option 'usr'", 1, true), report)
  end)
end)

describe("the normalised policy", function()
  it("has seconds, lists, provider tables and defaults", function()
    local p = checking.normalised [[
      local function run() return skip() end
      local function rule() return true end
      return { api = 1, timeout = "1500ms",
        providers = { corp = { issuer = "https://a", ca_file = "", scopes = "openid" } },
        authenticators = { authn.opaque { provider = "corp", cache = "5m" }, authn.opaque { provider = "corp", enabled = false },
                           run, authn.anonymous { invalid = "reject" } },
        identity = { user = { "email", "sub" }, up = { from = "user", prefix = "" } , level = function() return "a" end },
        authorize = { rule, authz.groups { any = "a" } },
        routes = { { prefix = { "/static/", "/" }, host = "A.example.com", method = "GET" } } }
    ]]
    assert.equal(1.5, p.timeout)
    assert.equal("p", p.name)
    assert.equal(p.providers.corp, p.authenticators[1].options.provider)
    assert.same({ name = "corp", issuer = "https://a", scopes = { "openid" }, timeout = 5 }, p.providers.corp)
    assert.equal(3, #p.authenticators)
    assert.same({ 300, "Authorization", "next" }, { p.authenticators[1].options.cache, p.authenticators[1].options.header, p.authenticators[1].options.invalid })
    assert.same({ "custom", "authn", 0, "reject" }, { p.authenticators[2].type, p.authenticators[2].kind, p.authenticators[2].options.cache, p.authenticators[2].options.invalid })
    assert.same({ user = "anonymous", groups = {}, cache = 0, invalid = "reject" }, p.authenticators[3].options)
    assert.same({ claim = { "email", "sub" } }, p.identity.user)
    assert.same({ claim = { "groups" }, default = {} }, p.identity.groups)
    assert.same({ from = "user" }, p.identity.up)
    assert.is_function(p.identity.level.map)
    assert.same({ "custom", "groups" }, { p.authorize[1].type, p.authorize[2].type })
    assert.same({ "a" }, p.authorize[2].options.any)
    assert.same({ name = "route 1", prefix = { "/static", "/" }, host = { "a.example.com" }, method = { "GET" } }, p.routes[1])
  end)

  it("freezes the tables that functions refer to", function()
    local p = checking.normalised([[
      local seen = { list = { 1 } }
      return { api = 1, authenticators = { authn.anonymous { } },
        authorize = { function(id) seen.x = id return true end, function(id) seen.list[2] = id return true end, function() return seen.list[1] == 1 end } }
    ]])
    for i = 1, 2 do
      local ok, why = pcall(p.authorize[i].options.run, "alice")
      assert.is_false(ok)
      assert.truthy(why:find("read%-only"), why)
    end
    assert.is_true(p.authorize[3].options.run())
  end)
end)
