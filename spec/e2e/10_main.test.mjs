// The main path: who gets in, and what the application sees of it, directly and through both Envoys.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { total } from "../support/client.mjs";
import { ENVOYS, startStack } from "../support/stack.mjs";

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const IDENTITY = ["kubeflow-userid", "kubeflow-groups", "auth-method"];
const FORGED = {
    "kubeflow-userid": "root@example.com", "Kubeflow-Groups": "admin", "AUTH-METHOD": "forged",
};

let stack;
before(async () => { stack = await startStack({ envoys: ENVOYS }); });
after(() => stack?.stop());

describe("a check", () => {
    it("with a valid token is 200 with an empty body and the identity headers", async () => {
        const answer = await stack.check("/app", { token: await stack.token("alice") });
        assert.equal(answer.status, 200);
        assert.equal(answer.body, "");
        assert.equal(answer.headers["kubeflow-userid"], "alice@example.com");
        assert.equal(answer.headers["kubeflow-groups"], "dev,ops");
        assert.equal(answer.headers["auth-method"], "header");
    });

    it("has each identity header exactly once, present though it has no value (S-030, O4)", async () => {
        const { status, lines } = await stack.check("/app", { token: await stack.token("bob") });
        assert.equal(status, 200);
        const values = (name) => lines.filter(([key]) => key === name).map(([, value]) => value);
        assert.deepEqual(values("kubeflow-userid"), ["bob@example.com"]);
        assert.deepEqual(values("kubeflow-groups"), [""]);
        assert.deepEqual(values("auth-method"), ["header"]);
    });

    it("is allowed with any method and the denial has any method too", async () => {
        const token = await stack.token("alice");
        for (const method of METHODS) {
            assert.equal((await stack.check("/app", { token, method })).status, 200, method);
            assert.equal((await stack.check("/app", { method })).status, 401, method);
        }
    });

    const refused = {
        "no credential": {},
        "an unknown token": { token: "no-such-token" },
        "an empty bearer": { headers: { authorization: "Bearer " } },
        "a Basic credential": { headers: { authorization: "Basic YWxpY2U6eA==" } },
        "a token without a scheme": { headers: { authorization: "no-such-token" } },
        "an unknown token of 8 KiB": { token: "x".repeat(8192) },
    };
    for (const [what, options] of Object.entries(refused)) {
        it(`with ${what} is 401 with WWW-Authenticate`, async () => {
            const answer = await stack.check("/app", options);
            assert.equal(answer.status, 401);
            assert.ok(answer.headers["www-authenticate"]);
            for (const name of IDENTITY) assert.equal(answer.headers[name], undefined, name);
        });
    }

    it("with a token that has been revoked before it was ever used is 401", async () => {
        const token = await stack.token("alice");
        await stack.provider.revoke(token);
        assert.equal((await stack.check("/app", { token })).status, 401);
    });

    it("with a token that has expired before it was ever used is 401", async () => {
        const token = await stack.token("alice", 1);
        await new Promise((done) => setTimeout(done, 1500));
        assert.equal((await stack.check("/app", { token })).status, 401);
    });

    it("says nothing of the token or its owner in a denial's body (S-038)", async () => {
        const token = stack.secret("a-token-that-nobody-issued");
        const { body, lines } = await stack.check("/app", { token });
        assert.ok(!(body + JSON.stringify(lines)).includes(token));
    });
});

describe("the cache", () => {
    it("answers the second check without asking the provider", async () => {
        const token = await stack.token("alice");
        const before = { calls: stack.userinfoCalls(), metrics: await stack.metrics() };
        for (let i = 0; i < 10; i++) assert.equal((await stack.check(`/app/${i}`, { token })).status, 200);
        assert.equal(stack.userinfoCalls() - before.calls, 1);
        const metrics = await stack.metrics();
        const grown = (name) => total(metrics, name) - total(before.metrics, name);
        assert.ok(grown("moonlatch_cache_hits_total") >= 9, `hits ${grown("moonlatch_cache_hits_total")}`);
        assert.ok(grown("moonlatch_cache_misses_total") >= 1, `misses ${grown("moonlatch_cache_misses_total")}`);
        assert.ok("moonlatch_cache_bytes" in metrics && "moonlatch_cache_evictions_total" in metrics);
    });

    it("keeps a refusal too: a flood of one bad token is one question", async () => {
        const before = stack.userinfoCalls();
        for (let i = 0; i < 10; i++) assert.equal((await stack.check("/app", { token: "bad-again-and-again" })).status, 401);
        assert.equal(stack.userinfoCalls() - before, 1);
    });

    it("never mixes up two users (S-043)", async () => {
        const users = ["alice", "bob", "carol"];
        const tokens = await Promise.all(users.map((user) => stack.token(user)));
        const checks = [];
        for (let i = 0; i < 60; i++) checks.push(stack.check("/app", { token: tokens[i % 3] }));
        for (const [i, answer] of (await Promise.all(checks)).entries())
            assert.equal(answer.headers["kubeflow-userid"], `${users[i % 3]}@example.com`);
    });
});

describe("verify", () => {
    it("answers 204 with the identity headers to a valid token, for every method", async () => {
        const token = await stack.token("alice");
        for (const method of METHODS) {
            for (const path of ["/authservice/verify", "/authservice/verify/", "/authservice/verify/some/path?q=1"]) {
                const answer = await stack.check(path, { token, method });
                assert.equal(answer.status, 204, `${method} ${path}`);
                assert.equal(answer.headers["kubeflow-userid"], "alice@example.com");
            }
        }
    });

    it("answers 401 to everybody else, for every method", async () => {
        for (const method of METHODS) {
            assert.equal((await stack.check("/authservice/verify", { method })).status, 401, method);
            assert.equal((await stack.check("/authservice/verify/x", { method, token: "unknown" })).status, 401, method);
        }
    });
});

