// Load with faults: node spec/bench/soak.mjs [SECONDS]. The provider comes and goes (S-410) and misbehaves in turn, while known
// users, new users, sessions and strangers ask through one server. Exits 1 on a wrong answer, or when memory or descriptors grow.
import { readFileSync } from "node:fs";
import { Browser } from "../support/browser.mjs";
import { sleep } from "../support/client.mjs";
import { startStack } from "../support/stack.mjs";

const SECONDS = Number(process.argv[2] ?? 600);
const MODES = ["refuse", "pass", "hang", "pass", "reset", "pass", "html", "pass", "truncate", "pass"];
const GROWTH = 1.25; // of resident memory, over the first tenth

const stack = await startStack({ kubernetes: false, login: true, env: { LOG_LEVEL: "ERROR", CACHE_EXPIRATION_MINUTES: "1440" } });
const until = Date.now() + SECONDS * 1000;
const count = {};
const wrong = [];

const resident = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${stack.server.pid}/status`, "utf8"))[1]) / 1024;

async function ask(who, allowed, options) {
    const { status } = await stack.check("/app", options);
    count[`${who} ${status}`] = (count[`${who} ${status}`] ?? 0) + 1;
    if (!allowed.includes(status)) wrong.push(`${who}: ${status}`);
}

async function loop(fn, pause) {
    while (Date.now() < until && wrong.length < 20) {
        await fn();
        await sleep(pause);
    }
}

async function faults() {
    for (let i = 0; Date.now() < until; i++) {
        await stack.proxy.set(MODES[i % MODES.length]);
        await sleep(1000);
    }
    await stack.proxy.set("pass");
}

const known = await stack.token("alice", 86400);
await stack.check("/app", { token: known });
const browser = new Browser();
await browser.login(`${stack.origin}/app`);
const cookie = `authservice_session=${browser.cookie("authservice_session").value}`;

let base;
const memory = async () => {
    for (let at = 0; Date.now() < until; at += 10) {
        const mb = resident();
        if (!base || at < SECONDS / 10) base = mb;
        console.log(`${String(at).padStart(5)} s  ${mb.toFixed(1)} MB  ${stack.openDescriptors()} descriptors`);
        await sleep(10000);
    }
};

await Promise.all([
    faults(), memory(),
    ...Array.from({ length: 8 }, () => loop(() => ask("known", [200], { token: known }), 1)),
    ...Array.from({ length: 2 }, () => loop(() => ask("session", [200], { headers: { cookie } }), 2)),
    ...Array.from({ length: 2 }, () => loop(async () => ask("new", [200, 503], { token: await stack.provider.mint({ sub: "bob" }) }), 20)),
    ...Array.from({ length: 2 }, () => loop(() => ask("stranger", [401, 503], { token: `nobody-${Math.random()}` }), 20)),
]);
const last = resident();
console.table(count);
if (last > base * GROWTH + 2) wrong.push(`resident memory went from ${base.toFixed(1)} to ${last.toFixed(1)} MB`);
await stack.stop().catch((error) => wrong.push(error.message));
console.log(wrong.length ? `wrong: ${[...new Set(wrong)].join(", ")}` : `as it should be: ${base.toFixed(1)} MB at first, ${last.toFixed(1)} MB at the end`);
process.exit(wrong.length ? 1 : 0);
