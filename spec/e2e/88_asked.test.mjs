// What is asked of others for a decision: introspection of a real provider, an external authorizer, SubjectAccessReview.
import assert from "node:assert/strict";
import http from "node:http";
import { join } from "node:path";
import { after, before, beforeEach, describe, it } from "node:test";
import { Browser } from "../support/browser.mjs";
import { SLOW, sleep, until } from "../support/client.mjs";
import { CONNECTION_FAULTS, ODD_ANSWERS } from "../support/fault_proxy.mjs";
import { ROOT } from "../support/processes.mjs";
import { startStack } from "../support/stack.mjs";

const RECOVERY = 3000; // ms
const policyOf = (name) => join(ROOT, "spec", "e2e", "policies", `${name}.lua`);

// An authorizer that answers what set() says, 200 without. seen: what it was sent.
async function startAuthorizer() {
    const authorizer = { seen: [], set: (answer = {}) => { authorizer.answer = { mode: "answer", status: 200, body: "", ...answer }; } };
    const MODES = {
        answer: (response, { status, body }) => response.writeHead(status, { location: "/elsewhere" }).end(body),
        hang: () => {},
        reset: (response) => response.socket.resetAndDestroy(),
        huge: (response) => response.writeHead(200).end("x".repeat(4 << 20)),
        garbage: (response) => response.socket.end("SSH-2.0-OpenSSH_9.2\r\n"),
    };
    const server = http.createServer((request, response) => {
        const parts = [];
        request.on("data", (part) => parts.push(part));
        request.on("end", () => {
            authorizer.seen.push(JSON.parse(Buffer.concat(parts).toString()));
            MODES[authorizer.answer.mode](response, authorizer.answer);
        });
    });
    authorizer.set();
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    authorizer.port = server.address().port;
    authorizer.url = `http://127.0.0.1:${authorizer.port}/check`;
    authorizer.close = () => new Promise((done) => { server.close(done); server.closeAllConnections(); });
    return authorizer;
}

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