describe("the reserved prefix", () => {
    it("is 404 but for our own places, with and without a credential, for every method", async () => {
        const token = await stack.token("alice");
        for (const path of ["/authservice", "/authservice/", "/authservice/site", "/authservice/site/other", "/authservice/logoutfoo",
            "/authservice/verifyfoo", "/authservice/oidc/callbackfoo"]) {
            for (const method of METHODS) {
                assert.equal((await stack.check(path, { method })).status, 404, `${method} ${path}`);
                assert.equal((await stack.check(path, { method, token })).status, 404, `${method} ${path} with a token`);
            }
        }
    });

    it("lets nothing pass but what is there to be read, with blank identity headers", async () => {
        const token = await stack.token("alice");
        for (const path of ["/authservice/site/homepage", "/authservice/logout", "/authservice/oidc/callback?code=x",
            "/authservice/site/themes/kubeflow/styles.css", "/authservice/site/themes/kubeflow/none.css"])
            for (const method of METHODS) {
                const answer = await stack.check(path, { method, token });
                const passes = /homepage|styles/.test(path) && ["GET", "HEAD"].includes(method);
                assert.equal(answer.status === 200, passes, `${method} ${path}: ${answer.status}`);
                for (const name of IDENTITY) assert.ok(!answer.headers[name], name);
            }
    });

    it("ends at a segment: a neighbour of the same beginning is an ordinary path", async () => {
        assert.equal((await stack.check("/authservicefoo")).status, 401);
    });
});

describe("a skip prefix", () => {
    for (const path of ["/public", "/public/", "/public/a/b?c=d", "/dex/auth"]) {
        it(`lets ${path} through without a credential, with blank identity headers`, async () => {
            const answer = await stack.check(path, { headers: FORGED });
            assert.equal(answer.status, 200);
            for (const name of IDENTITY) assert.equal(answer.headers[name], "", name);
            const removed = answer.headers["x-envoy-auth-headers-to-remove"].toLowerCase().split(/, */);
            for (const name of IDENTITY) assert.ok(removed.includes(name), `${name} is announced for removal`);
        });
    }

    it("does not ask the provider, whatever credential comes along", async () => {
        const before = stack.userinfoCalls();
        assert.equal((await stack.check("/public", { token: "some-token" })).status, 200);
        assert.equal(stack.userinfoCalls(), before);
    });
});

for (const envoy of ENVOYS) {
    describe(`through Envoy as in ${envoy}.yaml`, () => {
        it("the application sees who it is", async () => {
            const { status, headers } = await stack.seenByApp(envoy, "/app", { token: await stack.token("alice") });
            assert.equal(status, 200);
            assert.deepEqual(headers["kubeflow-userid"], ["alice@example.com"]);
            assert.deepEqual(headers["kubeflow-groups"], ["dev,ops"]);
            assert.deepEqual(headers["auth-method"], ["header"]);
        });

        it("forged identity headers are replaced", async () => {
            const { headers } = await stack.seenByApp(envoy, "/app", { token: await stack.token("alice"), headers: FORGED });
            assert.deepEqual(headers["kubeflow-userid"], ["alice@example.com"]);
            assert.deepEqual(headers["kubeflow-groups"], ["dev,ops"]);
            assert.deepEqual(headers["auth-method"], ["header"]);
        });

        it("forged groups of a user without groups do not survive (S-030)", async () => {
            const { headers } = await stack.seenByApp(envoy, "/app", { token: await stack.token("bob"), headers: FORGED });
            assert.deepEqual(headers["kubeflow-userid"], ["bob@example.com"]);
            assert.equal((headers["kubeflow-groups"] ?? [""]).join(), "");
        });

        it("forged identity headers do not survive on a public path (Q6)", async () => {
            const { status, headers } = await stack.seenByApp(envoy, "/public/x", { headers: FORGED });
            assert.equal(status, 200);
            for (const name of IDENTITY) assert.equal((headers[name] ?? [""]).join(), "", name);
        });

        for (const name of ["kubeflow_userid", "kubeflow_groups", "Auth_Method", "Kubeflow.Userid", "auth.method"]) {
            it(`the spelling ${name} does not reach the application (S-016, S-031)`, async () => {
                const options = { token: await stack.token("alice"), headers: { [name]: "root" } };
                const { headers } = await stack.seenByApp(envoy, "/app", options);
                assert.equal(headers?.[name.toLowerCase()], undefined);
                const open = await stack.seenByApp(envoy, "/public", options);
                assert.equal(open.headers?.[name.toLowerCase()], undefined, "on a public path");
            });
        }

        it("a denial never reaches the application", async () => {
            const calls = stack.echo.calls;
            assert.equal((await stack.via(envoy, "/app")).status, 401);
            assert.equal((await stack.via(envoy, "/app", { token: "unknown" })).status, 401);
            assert.equal((await stack.via(envoy, "/authservice/site")).status, 404);
            assert.equal(stack.echo.calls, calls);
        });

        it("a websocket's opening is checked like any other request", async () => {
            const upgrade = "GET /ws HTTP/1.1\r\nHost: app.example.org\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
            assert.equal((await stack.rawVia(envoy, upgrade)).status, 401);
        });
    });
}

it("the controls still answer rightly", () => stack.assertServes());
