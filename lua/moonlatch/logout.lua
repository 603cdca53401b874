--- Logout: by the session's id in a header as the ancestor (201 and JSON), from a page with the cookie and a proof that the page is
-- ours, and a page that asks, for those who only follow a link (S-261, Q10, Q21, Q22).
--
-- The session ends here first, whatever the provider says; then its tokens are revoked (RFC 7009), and a browser goes on to the
-- provider's own logout (OpenID Connect RP-Initiated Logout 1.0).
local client = require("moonlatch.client")
local cookie = require("moonlatch.cookie")
local parameters = require("moonlatch.parameters")
local places = require("moonlatch.places")
local tabs = require("moonlatch.tabs")

local logout = {}

local HINT_MAX = 4096    -- bytes of an ID token that are sent back as a hint; gateways bound a URL
local PROOF_LIFE = 600   -- seconds that our page may be open before its button is pressed
local REVOKE_TIMEOUT = 1 -- seconds for each token: nobody waits long for a provider to forget

-- The host of an Origin (RFC 6454 section 7), or nil.
local function host_of_origin(origin) return origin:match("^https?://([^/:@]+):?%d*$") end

-- What the form of our own page carries for gateways that forward neither Origin nor Sec-Fetch-Site: sealed, for this session only.
local function proof(site, id) return site.host.seal("logout", site.host.sha256(id), PROOF_LIFE) end

-- The hash of the session that a request's proof is for, or nil.
local function proof_of(site, req)
  local text = req.query.proof
  return text and #text < 1024 and site.host.unseal("logout", text) or nil
end

local function proven(site, req, id)
  local plain = proof_of(site, req)
  return plain ~= nil and site.host.equals(plain, site.host.sha256(id))
end

-- Whether a page of ours sent this: what browsers say and scripts of other sites cannot forge.
local function is_ours(req)
  local site, origin = req.headers["Sec-Fetch-Site"], req.headers.Origin
  if site ~= nil then return site == "same-origin" end
  local name = origin and host_of_origin(origin)
  return name ~= nil and name:lower() == ((req.host or ""):lower():gsub(":%d+$", ""))
end

-- Ends the session of an id. Waits. Whether it has ended, and its tokens or nil.
local function finish(flow, id)
  local tokens = flow.session.host.session_tokens(id)
  return flow.session:finish(id), tokens
end

-- The refresh token first: without it the other one soon is worth nothing. A provider that fails is not asked again.
local function revoke(flow, tokens)
  if tokens and client.revoke(flow.provider, tokens.refresh_token, "refresh_token", REVOKE_TIMEOUT) then
    client.revoke(flow.provider, tokens.access_token, "access_token", REVOKE_TIMEOUT)
  end
end

local function plain(site, req, status, reason, headers)
  return site.host.answer(req, status, reason, "text/plain", "", headers)
end

-- As the ancestor: 201, which no gateway takes for an allow, and where to go.
local function tell(site, req, flow, url)
  site.host.step(req, "logout", "done")
  return site.host.answer(req, 201, "login", "application/json", site.host.json_encode { afterLogoutURL = url }, {
    ["Set-Cookie"] = { flow.session:removal(req) },
  })
end

local function not_now(site, req)
  site.host.step(req, "logout", "unavailable")
  return plain(site, req, 503, "unavailable", { ["Retry-After"] = "1" })
end

local function by_header(site, req, flow, id)
  local ended, tokens = finish(flow, id)
  if not ended then return not_now(site, req) end
  revoke(flow, tokens)
  return tell(site, req, flow, site.after_logout)
end

-- Whether a script of a page sent this: it reads an answer where a form would be redirected.
local function is_script(req)
  local mode, accept = req.headers["Sec-Fetch-Mode"], req.headers.Accept
  if mode ~= nil then return mode ~= "navigate" end
  return accept ~= nil and not accept:find("text/html", 1, true)
end

-- Where a browser goes on to: the provider's logout, which sends it back to our page.
local function next_url(site, flow, tokens)
  local endpoint = flow.provider:endpoint("end_session_endpoint")
  if not endpoint or not tokens or not tokens.id_token then return site.after_logout end
  local list = {}
  if #tokens.id_token <= HINT_MAX then list[1] = { "id_token_hint", tokens.id_token } end
  list[#list + 1] = { "client_id", flow.provider.client_id }
  local back = places.absolute(site.after_logout, flow.provider.redirect_uri)
  if back then
    list[#list + 1] = { "post_logout_redirect_uri", back }
    list[#list + 1] = { "state", site.host.random(16) }
  end
  return endpoint .. (endpoint:find("?", 1, true) and "&" or "?") .. parameters.encode(site.host, list)
end

local function by_cookie(site, req, flow, id)
  local ended, tokens = finish(flow, id)
  if not ended then return not_now(site, req) end
  revoke(flow, tokens)
  local url = next_url(site, flow, tokens)
  if is_script(req) then return tell(site, req, flow, url) end
  site.host.step(req, "logout", "done")
  return site.host.answer(req, 303, "login", "text/plain", "", {
    Location = url, ["Referrer-Policy"] = "no-referrer",
    ["Set-Cookie"] = { flow.session:removal(req), cookie.delete(tabs.NAME, tabs.attributes(flow.session, req)) },
  })
end

-- The flow whose session a request names, and the id: first by header, then by cookie.
local function find(site, req, how)
  for _, flow in ipairs(site.ordered) do
    local id = flow.session[how](flow.session, req)
    if id and (flow.session:read(id)) ~= "none" then return flow, id end
  end
end

-- The page that asks. Its policy lets the form go on to the provider's logout, and browsers say where it came from.
local function ask(site, req)
  local flow, id = find(site, req, "cookie_id")
  local endpoint = flow and flow.provider:endpoint("end_session_endpoint")
  local origin = endpoint and endpoint:match("^%a+://[%w.:%[%]-]+")
  return site.pages:answer(req, 405, "unauthenticated", "logout", {
    title = "Sign out", what = "Do you want to sign out?", link = site.homepage, link_text = "Stay signed in",
    action = site.places.logout .. (id and "?proof=" .. site.host.url_escape(proof(site, id)) or ""),
  }, { Allow = "POST", ["Referrer-Policy"] = "same-origin", ["Content-Security-Policy"] = site.pages.policy(origin) })
end

-- Nobody is signed in: a person who pressed a button of ours is shown that, a program told. A cookie that was not sent is not taken
-- back: browsers keep it from other sites' requests, which must not end anything.
local function nobody(site, req)
  local flow = site.ordered[1]
  local had_cookie = flow and req.cookies[flow.session.name] ~= nil
  if is_ours(req) and (had_cookie or not is_script(req)) or proof_of(site, req) then
    return site.host.answer(req, 303, "login", "text/plain", "", {
      Location = site.after_logout, ["Set-Cookie"] = had_cookie and { flow.session:removal(req) } or nil,
    })
  end
  return plain(site, req, 401, "unauthenticated")
end

--- Answers a request to the logout. site: see site.lua.
function logout.answer(site, req)
  if req.method == "GET" or req.method == "HEAD" then return ask(site, req) end
  if req.method ~= "POST" then return plain(site, req, 405, "unauthenticated", { Allow = "POST" }) end
  local flow, id = find(site, req, "header_id")
  if flow then return by_header(site, req, flow, id) end
  flow, id = find(site, req, "cookie_id")
  if not flow then return nobody(site, req) end
  if not is_ours(req) and not proven(site, req, id) then return plain(site, req, 401, "unauthenticated") end
  return by_cookie(site, req, flow, id)
end

return logout
