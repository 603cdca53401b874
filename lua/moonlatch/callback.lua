--- The end of the Authorization Code Flow: what the provider sends the browser back with (OpenID Connect Core 1.0 section 3.1.3;
-- RFC 9207; RFC 9700 section 4).
--
-- Nothing is asked of the provider before the parameters are all there once, the state is one that we sealed, and the browser
-- is the one that began (S-062, S-063, S-204). Every failure is a page of ours; the provider's words are in none of them.
local client = require("moonlatch.client")
local jwt = require("moonlatch.jwt")
local parameters = require("moonlatch.parameters")
local tabs = require("moonlatch.tabs")
local userinfo = require("moonlatch.userinfo")

local callback = {}

local TITLE = "You are not signed in"
local AGAIN = "Please try again."
local TRIES = 3 -- that a browser makes by itself, when its tabs overwrote each other's cookie
-- What people are told: status, reason, what happened, what they can do.
local FAULTS = {
  parameters = { 400, "unauthenticated", "The answer of the login page could not be understood.", AGAIN },
  state = { 400, "unauthenticated", "This sign-in did not begin here, or it took longer than 20 minutes.", AGAIN },
  stranger = { 400, "unauthenticated", "This sign-in began in another browser, or it was used already.",
    "Please try again, and make sure that cookies are allowed for this site." },
  refused = { 400, "unauthenticated", "The login page did not sign you in.", "Please try again, or with another account." },
  used = { 400, "unauthenticated", "This sign-in was used already, or it has expired.", AGAIN },
  unavailable = { 503, "unavailable", "The login service does not answer at the moment.", "Please try again in a minute." },
  wrong = { 502, "error", "The login service gave an answer that cannot be used.",
    "Please tell the administrators of this site, with the number below." },
  account = { 403, "denied", "Your account lacks something that this site needs.", "Please tell the administrators of this site." },
}
-- Envoy shows a client nothing of a check's answer of 5xx; of this one it does (RFC 4918 section 11.4: what it depended on failed).
local HIDDEN = 424
-- Claims of an ID token about the token itself, which say nothing about the user.
local OF_THE_TOKEN = { "nonce", "at_hash", "c_hash", "s_hash", "exp", "iat", "nbf", "jti", "aud", "azp" }

-- Ends the login. why: for the log and the trace; never a parameter's text.
local function fail(site, req, name, why, url, headers)
  local fault = FAULTS[name]
  site.host.step(req, "callback", fault[2] == "unavailable" and "unavailable" or "reject", why)
  if name == "wrong" then site.host.log("error", "a login failed", { why = why }) end
  headers = headers or {}
  if fault[1] == 503 then headers["Retry-After"] = "1" end
  local status = fault[1] >= 500 and not req.web and HIDDEN or fault[1]
  return site.pages:answer(req, status, fault[2], "error", {
    title = TITLE, what = name == "account" and why or fault[3], hint = fault[4], link = url or site.homepage, link_text = "Sign in again",
  }, headers)
end

local function go_on(site, req, url, cookies)
  site.host.step(req, "callback", "redirect", "to where the login began")
  return site.host.answer(req, 303, "login", "text/plain", "", {
    Location = url, ["Set-Cookie"] = cookies, ["Referrer-Policy"] = "no-referrer",
  })
end

-- The raw parameters: of the query, or of the form of a form_post. nil: not ours to read.
local function raw_parameters(req)
  if req.method == "POST" then return req.body or "" end
  return tostring(req.query)
end

local function text_in(params, name) return params[name] ~= nil and params[name] ~= "" end

-- What we sealed, or nil and why.
local function open_state(site, params)
  if not text_in(params, "state") then return nil, "there is no state" end
  local plain, why = site.host.unseal("state", params.state)
  local state = plain and site.host.json_decode(plain)
  if type(state) ~= "table" then return nil, "the state is " .. (why or "malformed") end
  local flow = site.flows[state.p]
  if not flow then return nil, "the state is of a provider that is no more" end
  return state, flow
