// Validates tokens with @eyevinn/cat as long as it is asked to: node eyevinn_cat.mjs WEB_FOLDER
// First line: {key, kid, issuer, audience, url, tokens}; each further line: once through all; the answer: CPU in us a token.
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { createInterface } from "node:readline";

const { CAT } = createRequire(resolve(process.argv[2], "package.json"))("@eyevinn/cat");
let cat, given, tokens;

for await (const line of createInterface({ input: process.stdin })) {
  if (!cat) {
    const told = JSON.parse(line);
    cat = new CAT({ keys: { [told.kid]: Buffer.from(told.key, "hex") }, expectCwtTag: true });
    given = { issuer: told.issuer, audience: told.audience, url: new URL(told.url) };
    tokens = told.tokens;
    continue;
  }
  const before = process.cpuUsage();
  for (const token of tokens) {
    const { error } = await cat.validate(token, "mac", given);
    if (error) throw error;
  }
  const { user, system } = process.cpuUsage(before);
  console.log((user + system) / tokens.length);
}
