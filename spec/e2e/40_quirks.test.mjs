// The ancestor's holes by name (Q1 to Q6 of its quirks) and history's (S-001 to S-033), as far as HTTP ext_authz has them: directly
// and through both Envoys. Nobody here has a credential unless it says so.
import assert from "node:assert/strict";
import { posix } from "node:path";
import { after, before, describe, it } from "node:test";
import { until } from "../support/client.mjs";
import { ENVOYS, startStack } from "../support/stack.mjs";

let stack;
let token;
before(async () => {
    stack = await startStack({ envoys: ENVOYS, kubernetes: false });
    token = await stack.token("alice");
});
after(() => stack?.stop());

// Targets that must not get in without a credential. Sent as they are.
const TARGETS = [
    // S-001 malformed
    "/%", "/%zz", "/%0", "/%00", "/a%00b", "/%0d%0aX: 1", "http://[::1", "//", "///", "/\x01", "/\x7f", "/\xff\xfe", "/%ff%fe", "/%c0%af",
    "*", "app", "?x", "app.example.org:80", "https://", "http://evil/public@app",
    // S-003, S-004 the server's own
    "/", "/healthz", "/livez", "/readyz", "/metrics", "/ping", "/oauth2/ping", "/favicon.ico", "/reload", "/policy", "/admin/policy",
    "/authservice", "/authservice/", "/authservice/site/a.css", "/authservice/verify", "/authservice/verify/x", "/authservice/verifyfoo",
    // S-006 query and parameters choose nothing
    "/private?path=/public", "/private?/public", "/private;x=/public", "/?/public/", "/private?x=/authservice/verify", "/app;/public",
    // S-007 fragments
    "/app#/public", "/app%23/public", "/public#/../app",
    // S-008, S-009, S-010 paths that somebody reads differently
    "//app/public", "/\\public", "\\public", "/app//public", "/public/../app", "/public/..%2fapp", "/public/%2e%2e/app", "/public/.%2e/app",
    "/public/%2E./app", "/public/..;/app", "/public/..;x=1/app", "/public/;/../../app", "/public/..\\app", "/public/..%5capp",
    "/public%2f..%2fapp", "/public/%252e%252e/app", "/public/..%252fapp", "/public/%c0%ae%c0%ae/app", "/public/.../../../app",
    "/public/./../app", "/public//../app", "/public/../public/../app", "/dex/../app", "/public/../../app", "/public/%u002e%u002e/app",
    "/public/..%00/app", "/public/..%0a/app", "/./app", "/x/../../public/../app",
    // S-012, S-013 neighbours
    "/publicity", "/publi", "/Public", "/PUBLIC/a", "/public%20", "/dexter", "/%70ublicity",
];

const FORWARDED = ["X-Forwarded-Uri", "X-Original-URL", "X-Original-URI", "X-Forwarded-Path", "X-Forwarded-Prefix", "X-Rewrite-Url",
    "X-Envoy-Original-Path", "X-Forwarded-Method", "X-HTTP-Method-Override"];

// Whether a target may be answered with 200: public with its parameters and without them.
function isPublic(target) {
    let path = target.split("?")[0].replace(/^https?:\/\/[^/]*/i, "");
    try {
        path = decodeURIComponent(path);
    } catch {
        return false;
    }
    return [path, path.replace(/;[^/]*/g, "")].every((each) => /^\/(public|dex)(\/|$)/.test(posix.normalize(each)));
}

const head = (target, lines = [], method = "GET") =>
    [`${method} ${target} HTTP/1.1`, "Host: app.example.org", ...lines, "Connection: close", "", ""].join("\r\n");

function assertDenied(answer, what) {
    assert.ok(answer.status === 0 || (answer.status >= 300 && answer.status !== 304), `${what}: ${answer.status}`);
    assert.ok(answer.status !== 0 || answer.closed, `${what}: no answer, still open`);
}

