// What is asked of others for a decision: introspection of a real provider, an external authorizer, SubjectAccessReview.
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { sleep, until } from "../support/client.mjs";
import { CONNECTION_FAULTS, ODD_ANSWERS } from "../support/fault_proxy.mjs";
import { ROOT } from "../support/processes.mjs";
import { startStack } from "../support/stack.mjs";

const RECOVERY = 3000; // ms
const policyOf = (name) => join(ROOT, "spec", "e2e", "policies", `${name}.lua`);

for (const signed of [false, true])
    describe(`introspection, answers ${signed ? "signed (RFC 9701)" : "in JSON"}`, () => {
        const INTROSPECTION = { path: "/token/introspection" };
        let stack, known;
        const calls = () => stack.proxy.calls[INTROSPECTION.path] ?? 0;
        const check = (token, path = "/app") => stack.check(path, { token });
        const newcomer = async () => check(await stack.token("bob"));
        before(async () => {
            stack = await startStack({
                envoys: ["istio-http"], kubernetes: false, policy: policyOf("introspected"),
                env: { AUTH_METHOD: signed ? "client_secret_post" : "client_secret_basic" },
                provider: {
                    features: { introspection: { enabled: true }, jwtIntrospection: { enabled: signed } },
                    client: { token_endpoint_auth_method: signed ? "client_secret_post" : "client_secret_basic" },
                },
            });
            known = await stack.token("alice");
            assert.equal((await check(known)).status, 200);
        });
        after(() => stack?.stop());

        it("say whose token it is, through Envoy", async () => {
            const { status, headers } = await stack.seenByApp("istio-http", "/app", { token: await stack.token("carol") });
            assert.equal(status, 200);
            assert.deepEqual([headers["kubeflow-userid"], headers["auth-method"]], [["carol"], ["header"]]);
        });

        it("are asked for once a token", async () => {
            const token = await stack.token("alice");
            const before = calls();
            for (const { status } of await Promise.all(Array.from({ length: 50 }, () => check(token)))) assert.equal(status, 200);
            assert.equal(calls() - before, 1);
        });

        it("refuse what is unknown, revoked or has expired", async () => {
            assert.equal((await check("unknown")).status, 401);
            const [revoked, short] = [await stack.token("alice"), await stack.token("alice", 2)];
            await stack.provider.revoke(revoked);
            assert.equal((await check(revoked)).status, 401);
            assert.equal((await check(short)).status, 200);
            await sleep(2100);
            assert.equal((await check(short)).status, 401, "cached for five minutes, but not past its exp (S-045)");
        });

        it("hold for a route's own scope and audience, in any order (S-040, S-042)", async () => {
            const [token, api] = [await stack.token("alice"), await stack.token("alice", 60, { audience: "my-api" })];
            for (const path of ["/mail", "/app", "/mail", "/api"])
                assert.equal((await check(token, path)).status, path === "/app" ? 200 : 401, path);
            assert.match((await check(token, "/mail")).body, /lacks the scope mail/);
            assert.match((await check(token, "/api")).body, /another audience/);
            assert.equal((await check(api)).status, 401, "a JWT that the provider does not introspect");
        });

        for (const fault of ["refuse", ...CONNECTION_FAULTS, ...ODD_ANSWERS])
            it(`that are ${fault} are an outage, not a refusal`, async () => {
                await stack.proxy.set(fault, INTROSPECTION);
                const [stranger, friend] = await Promise.all([newcomer(), check(known)]);
                assert.deepEqual([stranger.status, friend.status], [503, 200], stranger.body);
                assert.ok(stranger.headers["retry-after"]);
                await stack.proxy.set("pass");
                await until("a new user gets in", async () => (await newcomer()).status === 200, RECOVERY);
            });

        it("401 and 403 are a refusal of ourselves, in the log and not remembered (S-254)", async () => {
            for (const status of [401, 403]) {
                await stack.proxy.set("status", { ...INTROSPECTION, status });
                const said = new RegExp(`the introspection endpoint refuses our credentials".*"status":${status}`);
                let token;
                await until("the log says so", async () => { // a breaker may be open from the case before
                    token = await stack.token("bob");
                    assert.equal((await check(token)).status, 503);
                    return said.test(stack.server.log);
                }, RECOVERY);
                await stack.proxy.set("pass");
                await until("the same token gets in", async () => (await check(token)).status === 200, RECOVERY);
            }
        });
    });
