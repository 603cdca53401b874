// A real OpenID provider (the oidc-provider package) for the tests and the demo: opaque and JWT access tokens, one client, a few users,
// a login page (a form with the user's name; its answer is the consent as well), refresh tokens, revocation, logout.
//
// Beside the provider's own endpoints it answers, outside of what the product may call:
//   POST /test/token?sub=alice&ttl=60   a new access token as text, made by the provider's own models
//   POST /test/revoke?token=T           the token is gone
//   GET  /test/stats                    {"userinfo": calls, "discovery": calls}
import { createPrivateKey, generateKeyPairSync, randomUUID, sign } from "node:crypto";
import http from "node:http";
import Provider from "oidc-provider";
import { DEX, asDex } from "./dex.mjs";

export const CLIENT = { id: "moonlatch", secret: "client-secret-of-the-tests" };

// What UserInfo says of each user; "sub" is added. The odd ones are for S-036.
export const USERS = {
    alice: { email: "alice@example.com", groups: ["dev", "ops"] },
    bob: { email: "bob@example.com" },
    carol: { email: "carol@example.com", groups: [] },
    groups_text: { email: "groups_text@example.com", groups: "admin" },
    groups_number: { email: "groups_number@example.com", groups: 7 },
    groups_null: { email: "groups_null@example.com", groups: null },
    groups_object: { email: "groups_object@example.com", groups: { admin: 1 } },
    groups_nested: { email: "groups_nested@example.com", groups: [["admin"]] },
    groups_mixed: { email: "groups_mixed@example.com", groups: ["admin", 1] },
    user_array: { email: ["root@example.com"], groups: [] },
    user_number: { email: 1, groups: [] },
    user_object: { email: { name: "root" }, groups: [] },
    user_null: { email: null, groups: [] },
    user_empty: { email: "", groups: [] },
    user_missing: { groups: ["dev"] },
    user_crlf: { email: "bob\r\nX-Admin: 1", groups: [] },
    user_lf: { email: "bob\nX-Admin: 1", groups: [] },
    user_nul: { email: "bob\u0000admin", groups: [] },
    user_del: { email: "bob\u007f", groups: [] },
    groups_crlf: { email: "groups_crlf@example.com", groups: ["dev\r\nX-Admin: 1"] },
};

// The package's own in-memory adapter hands out what has expired; this one forgets it.
class Adapter {
    static #rows = new Map();

    constructor(model) {
        this.prefix = `${model}:`;
    }

    async upsert(id, payload, expiresIn) {
        const expires = expiresIn ? Date.now() + expiresIn * 1000 : Infinity;
        Adapter.#rows.set(this.prefix + id, { payload, expires });
    }

    async find(id) {
        const row = Adapter.#rows.get(this.prefix + id);
        if (!row) return undefined;
        if (row.expires > Date.now()) return row.payload;
        Adapter.#rows.delete(this.prefix + id);
        return undefined;
    }

    async findByUid(uid) {
        return this.#findBy("uid", uid);
    }

    async findByUserCode(userCode) {
        return this.#findBy("userCode", userCode);
    }

    async consume(id) {
        const payload = await this.find(id);
        if (payload) payload.consumed = Math.floor(Date.now() / 1000);
    }

    async destroy(id) {
        Adapter.#rows.delete(this.prefix + id);
    }

