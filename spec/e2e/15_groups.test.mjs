// Authorisation by groups, and claims of odd shapes (S-032, S-036).
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { startStack } from "../support/stack.mjs";

let stack;
before(async () => { stack = await startStack({ kubernetes: false, env: { GROUPS_ALLOWLIST: "ops, admin" } }); });
after(() => stack?.stop());

const status = async (user, path = "/app") => (await stack.check(path, { token: await stack.token(user) })).status;

describe("with a groups allow-list", () => {
    it("a member gets in", async () => assert.equal(await status("alice"), 200));
    it("who is in no allowed group gets 403", async () => {
        assert.equal(await status("bob"), 403);
        assert.equal(await status("carol"), 403);
    });
    it("verify answers 204 and 403 in the same way", async () => {
        assert.equal(await status("alice", "/authservice/verify"), 204);
        assert.equal(await status("bob", "/authservice/verify"), 403);
    });
    it("a denial is not cached as one, nor an allow: the same answer cold and warm (S-040)", async () => {
        const token = await stack.token("bob");
        for (let i = 0; i < 3; i++) assert.equal((await stack.check("/app", { token })).status, 403);
        assert.equal((await stack.check("/public", { token })).status, 200);
        assert.equal((await stack.check("/app", { token })).status, 403);
    });
});

describe("groups that are not a list of texts", () => {
    it("a single text is one group (Q9)", async () => assert.equal(await status("groups_text"), 200));
    it("null is no group", async () => assert.equal(await status("groups_null"), 403));
    for (const user of ["groups_number", "groups_object", "groups_nested", "groups_mixed"])
        it(`${user} is denied`, async () => assert.ok([401, 403, 503].includes(await status(user)), user));
});

describe("a user claim that is not a text", () => {
    for (const user of ["user_array", "user_number", "user_object", "user_null", "user_empty", "user_missing"])
        it(`${user} is denied`, async () => assert.ok([401, 403].includes(await status(user)), user));
});

describe("control characters in a claim (S-032)", () => {
    for (const user of ["user_crlf", "user_lf", "user_nul", "user_del", "groups_crlf"]) {
        it(`${user} makes no header line of its own`, async () => {
            const answer = await stack.check("/app", { token: await stack.token(user) });
            assert.ok([401, 403, 503].includes(answer.status), String(answer.status));
            assert.equal(answer.headers["x-admin"], undefined);
        });
    }
});

it("the server still serves", () => stack.assertServes());
