--- The structured parts of a policy: providers, authenticators, identity, headers, routes; and what they mean together.
local cookie = require("moonlatch.cookie")
local suggest = require("moonlatch.suggest")
local template = require("moonlatch.template")
local types = require("moonlatch.types")
local vocab = require("moonlatch.vocab")

local AUTHENTICATORS_MAX, RULES_MAX, ROUTES_MAX, NAMES_MAX = 32, 32, 256, 64

local function sorted_keys(value)
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  return keys
end

-- Calls each(at, name, value) for the fields of a table whose names the policy chooses.
local function named(check, at, value, what, each)
  if not check:is_table(value) then return check:wrong_type(at, "a table of " .. what, value) end
  local keys = sorted_keys(value)
  if #keys > NAMES_MAX then return check:wrong_value(at, ("has more than %d %s"):format(NAMES_MAX, what)) end
  for _, name in ipairs(keys) do each(at:child(name), name, value[name]) end
end

local function is_name(name) return type(name) == "string" and #name <= 64 and name:find("^[%a_][%w_-]*$") ~= nil end

function types.providers(check, at, value)
  named(check, at, value, "providers", function(here, name, options)
    if not is_name(name) then return check:wrong_value(here, "is no name for a provider: letters, digits, _ and -") end
    check.providers[name] = { name = name }
    if not check:is_table(options) then return check:wrong_type(here, 'a table such as { issuer = "https://..." }', options) end
    local provider = check:options(here, options, vocab.provider)
    provider.name = name
    check.providers[name] = provider
  end)
  return check.providers
end

function types.provider(check, at, value)
  if type(value) ~= "string" then return check:wrong_type(at, "the name of a provider", value) end
  local provider = check.providers[value]
  if provider then return provider end
  local near = suggest(value, check.providers)
  check:error("unknown-provider", at, ("there is no provider '%s'"):format(value), near and ("did you mean '%s'?"):format(near))
end

