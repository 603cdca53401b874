// What every benchmark needs: servers pinned to one CPU, load from the other, CPU time and memory from /proc.
import { execFile, execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";

export const root = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), "../..");
export const tmp = fs.mkdtempSync(path.join(os.tmpdir(), "moonlatch-bench-"));
const children = [];
const TICKS = Number(execFileSync("getconf", ["CLK_TCK"]));

process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
  fs.rmSync(tmp, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];

export function start(cpu, command, args, env = {}) {
  const log = fs.openSync(path.join(tmp, `${path.basename(command)}-${children.length}.log`), "w");
  const child = spawn("taskset", ["-c", String(cpu), command, ...args],
    { env: { ...process.env, ...env }, stdio: ["ignore", log, log], cwd: root });
  children.push(child);
  return child;
}

// What a program says that ends by itself.
export function run(command, args) {
  return new Promise((resolve, reject) => {
    execFile(command, args, { cwd: root }, (error, out, err) => (error ? reject(new Error(err || error.message)) : resolve(out)));
  });
}

export async function stop(child) {
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await Promise.race([gone, sleep(5000)]);
}

export function get(port, target = "/", headers = {}, agent = false) {
  return new Promise((resolve, reject) => {
    const request = http.get({ port, host: "127.0.0.1", path: target, headers, agent }, (res) => {
      let body = "";
      res.on("data", (chunk) => (body += chunk));
      res.on("end", () => resolve({ status: res.statusCode, headers: res.headers, body }));
    });
    request.on("error", reject);
  });
}

export async function until(port, target = "/", headers = {}, wanted = 200) {
  for (let i = 0; i < 1000; i++) {
    const answer = await get(port, target, headers).catch(() => ({ status: 0 }));
    if (answer.status === wanted) return;
    await sleep(5);
  }
  throw new Error(`port ${port}${target} never answered ${wanted}; logs in ${tmp}`);
}

// Seconds of CPU of a process and its children (nginx's worker).
export function cpu(pid) {
  const pids = [pid, ...fs.readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean)];
  return pids.reduce((sum, p) => {
    const fields = fs.readFileSync(`/proc/${p}/stat`, "utf8").split(") ")[1].split(" ");
    return sum + (Number(fields[11]) + Number(fields[12])) / TICKS;
  }, 0);
}

export function rss(pid) {
  return Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"))[1]) * 1024;
}

// The headers of a usual check (13 of them).
export const usual = {
  "x-request-id": "6b2f9a1c-0d6e-4f53-9d0b-2d1c7a5e8f10", "x-envoy-internal": "true",
  "x-envoy-expected-rq-timeout-ms": "10000", "user-agent": "bench/1.0", accept: "application/json",
  "accept-language": "en", "x-forwarded-for": "10.0.0.9", "x-forwarded-proto": "https", cookie: "a=1; b=2",
  "x-b3-traceid": "463ac35c9f6413ad48485a3953bb6124", "x-b3-spanid": "a2fb4a1d1a96d312",
};

