// Dex as Kubeflow has it behind its gateway, played by the test provider: it lives below a path, and takes a redirect address that is
// a path, to which it redirects as it stands.
export const DEX = "/dex";
const ELSEWHERE = "http://path.invalid"; // the provider's own parser wants an origin

function absolute(parameters) {
    const uri = parameters.get("redirect_uri");
    if (uri?.startsWith("/")) parameters.set("redirect_uri", ELSEWHERE + uri);
    return parameters;
}

// Changes a request before the provider sees it, and the Location of the answer.
export async function asDex(request, response) {
    const url = new URL(request.url.replace(new RegExp(`^${DEX}(?=/)`), ""), ELSEWHERE);
    if (url.pathname === "/auth") absolute(url.searchParams);
    request.url = url.pathname + url.search;
    request.originalUrl = DEX + request.url; // from which the provider knows its path
    if (url.pathname === "/token") {
        let body = "";
        for await (const part of request.setEncoding("utf8")) body += part;
        request.body = Object.fromEntries(absolute(new URLSearchParams(body)));
    }
    const { setHeader } = response;
    response.setHeader = (name, value) => setHeader.call(response, name,
        name.toLowerCase() === "location" ? String(value).replace(ELSEWHERE, "") : value);
}
