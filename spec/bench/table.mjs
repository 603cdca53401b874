// Benchmarks: each prints its rows; figures are medians of interleaved rounds, ratios are taken round by round.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { logins, session, sessions } from "./logins.mjs";
import { admin, cost, fixed, get, median, moonlatch, nginxLua, provider, root, rss, script, sleep, stop, tmp, until, wrk } from "./rig.mjs";

const ports = { provider: 18100, fixed: 18101, lua: 18102, check: 18110, status: 18111 };
const issuer = `http://127.0.0.1:${ports.provider}`;
const token = { authorization: "Bearer bench-token-0" };
const rows = [];
const row = (what, figure, bar = "") => {
  rows.push([what, figure, bar]);
  console.log(`| ${what} | ${figure} | ${bar} |`);
};
const rounds = Number(process.env.ROUNDS ?? 5), seconds = Number(process.env.SECONDS ?? 4);

async function server(options = {}) {
  const child = moonlatch({ port: ports.check, status: ports.status, issuer, ...options });
  await until(ports.status);
  return child;
}

// Every request with a token of its own: a counter, in a range that no other run uses.
let runs = 0;
const fresh = () => script(`fresh-${++runs}.lua`, `local n = ${runs} * 100000000
request = function() n = n + 1; return wrk.format("GET", nil, (function() local h = {} for k, v in pairs(wrk.headers) do h[k] = v end
  h["authorization"] = "Bearer fresh-" .. n; return h end)()) end`);

async function cached() {
  const peers = { nginx: fixed(ports.fixed), "nginx+Lua": nginxLua(ports.lua), moonlatch: await server() };
  const port = { nginx: ports.fixed, "nginx+Lua": ports.lua, moonlatch: ports.check };
  const us = { nginx: [], "nginx+Lua": [], moonlatch: [], uncached: [] };
  for (const name of Object.keys(peers)) await until(port[name], "/", token);
  for (let i = 0; i < rounds; i++) {
    for (const name of Object.keys(peers)) {
      const result = await cost(peers[name], { port: port[name], seconds, headers: token });
      if (result.refused || result.errors) throw new Error(`${name}: ${result.refused} refused ${result.errors}`);
      us[name].push(result.us);
    }
    const result = await cost(peers.moonlatch, { port: ports.check, seconds, script: fresh() });
    if (result.refused) throw new Error(`uncached: ${result.refused} refused`);
    us.uncached.push(result.us);
  }
  const ratio = (a, b) => median(us[a].map((v, i) => v / us[b][i])).toFixed(2);
  row("nginx `return 200`, three headers", `${median(us.nginx).toFixed(1)} µs`);
  row("nginx+Lua, shared dict", `${median(us["nginx+Lua"]).toFixed(1)} µs`);
  row("moonlatch, cached opaque token", `${median(us.moonlatch).toFixed(1)} µs`);
  row("... as a ratio to nginx", ratio("moonlatch", "nginx"), "at most 1.3");
  row("... as a ratio to nginx+Lua", ratio("moonlatch", "nginx+Lua"), "below 1");
  row("moonlatch, uncached token", `${median(us.uncached).toFixed(1)} µs`);
  row("... as a ratio to cached", ratio("uncached", "moonlatch"), "at most 6");
  for (const child of Object.values(peers)) await stop(child);
}

async function memory() {
  const child = await server({ workers: 2, cpus: "0,1" });
  await sleep(1500);
  const idle = rss(child.pid);
  row("resident, idle, two workers", `${(idle / 1e6).toFixed(1)} MB (${(idle / 1048576).toFixed(1)} MiB)`, "at most 12 MB");
  const many = script("many.lua", `local n = 0
request = function() n = n % 100000 + 1; local h = {} for k, v in pairs(wrk.headers) do h[k] = v end
  h["authorization"] = "Bearer many-" .. n; return wrk.format("GET", nil, h) end`);
  await get(ports.check, "/", token);
  const warm = rss(child.pid);
  let entries = 0;
  for (let i = 0; i < 30 && entries < 100000; i++) {
    await wrk({ port: ports.check, seconds: 3, script: many });
    entries = Number(/moonlatch_cache_entries (\d+)/.exec((await get(ports.status, "/metrics")).body)[1]);
  }
  const claims = JSON.stringify({ sub: "alice", email: "alice@example.com", groups: ["dev", "ops"] }).length;
  row(`per cached token (${entries} of them)`, `${((rss(child.pid) - warm) / entries).toFixed(0)} B with ${claims} B of claims`,
    "at most 600 B plus claims");
  await stop(child);
}

async function startTime() {
  const took = [];
  for (let i = 0; i < rounds; i++) {
    const log = { at: 0 };
    const front = http.createServer((req, res) => {
      res.setHeader("content-type", "application/json");
      const own = "http://127.0.0.1:18199";
      if (req.url.startsWith("/.well-known")) {
        res.end(JSON.stringify({ issuer: own, userinfo_endpoint: own + "/userinfo", authorization_endpoint: own, token_endpoint: own, jwks_uri: own }),
          () => (log.at = performance.now()));
      } else res.end(JSON.stringify({ email: "alice@example.com", groups: [] }));
    });
    await new Promise((resolve) => front.listen(18199, "127.0.0.1", resolve));
    const child = moonlatch({ port: ports.check, status: ports.status, issuer: "http://127.0.0.1:18199", workers: 2, cpus: "0,1" });
    for (;;) {
      const answer = await get(ports.check, "/", token).catch(() => ({ status: 0 }));
      if (answer.status === 200) break;
      await sleep(1);
    }
    took.push(performance.now() - log.at);
    await stop(child);
    front.closeAllConnections();
    await new Promise((resolve) => front.close(resolve));
  }
  row("discovery's answer to the first 200", `${median(took).toFixed(0)} ms`, "at most 50 ms");
}