end

-- RFC 9207 section 2.4, for answers of both kinds. With several providers and one redirect URI nothing else tells whose code this is: one
-- of them could have another one's sent to itself (RFC 9700 section 4.4).
local function issuer_problem(provider, document, params, several)
  if params.iss == nil then
    if several then return "there is no iss, and people log in at more than one provider" end
    return document.authorization_response_iss_parameter_supported and "there is no iss" or nil
  end
  if params.iss ~= provider.issuer then return "iss is another issuer" end
end

local function answer_problem(params)
  local code, err = params.code ~= nil, params.error ~= nil
  if code == err then return code and "there are code and error" or "there is neither code nor error" end
  if not text_in(params, code and "code" or "error") then return "code or error is empty" end
end

-- UserInfo's claims over the ID token's; sub must be the same (Core section 5.3.2). claims | nil, fault, why
local function merged_claims(flow, first, access_token)
  local claims = {}
  for name, value in pairs(first) do claims[name] = value end
  for _, name in ipairs(OF_THE_TOKEN) do claims[name] = nil end
  if not flow.provider:userinfo() then return claims end
  local more, verdict, why = userinfo.ask(flow.provider, access_token)
  if not more then return nil, verdict == "fail" and "unavailable" or "wrong", why end
  if more.sub ~= first.sub then return nil, "wrong", "UserInfo is about another sub" end
  for name, value in pairs(more) do claims[name] = value end
  return claims
end

-- The user's name, by the policy. user | nil, fault, why
local function user_of(flow, claims)
  local values, kind, why = flow.map(claims, {}, flow.about)
  if values then return values.user end
  if kind == "unavailable" then return nil, "unavailable", why end
  return nil, kind == "error" and "wrong" or "account", why
end

-- Code to session. id | nil, fault, why
local function exchange(site, flow, code, secret)
  local host, provider = site.host, flow.provider
  local tokens, verdict, why = client.tokens(provider, {
    { "grant_type", "authorization_code" }, { "code", code }, { "redirect_uri", provider.redirect_uri },
    { "code_verifier", tabs.verifier(host, secret) },
  })
  if not tokens then return nil, verdict == "refuse" and "used" or verdict == "fail" and "unavailable" or "wrong", why end
  if not tokens.id_token then return nil, "wrong", "there is no id_token" end
  local first, blame, problem = jwt.id_token(provider, tokens.id_token, {
    nonce = tabs.nonce(host, secret), access_token = tokens.access_token, max_age = tonumber((provider.authorize_params or {}).max_age),
  })
  if not first then return nil, blame == "fail" and "unavailable" or "wrong", "ID token: " .. problem end
  local claims, fault, trouble = merged_claims(flow, first, tokens.access_token)
  if not claims then return nil, fault, trouble end
  local user, bad, reason = user_of(flow, claims)
  if not user then return nil, bad, reason end
  local id, down = flow.session:create(claims, user, tokens, first)
  if not id then return nil, "unavailable", down end
  return id
end

-- The session of this login: two answers at once get the same one, a later one none (S-204). Waits. id | nil, fault, why
local function session_of(site, flow, hash, code, secret)
  local host, name = site.host, flow.provider.name
  if host.cache_get("callback used", name, hash) then return nil, "used", "this login was used already" end
  local state, value = host.begin("callback", name, hash)
  if state == "hit" then return value.id end
  if state ~= "lead" then return nil, FAULTS[value] and value or "unavailable", "the same login failed a moment ago" end
  local ticket <close> = value
  local id, fault, why = exchange(site, flow, code, secret)
  if id or fault ~= "unavailable" then host.cache_set("callback used", name, hash, {}, tabs.LIFE) end
  if not id then
    host.settle(ticket, "fail", fault)
    return nil, fault, why
  end
  host.settle(ticket, "accept", { id = id }, 0)
  return id
end

local function landing(site, url)
  local after = site.after_login
  if not after then return url end
  return after .. (after:find("?", 1, true) and "&" or "?") .. "next=" .. site.host.url_escape(url)
