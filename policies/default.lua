-- default.lua: behaves like oidc-authservice and reads the same environment variables.
local header   = env("ID_TOKEN_HEADER", "Authorization")
local cache    = env.bool("CACHE_ENABLED", false) and env("CACHE_EXPIRATION_MINUTES", "5") .. "m" or "off"
local tokens   = env("ACCESS_TOKEN_AUTHN", "jwt")
local accepted = env.bool("ACCESS_TOKEN_AUTHN_ENABLED", true)
local audience = env.list("AUDIENCES", "istio-ingressgateway.istio-system.svc.cluster.local")
local public   = env.list("SKIP_AUTH_URLS", "")
local client   = env("CLIENT_ID", "")                    -- without it there is no login, and no session
local browsers = client ~= ""
local same     = env("SESSION_SAME_SITE", "Lax")
local idle     = env("SESSION_IDLE_TIME", "0")           -- seconds; 0: no such limit
local service  = env("EXTERNAL_AUTHZ_URL", "")           -- asked whether a user may, when it is set

if accepted and tokens ~= "jwt" and tokens ~= "opaque" then error("ACCESS_TOKEN_AUTHN must be jwt or opaque") end
for _, prefix in ipairs(public) do
  if not prefix:find("^/+[^/]") then error('SKIP_AUTH_URLS: "' .. prefix .. '" is no path below /; it would open everything') end
end

-- A header whose variable is set but empty is not sent.
local headers = {}
local function send(name, value)
  if name ~= "" then headers[name] = value end
end
send(env("USERID_HEADER", "kubeflow-userid"), "{upstream_user}")
send(env("GROUPS_HEADER", "kubeflow-groups"), "{groups}")
send(env("AUTH_METHOD_HEADER", "Auth-Method"), "{credential}")

return {
  api  = 1,
  name = "default",

  providers = {
    main = {
      issuer        = env("OIDC_PROVIDER"),
      ca_file       = env("CA_BUNDLE", ""),
      client_id     = client,
      client_secret = browsers and secret("CLIENT_SECRET") or nil,
      scopes        = env.list("OIDC_SCOPES", "openid,email"),
      authorize_url = env("OIDC_AUTH_URL", ""),          -- may be a path: Dex behind the same gateway
      redirect_url  = env("REDIRECT_URL", ""),
      algorithms    = { "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA" },
    },
  },

  -- Who is it? Tried from top to bottom; the first that knows the credential answers.
  authenticators = {
    authn.kubernetes { enabled = env.bool("KUBERNETES_AUTHN_ENABLED", true), cache = cache,
                       audiences = audience },
    authn.opaque     { enabled = accepted and tokens == "opaque", provider = "main", header = header, cache = cache },
    authn.jwt        { enabled = accepted and tokens == "jwt", provider = "main", header = header, audience = audience },
    authn.session    { enabled = browsers, provider = "main", header = env("AUTH_HEADER", "Authorization"),
                       cookie = env("SESSION_COOKIE_NAME", "authservice_session"),
                       max_age = env("SESSION_MAX_AGE", "86400") .. "s", idle = idle ~= "0" and idle .. "s" or nil,
                       same_site = (same == "Strict" or same == "None") and same or "Lax",
                       strict = env.bool("STRICT_SESSION_VALIDATION", false) },
    authn.id_token   { enabled = browsers and env.bool("IDTOKEN_AUTHN_ENABLED", true), provider = "main", header = header },
  },

  -- What is the user called, and in which groups is he?
  identity = {
    user   = env("USERID_CLAIM", "email"),
    groups = env("GROUPS_CLAIM", "groups"),
    upstream_user = { from = "user", prefix = env("USERID_PREFIX", ""), rewrite = env.json("USERID_TRANSFORMERS", "[]") },
  },

  -- May he? Every rule must say yes.
  authorize = {
    authz.groups   { any = env.list("GROUPS_ALLOWLIST", "*") },
    authz.external { enabled = service ~= "", url = service },
  },

  headers = headers,            -- what does the application get to see?

  routes = {
    { name = "skip", prefix = public, public = true },
  },

  -- Where are browsers sent? LOGIN_CLIENTS=all sends everybody, as oidc-authservice did.
  login = {
    provider     = "main",
    clients      = browsers and env("LOGIN_CLIENTS", "browsers") or "none",
    after_login  = env("AFTER_LOGIN_URL", ""),
    after_logout = env("AFTER_LOGOUT_URL", ""),
    homepage     = env("HOMEPAGE_URL", ""),
  },
}
