// The identity provider in trouble: known users notice nothing, unknown ones get 503 in time, and it is over when it is over.
import assert from "node:assert/strict";
import { after, afterEach, before, describe, it } from "node:test";
import { SLOW, sleep, until } from "../support/client.mjs";
import { CONNECTION_FAULTS, ODD_ANSWERS } from "../support/fault_proxy.mjs";
import { ENVOYS, startStack } from "../support/stack.mjs";

const USERINFO = { path: "/me" };
const RECOVERY = 2000;  // ms
const DEADLINE = 5000;  // ms, of one check

let stack;
let known;
before(async () => {
    stack = await startStack({ envoys: ENVOYS, kubernetes: false });
    known = await stack.token("alice");
    assert.equal((await stack.check("/app", { token: known })).status, 200);
});
after(() => stack?.stop());
afterEach(recovered);

async function newcomer(user = "bob") {
    return stack.check("/app", { token: await stack.token(user) });
}

// The provider is well again: a user that nobody has seen gets in, soon.
async function recovered() {
    await stack.proxy.set("pass");
    await until("a new user gets in", async () => (await newcomer()).status === 200, RECOVERY);
}

async function assertOutage() {
    const token = await stack.token("bob");
    const [stranger, friend] = await Promise.all([stack.check("/app", { token }), stack.check("/app", { token: known })]);
    assert.equal(friend.status, 200, "a cached user is not affected");
    assert.equal(friend.headers["kubeflow-userid"], "alice@example.com");
    assert.ok(friend.ms < 500 * SLOW, `a cached user waited ${friend.ms} ms`);
    assert.equal(stranger.status, 503, "what cannot be found out is 503");
    assert.ok(stranger.headers["retry-after"], "a 503 has Retry-After");
    assert.ok(stranger.ms < (DEADLINE + 500) * SLOW, `an unknown user waited ${stranger.ms} ms`);
    return token;
}

describe("the provider's connection", () => {
    for (const fault of ["refuse", ...CONNECTION_FAULTS]) {
        it(`${fault}: known users 200, unknown ones 503, recovery within ${RECOVERY} ms`, async () => {
            await stack.proxy.set(fault, USERINFO);
            const token = await assertOutage();
            await stack.proxy.set("pass");
            await until("the same token gets in", async () => (await stack.check("/app", { token })).status === 200, RECOVERY);
        });
    }
});

describe("the provider's answer", () => {
    for (const answer of ODD_ANSWERS) {
        it(`${answer}: is not an identity, and not a refusal (S-404, S-407, S-409)`, async () => {
            await stack.proxy.set(answer, USERINFO);
            await assertOutage();
        });
    }

    for (const status of [302, 404, 408, 429, 500, 502, 503, 504]) {
        it(`status ${status} is 503`, async () => {
            await stack.proxy.set("status", { ...USERINFO, status, retryAfter: status === 429 ? "1" : undefined });
            await assertOutage();
        });
    }

    for (const status of [401, 403]) {
        it(`status ${status} is a refusal: 401`, async () => {
            await stack.proxy.set("status", { ...USERINFO, status });
            // Each worker has a breaker of its own; the other one may still be open from the case before.
            await until("it is 401", async () => {
                const answer = await newcomer();
                assert.ok([401, 503].includes(answer.status), String(answer.status));
                return answer.status === 401;
            }, RECOVERY);
        });
    }

    it("a failure is not remembered as a refusal (S-046)", async () => {
        await stack.proxy.set("status", { ...USERINFO, status: 500, once: true });
        const token = await stack.token("carol");
        assert.equal((await stack.check("/app", { token })).status, 503);
        await until("the same token gets in", async () => (await stack.check("/app", { token })).status === 200, RECOVERY);
    });
});

describe("through Envoy an outage is 503, too", () => {
    for (const envoy of ENVOYS) {
        it(envoy, async () => {
            await stack.proxy.set("refuse");
            const token = await stack.token("bob");
            const calls = stack.echo.calls;
            assert.equal((await stack.via(envoy, "/app", { token })).status, 503);
            assert.equal(stack.echo.calls, calls);
            assert.equal((await stack.via(envoy, "/app", { token: known })).status, 200);
        });
    }
});

