--- The types of options: one function each.
--
-- types.x(check, at, value, option) -> the normalised value, or nil after a diagnostic. check is the running check
-- (check.lua), at the place of the value, option its entry in the vocabulary (choices).
local cookie = require("moonlatch.cookie")
local duration = require("moonlatch.duration")
local suggest = require("moonlatch.suggest")

local types = {}

local LIST_MAX = 1000
local TEXT_MAX = 4096

local function simple(kind, phrase)
  return function(check, at, value)
    if type(value) ~= kind then return check:wrong_type(at, phrase, value) end
    return value
  end
end

types.boolean = simple("boolean", "true or false")
types.fn = simple("function", "a function")

function types.any_text(check, at, value)
  if type(value) ~= "string" then return check:wrong_type(at, "a text", value) end
  if #value > TEXT_MAX then return check:wrong_value(at, "is longer than 4096 bytes") end
  if value:find("[%z\1-\8\10-\31\127]") then return check:wrong_value(at, "has a control character") end
  return value
end
types.text = types.any_text

function types.text_or_fn(check, at, value)
  if type(value) == "function" then return value end
  return types.text(check, at, value)
end

function types.choice(check, at, value, option)
  for _, choice in ipairs(option.choices) do
    if value == choice then return value end
  end
  local near = type(value) == "string" and suggest(value, option.choices)
  local choices = table.concat(option.choices, ", ")
  check:error("wrong-value", at, ("%s is %s; it must be one of: %s"):format(at.label, check:show(value), choices),
    near and ("did you mean %q?"):format(near))
end

local function a_duration(check, at, value, example)
  local number = type(value) == "number"
  local seconds = duration.seconds(value)
  if seconds then return seconds end
  local hint = number and ("a number has no unit; did you mean \"%ss\"?"):format(value) or nil
  check:error(type(value) == "string" and "wrong-value" or "wrong-type", at,
    ("%s must be a duration such as %s%s, not %s"):format(at.label, duration.EXAMPLES, example, check:show(value)), hint)
end

function types.duration(check, at, value)
  local seconds = a_duration(check, at, value, "")
  if seconds == 0 then return check:wrong_value(at, "must be more than zero") end
  return seconds
end

function types.cache(check, at, value)
  if value == "off" then return 0 end
  return a_duration(check, at, value, type(value) == "number" and "" or ', or "off"')
end

function types.percent(check, at, value)
  local fits = math.type(value) == "integer" and value >= 0 and value <= 100
  if not fits then return check:wrong_type(at, "a whole number from 0 to 100", value) end
  return value
end

function types.api(check, at, value)
  local version = require("moonlatch.vocab").api
  if value ~= version then
    local text = ("%s is %s; this moonlatch speaks %d"):format(at.label, check:show(value), version)
    check:error("wrong-value", at, text, ("write api = %d"):format(version))
  end
  return version
end

-- Never shows the value: it may be a secret in the wrong place.
function types.secret(check, at, value)
  if check.load.secrets[value] then return value end
  local kind = type(value) == "string" and "text" or "a " .. type(value)
  check:error("wrong-type", at, ("%s must be a secret, not %s"):format(at.label, kind), 'write secret("NAME")')
end

-- A list of whatever each(check, at, item) accepts; one text counts as a list of one.
local function list_of(each)
  return function(check, at, value)
    if type(value) == "string" then value = { value } end
    if not check:is_table(value) then return check:wrong_type(at, "a text or a list of texts", value) end
    local list = {}
    for i, item in ipairs(check:elements(at, value, LIST_MAX)) do list[i] = each(check, at:child(i), item) end
    return list
  end
end

local function item(check, at, value)
  if value == "" then return check:wrong_value(at, "is empty") end
  return types.text(check, at, value)
end

types.list = list_of(item)

function types.map(check, at, value)
  if not check:is_table(value) then return check:wrong_type(at, "a table of texts", value) end
  local map = {}
  for name, one in pairs(value) do
    map[name] = check.load.secrets[one] and one or types.text(check, at:child(name), one)
  end
  return map
end

-- A default of `identity`: what a claim may be.
function types.plain(check, at, value)
  local kind = type(value)
  if kind == "string" or kind == "number" or kind == "boolean" then return value end
  if check:is_table(value) then return types.list(check, at, value) end
  return check:wrong_type(at, "a text, a number, true, false or a list of texts", value)
end

function types.regex(check, at, value)
  if type(value) ~= "string" then return check:wrong_type(at, "a pattern as text", value) end
  local compiled, why = check.host.regex(value)
  if not compiled then return check:wrong_value(at, "is no regular expression: " .. tostring(why)) end
  return value
end

-- RFC 3986, http and https only; credentials in an address end up in logs.
function types.url(check, at, value)
  if type(value) ~= "string" then return check:wrong_type(at, "an address such as \"https://login.example.com\"", value) end
  if value:find("[%c%s\\\127-\255]") then return check:wrong_value(at, "has a character that no address has") end
  local authority = value:match("^[hH][tT][tT][pP][sS]?://([^/?#]*)")
  if not authority then return check:wrong_value(at, "must begin with http:// or https://") end
  if authority:find("@", 1, true) then return check:wrong_value(at, "must not hold a user or password") end
  if value:find("#", 1, true) then return check:wrong_value(at, "must not have a fragment (#)") end
  local parsed, why = check.host.url_parse(value)
  if not parsed or (parsed.host or "") == "" then
    return check:wrong_value(at, "is no address: " .. tostring(why or "it has no host"))
  end
  return value
