// The TokenReview and SubjectAccessReview APIs as kube-apiserver answers them: TLS under a CA of its own, our own bearer token demanded, v1 JSON.
import { execFileSync } from "node:child_process";
import { generateKeyPairSync, randomBytes, sign, verify } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import https from "node:https";
import { join } from "node:path";

const PATH = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_PATH = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
export const API_AUDIENCE = "https://kubernetes.default.svc.cluster.local";
export const DEFAULT_AUDIENCE = "istio-ingressgateway.istio-system.svc.cluster.local";

const base64url = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const seconds = () => Math.floor(Date.now() / 1000);

function openssl(...args) {
    execFileSync("openssl", args, { stdio: ["ignore", "ignore", "pipe"] });
}

// dir gets ca.pem, server.pem, server.key.
function makeCertificates(dir) {
    const at = (name) => join(dir, name);
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    openssl("req", "-x509", ...key, "-keyout", at("ca.key"), "-out", at("ca.pem"), "-days", "2", "-subj", "/CN=test kubernetes CA");
    openssl("req", ...key, "-keyout", at("server.key"), "-out", at("server.csr"), "-subj", "/CN=kube-apiserver");
    writeFileSync(at("extensions"), "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc\nbasicConstraints=CA:FALSE\n");
    openssl("x509", "-req", "-in", at("server.csr"), "-CA", at("ca.pem"), "-CAkey", at("ca.key"), "-CAcreateserial",
        "-days", "2", "-extfile", at("extensions"), "-out", at("server.pem"));
}

function kubeconfig(port, ca, token) {
    return `apiVersion: v1
kind: Config
current-context: test
contexts:
- name: test
  context: {cluster: test, user: moonlatch}
clusters:
- name: test
  cluster:
    server: https://127.0.0.1:${port}
    certificate-authority-data: ${ca.toString("base64")}
users:
- name: moonlatch
  user:
    token: ${token}
`;
}

// Service account tokens: real JWTs under a key that only this server has.
class Issuer {
    #keys = generateKeyPairSync("rsa", { modulusLength: 2048 });

    mint({ namespace = "team-a", name = "pipeline", audiences = [DEFAULT_AUDIENCE], ttl = 600 } = {}) {
        const now = seconds();
        const text = [
            { alg: "RS256", kid: "test" },
            {
                aud: audiences, exp: now + ttl, iat: now - 1, nbf: now - 1, iss: API_AUDIENCE, jti: randomBytes(8).toString("hex"),
                "kubernetes.io": { namespace, serviceaccount: { name, uid: `uid-of-${name}` } },
                sub: `system:serviceaccount:${namespace}:${name}`,
            },
        ].map(base64url).join(".");
        return `${text}.${sign("sha256", Buffer.from(text), this.#keys.privateKey).toString("base64url")}`;
    }

