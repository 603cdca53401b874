// Two replicas on one real Redis: what one knows the other knows, logout is everywhere within a second, an outage is no login page.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Browser } from "../support/browser.mjs";
import { request, sleep, until } from "../support/client.mjs";
import { Child, temporaryDirectory } from "../support/processes.mjs";
import { PASSWORD, startRedis } from "../support/redis.mjs";
import { startStack } from "../support/stack.mjs";

const SESSION = "authservice_session";

let redis;
let stack;
let other;
before(async () => {
    redis = await startRedis(temporaryDirectory());
    stack = await startStack({
        envoys: ["istio-http"], kubernetes: false, login: true, provider: { ttl: { AccessToken: 6 } },
        env: {
            SESSION_STORE_TYPE: "redis", SESSION_STORE_REDIS_ADDR: `127.0.0.1:${redis.port}`, SESSION_STORE_REDIS_PWD: PASSWORD,
            SESSION_KEY: "a key of the tests that is long enough for it",
        },
    });
    stack.secret(PASSWORD);
    other = await stack.startReplica();
});
after(async () => {
    await stack?.stop();
    await redis?.close();
});

const asCookie = (value) => ({ headers: { cookie: `${SESSION}=${value}` } });
const status = async (server, id) => (await server.check("/app", asCookie(id))).status;

async function session(user = "alice") {
    const browser = new Browser();
    const page = await browser.login(`${stack.origin}/app`, user);
    assert.equal(page.status, 200, browser.visited.join("\n"));
    return stack.secret(browser.cookie(SESSION).value);
}

// Milliseconds until the other replica refuses; at most a second (S-071).
async function goneElsewhere(id) {
    const started = Date.now();
    await until("the other replica refuses", async () => (await status(other, id)) === 302, 3000);
    return Date.now() - started;
}

describe("two replicas", () => {
    it("know each other's sessions", async () => {
        const id = await session();
        assert.equal(await status(stack, id), 200);
        assert.equal(await status(other, id), 200);
    });

    it("a login that starts at one may end at the other", async () => {
        const browser = new Browser();
        const page = await browser.login(`${stack.origin}/app`, "alice", { stop: (url) => url.includes("/authservice/oidc/callback") });
        const callback = new URL(page.stopped);
        callback.port = String(other.checkPort);
        assert.equal((await browser.send(callback.href)).status, 303);
        assert.equal(await status(stack, stack.secret(browser.cookie(SESSION).value)), 200);
    });

    it("logout is seen by the other within a second", async () => {
        const id = await session();
        assert.equal(await status(other, id), 200);
        assert.equal((await stack.check("/authservice/logout", { method: "POST", token: id })).status, 201);
        assert.ok(await goneElsewhere(id) <= 1100);
    });

    it("back-channel logout is seen by the other within a second", async () => {
        const id = await session("carol");
        assert.equal(await status(other, id), 200);
        const token = await stack.provider.logoutToken({ sub: "carol" });
        const answer = await request({
            port: stack.webPort, path: "/authservice/backchannel_logout", method: "POST",
            body: new URLSearchParams({ logout_token: token }).toString(), headers: { "content-type": "application/x-www-form-urlencoded" },
        });
        assert.equal(answer.status, 200);
        assert.ok(await goneElsewhere(id) <= 1100);
        assert.equal(await status(stack, id), 302);
    });

    it("refresh once for both", async () => {
        const id = await session();
        await sleep(6500);
        const before = stack.proxy.calls["/token"];
        const answers = await Promise.all(Array.from({ length: 64 }, (_, i) => status(i % 2 ? other : stack, id)));
        assert.deepEqual([...new Set(answers)], [200]);
        assert.equal(stack.proxy.calls["/token"], before + 1);
    });
});

