/* The table of settings, one line each. Included by settings.c alone.
 *
 * S(name, type, default, old name or NULL, old name's separator is a space, low, high, words, help)
 * Types: TEXT URL PLACE (URL or path) BOOL INT PORT LIST WORD (one of words) HEADER (a header name,
 * or empty) JSON FILE SECRET DURATION (text with a unit, or seconds).
 *
 * No name may look like what Kubernetes injects for a Service called moonlatch or authservice:
 * MOONLATCH_PORT..., MOONLATCH_SERVICE_..., AUTHSERVICE_PORT..., AUTHSERVICE_SERVICE_... (a unit
 * test checks). */
S("OIDC_PROVIDER", URL, NULL, NULL, 0, 0, 0, NULL, "issuer of the OpenID provider")
S("CLIENT_ID", TEXT, NULL, NULL, 0, 0, 0, NULL, "client at the provider")
S("CLIENT_SECRET", SECRET, NULL, NULL, 0, 0, 0, NULL, "its secret")
S("AUTHSERVICE_URL_PREFIX", PLACE, "/authservice/", NULL, 0, 0, 0, NULL,
  "URL or path reserved for this service")
S("VERIFY_AUTH_URL", PLACE, "", NULL, 0, 0, 0, NULL, "check without login; empty: prefix + /verify")
S("OIDC_AUTH_URL", PLACE, "", NULL, 0, 0, 0, NULL, "authorization endpoint; empty: from discovery")
S("REDIRECT_URL", PLACE, "", NULL, 0, 0, 0, NULL, "redirect_uri; empty: prefix + /oidc/callback")
S("OIDC_SCOPES", LIST, "openid,email", NULL, 0, 0, 0, NULL, "scopes of the login")
S("STRICT_SESSION_VALIDATION", BOOL, "false", NULL, 0, 0, 0, NULL,
  "ask UserInfo for each session request")
S("OIDC_STATE_STORE_PATH", TEXT, "/var/lib/authservice/data.db", NULL, 0, 0, 0, NULL,
  "accepted, not used")
S("SKIP_AUTH_URLS", LIST, "", "SKIP_AUTH_URI", 1, 0, 0, NULL,
  "path prefixes allowed without credentials")
S("AUTH_HEADER", HEADER, "Authorization", NULL, 0, 0, 0, NULL, "header that may carry the session")
S("ID_TOKEN_HEADER", HEADER, "Authorization", NULL, 0, 0, 0, NULL,
  "header of opaque tokens, JWTs and ID tokens")
S("AUTH_METHOD_HEADER", HEADER, "Auth-Method", NULL, 0, 0, 0, NULL, "upstream: cookie or header")
S("AUDIENCES", LIST, "istio-ingressgateway.istio-system.svc.cluster.local", NULL, 0, 0, 0, NULL,
  "accepted audiences")
S("HOMEPAGE_URL", PLACE, "", NULL, 0, 0, 0, NULL, "empty: prefix + /site/homepage")
S("AFTER_LOGIN_URL", PLACE, "", "STATIC_DESTINATION_URL", 0, 0, 0, NULL,
  "empty: where the user came from")
S("AFTER_LOGOUT_URL", PLACE, "", "LOGOUT_URL", 0, 0, 0, NULL, "empty: prefix + /site/after_logout")
S("LOG_LEVEL", WORD, "INFO", NULL, 0, 0, 0, "FATAL ERROR WARN INFO DEBUG",
  "least level that is logged")
S("USERID_HEADER", HEADER, "kubeflow-userid", NULL, 0, 0, 0, NULL, "upstream: the user")
S("USERID_PREFIX", TEXT, "", NULL, 0, 0, 0, NULL, "put before the user id")
S("USERID_TRANSFORMERS", JSON, "", NULL, 0, 0, 0, NULL, "list of {matches, replaces}")
S("USERID_CLAIM", TEXT, "email", NULL, 0, 0, 0, NULL, "claim of the user id")
S("USERID_TOKEN_HEADER", HEADER, "", NULL, 0, 0, 0, NULL, "accepted, not used")
S("GROUPS_HEADER", HEADER, "kubeflow-groups", NULL, 0, 0, 0, NULL, "upstream: the groups")
S("GROUPS_CLAIM", TEXT, "groups", NULL, 0, 0, 0, NULL, "claim of the groups")
S("GROUPS_ALLOWLIST", LIST, "*", NULL, 0, 0, 0, NULL, "any one of these groups suffices")
S("SERVER_HOSTNAME", TEXT, "", NULL, 0, 0, 0, NULL, "address to listen on; empty: all")
S("SERVER_PORT", PORT, "8080", "PORT", 0, 0, 65535, NULL, "checks")
S("READINESS_PROBE_PORT", PORT, "8081", NULL, 0, 0, 65535, NULL, "readiness, /metrics, /livez")
S("WEB_SERVER_PORT", PORT, "8082", NULL, 0, 0, 65535, NULL, "pages")
S("CA_BUNDLE", FILE, "", NULL, 0, 0, 0, NULL, "PEM file added to the system's roots")
S("SESSION_STORE_TYPE", WORD, "boltdb", NULL, 0, 0, 0, "boltdb lmdb redis memory", "session store")
S("SESSION_STORE_PATH", TEXT, "/var/lib/authservice/data.db", "STORE_PATH", 0, 0, 0, NULL,
  "embedded session store")
