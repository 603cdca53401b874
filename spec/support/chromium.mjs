// A real Chromium over its DevTools protocol, spoken on a pipe: no port, and no package that follows Chromium's versions.
//
//   CHROMIUM  the program, default chromium or chromium-browser of the PATH (deploy/setup.sh --browser)
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { SLOW, until } from "./client.mjs";
import { Child, temporaryDirectory } from "./processes.mjs";

const FLAGS = [
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--hide-scrollbars", "--lang=en",
    "--ignore-certificate-errors", // the tests' own
];
const COMMAND_MS = 15000;

// The program's path, or undefined when there is none.
export function findChromium() {
    if (process.env.CHROMIUM) return process.env.CHROMIUM;
    for (const name of ["chromium", "chromium-browser"]) {
        try {
            return execFileSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).trim();
        } catch {
            continue;
        }
    }
    return undefined;
}

// Starts one with an empty profile. Its pages share the cookies, as tabs do.
export async function startChromium() {
    const root = process.getuid() === 0 ? ["--no-sandbox"] : []; // Chromium refuses its sandbox to root
    const home = temporaryDirectory();
    const child = new Child("chromium", findChromium(), [...FLAGS, ...root, `--user-data-dir=${home}`, "about:blank"], {
        env: { HOME: home }, pipes: 2,
    });
    const browser = new Chromium(child);
    await until("Chromium answers", () => browser.send("Browser.getVersion"), 30000);
    return browser;
}

class Chromium {
    #calls = new Map(); // id -> { done, failed }
    #pages = new Map(); // session id -> Page
    #id = 0;
    #rest = "";

    constructor(child) {
        this.child = child;
        const [, , , toChild, fromChild] = child.process.stdio;
        this.out = toChild.on("error", () => {});
        fromChild.setEncoding("utf8").on("data", (text) => this.#read(text)).on("error", () => {});
    }

    // Messages are JSON, each with a NUL behind it.
    #read(text) {
        const messages = (this.#rest + text).split("\0");
        this.#rest = messages.pop();
        for (const each of messages) this.#take(JSON.parse(each));
    }

    #take({ id, result, error, method, params, sessionId }) {
        if (id === undefined) return this.#pages.get(sessionId)?.take(method, params);
        const call = this.#calls.get(id);
        this.#calls.delete(id);
        if (error) call?.failed(new Error(`${call.method}: ${error.message}`));
        else call?.done(result);
    }

    send(method, params = {}, sessionId = undefined) {
        const id = ++this.#id;
        return new Promise((done, failed) => {
            const timer = setTimeout(() => failed(new Error(`${method}: no answer`)), COMMAND_MS * SLOW);
            const end = (then) => (value) => { clearTimeout(timer); then(value); };
            this.#calls.set(id, { done: end(done), failed: end(failed), method });
            this.out.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
        });
    }

    // A new tab.
    async page() {
        const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
        const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
        const page = new Page(this, sessionId, targetId);
        this.#pages.set(sessionId, page);
        for (const domain of ["Page", "Runtime", "Log", "Network", "Audits", "DOM", "Accessibility"]) await page.send(`${domain}.enable`);
        await page.send("Emulation.setFocusEmulationEnabled", { enabled: true }); // all tabs get keys
        return page;
    }

    // All cookies of the profile, with their flags as the browser keeps them.
    async cookies() {
        return (await this.send("Storage.getCookies")).cookies;
    }

    forgetCookies() {
        return this.send("Storage.clearCookies");
    }

    async close() {
        await this.send("Browser.close").catch(() => {});
        await this.child.stop("SIGKILL");
    }
}

class Page {
    constructor(browser, session, target) {
        Object.assign(this, { browser, session, target, complaints: [], waiting: [], status: undefined, headers: {} });
    }

    send(method, params) {
        return this.browser.send(method, params, this.session);
    }

