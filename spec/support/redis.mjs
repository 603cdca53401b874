// A real Redis for the tests: one server on a free port, with a password, killed and started again at will.
import { existsSync, mkdirSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { freePort, until } from "./client.mjs";
import { Child } from "./processes.mjs";

export const PASSWORD = "redis-password-of-the-tests";

// One command, the raw answer as text.
export function redisCommand(port, ...args) {
    return new Promise((done, failed) => {
        const socket = net.connect(port, "127.0.0.1");
        let text = "";
        const encode = (words) => `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`;
        socket.setEncoding("utf8");
        socket.on("connect", () => socket.write(encode(["AUTH", PASSWORD]) + encode(args) + encode(["QUIT"])));
        socket.on("data", (part) => { text += part; });
        socket.on("error", failed);
        socket.on("close", () => done(text.replace(/^\+OK\r\n/, "").replace(/\+OK\r\n$/, "")));
    });
}

// -> { port, start(), kill(), command(...) }; dir: for its file, which survives a kill
export async function startRedis(dir) {
    const port = await freePort();
    const home = join(dir, `redis-${port}`);
    if (!existsSync(home)) mkdirSync(home);
    const redis = {
        port,
        command: (...args) => redisCommand(port, ...args),
        async start() {
            redis.child = new Child("redis", "redis-server", [
                "--port", String(port), "--bind", "127.0.0.1", "--requirepass", PASSWORD, "--dir", home, "--appendonly", "yes", "--save", "",
            ]);
            await until("redis answers", async () => (await redis.command("PING")).startsWith("+PONG"));
        },
        kill: () => redis.child.stop("SIGKILL"),
        close: () => redis.child.stop("SIGKILL"),
    };
    await redis.start();
    return redis;
}
