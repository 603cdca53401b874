--- The policy language as data: every word, its options, their types and defaults.
--
-- One table drives the checker, the suggestions, the environment of policies and the luacheck std. Within one api number
-- words are only added. What a later version of moonlatch brings is known here already and marked later = true: the
-- checker knows its options and says so, instead of calling the word a typo.
--
-- An option is "TYPE", "TYPE!" (required) or "TYPE = default". The types are the functions of types.lua; choice(a|b) is one
-- of the texts.
local vocab = { api = 1 }

local function option(spec)
  local kind, rest = spec:match("^([%w_]+)(.*)$")
  local list, choices = rest:match("^%((.-)%)"), nil
  if list then
    choices, rest = {}, rest:sub(#list + 3)
    for choice in list:gmatch("[^|]+") do choices[#choices + 1] = choice end
  end
  return { type = kind, choices = choices, required = rest:sub(1, 1) == "!", default = rest:match("=%s*(.+)$") }
end

local function options(...)
  local all = {}
  for _, group in ipairs { ... } do
    for name, spec in pairs(group) do all[name] = option(spec) end
  end
  return all
end

local function authn(doc, own, more)
  local word = more or {}
  word.doc = doc
  word.options = options({
    name = "text", enabled = "boolean", identity = "identity", timeout = "duration", cache = "cache = off",
    invalid = "choice(reject|next) = " .. (word.unrecognised and "next" or "reject"), when = "fn",
  }, own)
  return word
end

local function authz(doc, own, more)
  local word = more or {}
  word.doc = doc
  word.options = options({ name = "text", enabled = "boolean" }, own)
  return word
end

local LATER = true
local BEARER = "header = Authorization"
local VERIFIED = "cache = 5m" -- nobody is asked: what is kept is work, and until the token's exp at most

-- unrecognised: cannot tell its credentials from others', so a refusal lets the chain go on.
vocab.authn = {
  kubernetes = authn("Kubernetes service-account or user token, asked of the API server (TokenReview).",
    { header = BEARER, audiences = "list" }, { unrecognised = true }),
  opaque = authn("Opaque bearer token, asked of the provider's UserInfo endpoint.",
    { header = BEARER, provider = "provider!", require_audience = "list" }, { unrecognised = true }),
  introspection = authn("Opaque bearer token, asked of the provider's introspection endpoint (RFC 7662).",
    { header = BEARER, provider = "provider!", audience = "list", scope = "list" }, { unrecognised = true }),
  jwt = authn("Signed JWT access token, verified with the provider's keys.",
    { header = BEARER, provider = "provider!", audience = "list!", algorithms = "algorithms", leeway = "duration", scope = "list",
      cache = VERIFIED }),
  id_token = authn("OIDC ID token sent as a bearer token; its audience is the provider's client_id.",
    { header = BEARER, provider = "provider!", leeway = "duration", cache = VERIFIED }),
  session = authn("Browser session (cookie) made by the login flow.",
    { provider = "provider!", cookie = "cookie", header = "header", strict = "strict", max_age = "duration", idle = "duration",
      domain = "domain",
      same_site = "choice(Lax|Strict|None)" }),
  basic = authn("HTTP Basic user and password, from an htpasswd secret.", { users = "secret!", realm = "text" }, { later = LATER }),
  api_key = authn("API keys from a secret: one `key user group,group` a line.",
    { keys = "secret!", header = "header", query = "text" }, { later = LATER }),
  anonymous = authn("Accepts everybody as one named identity. Must be last.", { user = "text = anonymous", groups = "list = {}" }),
  custom = authn("Your own function(req) that returns accept{}, skip() or reject().", { run = "fn!" }),
}

vocab.authz = {
  groups = authz('The user must be in one (any) or in all (all) of these groups. "*" means everybody.', { any = "list", all = "list" }),
  users = authz("The user must be on this list.", { any = "list!" }),
  external = authz("Asks an HTTP service: 2xx allows, 401 and 403 deny, all else is an error.",
    { url = "url!", timeout = "duration", cache = "cache = off", headers = "map", body = "fn" }),
  kubernetes = authz("Asks the Kubernetes API server (SubjectAccessReview).",
    { verb = "text_or_fn!", resource = "text_or_fn!", group = "text_or_fn", namespace = "text_or_fn", cache = "cache = off" }),
  custom = authz("Your own function(id, req) that returns true, false or deny(status, message).", { run = "fn!" }),
}

vocab.provider = options {
  issuer = "url!", client_id = "text", client_secret = "secret", scopes = "list", ca_file = "text", userinfo_url = "url",
  introspection_url = "url", jwks_url = "url", jwks_file = "text", authorize_url = "link", redirect_url = "link", timeout = "duration = 5s",
  auth_method = "choice(client_secret_basic|client_secret_post|private_key_jwt|none)", private_key = "secret", key_id = "text",
  response_mode = "choice(query|form_post)", authorize_params = "authorize_params", require_pkce = "boolean", push = "boolean",
  algorithms = "algorithms",
}
vocab.claim = options {
  claim = "list", map = "fn", from = "text", default = "plain", prefix = "text", rewrite = "rewrites", lower = "boolean",
  required = "boolean",
}
vocab.rewrite = options { matches = "regex!", replaces = "any_text!" }
vocab.login = options {
  provider = "provider!", clients = "choice(browsers|all|none) = browsers", hosts = "hosts", after_login = "link", after_logout = "link",
  homepage = "link",
}
vocab.responses = options { unauthenticated = "fn", denied = "fn", error = "fn" }
vocab.rollout = options {
  policy = "text!", shadow = "percent", enforce = "percent", by = "choice(client|host|none) = client",
}
vocab.route = options {
  name = "text", host = "hosts", path = "paths", prefix = "prefixes", method = "methods", when = "fn", public = "boolean",
  authenticators = "authenticators", authorize = "authorizers", headers = "headers", responses = "responses", login = "login",
}
vocab.policy = options {
  api = "api!", name = "text", providers = "providers", authenticators = "authenticators!", identity = "identity",
  headers = "headers", authorize = "authorizers", routes = "routes", login = "login", responses = "responses",
  rollout = "rollout", timeout = "duration = 5s",
}

-- What makes a route match; without any of them it would match everything.
vocab.route_conditions = { "host", "path", "prefix", "method", "when" }
-- The fields of header templates besides the names of `identity`.
vocab.fields = { "user", "groups", "method", "credential", "provider", "claims" }
-- Names that `identity` cannot map: they are the identity's own.
vocab.identity_taken = { method = true, credential = true, provider = true, claims = true, expires_at = true, in_group = true }

-- What functions can call.
vocab.host = {
  http = { "fetch" }, kube = { "token_review", "access_review" }, jwt = { "peek", "verify" },
  cache = { "get", "set", "delete", "remember" }, json = { "decode", "encode", "list" }, base64 = { "decode", "encode" },
  log = { "debug", "info", "warn", "error" }, time = { "now" }, hash = { "sha256", "equals" }, url = { "escape", "parse" },
}
vocab.env = { "bool", "list", "json" }
vocab.words = { "secret", "accept", "skip", "reject", "allow", "deny", "redirect", "regex", "require" }
vocab.lua = {
  "assert", "error", "ipairs", "next", "pairs", "pcall", "select", "tonumber", "tostring", "type", "xpcall",
}
vocab.libraries = {
  string = { "byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match", "rep", "reverse", "sub", "upper" },
  table = { "concat", "insert", "move", "pack", "remove", "sort", "unpack" },
  math = { "abs", "ceil", "floor", "fmod", "huge", "max", "maxinteger", "min", "mininteger", "modf", "sqrt", "tointeger", "type",
    "ult", "pi", "random" },
  utf8 = { "char", "charpattern", "codepoint", "codes", "len", "offset" },
}
-- Words of stock Lua that policies do not have, and what to write instead.
vocab.gone = {
  print = 'log.info("text")', load = false, loadstring = false, loadfile = false, dofile = false, io = false,
  os = "time.now() for the time, env() for the environment", debug = false, coroutine = "http.fetch waits by itself",
  setmetatable = false, getmetatable = false, rawget = false, rawset = false, rawequal = "==", rawlen = "#", package = "require",
  collectgarbage = false, warn = 'log.warn("text")', _G = false, _ENV = false, _VERSION = false,
}

--- All global names of a policy, as a set: name -> true, or the table of the fields it has.
function vocab.globals()
  local set = {}
  local function fields(list)
    local of = {}
    for _, name in ipairs(list) do of[name] = true end
    return of
  end
  for _, list in ipairs { vocab.words, vocab.lua } do
    for _, name in ipairs(list) do set[name] = true end
  end
  for _, tables in ipairs { vocab.host, vocab.libraries } do
    for name, list in pairs(tables) do set[name] = fields(list) end
  end
  set.env = fields(vocab.env)
  set.authn, set.authz = {}, {}
  for name in pairs(vocab.authn) do set.authn[name] = true end
  for name in pairs(vocab.authz) do set.authz[name] = true end
  return set
end

return vocab
