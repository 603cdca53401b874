// Sessions after the login: refresh, strict mode, logout, revocation, back-channel logout.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { Browser } from "../support/browser.mjs";
import { SLOW, raw, request, sleep } from "../support/client.mjs";
import { startStack } from "../support/stack.mjs";

const SESSION = "authservice_session";

let stack;
before(async () => {
    stack = await startStack({
        envoys: ["istio-http"], kubernetes: false, login: true, env: { SESSION_CACHE_SECONDS: "1" }, provider: { ttl: { AccessToken: 4 } },
    });
});
after(() => stack?.stop());

const calls = (path) => stack.proxy.calls[path] ?? 0;
const asCookie = (value) => ({ headers: { cookie: `${SESSION}=${value}` } });

async function session(user = "alice") {
    const browser = new Browser();
    const page = await browser.login(`${stack.origin}/app`, user);
    assert.equal(page.status, 200, browser.visited.join("\n"));
    return Object.assign(browser, { session: stack.secret(browser.cookie(SESSION).value) });
}

describe("refresh", () => {
    it("happens once, however many requests come after the access token's end", async () => {
        const { session: id } = await session();
        await sleep(4500);
        const before = calls("/token");
        const answers = await Promise.all(Array.from({ length: 64 }, () => stack.check("/app", asCookie(id))));
        assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200]);
        assert.equal(calls("/token"), before + 1);
    });

    it("goes on with rotated refresh tokens", async () => {
        const { session: id } = await session();
        for (let round = 0; round < 2; round++) {
            await sleep(4500);
            const before = calls("/token");
            assert.equal((await stack.check("/app", asCookie(id))).status, 200);
            assert.equal(calls("/token"), before + 1, `round ${round}`);
        }
    });

    it("that cannot be asked keeps the session (Q8), one that is refused ends it", async () => {
        const { session: id } = await session("bob");
        await sleep(4500);
        await stack.proxy.set("reset", { path: "/token" });
        assert.equal((await stack.check("/app", asCookie(id))).status, 200, "an outage is no refusal");
        await stack.proxy.set("status", { status: 503, path: "/token" });
        assert.equal((await stack.check("/app", asCookie(id))).status, 200);
        await stack.proxy.set("pass");
        await stack.provider.forget("bob");
        let status;
        for (let i = 0; i < 70 && status !== 302; i++) {
            await sleep(200);
            status = (await stack.check("/app", asCookie(id))).status;
        }
        assert.equal(status, 302, "invalid_grant ends it");
    });
});

describe("logout", () => {
    it("by a program: the session as bearer, 201 and where to go (Q36)", async () => {
        const { session: id } = await session();
        const answer = await stack.check("/authservice/logout", { method: "POST", token: id });
        assert.equal(answer.status, 201);
        assert.match(JSON.parse(answer.body).afterLogoutURL, /after_logout/);
        assert.equal((await stack.check("/app", asCookie(id))).status, 302, "it is dead at once");
        assert.equal((await stack.check("/authservice/logout", { method: "POST", token: id })).status, 401, "and unknown");
    });

    it("with the cookie alone is 401: anybody could have sent it (Q22)", async () => {
        const { session: id } = await session();
        assert.equal((await stack.check("/authservice/logout", { method: "POST", ...asCookie(id) })).status, 401);
        const foreign = { cookie: `${SESSION}=${id}`, origin: "https://evil.example", "sec-fetch-site": "cross-site" };
        assert.ok([401, 403].includes((await stack.check("/authservice/logout", { method: "POST", headers: foreign })).status));
        assert.equal((await stack.check("/app", asCookie(id))).status, 200);
    });

    it("by a browser: a page that asks, a form that does it, the provider's session ends as well (S-261, S-068)", async () => {
        const browser = await session();
        const page = await browser.send(`http://127.0.0.1:${stack.checkPort}/authservice/logout`);
        assert.equal(page.status, 405);
        assert.match(page.body, /<form[^>]*method="post"/i);
        assert.equal((await stack.check("/app", asCookie(browser.session))).status, 200, "asking is harmless");
        const revoked = calls("/token/revocation");
        const end = await browser.submit(page, {}, { stop: (url) => url.includes("/session/end") });
        assert.ok(end.stopped, browser.visited.join("\n"));
        const url = new URL(end.stopped);
        assert.ok(url.searchParams.get("id_token_hint"));
        assert.match(url.searchParams.get("post_logout_redirect_uri"), /after_logout/);
        stack.secret(url.searchParams.get("id_token_hint"));
        assert.equal(browser.cookie(SESSION), undefined, "the cookie is gone");
        assert.equal((await stack.check("/app", asCookie(browser.session))).status, 302, "so is the session");
        assert.ok(calls("/token/revocation") > revoked);
    });

    it("ends the session though the provider is away (Q10, S-256)", async () => {
        const { session: id } = await session();
        await stack.proxy.set("refuse");
        const answer = await stack.check("/authservice/logout", { method: "POST", token: id });
        await stack.proxy.set("pass");
        assert.equal(answer.status, 201);
        assert.equal((await stack.check("/app", asCookie(id))).status, 302);
    });
});

