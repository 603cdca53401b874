// Start, drain and reload: what a process lives through in a cluster.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { SLOW, sleep, total, until } from "../support/client.mjs";
import { startStack } from "../support/stack.mjs";

const MARKER = join(dirname(fileURLToPath(import.meta.url)), "policies", "marker.lua");
const text = readFileSync(MARKER, "utf8");
// ThreadSanitizer delivers signals only where a thread calls into its runtime, as allocations do.
const CALL = process.env.MOONLATCH_BUILD === "thread" ? "local t = {}" : "";
const marked = (marker) => text.replace('"one"', `"${marker}"`);

// A stack for one test.
async function using(options, body) {
    const stack = await startStack({ kubernetes: false, ...options });
    try {
        await body(stack);
    } finally {
        await stack.stop();
    }
}

async function marker(stack, token) {
    const { status, headers } = await stack.check("/app", { token });
    assert.equal(status, 200);
    return headers["x-marker"];
}

describe("start", () => {
    it("answers skip prefixes before discovery, 503 to the rest, and is not ready (Q35)", () =>
        using({ fault: "refuse", wait: "live" }, async (stack) => {
            const token = await stack.token("alice");
            assert.equal(await stack.isReady(), false);
            assert.equal((await stack.probe("/livez")).status, 200);
            assert.equal((await stack.probe("/metrics")).status, 200);
            assert.equal((await stack.check("/dex/.well-known/openid-configuration")).status, 200);
            assert.equal((await stack.check("/public")).headers["kubeflow-userid"], "");
            for (const options of [{ token }, {}]) assert.equal((await stack.check("/app", options)).status, 503);
            assert.equal((await stack.check("/authservice/verify", { token })).status, 503);
            await stack.proxy.set("pass");
            await until("it is ready", () => stack.isReady(), 12000);
            assert.equal((await stack.check("/app", { token })).status, 200);
        }));

    it("waits for a provider that hangs at first", () => using({ fault: "hang", wait: "live" }, async (stack) => {
        await sleep(500);
        assert.equal(await stack.isReady(), false);
        await stack.proxy.set("pass");
        await until("it is ready", () => stack.isReady(), 15000);
    }));

    it("does not believe a discovery document of another issuer", () => using({ fault: "refuse", wait: "live" }, async (stack) => {
        const body = JSON.stringify({ issuer: "https://evil.example", userinfo_endpoint: `${stack.issuer}/me` });
        await stack.proxy.set("status", { path: "/.well-known", status: 200, body });
        stack.proxy.reset();
        await until("it has asked", () => stack.proxy.calls["/.well-known/openid-configuration"] > 0, 12000);
        await sleep(300);
        assert.equal(await stack.isReady(), false);
        assert.equal((await stack.check("/app", { token: await stack.token("alice") })).status, 503);
    }));

    it("a bad policy is exit code 2 with the checker's text", async () => {
        const own = await startStack({ kubernetes: false, policy: MARKER });
        await own.server.stop();
        writeFileSync(own.policy, text.replace("authn.opaque", "authn.opaqe"));
        own.wait = "none";
        await own.startServer();
        await until("it has ended", () => !own.server.running);
        assert.equal(own.server.code, 2);
        assert.match(own.server.log, /policy\.lua:8/);
        assert.match(own.server.log, /opaque/);
        await own.stop();
    });

    for (const [name, value] of [["OIDC_PROVIDER", undefined], ["OIDC_PROVIDER", "no url"], ["KUBECONFIG", "/no/such/file"],
        ["CACHE_ENABLED", "maybe"], ["SKIP_AUTH_URLS", "/"], ["SERVER_PORT", "99999"]]) {
        it(`with ${name}=${value ?? "(unset)"} it refuses, by name (S-022, S-458)`, async () => {
            const kubernetes = name === "KUBECONFIG";
            const own = await startStack({ kubernetes, env: { [name]: value }, wait: "none" });
            try {
                await until("it has ended", () => !own.server.running);
                assert.ok(Number.isInteger(own.server.code) && own.server.code !== 0, String(own.server.code));
                assert.match(own.server.log, new RegExp(`${name}|${value}`));
            } finally {
                await own.stop();
            }
        });
    }
});

