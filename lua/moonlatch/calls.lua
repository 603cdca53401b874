--- What the functions of a policy can call: http, kube, jwt, cache, json, base64, log, time, hash, url.
--
-- Failures raise: a forgotten check must not fail open. What the outside world failed to answer raises an outage, which the
-- chain turns into "unavailable"; everything else is the policy's own error. Arguments and results are copies: no policy
-- holds a table of the host, and none of the host's is changed by a policy.
local duration = require("moonlatch.duration")
local results = require("moonlatch.results")
local rules = require("moonlatch.jwt")
local suggest = require("moonlatch.suggest")
local is_list = require("moonlatch.text").is_list
local metatable = debug.getmetatable

local COPY_DEPTH = 32

-- Raises at the line of the policy's call: level 3 is who called the function that checks its arguments.
local function want(what, value, kind)
  if type(value) ~= kind then
    error(("%s takes a %s, not %s"):format(what, kind == "string" and "text" or kind, value == nil and "nil" or "a " .. type(value)), 3)
  end
  return value
end

local function seconds(what, value)
  return duration.seconds(value) or error(("%s takes a duration such as %s"):format(what, duration.EXAMPLES), 3)
end

-- Returns copy(value): a plain copy, read-only views become tables; secrets and other objects stay what they are.
-- base: the policies' own type and pairs, which know views.
local function copier(base)
  local function is_object(value)
    local mt = metatable(value)
    return type(value) == "table" and mt ~= nil and not mt.__pairs and rawget(value, 1) == nil
  end
  local function copy(value, depth)
    if base.type(value) ~= "table" or is_object(value) then return value end
    if type(value) == "table" and next(value) == nil then return value end -- an empty list keeps its mark
    if depth > COPY_DEPTH then error("this table is nested too deep, or contains itself", 0) end
    local out = {}
    for key, item in base.pairs(value) do out[key] = copy(item, depth + 1) end
    return out
  end
  return function(value) return copy(value, 1) end
end

local FETCH = { method = "string", headers = "table", body = "string", timeout = "string" }

-- A problem of the options of http.fetch, or nil.
local function fetch_problem(options)
  for name, value in pairs(options) do
    if not FETCH[name] then
      local near = suggest(tostring(name), FETCH)
      return ("has no option '%s'%s"):format(tostring(name), near and ("; did you mean '%s'?"):format(near) or "")
    end
    if type(value) ~= FETCH[name] then return ("%s must be a %s"):format(name, FETCH[name] == "string" and "text" or "table") end
  end
  if options.timeout and not duration.seconds(options.timeout) then return "timeout must be a duration such as " .. duration.EXAMPLES end
end

local function http(host, copy)
  local made = {}
  --- Asks; any status is an answer. Waits. Raises an outage when there was no answer.
  function made.fetch(url, options)
    want("http.fetch", url, "string")
    local request = copy(options == nil and {} or options)
    local problem = type(request) ~= "table" and "takes its options as a table" or fetch_problem(request)
    local target = host.url_parse(url)
    if not target or target.scheme ~= "http" and target.scheme ~= "https" then problem = "this is no http or https address" end
    if problem then error("http.fetch: " .. problem, 2) end
    request.url, request.timeout = url, duration.seconds(request.timeout)
    request.method = request.method or "GET"
    local response, why = host.fetch(request)
    if not response then error(results.outage(("%s could not be asked: %s"):format(target.host, why))) end
    return { status = response.status, headers = copy(response.headers), body = response.body }
  end
  return made
end

local TEXT = {}
local ACCESS = {
  user = { needed = true }, verb = { needed = true }, resource = { needed = true }, groups = { list = true }, group = TEXT,
  namespace = TEXT, name = TEXT,
}

local function kube(load)
  local made = {}
  --- The status of a TokenReview, as a table. Waits. Raises an outage when the API server could not say.
  function made.token_review(token, audiences)
    want("kube.token_review", token, "string")
    if not load.cluster then error("kube.token_review is for functions, not for loading", 2) end
    local status, why = load.cluster:token_review(token, load.copy(audiences))
    if not status then error(results.outage(why)) end
    return load.copy(status)
  end
  --- Whether the cluster's rules let a user do something: { user, groups, verb, resource, group, namespace, name }. Waits. true or
  -- false. Raises an outage when the API server could not say.
  function made.access_review(fields)
    local given = load.copy(want("kube.access_review", fields, "table"))
    for name, kind in pairs(ACCESS) do
      local value = given[name]
      local fits = value == nil and not kind.needed or kind.list and is_list(value) or not kind.list and type(value) == "string"
      if not fits then error(("kube.access_review: %s must be a %s"):format(name, kind.list and "list of texts" or "text"), 2) end
    end
    for name in pairs(given) do
      if not ACCESS[name] then error(("kube.access_review has no '%s'"):format(tostring(name)), 2) end
    end
    if not load.cluster then error("kube.access_review is for functions, not for loading", 2) end
    local allowed, why = load.cluster:access_review(load.cluster:access_question(given))
    if allowed == nil then error(results.outage(why)) end
    return allowed
  end
  return made
