--- authz.external: an HTTP service decides, asked with the JSON document of oidc-authservice. 2xx allows, 401 and 403 deny (the body
-- is the reason), everything else is an outage.
local asked = require("moonlatch.authz.asked")
local plain = require("moonlatch.plain")
local types = require("moonlatch.types")

local TIMEOUT = 3     -- seconds, unless the policy says otherwise
local REASON_MAX = 200 -- bytes of the service's words that reach the client and the log
local REFUSED = "the authorizer does not allow it"
local FROM_BEARER = { jwt = true, id_token = true, opaque = true, introspection = true }

-- RFC 3339, UTC, from a moment. Days to date: 400 years of 146097 days, years that begin in March.
local function timestamp(moment)
  local seconds = math.floor(moment)
  local days, rest = seconds // 86400 + 719468, seconds % 86400
  local era, day = days // 146097, days % 146097
  local year = (day - day // 1460 + day // 36524 - day // 146096) // 365
  day = day - (365 * year + year // 4 - year // 100)
  local month = (5 * day + 2) // 153
  local date, number = day - (153 * month + 2) // 5 + 1, month < 10 and month + 3 or month - 9
  year = year + era * 400 + (number <= 2 and 1 or 0)
  return ("%04d-%02d-%02dT%02d:%02d:%02dZ"):format(year, number, date, rest // 3600, rest // 60 % 60, rest % 60)
end

-- The payload of the JWT that was accepted, as it stands there; "null" without one. It comes from Authorization, so that it is
-- nobody's whom no authenticator has looked at: of_bearer says that they all read that header.
local function claims_text(host, id, req, of_bearer)
  if not of_bearer or id.credential ~= "header" or not FROM_BEARER[id.method] then return "null" end
  local payload = (host.credential(req, "Authorization") or ""):match("^[%w_-]+%.([%w_-]+)%.[%w_-]+$")
  local text = payload and host.base64_decode(payload, true)
  if not text or not text:find("^%s*{") or type(host.json_decode(text)) ~= "table" then return "null" end
  return text
end

-- The document but for its moment. Written member by member: the same question must be the same text.
local function usual_question(host, id, req, of_bearer)
  local json = host.json_encode
  local uid = id.method == "kubernetes" and id.claims.uid
  local user = ('"user":{"name":%s,"id":%s,"groups":%s,"extra":{"auth-method":[%s]},"claims":'):format(
    json(id.user), json(type(uid) == "string" and uid or ""), json(host.json_list(plain(host, id.groups))), json(id.credential))
  local port = tonumber((req.headers.host or ""):match(":(%d+)$")) or 80
  local request = ('},"request":{"host":%s,"port":%d,"path":%s,"method":%s}}'):format(
    json(req.host), port, json(req.path), json(req.method))
  return user .. claims_text(host, id, req, of_bearer) .. request
end

-- The policy's own document: a table.
local function own_question(host, body, id, req)
  local document = plain(host, body(id, req))
  if type(document) ~= "table" then error("the function of body must return a table, not a " .. type(document), 0) end
  return host.json_encode(document)
end

-- The service's words, as plain text of bounded length.
local function reason_of(host, body)
  local text = body:sub(1, REASON_MAX)
  if #body > REASON_MAX then text = text:gsub("[\xC0-\xFF][\x80-\xBF]*$", "") end -- perhaps half a character
  if not host.utf8_ok(text) then return REFUSED end
  text = text:gsub("%c", " "):match("^%s*(.-)%s*$")
  return text ~= "" and text or REFUSED
end

local function headers_of(given)
  local headers, names = { ["content-type"] = "application/json" }, {}
  for name, value in pairs(given or {}) do
    local problem = types.header_problem(name)
    if problem then error(("authz.external: headers[%q] %s"):format(tostring(name), problem), 0) end
    headers[name:lower()] = value
    names[#names + 1] = name:lower() .. ": " .. tostring(value) -- a secret is its name
  end
  table.sort(names)
  return headers, names
end

--- context: { of_bearer = whether all authenticators read Authorization }. Returns run(id, req) -> verdict, why. Raises what the
-- policy's own function raises.
return function(host, options, context)
  local url, timeout, body, cache = options.url, options.timeout or TIMEOUT, options.body, options.cache or 0
  local headers, names = headers_of(options.headers)
  local judge = asked(host, {
    scope = "external " .. host.sha256(host.json_encode { url, cache, body ~= nil, host.json_list(names) }), cache = cache,
    ask = function(question)
      if not body then question = ('{"timestamp":"%s",'):format(timestamp(host.now())) .. question end
      local answer, why = host.fetch { method = "POST", url = url, headers = headers, body = question, timeout = timeout }
      if not answer then return nil, why end
      if answer.status >= 200 and answer.status <= 299 then return true end
      if answer.status == 401 or answer.status == 403 then return false, reason_of(host, answer.body) end
      return nil, "the authorizer answered " .. answer.status
    end,
  })
  return function(id, req)
    if not host.utf8_ok(req.path) then return "no", "the path is not valid UTF-8" end -- no JSON document could hold it
    return judge(body and own_question(host, body, id, req) or usual_question(host, id, req, context.of_bearer))
  end
end
