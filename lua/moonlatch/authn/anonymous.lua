--- authn.anonymous: everybody, as one named identity. Nothing behind it is ever tried.
return function(_, options)
  local claims = { username = options.user or "anonymous", groups = options.groups or {} }
  local wrapper = { claims = claims } -- one for all requests, so that the identity is mapped once
  return function() return "accept", wrapper end,
    { credential = "none", identity = { user = { claim = { "username" } }, groups = { claim = { "groups" } } } }
end
