// TLS in front of a gateway, as a load balancer ends it: HTTP/1.1 both ways, the Host header kept.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { join } from "node:path";
import { freePort } from "./client.mjs";
import { temporaryDirectory } from "./processes.mjs";
import { startStack } from "./stack.mjs";

// A key and a certificate of its own making.
function certificate() {
    const dir = temporaryDirectory();
    const [key, cert] = [join(dir, "key.pem"), join(dir, "cert.pem")];
    execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=gateway",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], { stdio: "ignore" });
    return { key: readFileSync(key), cert: readFileSync(cert) };
}

async function startTls(port, target) {
    const server = https.createServer(certificate(), (request, response) => {
        const { method, url: path, headers } = request;
        const onward = http.request({ host: "127.0.0.1", port: target, method, path, headers }, (answer) => {
            response.writeHead(answer.statusCode, answer.rawHeaders);
            answer.pipe(response);
        });
        onward.on("error", () => response.destroy());
        request.pipe(onward);
    });
    await new Promise((done, failed) => server.once("error", failed).listen(port, "127.0.0.1", done));
    return { close: () => new Promise((done) => { server.close(done); server.closeAllConnections(); }) };
}

// A stack with logins whose users come over https. options: as of startStack. -> { stack, origin, stop }
export async function startSecured(options = {}) {
    const port = await freePort();
    const origin = `https://127.0.0.1:${port}`;
    const stack = await startStack({
        envoys: ["istio-http"], kubernetes: false, login: true, ...options,
        env: { REDIRECT_URL: `${origin}/authservice/oidc/callback`, ...options.env },
    });
    const tls = await startTls(port, stack.gatewayPort("istio-http"));
    return { stack, origin, stop: async () => { await tls.close(); await stack.stop(); } };
}
