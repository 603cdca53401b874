--- Scopes of access tokens (RFC 6749 section 3.3): words between single spaces, compared exactly.
local scopes = {}

-- Some providers have a list, some call it scp.
local function of(claims)
  local have, scope = {}, claims.scope
  if scope == nil then scope = claims.scp end
  if type(scope) == "string" then
    for word in scope:gmatch("[^ ]+") do have[word] = true end
  end
  for _, word in ipairs(type(scope) == "table" and scope or {}) do have[word] = true end
  return have
end

--- lacks(claims) -> why | nil: which of the scopes that are all needed is not there. authenticator: its name, for the text that is
-- raised when one of them is no scope.
function scopes.needed(authenticator, wanted)
  for _, word in ipairs(wanted) do
    if word:find("[^!#-Z%[%]^-~]") then error(authenticator .. ": scope has a word that no scope is", 0) end
  end
  return function(claims)
    local have = of(claims)
    for _, word in ipairs(wanted) do
      if not have[word] then return "the token lacks the scope " .. word end
    end
  end
end

return scopes
