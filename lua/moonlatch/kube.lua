--- The Kubernetes API server: where it is, how we show who we are, TokenReview and SubjectAccessReview.
--
-- Configuration is that of client-go: the service account of the pod, else the file that KUBECONFIG names. Read once, while
-- loading; the token file is read again by the HTTP client, since tokens rotate.
local token = require("moonlatch.token")

local kube = {}
kube.__index = kube

local ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/"
local NOT_FOUND = "the policy asks Kubernetes and needs a cluster: neither KUBERNETES_SERVICE_HOST nor KUBECONFIG is set"

local function read(host, path)
  local text, why = host.read_file(path)
  if not text then error(("the cluster's configuration: %s: %s"):format(path, why), 0) end
  return text
end

local function in_cluster(host, address)
  if address:find(":", 1, true) then address = "[" .. address .. "]" end -- IPv6
  return {
    url = "https://" .. address .. ":" .. (host.env("KUBERNETES_SERVICE_PORT") or "443"),
    ca_file = nil, ca_pem = read(host, ACCOUNT .. "ca.crt"), token_file = ACCOUNT .. "token",
    token = read(host, ACCOUNT .. "token"),
  }
end

local function named(list, name, kind, path)
  for _, entry in ipairs(type(list) == "table" and list or {}) do
    if type(entry) == "table" and entry.name == name and type(entry[kind]) == "table" then return entry[kind] end
  end
  error(("%s: there is no %s '%s'"):format(path, kind, tostring(name)), 0)
end

-- The PEM text of `key`: inline as `key-data` in base64, or in the file that `key` names, relative to the kubeconfig.
local function pem(host, entry, key, path)
  local data = entry[key .. "-data"]
  if data then
    local text = type(data) == "string" and host.base64_decode(data)
    return text or error(("%s: %s-data is no base64"):format(path, key), 0)
  end
  local file = entry[key]
  if not file then return nil end
  return read(host, file:find("^/") and file or (path:match("^.*/") or "") .. file)
end

-- What we refuse to do rather than do half of.
local function refuse_unsupported(cluster, user, path)
  if cluster["insecure-skip-tls-verify"] then error(path .. ": insecure-skip-tls-verify is refused: TLS is always verified", 0) end
  for _, key in ipairs { "exec", "auth-provider", "username", "password" } do
    if user[key] then error(("%s: %s is not supported; use token, tokenFile or a client certificate"):format(path, key), 0) end
  end
end

-- Splits "a:b:c" as client-go does and takes the first: merging several files is not supported.
local function from_kubeconfig(host, path)
  if path:find(":", 1, true) then error("KUBECONFIG names several files; name one", 0) end
  local config, why = host.yaml_decode(read(host, path))
  if type(config) ~= "table" then error(("%s: %s"):format(path, why or "no YAML mapping"), 0) end
  local context = named(config.contexts, config["current-context"], "context", path)
  local cluster = named(config.clusters, context.cluster, "cluster", path)
  local user = named(config.users, context.user, "user", path)
  refuse_unsupported(cluster, user, path)
  if type(cluster.server) ~= "string" then error(path .. ": the cluster has no server", 0) end
  local token_file = user.tokenFile
  return {
    url = cluster.server:gsub("/+$", ""), ca_pem = pem(host, cluster, "certificate-authority", path),
    cert_pem = pem(host, user, "client-certificate", path), key_pem = pem(host, user, "client-key", path),
    token = user.token or (token_file and read(host, token_file)), token_file = token_file,
    static = not token_file and user.token or nil,
  }
end

--- The API server of this process. Raises a text for operators when there is none or its configuration cannot be used.
-- While loading only.
function kube.connect(host)
  local address, path = host.env("KUBERNETES_SERVICE_HOST"), host.env("KUBECONFIG")
  local config
  if address and address ~= "" then
    config = in_cluster(host, address)
  elseif path and path ~= "" then
    config = from_kubeconfig(host, path)
  else
    error(NOT_FOUND, 0)
  end
  local parts = host.url_parse(config.url)
  local scheme = parts and parts.scheme:lower()
  if scheme ~= "https" and scheme ~= "http" then error("the cluster's address is no URL: " .. config.url, 0) end
  local upstream, why = host.upstream {
    name = "kubernetes", ca_pem = config.ca_pem, cert_pem = config.cert_pem, key_pem = config.key_pem, token_file = config.token_file,
  }
  if not upstream then error("the cluster's configuration: " .. why, 0) end
  return setmetatable({
    host = host, url = config.url, upstream = upstream, static = config.static,
    issuer = config.token and token.issuer(host, config.token:match("^%s*(.-)%s*$")),
  }, kube)
end

-- Posts a review (text) and returns the answer's status as a table, or nil and why it could not be had.
local function post(self, kind, path, body, timeout)
  local host = self.host
  local headers = { ["content-type"] = "application/json", accept = "application/json" }
  if self.static then headers.authorization = "Bearer " .. self.static end
  local answer, why = host.fetch {
    upstream = self.upstream, method = "POST", url = self.url .. path, headers = headers, timeout = timeout, body = body,
  }
  if not answer then return nil, why end
  if answer.status == 401 or answer.status == 403 then return nil, "the API server does not let us ask it (" .. answer.status .. ")" end
  if answer.status ~= 200 and answer.status ~= 201 then return nil, "the API server answered " .. answer.status end
  local review, broken = host.json_decode(answer.body)
  if type(review) ~= "table" or review.kind ~= kind or type(review.status) ~= "table" then
    return nil, "the API server: malformed answer: " .. (broken or "no " .. kind)
  end
  return review.status
end

--- Asks who a token belongs to (TokenReview v1). audiences: list, or nil. Waits. Returns the answer's status as a table, or
-- nil and why it could not be found out: also when the API server refuses us.
function kube:token_review(credential, audiences, timeout)
  local host = self.host
  return post(self, "TokenReview", "/apis/authentication.k8s.io/v1/tokenreviews", host.json_encode {
    apiVersion = "authentication.k8s.io/v1", kind = "TokenReview",
    spec = { token = credential, audiences = audiences and host.json_list(audiences) or nil },
  }, timeout)
end

--- A SubjectAccessReview (v1) as text, the same for the same question. fields: user, verb, resource (with a subresource behind a
-- slash), and perhaps groups (list), uid, group (of the API), namespace (none: in all of them), name.
function kube:access_question(fields)
  local json, json_list = self.host.json_encode, self.host.json_list
  local resource, subresource = fields.resource:match("^([^/]*)/(.+)$")
  local list = {}
  local function add(name, value) list[#list + 1] = value and ('"%s":%s'):format(name, json(value)) end
  add("verb", fields.verb)
  add("resource", resource or fields.resource)
  add("subresource", subresource)
  add("group", fields.group)
  add("namespace", fields.namespace)
  add("name", fields.name)
  local attributes = table.concat(list, ",")
  list = {}
  add("user", fields.user)
  add("uid", fields.uid)
  add("groups", json_list(fields.groups or {}))
  return ('{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","spec":{%s,"resourceAttributes":{%s}}}'):format(
    table.concat(list, ","), attributes)
end

--- Asks it. Waits. true; or false (the cluster's rules do not allow it); or nil and why it could not be found out.
function kube:access_review(question, timeout)
  local status, why = post(self, "SubjectAccessReview", "/apis/authorization.k8s.io/v1/subjectaccessreviews", question, timeout)
  if not status then return nil, why end
  if type(status.allowed) ~= "boolean" then return nil, "the API server: malformed answer: allowed is neither true nor false" end
  return status.allowed and status.denied ~= true
end

return kube