    // The next event of that name.
    #next(method) {
        return new Promise((done) => { this.waiting.push({ method, done }); });
    }

    // Events: what the page complains about, and the status of its document.
    take(method, params) {
        for (const each of this.waiting.filter((one) => one.method === method)) each.done(params);
        this.waiting = this.waiting.filter((one) => one.method !== method);
        if (method === "Runtime.exceptionThrown") this.complaints.push(params.exceptionDetails.text);
        else if (method === "Runtime.consoleAPICalled" && params.type === "error") this.complaints.push(JSON.stringify(params.args));
        else if (method === "Log.entryAdded") this.#logged(params.entry);
        else if (method === "Audits.issueAdded") this.#issue(params.issue);
        else if (method === "Network.responseReceived" && params.type === "Document" && params.response.status !== 204) // 204 is no page
            Object.assign(this, { status: params.response.status, headers: params.response.headers });
    }

    // That the document itself is a 4xx is for the test to judge.
    #logged({ level, text, url, source }) {
        if (level === "error" && !(source === "network" && /status of [45]\d\d/.test(text) && !/\.css$/.test(url)))
            this.complaints.push(`${text} (${url})`);
    }

    #issue({ code, details }) {
        if (code === "ContentSecurityPolicyIssue" || code === "QuirksModeIssue") this.complaints.push(`${code}: ${JSON.stringify(details)}`);
    }

    // Opens an address and waits for what it ends at.
    async open(url) {
        const { errorText } = await this.send("Page.navigate", { url });
        if (errorText && errorText !== "net::ERR_ABORTED") throw new Error(`${url}: ${errorText}`);
        await this.loaded();
    }

    loaded() {
        return until("the page is loaded", () => this.evaluate(() => document.readyState === "complete"));
    }

    // Waits until the tab is at an address, loaded. Without a query it stands for all of them.
    at(url) {
        const there = (wanted) => document.readyState === "complete" && [location.href, location.origin + location.pathname].includes(wanted);
        return until(`the tab is at ${url}`, () => this.evaluate(there, url), 15000).catch(async (error) => { throw new Error(`${error.message}; it is at ${await this.url()}: ${await this.text()}`); });
    }

    url() {
        return this.evaluate(() => location.href);
    }

    text() {
        return this.evaluate(() => document.body?.innerText ?? "");
    }

    // Runs a function in the page; its arguments and its result are JSON.
    async evaluate(run, ...args) {
        const { result, exceptionDetails } = await this.send("Runtime.evaluate", {
            expression: `(${run})(${args.map((each) => JSON.stringify(each)).join(",")})`, returnByValue: true, awaitPromise: true,
        });
        if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
        return result.value;
    }

    async press(key, modifiers = 0) {
        const [code, text] = { Tab: [9], Enter: [13, "\r"] }[key];
        const event = { key, code: key, windowsVirtualKeyCode: code, modifiers };
        await this.send("Input.dispatchKeyEvent", { type: text ? "keyDown" : "rawKeyDown", text, ...event });
        await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...event });
    }

    type(text) {
        return this.send("Input.insertText", { text });
    }

    // A click of the mouse in the middle of the element.
    async click(selector) {
        const { x, y } = await this.evaluate((what) => {
            const box = document.querySelector(what).getBoundingClientRect();
            return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
        }, selector);
        for (const type of ["mousePressed", "mouseReleased"])
            await this.send("Input.dispatchMouseEvent", { type, x, y, button: "left", clickCount: 1 });
    }

    // steps: -1 is the back button.
    async history(steps) {
        const { currentIndex, entries } = await this.send("Page.getNavigationHistory");
        await this.send("Page.navigateToHistoryEntry", { entryId: entries[currentIndex + steps].id });
        await until("the tab went back", async () => (await this.send("Page.getNavigationHistory")).currentIndex === currentIndex + steps);
        await this.loaded();
    }

    resize(width, height) {
        return this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: width < 500 });
    }

    scheme(value) {
        return this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value }] });
    }

    scripts(allowed) {
        return this.send("Emulation.setScriptExecutionDisabled", { value: !allowed });
    }

    // Keeps the page where it is when act makes it ask for such an address, once. -> the whole address
    async stay(urlPattern, act) {
        await this.send("Fetch.enable", { patterns: [{ urlPattern }] });
        const [{ request }] = await Promise.all([
            this.#next("Fetch.requestPaused").then(async (event) => {
                await this.send("Fetch.fulfillRequest", { requestId: event.requestId, responseCode: 204 });
                return event;
            }), act(),
        ]);
        await this.send("Fetch.disable");
        return request.url;
    }

    // What a screen reader is told: [{ role, name }], without what is ignored.
    async accessible() {
        const { nodes } = await this.send("Accessibility.getFullAXTree");
        return nodes.filter(({ ignored }) => !ignored).map(({ role, name, properties = [] }) => ({
            role: role.value, name: name?.value ?? "", level: properties.find((each) => each.name === "level")?.value.value,
        }));
    }

    async screenshot(path) {
        const { data } = await this.send("Page.captureScreenshot", { format: "png" });
        writeFileSync(path, Buffer.from(data, "base64"));
    }

    close() {
        return this.browser.send("Target.closeTarget", { targetId: this.target });
    }
}
