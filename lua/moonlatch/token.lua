--- What can be read off a bearer token without verifying it: enough to decide who is asked, never what the answer is.
local token = {}

--- Why a credential cannot be a token at all, or nil. RFC 6750 section 2.1: b64token.
function token.problem(text)
  if #text == 0 then return "the credential is empty" end
  if not text:find("^[%w%-%._~%+/=]+$") then return "the credential has characters that no token has" end
end

--- The payload of a JWT (RFC 7519 section 3), NOT verified; nil for anything else.
function token.peek(host, text)
  if not text:find(".", 1, true) then return nil end -- the usual opaque token
  local payload = text:match("^[%w_-]+%.([%w_-]+)%.[%w_-]*$")
  local bytes = payload and host.base64_decode(payload, true)
  local claims = bytes and host.json_decode(bytes)
  if type(claims) == "table" then return claims end
end

--- The unverified issuer of a JWT; nil for anything else.
function token.issuer(host, text)
  local claims = token.peek(host, text)
  return claims and type(claims.iss) == "string" and claims.iss or nil
end

--- The earlier of two moments, of which each may be nil or, in a token that nobody has verified, anything: past it an answer
-- about the token is not kept. nil when there is none.
function token.earlier(a, b)
  if type(a) ~= "number" then a = nil end
  if type(b) ~= "number" then return a end
  return a and a < b and a or b
end

return token
