--- The provider's UserInfo endpoint (OpenID Connect Core 1.0 section 5.3): whose access token is this?
local jwt = require("moonlatch.jwt")

local userinfo = {}

local BRACE = 123 -- "{"

-- RFC 6750 section 3.1: a 400 may say invalid_token as well.
local function says_invalid_token(host, body, challenge)
  if (challenge or ""):find('error="?invalid_token') then return true end
  local answer = host.json_decode(body)
  return type(answer) == "table" and answer.error == "invalid_token"
end

-- The content type decides how an answer is read (S-231).
local function claims_of(provider, body, kind)
  if kind and kind ~= "application/json" and kind:lower():find("^application/jwt") then return jwt.userinfo(provider, body) end
  local claims, why = provider.host.json_decode(body)
  if type(claims) ~= "table" or body:byte() ~= BRACE and not body:sub(1, 64):find("^%s*{") then return nil, why or "no JSON object" end
  return claims
end

--- Waits. The claims; or nil, "refuse" (the token is not good) or "fail" (it could not be found out), and why.
function userinfo.ask(provider, access_token, timeout)
  local url, unknown = provider:userinfo()
  if not url then return nil, "fail", unknown end
  local host = provider.host
  local status, body, kind, challenge = host.bearer_get(provider.upstream, url, access_token, timeout or provider.timeout)
  if not status then return nil, "fail", body end
  if status == 200 then
    local claims, why = claims_of(provider, body, kind)
    if not claims then return nil, "fail", "UserInfo: malformed answer: " .. why end
    return claims
  end
  if status == 401 or status == 403 or (status == 400 and says_invalid_token(host, body, challenge)) then
    return nil, "refuse", "the provider refused the token"
  end
  return nil, "fail", "UserInfo answered " .. status
end

return userinfo