describe("no target gets in without a credential", () => {
    it("directly", async () => {
        for (const target of TARGETS) assertDenied(await stack.raw(head(target)), target);
    });

    for (const envoy of ENVOYS) {
        it(`through Envoy as in ${envoy}.yaml`, async () => {
            for (const target of TARGETS) {
                const calls = stack.echo.calls;
                const answer = await stack.rawVia(envoy, head(target));
                // Envoy makes "/public" of "/\\public", for the check and for the application alike.
                if (stack.echo.calls !== calls && /^\/{1,2}public(\/[a-z]+)?$/.test(stack.echo.last.path)) continue;
                assertDenied(answer, target);
                assert.equal(stack.echo.calls, calls, `the application was called for ${target}`);
            }
        });
    }

    it("whatever bytes it has: 2,000 mutations (S-001)", async () => {
        let seed = 20261125;
        const random = (n) => { seed = (seed * 1103515245 + 12345) % 2147483648; return Math.floor(seed / 65536) % n; };
        const mutate = (text) => {
            const bytes = [...text];
            for (let n = 1 + random(3); n > 0; n--) {
                const at = random(bytes.length);
                const byte = String.fromCharCode(random(256));
                if (random(2)) bytes[at] = byte; else bytes.splice(at, random(2), "%", "2", "e");
            }
            return bytes.join("").replace(/[\r\n]/g, "?");
        };
        for (let batch = 0; batch < 100; batch++) {
            const targets = Array.from({ length: 20 }, () => mutate(TARGETS[random(TARGETS.length)]));
            const answers = await Promise.all(targets.map((target) => stack.raw(head(target))));
            for (const [i, answer] of answers.entries())
                if (!isPublic(targets[i])) assertDenied(answer, JSON.stringify(targets[i]));
        }
    });
});

describe("ambiguous encodings are 400, with a valid token as well", () => {
    const AMBIGUOUS = ["/a%2Fadmin", "/a%2fadmin", "/a%5cadmin", "/a%5Cadmin", "/a%00b", "/a%0ab", "/%zz", "/a%", "/%c0%af", "/%ff",
        "/public/..;/app", "/public/%252e%252e/app", "/public/%2e%2e/app", "/../app"];
    it("directly", async () => {
        for (const target of AMBIGUOUS)
            assert.equal((await stack.raw(head(target, [`Authorization: Bearer ${token}`]))).status, 400, target);
    });
    it("a raw backslash, fragment or control byte, too", async () => {
        for (const target of ["/a\\b", "/a#b", "/a\x01b", "/a\x7fb"])
            assert.equal((await stack.raw(head(target, [`Authorization: Bearer ${token}`]))).status, 400, JSON.stringify(target));
    });
    for (const envoy of ENVOYS) {
        it(`through Envoy as in ${envoy}.yaml they do not reach the application`, async () => {
            const calls = stack.echo.calls;
            for (const target of ["/a%2Fadmin", "/a%5cadmin", "/a%252fb", "/public/..%2fapp", "/a%0ab"])
                assert.equal((await stack.rawVia(envoy, head(target, [`Authorization: Bearer ${token}`]))).status, 400, target);
            assert.equal(stack.echo.calls, calls);
        });
    }
});

describe("harmless paths are not refused", () => {
    it("double slashes, spaces, UTF-8 and an encoded percent, with a valid token (Q31)", async () => {
        for (const path of ["/a//b", "/a%20b", "/%C3%A4", "/100%25", "/a;v=1", "/a.b/..c/d..", "/a?x=%2F%2F&y=../..", "/a%3Ab", "/~user", "/a+b"])
            assert.equal((await stack.raw(head(path, [`Authorization: Bearer ${token}`]))).status, 200, path);
    });
});