describe("reload", () => {
    let stack;
    let token;
    before(async () => {
        stack = await startStack({ kubernetes: false, policy: MARKER });
        token = await stack.token("alice");
        assert.equal(await marker(stack, token), "one");
    });
    after(() => stack?.stop());
    const becomes = (value) => until(`the policy is ${value}`, async () => (await marker(stack, token)) === value, 5000);

    it("takes an edit of the file without a signal, and keeps the cache", async () => {
        const calls = stack.userinfoCalls();
        writeFileSync(stack.policy, marked("edited"));
        await becomes("edited");
        assert.equal(stack.userinfoCalls(), calls, "editing a header does not empty the cache");
    });

    it("takes a file that is renamed over the old one", async () => {
        writeFileSync(`${stack.policy}.new`, marked("renamed"));
        renameSync(`${stack.policy}.new`, stack.policy);
        await becomes("renamed");
    });

    it("takes SIGHUP", async () => {
        writeFileSync(stack.policy, marked("hangup"));
        stack.server.process.kill("SIGHUP");
        await becomes("hangup");
        stack.server.process.kill("SIGHUP");
        await sleep(200);
        assert.equal(await marker(stack, token), "hangup");
    });

    it("takes POST /reload on the admin socket", async () => {
        writeFileSync(stack.policy, marked("admin"));
        assert.equal((await stack.admin("POST", "/reload")).status, 200);
        assert.equal(await marker(stack, token), "admin");
        assert.equal((await stack.admin("GET", "/policy")).status, 200);
        assert.equal((await stack.admin("GET", "/reload")).status >= 400, true);
        assert.equal((await stack.admin("GET", "/nothing")).status, 404);
    });

    const BROKEN = {
        "a syntax error": text.replace("return {", "return {{"),
        "a misspelt word": text.replace("authn.opaque", "authn.opaqe"),
        "an error while loading": `error("no")\n${text}`,
        "an endless loop while loading": `while true do ${CALL} end\n${text}`,
        "a memory bomb while loading": `local t = {} while true do t[#t + 1] = ("x"):rep(1000) .. #t end\n${text}`,
        "nothing": "",
        "half a file": text.slice(0, text.length / 2),
        "bytes that are no text": "\x00\xff\xfe",
        "bytecode": "\x1bLuaT\x00\x19\x93",
        "a missing environment variable": text.replace('env("CLIENT_ID")', 'env("NO_SUCH_NAME")'),
    };
    for (const [what, broken] of Object.entries(BROKEN)) {
        it(`of ${what} is refused, the old policy stays, and it is counted (S-451)`, async () => {
            const failed = async () => total(await stack.metrics(), "moonlatch_policy_reload_failed_total");
            const before = await failed();
            writeFileSync(stack.policy, broken, "latin1");
            const answer = await stack.admin("POST", "/reload");
            assert.ok(answer.status >= 400, String(answer.status));
            assert.match(answer.body, /policy/);
            assert.ok(answer.ms < 3000 * SLOW, `${answer.ms} ms`);
            assert.equal(await marker(stack, token), "admin");
            assert.ok(await failed() > before);
            writeFileSync(stack.policy, marked("admin"));
            await until("the good one is taken again", async () => (await stack.admin("POST", "/reload")).status === 200);
        });
    }

    it("of a file that is gone is refused, the old policy stays", async () => {
        rmSync(stack.policy);
        assert.ok((await stack.admin("POST", "/reload")).status >= 400);
        assert.equal(await marker(stack, token), "admin");
        writeFileSync(stack.policy, marked("back"));
        await becomes("back");
    });

    it("of a directory in its place is refused, the old policy stays", async () => {
        rmSync(stack.policy);
        mkdirSync(stack.policy);
        assert.ok((await stack.admin("POST", "/reload")).status >= 400);
        assert.equal(await marker(stack, token), "back");
        rmSync(stack.policy, { recursive: true });
        writeFileSync(stack.policy, marked("back"));
    });

    it("under load fails no check and mixes no versions (S-450)", async () => {
        const seen = new Set();
        let busy = true;
        const clients = Array.from({ length: 8 }, async () => {
            while (busy) seen.add(await marker(stack, token));
        });
        for (let i = 0; i < 40; i++) {
            writeFileSync(stack.policy, i % 4 === 3 ? "return {{" : marked(`v${i}`));
            const { status } = await stack.admin("POST", "/reload");
            assert.equal(status === 200, i % 4 !== 3, `reload ${i}: ${status}`);
        }
        busy = false;
        await Promise.all(clients);
        for (const value of seen) assert.match(value, /^(back|v\d+)$/);
        assert.ok(seen.size > 3, `only ${[...seen]} were seen`);
        writeFileSync(stack.policy, marked("end"));
        await becomes("end");
    });

    // The sanitizers keep freed memory to themselves.
    it("many, memory bombs among them, leave memory as it was (S-450)", { skip: !!process.env.MOONLATCH_BUILD }, async () => {
        const resident = async () => total(await stack.metrics(), "process_resident_memory_bytes") / 1e6;
        const peak = () => Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${stack.server.pid}/status`, "utf8"))[1]) / 1000;
        const sizes = `for n = 4, 30 do local t = {} for i = 1, 15000 do t[i] = ("x"):rep(n * 16 - 40) .. i end end\n${text}`;
        const bombs = [BROKEN["a memory bomb while loading"], sizes];
        const reloads = async (count) => {
            for (let i = 0; i < count; i++) {
                writeFileSync(stack.policy, i % 4 === 3 ? bombs[(i >> 2) % 2] : marked(`m${i}`));
                await stack.admin("POST", "/reload");
            }
        };
        await reloads(20);
        const before = await resident();
        await reloads(100);
        const after = await resident();
        assert.ok(after < before + 2, `${before} MB, ${after} MB`);
        assert.ok(peak() < 64, `${peak()} MB at most`);
        writeFileSync(stack.policy, marked("end"));
        await becomes("end");
        await until("memory is given back", async () => (await resident()) < before - 1, 5000);
    });

    it("a storm of signals coalesces and ends with the last version", async () => {
        for (let i = 0; i < 500; i++) stack.server.process.kill("SIGHUP");
        writeFileSync(stack.policy, marked("after-the-storm"));
        await becomes("after-the-storm");
    });
});

describe("a ConfigMap", () => {
    it("is followed through the swap of its ..data", () => using({ policy: MARKER, configMap: true }, async (stack) => {
        const token = await stack.token("alice");
        for (const value of ["swapped", "again", "and-again"]) {
            stack.swapConfigMap(marked(value));
            await until(`the policy is ${value}`, async () => (await marker(stack, token)) === value, 5000);
        }
        stack.swapConfigMap("return {{");
        await until("the broken one is counted", async () => total(await stack.metrics(), "moonlatch_policy_reload_failed_total") > 0);
        assert.equal(await marker(stack, token), "and-again");
    }));
});

describe("the end", () => {
    it("SIGTERM: requests in flight are finished, exit code 0 (S-454)", () => using({}, async (stack) => {
        const token = await stack.token("alice");
        await stack.proxy.set("delay", { path: "/me", delay: 1000 });
        const inFlight = stack.check("/app", { token });
        await until("the provider is asked", () => stack.userinfoCalls() > 1);
        const stopped = stack.server.stop("SIGTERM");
        // The signal and a probe sent after it may arrive in either order.
        await until("it says that it drains", async () => (await stack.probe("/")).status === 503, 500);
        assert.equal((await inFlight).status, 200);
        assert.equal(await stopped, 0);
    }));

    it("SIGTERM while the provider hangs ends on time", () => using({ env: { DRAIN_TIMEOUT: "10s" } }, async (stack) => {
        await stack.proxy.set("hang", { path: "/me" });
        const started = Date.now();
        const inFlight = stack.check("/app", { token: await stack.token("alice") });
        await until("the provider is asked", () => stack.userinfoCalls() > 1);
        assert.equal(await stack.server.stop("SIGTERM"), 0);
        assert.ok(Date.now() - started < 11000 * SLOW);
        assert.equal((await inFlight).status, 503);
    }));

    it("a second SIGTERM ends it at once", () => using({}, async (stack) => {
        await stack.proxy.set("hang", { path: "/me" });
        const inFlight = stack.check("/app", { token: await stack.token("alice") }).catch(() => "gone");
        await until("the provider is asked", () => stack.userinfoCalls() > 1);
        const stopped = stack.server.stop("SIGTERM");
        await sleep(100);
        const started = Date.now();
        stack.server.process.kill("SIGTERM");
        await stopped;
        assert.ok(Date.now() - started < 1000 * SLOW, `${Date.now() - started} ms`);
        await inFlight;
    }));

    it("SIGINT is like SIGTERM", () => using({}, async (stack) => assert.equal(await stack.server.stop("SIGINT"), 0)));
});

describe("signals and pauses", () => {
    let stack;
    before(async () => { stack = await startStack({ kubernetes: false }); });
    after(() => stack?.stop());
    afterEach(() => stack.assertServes());

    for (const signal of ["SIGPIPE", "SIGCHLD", "SIGHUP", "SIGWINCH", "SIGURG"])
        it(`${signal} does not end it`, async () => {
            stack.server.process.kill(signal);
            await sleep(100);
            stack.assertAlive();
        });

    it("serves on after a pause of the whole process (S-439)", async () => {
        stack.server.process.kill("SIGSTOP");
        await sleep(3000);
        stack.server.process.kill("SIGCONT");
        await until("it is ready", () => stack.isReady(), 2000);
    });
});
