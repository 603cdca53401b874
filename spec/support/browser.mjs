// A browser as far as logins go: a cookie jar, redirects, forms. Not a parser of HTML: it knows the test provider's forms and ours.
import { request } from "./client.mjs";

const NAVIGATION = { accept: "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" };

export class Browser {
    constructor() {
        this.jar = []; // { host, name, value, path, attributes }
        this.visited = []; // "METHOD URL -> STATUS" of every hop
    }

    // All cookies of that host as a browser sends them (ports do not separate cookies; Secure ones go to this machine without TLS, too).
    cookieHeader(url) {
        const now = Date.now();
        const sent = this.jar.filter((cookie) => cookie.host === url.hostname && url.pathname.startsWith(cookie.path) && cookie.expires > now &&
            (!cookie.attributes.has("secure") || url.protocol === "https:" || url.hostname.startsWith("127.")));
        return sent.map((cookie) => `${cookie.name}=${cookie.value}`).join("; ");
    }

    cookie(name, host = "127.0.0.1") {
        return this.jar.find((each) => each.name === name && each.host === host && each.expires > Date.now());
    }

    // RFC 6265bis 5.5, without domains.
    #keep(url, line) {
        const [pair, ...rest] = line.split(";");
        const name = pair.slice(0, pair.indexOf("=")).trim();
        const attributes = new Map(rest.map((part) => part.trim().split("=")).map(([key, value]) => [key.toLowerCase(), value ?? ""]));
        const age = attributes.has("max-age") ? Number(attributes.get("max-age")) * 1000
            : attributes.has("expires") ? Date.parse(attributes.get("expires")) - Date.now() : Infinity;
        const path = attributes.get("path") || "/";
        this.jar = this.jar.filter((each) => each.host !== url.hostname || each.name !== name || each.path !== path);
        if (age > 0) this.jar.push({ host: url.hostname, name, value: pair.slice(pair.indexOf("=") + 1).trim(), path, attributes, expires: Date.now() + age });
    }

    // One request, no redirect followed. -> the answer of request(), with its url
    async send(target, { method = "GET", headers = {}, body, navigate = true } = {}) {
        const url = new URL(target);
        const cookies = this.cookieHeader(url);
        const answer = await request({
            host: url.hostname, port: Number(url.port), path: url.pathname + url.search, method, body, tls: url.protocol === "https:",
            headers: { host: url.host, ...(navigate ? NAVIGATION : {}), ...(cookies ? { cookie: cookies } : {}), ...headers },
        });
        for (const [name, value] of answer.lines) if (name === "set-cookie") this.#keep(url, value);
        this.visited.push(`${method} ${url.href} -> ${answer.status}`);
        return Object.assign(answer, { url: url.href });
    }

    // A navigation: redirects are followed as GET (as browsers do with 302 and 303). stop(url): ends in front of that hop.
    async open(target, options = {}, { stop = () => false, hops = 12 } = {}) {
        let answer = await this.send(target, options);
        while ([301, 302, 303, 307].includes(answer.status) && hops-- > 0) {
            const next = new URL(answer.headers.location, answer.url).href;
            if (stop(next)) return Object.assign(answer, { stopped: next });
            answer = await this.send(next);
        }
        return answer;
    }

    // Submits the only form of a page with these fields (its hidden ones are kept), and follows.
    submit(page, fields = {}, options = {}) {
        const [, attributes] = /<form([^>]*)>/i.exec(page.body) ?? [];
        if (attributes === undefined) throw new Error(`no form in ${page.status} ${page.url}: ${page.body.slice(0, 300)}`);
        const action = /action="([^"]*)"/i.exec(attributes)?.[1];
        const hidden = [...page.body.matchAll(/<input[^>]*type="hidden"[^>]*>/gi)].map(([tag]) => [
            /name="([^"]*)"/i.exec(tag)?.[1], /value="([^"]*)"/i.exec(tag)?.[1] ?? ""]).filter(([name]) => name);
        return this.open(new URL((action ?? page.url).replaceAll("&amp;", "&"), page.url).href, {
            method: "POST", body: new URLSearchParams([...hidden, ...Object.entries(fields)]).toString(),
            headers: { "content-type": "application/x-www-form-urlencoded", origin: new URL(page.url).origin, "sec-fetch-site": "same-origin" },
        }, options);
    }

    // Opens a page, logs in at the provider if it asks who we are. -> where it ended
    async login(target, user = "alice", options = {}) {
        const page = await this.open(target, {}, options);
        return /name="login"/.test(page.body) ? this.submit(page, { login: user }, options) : page;
    }
}
