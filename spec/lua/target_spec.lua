-- Open redirects (S-060, S-061). The shapes are made from the URL rules of browsers (WHATWG URL): what they drop, what they take for
-- a slash, where a host may hide. For each text the judge is a browser's parser in miniature, below, not target.lua's own rules.
local target = require("moonlatch.target")

local BASE = "app.example.com"

-- The host a browser goes to for a Location in an answer of BASE over https.
local function browser_host(text)
  text = text:gsub("^[%z\1-\32]+", ""):gsub("[%z\1-\32]+$", ""):gsub("[\t\r\n]", "")
  local scheme, rest = text:match("^(%a[%w+.-]*):(.*)$")
  if scheme then
    scheme = scheme:lower()
    if scheme ~= "http" and scheme ~= "https" then return scheme .. ":" end
    if scheme == "https" and not rest:find("^[/\\]") then return BASE end -- "https:path" is relative to a base of the same scheme
    if scheme == "https" and not rest:find("^[/\\][/\\]") then return BASE end
    rest = rest:gsub("^[/\\]*", "")
  elseif text:find("^[/\\][/\\]") then
    rest = text:gsub("^[/\\]*", "")
  else
    return BASE
  end
  local authority = rest:match("^[^/\\?#]*"):gsub("^.*@", ""):gsub(":%d*$", "")
  authority = authority:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  return authority:lower()
end

local hosts = { "evil.com", "evil.com:443", "app.example.com@evil.com", "app.example.com:80@evil.com", "app.example.com%40evil.com", "evil%2ecom",
                "evil.com%2f", "[::ffff:1.2.3.4]", "0x7f.1", "2130706433", "evil.com.", "EVIL.com", "evil\u{3002}com", "\u{FF45}vil.com", "evil.com%00.example.com" }

local shapes = {
  "//%s", "///%s", "////%s", "/////%s", "\\\\%s", "\\/%s", "/\\%s", "/\\/%s", "/\\\\%s", "\\//%s", "/\t/%s", "/\n/%s", "/\r/%s", "/\r\n/%s", "\t//%s", " //%s",
  "\1//%s", "\0//%s", "/\0/%s", "//\t%s", "/./%s/..//%s", "/.//%s", "/..//%s", "/%%2e//%s", "/%%2E%%2e//%s", "/a/..//%s", "/a/%%2e%%2e//%s",
  "http://%s", "https://%s", "HTTPS://%s", "hTTp://%s", "http:%s", "https:%s", "https:/%s", "http:/%s", "https:///%s", "https:\\\\%s", "https:/\\%s",
  "http:\\%s", "https:\t//%s", "ht\ntps://%s", " https://%s", "\thttps://%s", "https://%s/", "https://%s?x", "https://%s#x", "https://%s\\@app.example.com",
  "javascript:alert(1)//%s", "JaVaScRiPt:alert(1)//%s", "java\tscript:alert(1)//%s", "data:text/html,%s", "vbscript:x%s", "file:///%s", "ftp://%s", "ws://%s", "blob:https://%s",
  "view-source:https://%s", "mailto:a@%s", "//%s/%%2f..", "//%s?https://app.example.com", "//%s#app.example.com", "//%s@app.example.com@%s", "x//%s", "@%s", ".%s", "%s", "?//%s", "#//%s", "",
  "/#//%s", "/a#b%s", "/%s\r\nSet-Cookie: a=b", "/%s\nx", "/ %s", "/a b%s",
}

