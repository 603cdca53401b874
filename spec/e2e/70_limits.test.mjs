// Bounds of the check listener: sizes, slow clients, descriptors.
import assert from "node:assert/strict";
import net from "node:net";
import { after, afterEach, before, describe, it } from "node:test";
import { SLOW, sleep, until } from "../support/client.mjs";
import { ENVOYS, startStack } from "../support/stack.mjs";

let stack;
let token;
before(async () => {
    stack = await startStack({ envoys: ENVOYS, kubernetes: false });
    token = await stack.token("alice");
});
after(() => stack?.stop());
afterEach(() => stack.assertServes());

const get = (target, lines = []) =>
    stack.raw([`GET ${target} HTTP/1.1`, "Host: a", `Authorization: Bearer ${token}`, ...lines, "Connection: close", "", ""].join("\r\n"));

describe("sizes (S-445)", () => {
    it("a target of 16 KiB passes, a longer one is 414", async () => {
        assert.equal((await get(`/${"a".repeat(16 * 1024 - 1)}`)).status, 200);
        assert.equal((await get(`/${"a".repeat(16 * 1024)}`)).status, 414);
        assert.equal((await get(`/a?${"b".repeat(16 * 1024)}`)).status, 414);
    });

    it("a cookie of 55 kB passes, headers over 64 KiB are 431", async () => {
        assert.equal((await get("/app", [`Cookie: a=${"c".repeat(55000)}`])).status, 200);
        assert.equal((await get("/app", [`Cookie: a=${"c".repeat(66000)}`])).status, 431);
    });

    it("128 fields pass, more are 431", async () => {
        const lines = (n) => Array.from({ length: n }, (_each, i) => `X-${i}: 1`);
        assert.equal((await get("/app", lines(125))).status, 200);
        assert.equal((await get("/app", lines(126))).status, 431);
    });

    it("tokens of 40 kB do not get in, and do not cut off others", async () => {
        for (let i = 0; i < 12; i++) {
            const answer = await stack.check("/app", { token: `${i}${"t".repeat(40000)}` });
            assert.ok([400, 401, 431, 503].includes(answer.status), String(answer.status));
        }
        for (let i = 0; i < 4; i++) assert.equal((await stack.check("/app", { token: await stack.token("bob") })).status, 200);
    });

    for (const envoy of ENVOYS) {
        it(`a big cookie reaches the application through Envoy as in ${envoy}.yaml`, async () => {
            const answer = await stack.via(envoy, "/app", { token, headers: { cookie: `a=${"c".repeat(40000)}` } });
            assert.equal(answer.status, 200);
        });
    }
});

describe("bodies", () => {
    it("of a check are swallowed, and the connection goes on", async () => {
        const one = (body) => `POST /app HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
        const { text } = await stack.raw(one("GET /public HTTP/1.1\r\n\r\n") + one("x".repeat(5000)));
        assert.equal(text.match(/HTTP\/1\.1 200/g)?.length, 2);
        assert.equal(text.match(/HTTP\/1\.1 /g)?.length, 2, "a body is not taken for a request");
    });
});

describe("slow clients (S-443)", () => {
    it("a head that never ends is closed after 5 s, and costs others nothing", async () => {
        const sockets = Array.from({ length: 200 }, () => net.connect(stack.checkPort, "127.0.0.1").on("error", () => {}));
        let closed = 0;
        for (const socket of sockets) {
            socket.on("close", () => closed++).resume();
            socket.write("GET /app HTTP/1.1\r\nHost: a\r\nX-Slow: ");
        }
        const drip = setInterval(() => sockets.forEach((socket) => socket.writable && socket.write("z")), 500);
        try {
            for (let i = 0; i < 20; i++) {
                const { status, ms } = await stack.check("/app", { token });
                assert.equal(status, 200);
                assert.ok(ms < 200 * SLOW, `${ms} ms`);
            }
            await until("all slow ones are closed", () => closed === sockets.length, 9000);
        } finally {
            clearInterval(drip);
            sockets.forEach((socket) => socket.destroy());
        }
    });
});

describe("churn (S-446)", () => {
    it("3,000 connections that come and go leave nothing behind", async () => {
        const before = stack.openDescriptors();
        for (let batch = 0; batch < 30; batch++) {
            await Promise.all(Array.from({ length: 100 }, (_each, i) => new Promise((done) => {
                const socket = net.connect(stack.checkPort, "127.0.0.1", () => {
                    if (i % 3 === 0) socket.write("GET /app HT");
                    if (i % 2) socket.resetAndDestroy(); else socket.end();
                });
                socket.on("error", () => {}).on("close", done).resume();
            })));
        }
        await until("the descriptors are back", () => stack.openDescriptors() <= before);
    });
});

describe("out of descriptors (S-440)", () => {
    it("those who are connected are served, and all is well once descriptors return", async () => {
        const own = await startStack({ kubernetes: false, descriptors: 96 });
        try {
            const good = await own.token("alice");
            const hold = net.connect(own.checkPort, "127.0.0.1").setEncoding("latin1");
            let heard = "";
            hold.on("data", (part) => { heard += part; });
            const crowd = Array.from({ length: 300 }, () => net.connect(own.checkPort, "127.0.0.1").on("error", () => {}));
            await sleep(500);
            hold.write(`GET /app HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${good}\r\n\r\n`);
            await until("the one that was first is answered", () => /^HTTP\/1\.1 (200|503)/.test(heard), 6000);
            const busy = own.server.cpuSeconds();
            await sleep(2000);
            assert.ok(own.server.cpuSeconds() - busy < 0.5 * SLOW, "it does not spin");
            crowd.forEach((socket) => socket.destroy());
            hold.destroy();
            await until("all is well", async () => (await own.check("/app", { token: good })).status === 200, 3000);
        } finally {
            await own.stop();
        }
    });
});
