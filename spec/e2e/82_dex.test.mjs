// The installations that the ancestor is found in: Dex behind the same gateway with relative addresses, the environment of Kubeflow's
// manifests; and every way in which providers want to be asked. Each logs somebody in.
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Browser } from "../support/browser.mjs";
import { freePort, until } from "../support/client.mjs";
import { ROOT } from "../support/processes.mjs";
import { CLIENT } from "../support/provider.mjs";
import { startStack } from "../support/stack.mjs";
import { startSecured } from "../support/tls.mjs";

const SESSION = "authservice_session";
const headersOf = (page) => Object.fromEntries(JSON.parse(page.body).headers);

// What Kubeflow 1.6 to 1.8 give the ancestor (params.env), and nothing else but where this machine's files and ports are.
async function kubeflow(more = {}) {
    const check = await freePort();
    const old = {
        OIDC_AUTH_URL: "/dex/auth", OIDC_SCOPES: "profile email groups", AUTHSERVICE_URL_PREFIX: "/authservice/", SKIP_AUTH_URLS: "/dex",
        AFTER_LOGOUT_URL: "/", USERID_HEADER: "kubeflow-userid", USERID_PREFIX: "", USERID_CLAIM: "email", PORT: String(check),
    };
    const ours = ["SERVER_PORT", "REDIRECT_URL", "ACCESS_TOKEN_AUTHN", "LOGIN_CLIENTS", "CACHE_ENABLED", "AUDIENCES"];
    const stack = await startStack({
        envoys: ["kubeflow"], wait: "live", provider: { dex: true }, ports: { check },
        env: { ...Object.fromEntries(ours.map((name) => [name, undefined])), ...old, ...more },
    });
    await until("it is ready", () => stack.isReady(), 10000);
    return stack;
}

describe("Dex behind Kubeflow's gateway, with the environment of 1.6 to 1.8", () => {
    let stack;
    before(async () => { stack = await kubeflow(); });
    after(() => stack?.stop());

    it("starts, with a word about the old names", () => {
        assert.match(stack.server.log, /PORT/);
        stack.assertAlive();
    });

    it("sends a browser to the same gateway's /dex, and back (Q34)", async () => {
        const answer = await new Browser().send(`${stack.origin}/app`);
        assert.equal(answer.status, 302);
        const url = new URL(answer.headers.location, stack.origin);
        assert.match(answer.headers.location, /^\/dex\/auth\?/);
        assert.equal(url.searchParams.get("redirect_uri"), "/authservice/oidc/callback");
        assert.equal(url.searchParams.get("scope"), "openid profile email groups");

        const browser = new Browser();
        const page = await browser.login(`${stack.origin}/app?a=1`);
        assert.equal(page.url, `${stack.origin}/app?a=1`, browser.visited.join("\n"));
        assert.equal(headersOf(page)["kubeflow-userid"], "alice@example.com");
        assert.ok(browser.visited.every((line) => line.includes(stack.origin)), "everything went through the gateway");
        stack.secret(browser.cookie(SESSION).value);
    });

    it("opens /dex and nothing that only begins like it (Q33, Q35)", async () => {
        assert.equal((await new Browser().send(`${stack.origin}/dex/.well-known/openid-configuration`)).status, 200);
        for (const path of ["/dexter", "/dex/../app", "/Dex/auth"])
            assert.equal((await new Browser().send(stack.origin + path)).status, 302, path);
    });

    it("signs out at AFTER_LOGOUT_URL, as the provider has no logout of its own", async () => {
        const browser = new Browser();
        await browser.login(`${stack.origin}/app`);
        const { value } = browser.cookie(SESSION);
        const page = await browser.send(`${stack.origin}/authservice/logout`);
        assert.match(page.body, /<form/);
        const end = await browser.submit(page, {}, { stop: (url) => url.includes("/dex/") });
        assert.ok(browser.visited.some((line) => line === `GET ${stack.origin}/ -> 302`), browser.visited.join("\n"));
        assert.ok(end.stopped, "which asks for a login again");
        assert.equal((await stack.check("/app", { headers: { cookie: `${SESSION}=${stack.secret(value)}` } })).status, 302);
    });

    it("logs programs out with 201", async () => {
        const browser = new Browser();
        await browser.login(`${stack.origin}/app`);
        const answer = await stack.check("/authservice/logout", { method: "POST", token: stack.secret(browser.cookie(SESSION).value) });
        assert.equal(answer.status, 201);
        assert.deepEqual(JSON.parse(answer.body), { afterLogoutURL: "/" });
    });
});

