--- What can be read off a bearer token without verifying it: enough to decide who is asked, never what the answer is.
local token = {}

local find = string.find -- Lua's own: a search for one byte needs no bound on its steps

--- Why a credential cannot be a token at all, or nil. RFC 6750 section 2.1: b64token.
function token.problem(host, text)
  if host.b64token(text) then return nil end
  return text == "" and "the credential is empty" or "the credential has characters that no token has"
end

--- The payload of a JWT (RFC 7519 section 3), NOT verified; nil for anything else.
function token.peek(host, text)
  if not find(text, ".", 1, true) then return nil end -- the usual opaque token
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
  if a ~= nil and type(a) ~= "number" then a = nil end
  if b == nil or type(b) ~= "number" then return a end
  return a and a < b and a or b
end

return token
