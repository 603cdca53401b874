// The application behind the gateway: answers JSON of what reached it, and counts.
import http from "node:http";

// -> { port, calls, last, close() }; the answer is { method, path, headers: [[name, value], ...] } with names in lower case.
export async function startEcho() {
    const echo = { calls: 0, last: undefined };
    const server = http.createServer({ maxHeaderSize: 128 * 1024 }, (request, response) => {
        echo.calls++;
        const headers = [];
        for (let i = 0; i < request.rawHeaders.length; i += 2)
            headers.push([request.rawHeaders[i].toLowerCase(), request.rawHeaders[i + 1]]);
        echo.last = { method: request.method, path: request.url, headers };
        response.writeHead(200, { "content-type": "application/json" });
        response.end(`${JSON.stringify(echo.last)}\n`);
    });
    server.on("upgrade", (_request, socket) => socket.destroy());
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    echo.port = server.address().port;
    echo.close = () => new Promise((done) => { server.close(done); server.closeAllConnections(); });
    return echo;
}
