// A browser logs in at a real provider, through Envoy as Istio and as Kubeflow configure it, and comes back to where it was.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Browser } from "../support/browser.mjs";
import { raw, request, until } from "../support/client.mjs";
import { ENVOYS, startStack } from "../support/stack.mjs";

const SESSION = "authservice_session";
const STATE = "oidc_state_csrf";
const SECURITY = { "x-content-type-options": "nosniff", "cache-control": "no-store" };

let stack;
before(async () => { stack = await startStack({ envoys: ENVOYS, kubernetes: false, login: true }); });
after(() => stack?.stop());

const headersOf = (answer) => Object.fromEntries(JSON.parse(answer.body).headers);
const calls = (path) => stack.proxy.calls[path] ?? 0;
const isCallback = (url) => url.includes("/authservice/oidc/callback");

// Starts a login and comes back with the callback's URL, not yet opened.
async function atCallback(browser, path = "/app", user = "alice") {
    const page = await browser.login(`${stack.origin}${path}`, user, { stop: isCallback });
    assert.ok(page.stopped, `no callback: ${browser.visited.join("\n")}`);
    return page.stopped;
}

describe("a login", () => {
    it("ends at the page that was asked for, and the application sees who it is", async () => {
        const browser = new Browser();
        const page = await browser.login(`${stack.origin}/app?a=1&b=%20x`);
        assert.equal(page.status, 200, browser.visited.join("\n"));
        assert.equal(page.url, `${stack.origin}/app?a=1&b=%20x`);
        const headers = headersOf(page);
        assert.equal(headers["kubeflow-userid"], "alice@example.com");
        assert.equal(headers["kubeflow-groups"], "dev,ops");
        assert.equal(headers["auth-method"], "cookie");
        stack.secret(browser.cookie(SESSION).value);
    });

    it("asks the provider with PKCE, nonce and state, and never with anything of the client's (S-080)", async () => {
        const browser = new Browser();
        const answer = await browser.send(`${stack.origin}/app?scope=admin&prompt=none&client_id=evil&redirect_uri=https://evil.example`);
        assert.equal(answer.status, 302);
        const url = new URL(answer.headers.location);
        const names = [...url.searchParams.keys()];
        assert.equal(new Set(names).size, names.length, "no parameter is there twice");
        assert.equal(url.searchParams.get("response_type"), "code");
        assert.equal(url.searchParams.get("code_challenge_method"), "S256");
        assert.match(url.searchParams.get("code_challenge"), /^[A-Za-z0-9_-]{43}$/);
        assert.ok(url.searchParams.get("nonce").length >= 22);
        assert.equal(url.searchParams.get("client_id"), "moonlatch");
        assert.equal(url.searchParams.get("redirect_uri"), `${stack.origin}/authservice/oidc/callback`);
        assert.equal(url.searchParams.get("prompt"), null);
        const again = new URL((await browser.send(`${stack.origin}/app`)).headers.location);
        for (const name of ["state", "nonce", "code_challenge"])
            assert.notEqual(again.searchParams.get(name), url.searchParams.get(name), `${name} is fresh for each login`);
    });

    it("sets a session cookie that scripts cannot read, and a small state cookie that is gone afterwards", async () => {
        const browser = new Browser();
        const callback = await atCallback(browser);
        assert.ok(browser.cookie(STATE).value.length < 1024);
        assert.ok(browser.cookie(STATE).attributes.has("httponly"));
        const answer = await browser.send(callback);
        assert.equal(answer.status, 303);
        const session = browser.cookie(SESSION);
        assert.ok(session.attributes.has("httponly"));
        assert.equal(session.attributes.get("samesite"), "Lax");
        assert.equal(session.path, "/");
        assert.match(session.value, /^mls_[A-Za-z0-9_-]{43}$/);
        assert.equal(browser.cookie(STATE), undefined, "the state cookie is gone");
        for (const part of callback.match(/(?:code|state)=([^&]*)/g)) stack.secret(part.split("=")[1]);
    });

    it("is not started for anything but a browser's navigation (S-082)", async () => {
        for (const [what, options] of Object.entries({
            POST: { method: "POST" }, PUT: { method: "PUT" }, "a bad bearer": { token: "no-such-token" },
        })) assert.equal((await stack.via("istio-http", "/app", options)).status, 401, what);
        for (const [what, headers] of Object.entries({
            "fetch()": { "sec-fetch-mode": "cors" }, XHR: { "x-requested-with": "XMLHttpRequest" }, JSON: { accept: "application/json" },
            gRPC: { "content-type": "application/grpc" }, websocket: { upgrade: "websocket" },
        })) assert.equal((await stack.check("/app", { headers })).status, 401, what);
        assert.equal((await stack.check("/authservice/verify/app")).status, 401, "verify");
    });

    it("writes nothing to the store before it is done", async () => {
        const before = (await stack.metrics())["moonlatch_sessions_written_total"] ?? 0;
        for (let i = 0; i < 50; i++) assert.equal((await stack.check(`/app${i}`)).status, 302);
        assert.equal((await stack.metrics())["moonlatch_sessions_written_total"] ?? 0, before);
    });

    for (const path of ["//evil.example/x", "/\\evil.example", "/a//b", "/%2f%2fevil.example", "/%5cevil.example", "/.//evil.example"])
        it(`never leads away: ${path} (S-060)`, async () => {
            const browser = new Browser();
            const page = await browser.login(stack.origin + path);
            assert.ok(page.url.startsWith(`${stack.origin}/`), page.url);
            for (const hop of browser.visited) {
                const url = hop.split(" ")[1];
                assert.ok(url.startsWith(`${stack.origin}/`) || url.startsWith(`${stack.issuer}/`), hop);
            }
        });
});

