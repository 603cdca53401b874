// A real Chromium in front of it all: logins and logouts as a person does them, and our pages as a person sees, hears and types them.
//
//   E2E_SCREENSHOTS  a directory that gets a picture of each page
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { until } from "../support/client.mjs";
import { findChromium, startChromium } from "../support/chromium.mjs";
import { problemsOf, problemsOfKeys } from "../support/readable.mjs";
import { ROOT } from "../support/processes.mjs";
import { startStack } from "../support/stack.mjs";
import { startSecured } from "../support/tls.mjs";

const SESSION = "authservice_session";
const STATE = "oidc_state_csrf";
const skip = findChromium() ? false : "there is no Chromium: deploy/setup.sh --browser";
if (skip) console.log(`skipped as a whole: ${skip}`);

let stack;
let chromium;
before(async () => {
    if (skip) return;
    stack = await startStack({ envoys: ["istio-http"], kubernetes: false, login: true, env: { GROUPS_ALLOWLIST: "dev", SKIP_AUTH_URLS: "/public" } });
    chromium = await startChromium();
});
after(async () => {
    await chromium?.close();
    await stack?.stop();
});

const at = (path) => `${stack.origin}${path}`;
const cookieOf = async (name) => (await chromium.cookies()).find((each) => each.name === name && each.domain === "127.0.0.1");
const isLoginForm = (page) => page.evaluate(() => document.readyState === "complete" && document.querySelector("input[name=login]") !== null);

// A new tab in a profile without cookies.
async function freshPage() {
    await chromium.forgetCookies();
    return chromium.page();
}

// Types the name into the provider's form, in the field that has the focus, and presses Enter.
async function logIn(page, user = "alice") {
    await until("the provider asks who it is", () => isLoginForm(page));
    await page.evaluate(() => document.querySelector("input[name=login]").focus());
    await page.type(user);
    await page.press("Enter");
}

async function loggedIn(path = "/app", user = "alice") {
    const page = await freshPage();
    await page.open(at(path));
    await logIn(page, user);
    await page.at(at(path));
    stack.secret((await cookieOf(SESSION)).value);
    return page;
}

// What the application was told of the one who asked.
const seen = async (page) => Object.fromEntries(JSON.parse(await page.text()).headers);