describe("headers choose nothing", () => {
    it("S-005, S-015, S-018: forwarded paths are not believed", async () => {
        for (const name of FORWARDED) {
            for (const value of ["/public", "OPTIONS", "%", "http://[::1", "//", "", "/public/../public"]) {
                assertDenied(await stack.raw(head("/admin", [`${name}: ${value}`])), `${name}: ${value}`);
                for (const envoy of ENVOYS) assertDenied(await stack.rawVia(envoy, head("/admin", [`${name}: ${value}`])), `${envoy} ${name}: ${value}`);
            }
        }
    });

    it("S-003: health checkers are nobody special", async () => {
        for (const agent of ["GoogleHC/1.0", "kube-probe/1.30", "ELB-HealthChecker/2.0", "Envoy/HC"])
            assert.equal((await stack.check("/admin", { headers: { "user-agent": agent } })).status, 401, agent);
    });

    it("S-011: the spelling of the host changes nothing", async () => {
        for (const host of ["APP.example.org", "app.example.org.", "app.example.org:443", "127.0.0.1"])
            assert.equal((await stack.check("/admin", { headers: { host } })).status, 401, host);
    });

    it("S-019: two Authorization lines are 400, and through Envoy never an allow", async () => {
        const lines = [`Authorization: Bearer ${token}`, "Authorization: Bearer other"];
        for (const pair of [lines, [...lines].reverse(), [lines[0], lines[0]]]) {
            assert.equal((await stack.raw(head("/app", pair))).status, 400);
            for (const envoy of ENVOYS) assertDenied(await stack.rawVia(envoy, head("/app", pair)), envoy);
        }
    });

    it("S-016, S-031: other spellings of an identity header are refused", async () => {
        for (const name of ["kubeflow_userid", "Kubeflow.Userid", "KUBEFLOW_USERID", "kubeflow_groups", "auth.method"]) {
            const answer = await stack.check("/app", { token, headers: { [name]: "root" } });
            const removed = (answer.headers["x-envoy-auth-headers-to-remove"] ?? "").toLowerCase().split(/, */);
            assert.ok(answer.status === 400 || removed.includes(name.toLowerCase()), `${name}: ${answer.status}`);
        }
        assert.equal((await stack.raw(head("/app", [`Authorization: Bearer ${token}`, "kubeflow-userid : root"]))).status, 400);
    });

    it("S-033: Connection cannot name an identity header", async () => {
        for (const value of ["close, kubeflow-userid", "Kubeflow-Userid", "close,AUTH-METHOD"]) {
            const bytes = `GET /app HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\nConnection: ${value}\r\n\r\n`;
            assert.equal((await stack.raw(bytes)).status, 400, value);
        }
    });

    for (const envoy of ENVOYS) {
        it(`S-033 through Envoy as in ${envoy}.yaml: the application still sees who it is`, async () => {
            const bytes = `GET /app HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\nConnection: close, kubeflow-userid\r\n\r\n`;
            const { status } = await stack.rawVia(envoy, bytes);
            if (status === 200)
                assert.deepEqual(stack.echo.last.headers.filter(([name]) => name === "kubeflow-userid"), [["kubeflow-userid", "alice@example.com"]]);
        });
    }
});

