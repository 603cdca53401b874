--- Our own places, as the server marks them in req.endpoint: callback, logout, the provider's logouts, pages.
--
-- A site is { host, pages, places, flows = {owner = flow}, ordered = the same in the order of the policy, homepage, after_login,
-- after_logout, takes_form_post, several = whether people log in at more than one provider }; a flow is { session, provider, map,
-- about }: one provider's sessions and the policy's names for their users.
local callback = require("moonlatch.callback")
local is_browser = require("moonlatch.browser")
local logout = require("moonlatch.logout")
local pages = require("moonlatch.pages")
local provider_logout = require("moonlatch.provider_logout")

local site = {}
site.__index = site

local PAGES = { homepage = "Welcome", after_logout = "You are signed out" }

--- flows: list; login: the policy's, normalised, or nil; several: see above. While loading only.
function site.new(host, places, flows, login, several)
  login = login or {}
  local provider = login.provider or flows[1].provider
  local self = setmetatable({
    host = host, places = places, flows = {}, ordered = flows, several = several, pages = pages.new(host, places, provider.issuer),
    homepage = login.homepage or places.homepage, after_login = login.after_login, after_logout = login.after_logout or places.after_logout,
  }, site)
  for _, flow in ipairs(flows) do
    self.flows[flow.session.owner] = flow
    self.takes_form_post = self.takes_form_post or flow.provider.response_mode == "form_post"
  end
  return self
end

local function not_found(self, req) return self.host.answer(req, 404, "unauthenticated", "text/plain", "there is nothing here") end

-- On the check port the gateway passes the request on to the web port, which has the static files as well.
local function page(self, req)
  local name = req.path:match("^/site/([%w_]+)$")
  local ours = PAGES[name or ""]
  local static = not req.web and req.path:find("^/site/themes/") -- the core has seen that there is such a file
  if not ours and not static then return not_found(self, req) end
  if req.method ~= "GET" and req.method ~= "HEAD" then
    return self.host.answer(req, 405, "unauthenticated", "text/plain", "", { Allow = "GET, HEAD" })
  end
  if not req.web then return self.host.pass(req) end
  return self.pages:answer(req, 200, "login", name, { title = ours, link = self.homepage, link_text = "Sign in" })
end

local ENDPOINTS = {
  callback = callback.answer, logout = logout.answer, backchannel_logout = provider_logout.back,
  frontchannel_logout = provider_logout.front, page = page,
}

--- Answers a request to one of our places.
function site:answer(req)
  local answer = ENDPOINTS[req.endpoint]
  if not answer then return not_found(self, req) end
  return answer(self, req)
end

--- Shows a browser why it may not pass. Whether the request has been answered: programs get plain text from the chain.
function site:denied(req, user, why, status)
  if not is_browser(req) then return false end
  self.pages:answer(req, status, "denied", "denied", { title = "You may not see this page", user = user, what = why, link = self.homepage,
    link_text = "Go to the start page", action = self.places.logout })
  return true
end

return site