end

-- A browser keeps a Strict cookie back on a redirect that began at the provider: it has to begin here.
local function welcome(site, req, url, cookies)
  return site.pages:answer(req, 201, "login", "again", {
    title = "You are signed in", what = "You are signed in.", link = url, link_text = "Continue", delay = 0,
  }, { ["Set-Cookie"] = cookies })
end

local function complete(site, req, flow, state, open, secret, code)
  tabs.set_tries(site.host, open, nil)
  local tab_cookie = tabs.cookie(site.host, open, tabs.attributes(flow.session, req))
  local id, fault, why = session_of(site, flow, state.h, code, secret)
  if not id then return fail(site, req, fault, why, state.u, fault ~= "unavailable" and { ["Set-Cookie"] = tab_cookie } or nil) end
  local old = flow.session:cookie_id(req)
  if old and old ~= id then flow.session:replace(old) end -- S-070
  local url, cookies = landing(site, state.u), { tab_cookie, flow.session:cookie(req, id) }
  if flow.session.same_site == "Strict" then return welcome(site, req, url, cookies) end
  return go_on(site, req, url, cookies)
end

-- The state is ours and this browser did not begin it, as far as its cookie says: another tab may have overwritten the cookie. A few
-- automatic tries, and only when the browser keeps cookies, so that this never goes round and round (S-081). Not at once, and not all
-- tabs at the same moment: by then one of them has signed in for all.
local function stranger(site, req, flow, state, open)
  local id = flow.session:cookie_id(req)
  local found = id and flow.session:read(id)
  if found == "hit" then return go_on(site, req, state.u) end
  if found == "failed" then return fail(site, req, "unavailable", "the session store does not answer", state.u) end
  local tries, keeps = math.tointeger(state.n) or TRIES, open.known or id and flow.session:replaced(id)
  if tries + 1 >= TRIES or not keeps then return fail(site, req, "stranger", "this browser did not begin the login", state.u) end
  tabs.set_tries(site.host, open, tries + 1)
  site.host.step(req, "callback", "reject", "this browser did not begin the login; it tries again")
  return site.pages:answer(req, 400, "unauthenticated", "again", {
    title = "One moment", what = "Another tab of this browser is signing in, too.", hint = "You are taken back in a few seconds.",
    link = state.u, link_text = "Continue",
    delay = 1 + site.host.random(16):byte() % 3,
  }, { ["Set-Cookie"] = tabs.cookie(site.host, open, tabs.attributes(flow.session, req)) })
end

local function answered(site, req, params)
  local state, flow = open_state(site, params)
  if not state then return fail(site, req, "state", flow) end
  local document, unknown = flow.provider:document()
  if not document then return fail(site, req, "unavailable", unknown, state.u) end
  local problem = issuer_problem(flow.provider, document, params, site.several) or answer_problem(params)
  if problem then return fail(site, req, "parameters", problem, state.u) end
  local open = tabs.read(site.host, req)
  local secret = tabs.take(site.host, open, state.h)
  if not secret then return stranger(site, req, flow, state, open) end
  if params.error then
    return fail(site, req, "refused", "the provider answered with error " .. client.error_code(params.error), state.u, {
      ["Set-Cookie"] = tabs.cookie(site.host, open, tabs.attributes(flow.session, req)),
    })
  end
  return complete(site, req, flow, state, open, secret, params.code)
end

--- Answers a request to the callback. site: see site.lua.
function callback.answer(site, req)
  local post = req.method == "POST"
  if req.method ~= "GET" and not (post and site.takes_form_post) then
    return site.host.answer(req, 405, "unauthenticated", "text/plain", "GET is the method here", { Allow = "GET" })
  end
  if post and not req.web and (req.body or "") == "" then return site.host.pass(req) end
  local params, why = parameters.parse(site.host, raw_parameters(req))
  if not params then return fail(site, req, "parameters", why) end
  return answered(site, req, params)
end

return callback
