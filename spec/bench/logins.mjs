// Benchmarks of sessions: what a check of one costs, what a login costs, and the store with 100,000 of them.
import http from "node:http";
import path from "node:path";
import { cost, cpu, fixed, get, median, moonlatch, root, run, sleep, start, stop, tmp, until } from "./rig.mjs";

const ports = { provider: 18120, fixed: 18121, check: 18122, status: 18123 };
const issuer = `http://127.0.0.1:${ports.provider}`;
const token = { authorization: "Bearer bench-token-0" };
const NAVIGATION = { accept: "text/html", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" };

async function servers(name, options = {}) {
  const provider = start(options.providerCpu ?? 1, process.execPath, [path.join(root, "spec/bench/provider.mjs"), String(ports.provider)]);
  await until(ports.provider, "/userinfo");
  const server = moonlatch({
    port: ports.check, status: ports.status, issuer, ...options,
    env: { SESSION_STORE_PATH: path.join(tmp, `${name}.db`), REDIRECT_URL: `http://127.0.0.1:${ports.check}/authservice/oidc/callback`, ...options.env },
  });
  await until(ports.status);
  return { provider, server };
}

const cookies = (answer) => (answer.headers["set-cookie"] ?? []).map((line) => line.split(";")[0]);

// One login as a browser does it. -> its session's cookie
async function login(user, agent) {
  const begun = await get(ports.check, "/app", NAVIGATION, agent);
  if (begun.status !== 302) throw new Error(`a login began with ${begun.status} ${begun.body}`);
  const query = new URL(begun.headers.location).searchParams;
  const back = `/authservice/oidc/callback?code=${query.get("nonce")}.${user}&state=${query.get("state")}`;
  const ended = await get(ports.check, back, { ...NAVIGATION, cookie: cookies(begun).join("; ") }, agent);
  const session = cookies(ended).find((pair) => pair.startsWith("authservice_session="));
  if (ended.status !== 303 || !session) throw new Error(`a login ended with ${ended.status} ${ended.body}`);
  return session;
}

// A check of a session against one of a cached bearer token and nginx; then with a store that is read at each check.
export async function session({ row, rounds, seconds }) {
  const nginx = fixed(ports.fixed);
  await until(ports.fixed);
  const compare = async (name, env) => {
    const { provider, server } = await servers(name, { env });
    const cookie = `a=1; b=2; ${await login("alice")}`;
    await until(ports.check, "/", token);
    const runs = { nginx: [nginx, ports.fixed, token], bearer: [server, ports.check, token], session: [server, ports.check, { cookie }] };
    const us = { nginx: [], bearer: [], session: [] };
    for (let i = 0; i < rounds; i++) {
      for (const [which, [child, port, headers]] of Object.entries(runs)) {
        const result = await cost(child, { port, seconds, headers });
        if (result.refused || result.errors) throw new Error(`${which}: ${result.refused} refused ${result.errors}`);
        us[which].push(result.us);
      }
    }
    await stop(server);
    await stop(provider);
    return { us, ratio: (of) => median(us.session.map((v, i) => v / us[of][i])).toFixed(2) };
  };
  const usual = await compare("check", {});
  row("moonlatch, session in LMDB", `${median(usual.us.session).toFixed(1)} µs`);
  row("... as a ratio to a cached opaque token", usual.ratio("bearer"), "at most 1.25");
  row("... as a ratio to nginx", usual.ratio("nginx"));
  const read = await compare("read", { SESSION_CACHE_SECONDS: "0" });
  row("... read from LMDB at each check, as a ratio to a cached opaque token", read.ratio("bearer"));
  await stop(nginx);
}

// Logins by so many browsers at a time, all of them and the provider on the same two CPUs as the server.
export async function logins({ row, rounds, seconds }) {
  const BROWSERS = 64;
  const { provider, server } = await servers("logins", { workers: 2, cpus: "0,1", providerCpu: "0,1" });
  const agent = new http.Agent({ keepAlive: true, maxSockets: BROWSERS });
  let done = 0, on = true;
  const browser = async (n) => {
    while (on) {
      await login(`user-${n}-${done}`, agent);
      done++;
    }
  };
  const all = Array.from({ length: BROWSERS }, (_, n) => browser(n));
  await sleep(500);
  const rates = [], us = [];
  for (let i = 0; i < rounds; i++) {
    const from = { done, cpu: cpu(server.pid), at: performance.now() };
    await sleep(seconds * 1000);
    rates.push((done - from.done) / ((performance.now() - from.at) / 1000));
    us.push(((cpu(server.pid) - from.cpu) * 1e6) / (done - from.done));
  }
  on = false;
  await Promise.all(all);
  agent.destroy();
  row("logins a second, 64 browsers, LMDB", median(rates).toFixed(0), "at least 500");
  row("... the server's CPU for each", `${median(us).toFixed(0)} µs`);
  for (const child of [server, provider]) await stop(child);
}

// The store itself, by a program of its own.
export async function sessions({ row }) {
  const text = await run(path.join(root, "build/release/spec/bench_sessions"), [tmp]);
  const figure = (pattern) => Number(pattern.exec(text)[1]);
  const opens = [...text.matchAll(/^open +([\d.]+) ms, ([\d.]+) ms CPU, with (\d+) sessions/gm)].map((m) => m.slice(1).map(Number)).filter((m) => m[2] > 0);
  row(`${opens[0][2]} sessions in LMDB: time to open`, `${Math.min(...opens.map(([ms]) => ms))} ms, ${Math.min(...opens.map(([, ms]) => ms))} ms of CPU`, "at most 50 ms");
  row("... resident memory beyond the map", `${figure(/^memory after opening +(-?\d+) KiB/m)} KiB`, "none");
}
