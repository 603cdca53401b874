// One whole installation for a test file or the demo: identity provider behind a fault proxy, TokenReview API, application,
// Envoys, Moonlatch; all real, on free ports, gone at the end.
//
//   MOONLATCH  the server's program, default build/dev/moonlatch      ENVOY     Envoy, default .venv/bin/envoy
//   E2E_SLOW   factor on every wait (sanitizer builds)                E2E_LOGS  show the children's logs
import assert from "node:assert/strict";
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort, parseMetrics, raw, request, until } from "./client.mjs";
import { startEcho } from "./echo.mjs";
import { startFaultProxy } from "./fault_proxy.mjs";
import { Child, ROOT, startEnvoy, temporaryDirectory } from "./processes.mjs";
import { DEX } from "./dex.mjs";
import { CLIENT, startProvider } from "./provider.mjs";
import { DEFAULT_AUDIENCE, startTokenReview } from "./tokenreview.mjs";

const WORKERS = 2;
const POOL_BOUND = 64; // connections that a worker may keep open to one upstream; there are two upstreams

export const ENVOYS = ["istio-http", "kubeflow"];

// options: env (overrides; undefined removes a name), policy (a file, default policies/default.lua; copied, so tests may edit
// stack.policy), envoys (names, default none), kubernetes (default true), wait ("ready", "live" or "none"),
// fault (a mode of the fault proxy to start with), configMap (the policy lies in a directory as kubelet makes it),
// descriptors (limit of open files), ports { check, readiness, web, ENVOY }, provider (options of startProvider; with dex the Envoys
// have a route to it),
// login (browsers are sent to the login; without it everybody gets 401), audience (access tokens are JWTs for it), upstreams (ports of
// further ones, to which connections stay open)
export async function startStack(options = {}) {
    const stack = new Stack(options);
    try {
        await stack.start();
    } catch (error) {
        await stack.kill();
        throw error;
    }
    return stack;
}

class Stack {
    #secrets = new Set([CLIENT.secret]);
    #envoys = {};
    #replicas = [];

    constructor({ env = {}, policy = join(ROOT, "policies", "default.lua"), envoys = [], kubernetes = true, wait = "ready",
        fault, configMap = false, descriptors, ports = {}, provider = {}, login = false, audience, upstreams = [] }) {
        Object.assign(this, { env, source: policy, envoyNames: envoys, kubernetes, wait, fault, configMap, descriptors, ports, login, audience, upstreams });
        this.providerOptions = provider;
        this.dir = temporaryDirectory();
    }

