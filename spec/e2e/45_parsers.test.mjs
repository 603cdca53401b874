// What a gateway's parser refuses, ours must not take for something else: the fuzzers' corpus, to both (S-134).
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, it } from "node:test";
import { ROOT } from "../support/processes.mjs";
import { ENVOYS, startStack } from "../support/stack.mjs";

const CORPUS = join(ROOT, "spec", "fuzz", "corpus", "http1");

let stack;
before(async () => { stack = await startStack({ envoys: ENVOYS, kubernetes: false }); });
after(() => stack?.stop());

// The first byte of a file is the fuzzer's own.
const bytesOf = (name) => readFileSync(join(CORPUS, name)).subarray(1).toString("latin1");
const statuses = ({ text }) => [...text.matchAll(/^HTTP\/1\.[01] (\d{3})/gm)].map(([, status]) => Number(status));

for (const envoy of ENVOYS) {
    it(`what Envoy as in ${envoy}.yaml refuses is refused, or answered once and the connection closed`, async () => {
        const taken = [];
        await Promise.all(readdirSync(CORPUS).map(async (name) => {
            const bytes = bytesOf(name);
            const [ours, theirs] = await Promise.all([stack.raw(bytes), stack.rawVia(envoy, bytes)]);
            const [first, ...more] = statuses(ours);
            assert.notEqual(first, 200, `${name}: nobody has a credential`);
            if (![400, 431, 501, 505].includes(statuses(theirs)[0]) || first !== 401) return;
            taken.push(name);
            assert.ok(more.length === 0 && ours.closed, `${name}: ${ours.text}`);
        }));
        // The answer does not wait for the body; these are malformed there only, or over a limit of ours.
        assert.deepEqual(taken.sort(), ["17_digits", "bare_lf_after_size", "hex_prefix", "lf_in_a_quoted_extension",
            "lf_in_an_extension", "plus", "space_before_size"]);
    });
}

it("the controls still answer rightly", () => stack.assertServes());