describe("the ancestor's other settings", () => {
    let stack;
    before(async () => { stack = await kubeflow({ LOGIN_CLIENTS: "all", AFTER_LOGIN_URL: "/welcome", SESSION_SAME_SITE: "Strict" }); });
    after(() => stack?.stop());

    it("LOGIN_CLIENTS=all sends everybody to the login, but for verify (Q16)", async () => {
        for (const [what, options] of Object.entries({
            POST: { method: "POST" }, JSON: { headers: { accept: "application/json" } }, "fetch()": { headers: { "sec-fetch-mode": "cors" } },
            "a bad bearer": { token: "no-such-token" },
        })) assert.equal((await stack.check("/app", options)).status, 302, what);
        assert.equal((await stack.check("/authservice/verify/app")).status, 401);
    });

    it("AFTER_LOGIN_URL gets the place as next, and Strict a page in between", async () => {
        const browser = new Browser();
        const page = await browser.login(`${stack.origin}/app?a=1&b=2`);
        assert.equal(page.status, 201, browser.visited.join("\n"));
        assert.equal(browser.cookie(SESSION).attributes.get("samesite"), "Strict");
        const next = /http-equiv="refresh" content="0; url=([^"]+)"/.exec(page.body)[1].replaceAll("&amp;", "&");
        assert.equal(next, "/welcome?next=%2Fapp%3Fa%3D1%26b%3D2");
        assert.equal((await browser.send(stack.origin + next)).status, 200);
        stack.secret(browser.cookie(SESSION).value);
    });
});

describe("behind https", () => {
    it("a cookie named __Host- with SameSite None logs in and out, and leaves nothing (S-068, Q23)", async () => {
        const name = "__Host-session";
        const { stack, origin, stop } = await startSecured({ env: { SESSION_COOKIE_NAME: name, SESSION_SAME_SITE: "None" } });
        const browser = new Browser();
        const page = await browser.login(`${origin}/app`);
        assert.equal(page.url, `${origin}/app`, browser.visited.join("\n"));
        const { attributes, path, value } = browser.cookie(name);
        stack.secret(value);
        assert.ok(attributes.has("secure") && attributes.has("httponly") && !attributes.has("domain") && path === "/");
        assert.equal(attributes.get("samesite"), "None");
        await browser.submit(await browser.send(`${origin}/authservice/logout`), {}, { stop: (url) => url.includes("/session/end") });
        assert.deepEqual(browser.jar.filter(({ host }) => host === "127.0.0.1"), []);
        await stop();
    });

    it("without https such a name is refused at the start", async () => {
        const stack = await startStack({ kubernetes: false, wait: "none", env: { SESSION_COOKIE_NAME: "__Host-session" } });
        assert.equal(await stack.server.exited, 2, stack.server.tail());
        assert.match(stack.server.log, /__Host-session.*https/);
        await stack.stop();
    });
});

const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const jwks = { keys: [{ ...publicKey.export({ format: "jwk" }), kid: "ours", alg: "ES256", use: "sig" }] };
// Settings of the policy, what the provider knows of this client, and what the requests must show.
const WAYS = {
    client_secret_basic: { env: {}, client: { token_endpoint_auth_method: "client_secret_basic" } },
    client_secret_post: { env: {}, client: { token_endpoint_auth_method: "client_secret_post" } },
    private_key_jwt: {
        env: { CLIENT_SECRET: "", TEST_KEY: privateKey.export({ format: "pem", type: "pkcs8" }) },
        client: { token_endpoint_auth_method: "private_key_jwt", client_secret: undefined, jwks },
    },
    none: { env: { CLIENT_SECRET: "" }, client: { token_endpoint_auth_method: "none", client_secret: undefined } },
    "form_post": { method: "client_secret_basic", env: { TEST_RESPONSE_MODE: "form_post" }, client: {} },
    "pushed requests": {
        method: "private_key_jwt", env: { CLIENT_SECRET: "", TEST_PUSH: "true", TEST_KEY: privateKey.export({ format: "pem", type: "pkcs8" }) },
        client: { token_endpoint_auth_method: "private_key_jwt", client_secret: undefined, jwks, require_pushed_authorization_requests: true },
        features: { pushedAuthorizationRequests: { enabled: true } },
    },
};

describe("a login with", () => {
    for (const [name, { method = name, env, client, features }] of Object.entries(WAYS)) it(name, async () => {
        const { stack, origin, stop } = await startSecured({
            policy: join(ROOT, "spec", "e2e", "policies", "clients.lua"), env: { TEST_AUTH_METHOD: method, ...env }, provider: { client, features },
        });
        stack.secret(env.TEST_KEY ?? CLIENT.secret);
        const browser = new Browser();
        let page = await browser.login(`${origin}/app`);
        if (name === "form_post") page = await browser.submit(page); // a script of the provider's page would
        assert.equal(page.url, `${origin}/app`, browser.visited.join("\n"));
        assert.equal(page.status, 200);
        assert.equal(headersOf(page)["kubeflow-userid"], "alice@example.com");
        assert.equal(headersOf(page)["kubeflow-groups"], "dev,ops");
        const authorize = browser.visited.find((line) => line.includes("/auth?"));
        assert.equal(authorize.includes("request_uri="), name === "pushed requests");
        assert.equal(browser.visited.some((line) => line.startsWith("POST") && line.includes("/oidc/callback")), name === "form_post");
        stack.secret(browser.cookie(SESSION).value);
        await stop();
    });
});