const version = (v) => `return { api = 1, providers = { main = { issuer = "${issuer}" } },
  authenticators = { authn.opaque { provider = "main", cache = "5m" } },
  headers = { ["X-Version"] = "${v}", ["X-Again"] = "${v}", ["X-User"] = "{user}" } }\n`;

async function storm() {
  const policy = path.join(tmp, "storm.lua");
  fs.writeFileSync(policy, version("v0"));
  const child = await server({ workers: 2, cpus: "0,1", policy });
  await get(ports.check, "/", token);
  const calm = [], stormy = [];
  for (let i = 0; i < rounds; i++) {
    calm.push((await wrk({ port: ports.check, seconds, connections: 16, headers: token })).p99);
    let on = true, n = 0;
    const load = wrk({ port: ports.check, seconds, connections: 16, headers: token }).then((r) => { on = false; return r; });
    while (on) {
      fs.writeFileSync(policy, version(`s${i}-${++n}`));
      await admin(ports.check, "/reload");
      await sleep(80);
    }
    stormy.push((await load).p99);
  }
  row("p99, 16 connections, two workers", `${median(calm).toFixed(2)} ms`);
  row("p99 under 10 reloads a second", `${median(stormy).toFixed(2)} ms, ratio ${median(stormy.map((v, i) => v / calm[i])).toFixed(2)}`, "at most 2");
  await stop(child);
}

// Many keep-alive clients that judge each answer: 200, and both headers of one version.
function judges(count) {
  const seen = { checks: 0, failed: 0, mixed: 0, on: true };
  const agent = new http.Agent({ keepAlive: true, maxSockets: count });
  const one = () => {
    if (!seen.on) return;
    const request = http.get({ port: ports.check, host: "127.0.0.1", path: "/", headers: token, agent }, (res) => {
      res.resume();
      seen.checks++;
      if (res.statusCode !== 200) seen.failed++;
      else if (res.headers["x-version"] !== res.headers["x-again"]) seen.mixed++;
      res.on("end", one);
    });
    request.on("error", () => { if (seen.on) seen.failed++; one(); }); // stopping cuts off the last of each
  };
  for (let i = 0; i < count; i++) one();
  return { seen, stop: () => { seen.on = false; agent.destroy(); } };
}

async function reload() {
  const policy = path.join(tmp, "reload.lua");
  fs.writeFileSync(policy, version("v0"));
  const child = await server({ workers: 2, cpus: "0,1", policy });
  await get(ports.check, "/", token);
  const broken = ["return {", "while true do end", "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) end", "error('no')", "\x1bLua", ""];
  const before = rss(child.pid), crowd = judges(32);
  const load = wrk({ port: ports.check, seconds: 120, connections: 16, headers: token });
  let ok = 0, refused = 0, wrong = 0;
  for (let i = 1; i <= 1000; i++) {
    const bad = i % 5 === 0;
    fs.writeFileSync(policy, bad ? broken[(i / 5) % broken.length] : version(`v${i}`));
    const answer = await admin(ports.check, "/reload");
    if (bad ? answer.status === 422 : answer.status === 200) bad ? refused++ : ok++;
    else wrong++;
  }
  crowd.stop();
  const result = await load;
  row("1,000 reloads under load", `${ok} taken, ${refused} broken ones refused, ${wrong} otherwise`, "800, 200, 0");
  row("... checks judged / failed / of mixed versions", `${crowd.seen.checks + result.requests} / ${crowd.seen.failed + result.refused} / ${crowd.seen.mixed}`, "0 and 0");
  row("... resident before and after", `${(before / 1e6).toFixed(1)} and ${(rss(child.pid) / 1e6).toFixed(1)} MB`);
  await stop(child);
}

async function flat() {
  const child = await server({ workers: 1 });
  let done = 0, first = 0;
  const points = [];
  while (done < 10e6) {
    done += (await wrk({ port: ports.check, seconds: 10, headers: token })).requests;
    first ||= rss(child.pid);
    points.push((rss(child.pid) / 1e6).toFixed(1));
  }
  row(`resident over ${(done / 1e6).toFixed(1)} million requests`, `${points[0]} ... ${points.at(-1)} MB`, "flat");
  await stop(child);
}

const ofSessions = (bench) => () => bench({ row, rounds, seconds });
const all = {
  cached, memory, start: startTime, storm, reload, flat, session: ofSessions(session), logins: ofSessions(logins), sessions: ofSessions(sessions),
};
const wanted = process.argv.slice(2).length ? process.argv.slice(2) : Object.keys(all).filter((name) => name !== "flat");
if (!fs.existsSync(path.join(root, "build/release/moonlatch"))) throw new Error("build/release/moonlatch is missing");
const upstream = provider(ports.provider);
await until(ports.provider, "/userinfo");
console.log("| what | figure | bar |\n|---|---|---|");
for (const name of wanted) await all[name]();
await stop(upstream);
process.exit(0);
