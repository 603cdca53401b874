--- The pages that people see: templates of web/templates, or of the folders of TEMPLATE_PATH, whose later ones win.
--
-- A template is HTML with fields. {{name}} is escaped text of ours; {{.ClientName}}, {{.ProviderURL}}, {{.ThemeURL}}, {{.Frontend.KEY}} and
-- {{resolve_url_ref "a" "b"}} are the ancestor's and known while loading. Anything else in braces is a load error: a page never
-- shows half a template, and nothing in it is code.
local pages = {}
pages.__index = pages

local NAMES = { "homepage", "after_logout", "error", "again", "denied", "logout" }
local FIELDS = { title = true, what = true, hint = true, link = true, link_text = true, request_id = true, user = true, action = true,
                 delay = true }
local TYPE = "text/html; charset=utf-8"
local ESCAPES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }
local POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'%s; frame-ancestors 'none'; base-uri 'none'"
local TEXT_MAX, LINK_MAX = 500, 8192 -- bytes of one field

--- Text as HTML shows it, in elements and in quoted attributes (S-076). Control characters become spaces.
function pages.escape(value) return (value:gsub("[%z\1-\31\127]", " "):gsub("[&<>\"']", ESCAPES)) end

-- RFC 3986 section 5.2, as far as links to a theme's files need it.
local function resolve(base, ref)
  if ref:find("^%a[%w+.-]*:") or ref:find("^//") then return ref end
  local origin, path = base:match("^(%a[%w+.-]*://[^/?#]*)([^?#]*)")
  if not origin then origin, path = "", base:match("^[^?#]*") end
  if ref:find("^/") then return origin .. ref end
  return origin .. (path:match("^.*/") or origin ~= "" and "/" or "") .. ref
end

-- The value of ".Name", or nil when there is no such name.
local function variable(self, name)
  local key = name:match("^%.Frontend%.([%w_]+)$")
  if key then return self.host.env("TEMPLATE_CONTEXT_" .. key) or "" end
  return self.variables[name]
end

-- The values of quoted texts and .Names, or nil.
local function arguments(self, rest)
  local values = {}
  while rest ~= "" do
    local text, after = rest:match('^"([^"]*)"%s*(.*)$')
    if not text then
      local name
      name, after = rest:match("^(%.[%w_.]+)%s*(.*)$")
      text = name and variable(self, name)
    end
    if not text then return nil end
    values[#values + 1], rest = text, after
  end
  return values
end

-- A part of a template from what stands in braces: { field = name } or a text; nil when it is nothing that we know.
local function part_of(self, inside)
  local name = inside:match("^[%l_]+$")
  if name then return FIELDS[name] and { field = name } or nil end
  if inside:find("^%.") then
    local value = variable(self, inside)
    return value and pages.escape(value)
  end
  local values = arguments(self, inside:match("^resolve_url_ref%s+(.+)$") or "")
  return values and #values == 2 and pages.escape(resolve(values[1], values[2])) or nil
end

local function line_of(text, at) return select(2, text:sub(1, at):gsub("\n", "\n")) + 1 end

-- The parts of a template. Raises a text that names file and line.
local function parse(self, path, text)
  local parts, at = {}, 1
  while true do
    local open = text:find("{{", at, true)
    parts[#parts + 1] = text:sub(at, (open or 0) - 1)
    if not open then return parts end
    local inside, after = text:match("^{{%s*([^{}\n]-)%s*}}()", open)
    local part = inside and part_of(self, inside)
    if not part then
      local shown = text:sub(open, open + 40):match("^[^\n]*")
      error(("%s:%d: this is no field of a page: %s"):format(path, line_of(text, open), shown), 0)
    end
    parts[#parts + 1], at = part, after
  end
end

local function folders(host)
  local list = { (host.env("MOONLATCH_WEB") or "web") .. "/templates" }
  for folder in (host.env("TEMPLATE_PATH") or ""):gmatch("[^,]+") do
    local trimmed = folder:match("^%s*(.-)/*%s*$")
    if trimmed ~= "" then list[#list + 1] = trimmed end
  end
  return list
end

-- The last folder's file of that name. Raises a text when there is none.
local function find(host, name)
  local list, problem = folders(host), nil
  for i = #list, 1, -1 do
    local path = ("%s/%s.html"):format(list[i], name)
    local text, why = host.read_file(path)
    if text then return path, text end
    problem = problem or ("%s: %s"):format(path, why)
  end
  error("pages: " .. problem, 0)
end

local function setting(host, name, default)
  local value = host.env(name)
  return value and value ~= "" and value or default
end

-- The folder of the theme, as seen from any page of any application.
local function theme(host, places)
  local url = setting(host, "THEMES_URL", "themes"):gsub("/*$", "/") .. setting(host, "THEME", "kubeflow") .. "/"
  return resolve(places.prefix .. "site/", url)
end

--- While loading only. provider_url: the issuer where users log in. Raises a text when a template cannot be used.
function pages.new(host, places, provider_url)
  local self = setmetatable({ host = host, templates = {}, variables = {
    [".ClientName"] = setting(host, "CLIENT_NAME", "AuthService"), [".ThemeURL"] = theme(host, places), [".ProviderURL"] = provider_url,
  } }, pages)
  for _, name in ipairs(NAMES) do self.templates[name] = parse(self, find(host, name)) end
  return self
end

--- The HTML of a page. fields: those of FIELDS; what is missing is empty.
function pages:render(name, fields)
  local out = {}
  for i, part in ipairs(self.templates[name]) do
    if type(part) == "string" then
      out[i] = part
    else
      local limit = part.field == "link" and LINK_MAX or TEXT_MAX
      out[i] = pages.escape(tostring(fields[part.field] or ""):sub(1, limit))
    end
  end
  return table.concat(out)
end

--- The Content-Security-Policy of our pages. origin: where a form may be redirected to besides our own host, or nil.
function pages.policy(origin) return POLICY:format(origin and " " .. origin or "") end

--- Answers with a page. headers: more of them, or nil.
function pages:answer(req, status, reason, name, fields, headers)
  local all = {
    ["Content-Security-Policy"] = pages.policy(), ["X-Content-Type-Options"] = "nosniff", ["Referrer-Policy"] = "no-referrer",
  }
  for header, value in pairs(headers or {}) do all[header] = value end
  fields.request_id = req.id
  return self.host.answer(req, status, reason, TYPE, self:render(name, fields), all)
end

return pages
