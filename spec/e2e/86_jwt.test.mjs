// JWT access tokens of a real provider (resource indicators): verified without asking it, by keys that change.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHmac, createPrivateKey, createPublicKey, randomUUID, sign } from "node:crypto";
import net from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { sleep, total, until } from "../support/client.mjs";
import { ROOT } from "../support/processes.mjs";
import { makeKeys, startProvider } from "../support/provider.mjs";
import { startStack } from "../support/stack.mjs";
import { DEFAULT_AUDIENCE } from "../support/tokenreview.mjs";

const PAUSE = 10000; // between two readings of the keys that tokens ask for
const AUDIENCE = DEFAULT_AUDIENCE;
const ENV = { ACCESS_TOKEN_AUTHN: "jwt" };
const encode = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
const decode = (part) => JSON.parse(Buffer.from(part, "base64url"));
const keyCalls = (stack) => stack.proxy.calls["/jwks"] ?? 0;

// A token of these claims over the usual ones, signed with the provider's RSA key; undefined removes a claim.
function craft(stack, claims = {}, header = {}, key = stack.provider.keys[0]) {
    const now = Math.floor(Date.now() / 1000);
    const all = { iss: stack.issuer, aud: AUDIENCE, sub: "alice", email: "alice@example.com", iat: now, exp: now + 600, jti: randomUUID(), ...claims };
    const input = `${encode({ alg: "RS256", kid: key.kid, typ: "at+jwt", ...header })}.${encode(all)}`;
    return stack.secret(`${input}.${sign("sha256", Buffer.from(input), createPrivateKey({ key, format: "jwk" })).toString("base64url")}`);
}

// Runs `moonlatch jwt` in the server's environment. -> { code, text }
function explain(stack, token, ...options) {
    return new Promise((done) => {
        const child = execFile(process.env.MOONLATCH, ["jwt", ...options, "-"], { env: stack.environment() }, (error, out, err) =>
            done({ code: error?.code ?? 0, text: out + err }));
        child.stdin.end(token);
    });
}

// Checks many tokens, a few at a time. -> how often each status
async function statuses(stack, tokens) {
    const counts = {};
    for (let i = 0; i < tokens.length; i += 16)
        for (const { status } of await Promise.all(tokens.slice(i, i + 16).map((token) => stack.check("/app", { token }))))
            counts[status] = (counts[status] ?? 0) + 1;
    return counts;
}

async function refused(stack, token, why) {
    const answer = await stack.check("/app", { token });
    assert.equal(answer.status, 401, `${why}: ${answer.body}`);
    if (why) assert.match(answer.body, why);
    assert.match(answer.headers["www-authenticate"], /^Bearer/);
    assert.equal(answer.headers["kubeflow-userid"], undefined);
    return answer;
}