describe("tabs", () => {
    it("five that were opened one after the other all come to their end", async () => {
        const browser = new Browser();
        const logins = [];
        for (let i = 1; i <= 5; i++) logins.push(await browser.open(`${stack.origin}/tab${i}`));
        for (let i = 1; i <= 5; i++) {
            const page = await browser.submit(logins[i - 1], { login: "alice" });
            assert.equal(page.url, `${stack.origin}/tab${i}`, browser.visited.join("\n"));
            assert.equal(page.status, 200);
        }
    });

    it("five that were opened at the same time all come to their end", async () => {
        const browser = new Browser();
        const first = await Promise.all([1, 2, 3, 4, 5].map((i) => browser.open(`${stack.origin}/tab${i}`)));
        const pages = [];
        for (const page of first) pages.push(/name="login"/.test(page.body) ? await browser.submit(page, { login: "alice" }) : page);
        for (const [i, page] of pages.entries()) {
            // A page of ours that goes on by itself is what a browser would follow.
            const refresh = /http-equiv="refresh" content="\d+;\s*url=([^"]+)"/i.exec(page.body)?.[1];
            const end = refresh ? await browser.login(new URL(refresh.replaceAll("&amp;", "&"), page.url).href) : page;
            assert.equal(end.url, `${stack.origin}/tab${i + 1}`, browser.visited.join("\n"));
            assert.equal(end.status, 200);
        }
    });

    it("a hundred leave a bounded cookie, and the last one comes to its end (S-074)", async () => {
        const browser = new Browser();
        for (let i = 0; i < 100; i++) await browser.send(`${stack.origin}/many${i}`);
        assert.ok(browser.cookie(STATE).value.length < 2048, String(browser.cookie(STATE).value.length));
        const page = await browser.login(`${stack.origin}/last`);
        assert.equal(page.url, `${stack.origin}/last`);
    });
});