describe("target", function()
  it("knows more than 150 shapes of somebody else's address", function() assert.is_true(#shapes * #hosts >= 150) end)

  for _, shape in ipairs(shapes) do
    it(("%q leads nowhere else"):format(shape), function()
      for _, host in ipairs(hosts) do
        local text = shape:gsub("%%s", function() return host end):gsub("%%%%", "%%")
        for _, allowed in ipairs { {}, { "app.example.com" }, { "*.example.com", "app.example.com" } } do
          local result = target.allowed(text, allowed)
          if result then
            assert.equal(BASE, browser_host(result), text)
            assert.is_nil(result:find("[%c\\ ]"), text)
            assert.is_nil(result:find("^//"), text)
          end
        end
      end
    end)
  end

  for _, text in ipairs {
    "//evil.com", "/\\evil.com", "\\/evil.com", "/\t/evil.com", "https://evil.com", "javascript:alert(1)", "https://app.example.com@evil.com",
    "https://app.example.com:80@evil.com", "https://evil.com\\@app.example.com", "https://evil-example.com", "https://example.com.evil.io",
    "https://example.com@evil.io", "https://a.example.com:80@evil", "https://example.com%2eevil.io", "https://.example.com", "https://a..example.com",
    "https://a.example.com.", "https://a.example.com:", "https://a.example.com:x", "https://a.example.com:80:80", "https://-a.example.com", "https://a_b.example.com",
    "https://a.example.com\\evil", "https://a.example.com#x", "https://a.example.com/\r\nx", "https://example.com", "https:a.example.com", "https:/a.example.com",
    "https:///a.example.com", "HTTPS://a.example.com", "//a.example.com", "ftp://a.example.com", "https://[a.example.com]", "https://a.example.com//evil.com", "a.example.com",
    "/.//x", "/a/..//x", "/%2e%2E//x", "/x\127", "/\0", "/ ", "", "x", "?x", "#x", ("/"):rep(3), "/" .. ("x"):rep(1500),
  } do
    it(("refuses %q"):format(text:sub(1, 60)), function() assert.is_nil(target.allowed(text, { "*.example.com" })) end)
  end

  for text, want in pairs {
    ["/"] = "/", ["/a/b?c=d&e=%2F%2f//x"] = "/a/b?c=d&e=%2F%2f//x", ["/a//b"] = "/a//b", ["/a/../b"] = "/a/../b", ["/\u{e9}?\u{fc}"] = "/%C3%A9?%C3%BC", ["/@evil.com"] = "/@evil.com",
    ["/http://evil.com"] = "/http://evil.com", ["/%5cevil.com"] = "/%5cevil.com", ["/%2f/evil.com"] = "/%2f/evil.com", ["/?u=https://evil.com"] = "/?u=https://evil.com", ["/..."] = "/...",
    ["https://a.example.com"] = "https://a.example.com/", ["https://a.example.com:8443/x?y"] = "https://a.example.com:8443/x?y", ["https://A.B.Example.com/x"] = "https://A.B.Example.com/x",
    ["http://a.example.com?x"] = "http://a.example.com/?x", ["/" .. ("x"):rep(1499)] = "/" .. ("x"):rep(1499),
  } do
    it(("takes %s"):format(text:sub(1, 60)), function() assert.equal(want, target.allowed(text, { "*.example.com" })) end)
  end

  it("takes no text that is none", function()
    for _, value in ipairs { 1, true, {} } do assert.is_nil(target.allowed(value, {})) end
    assert.is_nil(target.allowed(nil, {}))
  end)

  it("takes a host by name or below a name, never by its end", function()
    assert.equal("https://example.com/", target.allowed("https://example.com", { "example.com" }))
    assert.is_nil(target.allowed("https://a.example.com", { "example.com" }))
    assert.is_nil(target.allowed("https://example.com", { "*.example.com" }))
    assert.is_nil(target.allowed("https://evil-example.com", { "*.example.com" }))
    assert.is_nil(target.allowed("https://a.example.com", {}))
    assert.is_nil(target.allowed("https://a.example.com"))
  end)

  it("is sure of its own judge", function()
    for text, host in pairs { ["//evil.com"] = "evil.com", ["/\\evil.com"] = "evil.com", ["/\t/evil.com"] = "evil.com", ["https:evil.com"] = BASE, ["http:evil.com"] = "evil.com",
                              ["https://a@evil.com:1/"] = "evil.com", ["javascript:x"] = "javascript:", ["/x"] = BASE, [" //evil%2ecom"] = "evil.com" } do
      assert.equal(host, browser_host(text))
    end
  end)
end)
