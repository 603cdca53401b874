// kill -9 at any moment: every session that a browser was given is still there afterwards (S-434).
import assert from "node:assert/strict";
import { after, before, it } from "node:test";
import { Browser } from "../support/browser.mjs";
import { SLOW, sleep } from "../support/client.mjs";
import { startStack } from "../support/stack.mjs";

const SESSION = "authservice_session";
const KILLS = Number(process.env.E2E_KILLS ?? (SLOW > 1 ? 20 : 200)); // a sanitizer build starts slowly

let stack;
before(async () => { stack = await startStack({ kubernetes: false, login: true }); });
after(() => stack?.stop());

const isCallback = (url) => url.includes("/authservice/oidc/callback");

// A browser that is logged in at the provider, so that a login is two hops.
async function regular() {
    const browser = new Browser();
    await browser.login(`${stack.origin}/app`);
    return browser;
}

// One more login of that browser; the session it was given, or undefined when the server went away under it.
async function again(browser) {
    browser.jar = browser.jar.filter(({ name }) => name !== SESSION);
    try {
        const page = await browser.open(`${stack.origin}/app`, {}, { stop: isCallback });
        await browser.send(page.stopped);
        return browser.cookie(SESSION)?.value;
    } catch {
        return undefined;
    }
}

it(`${KILLS} times kill -9 during logins loses no session that was given out`, async () => {
    const browsers = await Promise.all(Array.from({ length: 4 }, regular));
    const given = browsers.map((browser) => browser.cookie(SESSION).value);
    for (let round = 0; round < KILLS; round++) {
        let stop = false;
        const runs = browsers.map(async (browser) => {
            while (!stop) {
                const id = await again(browser);
                if (id) given.push(id);
                else await sleep(5);
            }
        });
        await sleep(20 + Math.random() * 120);
        await stack.server.stop("SIGKILL");
        stop = true;
        await Promise.all(runs);
        await stack.startServer();
        // Those of this round, and some of the others.
        const looked = [...given.slice(-40), ...Array.from({ length: 10 }, () => given[Math.floor(Math.random() * given.length)])];
        for (const id of looked)
            assert.equal((await stack.check("/app", { headers: { cookie: `${SESSION}=${id}` } })).status, 200, `round ${round}`);
    }
    for (const id of new Set(given))
        assert.equal((await stack.check("/app", { headers: { cookie: `${SESSION}=${id}` } })).status, 200);
    console.log(`# ${new Set(given).size} sessions given out over ${KILLS} kills`);
});
