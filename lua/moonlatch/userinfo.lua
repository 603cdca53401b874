--- The provider's UserInfo endpoint (OpenID Connect Core 1.0 section 5.3): whose access token is this?
local jwt = require("moonlatch.jwt")

local userinfo = {}

local BRACE = 123 -- "{"

-- RFC 6750 section 3.1: a 400 may say invalid_token as well.
local function says_invalid_token(host, answer)
  if (answer.headers["www-authenticate"] or ""):find('error="?invalid_token') then return true end
  local body = host.json_decode(answer.body)
  return type(body) == "table" and body.error == "invalid_token"
end

-- The content type decides how an answer is read (S-231).
local function claims_of(provider, answer)
  local kind, body = answer.headers["content-type"], answer.body
  if kind and kind ~= "application/json" and kind:lower():find("^application/jwt") then return jwt.userinfo(provider, body) end
  local claims, why = provider.host.json_decode(body)
  if type(claims) ~= "table" or body:byte() ~= BRACE and not body:sub(1, 64):find("^%s*{") then return nil, why or "no JSON object" end
  return claims
end

local function read(provider, answer)
  if answer.status == 401 or answer.status == 403 or (answer.status == 400 and says_invalid_token(provider.host, answer)) then
    return nil, "refuse", "the provider refused the token"
  end
  if answer.status ~= 200 then return nil, "fail", "UserInfo answered " .. answer.status end
  local claims, why = claims_of(provider, answer)
  if not claims then return nil, "fail", "UserInfo: malformed answer: " .. why end
  return claims
end

--- Waits. The claims; or nil, "refuse" (the token is not good) or "fail" (it could not be found out), and why.
function userinfo.ask(provider, access_token, timeout)
  local url, unknown = provider:userinfo()
  if not url then return nil, "fail", unknown end
  local answer, why = provider.host.fetch {
    upstream = provider.upstream, method = "GET", url = url, timeout = timeout or provider.timeout,
    headers = { authorization = "Bearer " .. access_token, accept = "application/json" },
  }
  if not answer then return nil, "fail", why end
  return read(provider, answer)
end

return userinfo