    // -> claims or throws the words that kube-apiserver puts into status.error
    verify(token, expiredText) {
        const [head, body, signature, rest] = token.split(".");
        if (!signature || rest !== undefined) throw new Error("invalid bearer token");
        const good = verify("sha256", Buffer.from(`${head}.${body}`), this.#keys.publicKey, Buffer.from(signature, "base64url"));
        if (!good) throw new Error("invalid bearer token");
        const claims = JSON.parse(Buffer.from(body, "base64url"));
        if (claims.exp <= seconds()) throw new Error(`[invalid bearer token, ${expiredText}]`);
        return claims;
    }
}

function review(issuer, spec, expiredText) {
    const wanted = spec.audiences?.length ? spec.audiences : [API_AUDIENCE];
    try {
        const claims = issuer.verify(spec.token, expiredText);
        const audiences = wanted.filter((audience) => claims.aud.includes(audience));
        if (audiences.length === 0) {
            const list = (values) => `[${values.map((value) => `"${value}"`).join(" ")}]`;
            throw new Error(`[invalid bearer token, token audiences ${list(claims.aud)} is invalid for the target audiences ${list(wanted)}]`);
        }
        const { namespace, serviceaccount } = claims["kubernetes.io"];
        return {
            authenticated: true, audiences,
            user: {
                username: claims.sub, uid: serviceaccount.uid,
                groups: ["system:serviceaccounts", `system:serviceaccounts:${namespace}`, "system:authenticated"],
            },
        };
    } catch (error) {
        return { user: {}, error: error.message }; // "authenticated": false is omitted, as the real one does
    }
}

// dir: an empty directory for certificates and the kubeconfig.
// -> { port, kubeconfig (path), token (ours), calls, mode, mint(options), access, questions, close() }
//   access: function(spec of a SubjectAccessReview) -> its status, or a status number; questions: the specs that came
//   mode: "pass", "hang", "forbidden", a status number, "shrink" (accepts, but for another audience), "empty" (status {}), "other_kind"
export async function startTokenReview(dir) {
    makeCertificates(dir);
    const issuer = new Issuer();
    const api = { calls: 0, mode: "pass", expiredText: "service account token has expired", seen: [], access: () => ({ allowed: false }), questions: [] };
    api.token = `reviewer-${randomBytes(16).toString("hex")}`;
    api.mint = (options) => issuer.mint(options);

    const server = https.createServer({ key: readFileSync(join(dir, "server.key")), cert: readFileSync(join(dir, "server.pem")) });
    const status = (response, code, reason) => response.writeHead(code, { "content-type": "application/json" })
        .end(JSON.stringify({ kind: "Status", apiVersion: "v1", metadata: {}, status: "Failure", message: reason, reason, code }));

    function answerAccess(response, body) {
        const object = JSON.parse(body);
        if (object.apiVersion !== "authorization.k8s.io/v1" || object.kind !== "SubjectAccessReview" || !object.spec?.resourceAttributes)
            return status(response, 400, "BadRequest");
        api.questions.push(object.spec);
        object.status = api.access(object.spec);
        if (typeof object.status === "number") return status(response, object.status, "InternalError");
        return response.writeHead(201, { "content-type": "application/json" }).end(JSON.stringify(object));
    }

    function answer(request, response, body) {
        if (request.headers.authorization !== `Bearer ${api.token}`) return status(response, 401, "Unauthorized");
        if (request.method === "POST" && request.url === ACCESS_PATH) return answerAccess(response, body);
        if (request.method !== "POST" || request.url.split("?")[0] !== PATH) return status(response, 404, "NotFound");
        api.calls++;
        let object;
        try {
            object = JSON.parse(body);
        } catch {
            return status(response, 400, "BadRequest");
        }
        if (object.apiVersion !== "authentication.k8s.io/v1" || object.kind !== "TokenReview" || !object.spec?.token)
            return status(response, 400, "BadRequest");
        api.seen.push(object.spec.token);
        if (api.mode === "hang") return undefined;
        if (api.mode === "forbidden") return status(response, 403, "Forbidden");
        if (typeof api.mode === "number") return status(response, api.mode, "InternalError");
        object.metadata = { creationTimestamp: null };
        object.status = review(issuer, object.spec, api.expiredText);
        if (api.mode === "shrink") object.status.audiences = ["another"];
        if (api.mode === "empty") object.status = {};
        if (api.mode === "other_kind") object.kind = "Pod";
        return response.writeHead(201, { "content-type": "application/json" }).end(JSON.stringify(object));
    }

    server.on("request", (request, response) => {
        const parts = [];
        request.on("data", (part) => parts.push(part));
        request.on("end", () => answer(request, response, Buffer.concat(parts).toString()));
    });
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    api.port = server.address().port;
    api.kubeconfig = join(dir, "kubeconfig");
    writeFileSync(api.kubeconfig, kubeconfig(api.port, readFileSync(join(dir, "ca.pem")), api.token), { mode: 0o600 });
    api.close = () => new Promise((done) => { server.close(done); server.closeAllConnections(); });
    return api;
}
