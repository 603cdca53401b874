--- Logout that the provider tells us of: Back-Channel Logout 1.0, server to server with a signed token, and Front-Channel Logout 1.0,
-- an address in a frame of the provider's page. Both end sessions here and ask nothing of the provider (S-078, S-262, S-263).
local jwt = require("moonlatch.jwt")
local parameters = require("moonlatch.parameters")
local session = require("moonlatch.session")

local provider_logout = {}

-- The gate adds Cache-Control: no-store to all that it sends.
local function answer(site, req, status, reason) return site.host.answer(req, status, reason, "text/plain", "") end

-- The flow of the provider whose token this is: the first that verifies it. claims, flow | nil, "refuse" | "fail", why
local function verified(site, token)
  local verdict, why = "refuse", "no provider's"
  for _, flow in ipairs(site.ordered) do
    local claims, how, problem = jwt.logout_token(flow.provider, token)
    if claims then return claims, flow end
    if how == "fail" then verdict = "fail" end
    why = problem
  end
  return nil, verdict, why
end

-- Ends what the token names. 200 also for a sid that nobody has.
local function kill(site, claims, flow)
  local kind, name = claims.sid and "sid" or "subject", claims.sid or claims.sub
  local count, why = site.host.session_kill(kind, session.subject(flow.provider, name))
  site.host.log(count and "info" or "error", "back-channel logout", { provider = flow.provider.name, sessions = count or -1, why = why })
  return count ~= nil
end

--- Answers the back-channel: a form with logout_token and nothing else that matters. On the check port, where 200 would be an allow,
-- the request is passed on to the web port.
function provider_logout.back(site, req)
  if not req.web then return site.host.pass(req) end
  if req.method ~= "POST" then return site.host.answer(req, 405, "unauthenticated", "text/plain", "", { Allow = "POST" }) end
  local params = parameters.parse(site.host, req.body or "")
  if not params or not params.logout_token or params.logout_token == "" then return answer(site, req, 400, "unauthenticated") end
  local claims, flow, why = verified(site, params.logout_token)
  if not claims then
    site.host.step(req, "back-channel", flow == "fail" and "unavailable" or "reject", why)
    return answer(site, req, flow == "fail" and 503 or 400, flow == "fail" and "unavailable" or "unauthenticated")
  end
  if site.host.cache_get("logout token", flow.provider.issuer, claims.jti) then
    site.host.step(req, "back-channel", "reject", "this token was used already")
    return answer(site, req, 400, "unauthenticated")
  end
  if not kill(site, claims, flow) then return answer(site, req, 503, "unavailable") end
  site.host.cache_set("logout token", flow.provider.issuer, claims.jti, {}, jwt.LOGOUT_MEMORY)
  site.host.step(req, "back-channel", "done")
  return answer(site, req, 200, "login")
end

local function flow_of_issuer(site, issuer)
  for _, flow in ipairs(site.ordered) do
    if flow.provider.issuer == issuer then return flow end
  end
end

-- By iss and sid, or without both the session of the cookie. Whether it could be done; nil when the address is wrong.
local function end_local(site, req, params)
  if (params.iss == nil) ~= (params.sid == nil) or params.sid == "" then return nil end
  if params.iss then
    local flow = flow_of_issuer(site, params.iss)
    return flow and site.host.session_kill("sid", session.subject(flow.provider, params.sid)) ~= nil
  end
  local done = true
  for _, flow in ipairs(site.ordered) do
    local id = flow.session:cookie_id(req)
    -- What is no session is left alone: anybody may ask here, and each end is remembered and told to the other replicas.
    if id and flow.session:read(id) ~= "none" then done = flow.session:finish(id) and done end
  end
  return done
end

--- Answers the front-channel.
function provider_logout.front(site, req)
  if not req.web then return site.host.pass(req) end
  if req.method ~= "GET" then return site.host.answer(req, 405, "unauthenticated", "text/plain", "", { Allow = "GET" }) end
  local params = parameters.parse(site.host, tostring(req.query))
  local done = params and end_local(site, req, params)
  if done == nil then return answer(site, req, 400, "unauthenticated") end
  site.host.step(req, "front-channel", done and "done" or "unavailable")
  if not done then return answer(site, req, 503, "unavailable") end
  local cookies = {}
  for i, flow in ipairs(site.ordered) do cookies[i] = flow.session:removal(req) end
  return site.host.answer(req, 200, "login", "text/plain", "", { ["Set-Cookie"] = cookies })
end

return provider_logout
