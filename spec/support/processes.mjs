// Child processes of the tests and the demo: Envoy and Moonlatch, with their logs, and what /proc says of them.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { SLOW, request, until } from "./client.mjs";

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");

const living = new Set();
const directories = new Set();
process.on("exit", () => {
    for (const child of living) child.process.kill("SIGKILL");
    for (const dir of directories) rmSync(dir, { recursive: true, force: true });
});
for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]]) process.on(signal, () => process.exit(code));

// A directory that is gone when this process ends.
export function temporaryDirectory() {
    const dir = mkdtempSync(join(tmpdir(), "moonlatch-"));
    directories.add(dir);
    return dir;
}

// A child with its whole output in .log (text). env replaces the environment but for PATH and the sanitizers' options. pipes: so many
// more, from descriptor 3 on.
export class Child {
    constructor(name, command, args, { env = {}, cwd = ROOT, pipes = 0 } = {}) {
        this.name = name;
        this.log = "";
        const kept = Object.entries(process.env).filter(([key]) => /^(PATH|LD_LIBRARY_PATH|\w*SAN_OPTIONS)$/.test(key));
        // It dies with us even if we are killed, as ctest does after a timeout.
        this.process = spawn("setpriv", ["--pdeathsig", "KILL", command, ...args], {
            cwd, env: { ...Object.fromEntries(kept), ...env }, stdio: ["ignore", "pipe", "pipe", ...Array(pipes).fill("pipe")],
        });
        this.pid = this.process.pid;
        for (const stream of [this.process.stdout, this.process.stderr])
            stream.setEncoding("utf8").on("data", (text) => this.#append(text));
        living.add(this);
        this.exited = new Promise((done) => {
            const end = (code, signal) => {
                living.delete(this);
                this.code = code ?? signal;
                done(this.code);
            };
            this.process.once("error", (error) => { this.log += error.message; end("not started"); });
            this.process.once("close", end);
        });
    }

    #append(text) {
        this.log += text;
        if (process.env.E2E_LOGS) process.stderr.write(text.replace(/^(?=.)/gm, `[${this.name}] `));
    }

    get running() {
        return this.code === undefined;
    }

    tail() {
        return this.log.split("\n").slice(-25).join("\n");
    }

    // Waits for the probe, but not for a process that has ended.
    async ready(what, probe, ms) {
        const wait = until(`${this.name} ${what}`, async () => !this.running || probe(), ms);
        try {
            await wait;
        } catch (error) {
            throw new Error(`${error.message}\n${this.tail()}`);
        }
        if (!this.running) throw new Error(`${this.name} ended with ${this.code}:\n${this.tail()}`);
    }

    // Asks it to end; returns its exit code (a number) or the signal that ended it (text).
    async stop(signal = "SIGTERM", ms = 15000) {
        if (!this.running) return this.code;
        this.process.kill(signal);
        const timer = setTimeout(() => this.process.kill("SIGKILL"), ms * SLOW);
        const code = await this.exited;
        clearTimeout(timer);
        return code;
    }

    // User and system time so far.
    cpuSeconds() {
        const fields = readFileSync(`/proc/${this.pid}/stat`, "utf8").replace(/^.*\) /, "").split(" ");
        return (Number(fields[11]) + Number(fields[12])) / 100;
    }

    // Open descriptors, without idle pooled connections to the given remote ports (they may stay open, up to a bound).
    descriptors(pooledPorts = []) {
        const pooled = new Set();
        for (const line of readFileSync(`/proc/${this.pid}/net/tcp`, "utf8").split("\n").slice(1)) {
            const fields = line.trim().split(/\s+/);
            if (fields.length > 9 && pooledPorts.includes(parseInt(fields[2].split(":")[1], 16))) pooled.add(`socket:[${fields[9]}]`);
        }
        const links = readdirSync(`/proc/${this.pid}/fd`).map((fd) => {
            try {
                return readlinkSync(`/proc/${this.pid}/fd/${fd}`);
            } catch {
                return undefined; // closed meanwhile
            }
        }).filter(Boolean);
        return { own: links.filter((link) => !pooled.has(link)).length, pooled: links.filter((link) => pooled.has(link)).length };
    }
}

const ROUTE = /^( *)- \{ match: \{ prefix: "\/" \}/m;
const CLUSTER = /^  - name: app\n.*\n.*\n/m;

// The configuration with a route to Dex, as Kubeflow's VirtualService makes it.
function withDex(config, port) {
    const cluster = `  - name: dex\n    type: STATIC\n    load_assignment: { cluster_name: dex, endpoints: [{ lb_endpoints: [{ endpoint: { address: ` +
        `{ socket_address: { address: 127.0.0.1, port_value: ${port} } } } }] }] }\n`;
    return config.replace(ROUTE, `$1- { match: { prefix: "/dex/" }, route: { cluster: dex } }\n$&`).replace(CLUSTER, `${cluster}$&`);
}

// An Envoy from deploy/envoy/NAME.yaml, between the gateway's port (0: a free one) and the given servers.
// -> { child, port, adminPort }
export async function startEnvoy(name, { checkPort, webPort, appPort, dexPort, gatewayPort = 0, dir }) {
    const binary = [process.env.ENVOY, join(ROOT, ".venv", "bin", "envoy")].find((path) => path && existsSync(path));
    if (!binary) throw new Error("no Envoy: run deploy/setup.sh, or set ENVOY to the program");
    const ports = { 10080: gatewayPort, 10081: 0, 8080: checkPort, 8082: webPort, 9000: appPort };
    const example = readFileSync(join(ROOT, "deploy", "envoy", `${name}.yaml`), "utf8");
    const config = join(dir, `${name}.yaml`);
    const own = example.replace(/port_value: (\d+)/g, (_all, port) => `port_value: ${ports[port]}`);
    writeFileSync(config, dexPort ? withDex(own, dexPort) : own);
    const addressFile = join(dir, `${name}.admin`);
    const child = new Child(`envoy ${name}`, binary, [
        "-c", config, "--disable-hot-restart", "--concurrency", "1", "-l", "warning", "--admin-address-path", addressFile,
    ]);
    let adminPort;
    let port;
    await child.ready("listens", async () => {
        adminPort = Number(readFileSync(addressFile, "utf8").split(":").pop());
        const { body } = await request({ port: adminPort, path: "/listeners?format=json" });
        port = JSON.parse(body).listener_statuses.find((each) => each.name === "gateway").local_address.socket_address.port_value;
        return port && (await request({ port: adminPort, path: "/ready" })).status === 200;
    }, 20000);
    return { child, port, adminPort };
}
