--- Where users find us: AUTHSERVICE_URL_PREFIX and what is below it. The server's gates know the same places by the same
-- settings and mark a request with its endpoint; this is for the addresses that we send out.
local places = {}

local PREFIX = "/authservice/"

-- The path of a path or an address.
local function path_of(link) return (link:gsub("^%a[%w+.-]*://[^/?#]*", ""):match("^[^?#]*")) end

local function setting(host, name)
  local value = host.env(name)
  return value ~= "" and value or nil
end

--- While loading only. { prefix, redirect_uri, callback = its path, homepage, after_logout, logout, https }: https says that
-- users come over https, whatever the gateway tells.
function places.read(host)
  local prefix = (setting(host, "AUTHSERVICE_URL_PREFIX") or PREFIX):gsub("/*$", "/")
  local redirect_uri = setting(host, "REDIRECT_URL") or prefix .. "oidc/callback"
  return {
    prefix = prefix, path = path_of(prefix), redirect_uri = redirect_uri, callback = path_of(redirect_uri),
    homepage = prefix .. "site/homepage", after_logout = prefix .. "site/after_logout", logout = prefix .. "logout",
    https = prefix:lower():find("^https:") ~= nil or redirect_uri:lower():find("^https:") ~= nil,
  }
end

--- The address of a link as seen from an absolute base; nil when there is no such base.
function places.absolute(link, base)
  if link:find("^%a[%w+.-]*://") then return link end
  local origin = base:match("^(%a[%w+.-]*://[^/?#]+)")
  return origin and origin .. link
end

places.path_of = path_of

return places
