// A front of the identity provider that misbehaves on request (security.md 4.2). HTTP/1.1, keeps the Host header, so that the
// provider behind it takes the proxy's address for its own.
//
// startFaultProxy({ target, host, port, control }) -> { host, port, target, calls, set(mode, options), reset(), close() }
//   set(mode, { path, once, ... })   path: prefix that the mode is for, the rest passes; once: for one request only. Modes:
//               pass; delay { delay ms }; refuse (nobody listens); status { status, body, retryAfter }; those of FAULTS and ANSWERS
//   calls       how many requests came, by path;  maxOpen: the most at one time
//   control     true: an HTTP port for other languages: PUT /mode?mode=hang&path=/me, GET /calls
import http from "node:http";

const JSON_TYPE = { "content-type": "application/json" };
const ALICE = '"sub":"alice","email":"alice@example.com"';

// Complete answers that a provider should not give; all of them must count as "could not find out" (503).
const ANSWERS = {
    html: [200, { "content-type": "text/html" }, "<html><body>Welcome to the captive portal</body></html>"],
    no_content: [204, {}, ""],
    redirect: [302, { location: "/elsewhere" }, ""],
    empty: [200, JSON_TYPE, ""],
    bad_json: [200, JSON_TYPE, `{${ALICE},"groups":["ops"]`],
    trailing: [200, JSON_TYPE, `{${ALICE}}{"groups":["ops"]}`],
    duplicates: [200, JSON_TYPE, `{${ALICE},"email":"root@example.com"}`],
    bad_utf8: [200, JSON_TYPE, Buffer.from(`{"sub":"alice","email":"al\xffice@example.com"}`, "latin1")],
    array: [200, JSON_TYPE, `[{${ALICE}}]`],
    text: [200, JSON_TYPE, '"alice@example.com"'],
    null: [200, JSON_TYPE, "null"],
    deep: [200, JSON_TYPE, `{${ALICE},"groups":${"[".repeat(5000)}${"]".repeat(5000)}}`],
    huge: [200, JSON_TYPE, `{${ALICE},"padding":"${"x".repeat(10 << 20)}"}`],
    many_headers: [200, { ...JSON_TYPE, "x-padding": Array(400).fill("y".repeat(1000)) }, `{${ALICE}}`],
};
export const ODD_ANSWERS = Object.keys(ANSWERS);

// What is done to the connection instead of an answer.
const FAULTS = {
    reset: (response) => response.socket.resetAndDestroy(),
    close: (response) => response.socket.destroy(),
    hang: () => {},
    slow(response) {
        const body = `{${ALICE},"groups":["ops"]}`;
        response.writeHead(200, { ...JSON_TYPE, "content-length": body.length });
        let sent = 0;
        const timer = setInterval(() => response.write(body[sent++]) && sent === body.length && response.end(), 1000);
        response.once("close", () => clearInterval(timer));
    },
    truncate(response) {
        response.writeHead(200, { ...JSON_TYPE, "content-length": 1000 });
        response.write(`{${ALICE}}`, () => response.socket.end());
    },
    cut_chunk(response) {
        response.writeHead(200, JSON_TYPE);
        response.write(`{${ALICE}}`, () => response.socket.resetAndDestroy());
    },
    garbage: (response) => response.socket.end("SSH-2.0-OpenSSH_9.2\r\n"),
};
export const CONNECTION_FAULTS = Object.keys(FAULTS);

export async function startFaultProxy({ target, host = "127.0.0.1", port = 0, control = false }) {
    const proxy = { host, target, calls: {}, maxOpen: 0 };
    const agent = new http.Agent({ keepAlive: true });
    let fault = { mode: "pass" };
    let open = 0;

    const server = http.createServer({ maxHeaderSize: 128 * 1024 }, (request, response) => {
        const path = request.url.split("?")[0];
        proxy.calls[path] = (proxy.calls[path] ?? 0) + 1;
        proxy.maxOpen = Math.max(proxy.maxOpen, ++open);
        response.once("close", () => open--);
        response.on("error", () => {});
        const { mode, status, retryAfter, body, delay, once } = path.startsWith(fault.path ?? "/") ? fault : { mode: "pass" };
        if (once) fault = { mode: "pass" };
        if (mode === "pass") return forward(request, response);
        if (mode === "delay") return setTimeout(forward, delay, request, response);
        if (FAULTS[mode]) return FAULTS[mode](response);
        if (ANSWERS[mode]) {
            const [code, headers, text] = ANSWERS[mode];
            return response.writeHead(code, headers).end(text);
        }
        const headers = { ...JSON_TYPE, ...(retryAfter === undefined ? {} : { "retry-after": retryAfter }) };
        response.writeHead(status, headers).end(body ?? '{"error":"temporarily_unavailable"}');
    });

    function forward(request, response) {
        const onward = http.request({
            agent, host: "127.0.0.1", port: proxy.target, method: request.method, path: request.url, headers: request.headers,
        }, (answer) => {
            response.writeHead(answer.statusCode, answer.rawHeaders);
            answer.pipe(response);
        });
        onward.on("error", () => response.socket?.destroy());
        request.pipe(onward);
    }

    const listen = (at) => new Promise((done, failed) => server.once("error", failed).listen(at, host, done));
    const stopListening = () => new Promise((done) => { server.close(done); server.closeAllConnections(); });

    proxy.set = async (mode, options = {}) => {
        if (!["pass", "delay", "refuse", "status"].includes(mode) && !FAULTS[mode] && !ANSWERS[mode])
            throw new Error(`the fault proxy knows no mode ${mode}`);
        fault = { mode, ...options };
        if (mode === "refuse" && server.listening) await stopListening();
        if (mode !== "refuse" && !server.listening) await listen(proxy.port);
    };
    proxy.reset = () => { proxy.calls = {}; proxy.maxOpen = 0; };
    proxy.close = async () => {
        if (server.listening) await stopListening();
        agent.destroy();
        proxy.controlServer?.close();
    };

    await listen(port);
    proxy.port = server.address().port;
    if (control) await startControl(proxy);
    return proxy;
}

async function startControl(proxy) {
    proxy.controlServer = http.createServer(async (request, response) => {
        const url = new URL(request.url, "http://control");
        try {
            if (url.pathname === "/mode") {
                const { mode, ...options } = Object.fromEntries(url.searchParams);
                if (options.status) options.status = Number(options.status);
                await proxy.set(mode, options);
            }
            response.end(`${JSON.stringify({ calls: proxy.calls, maxOpen: proxy.maxOpen })}\n`);
        } catch (error) {
            response.writeHead(400).end(`${error.message}\n`);
        }
    });
    await new Promise((done) => proxy.controlServer.listen(0, "127.0.0.1", done));
    proxy.controlPort = proxy.controlServer.address().port;
}
