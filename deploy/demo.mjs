// The demo's script; deploy/demo.sh prepares and starts it. The installation is the one of the end-to-end tests.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { Browser } from "../spec/support/browser.mjs";
import { canListen, total, until } from "../spec/support/client.mjs";
import { startStack } from "../spec/support/stack.mjs";

const once = process.argv.includes("--once");
const PORTS = { kubeflow: 10080, check: 10088, readiness: 10089, web: 10090 };
const IDENTITY = ["kubeflow-userid", "kubeflow-groups", "auth-method"];

let stack;
const ask = (options) => stack.via("kubeflow", "/app", options);

function say(what, answer) {
    console.log(`\n${what}`);
    if (!answer) return;
    console.log(`    gateway      ${answer.status}`);
    if (answer.status !== 200) return console.log("    application  was not asked");
    for (const [name, value] of JSON.parse(answer.body).headers)
        if (IDENTITY.includes(name)) console.log(`    application  ${name}: ${value}`);
}

const seen = (answer) => Object.fromEntries(JSON.parse(answer.body).headers);

async function show() {
    const token = await stack.token("alice");
    const alice = await ask({ token });
    say("1. Alice's token: the application learns who she is", alice);
    assert.equal(seen(alice)["kubeflow-userid"], "alice@example.com");

    const nobody = await ask({ token: "a-token-that-nobody-issued" });
    say("2. A token that nobody issued", nobody);
    assert.equal(nobody.status, 401);

    const forger = await ask({ token, headers: { "kubeflow-userid": "root@example.com", "kubeflow-groups": "admin" } });
    say("3. Alice claims to be root (sends kubeflow-userid: root@example.com): replaced", forger);
    assert.equal(seen(forger)["kubeflow-userid"], "alice@example.com");
    assert.equal(seen(forger)["kubeflow-groups"], "dev,ops");

    const before = { calls: stack.userinfoCalls(), hits: total(await stack.metrics(), "moonlatch_cache_hits_total") };
    for (let i = 0; i < 100; i++) assert.equal((await ask({ token })).status, 200);
    const hits = total(await stack.metrics(), "moonlatch_cache_hits_total") - before.hits;
    say("4. A hundred more requests of Alice");
    console.log(`    provider     asked ${stack.userinfoCalls() - before.calls} times`);
    console.log(`    /metrics     moonlatch_cache_hits_total grew by ${hits}`);
    assert.equal(stack.userinfoCalls(), before.calls);
    assert.ok(hits >= 100);

    const text = readFileSync(stack.policy, "utf8");
    writeFileSync(stack.policy, text.replace(/^return \{/m, 'headers["Auth-Method"] = "{credential}, edited while it runs"\n\nreturn {'));
    const edited = await until("the edit has taken effect", async () => {
        const answer = await ask({ token });
        return seen(answer)["auth-method"].includes("edited") && answer;
    });
    say("5. The policy is edited while the server runs: another Auth-Method", edited);

    const account = await ask({ token: stack.kubeToken() });
    say("6. A Kubernetes service account's token, asked of TokenReview", account);
    assert.equal(seen(account)["kubeflow-userid"], "system:serviceaccount:team-a:pipeline");

    const browser = new Browser();
    const page = await browser.login(`${stack.origin}/app?deep=link`, "bob");
    say("7. A browser without a token is sent to the login, and comes back as Bob to where it was", page);
    assert.equal(seen(page)["kubeflow-userid"], "bob@example.com");
    assert.equal(page.url, `${stack.origin}/app?deep=link`);
    await browser.submit(await browser.send(`${stack.origin}/authservice/logout`), {}, { stop: (url) => !url.startsWith(stack.origin) });
    const gone = await browser.send(`${stack.origin}/app`);
    say("8. He signs out", gone);
    assert.equal(gone.status, 302);
}

function summary() {
    const gateway = `http://127.0.0.1:${stack.gatewayPort("kubeflow")}`;
    const idp = `http://127.0.0.1:${stack.provider.port}`;
    console.log(`
The gateway     ${gateway}/            (Envoy as in deploy/envoy/kubeflow.yaml; /public needs no token)
Checks          http://127.0.0.1:${stack.checkPort}/
Metrics         http://127.0.0.1:${stack.readinessPort}/metrics
The policy      ${stack.policy}    (edit it; nothing needs a restart)

A token of alice, bob or carol, and a request with it:

    token=$(curl -s -X POST '${idp}/test/token?sub=alice&ttl=600')
    curl -i -H "Authorization: Bearer $token" ${gateway}/app
    curl -i -H "Authorization: Bearer $token" -H 'kubeflow-userid: root' ${gateway}/app
    curl -i ${gateway}/app

Or open ${gateway}/app in a browser of this machine, log in as alice, bob or carol, and sign out at ${gateway}/authservice/logout
`);
}

async function main() {
    if (!once) {
        for (const port of Object.values(PORTS))
            if (!await canListen(port)) throw new Error(`port ${port} is taken; stop what listens there, or use --once`);
    }
    stack = await startStack({ envoys: ["kubeflow"], ports: once ? {} : PORTS, login: true, env: { LOG_LEVEL: "INFO" } });
    await show();
    if (once) {
        await stack.stop();
        console.log("\nAll as it should be.");
        return;
    }
    summary();
    console.log("Ctrl-C ends it.");
    await stack.server.exited;
    throw new Error(`the server ended with ${stack.server.code}:\n${stack.server.tail()}`);
}

main().catch(async (error) => {
    console.error(`demo: ${error.message}`);
    await stack?.kill();
    process.exit(1);
});