export function wrk({ port, seconds, connections = 64, script, target = "/app/page?x=1", headers = {} }) {
  const args = ["-t1", `-c${connections}`, `-d${seconds}s`, "--latency"];
  for (const [name, value] of Object.entries({ ...usual, ...headers })) args.push("-H", `${name}: ${value}`);
  if (script) args.push("-s", script);
  args.push(`http://127.0.0.1:${port}${target}`);
  const child = spawn("taskset", ["-c", "1", "wrk", ...args], { stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  return new Promise((resolve) => {
    let out = "";
    child.stdout.on("data", (chunk) => (out += chunk));
    child.on("close", () => { // not "exit": that may come before the last of its output
      const unit = { us: 1e-3, ms: 1, s: 1000 };
      const p99 = /99%\s+([\d.]+)(us|ms|s)/.exec(out);
      resolve({
        requests: Number(/(\d+) requests in/.exec(out)?.[1] ?? 0),
        refused: Number(/Non-2xx or 3xx responses: (\d+)/.exec(out)?.[1] ?? 0),
        errors: /Socket errors/.exec(out) ? out.split("Socket errors:")[1].split("\n")[0].trim() : "",
        p99: p99 ? Number(p99[1]) * unit[p99[2]] : NaN,
      });
    });
  });
}

// CPU microseconds per request of the server `child` under that load.
export async function cost(child, load) {
  const before = cpu(child.pid);
  const result = await wrk(load);
  return { us: ((cpu(child.pid) - before) * 1e6) / result.requests, ...result };
}

const base = `worker_processes 1; daemon off; master_process off; error_log stderr error; pid PID;
events { worker_connections 4096; }`;

export function nginx(cpuNumber, name, http_, modules = "") {
  const file = path.join(tmp, `${name}.conf`);
  fs.writeFileSync(file, `${modules}\n${base.replace("PID", path.join(tmp, name + ".pid"))}
http { access_log off; keepalive_requests 100000000; keepalive_timeout 600; client_body_temp_path ${tmp}/b;
proxy_temp_path ${tmp}/p; fastcgi_temp_path ${tmp}/f; uwsgi_temp_path ${tmp}/u; scgi_temp_path ${tmp}/s;\n${http_}\n}`);
  return start(cpuNumber, "/usr/sbin/nginx", ["-e", "stderr", "-c", file]);
}

const three = `add_header kubeflow-userid alice@example.com; add_header kubeflow-groups "dev,ops"; add_header auth-method header;`;

export const fixed = (port) => nginx(0, "fixed", `server { listen 127.0.0.1:${port}; location / { ${three} return 200; } }`);

// The same job in nginx+Lua: token to claims (JSON) in a shared dict, three headers from them.
export function nginxLua(port) {
  const modules = fs.readdirSync("/usr/lib/nginx/modules").filter((m) => /ndk_http|http_lua/.test(m)).sort()
    .map((m) => `load_module /usr/lib/nginx/modules/${m};`).reverse();
  const order = [...modules.filter((m) => m.includes("ndk")), ...modules.filter((m) => !m.includes("ndk"))].join("\n");
  return nginx(0, "nginxlua", `lua_shared_dict tokens 64m; lua_package_path "/usr/share/lua/5.1/?.lua;;";
init_by_lua_block { cjson = require("cjson")
  ngx.shared.tokens:set("bench-token-0", cjson.encode({ email = "alice@example.com", groups = { "dev", "ops" } })) }
server { listen 127.0.0.1:${port}; location / { content_by_lua_block {
  local token = (ngx.var.http_authorization or ""):match("^Bearer (.+)$")
  local text = token and ngx.shared.tokens:get(token)
  if not text then return ngx.exit(401) end
  local claims = cjson.decode(text)
  ngx.header["kubeflow-userid"] = claims.email
  ngx.header["kubeflow-groups"] = table.concat(claims.groups, ",")
  ngx.header["auth-method"] = "header"
  return ngx.exit(200) } } }`, order);
}

// A provider that says yes to every token, as fast as nginx can.
export const provider = (port) => nginx(1, "provider", `server { listen 127.0.0.1:${port};
location /.well-known/openid-configuration { default_type application/json; return 200 '{"issuer":"http://127.0.0.1:${port}",
"userinfo_endpoint":"http://127.0.0.1:${port}/userinfo","authorization_endpoint":"http://127.0.0.1:${port}/a",
"token_endpoint":"http://127.0.0.1:${port}/t","jwks_uri":"http://127.0.0.1:${port}/j"}'; }
location /userinfo { default_type application/json; return 200 '{"sub":"alice","email":"alice@example.com","groups":["dev","ops"]}'; } }`);

export function moonlatch({ port, status, issuer, workers = 1, cpus = 0, policy, env = {} }) {
  const args = ["serve"];
  if (policy) args.push("--policy", policy);
  return start(cpus, path.join(root, "build/release/moonlatch"), args, {
    OIDC_PROVIDER: issuer, CLIENT_ID: "bench", CLIENT_SECRET: "bench", ACCESS_TOKEN_AUTHN: "opaque",
    KUBERNETES_AUTHN_ENABLED: "false", CACHE_ENABLED: "true", SESSION_STORE_PATH: path.join(tmp, "sessions.db"), SERVER_PORT: String(port), READINESS_PROBE_PORT: String(status), WEB_SERVER_PORT: "0",
    ADMIN_ADDR: `unix:${tmp}/admin-${port}.sock`, MOONLATCH_WORKERS: String(workers), LOG_LEVEL: "ERROR", ...env,
  });
}

export function admin(port, target, method = "POST") {
  return new Promise((resolve, reject) => {
    const request = http.request({ socketPath: `${tmp}/admin-${port}.sock`, path: target, method }, (res) => {
      let body = "";
      res.on("data", (chunk) => (body += chunk));
      res.on("end", () => resolve({ status: res.statusCode, body }));
    });
    request.on("error", reject);
    request.end();
  });
}

export function script(name, text) {
  const file = path.join(tmp, name);
  fs.writeFileSync(file, text);
  return file;
}