-- `at` of each element is kept beside it, for what concerns the list as a whole.
local function chained(check, at, value, kind, max)
  if not check:is_table(value) then return check:wrong_type(at, "a list", value, "put it in braces: { ... }") end
  local list, places = {}, {}
  for i, element in ipairs(check:elements(at, value, max)) do
    local spec, place = check:chained(at:child(i), kind, element)
    if spec then
      list[#list + 1] = spec
      places[#places + 1] = place
    end
  end
  return list, places
end

-- What nobody can reach behind authn.anonymous, and bad credentials that pass as anonymous.
local function check_anonymous(check, list, places)
  for i, spec in ipairs(list) do
    if spec.type == "anonymous" then
      if i < #list and not spec.options.when then
        check:error("unreachable", places[i], "authn.anonymous accepts everybody, so nothing after it is ever tried",
          "move it to the end")
      end
      for before = 1, i - 1 do
        local earlier, place = list[before], places[before]
        if earlier.options.invalid == "next" then
          local written = place.written_invalid
          check:warning("downgrade", written and place:child("invalid") or place,
            "a request with a bad credential will be let in as anonymous",
            written and 'remove invalid = "next"' or 'write invalid = "reject"')
        end
      end
    end
  end
end

function types.authenticators(check, at, value)
  local list, places = chained(check, at, value, "authn", AUTHENTICATORS_MAX)
  if not list then return end
  if #list == 0 then
    check:error("missing-option", at, "no authenticator is enabled, so nobody could be let in",
      "authn.anonymous { } lets everybody in")
  end
  check_anonymous(check, list, places)
  for i, spec in ipairs(list) do
    local provider = spec.type == "session" and spec.options.provider
    if provider and not check.sessions[provider.name] then
      check.sessions[provider.name] = { at = places[i], provider = provider, options = spec.options }
    end
  end
  return list
end

local function check_groups(check, spec, place)
  local options = spec.options
  if not options.any and not options.all then check:error("missing-option", place, "authz.groups needs 'any' or 'all'") end
  if options.all and #options.all == 0 then
    check:wrong_value(place:child("all"), "is empty, so it would let everybody in")
  end
end

function types.authorizers(check, at, value)
  local list, places = chained(check, at, value, "authz", RULES_MAX)
  for i, spec in ipairs(list or {}) do
    if spec.type == "groups" then check_groups(check, spec, places[i]) end
  end
  return list
end

function types.rewrites(check, at, value)
  if not check:is_table(value) then return check:wrong_type(at, "a list of { matches = ..., replaces = ... }", value) end
  local list = {}
  for i, rule in ipairs(check:elements(at, value, RULES_MAX)) do
    if not check:is_table(rule) then return check:wrong_type(at:child(i), "a table { matches = ..., replaces = ... }", rule) end
    list[i] = check:options(at:child(i), rule, vocab.rewrite)
    list[i].regex = list[i].matches and check.host.regex(list[i].matches)
  end
  return list
end

-- One mapped name: the short forms become the long one.
local function claim(check, at, name, value)
  local kind = type(value)
  if kind == "function" then value = { map = value } end
  if kind == "string" or check:is_table(value) and value[1] ~= nil then value = { claim = value } end
  if not check:is_table(value) then
    return check:wrong_type(at, "the name of a claim, a list of them, a table or a function", value)
  end
  local made = check:options(at, value, vocab.claim)
  local sources = 0
  for _, source in ipairs { "claim", "map", "from" } do
    if value[source] ~= nil and value[source] ~= "" then sources = sources + 1 end
  end
  if sources ~= 1 then check:error("missing-option", at, ("%s needs one of 'claim', 'map' and 'from'"):format(at.label)) end
  if made.claim and #made.claim == 0 then check:wrong_value(at:child("claim"), "is empty") end
  if name == "groups" and made.claim and made.default == nil then made.default = {} end
  return made
end

function types.identity(check, at, value)
  local made = {}
  named(check, at, value, "names", function(here, name, one)
    if not is_name(name) or name:find("-", 1, true) then return check:wrong_value(here, "is no name: letters, digits and _") end
    if vocab.identity_taken[name] then return check:wrong_value(here, "is the identity's own; choose another name") end
    if one == "" then return check:wrong_value(here, "is empty") end
    made[name] = claim(check, here, name, one)
    check.mapped[name] = true
    if made[name] and made[name].from then
      table.insert(check.derived, { at = here, name = name, map = made })
    end
  end)
  return made
end

-- `from` names another name, and never itself in a circle. all: the policy's names, under an authenticator's own.
local function check_derived(check, all)
  for _, derived in ipairs(check.derived) do
    local seen, name = {}, derived.name
    while name and not seen[name] do
      seen[name] = true
      local one = derived.map[name] or all[name]
      if not one then
        local near = suggest(name, check.mapped)
        check:error("unknown-field", derived.at, ("%s: identity has no '%s'"):format(derived.at.label, name),
          near and ("did you mean '%s'?"):format(near))
      end
      name = one and one.from
    end
    if name then check:wrong_value(derived.at, "is derived from itself") end
  end
end

local function check_template(check, at, text, fields)
  local parts, why = template.parse(text)
  if not parts then return check:wrong_value(at, "is no template: " .. why) end
  for _, part in ipairs(parts) do
    local name = type(part) == "table" and part.field or nil
    local first, rest = (name or ""):match("^([^.]*)(.*)$")
    -- {claims.path}, but {user}: only claims have parts
    if name and not (fields[first] and (first == "claims") == (#rest > 1)) then
      local near = first == "claims" and "claims.name" or suggest(first, fields)
      check:error("unknown-field", at, ("%s: there is no {%s}"):format(at.label, name),
        near and ("did you mean {%s}?"):format(near))
    end
  end
end

-- Templates wait for the end, when every name that identity maps is known.
local function check_templates(check)
  local fields = {}
  for _, field in ipairs(vocab.fields) do fields[field] = true end
  for name in pairs(check.mapped) do fields[name] = true end
  for _, one in ipairs(check.templates) do check_template(check, one.at, one.text, fields) end
end

local function header_value(check, at, value)
  if value == false or type(value) == "function" then return value end
  if type(value) ~= "string" then
    return check:wrong_type(at, "a template such as \"{user}\", a function, or false to remove the header", value)
  end
  if not types.any_text(check, at, value) then return end
  table.insert(check.templates, { at = at, text = value })
  return value
end

function types.headers(check, at, value)
  local made, seen = {}, {}
  named(check, at, value, "headers", function(here, name, one)
    local problem = types.header_problem(name)
    if problem then return check:wrong_value(here, problem) end
    -- an alias reaches applications as the same variable (CGI): "X-User" and "X_User" are one
    local canonical = name:lower():gsub("[_.]", "-")
    if seen[canonical] then
      return check:error("duplicate-header", here, ("%s is the same header as %q"):format(here.label, seen[canonical]))
    end
    seen[canonical] = name
    made[name] = header_value(check, here, one)
  end)
  return made
end

local function sub_options(vocabulary, phrase)
  return function(check, at, value)
    if not check:is_table(value) then return check:wrong_type(at, phrase, value) end
    return check:options(at, value, vocabulary)
  end
end

types.responses = sub_options(vocab.responses, "a table of functions")
local login = sub_options(vocab.login, 'a table such as { provider = "name" }')
local rollout = sub_options(vocab.rollout, 'a table such as { policy = "next.lua" }')

function types.login(check, at, value)
  local made = login(check, at, value)
  if made then table.insert(check.logins, { at = at, login = made }) end
  return made
end

function types.rollout(check, at, value)
  check:not_built(at, "rollout")
  return rollout(check, at, value)
end

local function matches_all(route)
  local conditions = 0
  for _, name in ipairs(vocab.route_conditions) do
    if route[name] ~= nil then conditions = conditions + 1 end
  end
  if conditions == 0 then return "this route has no host, path, prefix, method or when, so it matches everything" end
  if conditions > 1 or type(route.prefix) ~= "table" and route.prefix ~= "/" then return nil end
  for _, prefix in ipairs(type(route.prefix) == "table" and route.prefix or { route.prefix }) do
    if prefix == "/" then return 'the prefix "/" matches every path' end
  end
end

local function check_route(check, at, value, names)
  if not check:is_table(value) then return check:wrong_type(at, 'a table such as { prefix = "/static" }', value) end
  local all = matches_all(value)
  if all then check:error("route-matches-all", at, all) end
  local route = check:options(at, value, vocab.route)
  if route.public then
    for _, name in ipairs { "authenticators", "authorize", "login" } do
      if value[name] ~= nil then check:wrong_value(at:child(name), "has no effect on a public route") end
    end
  end
  if route.name and names[route.name] then
    check:error("duplicate-name", at, ("there is another route %q"):format(route.name))
  end
  names[route.name or ""] = true
  return route
end

function types.routes(check, at, value)
  if not check:is_table(value) then return check:wrong_type(at, "a list of routes", value) end
  local list, names = {}, {}
  for i, one in ipairs(check:elements(at, value, ROUTES_MAX)) do
    list[i] = check_route(check, at:child(i), one, names)
    if list[i] then list[i].name = list[i].name or "route " .. i end
  end
  return list
end

-- What sessions and logins need besides their own options: a client of the provider; somebody who takes the session that is made.
local function check_session(check, at, provider, options)
  local where = ("%s: provider '%s'"):format(at.label, provider.name)
  if not provider.client_id then check:error("missing-option", at, where .. " needs 'client_id'") end
  if options.domain and (options.cookie or ""):lower():find("^__host%-") then
    check:wrong_value(at:child("domain"), "cannot be with a cookie named __Host-: browsers refuse it") -- S-265
  end
  if cookie.demands_secure(options.cookie or "") and (provider.redirect_url or ""):lower():find("^http:") then
    check:wrong_value(at:child("cookie"), ("'%s' needs https, and redirect_url is without it: browsers refuse it"):format(options.cookie))
  end
  if provider.response_mode == "form_post" and not (provider.redirect_url or ""):lower():find("^https://") then
    check:error("wrong-value", at, where .. " has response_mode form_post: it needs a redirect_url with https",
      "browsers send a cookie with another site's form only over https")
  end
  if provider.auth_method == "private_key_jwt" and not provider.private_key then
    check:error("missing-option", at, where .. " needs 'private_key'")
  end
end

local function check_logins(check)
  for _, one in pairs(check.sessions) do check_session(check, one.at, one.provider, one.options) end
  for _, one in ipairs(check.logins) do
    local provider = one.login.provider
    local session = provider and check.sessions[provider.name]
    if session and one.login.hosts and not session.options.domain then
      check:error("missing-option", one.at:child("hosts"), one.at.label .. ".hosts: authn.session needs 'domain'",
        "a cookie without it stays at the host that set it")
    end
    if provider and one.login.clients ~= "none" and not session then
      check:error("missing-option", one.at, ("%s: no authn.session has provider '%s', so nobody could come back"):format(
        one.at.label, provider.name))
    end
  end
end

--- The normalised policy; diagnostics are in check.
return function(check, at, value)
  local policy = check:options(at, value, vocab.policy, { "providers" }) -- first: the others name them
  local identity = policy.identity or {}
  identity.user = identity.user or { claim = { "email" } }
  identity.groups = identity.groups or { claim = { "groups" }, default = {} }
  check.mapped.user, check.mapped.groups = true, true
  policy.identity = identity
  check_derived(check, identity)
  check_templates(check)
  check_logins(check)
  policy.name = policy.name or at.file:match("([^/]*)%.lua$") or at.file
  return policy
end