end

function types.link(check, at, value)
  if type(value) == "string" and (value == "/" or value:find("^/[^/\\%c%s][^\\%c%s]*$")) then return value end
  return types.url(check, at, value)
end

-- RFC 9110 section 5.1: a field name is a token. The rest are not the policy's to set: they frame or route the message.
local HEADERS_TAKEN = {}
for name in ([[host connection transfer-encoding content-length te trailer upgrade keep-alive proxy-connection]]):gmatch("%S+") do
  HEADERS_TAKEN[name] = true
end

--- Why a name cannot be a header that we set, or nil.
function types.header_problem(name)
  if type(name) ~= "string" then return "a header's name is text" end
  if name:find("^:") then return "names with a colon in front are HTTP/2's own" end
  if #name == 0 or #name > 256 or name:find("[^%w!#$%%&'*+.^_`|~-]") then return "is no header name" end
  if HEADERS_TAKEN[name:lower()] then return "belongs to HTTP itself; a policy cannot set it" end
end

function types.header(check, at, value)
  if type(value) ~= "string" then return check:wrong_type(at, "a header name", value) end
  local problem = types.header_problem(value)
  if problem then return check:wrong_value(at, problem) end
  return value
end

function types.cookie(check, at, value)
  if type(value) ~= "string" then return check:wrong_type(at, "a cookie name", value) end
  local problem = cookie.problem(value)
  if problem then return check:wrong_value(at, problem) end
  return value
end

-- A cookie's Domain (RFC 6265 section 5.2.3): a name with a dot in it, so that it is nobody's top level.
function types.domain(check, at, value)
  local name = type(value) == "string" and value:lower() or ""
  local bad = name:find("[^%l%d.-]") or name:find("^[.-]") or name:find("..", 1, true) or not name:find("%.%l[%l%d-]*$")
  if bad then return check:wrong_value(at, 'is no domain such as "example.com"') end
  return name
end

-- authn.session.strict: true is each time (0 seconds), a duration at most so often.
function types.strict(check, at, value)
  if value == false then return false end
  if value == true then return 0 end
  return a_duration(check, at, value, ", or true or false")
end

-- What the authorization request says already; a second one would be somebody's choice (S-080).
local AUTHORIZE_TAKEN = {}
for name in ([[client_id redirect_uri response_type response_mode scope state nonce code_challenge code_challenge_method request
  request_uri client_secret]]):gmatch("%S+") do AUTHORIZE_TAKEN[name] = true end

function types.authorize_params(check, at, value)
  if not check:is_table(value) then return check:wrong_type(at, "a table of texts", value) end
  local made = {}
  for name, one in pairs(value) do
    local here = at:child(name)
    if type(name) ~= "string" or name:find("[^%w_.-]") or name == "" then return check:wrong_value(here, "is no parameter name") end
    if AUTHORIZE_TAKEN[name] then return check:wrong_value(here, "is moonlatch's own; it cannot be set") end
    made[name] = types.text(check, here, one)
  end
  return made
end

local ALGORITHMS = { "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA" }

types.algorithms = list_of(function(check, at, value) return types.choice(check, at, value, { choices = ALGORITHMS }) end)

-- Routes. They compare with the canonical request: a condition that is not canonical would never match, silently.
local PATH_PROBLEMS = {
  { "^[^/]", "must begin with /" }, { "^$", "is empty" },
  { "[?#]", "must be a path only, without query or fragment" },
  { "%%", "is compared with the decoded path; write it decoded" },
  { "[%c\\\127]", "has a character that no path has" },
  { "//", "has an empty segment" },
  { "/%.%.?%f[/\0]", "has a dot segment" },
}

local function path_problem(value)
  for _, problem in ipairs(PATH_PROBLEMS) do
    if value:find(problem[1]) then return problem[2] end
  end
end

local function path_type(star_problem)
  return function(check, at, value)
    if type(value) ~= "string" then return check:wrong_type(at, "a path such as \"/static\"", value) end
    local problem = path_problem(value) or star_problem(value)
    if problem then return check:wrong_value(at, problem) end
    return value
  end
end

types.paths = list_of(path_type(function(value)
  if value:find("[^/]%*") or value:find("%*[^/]") then return "may have * only as a whole segment" end
end))

local a_prefix = path_type(function(value)
  if value:find("*", 1, true) then return "is a prefix of whole segments; it needs no *" end
end)
types.prefixes = list_of(function(check, at, value)
  local prefix = a_prefix(check, at, value)
  return prefix and (prefix:match("^(.+)/$") or prefix)
end)

types.hosts = list_of(function(check, at, value)
  if type(value) ~= "string" then return check:wrong_type(at, "a host name", value) end
  local name = value:lower():gsub("^%*%.", "")
  if name:find("[^%w._:%[%]-]") or name:find("^%.") or name == "" or name:find("%.%.") then
    return check:wrong_value(at, "is no host name; it must be as in \"app.example.com\" or \"*.example.com\"")
  end
  if name:find(":%d+$") and not name:find(":.*:") then return check:wrong_value(at, "must not have a port") end
  return value:lower()
end)

types.methods = list_of(function(check, at, value)
  if type(value) ~= "string" then return check:wrong_type(at, "a method such as \"GET\"", value) end
  if value ~= value:upper() then return check:wrong_value(at, "must be upper case", ("did you mean %q?"):format(value:upper())) end
  if value:find("[^%u-]") or value == "" then return check:wrong_value(at, "is no method") end
  return value
end)

return types