S("SESSION_STORE_REDIS_ADDR", TEXT, "127.0.0.1:6379", NULL, 0, 0, 0, NULL,
  "Redis, host:port; or a list of sentinels or cluster nodes")
S("SESSION_STORE_REDIS_PWD", SECRET, "", NULL, 0, 0, 0, NULL, "Redis password")
S("SESSION_STORE_REDIS_DB", INT, "0", NULL, 0, 0, 65535, NULL, "Redis database")
S("SESSION_STORE_REDIS_USER", TEXT, "", NULL, 0, 0, 0, NULL, "Redis user name; empty: default")
S("SESSION_STORE_REDIS_MODE", WORD, "single", NULL, 0, 0, 0, "single sentinel cluster",
  "what the addresses are")
S("SESSION_STORE_REDIS_MASTER", TEXT, "", NULL, 0, 0, 0, NULL, "the master's name at the sentinels")
S("SESSION_STORE_REDIS_TLS", BOOL, "false", NULL, 0, 0, 0, NULL, "Redis by TLS")
S("SESSION_STORE_REDIS_CA", FILE, "", NULL, 0, 0, 0, NULL,
  "PEM file believed for Redis, instead of the system's roots")
S("SESSION_KEY", SECRET, "", NULL, 0, 0, 0, NULL,
  "seals cookies and sessions: keys, the first seals, all open; empty: kept with the store")
S("SESSION_CACHE_SECONDS", INT, "1", NULL, 0, 0, 60, NULL,
  "how old what is known of a session may be")
S("SESSION_STORE_BYTES", INT, "1073741824", NULL, 0, 1048576, 1099511627776, NULL,
  "bound of the embedded session store")
S("SESSION_MAX_AGE", INT, "86400", NULL, 0, 1, 315360000, NULL, "seconds")
S("SESSION_IDLE_TIME", INT, "0", NULL, 0, 0, 315360000, NULL,
  "seconds without a request that end a session; 0: no such limit")
S("SESSION_COOKIE_NAME", TEXT, "authservice_session", NULL, 0, 0, 0, NULL, "name of its cookie")
S("SESSION_SAME_SITE", TEXT, "Lax", NULL, 0, 0, 0, NULL, "Lax, Strict or None")
S("CLIENT_NAME", TEXT, "AuthService", NULL, 0, 0, 0, NULL, "shown on pages")
S("THEMES_URL", TEXT, "themes", "WEB_SERVER_THEMES_URL", 0, 0, 0, NULL, "pages")
S("THEME", TEXT, "kubeflow", "WEB_SERVER_THEME", 0, 0, 0, NULL, "pages")
S("TEMPLATE_PATH", LIST, "", NULL, 0, 0, 0, NULL, "pages")
S("CACHE_ENABLED", BOOL, "false", NULL, 0, 0, 0, NULL, "remember verified bearer tokens")
S("CACHE_EXPIRATION_MINUTES", INT, "5", NULL, 0, 1, 1440, NULL, "for so long")
S("IDTOKEN_AUTHN_ENABLED", BOOL, "true", NULL, 0, 0, 0, NULL, "ID tokens as bearer")
S("KUBERNETES_AUTHN_ENABLED", BOOL, "true", NULL, 0, 0, 0, NULL, "ask TokenReview")
S("KUBERNETES_REVIEW_ALL", BOOL, "false", NULL, 0, 0, 0, NULL,
  "send the provider's JWTs to TokenReview as well")
S("KUBECONFIG", TEXT, "", NULL, 0, 0, 0, NULL, "cluster access outside a cluster")
S("ACCESS_TOKEN_AUTHN_ENABLED", BOOL, "true", NULL, 0, 0, 0, NULL, "access tokens as bearer")
S("ACCESS_TOKEN_AUTHN", WORD, "jwt", NULL, 0, 0, 0, "jwt opaque", "how they are verified")
S("EXTERNAL_AUTHZ_URL", URL, "", NULL, 0, 0, 0, NULL, "external authorizer")
S("LOGIN_CLIENTS", WORD, "browsers", NULL, 0, 0, 0, "browsers all none", "who is sent to the login")
S("ADMIN_ADDR", TEXT, "unix:/run/moonlatch/admin.sock", NULL, 0, 0, 0, NULL,
  "admin listener: unix:PATH, loopback address, off")
S("ADMIN_TOKEN", SECRET, "", NULL, 0, 0, 0, NULL, "bearer token of an admin listener on TCP")
S("DRAIN_TIMEOUT", DURATION, "10s", NULL, 0, 0, 600000, NULL, "from SIGTERM to exit")
S("MOONLATCH_WORKERS", INT, "0", NULL, 0, 0, 256, NULL,
  "threads that decide; 0: CPUs of the cgroup quota")
S("MOONLATCH_CACHE_BYTES", INT, "67108864", NULL, 0, 1048576, 68719476736, NULL,
  "bound of the identity cache")
S("MOONLATCH_WEB", TEXT, "", NULL, 0, 0, 0, NULL,
  "folder of the pages' templates; empty: beside the program")
S("MOONLATCH_LOG_FORMAT", WORD, "auto", NULL, 0, 0, 0, "auto json human",
  "auto: human on a terminal")