describe("the callback", () => {
    const tampered = {
        "no state": (url) => url.searchParams.delete("state"),
        "no code": (url) => url.searchParams.delete("code"),
        "an empty code": (url) => url.searchParams.set("code", ""),
        "two codes": (url) => url.searchParams.append("code", "x"),
        "two states": (url) => url.searchParams.append("state", url.searchParams.get("state")),
        "code and error": (url) => url.searchParams.set("error", "access_denied"),
        "a foreign iss": (url) => url.searchParams.set("iss", "https://evil.example"),
        "no iss": (url) => url.searchParams.delete("iss"),
        "a state with a changed end": (url) => url.searchParams.set("state", `${url.searchParams.get("state").slice(0, -2)}AA`),
        "a state of nobody": (url) => url.searchParams.set("state", "x".repeat(64)),
        "a code of 64 KiB": (url) => url.searchParams.set("code", "c".repeat(60000)),
    };
    for (const [what, change] of Object.entries(tampered))
        it(`with ${what} is a page, and no question to the provider (S-062, S-063, S-204, S-260)`, async () => {
            const browser = new Browser();
            const url = new URL(await atCallback(browser));
            change(url);
            const before = calls("/token");
            const answer = await browser.send(url.href);
            assert.ok([400, 302, 414, 431].includes(answer.status), String(answer.status));
            if (answer.status === 302) assert.equal(what, "no code", "the ancestor's way home");
            assert.equal(calls("/token"), before);
            assert.equal(browser.cookie(SESSION), undefined);
        });

    it("in another browser is 400, and nobody is logged in (S-204, S-206)", async () => {
        const [mine, theirs] = [new Browser(), new Browser()];
        const callback = await atCallback(mine);
        await theirs.open(`${stack.origin}/app`); // has a login of its own under way
        const before = calls("/token");
        const answer = await theirs.send(callback);
        assert.equal(answer.status, 400);
        assert.equal(calls("/token"), before);
        assert.equal(theirs.cookie(SESSION), undefined);
    });

    it("a second time just goes on, without a question to the provider", async () => {
        const browser = new Browser();
        const callback = await atCallback(browser, "/again");
        await browser.send(callback);
        const [session, before] = [browser.cookie(SESSION).value, calls("/token")];
        const answer = await browser.open(callback);
        assert.equal(answer.url, `${stack.origin}/again`);
        assert.equal(browser.cookie(SESSION).value, session);
        assert.equal(calls("/token"), before);
    });

    it("twice at the same moment makes one question and one login", async () => {
        const browser = new Browser();
        const callback = await atCallback(browser);
        const before = calls("/token");
        const cookie = browser.cookieHeader(new URL(callback));
        const answers = await Promise.all([1, 2, 3, 4].map(() => request({
            port: new URL(callback).port, path: new URL(callback).pathname + new URL(callback).search,
            headers: { host: new URL(callback).host, cookie, accept: "text/html" },
        })));
        assert.equal(calls("/token"), before + 1);
        const given = answers.flatMap(({ lines }) => lines.map(([, value]) => new RegExp(`^${SESSION}=([^;]+)`).exec(value)?.[1]).filter(Boolean));
        assert.equal(new Set(given).size, 1, "all who asked together got the same session");
    });

    it("with the provider's error says so, escaped, with a request id (S-076, S-235)", async () => {
        const browser = new Browser();
        const page = await browser.login(`${stack.origin}/app`, "nobody-of-that-name");
        assert.ok(page.status >= 400 && page.status < 500, String(page.status));
        assert.doesNotMatch(page.body, /<b>/);
        assert.match(page.headers["content-type"], /^text\/html/);
        assert.match(page.body, /<html lang=/);
        assert.match(page.body, /<h1/);
        assert.match(page.body, /[0-9a-f]{16}|[0-9a-f-]{36}/, "a request id");
        for (const [name, value] of Object.entries(SECURITY))
            if (page.headers[name] !== undefined) assert.equal(page.headers[name], value);
    });

    for (const [mode, statuses] of Object.entries({ hang: [424], reset: [424], html: [424], bad_json: [424] }))
        it(`while the token endpoint answers "${mode}" is a page that says to try again, and no session (S-401 to S-404)`, async () => {
            const browser = new Browser();
            const callback = await atCallback(browser);
            await stack.proxy.set(mode, { path: "/token" });
            const answer = await browser.send(callback);
            await stack.proxy.set("pass");
            await until("logins work again", async () => (await new Browser().login(`${stack.origin}/app`)).status === 200, 8000);
            assert.ok(statuses.includes(answer.status), String(answer.status));
            assert.match(answer.body, /<h1/, "a page, through Envoy");
            assert.equal(browser.cookie(SESSION), undefined);
        });

    it("gives a new session at each login, and the old one is dead (S-070)", async () => {
        const browser = new Browser();
        await browser.login(`${stack.origin}/app`);
        const old = browser.cookie(SESSION).value;
        browser.jar = browser.jar.filter(({ name }) => name !== SESSION);
        const callback = await atCallback(browser, "/app2").catch(() => undefined);
        if (callback) {
            browser.jar.push({ host: "127.0.0.1", name: SESSION, value: old, path: "/", attributes: new Map(), expires: Infinity });
            await browser.send(callback);
        }
        assert.notEqual(browser.cookie(SESSION).value, old);
        assert.equal((await stack.check("/app", { headers: { cookie: `${SESSION}=${old}` } })).status, 302, "the old one is dead");
    });

    it("a user without the claim gets a clear page", async () => {
        const browser = new Browser();
        const page = await browser.login(`${stack.origin}/app`, "user_missing");
        assert.ok(page.status >= 400, String(page.status));
        assert.match(page.body, /email/);
        assert.equal(browser.cookie(SESSION), undefined);
    });
});

