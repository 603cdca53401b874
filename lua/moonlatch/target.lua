--- Where a browser may be sent after a login or a logout, judged by the rules of browsers (WHATWG URL), not by ours.
--
-- Browsers drop tabs and line ends anywhere and spaces at both ends, take \ for /, and read //x as a host. So a target is one
-- of two narrow shapes and nothing else: a path below / without any of that, or an http(s) address whose host is on a list
-- (S-060, S-061).
local routes = require("moonlatch.routes")

local target = {}

target.MAX = 1500 -- bytes of what a login remembers; the state parameter stays under 4 KiB

-- A path with both dot segments and empty ones becomes //x for whoever resolves the dots.
local function ambiguous(path)
  local dots = ("/" .. path:lower():gsub("%%2e", ".") .. "/"):find("/%.%.?/")
  return dots and path:find("//", 1, true)
end

--- A path and query as a Location, or nil. Bytes beyond ASCII, and quotes, are percent-encoded, as browsers do.
function target.path(text)
  if type(text) ~= "string" or #text > target.MAX or not text:find("^/") then return nil end -- a long text costs nothing
  if text:find("^//") or text:find("[%z\1-\32\127\\#]") or ambiguous(text:match("^[^?]*")) then return nil end
  local encoded = text:gsub('[\128-\255"]', function(c) return ("%%%02X"):format(c:byte()) end)
  return #encoded <= target.MAX and encoded or nil
end

-- A host name without tricks; nil for anything else (user information, IP literals, %2e, empty labels).
local function host_of(authority)
  local name, port = authority:match("^([%w.-]+)(:?%d*)$")
  if not name or port == ":" or name:find("^[.-]") or name:find("..", 1, true) then return nil end
  return name:lower()
end

--- A path, or an address on a host of the list (as in routes: "a.example.com", "*.example.com"); nil for anything else.
function target.allowed(text, hosts)
  local path = target.path(text)
  if path or type(text) ~= "string" then return path end
  local origin, authority, rest = text:match("^(https?://([^/?#\\]*))(.*)$")
  local name = authority and host_of(authority)
  if not name then return nil end
  for _, pattern in ipairs(hosts or {}) do
    if routes.host_matches(pattern, name) then
      local below = target.path(rest == "" and "/" or rest:find("^%?") and "/" .. rest or rest)
      return below and origin .. below
    end
  end
end

--- What a request asked for, as a target: path and query, with the host in front when it is on the list. A long query is
-- dropped, then the path.
function target.of_request(req, hosts, scheme)
  local path, query = req.raw_path, tostring(req.query)
  local whole = query ~= "" and path .. "?" .. query or path
  local origin = ("%s://%s"):format(scheme, req.host)
  if #hosts > 0 then
    local full = target.allowed(origin .. whole, hosts) or target.allowed(origin .. path, hosts)
    if full then return full end
  end
  return target.path(whole) or target.path(path) or "/"
end

return target
