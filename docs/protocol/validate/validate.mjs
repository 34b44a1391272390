// Checks docs/protocol/ and the examples of docs/PROTOCOL.md with tools that are not ours:
//   the AsyncAPI document with the AsyncAPI initiative's own parser,
//   the OpenAPI document against the OpenAPI initiative's schema, and whether its references lead anywhere,
//   the two JSON Schemas against the metaschema (draft 2020-12),
//   every example line `-> {…}` and `<- {…}` of docs/PROTOCOL.md against the schema of its direction.
// Usage: npm ci --ignore-scripts && node validate.mjs     (exit code 0: all is well)

import { readFile } from "node:fs/promises";
import { Parser, DiagnosticSeverity } from "@asyncapi/parser";
import Ajv2020 from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { Validator } from "@seriousme/openapi-schema-validator";

const here = new URL("..", import.meta.url);
const read = (name) => readFile(new URL(name, here), "utf8");
let failures = 0;
const fail = (message) => {
  failures += 1;
  console.error(`FAILED ${message}`);
};

const { document, diagnostics } = await new Parser().parse(await read("asyncapi.json"));
for (const { severity, path, message } of diagnostics) {
  if (severity <= DiagnosticSeverity.Warning) fail(`asyncapi.json ${path.join(".")}: ${message}`);
}
if (!document) fail("asyncapi.json is not an AsyncAPI document");
else console.log(`asyncapi.json: ${document.operations().all().length} operations, ${document.messages().all().length} messages`);

const openapi = JSON.parse(await read("openapi.json"));
const described = new Validator();
const { valid, errors } = await described.validate(openapi);
if (!valid) fail(`openapi.json: ${JSON.stringify(errors, null, 2)}`);
else {
  const operations = Object.values(openapi.paths).flatMap((path) => Object.keys(path));
  console.log(`openapi.json: OpenAPI ${described.version}, ${operations.length} operations`);
}

const ajv = new Ajv2020({ strict: true, allowUnionTypes: true });
addFormats(ajv);
const validators = {};
for (const [arrow, name] of [["->", "client-frames.schema.json"], ["<-", "server-frames.schema.json"]]) {
  const schema = JSON.parse(await read(name));
  if (!ajv.validateSchema(schema)) fail(`${name}: ${ajv.errorsText()}`);
  validators[arrow] = ajv.compile(schema);
  console.log(`${name}: ${schema.oneOf.length} frames`);
}

let examples = 0;
for (const [, block] of (await read("../PROTOCOL.md")).matchAll(/^```tidings\n(.*?)^```$/gms)) {
  for (const line of block.replaceAll(/\n +/g, " ").split("\n").filter((line) => line !== "")) {
    const validate = validators[line.slice(0, 2)];
    examples += 1;
    if (!validate?.(JSON.parse(line.slice(3)))) fail(`${line}\n  ${ajv.errorsText(validate?.errors)}`);
  }
}
if (examples === 0) fail("docs/PROTOCOL.md has no examples");
console.log(`PROTOCOL.md: ${examples} examples`);
process.exitCode = failures === 0 ? 0 : 1;
