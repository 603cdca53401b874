// Many requests at one time: one question to the provider for each token, however many wait for the answer.
import assert from "node:assert/strict";
import { after, afterEach, before, describe, it } from "node:test";
import { until } from "../support/client.mjs";
import { ENVOYS, startStack } from "../support/stack.mjs";

let stack;
before(async () => { stack = await startStack({ envoys: ENVOYS, kubernetes: true }); });
after(() => stack?.stop());
afterEach(() => stack.proxy.set("pass"));

const statuses = (answers) => [...new Set(answers.map(({ status }) => status))];
const many = (n, send) => Promise.all(Array.from({ length: n }, (_each, i) => send(i)));

describe("1,000 simultaneous requests with one new token (S-414)", () => {
    it("are one UserInfo call, and all of them get in", async () => {
        const token = await stack.token("alice");
        await stack.proxy.set("delay", { path: "/me", delay: 500 });
        const before = stack.userinfoCalls();
        const answers = await many(1000, (i) => stack.check(`/app/${i}`, { token }));
        assert.deepEqual(statuses(answers), [200]);
        assert.ok(answers.every(({ headers }) => headers["kubeflow-userid"] === "alice@example.com"));
        assert.equal(stack.userinfoCalls() - before, 1);
    });

    it("are one call when the token is bad, and nobody gets in", async () => {
        await stack.proxy.set("delay", { path: "/me", delay: 300 });
        const before = stack.userinfoCalls();
        assert.deepEqual(statuses(await many(1000, () => stack.check("/app", { token: "a-bad-one" }))), [401]);
        assert.equal(stack.userinfoCalls() - before, 1);
    });

    it("are one call when the provider fails, and all of them get 503", async () => {
        const token = await stack.token("alice");
        await stack.proxy.set("hang", { path: "/me" });
        const before = stack.userinfoCalls();
        assert.deepEqual(statuses(await many(500, () => stack.check("/app", { token }))), [503]);
        assert.ok(stack.userinfoCalls() - before <= 5, `${stack.userinfoCalls() - before} calls`);
        await stack.proxy.set("pass");
        await until("the token gets in", async () => (await stack.check("/app", { token })).status === 200, 2000);
    });

    it("are one TokenReview", async () => {
        const token = stack.kubeToken();
        const before = stack.tokenreview.calls;
        assert.deepEqual(statuses(await many(300, () => stack.check("/app", { token }))), [200]);
        assert.equal(stack.tokenreview.calls - before, 1);
    });
});

describe("the one that asks goes away", () => {
    it("and the others still get their answer", async () => {
        const token = await stack.token("bob");
        await stack.proxy.set("delay", { path: "/me", delay: 500 });
        const first = stack.check("/app", { token, timeout: 100 }).catch(() => "gone");
        const others = await many(20, () => stack.check("/app", { token }));
        await first;
        assert.deepEqual(statuses(others), [200]);
    });
});

describe("many users at one time (S-043)", () => {
    it("each gets his own identity", async () => {
        const users = ["alice", "bob", "carol"];
        const tokens = await many(90, (i) => stack.token(users[i % 3]));
        await stack.proxy.set("delay", { path: "/me", delay: 50 });
        const answers = await many(900, (i) => stack.check("/app", { token: tokens[i % 90] }));
        for (const [i, answer] of answers.entries()) {
            assert.equal(answer.status, 200);
            assert.equal(answer.headers["kubeflow-userid"], `${users[i % 3]}@example.com`);
        }
    });
});

for (const envoy of ENVOYS) {
    it(`300 at one time through Envoy as in ${envoy}.yaml are one UserInfo call`, async () => {
        const token = await stack.token("alice");
        await stack.proxy.set("delay", { path: "/me", delay: 300 });
        const before = stack.userinfoCalls();
        const answers = await many(300, () => stack.via(envoy, "/app", { token }));
        assert.deepEqual(statuses(answers), [200]);
        assert.ok(answers.every(({ body }) => body.includes("alice@example.com")));
        assert.equal(stack.userinfoCalls() - before, 1);
    });
}

it("the controls still answer rightly", () => stack.assertServes());
