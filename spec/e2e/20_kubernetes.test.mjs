// Service account tokens, reviewed by the API server.
import assert from "node:assert/strict";
import { after, afterEach, before, describe, it } from "node:test";
import { SLOW, sleep, until } from "../support/client.mjs";
import { API_AUDIENCE, DEFAULT_AUDIENCE } from "../support/tokenreview.mjs";
import { ENVOYS, startStack } from "../support/stack.mjs";

let stack;
before(async () => { stack = await startStack({ envoys: ENVOYS, env: { AUDIENCES: `other-audience, ${DEFAULT_AUDIENCE}` } }); });
after(() => stack?.stop());
afterEach(() => { stack.tokenreview.mode = "pass"; });

const check = (token, path = "/app") => stack.check(path, { token });

describe("a service account's token", () => {
    it("is 200 with its name and groups", async () => {
        const answer = await check(stack.kubeToken());
        assert.equal(answer.status, 200);
        assert.equal(answer.headers["kubeflow-userid"], "system:serviceaccount:team-a:pipeline");
        assert.equal(answer.headers["kubeflow-groups"],
            "system:serviceaccounts,system:serviceaccounts:team-a,system:authenticated");
        assert.equal(answer.headers["auth-method"], "header");
    });

    it("is 204 for verify", async () => assert.equal((await check(stack.kubeToken(), "/authservice/verify")).status, 204));

    it("is reviewed once while it is cached", async () => {
        const token = stack.kubeToken();
        const before = stack.tokenreview.calls;
        for (let i = 0; i < 5; i++) assert.equal((await check(token)).status, 200);
        assert.equal(stack.tokenreview.calls - before, 1);
    });

    for (const envoy of ENVOYS) {
        it(`reaches the application through Envoy as in ${envoy}.yaml`, async () => {
            const { headers } = await stack.seenByApp(envoy, "/app", { token: stack.kubeToken(), headers: { "kubeflow-userid": "root" } });
            assert.deepEqual(headers["kubeflow-userid"], ["system:serviceaccount:team-a:pipeline"]);
        });
    }
});

describe("is refused with 401", () => {
    for (const text of ["service account token has expired", "Token has expired"]) {
        it(`an expired one, in the words "${text}" (Q20)`, async () => {
            stack.tokenreview.expiredText = text;
            const before = stack.tokenreview.calls;
            assert.equal((await check(stack.kubeToken({ ttl: -10 }))).status, 401);
            assert.ok(stack.tokenreview.calls - before <= 1);
        });
    }

    it("one for the API server's own audience", async () => {
        assert.equal((await check(stack.kubeToken({ audiences: [API_AUDIENCE] }))).status, 401);
    });

    it("one for an audience of somebody else", async () => {
        assert.equal((await check(stack.kubeToken({ audiences: ["vault"] }))).status, 401);
    });

    it("one with a forged signature", async () => {
        const [head, body, signature] = stack.kubeToken().split(".");
        const forged = `${head}.${body}.${signature.startsWith("A") ? "B" : "A"}${signature.slice(1)}`;
        assert.equal((await check(stack.secret(forged))).status, 401);
    });

    it("one of which the API server says nothing at all", async () => {
        stack.tokenreview.mode = "empty"; // "authenticated": false is left out, and there is no error either
        assert.equal((await check(stack.kubeToken())).status, 401);
    });

    it("one that was accepted for audiences we did not ask for", async () => {
        stack.tokenreview.mode = "shrink";
        assert.notEqual((await check(stack.kubeToken())).status, 200);
    });
});

describe("the token's own expiry", () => {
    it("ends the cached identity, whatever the cache's time is (S-045)", async () => {
        const token = stack.kubeToken({ ttl: 3 });
        assert.equal((await check(token)).status, 200);
        await until("the token has expired", async () => (await check(token)).status === 401, 6000);
    });
});

describe("credentials go only where they belong (Q7)", () => {
    it("a refused Kubernetes token is not sent to the provider", async () => {
        const before = stack.userinfoCalls();
        for (const token of [stack.kubeToken({ ttl: -10 }), stack.kubeToken({ audiences: ["vault"] }), stack.kubeToken()])
            await check(token);
        assert.equal(stack.userinfoCalls(), before);
    });

    it("not even while the API server is away", async () => {
        const before = stack.userinfoCalls();
        stack.tokenreview.mode = 500;
        assert.equal((await check(stack.kubeToken())).status, 503);
        assert.equal(stack.userinfoCalls(), before);
    });

    it("an opaque string follows the chain's order: nothing tells whose it is", async () => {
        const token = await stack.token("alice");
        assert.equal((await check(token)).status, 200);
        assert.equal((await check(stack.secret("an-opaque-token-nobody-knows"))).status, 401);
        assert.ok(stack.tokenreview.seen.includes(token));
    });
});

describe("an API server in trouble is not the opaque tokens' trouble", () => {
    it("a known user of the provider is answered while it hangs: at once while its refusal is remembered, later after one time-out", async () => {
        const token = await stack.token("alice");
        assert.equal((await check(token)).status, 200);
        stack.tokenreview.mode = "hang";
        const soon = await check(token);
        assert.equal(soon.status, 200);
        assert.ok(soon.ms < 500 * SLOW, `${soon.ms} ms`);
        await sleep(6000); // refusals are remembered for 5 s
        const later = await check(token);
        assert.equal(later.status, 200);
        assert.ok(later.ms < 4500 * SLOW, `${later.ms} ms`);
    });
});

describe("an API server in trouble is 503, never 401", () => {
    for (const mode of [500, 429, 503, "forbidden", "other_kind"]) {
        it(`answering ${mode}`, async () => {
            stack.tokenreview.mode = mode;
            const answer = await check(stack.kubeToken());
            assert.equal(answer.status, 503);
            assert.ok(answer.headers["retry-after"]);
        });
    }

    it("hanging, within the deadline of a check", async () => {
        stack.tokenreview.mode = "hang";
        const answer = await check(stack.kubeToken());
        assert.equal(answer.status, 503);
        assert.ok(answer.ms < 6000, `${answer.ms} ms`);
    });

    it("and works again as soon as it does", async () => {
        const token = stack.kubeToken();
        await until("the API server is asked again", async () => (await check(token)).status === 200, 2500);
    });
});

it("the controls still answer rightly", () => stack.assertServes());
