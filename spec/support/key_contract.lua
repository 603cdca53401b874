--- What both hosts must do alike with seals and JWTs: as host_contract.lua, and called as it is.
--
-- options.phase as there. options.jwt: set (a JWK Set as a table), good (a token that it verifies, with claims {"sub":"alice"}, kid
-- "k1", typ "JWT"), alg (of it), unknown (one with kid "k2"), pem and not_pem (secrets' names: a private key in PEM form, any text).
local function same(want, got, what)
  if want ~= got then error(("%s: wanted %s, got %s"):format(what or "value", tostring(want), tostring(got)), 2) end
end

local function fails(fn, ...)
  local ran, value = pcall(fn, ...)
  if ran then error("this should have raised, and returned " .. tostring(value), 2) end
end

local function refuses(fn, ...)
  local value, why = fn(...)
  same(nil, value)
  if type(why) ~= "string" then error("a refusal without a why", 2) end
end

local function seal_cases(host, test)
  test("random is base64url of so many bytes, and never twice the same", function()
    local seen = {}
    for n = 16, 64 do
      local text = host.random(n)
      same(n, #host.base64_decode(text, true))
      same(nil, seen[text])
      seen[text] = true
    end
    for _, n in ipairs { 15, 65, 0, -1, 16.5 } do fails(host.random, n) end
    fails(host.random)
  end)
  test("digest", function()
    local function hex(name, text) return (host.digest(name, text):gsub(".", function(c) return ("%02x"):format(c:byte()) end)) end
    same("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", hex("sha256", "abc"))
    same("cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7", hex("sha384", "abc"))
    same("ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
      hex("sha512", "abc"))
    same("38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b", hex("sha384", ""))
    same("fa9121c7b32b9e01733d034cfc78cbf67f926c7ed83e82200ef86818196921760b4beff48404df811b953828274461673c68d04e297b0eb7b2b4d60fc6b566a2",
      hex("sha512", ("a"):rep(111)))
    for _, name in ipairs { "", "md5", "SHA256", "sha1" } do fails(host.digest, name, "abc") end
    fails(host.digest, "sha256")
  end)
  test("what was sealed opens for its purpose only", function()
    for _, text in ipairs { "", "a", "a\0b", ("x"):rep(3000) } do
      local sealed = host.seal("contract", text, 60)
      same(nil, sealed:find("[^%w_-]"))
      same(text, host.unseal("contract", sealed))
      for _, purpose in ipairs { "", "contrac", "contract1", "state" } do
        local plain, why = host.unseal(purpose, sealed)
        same(nil, plain)
        same("not ours", why)
      end
    end
    same(false, host.seal("contract", "a", 60) == host.seal("contract", "b", 60))
  end)
  test("a sealed text that was changed is not ours", function()
    local sealed = host.seal("contract", "text", 60)
    for i = 1, #sealed do
      local other = sealed:sub(i, i) == "A" and "B" or "A"
      same("not ours", select(2, host.unseal("contract", sealed:sub(1, i - 1) .. other .. sealed:sub(i + 1))))
    end
    for n = 0, #sealed - 1 do same("not ours", select(2, host.unseal("contract", sealed:sub(1, n)))) end
    for _, text in ipairs { "", "=", sealed .. "A", sealed .. "=", " " .. sealed, "\0", ("A"):rep(10000) } do
      same("not ours", select(2, host.unseal("contract", text)))
    end
  end)
  test("seal refuses wrong arguments", function()
    for _, ttl in ipairs { 0, -1, 0 / 0, math.huge, 1e9 } do fails(host.seal, "contract", "a", ttl) end
    fails(host.seal, "contract", "a")
    fails(host.seal, "contract", {}, 1)
    fails(host.seal, ("p"):rep(65), "a", 1)
    fails(host.unseal, "contract")
    fails(host.seal, "contract", ("a"):rep(900000), 1)
  end)
end

local function jwt_cases(host, test, given)
  local b64 = function(text) return host.base64_encode(text, true) end
  local ALL = { "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA" }
  local function refused(blame, token, board, algorithms)
    local claims, why, whose = host.jwt_verify(token, board or "contract keys", algorithms or ALL)
    same(nil, claims, token)
    same("string", type(why))
    same(blame, whose, why)
  end
  test("jwt_verify: a good token", function()
    host.post("contract keys", given.set)
    local claims, header = host.jwt_verify(given.good, "contract keys", { given.alg })
    same("alice", claims and claims.sub, header)
    same(given.alg, header.alg)
    same("k1", header.kid)
    same("JWT", header.typ)
  end)
  test("jwt_verify: whose fault", function()
    host.post("contract keys", given.set)
    refused("key", given.unknown)
    refused("key", given.good, "no such board")
    host.post("contract empty", { keys = host.json_list {} })
    refused("key", given.good, "contract empty")
    host.post("contract odd", { other = 1 })
    refused("key", given.good, "contract odd")
    for _, name in ipairs(ALL) do
      if name ~= given.alg then refused("token", given.good, nil, { name }) end
    end
    refused("token", given.good:sub(1, -5))
    refused("token", given.good:gsub("%.[^.]+%.", "." .. b64('{"sub":"bob"}') .. "."), nil)
  end)
  test("jwt_verify: forms and headers that are refused", function()
    host.post("contract keys", given.set)
    local payload, signed = given.good:match("^[^.]*%.([^.]*)%.(.*)$")
    for _, token in ipairs { "", ".", "..", "a.b", "a.b.c.d.e", ".a.b", "a..b", "a.b.", given.good .. "=", given.good .. "." .. given.good,
                             " " .. given.good, ("."):rep(20000), ("a"):rep(20000) } do
      refused("token", token)
    end
    for _, header in ipairs { "{}", "[]", "null", "{", '{"alg":null}', '{"alg":"none"}', '{"alg":"None"}', '{"alg":"HS256"}', '{"alg":"rs256"}',
                              '{"alg":["RS256"]}', '{"alg":"%s","alg":"%s"}', '{"alg":"%s","crit":[]}', '{"alg":"%s","crit":["exp"]}',
                              '{"alg":"%s","crit":null}', '{"alg":"%s","b64":true}', '{"alg":"%s","zip":"DEF"}', '{"alg":"%s","enc":"A256GCM"}',
                              '{"alg":"%s","kid":5}', '{"alg":"%s","typ":[]}', '{"alg":"%s","kid":"' .. ("k"):rep(256) .. '"}' } do
      refused("token", b64((header:gsub("%%s", given.alg))) .. "." .. payload .. "." .. signed)
    end
  end)
  test("jwt_verify takes names that it knows", function()
    for _, list in ipairs { {}, { "none" }, { "HS256" }, { "" }, { 5 } } do fails(host.jwt_verify, given.good, "contract keys", list) end
    fails(host.jwt_verify, given.good, "contract keys")
    fails(host.jwt_verify, given.good, nil, ALL)
    fails(host.jwt_verify, {}, "contract keys", ALL)
  end)
  test("jwt_peek", function()
    local claims, header = host.jwt_peek(given.good)
    same("alice", claims.sub)
    same(given.alg, header.alg)
    claims, header = host.jwt_peek(b64('{"alg":"none","x":1}') .. "." .. b64('{"iss":"i"}') .. ".AA")
    same("i", claims.iss)
    same(1, header.x)
    for _, token in ipairs { "", "a.b", "a.b.c.d.e", "a.b.c", b64("[]") .. "." .. b64("{}") .. ".AA", b64("{}") .. "." .. b64("[1]") .. ".AA",
                             b64("{}") .. "." .. b64('{"a":1,"a":1}') .. ".AA", b64("{}") .. "." .. b64("{}") .. "=.AA" } do
      refuses(host.jwt_peek, token)
    end
    fails(host.jwt_peek)
  end)
end

local function sign_cases(host, test, given)
  test("jwt_sign", function()
    local key = host.secret(given.pem)
    local token = host.jwt_sign({ sub = "me", n = 1 }, key, { kid = "k9", typ = "JWT" })
    local claims, header = host.jwt_peek(token)
    same("me", claims.sub)
    same("k9", header.kid)
    same("JWT", header.typ)
    same("string", type(header.alg))
    same(nil, select(2, host.jwt_peek(host.jwt_sign({ a = 1 }, key))).kid)
    refuses(host.jwt_sign, { a = 1 }, host.secret(given.not_pem))
    fails(host.jwt_sign, { a = 1 }, "a text")
    fails(host.jwt_sign, { 1, 2 }, key)
    fails(host.jwt_sign, "claims", key)
    fails(host.jwt_sign, { a = 1 }, key, "header")
  end)
end

return function(host, test, options)
  seal_cases(host, test)
  jwt_cases(host, test, options.jwt)
  if options.phase == "loading" then sign_cases(host, test, options.jwt) end
end
