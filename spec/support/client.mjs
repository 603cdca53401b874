// Small helpers of the end-to-end tests: requests on fresh connections, raw bytes, waiting, free ports.
import http from "node:http";
import https from "node:https";
import net from "node:net";

// Sanitizer builds are slow: E2E_SLOW=5 makes every wait five times as long.
export const SLOW = Number(process.env.E2E_SLOW ?? 1);
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Waits until probe() gives something true and returns it; an exception of the probe counts as "not yet".
export async function until(what, probe, ms = 5000) {
    const deadline = Date.now() + ms * SLOW;
    let last;
    for (;;) {
        try {
            last = await probe();
            if (last) return last;
        } catch (error) {
            last = error;
        }
        if (Date.now() > deadline) throw new Error(`gave up waiting until ${what} (last: ${last?.message ?? last})`);
        await sleep(10);
    }
}

// One request, by default on a connection of its own. socket: a Unix socket's path instead of a port; tls: of any certificate.
// -> { status, headers (node's form), lines ([[lower-case name, value], ...]), body, ms }
export function request({ host = "127.0.0.1", port, socket, path = "/", method = "GET", headers = {}, body, tls = false, agent = false, timeout = 15000 }) {
    return new Promise((done, failed) => {
        const started = performance.now();
        const options = { host, port, socketPath: socket, path, method, headers, agent, setHost: !("host" in headers), rejectUnauthorized: false };
        const call = (tls ? https : http).request(options, (answer) => {
            const parts = [];
            answer.on("data", (part) => parts.push(part));
            answer.on("error", failed);
            answer.on("end", () => done({
                status: answer.statusCode, headers: answer.headers, lines: pairs(answer.rawHeaders),
                body: Buffer.concat(parts).toString(), ms: performance.now() - started,
            }));
        });
        call.setTimeout(timeout * SLOW, () => call.destroy(new Error(`no answer to ${method} ${path} in ${timeout} ms`)));
        call.on("error", failed);
        call.end(body);
    });
}

function pairs(raw) {
    const lines = [];
    for (let i = 0; i < raw.length; i += 2) lines.push([raw[i].toLowerCase(), raw[i + 1]]);
    return lines;
}

// Sends bytes as they are and returns everything that comes back until the peer closes or is silent for a moment.
// -> { text, status (0: none), closed }
export function raw(port, bytes, { host = "127.0.0.1", quiet = 400 } = {}) {
    return new Promise((done) => {
        let text = "";
        let timer;
        const socket = net.connect(port, host);
        const finish = (closed) => {
            clearTimeout(timer);
            socket.destroy();
            done({ text, closed, status: Number(/^HTTP\/1\.[01] (\d{3})/.exec(text)?.[1] ?? 0) });
        };
        const wait = (ms) => { clearTimeout(timer); timer = setTimeout(finish, ms * SLOW, false); };
        socket.setEncoding("latin1");
        socket.on("connect", () => { socket.write(Buffer.from(bytes, "latin1")); wait(3000); });
        socket.on("data", (part) => { text += part; wait(quiet); });
        socket.on("error", () => finish(true));
        socket.on("close", () => finish(true));
    });
}

// Below the kernel's range of ephemeral ports, so that nobody's outgoing connection takes it before the server does.
const taken = new Set();
export async function freePort() {
    for (let tries = 0; tries < 200; tries++) {
        const port = 20000 + Math.floor(Math.random() * 12000);
        if (!taken.has(port) && await canListen(port)) {
            taken.add(port);
            return port;
        }
    }
    throw new Error("no free port between 20000 and 32000");
}

export function canListen(port, host = "0.0.0.0") {
    return new Promise((done) => {
        const server = net.createServer();
        server.once("error", () => done(false));
        server.listen(port, host, () => server.close(() => done(true)));
    });
}

// The samples of a Prometheus text: name (labels included, as written) -> number.
export function parseMetrics(text) {
    const samples = {};
    for (const line of text.split("\n")) {
        const match = /^([a-zA-Z_:][^ ]*(?:\{.*\})?) (\S+)$/.exec(line);
        if (match) samples[match[1]] = Number(match[2]);
    }
    return samples;
}

// The sum over all label sets of a metric.
export function total(samples, name) {
    return Object.entries(samples)
        .filter(([key]) => key === name || key.startsWith(`${name}{`))
        .reduce((sum, [, value]) => sum + value, 0);
}