describe("Redis", () => {
    it("has neither ids nor tokens nor claims in the clear", async () => {
        const id = await session();
        const keys = (await redis.command("KEYS", "*"));
        assert.doesNotMatch(keys, new RegExp(id));
        for (const [key] of keys.matchAll(/moonlatch:s:[^\r]+/g))
            assert.doesNotMatch(await redis.command("GET", key), /alice|access_token|email/);
    });

    it("killed: known sessions for a moment, then 503, never a login page; back: good within two seconds (S-420, S-421)", async () => {
        const id = await session();
        const bearer = await stack.token("alice", 3600);
        assert.equal((await stack.check("/app", { token: bearer })).status, 200);
        assert.equal(await status(stack, id), 200);
        await redis.kill();
        const seen = new Set();
        for (let i = 0; i < 30; i++) {
            seen.add(await status(stack, id));
            await sleep(100);
        }
        assert.ok(!seen.has(302), "no login page");
        assert.ok(seen.has(503), [...seen].join());
        assert.equal((await stack.check("/app", { token: bearer })).status, 200, "bearer tokens do not care");
        await redis.start();
        await until("the session is known again", async () => (await status(stack, id)) === 200, 2000);
        let good = 0; // each worker has a connection of its own
        await until("it is known to all workers", async () => (good = (await status(stack, id)) === 200 ? good + 1 : 0) >= 20, 2000);
        await sleep(1100);
    });

    it("slow: 503 soon, nothing hangs, no answer is another's (S-422, S-172)", async () => {
        const ids = [await session("alice"), await session("bob")];
        const users = ["alice@example.com", "bob@example.com"];
        await sleep(1100);
        const blocked = redis.command("DEBUG", "SLEEP", "1.5");
        await sleep(100);
        const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => stack.check("/app", asCookie(ids[i % 2]))));
        for (const [i, answer] of answers.entries()) {
            assert.ok([200, 503].includes(answer.status), String(answer.status));
            assert.ok(answer.ms < 1400, `${answer.ms} ms`);
            if (answer.status === 200) assert.equal(answer.headers["kubeflow-userid"], users[i % 2]);
        }
        await blocked;
        for (const [i, id] of ids.entries()) {
            const answer = await until("it is back", async () => {
                const each = await stack.check("/app", asCookie(id));
                return each.status === 200 && each;
            });
            assert.equal(answer.headers["kubeflow-userid"], users[i]);
        }
    });

    it("emptied: log in again (S-424)", async () => {
        const id = await session();
        await redis.command("FLUSHALL");
        await sleep(1100);
        assert.equal(await status(stack, id), 302);
    });

    it("read-only: logout counts here at once, and reaches it later (S-423)", async () => {
        const id = await session();
        await redis.command("CONFIG", "SET", "min-replicas-to-write", "1"); // writes fail with NOREPLICAS
        const answer = await stack.check("/authservice/logout", { method: "POST", token: id });
        assert.ok([201, 503].includes(answer.status));
        assert.equal(await status(stack, id), 302, "dead here");
        await redis.command("CONFIG", "SET", "min-replicas-to-write", "0");
        await goneElsewhere(id);
    });
});

describe("revoke", () => {
    const bySubject = () => `subject=alice&issuer=${encodeURIComponent(stack.issuer)}`;
    for (const [name, what] of Object.entries({ user: () => "user=alice%40example.com", subject: bySubject, all: () => "all=" }))
        it(`${name}: sessions and bearer tokens are forgotten on both within a second`, async () => {
            const id = await session();
            const bearer = await stack.token("alice", 3600);
            for (const server of [stack, other]) assert.equal((await server.check("/app", { token: bearer })).status, 200);
            assert.equal(await status(other, id), 200);
            const before = stack.userinfoCalls();
            const answer = await stack.admin("POST", "/revoke", what());
            assert.equal(answer.status, 200, answer.body);
            assert.equal(await status(stack, id), 302);
            assert.ok(await goneElsewhere(id) <= 1100);
            for (const server of [stack, other]) assert.equal((await server.check("/app", { token: bearer })).status, 200);
            assert.equal(stack.userinfoCalls(), before + 2, "both asked again");
        });

    it("another issuer's subject of that name keeps its session", async () => {
        const id = await session();
        assert.equal((await stack.admin("POST", "/revoke", "subject=alice&issuer=https%3A%2F%2Fother.example")).status, 200);
        assert.equal(await status(stack, id), 200);
    });

    it("token, by the subcommand: that bearer token is forgotten on both, nothing else", async () => {
        const id = await session();
        const [bearer, kept] = [await stack.token("alice", 3600), await stack.token("alice", 3600)];
        for (const server of [stack, other])
            for (const token of [bearer, kept]) assert.equal((await server.check("/app", { token })).status, 200);
        const file = join(stack.dir, "token");
        writeFileSync(file, `${bearer}\n`);
        const command = new Child("revoke", process.env.MOONLATCH, ["revoke", "--token", file], { env: stack.environment() });
        assert.equal(await command.exited, 0, command.log);
        assert.match(command.log, /forgotten here: 1\n/);
        assert.doesNotMatch(command.log, new RegExp(bearer));
        const before = stack.userinfoCalls();
        await until("both ask about it again", async () => {
            for (const server of [stack, other]) for (const token of [bearer, kept]) await server.check("/app", { token });
            return stack.userinfoCalls() === before + 2;
        }, 1000);
        assert.equal(await status(stack, id), 200);
    });

    it("the subcommand without a server, or without somebody, says so", async () => {
        const run = async (args, env = {}) => {
            const command = new Child("revoke", process.env.MOONLATCH, ["revoke", ...args], { env: { ...stack.environment(), ...env } });
            return [await command.exited, command.log];
        };
        const [code, text] = await run(["--all"], { ADMIN_ADDR: `unix:${stack.dir}/nobody.sock` });
        assert.deepEqual([code, /no server answers/.test(text)], [1, true], text);
        for (const args of [[], ["--user"], ["--user", ""], ["--nobody", "x"], ["--user", "a", "--all"], ["--token", stack.dir], ["--token", "/nowhere"]])
            assert.equal((await run(args))[0], 2, args.join(" "));
    });
});
