--- Who is a browser that a person looks at: what may be sent to a login page (policy.md 1.3, S-082). Everything else gets a
-- status that a program understands.

local function accepts_html(accept) return accept == nil or accept:lower():find("text/html", 1, true) ~= nil end

--- Many gateways forward no Accept and no Sec-Fetch-Mode: absent counts as a browser's.
return function(req)
  if (req.method ~= "GET" and req.method ~= "HEAD") or req.verify or req.bearer then return false end
  local headers = req.headers
  local mode, with = headers["Sec-Fetch-Mode"], headers["X-Requested-With"]
  if mode ~= nil and mode ~= "navigate" or with ~= nil and with:lower() == "xmlhttprequest" then return false end
  if headers.Upgrade ~= nil or (headers["Content-Type"] or ""):lower():find("^application/grpc") then return false end
  return accepts_html(headers.Accept)
end