describe("a login in Chromium", { skip }, () => {
    it("ends at the page that was asked for, and the application sees who it is", async () => {
        const page = await loggedIn("/deep/link?a=1&b=%20x");
        assert.equal((await seen(page))["kubeflow-userid"], "alice@example.com");
        await page.open(at("/another"));
        assert.equal((await seen(page))["kubeflow-userid"], "alice@example.com");
        assert.deepEqual(page.complaints, []);
        await page.close();
    });

    it("sets a cookie that is HttpOnly, Lax, ours alone and out of reach of scripts, and takes back the other", async () => {
        const page = await freshPage();
        await page.open(at("/app"));
        const state = await cookieOf(STATE);
        assert.ok(state.httpOnly && state.sameSite === "Lax" && state.path === "/", JSON.stringify({ ...state, value: "" }));
        await logIn(page);
        await page.at(at("/app"));
        const { value, ...session } = await cookieOf(SESSION);
        stack.secret(value);
        assert.deepEqual([session.httpOnly, session.secure, session.sameSite, session.path, session.session, session.domain],
            [true, false, "Lax", "/", false, "127.0.0.1"]);
        assert.ok(Math.abs(session.expires - Date.now() / 1000 - 86400) < 120, "it ends in a day");
        assert.equal(await cookieOf(STATE), undefined);
        assert.equal(await page.evaluate(() => document.cookie), "");
        await page.close();
    });

    it("works without script", async () => {
        const page = await freshPage();
        await page.scripts(false);
        await page.open(at("/app"));
        await logIn(page);
        await page.at(at("/app"));
        await page.open(at("/authservice/logout"));
        await page.click("button");
        await until("it is signed out", async () => await cookieOf(SESSION) === undefined);
        await page.close();
    });

    it("five tabs, opened together and signed in one after the other, all end where they wanted", async () => {
        const first = await freshPage();
        const pages = [first, ...await Promise.all([1, 2, 3, 4].map(() => chromium.page()))];
        await Promise.all(pages.map((page, i) => page.open(at(`/tab${i}?n=${i}`))));
        await Promise.all(pages.map((page) => until("the form is there", () => isLoginForm(page))));
        for (const [i, page] of pages.entries()) {
            await logIn(page);
            await page.at(at(`/tab${i}?n=${i}`));
        }
        for (const page of pages) {
            assert.equal((await seen(page))["kubeflow-userid"], "alice@example.com");
            await page.close();
        }
        stack.secret((await cookieOf(SESSION)).value);
    });

    // As a browser does that is started again in the morning.
    it("five tabs, opened together while the provider still knows who it is, all end where they wanted", async () => {
        const page = await loggedIn("/app");
        for (let round = 0; round < 3; round++) {
            await page.send("Network.deleteCookies", { name: SESSION, url: at("/") });
            const pages = await Promise.all([1, 2, 3, 4, 5].map(() => chromium.page()));
            await Promise.all(pages.map((each, i) => each.open(at(`/tab${i}?n=${i}`))));
            await Promise.all(pages.map((each, i) => each.at(at(`/tab${i}?n=${i}`))));
            for (const each of pages) await each.close();
            stack.secret((await cookieOf(SESSION)).value);
        }
        await page.close();
    });

    it("is not started by a page's own requests", async () => {
        const page = await freshPage();
        await page.open(at("/public/page"));
        const answers = await page.evaluate(async () => {
            const get = async (options) => (await fetch("/app/data", options)).status;
            return [await get(), await get({ method: "POST" }), await get({ headers: { accept: "text/html" } })];
        });
        assert.deepEqual(answers, [401, 401, 401]);
        assert.equal(await cookieOf(STATE), undefined);
        await page.close();
    });
});

// What only a real browser judges: which cookies it keeps, and which it sends along with a request that another site began.
describe("over https, Chromium keeps and sends the cookies of", { skip }, () => {
    const clients = join(ROOT, "spec", "e2e", "policies", "clients.lua");
    for (const [what, { policy, env, name = SESSION, sameSite = "Lax" }] of Object.entries({
        "a session named __Host-": { env: { SESSION_COOKIE_NAME: "__Host-session" }, name: "__Host-session" },
        "a session with SameSite Strict": { env: { SESSION_SAME_SITE: "Strict" }, sameSite: "Strict" },
        "a session with SameSite None": { env: { SESSION_SAME_SITE: "None" }, sameSite: "None" },
        "a login with form_post": { policy: clients, env: { TEST_RESPONSE_MODE: "form_post" } },
    })) it(what, async () => {
        const secured = await startSecured({ policy, env });
        const page = await freshPage();
        await page.open(`${secured.origin}/app?a=1`);
        await logIn(page);
        await page.at(`${secured.origin}/app?a=1`);
        assert.equal((await seen(page))["kubeflow-userid"], "alice@example.com");
        const { value, ...cookie } = await cookieOf(name);
        secured.stack.secret(value);
        assert.deepEqual([cookie.secure, cookie.httpOnly, cookie.sameSite, cookie.path], [true, true, sameSite, "/"]);
        assert.equal(await cookieOf(STATE), undefined);
        assert.deepEqual(page.complaints, []);
        await page.close();
        await secured.stop();
    });
});