describe("requests that two parsers read differently are refused", () => {
    const good = `Authorization: Bearer TOKEN\r\n`;
    const CASES = {
        "two lengths": `POST /app HTTP/1.1\r\nHost: a\r\n${good}Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello`,
        "length and chunked": `POST /app HTTP/1.1\r\nHost: a\r\n${good}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
        "a folded header": `GET /app HTTP/1.1\r\nHost: a\r\n${good}X: 1\r\n Y: 2\r\n\r\n`,
        "two hosts": `GET /app HTTP/1.1\r\nHost: a\r\nHost: b\r\n${good}\r\n`,
        "no host": `GET /app HTTP/1.1\r\n${good}\r\n`,
        "a NUL in a header": `GET /app HTTP/1.1\r\nHost: a\r\n${good}X: a\0b\r\n\r\n`,
        "HTTP/0.9": "GET /app\r\n\r\n",
        "HTTP/3.0": `GET /app HTTP/3.0\r\nHost: a\r\n${good}\r\n`,
        "a space before the colon": `GET /app HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer TOKEN\r\n\r\n`,
    };
    for (const [what, bytes] of Object.entries(CASES)) {
        it(what, async () => {
            const answer = await stack.raw(bytes.replaceAll("TOKEN", token));
            assert.ok(answer.status === 0 || answer.status >= 400, String(answer.status));
            assert.ok(answer.closed, "the connection is closed");
        });
    }
});

describe("the ancestor's bypasses", () => {
    const METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"];

    it("Q1: verify denies every method", async () => {
        for (const method of METHODS)
            for (const path of ["/authservice/verify", "/authservice/verify/x"])
                assertDenied(await stack.raw(head(path, [], method)), `${method} ${path}`);
    });

    it("Q2: an absolute prefix opens nothing", async () => {
        const own = await startStack({ kubernetes: false, env: { AUTHSERVICE_URL_PREFIX: "https://app.example.org/authservice/" } });
        try {
            for (const path of ["/authservice/verify", "/authservice/verify/x", "/app"])
                assert.equal((await own.check(path)).status, 401, path);
            assert.equal((await own.check("/authservice/other")).status, 404);
            assert.equal((await own.check("/authservice/verify", { token: await own.token() })).status, 204);
        } finally {
            await own.stop();
        }
    });

    for (const prefix of ["/", "https://app.example.org", "https://app.example.org/", ""]) {
        it(`Q3: the prefix "${prefix}" is refused at start`, async () => {
            const own = await startStack({ kubernetes: false, env: { AUTHSERVICE_URL_PREFIX: prefix }, wait: "none" });
            try {
                await until("it has ended", () => !own.server.running);
                assert.ok(Number.isInteger(own.server.code) && own.server.code !== 0, String(own.server.code));
                assert.match(own.server.log, /AUTHSERVICE_URL_PREFIX/);
            } finally {
                await own.stop();
            }
        });
    }

    it("Q4, S-020: a preflight is no credential, and neither is any other OPTIONS", async () => {
        const preflight = ["Origin: https://evil.example", "Access-Control-Request-Method: GET", "kubeflow-userid: root"];
        assertDenied(await stack.raw(head("/admin", preflight, "OPTIONS")), "preflight");
        assertDenied(await stack.raw(head("*", preflight, "OPTIONS")), "OPTIONS *");
        for (const envoy of ENVOYS) assertDenied(await stack.rawVia(envoy, head("/admin", preflight, "OPTIONS")), envoy);
    });

    it("Q5: the same Authorization does not make bob alice when the tokens come in another header", async () => {
        const own = await startStack({ kubernetes: false, env: { ID_TOKEN_HEADER: "X-Id-Token" } });
        try {
            for (const [user, mail] of [["alice", "alice@example.com"], ["bob", "bob@example.com"], ["alice", "alice@example.com"]]) {
                const headers = { authorization: "Bearer the-same-for-everybody", "x-id-token": await own.token(user) };
                const answer = await own.check("/app", { headers });
                assert.equal(answer.status, 200);
                assert.equal(answer.headers["kubeflow-userid"], mail);
            }
            assert.equal((await own.check("/app", { headers: { authorization: "Bearer the-same-for-everybody" } })).status, 401);
        } finally {
            await own.stop();
        }
    });

    it("Q6: identity headers of the client do not survive on public paths", async () => {
        for (const envoy of ENVOYS) {
            for (const path of ["/public", "/public/x", "/dex/auth"]) {
                const { headers } = await stack.seenByApp(envoy, path, { headers: { "kubeflow-userid": "root", "kubeflow-groups": "admin" } });
                assert.equal((headers["kubeflow-userid"] ?? [""]).join(), "");
                assert.equal((headers["kubeflow-groups"] ?? [""]).join(), "");
            }
        }
    });
});

it("the controls still answer rightly", () => stack.assertServes());