    async start() {
        // A loopback address of our own: while "refuse" closes the listener nobody else can get its port.
        const host = `127.${1 + process.pid % 254}.${Math.floor(Math.random() * 255)}.${2 + Math.floor(Math.random() * 250)}`;
        this.proxy = await startFaultProxy({ host, target: undefined });
        this.issuer = `http://${host}:${this.proxy.port}${this.providerOptions.dex ? DEX : ""}`;
        this.provider = await startProvider({ issuer: this.issuer, ...this.providerOptions });
        this.proxy.target = this.provider.port;
        this.echo = await startEcho();
        if (this.kubernetes) {
            const dir = join(this.dir, "kubernetes");
            mkdirSync(dir);
            this.tokenreview = await startTokenReview(dir);
            this.#secrets.add(this.tokenreview.token);
        }
        this.#installPolicy();
        if (this.fault) await this.proxy.set(this.fault);
        this.checkPort = this.ports.check ?? await freePort();
        this.readinessPort = this.ports.readiness ?? await freePort();
        this.webPort = this.ports.web ?? await freePort();
        this.adminSocket = join(this.dir, "admin.sock");
        this.gatewayPorts = {};
        for (const name of this.envoyNames) this.gatewayPorts[name] = this.ports[name] ?? await freePort();
        this.origin = `http://127.0.0.1:${this.gatewayPorts[this.envoyNames[0]] ?? this.checkPort}`;
        await this.startServer();
        for (const name of this.envoyNames)
            this.#envoys[name] = await startEnvoy(name, {
                checkPort: this.checkPort, webPort: this.webPort, appPort: this.echo.port, gatewayPort: this.gatewayPorts[name],
                dexPort: this.providerOptions.dex && this.provider.port, dir: this.dir,
            });
    }

    #installPolicy() {
        const policies = join(this.dir, "policies");
        mkdirSync(policies);
        this.policy = join(policies, "policy.lua");
        if (this.configMap) {
            this.swapConfigMap(readFileSync(this.source));
            symlinkSync("..data/policy.lua", this.policy);
        } else {
            copyFileSync(this.source, this.policy);
        }
    }

    // What kubelet does when a ConfigMap changes: a new directory, then ..data is renamed over.
    swapConfigMap(text) {
        const policies = join(this.dir, "policies");
        const version = `..${Date.now()}_${Math.random()}`;
        mkdirSync(join(policies, version));
        writeFileSync(join(policies, version, "policy.lua"), text);
        symlinkSync(version, join(policies, "..data_tmp"));
        renameSync(join(policies, "..data_tmp"), join(policies, "..data"));
        if (this.configMapVersion) rmSync(join(policies, this.configMapVersion), { recursive: true });
        this.configMapVersion = version;
    }

    environment() {
        const env = {
            OIDC_PROVIDER: this.issuer, CLIENT_ID: CLIENT.id, CLIENT_SECRET: CLIENT.secret,
            AUTHSERVICE_URL_PREFIX: "/authservice/", REDIRECT_URL: `${this.origin}/authservice/oidc/callback`, SKIP_AUTH_URLS: "/public,/dex", ACCESS_TOKEN_AUTHN: "opaque", OIDC_SCOPES: "openid,email,groups",
            LOGIN_CLIENTS: this.login ? "browsers" : "none",
            CACHE_ENABLED: "true", AUDIENCES: DEFAULT_AUDIENCE, SERVER_HOSTNAME: "127.0.0.1", SERVER_PORT: String(this.checkPort),
            READINESS_PROBE_PORT: String(this.readinessPort), WEB_SERVER_PORT: String(this.webPort),
            MOONLATCH_WORKERS: String(WORKERS), LOG_LEVEL: "DEBUG", SESSION_STORE_PATH: join(this.dir, "sessions.db"),
            ADMIN_ADDR: `unix:${this.adminSocket}`, KUBERNETES_AUTHN_ENABLED: String(this.kubernetes),
            KUBECONFIG: this.tokenreview?.kubeconfig, ...this.env,
        };
        return Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined));
    }

    async startServer() {
        const binary = process.env.MOONLATCH ?? join(ROOT, "build", "dev", "moonlatch");
        if (!existsSync(binary)) throw new Error(`there is no ${binary}; build it (cmake --preset dev && cmake --build --preset dev) or set MOONLATCH`);
        const limit = this.descriptors ? ["prlimit", `--nofile=${this.descriptors}`] : [];
        const [command, ...args] = [...limit, binary, "serve", "--policy", this.policy];
        this.server = new Child("moonlatch", command, args, { env: this.environment() });
        if (this.wait === "none") return;
        if (this.wait === "live") await this.server.ready("lives", async () => (await this.probe("/livez")).status === 200, 10000);
        else await this.server.ready("is ready", () => this.isReady(), 10000);
        if (this.wait === "ready") await this.assertServes(); // what is opened once is open now
        this.baseline = this.server.descriptors(this.#pooledPorts());
    }

    // A second server beside the first: same settings, own ports. -> { check, metrics, admin, child }
    async startReplica(env = {}) {
        const [checkPort, readinessPort, webPort] = [await freePort(), await freePort(), await freePort()];
        const socket = join(this.dir, `admin-${checkPort}.sock`);
        const child = new Child("replica", process.env.MOONLATCH, ["serve", "--policy", this.policy], {
            env: { ...this.environment(), SERVER_PORT: String(checkPort), READINESS_PROBE_PORT: String(readinessPort),
                WEB_SERVER_PORT: String(webPort), ADMIN_ADDR: `unix:${socket}`, ...env },
        });
        this.#replicas.push(child);
        await child.ready("is ready", async () => (await request({ port: readinessPort })).status === 200, 10000);
        return {
            child, checkPort, webPort, check: (path, options = {}) => this.#send(checkPort, path ?? "/app", options),
            metrics: async () => parseMetrics((await request({ port: readinessPort, path: "/metrics" })).body),
            admin: (method, path, body) => request({ socket, method, path, body }),
        };
    }

    #pooledPorts() {
        return [this.proxy.port, this.tokenreview?.port, ...this.upstreams];
    }

    // A new access token of the provider; remembered, so that no log may contain it. more: see mint.
    async token(sub = "alice", ttl = 3600, more = {}) {
        return this.secret(await this.provider.mint({ sub, ttl, audience: this.audience, ...more }));
    }

    // A service account's token.
    kubeToken(options) {
        return this.secret(this.tokenreview.mint(options));
    }

    // Anything that must never be logged.
    secret(value) {
        this.#secrets.add(value);
        return value;
    }

    // A check as a gateway sends it. token: sent as a bearer.
    check(path = "/app", options = {}) {
        return this.#send(this.checkPort, path, options);
    }

    // The same through an Envoy: the answer is the application's or the denial.
    via(name, path = "/app", options = {}) {
        return this.#send(this.#envoys[name].port, path, options);
    }

    #send(port, path, { token, headers = {}, ...rest }) {
        const credential = token === undefined ? {} : { [this.env.ID_TOKEN_HEADER ?? "authorization"]: `Bearer ${token}` };
        return request({ port, path, headers: { host: "app.example.org", ...credential, ...headers }, ...rest });
    }

    // What the application got, when the gateway let the request through: name -> list of values.
    async seenByApp(name, path, options) {
        const answer = await this.via(name, path, options);
        if (answer.status !== 200) return { status: answer.status, headers: undefined };
        const headers = {};
        for (const [key, value] of JSON.parse(answer.body).headers) (headers[key] ??= []).push(value);
        return { status: 200, headers };
    }

    gatewayPort(name) {
        return this.#envoys[name].port;
    }

    raw(bytes, options) {
        return raw(this.checkPort, bytes, options);
    }

    rawVia(name, bytes, options) {
        return raw(this.#envoys[name].port, bytes, options);
    }

    probe(path = "/", options = {}) {
        return request({ port: this.readinessPort, path, ...options });
    }

    async isReady() {
        return (await this.probe("/")).status === 200;
    }

    async metrics() {
        return parseMetrics((await this.probe("/metrics")).body);
    }

    admin(method, path, body) {
        return request({ socket: this.adminSocket, method, path, body });
    }

    userinfoCalls() {
        return this.proxy.calls["/me"] ?? 0;
    }

    // A control allow and a control denial (O6 of security.md).
    async assertServes() {
        this.control ??= await this.token("alice");
        const [good, bad] = [await this.check("/app", { token: this.control }), await this.check("/app")];
        assert.equal(good.status, 200, "the control request is allowed");
        assert.equal(bad.status, this.login ? 302 : 401, "a request without a credential is denied");
    }

    // O2: it still is the process that was started, and says nothing about a sanitizer.
    assertAlive() {
        assert.ok(this.server.running, `the server ended with ${this.server.code}:\n${this.server.tail()}`);
        assert.doesNotMatch(this.server.log, /AddressSanitizer|ThreadSanitizer|LeakSanitizer|runtime error:/);
    }

    openDescriptors() {
        return this.server.descriptors(this.#pooledPorts()).own;
    }

    // O3: as many descriptors as at the start, pooled connections to upstreams aside.
    async assertNoDescriptorLeak() {
        let now;
        await until("the descriptors are back to the baseline", () => {
            now = this.server.descriptors(this.#pooledPorts());
            return now.own <= this.baseline.own + (this.wait === "ready" && this.upstreams.length === 0 ? 0 : 8); // not warmed up at the start: session store, clients
        }, 12000).catch((error) => assert.fail(`${error.message}: ${this.baseline.own} at the start, ${now.own} now`));
        assert.ok(now.pooled <= 2 * WORKERS * POOL_BOUND, `${now.pooled} pooled connections`);
    }

    // O5: no credential in any log line.
    assertNoSecretLogged() {
        for (const secret of this.#secrets)
            assert.ok(!this.server.log.includes(secret), `a credential is in the log: ${secret.slice(0, 6)}...`);
    }

    // Ends everything and checks O2, O3, O5. restarted: the test stopped the server itself.
    async stop() {
        try {
            if (this.server.running && this.baseline) {
                this.assertAlive();
                for (const { child } of Object.values(this.#envoys)) await child.stop();
                await this.assertNoDescriptorLeak();
                assert.equal(await this.server.stop(), 0, `the server's exit code\n${this.server.tail()}`);
            }
            assert.doesNotMatch(this.server.log, /AddressSanitizer|ThreadSanitizer|LeakSanitizer|runtime error:/);
            this.assertNoSecretLogged();
        } finally {
            await this.kill();
        }
    }

    async kill() {
        for (const { child } of Object.values(this.#envoys)) await child.stop("SIGKILL");
        for (const child of this.#replicas) await child.stop("SIGKILL");
        await this.server?.stop("SIGKILL");
        for (const part of [this.proxy, this.provider, this.echo, this.tokenreview]) await part?.close();
    }
}