describe("a logout in Chromium", { skip }, () => {
    it("by our page ends the session here and at the provider, and the back button brings nothing back", async () => {
        const page = await loggedIn("/secret");
        await page.open(at("/authservice/logout"));
        await page.click("button");
        await page.at(`${stack.issuer}/session/end`); // which asks for itself
        await page.click("button[name=logout]");
        await page.at(at("/authservice/site/after_logout"));
        assert.equal(await cookieOf(SESSION), undefined);
        while (await page.url() !== at("/secret")) await page.history(-1);
        await page.send("Page.reload");
        await until("the login form is there", () => isLoginForm(page));
        await page.close();
    });

    it("by a page of another site is not possible", async () => {
        const page = await loggedIn("/app");
        // The provider's host is another site; its pages have no policy against this.
        await page.open(`${stack.issuer}/interaction/none`);
        await page.evaluate((action) => {
            const form = document.createElement("form");
            Object.assign(form, { method: "post", action });
            document.body.append(form);
            form.submit();
        }, at("/authservice/logout"));
        await until("it was refused", () => page.status === 401);
        await page.open(at("/app"));
        assert.equal((await seen(page))["kubeflow-userid"], "alice@example.com");
        await page.close();
    });

    it("twice, from a page that was open before, says that one is signed out", async () => {
        const page = await loggedIn("/app");
        await page.open(at("/authservice/logout"));
        await chromium.forgetCookies();
        await page.click("button");
        await page.at(at("/authservice/site/after_logout"));
        await page.close();
    });
});

// Each page of ours: what brings it up, its status, and the names that a screen reader has for its controls, in order.
const PAGES = {
    homepage: { status: 200, open: (page) => page.open(at("/authservice/site/homepage")), controls: ["Open the start page"] },
    after_logout: { status: 200, open: (page) => page.open(at("/authservice/site/after_logout")), controls: ["Sign in"] },
    logout: {
        status: 405, controls: ["Sign out", "Stay signed in"],
        open: async (page) => {
            await page.open(at("/app"));
            if (await isLoginForm(page)) await logIn(page);
            await page.at(at("/app"));
            await page.open(at("/authservice/logout"));
        },
    },
    error: { status: 400, open: (page) => page.open(at("/authservice/oidc/callback?state=x&code=y")), controls: ["Sign in again"] },
    denied: {
        status: 403, controls: ["Go to the start page", "Sign out"],
        open: async (page) => {
            await page.open(at("/app"));
            if (await isLoginForm(page)) await logIn(page, "carol");
            await until("it is denied", () => page.status === 403);
            await page.loaded();
        },
    },
    again: {
        status: 400, controls: ["Continue"],
        open: async (page) => {
            await page.open(at("/app"));
            const callback = await page.stay("*/authservice/oidc/callback*", () => logIn(page, "bob"));
            await chromium.forgetCookies();
            const other = await chromium.page();
            await other.open(at("/app")); // this browser keeps cookies, but not that one
            await other.close();
            await page.stay(at("/app"), () => page.open(callback));
        },
    },
};

describe("the page", { skip }, () => {
    for (const [name, { status, open, controls }] of Object.entries(PAGES)) for (const [width, height] of [[360, 640], [1280, 800]])
        it(`${name} is readable at ${width} x ${height}, in the light, in the dark and by keyboard`, async () => {
            const page = await freshPage();
            await page.resize(width, height);
            await open(page);
            assert.equal(page.status, status);
            page.complaints.splice(0, page.complaints.length, ...page.complaints.filter((each) => !each.includes(stack.issuer)));
            assert.deepEqual(await problemsOfKeys(page, controls), []);
            for (const scheme of ["light", "dark"]) {
                await page.scheme(scheme);
                assert.deepEqual(await problemsOf(page, controls), [], scheme);
                if (process.env.E2E_SCREENSHOTS) await page.screenshot(join(process.env.E2E_SCREENSHOTS, `${name}-${width}-${scheme}.png`));
            }
            assert.deepEqual(page.complaints, [], "the console is silent");
            assert.match(page.headers["content-security-policy"], /default-src 'none'.*frame-ancestors 'none'/);
            await page.close();
        });
});