describe("while the provider is down (S-401)", () => {
    it("strangers are turned away at once, after a few tries", async () => {
        await stack.proxy.set("refuse");
        for (let i = 0; i < 8; i++) await newcomer();
        const times = [];
        for (let i = 0; i < 20; i++) {
            const answer = await newcomer();
            assert.equal(answer.status, 503);
            times.push(answer.ms);
        }
        times.sort((a, b) => a - b);
        assert.ok(times[10] < 20 * SLOW, `median ${times[10]} ms`);
    });

    it("readiness stays, since known users are served", async () => {
        await stack.proxy.set("refuse");
        await newcomer();
        assert.ok(await stack.isReady());
        assert.equal((await stack.check("/public")).status, 200);
        assert.equal((await stack.check("/app")).status, 401);
    });
});

describe("a provider that hangs (S-402, S-403, S-414)", () => {
    it("does not collect more than 64 questions a worker, and nobody waits past the deadline", async () => {
        stack.proxy.reset();
        await stack.proxy.set("hang", USERINFO);
        const tokens = await Promise.all(Array.from({ length: 300 }, () => stack.token("bob")));
        const answers = await Promise.all(tokens.map((token) => stack.check("/app", { token })));
        assert.deepEqual([...new Set(answers.map(({ status }) => status))], [503]);
        assert.ok(stack.proxy.maxOpen <= 2 * 64, `${stack.proxy.maxOpen} questions at one time`);
        const slowest = Math.max(...answers.map(({ ms }) => ms));
        assert.ok(slowest < (DEADLINE + 1500) * SLOW, `the slowest answer took ${slowest} ms`);
    });
});

describe("a provider that comes and goes (S-410)", () => {
    it("never makes a wrong answer", async () => {
        for (let round = 0; round < 5; round++) {
            await stack.proxy.set(round % 2 ? "pass" : "refuse");
            for (let i = 0; i < 10; i++) {
                const token = await stack.token("bob");
                const [stranger, liar, friend] = await Promise.all([
                    stack.check("/app", { token }), stack.check("/app", { token: `nobody-${round}-${i}` }),
                    stack.check("/app", { token: known }),
                ]);
                assert.ok([200, 503].includes(stranger.status), `a good token: ${stranger.status}`);
                assert.ok([401, 503].includes(liar.status), `a bad token: ${liar.status}`);
                assert.equal(friend.status, 200);
            }
            await sleep(100);
        }
    });
});

describe("429 (S-408)", () => {
    it("is obeyed: the provider is left alone until Retry-After", async () => {
        const own = await startStack({ kubernetes: false, env: { MOONLATCH_WORKERS: "1" } });
        try {
            await own.proxy.set("status", { ...USERINFO, status: 429, retryAfter: "3" });
            const started = performance.now();
            assert.equal((await own.check("/app", { token: await own.token("bob") })).status, 503);
            await own.proxy.set("pass");
            own.proxy.reset();
            for (let i = 0; i < 5; i++) assert.equal((await own.check("/app", { token: await own.token("bob") })).status, 503);
            assert.equal(own.userinfoCalls(), 0);
            await until("a new user gets in", async () => (await own.check("/app", { token: await own.token("bob") })).status === 200);
            assert.ok(performance.now() - started > 2900);
        } finally {
            await own.stop();
        }
    });

    for (const retryAfter of ["-1", "soon", "Thu, 01 Jan 1970 00:00:00 GMT", "99999999999999999999"]) {
        it(`with Retry-After "${retryAfter}" is still 503, and known users go on`, async () => {
            // A stack of its own: the last one may keep the provider untouched for a minute.
            const own = await startStack({ kubernetes: false });
            try {
                const friend = await own.token("alice");
                assert.equal((await own.check("/app", { token: friend })).status, 200);
                await own.proxy.set("status", { ...USERINFO, status: 429, retryAfter });
                assert.equal((await own.check("/app", { token: await own.token("bob") })).status, 503);
                assert.equal((await own.check("/app", { token: friend })).status, 200);
            } finally {
                await own.stop();
            }
        });
    }
});

it("the controls still answer rightly", () => stack.assertServes());