describe("a session cookie", () => {
    it("that is unknown leads to the login and is taken back (S-069)", async () => {
        const answer = await stack.check("/app", { headers: { cookie: `${SESSION}=mls_${"A".repeat(43)}` } });
        assert.equal(answer.status, 302);
        assert.ok(answer.lines.some(([name, value]) => name === "set-cookie" && value.startsWith(`${SESSION}=;`) && /max-age=0/i.test(value)));
    });

    it("that is there twice is refused, both (S-267)", async () => {
        const browser = new Browser();
        await browser.login(`${stack.origin}/app`);
        const { value } = browser.cookie(SESSION);
        assert.equal((await stack.check("/app", { headers: { cookie: `${SESSION}=${value}` } })).status, 200);
        assert.equal((await stack.check("/app", { headers: { cookie: `${SESSION}=${value}; ${SESSION}=${value}` } })).status, 302);
    });

    it("swapped with the state cookie opens nothing (S-064)", async () => {
        const browser = new Browser();
        await browser.send(`${stack.origin}/app`);
        const state = browser.cookie(STATE).value;
        assert.equal((await stack.check("/app", { headers: { cookie: `${SESSION}=${state}` } })).status, 302);
    });

    it("works as a bearer header too (AUTH_HEADER)", async () => {
        const browser = new Browser();
        await browser.login(`${stack.origin}/app`);
        const answer = await stack.check("/app", { token: stack.secret(browser.cookie(SESSION).value) });
        assert.equal(answer.status, 200);
        assert.equal(answer.headers["auth-method"], "header");
    });
});

describe("pages", () => {
    for (const port of ["web", "gateway"])
        it(`homepage and after_logout are there, on the ${port}`, async () => {
            for (const page of ["homepage", "after_logout"]) {
                const answer = port === "web" ? await request({ port: stack.webPort, path: `/site/${page}` })
                    : await new Browser().send(`${stack.origin}/authservice/site/${page}`);
                assert.equal(answer.status, 200, page);
                assert.match(answer.headers["content-type"], /^text\/html; charset=utf-8/i);
                assert.match(answer.headers["content-security-policy"], /default-src 'none'/);
                assert.match(answer.headers["content-security-policy"], /frame-ancestors 'none'/);
                assert.equal(answer.headers["x-content-type-options"], "nosniff");
                assert.equal(answer.headers["referrer-policy"], "no-referrer");
                assert.match(answer.body, /<html lang="en"/);
                const sheet = /<link[^>]*href="([^"]+)"/.exec(answer.body)?.[1];
                const style = await request({ port: stack.webPort, path: new URL(sheet, `http://x/site/${page}`).pathname });
                assert.equal(style.status, 200, sheet);
                assert.match(style.headers["content-type"], /^text\/css/);
            }
        });

    it("the web port serves nothing else", async () => {
        for (const path of ["/", "/app", "/site/nothing", "/site/themes/", "/site/themes/../../etc/passwd", "/authservice/verify", "/metrics"])
            assert.ok([400, 404].includes((await request({ port: stack.webPort, path })).status), path);
    });
});