describe("a JWT access token", () => {
    let stack;
    before(async () => { stack = await startStack({ envoys: ["istio-http"], kubernetes: false, audience: AUDIENCE, env: ENV }); });
    after(() => stack?.stop());

    for (const alg of ["RS256", "ES256"])
        it(`signed with ${alg} says who it is, through Envoy`, async () => {
            const token = await stack.token("alice", 3600, { alg });
            const { status, headers } = await stack.seenByApp("istio-http", "/app", { token });
            assert.equal(status, 200);
            assert.deepEqual(headers["kubeflow-userid"], ["alice@example.com"]);
            assert.deepEqual(headers["kubeflow-groups"], ["dev,ops"]);
            assert.deepEqual(headers["auth-method"], ["header"]);
        });

    it("costs a look-up once it was verified, and asks nobody", async () => {
        const token = await stack.token("bob");
        const before = { calls: { ...stack.proxy.calls }, metrics: await stack.metrics() };
        assert.deepEqual(await statuses(stack, Array(200).fill(token)), { 200: 200 });
        assert.deepEqual(stack.proxy.calls, before.calls);
        assert.ok(total(await stack.metrics(), "moonlatch_cache_hits_total") - total(before.metrics, "moonlatch_cache_hits_total") >= 180);
    });

    it("ends with its exp, cached or not", async () => {
        const token = await stack.token("alice", 2);
        assert.equal((await stack.check("/app", { token })).status, 200);
        await sleep(2100);
        const answer = await refused(stack, token, /^expired \ds ago/);
        assert.match(answer.headers["www-authenticate"], /^Bearer error="invalid_token", error_description="expired \ds ago"$/);
        await refused(stack, craft(stack, { exp: Math.floor(Date.now() / 1000) - 7200 }), /^expired 2h ago/);
    });

    it("for others is not ours (S-103, S-104)", async () => {
        await refused(stack, await stack.token("alice", 60, { audience: "https://api.example" }), /no credential was accepted/);
        for (const claims of [{ iss: `${stack.issuer}/` }, { iss: "https://evil.example" }, { iss: [stack.issuer] }, { iss: undefined },
            { aud: undefined }, { aud: [] }, { aud: "" }, { aud: [[AUDIENCE]] }, { aud: `${AUDIENCE}x` }])
            await refused(stack, craft(stack, claims), /no credential was accepted/);
        assert.equal((await stack.check("/app", { token: craft(stack, { aud: ["x", AUDIENCE] }) })).status, 200, "the control");
    });

    it("must be signed, by a key of the provider (S-090 to S-094)", async () => {
        const good = craft(stack);
        const [head, payload, signature] = good.split(".");
        for (const alg of ["none", "None", "nOnE", "NONE", "", null, ["RS256"], "HS256", undefined])
            for (const last of ["", signature])
                await refused(stack, `${encode({ ...decode(head), alg })}.${payload}.${last}`);
        const other = makeKeys("of-the-tests")[0];
        await refused(stack, craft(stack, {}, {}, other), /^bad signature/);
        const { kty, n, e } = other;
        await refused(stack, craft(stack, {}, { jwk: { kty, n, e }, jku: `${stack.issuer}/jwks2`, x5u: `${stack.issuer}/x5u` }, other), /^bad signature/);
        assert.equal(stack.proxy.calls["/jwks2"] ?? stack.proxy.calls["/x5u"] ?? 0, 0);
        for (const kid of ["../../../dev/null", "' OR 1=1", "|id", 5, ["RS256-of-the-tests"], "k".repeat(2000)])
            await refused(stack, craft(stack, {}, { kid }));
    });

    it("is not one that was made with the public key as a secret (S-091, S-092)", async () => {
        const key = createPublicKey({ key: stack.provider.keys[0], format: "jwk" });
        const pem = key.export({ type: "spki", format: "pem" });
        const { kty, n, e } = stack.provider.keys[0];
        const secrets = [pem, pem.trim(), key.export({ type: "spki", format: "der" }), key.export({ type: "pkcs1", format: "der" }),
            Buffer.from(n, "base64url"), JSON.stringify({ kty, n, e }), ""];
        for (const [alg, hash] of [["HS256", "sha256"], ["HS384", "sha384"], ["HS512", "sha512"]])
            for (const secret of secrets) {
                const input = `${encode({ alg, kid: "RS256-of-the-tests", typ: "at+jwt" })}.${craft(stack).split(".")[1]}`;
                await refused(stack, `${input}.${createHmac(hash, secret).update(input).digest("base64url")}`, /alg is not known/);
            }
    });

    it("is strict JSON in strict base64url, in three parts (S-097, S-098, S-101, S-106 to S-109)", async () => {
        const good = craft(stack);
        const [head, payload, signature] = good.split(".");
        const text = Buffer.from(payload, "base64url").toString();
        const twice = `${head}.${encode(`${text.slice(0, -1)},"sub":"root"}`)}.${signature}`;
        const deep = `${head}.${encode(`${text.slice(0, -1)},"x":${"[".repeat(3000)}${"]".repeat(3000)}}`)}.${signature}`;
        for (const token of [twice, deep, `${good}=`, `${good}.`, `${good}.${good}`, `${good}A`, good.slice(0, -1), `${head}.${payload}`, `${head}..${signature}`,
            `${good}.a.b`, ".".repeat(8000), `${head}=.${payload}.${signature}`, `{"payload":"${payload}"}`, `${head}.${payload}+.${signature}`,
            `${encode({ alg: "dir", enc: "A256GCM" })}.a.b.c.d`])
            await refused(stack, token);
        for (const header of [{ crit: ["exp"] }, { crit: [] }, { b64: false }, { zip: "DEF" }, { enc: "A256GCM" }])
            await refused(stack, craft(stack, {}, header), /is not accepted/);
    });

    it("has moments that are moments (S-105)", async () => {
        for (const exp of [undefined, null, 0, -1, 1e300, "9999999999", [], 2 ** 53 + 2, Number.NaN])
            await refused(stack, craft(stack, { exp }), /exp is|expired/);
        for (const name of ["nbf", "iat"])
            for (const value of ["1", -1, 1e300, Math.floor(Date.now() / 1000) + 90])
                await refused(stack, craft(stack, { [name]: value }));
    });

    it("is an access token and nothing else (S-112)", async () => {
        await refused(stack, craft(stack, {}, { typ: "logout+jwt" }), /another kind/);
        await refused(stack, craft(stack, { nonce: "n" }, { typ: "JWT" }), /ID token/);
        await refused(stack, stack.secret(stack.provider.logoutToken({ sub: "alice" }, { aud: AUDIENCE })), /another kind/);
        await refused(stack, stack.secret(stack.provider.logoutToken({ sub: "alice" })));
    });

    it("with any one bit changed is refused", async () => {
        const token = await stack.token("alice", 3600, { alg: "ES256" });
        const changed = [];
        for (let i = 0; i < token.length; i++)
            for (let bit = 0; bit < 7; bit++) {
                const code = token.charCodeAt(i) ^ (1 << bit);
                if (code > 32 && code < 127) changed.push(token.slice(0, i) + String.fromCharCode(code) + token.slice(i + 1));
            }
        const counts = await statuses(stack, changed);
        assert.deepEqual(counts, { 401: changed.length });
        assert.equal((await stack.check("/app", { token })).status, 200);
    });

    it("with a kid that nobody knows has the keys read once, however many come (S-049)", async () => {
        await sleep(PAUSE + 100);
        const before = keyCalls(stack);
        const tokens = Array.from({ length: 1000 }, () => craft(stack, {}, { kid: randomUUID() }));
        assert.deepEqual(await statuses(stack, tokens), { 401: 1000 });
        assert.equal(keyCalls(stack), before + 1);
    });

    it("is explained by moonlatch jwt, without its signature", async () => {
        const token = await stack.token("alice");
        let { code, text } = await explain(stack, `${token}\n`);
        assert.equal(code, 0, text);
        assert.match(text, /^header +\{"alg":"RS256",/);
        assert.match(text, /\nclaims +\{.*"email":"alice@example.com"/);
        assert.match(text, /\nexp +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, in (59|60) min\nkey +RS256-of-the-tests\n/);
        assert.match(text, /\n {2}jwt:main +accept: alice@example.com\n {2}=> allow \(alice@example.com\)\n$/);
        assert.ok(!text.includes(token.split(".")[2]));
        const cases = {
            [craft(stack, { exp: Math.floor(Date.now() / 1000) - 7300 })]: [1, /2 h ago[^]*reject: expired 2h ago[^]*deny 401/],
            [craft(stack, {}, {}, makeKeys("of-the-tests")[0])]: [1, /reject: bad signature/],
            [craft(stack, { aud: "x", exp: "soon" })]: [1, /skip: the token is for another audience/],
            [craft(stack, { sub: "\u009b31m\u007f" }).replace(/[^.]+$/, "")]: [1, /empty part/],
            "no-jwt": [1, /has not three parts/], "a.b.c.d.e": [1, /JWE/], "a.b.c": [1, /no base64url/], "": [2, /holds no token/],
        };
        for (const [one, [wanted, pattern]] of Object.entries(cases)) {
            ({ code, text } = await explain(stack, one));
            assert.match(text, pattern);
            assert.equal(code, wanted, text);
        }
        ({ code, text } = await explain(stack, craft(stack, { sub: "\u009b31m\u007f" }), "--policy", stack.policy));
        assert.doesNotMatch(text, /[\u0080-\u009f\u007f]/);
        ({ code, text } = await explain(stack, token, "--policy", "/no/such/file.lua"));
        assert.equal(code, 2, text);
    });

    it("that is an ID token is taken as such, for our client", async () => {
        const token = craft(stack, { aud: "moonlatch", nonce: "n" }, { typ: "JWT" });
        const answer = await stack.check("/app", { token });
        assert.equal(answer.status, 200, answer.body);
        assert.equal(answer.headers["kubeflow-userid"], "alice@example.com");
        await refused(stack, craft(stack, { aud: "moonlatch" }), /another kind/);
        await refused(stack, craft(stack, { aud: ["moonlatch", "other"] }, { typ: "JWT" }), /azp/);
    });
});

