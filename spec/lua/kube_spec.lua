local fake_host = require("moonlatch.testing.fake_host")
local json = require("moonlatch.testing.json")
local kube = require("moonlatch.kube")

local ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/"

local function connect(env, files)
  local fake = fake_host.new { env = env, files = files or {} }
  return kube.connect(fake.host)
end

local function config(cluster, user, more)
  local c = { ["current-context"] = "c", contexts = { { name = "c", context = { cluster = "k", user = "u" } } },
              clusters = { { name = "k", cluster = cluster } }, users = { { name = "u", user = user } } }
  for key, value in pairs(more or {}) do c[key] = value end
  return { ["/etc/kube/config"] = json.encode(c), ["/etc/kube/ca.pem"] = "CA", ["/t"] = "tok\n" }
end

local function from_file(cluster, user, more)
  cluster.server = cluster.server or "https://k.example.com:6443/"
  return connect({ KUBECONFIG = "/etc/kube/config" }, config(cluster, user, more))
end

describe("kube", function()
  it("finds the API server of the pod", function()
    local k = connect({ KUBERNETES_SERVICE_HOST = "10.0.0.1", KUBERNETES_SERVICE_PORT = "6443" },
      { [ACCOUNT .. "ca.crt"] = "CA", [ACCOUNT .. "token"] = "e30.eyJpc3MiOiJ4In0.s\n" })
    assert.equal("https://10.0.0.1:6443", k.url)
    assert.equal("CA", k.upstream.options.ca_pem)
    assert.equal(ACCOUNT .. "token", k.upstream.options.token_file)
    assert.equal("x", k.issuer)
    k = connect({ KUBERNETES_SERVICE_HOST = "fd00::1" }, { [ACCOUNT .. "ca.crt"] = "CA", [ACCOUNT .. "token"] = "t" })
    assert.equal("https://[fd00::1]:443", k.url)
  end)

  it("does without nothing", function()
    assert.error_matches(function() connect {} end, "neither KUBERNETES_SERVICE_HOST nor KUBECONFIG is set")
    assert.error_matches(function() connect { KUBERNETES_SERVICE_HOST = "10.0.0.1" } end, "ca.crt: no such file")
    assert.error_matches(function() connect { KUBECONFIG = "/none" } end, "/none: no such file")
    assert.error_matches(function() connect { KUBECONFIG = "/a:/b" } end, "name one")
  end)

  it("reads a kubeconfig", function()
    local k = from_file({ ["certificate-authority"] = "ca.pem" }, { token = "tok" })
    assert.equal("https://k.example.com:6443", k.url)
    assert.equal("CA", k.upstream.options.ca_pem)
    assert.equal("tok", k.static)
    k = from_file({ ["certificate-authority-data"] = "Q0E=" }, { tokenFile = "/t" })
    assert.equal("CA", k.upstream.options.ca_pem)
    assert.equal("/t", k.upstream.options.token_file)
    assert.is_nil(k.static)
    k = from_file({}, { ["client-certificate-data"] = "Q0E=", ["client-key-data"] = "Q0E=" })
    assert.equal("CA", k.upstream.options.cert_pem)
    assert.equal("CA", k.upstream.options.key_pem)
  end)

  for name, case in pairs {
    ["TLS that is not verified"] = { { ["insecure-skip-tls-verify"] = true }, {}, "insecure-skip-tls-verify is refused" },
    ["exec"] = { {}, { exec = { command = "x" } }, "exec is not supported" },
    ["an auth provider"] = { {}, { ["auth-provider"] = {} }, "auth-provider is not supported" },
    ["a password"] = { {}, { username = "u", password = "p" }, "username is not supported" },
    ["bad base64"] = { { ["certificate-authority-data"] = "%%" }, {}, "certificate-authority-data is no base64" },
    ["a CA file that is not there"] = { { ["certificate-authority"] = "/none" }, {}, "/none: no such file" },
    ["a server that is no URL"] = { { server = "k.example.com" }, {}, "is no URL" },
  } do
    it("refuses " .. name, function()
      assert.error_matches(function() from_file(case[1], case[2]) end, case[3], 1, true)
    end)
  end

  it("refuses contexts, clusters and users that are not there", function()
    assert.error_matches(function() from_file({}, {}, { ["current-context"] = "x" }) end, "there is no context 'x'", 1, true)
    assert.error_matches(function() from_file({}, {}, { clusters = {} }) end, "there is no cluster 'k'", 1, true)
    assert.error_matches(function() from_file({}, {}, { users = "x" }) end, "there is no user 'u'", 1, true)
    assert.error_matches(function() connect({ KUBECONFIG = "/c" }, { ["/c"] = "[" }) end, "/c: ")
  end)
end)
