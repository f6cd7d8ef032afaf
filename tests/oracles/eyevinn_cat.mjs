// Makes and validates tokens with @eyevinn/cat: node eyevinn_cat.mjs WEB_FOLDER <JOBS >ANSWERS, both JSON lists.
// {make: claims} -> {token}; {token, url, ip, audience} -> {claims} or {error}
import { createRequire } from "node:module";
import { resolve } from "node:path";

const require = createRequire(resolve(process.argv[2], "package.json"));
const { CAT } = require("@eyevinn/cat");

let text = "";
for await (const piece of process.stdin) text += piece;
const { key, kid, issuer, jobs } = JSON.parse(text);
const cat = new CAT({ keys: { [kid]: Buffer.from(key, "hex") }, expectCwtTag: true });

async function run(job) {
  try {
    if (job.make) return { token: await cat.generateFromJson(job.make, { type: "mac", alg: "HS256", kid }) };
    const given = { issuer, audience: job.audience, url: new URL(job.url), ip: job.ip };
    const answer = await cat.validate(job.token, "mac", given);
    return answer.error ? { error: answer.error.constructor.name } : { claims: Object.keys(answer.cat.claims).sort() };
  } catch (error) {
    return { error: error.constructor.name };
  }
}

const answers = [];
for (const job of jobs) answers.push(await run(job));
console.log(JSON.stringify(answers));
