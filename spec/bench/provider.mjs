// A provider for benchmarks of the login: an authorization code is the nonce and the user's name, and everything else follows
// from it, so that nothing is remembered. ID tokens are signed for each login (RS256).
//   node provider.mjs PORT
import { createSign, generateKeyPairSync } from "node:crypto";
import http from "node:http";

const port = Number(process.argv[2]), issuer = `http://127.0.0.1:${port}`;
const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const head = encode({ alg: "RS256", kid: "bench" });

const documents = {
  "/.well-known/openid-configuration": JSON.stringify({
    issuer, authorization_endpoint: `${issuer}/auth`, token_endpoint: `${issuer}/token`, userinfo_endpoint: `${issuer}/userinfo`,
    jwks_uri: `${issuer}/jwks`, code_challenge_methods_supported: ["S256"],
  }),
  "/jwks": JSON.stringify({ keys: [{ ...publicKey.export({ format: "jwk" }), alg: "RS256", use: "sig", kid: "bench" }] }),
};

function tokens(form) {
  const [nonce, sub] = new URLSearchParams(form).get("code").split(".");
  const iat = Math.floor(Date.now() / 1000);
  const input = `${head}.${encode({ iss: issuer, sub, aud: "bench", iat, exp: iat + 3600, nonce })}`;
  const signature = createSign("RSA-SHA256").update(input).sign(privateKey).toString("base64url");
  return JSON.stringify({ access_token: `access-${sub}`, token_type: "Bearer", expires_in: 3600, refresh_token: `refresh-${sub}`, id_token: `${input}.${signature}` });
}

function userinfo(authorization) {
  const sub = /^Bearer access-(.+)$/.exec(authorization)?.[1] ?? "alice"; // any token is good, as of the other provider
  return JSON.stringify({ sub, email: `${sub}@example.com`, groups: ["dev", "ops"] });
}

http.createServer((req, res) => {
  const send = (text) => res.writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(text) }).end(text);
  if (documents[req.url]) return send(documents[req.url]);
  if (req.url === "/userinfo") return send(userinfo(req.headers.authorization));
  let form = "";
  req.on("data", (part) => { form += part; }).on("end", () => send(tokens(form)));
}).listen(port, "127.0.0.1");