    async revokeByGrantId(grantId) {
        for (const [key, { payload }] of Adapter.#rows)
            if (payload.grantId === grantId) Adapter.#rows.delete(key);
    }

    // Everything that was given to that user.
    static forget(accountId) {
        for (const [key, { payload }] of Adapter.#rows)
            if (payload.accountId === accountId) Adapter.#rows.delete(key);
    }

    async #findBy(field, value) {
        for (const [key, { payload }] of Adapter.#rows)
            if (key.startsWith(this.prefix) && payload[field] === value)
                return this.find(key.slice(this.prefix.length));
        return undefined;
    }
}

const CALLBACK = "/authservice/oidc/callback";

// Private signing keys, one RSA and one EC, whose key ids end so.
export const makeKeys = (name) => [["rsa", { modulusLength: 2048 }, "RS256"], ["ec", { namedCurve: "P-256" }, "ES256"]].map(([type, options, alg]) => ({
    ...generateKeyPairSync(type, options).privateKey.export({ format: "jwk" }), alg, use: "sig", kid: `${alg}-${name}`,
}));
const KEYS = makeKeys("of-the-tests");

// What a user is goes into JWT access tokens as it does into UserInfo.
const formats = { customizers: { jwt: (_ctx, token, parts) => Object.assign(parts.payload, USERS[token.accountId]) } };

// options.client, options.features, options.ttl: over ours; options.keys: the signing keys; options.dex: it is played, see dex.mjs.
function configuration({ client = {}, features = {}, ttl = {}, keys = KEYS, dex = false }) {
    return {
        adapter: Adapter,
        jwks: { keys },
        formats,
        clients: [{
            client_id: CLIENT.id,
            client_secret: CLIENT.secret,
            redirect_uris: [`http://localhost${CALLBACK}`],
            grant_types: ["authorization_code", "refresh_token"],
            ...client,
        }],
        clientBasedCORS: () => false,
        issueRefreshToken: async () => true,
        rotateRefreshToken: true,
        interactions: { url: (_ctx, { uid }) => `${dex ? DEX : ""}/interaction/${uid}` },
        enabledJWA: { idTokenSigningAlgValues: ["RS256", "ES256"] },
        claims: { openid: ["sub"], email: ["email"], groups: ["groups"] },
        scopes: ["openid", "email", "groups"],
        cookies: { keys: ["tests-only"] },
        features: {
            devInteractions: { enabled: false }, revocation: { enabled: true }, backchannelLogout: { enabled: true },
            pushedAuthorizationRequests: { enabled: false },
            ...(dex ? { rpInitiatedLogout: { enabled: false }, revocation: { enabled: false }, backchannelLogout: { enabled: false } } : {}),
            ...features,
        },
        ttl: { AccessToken: 3600, Grant: 86400, IdToken: 3600, RefreshToken: 86400, Session: 86400, Interaction: 3600, ...ttl },
        findAccount: (_ctx, sub) => Object.hasOwn(USERS, sub)
            ? { accountId: sub, claims: async () => ({ sub, ...USERS[sub] }) }
            : undefined,
    };
}

// The tests' gateways have the ports that were free: what counts is the path.
function allowAnyPort(provider) {
    const pathOf = (uri) => (URL.canParse(uri) ? new URL(uri).pathname : uri);
    provider.Client.prototype.redirectUriAllowed = (uri) => pathOf(uri) === CALLBACK;
    provider.Client.prototype.postLogoutRedirectUriAllowed = (uri) => pathOf(uri).startsWith("/authservice/");
}

function readBody(request) {
    return new Promise((done) => {
        let text = "";
        request.setEncoding("utf8").on("data", (part) => { text += part; }).on("end", () => done(text));
    });
}

// The login page: GET shows the form, POST with login=USER is that user's login and consent; an unknown user is "access_denied".
async function interaction(provider, request, response) {
    if (request.method !== "POST") {
        response.writeHead(200, { "content-type": "text/html; charset=utf-8" });
        return response.end(`<!doctype html><title>Log in</title><form method="post"><label>User <input name="login" autofocus></label>
<button>Log in</button></form>\n`);
    }
    const accountId = new URLSearchParams(await readBody(request)).get("login");
    const { params, grantId } = await provider.interactionDetails(request, response);
    if (!Object.hasOwn(USERS, accountId))
        return provider.interactionFinished(request, response, { error: "access_denied", error_description: "<b>no such user</b>" });
    const grant = (grantId && await provider.Grant.find(grantId)) || new provider.Grant({ accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    return provider.interactionFinished(request, response, { login: { accountId }, consent: { grantId: await grant.save() } });
}

// audience: of a JWT (a resource server's, RFC 8707), signed with alg; without it the token is opaque.
async function mint(provider, sub, ttl, audience, alg) {
    const client = await provider.Client.find(CLIENT.id);
    const grant = new provider.Grant({ accountId: sub, clientId: CLIENT.id });
    grant.addOIDCScope("openid email groups");
    const token = new provider.AccessToken({
        accountId: sub, client, grantId: await grant.save(), expiresIn: ttl,
        scope: "openid email groups", gty: "authorization_code",
    });
    if (audience)
        token.resourceServer = new provider.ResourceServer(audience, {
            audience, scope: token.scope, accessTokenFormat: "jwt", jwt: { sign: { alg } },
        });
    return token.save();
}

// A logout token as OpenID Connect Back-Channel Logout 1.0 section 2.4 wants it; changes: over its claims, undefined removes one.
function logoutToken(issuer, { sub, sid }, changes = {}) {
    const now = Math.floor(Date.now() / 1000);
    const claims = {
        iss: issuer, aud: CLIENT.id, iat: now, exp: now + 120, jti: randomUUID(), sub, sid,
        events: { "http://schemas.openid.net/event/backchannel-logout": {} }, ...changes,
    };
    const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const head = `${encode({ alg: "RS256", typ: "logout+jwt", kid: KEYS[0].kid })}.${encode(claims)}`;
    return `${head}.${sign("sha256", Buffer.from(head), createPrivateKey({ key: KEYS[0], format: "jwk" })).toString("base64url")}`;
}

// Starts the provider on 127.0.0.1:port (0: a free one). issuer: the address under which the product sees it, when that is
// another one (a fault proxy); it must keep the Host header. Returns { issuer, port, mint, revoke, stats, close }.
export async function startProvider({ port = 0, issuer, ...options } = {}) {
    const stats = { userinfo: 0, discovery: 0 };
    const server = http.createServer({ maxHeaderSize: 128 * 1024 });
    await new Promise((done, failed) => server.once("error", failed).listen(port, "127.0.0.1", done));
    port = server.address().port;
    issuer ??= `http://127.0.0.1:${port}`;
    const provider = quietly(() => new Provider(issuer, configuration(options)));
    allowAnyPort(provider);
    const callback = provider.callback();
    const revoke = async (value) => (await provider.AccessToken.find(value))?.destroy();

    async function testEndpoint(url, response) {
        const query = url.searchParams;
        if (url.pathname === "/test/token" && Object.hasOwn(USERS, query.get("sub")))
            return response.end(await mint(provider, query.get("sub"), Number(query.get("ttl") ?? 3600)));
        if (url.pathname === "/test/revoke") return response.end(String(Boolean(await revoke(query.get("token")))));
        if (url.pathname === "/test/stats") return response.end(JSON.stringify(stats));
        response.writeHead(404).end("no such test endpoint or user\n");
    }

    server.on("request", async (request, response) => {
        if (options.dex) await asDex(request, response);
        const url = new URL(request.url, issuer);
        if (url.pathname.startsWith("/test/")) return testEndpoint(url, response);
        if (url.pathname.startsWith("/interaction/"))
            return interaction(provider, request, response).catch((error) => response.writeHead(500).end(String(error)));
        if (url.pathname === "/me") stats.userinfo++;
        if (url.pathname === "/.well-known/openid-configuration") stats.discovery++;
        callback(request, response);
    });
    return {
        issuer, port, stats, revoke, provider, keys: options.keys ?? KEYS,
        forget: (sub) => Adapter.forget(sub),
        logoutToken: (who, changes) => logoutToken(issuer, who, changes),
        mint: ({ sub = "alice", ttl = 3600, audience, alg = "RS256" } = {}) => mint(provider, sub, ttl, audience, alg),
        close: () => new Promise((done) => { server.close(done); server.closeAllConnections(); }),
    };
}

// The package warns about development keys and http; nobody reads that in a test's output.
function quietly(make) {
    const { warn, info, log } = console;
    console.warn = console.info = console.log = () => {};
    try {
        return make();
    } finally {
        Object.assign(console, { warn, info, log });
    }
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
    const provider = await startProvider({ port: Number(process.env.PORT ?? 0), issuer: process.env.ISSUER });
    console.log(provider.issuer);
}