describe("back-channel logout", () => {
    const post = (body) => request({
        port: stack.webPort, path: "/authservice/backchannel_logout", method: "POST", body,
        headers: { "content-type": "application/x-www-form-urlencoded" },
    });
    const form = (token) => new URLSearchParams({ logout_token: token }).toString();

    it("by the provider's own token ends all sessions of the subject, once (S-262, S-078)", async () => {
        const [one, two] = [await session("carol"), await session("carol")];
        const other = await session("alice");
        const token = await stack.provider.logoutToken({ sub: "carol" });
        const answer = await post(form(token));
        assert.equal(answer.status, 200, answer.body);
        assert.equal(answer.headers["cache-control"], "no-store");
        await sleep(1000);
        for (const { session: id } of [one, two]) assert.equal((await stack.check("/app", asCookie(id))).status, 302);
        assert.equal((await stack.check("/app", asCookie(other.session))).status, 200);
        assert.equal((await post(form(token))).status, 400, "a replay");
    });

    it("by anything else is 400 (S-264)", async () => {
        const events = { "http://schemas.openid.net/event/backchannel-logout": {} };
        const made = (claims) => stack.provider.logoutToken({ sub: "alice" }, claims);
        const none = (token) => `${Buffer.from('{"alg":"none","typ":"logout+jwt"}').toString("base64url")}.${token.split(".")[1]}.`;
        const hmac = (token) => {
            const head = `${Buffer.from('{"alg":"HS256","typ":"logout+jwt"}').toString("base64url")}.${token.split(".")[1]}`;
            return `${head}.${createHmac("sha256", "client-secret-of-the-tests").update(head).digest("base64url")}`;
        };
        const { session: id } = await session("alice");
        const bad = {
            "no token": "", "an empty one": "logout_token=", "two": `${form(await made())}&logout_token=x`, "no JWT": "logout_token=abc",
            "alg none": form(none(await made())), "alg HS256": form(hmac(await made())), "a foreign aud": form(await made({ aud: "other" })),
            "a foreign iss": form(await made({ iss: "https://evil.example" })), "no events": form(await made({ events: undefined })),
            "a wrong event": form(await made({ events: { "http://example.com/x": {} } })),
            "an event that is no object": form(await made({ events: { "http://schemas.openid.net/event/backchannel-logout": [] } })),
            "a nonce": form(await made({ events, nonce: "n" })), "no jti": form(await made({ jti: undefined })),
            "no iat": form(await made({ iat: undefined })), "neither sub nor sid": form(await made({ sub: undefined, sid: undefined })),
            "an old one": form(await made({ iat: Math.floor(Date.now() / 1000) - 86400, exp: Math.floor(Date.now() / 1000) - 86000 })),
        };
        for (const [what, body] of Object.entries(bad)) assert.equal((await post(body)).status, 400, what);
        assert.equal((await request({ port: stack.webPort, path: "/authservice/backchannel_logout" })).status, 405, "GET");
        assert.equal((await stack.check("/app", asCookie(id))).status, 200, "nobody was logged out");
    });
});

