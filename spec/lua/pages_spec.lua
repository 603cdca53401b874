local session_policy = require("session_policy")
local pages = require("moonlatch.pages")

local NAMES = { "homepage", "after_logout", "error", "again", "denied", "logout" }

local function read(path)
  local file = assert(io.open(path))
  local text = file:read("a")
  file:close()
  return text
end

local function with(name, text, env)
  local all = { CORP_SECRET = "s", TEMPLATE_PATH = "/one, /themes/two/" }
  for key, value in pairs(env or {}) do all[key] = value end
  return session_policy.play({}, { env = all, files = { ["/themes/two/" .. name .. ".html"] = text } })
end

local function visit(p, path, options)
  local request = { endpoint = "page", path = path, web = true }
  for key, value in pairs(options or {}) do request[key] = value end
  return p:request(request)
end

describe("pages", function()
  it("are there on the web port, and passed on by the check port", function()
    local p = session_policy.play()
    for name, title in pairs { homepage = "Welcome", after_logout = "You are signed out" } do
      local d = visit(p, "/site/" .. name)
      assert.equal(200, d.status)
      assert.truthy(d.body:find("<h1>" .. title .. "</h1>", 1, true))
      for header, value in pairs {
        ["Content-Security-Policy"] = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ["X-Content-Type-Options"] = "nosniff", ["Referrer-Policy"] = "no-referrer",
      } do
        assert.equal(value, d.client_headers[header])
      end
      assert.equal("allow", visit(p, "/site/" .. name, { web = false }).action)
      assert.equal(405, visit(p, "/site/" .. name, { method = "POST" }).status)
    end
    for _, path in ipairs { "/site/", "/site/error", "/site/homepage.html", "/site/../homepage", "/site/homepage/x", "/site/denied", "/other" } do
      assert.equal(404, visit(p, path).status)
      assert.equal(404, visit(p, path, { web = false }).status)
    end
    assert.equal("allow", visit(p, "/site/themes/kubeflow/styles.css", { web = false }).action)
  end)

  it("are readable: language, title, one heading, main, a view for phones, no script, no style of their own", function()
    for _, name in ipairs(NAMES) do
      local text = read("web/templates/" .. name .. ".html")
      for _, part in ipairs { '<html lang="en">', "<title>{{title}}", '<meta name="viewport" content="width=device-width, initial-scale=1">', "<main>", "<header>" } do
        assert.truthy(text:find(part, 1, true), name .. part)
      end
      assert.equal(1, select(2, text:gsub("<h1>", "")))
      for _, part in ipairs { "<script", "style=", "<style", " on%a+=", "http://", "https://" } do assert.is_nil(text:find(part), name .. part) end
    end
  end)

  it("show no text as HTML (S-076)", function()
    for _, text in ipairs { "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "' autofocus onfocus=alert(1) '", "&lt;", "javascript:alert(1)", "{{title}}", "\0\1<b>", "</title><script>",
                            "<svg/onload=alert(1)>", "\u{ff1c}script\u{ff1e}", ("<"):rep(10000) } do
      local shown = pages.escape(text)
      assert.is_nil(shown:find("[<>\"'%z]"))
      assert.is_nil(shown:find("&[^alqg#]"))
    end
    local p = session_policy.play({}, { env = { CORP_SECRET = "s", CLIENT_NAME = "<b>A&B</b>" } })
    local body = visit(p, "/site/homepage").body
    assert.truthy(body:find("&lt;b&gt;A&amp;B&lt;/b&gt;", 1, true))
  end)

  it("take templates of the operator's folders, the last one first, and the ancestor's fields", function()
    local p = with("homepage", '{{.ClientName}}|{{ .ProviderURL }}|{{.ThemeURL}}|{{.Frontend.color}}|{{.Frontend.none}}|{{resolve_url_ref .ThemeURL "a.css"}}|'
      .. '{{resolve_url_ref "https://x.example.com/a/b" "c"}}|{{resolve_url_ref "/a/b/" "/c"}}|{{resolve_url_ref "a" "https://y/"}}|{{link}}|{{title}}',
      { TEMPLATE_CONTEXT_color = "a=b=c", CLIENT_NAME = "Name", THEME = "dark" })
    assert.equal("Name|https://login.example.com|/authservice/site/themes/dark/|a=b=c||/authservice/site/themes/dark/a.css|https://x.example.com/a/c|/c|https://y/|"
      .. "/authservice/site/homepage|Welcome", visit(p, "/site/homepage").body)
    assert.truthy(visit(p, "/site/after_logout").body:find("<!doctype html>", 1, true))
  end)

  for text, at in pairs {
    ["{{.Frontend}}"] = 1, ["{{nothing}}"] = 1, ["\n\n{{.Name}}"] = 3, ["{{if .ClientName}}x{{end}}"] = 1, ["a\n{{title"] = 2, ["{{}}"] = 1, ["{{title | html}}"] = 1,
    ["{{resolve_url_ref .ThemeURL}}"] = 1, ['{{resolve_url_ref "a" "b" "c"}}'] = 1, ["{{resolve_url_ref title title}}"] = 1, ['{{template "x"}}'] = 1,
    ["{{.Frontend.a-b}}"] = 1,
  } do
    it(("do not load with %q, and say where"):format(text), function()
      local ran, why = pcall(with, "denied", text)
      assert.is_false(ran)
      assert.truthy(why:find(("/themes/two/denied.html:%d: this is no field of a page: "):format(at), 1, true), why)
    end)
  end

  it("do not load without a template", function()
    assert.error_matches(function() session_policy.play({}, { env = { CORP_SECRET = "s", MOONLATCH_WEB = "/none" } }) end, "/none/templates/homepage.html: no such file", 1, true)
  end)
end)
