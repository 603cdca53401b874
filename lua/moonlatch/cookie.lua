--- Set-Cookie, in one place (RFC 6265 section 4.1). Every cookie of ours has Path=/ and HttpOnly, and no Domain unless the policy
-- says one; deleting repeats what setting said, or browsers keep the cookie (S-068).
local cookie = {}

--- Why a name cannot be a cookie's, or nil.
function cookie.problem(name)
  if name == "" or #name > 128 or name:find("[^%w!#$%%&'*+.^_`|~-]") then return "is no cookie name" end
end

--- Whether the browser takes a cookie of that name over https only.
function cookie.demands_secure(name)
  local lower = name:lower()
  return lower:find("^__host%-") ~= nil or lower:find("^__secure%-") ~= nil
end

--- attributes: { same_site, secure, domain = or nil }; max_age: seconds.
function cookie.set(name, value, max_age, attributes)
  local domain = attributes.domain and "; Domain=" .. attributes.domain or ""
  return ("%s=%s; Path=/%s; Max-Age=%d; HttpOnly; SameSite=%s%s"):format(name, value, domain, math.floor(max_age), attributes.same_site,
    attributes.secure and "; Secure" or "")
end

function cookie.delete(name, attributes)
  return cookie.set(name, "", 0, attributes) .. "; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
end

return cookie
