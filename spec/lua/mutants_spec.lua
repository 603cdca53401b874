-- Wrong policies nobody thought of: good ones with tokens dropped, doubled and replaced. The checker must answer each in
-- operators' words and never raise.
local checking = require("checking")
local lex = require("moonlatch.lex")

local ROUNDS, SEED = 600, 5

local GOOD = [[
local admin = regex("^adm-(.+)$")
local url = env("SERVICE", "http://tokens.internal/check")
local function legacy(req)
  local token = req.headers["X-Token"]
  if not token then return skip("none") end
  local user = cache.remember(hash.sha256(token), "1m", function() return json.decode(http.fetch(url, { timeout = "1s" }).body) end)
  return user and accept { user = user.login, claims = user } or reject(401, "unknown")
end
return { api = 1, name = "a",
  providers = { corp = { issuer = "https://a", client_id = "c", client_secret = secret("S"), scopes = { "openid" },
    authorize_params = { prompt = "login" }, algorithms = { "RS256" }, response_mode = "form_post", redirect_url = "https://b/authservice/oidc/callback" } },
  authenticators = { authn.opaque { provider = "corp", cache = "5m", invalid = "reject" }, legacy,
    authn.session { provider = "corp", cookie = "c", strict = "30s", domain = "example.com", same_site = "Lax" }, authn.anonymous { user = "guest" } },
  login = { provider = "corp", clients = "all", hosts = { "*.example.com" }, after_login = "/a", homepage = "https://h/" },
  identity = { user = { claim = { "a", "b" }, rewrite = { { matches = "x", replaces = "" } } }, up = { from = "user" } },
  authorize = { authz.groups { any = { "*" } }, function(id, req) return admin:test(id.user) end },
  headers = { ["X-User"] = "{user}", ["X-Up"] = function(id) return id.up end, Authorization = false },
  routes = { { path = "/a/*", host = "a.example.com", public = true }, { prefix = { "/b" }, authorize = {} } } }
]]

local JUNK = {
  "nil", "true", "false", "0", "-1", "0/0", '""', '"x"', "{}", "{ nil, 1 }", "function() end", 'secret("S")', "authn.anonymous { }",
  'authz.users { any = "a" }', "authn", "env", 'regex("a")', "skip()", 'deny(403, "x")', "{ { } }", "string", "{ [1.5] = 1 }", "{ [{}] = 1 }",
  "(function() local t = {} t.a = t t[1] = t return t end)()", '"\\0\\n"', "math.huge", "json", "nofield", "error({})", "error()", "_ENV",
  '"\\255"', "9007199254740993", "function(a) x = a end", 'require("nope")',
}

local function offset(source, token)
  local at = 1
  for _ = 2, token.line do at = source:find("\n", at, true) + 1 end
  return at + token.column - 1
end

local function mutate(source, random)
  local tokens = lex(source)
  local token = tokens[random(#tokens - 1)]
  local at = offset(source, token)
  local behind = at + #token.text + (token.kind == "string" and 2 or 0)
  local act = random(4)
  if act == 1 then return source:sub(1, at - 1) .. source:sub(behind) end
  if act == 2 then return source:sub(1, at - 1) .. " " .. tokens[random(#tokens)].text .. " " .. source:sub(at) end
  return source:sub(1, at - 1) .. " " .. JUNK[random(#JUNK)] .. " " .. source:sub(behind)
end

describe("any text", function()
  it("is answered with diagnostics", function()
    local state = SEED
    local function random(n)
      state = (state * 1103515245 + 12345) % 2147483648
      return state // 65536 % n + 1
    end
    assert.equal(0, select(2, checking.check(GOOD)))
    for _ = 1, ROUNDS do
      local source = GOOD
      for _ = 1, random(3) do source = mutate(source, random) end
      local ok, report, errors = pcall(checking.check, source)
      assert.is_true(ok, tostring(report) .. "\n" .. source)
      assert.is_true(errors == 0 or report ~= "")
      assert.is_nil(report:find("lua/moonlatch", 1, true), report)
    end
  end)
end)