describe("the keys", () => {
    let stack, renewed;
    before(async () => {
        stack = await startStack({ kubernetes: false, audience: AUDIENCE, env: ENV });
        renewed = await startProvider({ issuer: stack.issuer, keys: makeKeys("renewed") });
    });
    after(async () => {
        await renewed?.close();
        await stack?.stop();
    });

    it("are good while the provider is down", async () => {
        await stack.proxy.set("refuse");
        try {
            assert.equal((await stack.check("/app", { token: await stack.token("carol") })).status, 200);
            assert.equal((await stack.check("/app", { token: craft(stack, {}, { kid: "unknown" }) })).status, 401);
        } finally {
            await stack.proxy.set("pass");
        }
    });

    it("that are new are read for the first token that they signed; those that are gone verify no more (S-234)", async () => {
        const [seen, unseen] = [await stack.token("alice"), await stack.token("alice")];
        assert.equal((await stack.check("/app", { token: seen })).status, 200);
        await sleep(PAUSE + 100); // after the test before
        stack.proxy.target = renewed.port;
        const before = keyCalls(stack);
        const fresh = await Promise.all(["RS256", "ES256"].map((alg) => renewed.mint({ audience: AUDIENCE, alg })));
        assert.deepEqual(await statuses(stack, [...fresh, ...fresh, ...fresh]), { 200: 6 });
        assert.equal(keyCalls(stack), before + 1);
        await refused(stack, unseen, /key is not known/);
        assert.deepEqual(await statuses(stack, Array(16).fill(seen)), { 200: 16 }, "cached for a few minutes, by all workers");
        stack.proxy.target = stack.provider.port;
    });

    it("are read though whoever made us ask goes away at once (S-113)", async () => {
        await sleep(PAUSE + 100);
        await stack.proxy.set("delay", { path: "/jwks", delay: 300 });
        for (let i = 0; i < 100; i++) {
            const socket = net.connect(stack.checkPort, "127.0.0.1");
            socket.on("error", () => {});
            socket.write(`GET /app HTTP/1.1\r\nHost: app.example.org\r\nAuthorization: Bearer ${craft(stack, {}, { kid: randomUUID() })}\r\n\r\n`);
            await sleep(5 + i % 10);
            socket.resetAndDestroy();
        }
        const before = Date.now();
        const token = await stack.token("bob"); // what is known are still the other keys, of the test before
        await until("the new key is known", async () => (await stack.check("/app", { token })).status === 200, 12000);
        assert.ok(Date.now() - before < 5000, `it took ${Date.now() - before} ms`);
        await stack.proxy.set("pass");
    });
});

