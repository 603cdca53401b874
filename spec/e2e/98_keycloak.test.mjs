// Keycloak as a second provider: another program's idea of the same standards.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Browser } from "../support/browser.mjs";
import { sleep, until } from "../support/client.mjs";
import { CLIENT, PASSWORD, findKeycloak, startKeycloak } from "../support/keycloak.mjs";
import { startStack } from "../support/stack.mjs";

const SESSION = "authservice_session";
const skip = findKeycloak() ? false : "there is no Keycloak: deploy/setup.sh --keycloak";
if (skip) console.log(`skipped as a whole: ${skip}`);

let keycloak;
let stack;
before(async () => {
    if (skip) return;
    keycloak = await startKeycloak();
    stack = await startStack({
        envoys: ["istio-http"], kubernetes: false, login: true, wait: "live",
        env: { OIDC_PROVIDER: keycloak.issuer, CLIENT_ID: CLIENT.id, CLIENT_SECRET: CLIENT.secret, OIDC_SCOPES: "openid,email" },
    });
    stack.secret(CLIENT.secret);
    await keycloak.makeRealm(stack.origin, stack.webPort);
    await until("it is ready", () => stack.isReady(), 20000);
});
after(async () => {
    await stack?.stop();
    await keycloak?.close();
});

const asCookie = (value) => ({ headers: { cookie: `${SESSION}=${value}` } });

async function session() {
    const browser = new Browser();
    const form = await browser.open(`${stack.origin}/app?a=1`);
    const page = await browser.submit(form, { username: "alice", password: PASSWORD });
    assert.equal(page.url, `${stack.origin}/app?a=1`, browser.visited.join("\n"));
    assert.equal(page.status, 200);
    return Object.assign(browser, { page, session: stack.secret(browser.cookie(SESSION).value) });
}

describe("Keycloak", { skip }, () => {
    it("logs in, with groups", async () => {
        const { page } = await session();
        const headers = Object.fromEntries(JSON.parse(page.body).headers);
        assert.equal(headers["kubeflow-userid"], "alice@example.com");
        assert.deepEqual(headers["kubeflow-groups"].split(",").sort(), ["dev", "ops"]);
    });

    it("renews the access token once for all who wait", async () => {
        const { session: id } = await session();
        await sleep(4500);
        const before = keycloak.calls("token");
        const answers = await Promise.all(Array.from({ length: 16 }, () => stack.check("/app", asCookie(id))));
        assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200]);
        assert.equal(keycloak.calls("token"), before + 1);
    });

    it("signs out here and there, and comes back to our page", async () => {
        const browser = await session();
        const end = await browser.submit(await browser.send(`${stack.origin}/authservice/logout`));
        assert.match(end.url, /\/authservice\/site\/after_logout/, browser.visited.join("\n"));
        assert.equal(end.status, 200);
        assert.equal((await stack.check("/app", asCookie(browser.session))).status, 302);
        assert.match((await browser.open(`${stack.origin}/app`)).body, /name="password"/, "it asks for the password again");
        assert.ok(keycloak.calls("revoke") > 0);
    });

    it("tells when an administrator ends the user's sessions", async () => {
        const [one, two] = [await session(), await session()];
        await keycloak.logOut("alice");
        await until("both have ended", async () => {
            const answers = await Promise.all([one, two].map(({ session: id }) => stack.check("/app", asCookie(id))));
            return answers.every(({ status }) => status === 302);
        }, 1500);
    });

    it("may be away: who is known stays known, and nobody is logged out", async () => {
        const { session: id } = await session();
        await sleep(4500);
        await keycloak.proxy.set("reset");
        assert.equal((await stack.check("/app", asCookie(id))).status, 200);
        await keycloak.proxy.set("pass");
    });
});
