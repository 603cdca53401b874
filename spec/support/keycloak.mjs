// A real Keycloak for one test file: development mode, everything in memory, one realm with a user, two groups and our client.
//
//   KEYCLOAK  its directory, default build/keycloak-VERSION (deploy/setup.sh --keycloak)
import assert from "node:assert/strict";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort, request, until } from "./client.mjs";
import { startFaultProxy } from "./fault_proxy.mjs";
import { Child, ROOT, temporaryDirectory } from "./processes.mjs";

export const CLIENT = { id: "moonlatch", secret: "client-secret-of-keycloak" };
export const PASSWORD = "password-of-alice";
const REALM = "tests";
const ADMIN = { username: "admin", password: "password-of-the-admin" };
const START_MS = 180000; // it builds itself first

// Its directory, or undefined.
export function findKeycloak() {
    const build = join(ROOT, "build");
    const names = existsSync(build) ? readdirSync(build).filter((name) => /^keycloak-\d/.test(name)) : [];
    return [process.env.KEYCLOAK, ...names.map((name) => join(build, name))].find((dir) => dir && existsSync(join(dir, "bin", "kc.sh")));
}

function realm(origin, webPort) {
    const mapper = { "claim.name": "groups", "full.path": "false", "userinfo.token.claim": "true", "id.token.claim": "true", "access.token.claim": "true" };
    return {
        realm: REALM, enabled: true, sslRequired: "none", accessTokenLifespan: 4, groups: [{ name: "dev" }, { name: "ops" }],
        users: [{
            username: "alice", enabled: true, email: "alice@example.com", emailVerified: true, firstName: "Alice", lastName: "Example",
            groups: ["/dev", "/ops"], credentials: [{ type: "password", value: PASSWORD, temporary: false }],
        }],
        clients: [{
            clientId: CLIENT.id, secret: CLIENT.secret, redirectUris: [`${origin}/*`], frontchannelLogout: false,
            attributes: {
                "pkce.code.challenge.method": "S256", "post.logout.redirect.uris": "+", "backchannel.logout.session.required": "true",
                "backchannel.logout.url": `http://127.0.0.1:${webPort}/authservice/backchannel_logout`,
            },
            protocolMappers: [{ name: "groups", protocol: "openid-connect", protocolMapper: "oidc-group-membership-mapper", config: mapper }],
        }],
    };
}

class Keycloak {
    constructor(child, port, proxy) {
        Object.assign(this, { child, port, proxy, issuer: `http://${proxy.host}:${proxy.port}/realms/${REALM}` });
    }

    // A request to its own administration. -> the answer
    async admin(method, path, body) {
        const form = new URLSearchParams({ grant_type: "password", client_id: "admin-cli", ...ADMIN }).toString();
        const token = await request({
            port: this.port, method: "POST", path: "/realms/master/protocol/openid-connect/token", body: form,
            headers: { "content-type": "application/x-www-form-urlencoded" },
        });
        const answer = await request({
            port: this.port, method, path: `/admin/realms${path}`, body: body && JSON.stringify(body),
            headers: { authorization: `Bearer ${JSON.parse(token.body).access_token}`, "content-type": "application/json" },
        });
        assert.ok(answer.status < 300, `${method} ${path}: ${answer.status} ${answer.body}`);
        return answer;
    }

    // Ends all sessions of the user, as an administrator does.
    async logOut(username) {
        const [{ id }] = JSON.parse((await this.admin("GET", `/${REALM}/users?exact=true&username=${username}`)).body);
        await this.admin("POST", `/${REALM}/users/${id}/logout`);
    }

    // How often one of its OpenID Connect endpoints was asked.
    calls(endpoint) {
        return this.proxy.calls[`/realms/${REALM}/protocol/openid-connect/${endpoint}`] ?? 0;
    }

    makeRealm(origin, webPort) {
        return this.admin("POST", "", realm(origin, webPort));
    }

    async close() {
        await this.proxy.close();
        await this.child.stop();
    }
}

// Its script starts Java as a child, which is to end with it whatever happens.
function mortalJava(dir) {
    const path = join(dir, "java");
    writeFileSync(path, `#!/bin/sh\nexec setpriv --pdeathsig KILL "${process.env.JAVA_HOME ? `${process.env.JAVA_HOME}/bin/java` : "java"}" "$@"\n`, { mode: 0o755 });
    return path;
}

// Starts it, without the realm. -> Keycloak
export async function startKeycloak() {
    const port = await freePort();
    const home = temporaryDirectory();
    const child = new Child("keycloak", join(findKeycloak(), "bin", "kc.sh"), [
        "start-dev", "--db=dev-mem", `--http-port=${port}`, "--http-host=127.0.0.1", "--log-level=warn", "--cache=local",
    ], { env: {
        KC_BOOTSTRAP_ADMIN_USERNAME: ADMIN.username, KC_BOOTSTRAP_ADMIN_PASSWORD: ADMIN.password, HOME: home,
        JAVA: mortalJava(home), JAVA_OPTS_KC_HEAP: "-Xms64m -Xmx512m",
    } });
    await child.ready("answers", async () => (await request({ port, path: "/realms/master" })).status === 200, START_MS);
    return new Keycloak(child, port, await startFaultProxy({ target: port }));
}