describe("an external authorizer (EXTERNAL_AUTHZ_URL)", () => {
    let stack, authorizer, token;
    const check = (path = "/app", options = {}) => stack.check(path, { token, ...options });
    before(async () => {
        authorizer = await startAuthorizer();
        stack = await startStack({ envoys: ["istio-http"], login: true, upstreams: [authorizer.port], env: { EXTERNAL_AUTHZ_URL: authorizer.url, USERID_PREFIX: "u:" } });
        token = await stack.token("alice");
    });
    after(async () => {
        try {
            await stack?.stop();
        } finally {
            await authorizer?.close();
        }
    });
    beforeEach(() => authorizer.set());

    it("gets the ancestor's document for each request, through Envoy", async () => {
        const { status, headers } = await stack.seenByApp("istio-http", "/a%20b?c=d", { token, method: "PUT" });
        assert.deepEqual([status, headers["kubeflow-userid"]], [200, ["u:alice@example.com"]]);
        const { timestamp, ...document } = authorizer.seen.at(-1);
        assert.match(timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
        assert.ok(Math.abs(Date.parse(timestamp) - Date.now()) < 5000);
        assert.deepEqual(document, {
            user: { name: "alice@example.com", id: "", groups: ["dev", "ops"], extra: { "auth-method": ["header"] }, claims: null },
            request: { host: "app.example.org", port: 80, path: "/a b", method: "PUT" },
        });
        const before = authorizer.seen.length;
        for (let i = 0; i < 3; i++) assert.equal((await check()).status, 200);
        assert.equal(authorizer.seen.length, before + 3);
    });

    it("gets a service account's uid, and no claims", async () => {
        assert.equal((await stack.check("/app", { token: stack.kubeToken() })).status, 200);
        const { user } = authorizer.seen.at(-1);
        assert.deepEqual([user.name, user.id, user.claims], ["system:serviceaccount:team-a:pipeline", "uid-of-pipeline", null]);
    });

    for (const status of [200, 201, 204])
        it(`allows with ${status}`, async () => {
            authorizer.set({ status });
            assert.equal((await check()).status, 200);
        });

    for (const status of [401, 403])
        it(`denies with ${status}; its words are plain text`, async () => {
            authorizer.set({ status, body: "not today <script>alert(1)</script>" });
            const answer = await check();
            assert.deepEqual([answer.status, answer.body], [403, "not today <script>alert(1)</script>"]);
            assert.match(answer.headers["content-type"], /^text\/plain/);
        });

    it("knows people by their cookie; its words are escaped on the page (Q17)", async () => {
        const browser = new Browser();
        assert.equal((await browser.login(`${stack.origin}/app`, "alice")).status, 200, browser.visited.join("\n"));
        stack.secret(browser.cookie("authservice_session").value);
        assert.deepEqual(authorizer.seen.at(-1).user.extra, { "auth-method": ["cookie"] });
        authorizer.set({ status: 403, body: "not today <script>alert(1)</script>" });
        const page = await browser.open(`${stack.origin}/app`);
        assert.equal(page.status, 403);
        assert.match(page.body, /not today &lt;script&gt;/);
        assert.doesNotMatch(page.body, /<script>alert/);
        authorizer.set();
        assert.equal((await browser.open(`${stack.origin}/app`)).status, 200, "the session is still there");
    });

    for (const status of [302, 400, 404, 429, 500, 503])
        it(`that answers ${status} is an outage: 503, not 403`, async () => {
            authorizer.set({ status, body: "allow" });
            const answer = await check();
            assert.equal(answer.status, 503);
            assert.ok(answer.headers["retry-after"]);
            authorizer.set();
            await until("it is asked again", async () => (await check()).status === 200, RECOVERY);
        });

    for (const mode of ["hang", "reset", "huge", "garbage"])
        it(`that does ${mode} is an outage, in time, and over when it is over`, async () => {
            authorizer.set({ mode });
            const answer = await check();
            assert.equal(answer.status, 503);
            assert.ok(answer.ms < 5000 * SLOW, `${answer.ms} ms`);
            assert.equal((await stack.check("/public")).status, 200, "nobody else waits");
            authorizer.set();
            await until("it is asked again", async () => (await check()).status === 200, RECOVERY);
        });
});

describe("the cluster's own rules (SubjectAccessReview)", () => {
    let stack, token;
    const check = (path, options = {}) => stack.check(path, { token, ...options });
    before(async () => {
        stack = await startStack({ policy: policyOf("cluster_rules"), wait: "live" });
        token = stack.kubeToken();
        stack.tokenreview.access = ({ resourceAttributes }) => ({ allowed: resourceAttributes.namespace === "team-a" && resourceAttributes.verb === "get" });
    });
    after(() => stack?.stop());

    it("are asked about the account and the namespace, once while the answer is kept", async () => {
        for (let i = 0; i < 3; i++) assert.equal((await check("/ns/team-a")).status, 200);
        assert.deepEqual(stack.tokenreview.questions, [{
            user: "system:serviceaccount:team-a:pipeline", uid: "uid-of-pipeline",
            groups: ["system:serviceaccounts", "system:serviceaccounts:team-a", "system:authenticated"],
            resourceAttributes: { verb: "get", resource: "notebooks", group: "kubeflow.org", namespace: "team-a" },
        }]);
        for (const [path, method] of [["/ns/team-b", "GET"], ["/ns/team-a", "PUT"], ["/", "GET"]]) {
            const answer = await check(path, { method });
            assert.deepEqual([answer.status, answer.body], [403, "the cluster does not allow it"]);
        }
    });

    it("that cannot be asked are an outage", async () => {
        const { access } = stack.tokenreview;
        for (const [i, status] of [401, 403, 500, {}, { allowed: "true" }, null].entries()) {
            stack.tokenreview.access = () => status;
            assert.equal((await check("/ns/team-a", { token: stack.kubeToken({ name: `other-${i}` }) })).status, 503);
        }
        stack.tokenreview.access = access;
        await until("they are asked again", async () => (await check("/ns/team-a", { token: stack.kubeToken({ name: "other" }) })).status === 200, RECOVERY);
    });
});