end

local function jwt(host, load)
  local made = {}
  --- The claims as they stand there, NOT verified; nil and why when it is no JWT.
  function made.peek(token)
    local claims, why = host.jwt_peek(want("jwt.peek", token, "string"))
    return claims, not claims and why or nil
  end
  --- The claims of a token that this provider signed for this audience (a text, or a list of which one is enough), or nil and why.
  -- Waits. Raises an outage when the provider's keys could not be had.
  function made.verify(token, provider, audience)
    want("jwt.verify", token, "string")
    want("jwt.verify", provider, "string")
    if not load.providers then error("jwt.verify is for functions, not for loading", 2) end
    local audiences = type(audience) == "string" and { audience } or load.copy(audience)
    if not is_list(audiences) or #audiences == 0 then error("jwt.verify takes the audience that the token must be for", 2) end
    local known = load.providers[provider]
    if not known then
      local near = suggest(provider, load.providers)
      error(("there is no provider '%s'%s"):format(provider, near and ("; did you mean '%s'?"):format(near) or ""), 2)
    end
    local claims, verdict, why = rules.access_token(known, token, { audience = audiences, any_kind = true })
    if not claims and verdict == "fail" then error(results.outage(why)) end
    return claims, why
  end
  return made
end

local function cache(host, load)
  local made, copy = {}, load.copy
  local NAME = "cache"
  -- Scope of the keys: the policy's texts, so that an edited function never meets what the old one remembered.
  local function scope() return load:fingerprint() end

  --- What make() returned at most `keep` ago, or what it returns now; one make() at a time for one key. Waits.
  function made.remember(key, keep, make)
    want("cache.remember", key, "string")
    want("cache.remember", make, "function")
    local ttl = seconds("cache.remember", keep)
    local state, value = host.begin(scope(), NAME, key)
    if state == "hit" then return copy(value) end
    if state ~= "lead" then error(results.outage(tostring(value))) end
    local ticket <close> = value
    -- a raise reaches those who wait as well: they must not try one after the other
    local _ <close> = setmetatable({}, { __close = function(_, err)
      if err ~= nil then host.settle(ticket, "fail", results.outage_reason(err) or "the function of cache.remember failed") end
    end })
    local result = make()
    if result == nil then error("the function of cache.remember returned nil; return false for what is not there", 2) end
    return copy(host.settle(ticket, "accept", copy(result), ttl))
  end

  function made.get(key) return copy(host.cache_get(scope(), NAME, want("cache.get", key, "string"))) end
  function made.set(key, value, keep)
    want("cache.set", key, "string")
    if value == nil then error("cache.set takes a value; cache.delete forgets one", 2) end
    host.cache_set(scope(), NAME, key, copy(value), seconds("cache.set", keep))
  end
  function made.delete(key) host.cache_delete(scope(), NAME, want("cache.delete", key, "string")) end
  return made
end

-- host.x(value) that returns nil, why becomes a function that raises.
local function raising(name, call)
  return function(text, ...)
    want(name, text, "string")
    local value, why = call(text, ...)
    if value == nil and why then error(("%s: %s"):format(name, why), 2) end
    return value
  end
end

local function log(host, copy)
  local made = {}
  for _, level in ipairs { "debug", "info", "warn", "error" } do
    made[level] = function(text, fields)
      want("log." .. level, text, "string")
      local plain = copy(fields)
      for name, value in pairs(plain or {}) do
        local kind = type(value)
        if type(name) ~= "string" or kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
          error(("log.%s: the field %s must be text, a number or a boolean"):format(level, tostring(name)), 2)
        end
      end
      host.log(level, text, plain)
    end
  end
  return made
end

--- The tables of functions, by name. load: the state of one load (load.lua).
return function(host, load, base)
  load.copy = copier(base)
  local copy = load.copy
  return {
    http = http(host, copy), kube = kube(load), jwt = jwt(host, load), cache = cache(host, load), log = log(host, copy),
    json = {
      decode = raising("json.decode", host.json_decode),
      encode = function(value) return host.json_encode(copy(value)) end,
      list = function(value) return host.json_list(copy(want("json.list", value, "table"))) end,
    },
    base64 = {
      decode = raising("base64.decode", host.base64_decode), encode = raising("base64.encode", host.base64_encode),
    },
    time = { now = function() return host.now() end },
    hash = {
      sha256 = raising("hash.sha256", host.sha256),
      equals = function(a, b) return host.equals(want("hash.equals", a, "string"), want("hash.equals", b, "string")) end,
    },
    url = { escape = raising("url.escape", host.url_escape), parse = raising("url.parse", host.url_parse) },
  }
end