describe("the web port", () => {
    const ask = (head, body = "") => raw(stack.webPort, `POST /backchannel_logout HTTP/1.1\r\nHost: app\r\nConnection: close\r\n${head}\r\n${body}`);
    const sized = (n, more = "") => ask(`${more}Content-Length: ${n}\r\n`, `logout_token=${"a".repeat(n - 13)}`);
    const FORM = "Content-Type: application/x-www-form-urlencoded\r\n";

    it("reads bodies up to a bound, whatever they are, and no longer than it must", async () => {
        assert.equal((await sized(16384, FORM)).status, 400);
        for (const n of [65536, 1 << 20]) assert.equal((await sized(n, FORM)).status, 413, n);
        const chunk = `${(1 << 17).toString(16)}\r\n${"a".repeat(1 << 17)}\r\n`;
        assert.equal((await ask("Transfer-Encoding: chunked\r\n", chunk.repeat(8))).status, 413, "chunked");
        assert.equal((await ask("Transfer-Encoding: chunked\r\n", "3\r\na=b\r\n0\r\n\r\n")).status, 400);
        for (const type of ["", "Content-Type: text/plain\r\n", "Content-Type: multipart/form-data; boundary=x\r\n", `${FORM}${FORM}`])
            assert.equal((await sized(100, type)).status, 400, type);
        assert.equal((await sized(100, `${FORM}Expect: 100-continue\r\n`)).status, 400);
    });

    it("ends a body that never comes", async () => {
        const started = performance.now();
        const { status } = await raw(stack.webPort, `POST /backchannel_logout HTTP/1.1\r\nHost: app\r\nContent-Length: 100\r\n\r\na=b`, { quiet: 20000 });
        assert.ok(status === 408 || status === 0, status);
        assert.ok(performance.now() - started < 10000 * SLOW);
    });
});

describe("revoke", () => {
    const revoke = (body) => stack.admin("POST", "/revoke", body);

    it("of what is nobody's name is 400, and nobody is gone", async () => {
        const { session: id } = await session();
        for (const body of ["", "=", "&", "all=1", "user", "user=", "user=%00", "user=alice%00", "user=%zz", `user=${"a".repeat(2049)}`, "email=alice",
            "issuer=x", "subject=alice", "subject=alice&issuer=", "sid=&issuer=x", "token=", `token=${"a".repeat(16385)}`, "USER=alice", "kind=user&value=alice"])
            assert.ok([400, 413].includes((await revoke(body)).status), body.slice(0, 40));
        assert.equal((await revoke(`user=${"a".repeat(16384 * 2)}`)).status, 413);
        assert.equal((await stack.admin("GET", "/revoke")).status, 405);
        assert.equal((await stack.check("/app", asCookie(id))).status, 200);
    });

    it("of a token takes one as long as JWTs get, and a session's id", async () => {
        assert.equal((await revoke(`token=${"a".repeat(8192)}`)).status, 200);
        const { session: id } = await session();
        assert.equal((await revoke(`token=${id}`)).status, 200);
        assert.equal((await stack.check("/app", asCookie(id))).status, 302);
    });
});

describe("strict mode", () => {
    it("asks UserInfo, and a user whom the provider no longer knows is out", async () => {
        const strict = await stack.startReplica({ STRICT_SESSION_VALIDATION: "on", SESSION_STORE_TYPE: "memory", SESSION_CACHE_SECONDS: "0" });
        const browser = new Browser();
        const page = await browser.open(`http://127.0.0.1:${strict.checkPort}/app`, {}, { stop: (url) => url.includes("/authservice/oidc/callback") });
        const end = await browser.submit(page, { login: "bob" }, { stop: (url) => url.includes("/authservice/oidc/callback") });
        const callback = new URL(end.stopped);
        callback.port = String(strict.checkPort);
        await browser.send(callback.href);
        const id = stack.secret(browser.cookie(SESSION).value);
        const before = calls("/me");
        for (let i = 0; i < 3; i++) assert.equal((await strict.check("/app", asCookie(id))).status, 200);
        assert.ok(calls("/me") >= before + 3);
        await stack.proxy.set("status", { status: 500, path: "/me" });
        assert.equal((await strict.check("/app", asCookie(id))).status, 503, "could not be found out");
        await stack.proxy.set("pass");
        await stack.provider.forget("bob");
        assert.equal((await strict.check("/app", asCookie(id))).status, 302, "refused is out");
    });
});

describe("the end", () => {
    it("no id, code or token is in the log", () => stack.assertNoSecretLogged());
});