it("without any keys it is an outage, not a refusal", async () => {
    const stack = await startStack({ kubernetes: false, audience: AUDIENCE, env: ENV, fault: "refuse", wait: "live" });
    try {
        await stack.proxy.set("status", { status: 503, path: "/jwks" });
        await until("it is ready", () => stack.isReady(), 20000);
        const token = await stack.token("alice");
        const answer = await stack.check("/app", { token });
        assert.equal(answer.status, 503);
        assert.ok(answer.headers["retry-after"]);
        assert.equal((await stack.check("/app", { token: craft(stack, { iss: "https://other.example" }) })).status, 401);
        await stack.proxy.set("pass");
        await until("the keys are read", async () => (await stack.check("/app", { token })).status === 200, 35000);
    } finally {
        await stack.stop();
    }
});

it("two providers share one header; one that is down is none of the other's business", async () => {
    const second = await startProvider({ keys: makeKeys("second") });
    const policy = join(ROOT, "spec", "e2e", "policies", "two_issuers.lua");
    const stack = await startStack({ kubernetes: false, audience: "my-api", policy, env: { SECOND_ISSUER: second.issuer } });
    try {
        const ask = async (provider, options) => stack.check("/app", { token: stack.secret(await provider.mint({ audience: "my-api", ...options })) });
        let answer = await ask(stack.provider);
        assert.deepEqual([answer.status, answer.headers["kubeflow-userid"], answer.headers["x-provider"]], [200, "alice@example.com", "first"]);
        answer = await ask(second, { sub: "bob" });
        assert.deepEqual([answer.status, answer.headers["kubeflow-userid"], answer.headers["x-provider"]], [200, "second:bob", "second"]);
        const [key] = second.keys;
        await refused(stack, craft(stack, { aud: "my-api" }, {}, key), /key is not known/); // the second's key, the first's name (S-246)
        const poor = await stack.check("/app", { token: craft(stack, { iss: second.issuer, aud: "my-api", scope: "openid" }, {}, key) });
        assert.equal(poor.status, 403);
        assert.match(poor.headers["www-authenticate"], /error="insufficient_scope"/);
        await stack.proxy.set("hang");
        assert.equal((await ask(second)).status, 200);
        assert.equal((await ask(stack.provider)).status, 200);
        await stack.proxy.set("pass");
    } finally {
        await stack.stop();
        await second.close();
    }
});
