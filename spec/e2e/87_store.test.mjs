// The embedded session store on its bad days: restarts, a rolling update, damaged files, no file (S-420, S-435, S-436).
import assert from "node:assert/strict";
import { mkdirSync, openSync, readFileSync, readdirSync, rmdirSync, statSync, truncateSync, writeSync, closeSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Browser } from "../support/browser.mjs";
import { SLOW, sleep, total, until } from "../support/client.mjs";
import { startStack } from "../support/stack.mjs";

const SESSION = "authservice_session";
const asCookie = (value) => ({ headers: { cookie: `${SESSION}=${value}` } });

async function login(stack) {
    const browser = new Browser();
    assert.equal((await browser.login(`${stack.origin}/app`)).status, 200, browser.visited.join("\n"));
    return stack.secret(browser.cookie(SESSION).value);
}

describe("the embedded store", () => {
    let stack, file;
    before(async () => {
        stack = await startStack({ kubernetes: false, login: true });
        file = join(stack.dir, "sessions.db.lmdb");
    });
    after(() => stack?.stop());

    const status = async (id, at = stack) => (await at.check("/app", asCookie(id))).status;
    const aside = () => readdirSync(stack.dir).filter((name) => name.startsWith("sessions.db.lmdb.damaged-"));

    it("keeps sessions over a restart, with a key of its own that only we can read", async () => {
        const id = await login(stack);
        await stack.server.stop();
        await stack.startServer();
        assert.equal(await status(id), 200);
        assert.equal(statSync(`${file}.key`).mode & 0o777, 0o600);
        const bytes = readFileSync(file);
        for (const text of [id, "alice@", "access_token", "claims"]) assert.equal(bytes.indexOf(text), -1, text);
    });

    it("is handed over in a rolling update: the new one waits for the old one's end (S-436)", async () => {
        const id = await login(stack);
        const starting = stack.startReplica();
        await sleep(1000);
        assert.equal(await status(id), 200);
        await stack.server.stop();
        const replica = await starting;
        assert.equal(await status(id, replica), 200);
        await replica.child.stop();
        await stack.startServer();
    });

    it("is set aside when it is damaged, and all log in again (S-435)", async () => {
        const id = await login(stack);
        await stack.server.stop();
        const fd = openSync(file, "r+");
        for (let at = 2 * 4096; at < statSync(file).size; at += 4096) writeSync(fd, Buffer.alloc(512, 0xa5), 0, 512, at);
        closeSync(fd);
        await stack.startServer();
        await until("the new store is open", async () => (await status(id)) === 302, 3000 * SLOW);
        assert.equal(await status(await login(stack)), 200);
        assert.equal(aside().length, 1);
        assert.equal(total(await stack.metrics(), "moonlatch_session_set_aside_total"), 1);
        assert.match(stack.server.log, /the session store is damaged/);
    });

    it("may be cut short under our hands (S-435)", async () => {
        const id = await login(stack);
        truncateSync(file, 8192);
        for (let i = 0; i < 20; i++) {
            assert.ok([200, 302, 503].includes(await status(id)));
            await sleep(100);
        }
        await until("a login works", async () => (await status(await login(stack).catch(() => "A"))) === 200, 5000 * SLOW);
        stack.assertAlive();
        assert.equal(aside().length, 2);
    });
});

describe("a store that cannot be opened at the start (S-420)", () => {
    let stack, file;
    before(async () => {
        stack = await startStack({ kubernetes: false, login: true, wait: "none", env: { SESSION_STORE_TYPE: "lmdb" } });
        file = join(stack.dir, "later");
        mkdirSync(file); // a directory in its place
        await stack.server.stop("SIGKILL");
        stack.env.SESSION_STORE_PATH = file;
        stack.wait = "live";
        await stack.startServer();
    });
    after(() => stack?.stop());

    it("leaves bearer tokens, makes sessions unavailable, and is opened when that can be", async () => {
        const token = await stack.token();
        await until("the token is good", async () => (await stack.check("/app", { token })).status === 200, 5000 * SLOW);
        await until("the probe names the store", async () => /session store/.test((await stack.probe()).body), 5000 * SLOW);
        assert.equal((await stack.check("/app", asCookie(`mls_${"A".repeat(43)}`))).status, 503);
        rmdirSync(file);
        await until("it is ready", () => stack.isReady(), 5000 * SLOW);
        assert.equal((await stack.check("/app", asCookie(`mls_${"A".repeat(43)}`))).status, 302);
    });
});