// Whatever is asked, of whichever port, a 2xx of ours is one of a few, and takes the client's own identity headers out (S-004, Q1 to Q4).
describe("nobody at all", () => {
    const OWNED = ["auth-method", "kubeflow-groups", "kubeflow-userid"];
    const PASSED = /^(http:\/\/evil\.example)?\/authservice\/(site\/(homepage|after_logout|themes\/kubeflow\/styles\.css)|(back|front)channel_logout)(\?.*)?$/;
    const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "get"];
    const PATHS = [
        "/", "/app", "/authservice", "/authservice/", "/authservice/verify", "/authservice/verify/app", "/authservice/verify/authservice/site/homepage",
        "/authservice/logout", "/authservice/logout?proof=x", "/authservice/oidc/callback", "/authservice/oidc/callback?code=a&state=b",
        "/authservice/oidc/callback?error=access_denied", "/authservice/backchannel_logout", "/authservice/frontchannel_logout?iss=x&sid=y",
        "/authservice/site", "/authservice/site/", "/authservice/site/homepage", "/authservice/site/after_logout?x=/../app", "/authservice/site/denied",
        "/authservice/site/themes", "/authservice/site/themes/", "/authservice/site/themes/kubeflow/styles.css", "/authservice/site/themes/../homepage",
        "/authservice/site/themes/kubeflow/%2e%2e/styles.css", "/app/../authservice/site/homepage", "/authservice//site/homepage", "//authservice/site/homepage",
        "/authservice/site/homepage/", "/authservice/site/homepage;x=1", "/authservice;/site/homepage", "/%61uthservice/site/homepage", "/authservice/site/homepage%00",
        "/authservice/site/homepage%2f..%2fapp", "/authservice/backchannel_logout/x", "/AUTHSERVICE/site/homepage", "/site/homepage", "/oidc/callback", "/logout",
        "/metrics", "/livez", "/healthz", "/policy", "/reload", "/favicon.ico", "*", "http://evil.example/authservice/site/homepage", "http://evil.example/app",
    ];
    const HEADERS = ["", "kubeflow-userid: root\r\nKubeflow-Groups: admin\r\n", "X-Forwarded-Uri: /public\r\nX-Original-URL: /public\r\nX-Forwarded-Prefix: /public\r\n",
        "Origin: http://app\r\nAccess-Control-Request-Method: GET\r\n", "Cookie: authservice_session=; oidc_state_csrf=x\r\nAuthorization: Bearer x\r\n",
        "User-Agent: kube-probe/1.30\r\nX-Forwarded-Host: evil.example\r\nX-Envoy-Original-Path: /public\r\nContent-Type: application/x-www-form-urlencoded\r\n"];
    const ask = async (port, method, path, headers) => {
        const { text, status } = await raw(port, `${method} ${path} HTTP/1.1\r\nHost: app\r\n${headers}Content-Length: 0\r\nConnection: close\r\n\r\n`);
        const lines = text.split("\r\n\r\n")[0].split("\r\n").slice(1).map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]);
        return { status, lines, headers: Object.fromEntries(lines) };
    };

    for (const method of METHODS)
        it(`gets nothing but pages, passed on blank, by ${method}`, async () => {
            for (const path of PATHS)
                await Promise.all(HEADERS.map(async (headers) => {
                    const what = `${method} ${path} ${headers}`;
                    const answer = await ask(stack.checkPort, method, path, headers);
                    assert.ok(answer.status >= 200, what);
                    for (const [name, value] of answer.lines) assert.ok(!/evil/.test(name === "location" ? new URL(value, "http://app").hostname : ""), `${what} -> ${value}`);
                    if (answer.status >= 300) return;
                    assert.equal(answer.status, 200, what);
                    assert.match(path, PASSED, what);
                    const removed = answer.headers["x-envoy-auth-headers-to-remove"].split(",");
                    for (const name of OWNED) {
                        assert.ok(removed.includes(name), `${what}: ${name}`);
                        assert.equal(answer.headers[name], "", `${what}: ${name}`);
                    }
                    assert.equal(answer.headers["set-cookie"], undefined, what);
                }));
        });

    it("gets nothing but pages on the web port", async () => {
        for (const method of METHODS)
            for (const path of PATHS)
                await Promise.all(HEADERS.map(async (headers) => {
                    const answer = await ask(stack.webPort, method, path, headers);
                    const what = `${method} ${path} ${headers}`;
                    for (const name of OWNED) assert.equal(answer.headers[name], undefined, what);
                    if (answer.headers["set-cookie"]) assert.equal(answer.headers["cache-control"], "no-store", what);
                    if (answer.status < 300) assert.match(path, /site.*(homepage|after_logout|styles)|frontchannel_logout/, what);
                }));
    });
});

describe("the end", () => {
    it("the controls still answer rightly", async () => {
        stack.assertAlive();
        assert.equal((await stack.check("/app", { token: await stack.token("alice") })).status, 200);
    });
});
