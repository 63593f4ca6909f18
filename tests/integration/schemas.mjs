// Our validator of JSON Schema beside ajv: the same schemas, the same values, the same verdicts.
//
//   node schemas.mjs NPM-DIRECTORY SCHEMA_CHECK SEED
//
// The schemas are those of all tools of the servers from npm, and generated ones. Values are generated for each schema: some to fit, some not quite.
// Writes {"tools":n,"schemas":n,"values":n,"fitting":n,"refused":{why:n},"wrong":[…]}. A schema that ours refuses is no disagreement: that is the safe side.
import { createRequire } from "node:module";
import { spawn, spawnSync } from "node:child_process";
import { join } from "node:path";

const [npm, checker, seed] = process.argv.slice(2);
const require = createRequire(npm + "/");
const sdk = createRequire(require.resolve("@modelcontextprotocol/sdk/client/index.js"));
const Ajv7 = sdk("ajv").default ?? sdk("ajv");
const Ajv2020 = sdk("ajv/dist/2020").default ?? sdk("ajv/dist/2020");
const DRAFT7 = "http://json-schema.org/draft-07/schema#";
const options = { strict: false, validateFormats: false, unicodeRegExp: true, logger: false, allowMatchingProperties: true, allowUnionTypes: true };

let state = Number(seed) >>> 0;
const random = (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
};
const pick = (list) => list[random(list.length)];
const chance = (percent) => random(100) < percent;
const some = (n, make) => Array.from({ length: n }, make);

// -- the schemas of real servers
const modules = join(npm, "node_modules/@modelcontextprotocol");
const servers = [["server-everything", "stdio"], ["server-filesystem", "/tmp"], ["server-memory"]];
const hello = [
    { id: 1, method: "initialize", params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "t", version: "1" } } },
    { method: "notifications/initialized" },
    { id: 2, method: "tools/list" },
];

function toolsOf([name, ...args]) {
    return new Promise((resolve, reject) => {
        const child = spawn(process.execPath, [join(modules, name, "dist/index.js"), ...args], { stdio: ["pipe", "pipe", "ignore"] });
        const timer = setTimeout(() => { child.kill(); reject(new Error(`${name}: no list of tools within 30 s`)); }, 30000);
        let text = "";
        child.stdout.on("data", (data) => {
            text += data;
            for (let end; (end = text.indexOf("\n")) >= 0; text = text.slice(end + 1)) {
                const message = JSON.parse(text.slice(0, end));
                if (message.id !== 2) continue;
                clearTimeout(timer);
                child.kill();
                resolve(message.result.tools);
            }
        });
        child.on("error", reject);
        for (const m of hello) child.stdin.write(JSON.stringify({ jsonrpc: "2.0", ...m }) + "\n");
    });
}

// -- generated ones
const names = ["a", "b", "path", "x-y", "é", "a/b", "~", "10"];
const patterns = ["^a", "b$", "^[a-c]+$", "\\d{2,3}", "^\\S+$", "\\s", "^.$", "é", "^\\p{L}*$", "[^a]", "a|b", "^(?:ab)*$", "^\\u0061", "\\.", "\\bx\\b", "^[\\w.-]+$"];
const strings = ["", "a", "ab", "abc", "b", "12", "x y", "é", "😀", "\u2028", "\n", "a.b", "10", "\u00a0", "aaaaaaaaaaaa"];
const numbers = [0, 1, -1, 2, 2.5, 0.1, 0.3, 10, 1e3, -0, 7, 1e15, 4.5, 1.1];
const anyLeaf = () => pick([() => null, () => true, () => false, () => pick(numbers), () => pick(strings)])();

function anyValue(depth = 2) {
    if (depth === 0 || chance(60)) return anyLeaf();
    if (chance(50)) return some(random(4), () => anyValue(depth - 1));
    return Object.fromEntries(some(random(4), () => [pick(names), anyValue(depth - 1)]));
}

const keywords = {
    type: () => (chance(75) ? pick(["null", "boolean", "integer", "number", "string", "array", "object"]) : [...new Set(some(2, () => pick(["null", "integer", "number", "string", "array", "object"])))]),
    enum: () => some(1 + random(3), () => anyValue(1)),
    const: () => anyValue(1),
    minimum: () => pick(numbers), maximum: () => pick(numbers), exclusiveMinimum: () => pick(numbers), exclusiveMaximum: () => pick(numbers),
    multipleOf: () => pick([1, 2, 0.5, 0.1, 3, 0.01]),
    minLength: () => random(3), maxLength: () => random(4), pattern: () => pick(patterns),
    minProperties: () => random(2), maxProperties: () => random(4), required: () => [...new Set(some(1 + random(2), () => pick(names)))],
    properties: (d) => Object.fromEntries(some(1 + random(3), () => [pick(names), schema(d - 1)])),
    patternProperties: (d) => Object.fromEntries(some(1 + random(2), () => [pick(patterns), schema(d - 1)])),
    additionalProperties: (d) => (chance(60) ? false : schema(d - 1)),
    propertyNames: (d) => ({ maxLength: 1 + random(3), ...(d > 1 && chance(30) ? { pattern: pick(patterns) } : {}) }),
    dependentRequired: () => ({ [pick(names)]: [pick(names)] }), dependentSchemas: (d) => ({ [pick(names)]: schema(d - 1) }),
    items: (d) => schema(d - 1), prefixItems: (d) => some(1 + random(2), () => schema(d - 1)), contains: (d) => schema(d - 1),
    minContains: () => random(3), maxContains: () => 1 + random(2), minItems: () => random(3), maxItems: () => random(4), uniqueItems: () => chance(80),
    allOf: (d) => some(1 + random(2), () => schema(d - 1)), anyOf: (d) => some(1 + random(3), () => schema(d - 1)),
    oneOf: (d) => some(1 + random(3), () => schema(d - 1)), not: (d) => schema(d - 1),
    if: (d) => schema(d - 1), then: (d) => schema(d - 1), else: (d) => schema(d - 1),
    $ref: () => pick(["#/$defs/one", "#/$defs/two"]),
    title: () => "t", default: () => anyValue(1), "x-anything": () => 1,
};
const kinds = Object.keys(keywords);

function schema(depth) {
    if (depth <= 0) return chance(80) ? { type: keywords.type() } : chance(80);
    const made = Object.fromEntries(some(1 + random(4), () => pick(kinds)).map((k) => [k, keywords[k](depth)]));
    // The reference forgets contains where an array is shorter than prefixItems; the specification does not.
    if (made.prefixItems) delete made.contains;
    return made;
}

// Draft-07 has other names for three of them, and lacks some.
function older(s) {
    if (Array.isArray(s)) return s.map(older);
    if (s === null || typeof s !== "object") return s;
    const drop = ["dependentRequired", "dependentSchemas", "minContains", "maxContains", "$ref"];
    const out = {};
    for (const [k, v] of Object.entries(s)) {
        if (k === "prefixItems") continue;
        if (k === "items" && s.prefixItems) out.additionalItems = older(v);
        else if (!drop.includes(k)) out[k] = ["enum", "const", "default"].includes(k) ? v : older(v);
    }
    if (s.prefixItems) out.items = older(s.prefixItems);
    return out;
}

function generated() {
    const made = schema(3);
    if (typeof made === "boolean") return made;
    if (chance(30)) return { $schema: DRAFT7, ...older(made) };
    return { ...made, $defs: { one: schema(2), two: chance(30) ? { items: { $ref: "#/$defs/two" }, ...schema(1) } : schema(1) } };
}

// A value that may fit: what the schema says is followed where that is easy, and left now and then.
function valueFor(s, depth = 4) {
    if (typeof s !== "object" || s === null || depth === 0 || chance(8)) return anyValue(2);
    if (s.const !== undefined && chance(80)) return s.const;
    if (Array.isArray(s.enum) && chance(80)) return pick(s.enum);
    const branch = s.anyOf ?? s.oneOf ?? s.allOf;
    if (branch && chance(50)) return valueFor(pick(branch), depth - 1);
    const type = Array.isArray(s.type) ? pick(s.type) : s.type ?? (s.properties || s.required ? "object" : s.items || s.prefixItems ? "array" : undefined);
    if (type === "object") {
        const out = {};
        for (const [k, v] of Object.entries(s.properties ?? {})) if (s.required?.includes(k) || chance(60)) out[k] = valueFor(v, depth - 1);
        for (const k of s.required ?? []) if (!(k in out) && chance(90)) out[k] = anyValue(1);
        if (chance(15)) out[pick(names)] = anyValue(1);
        return out;
    }
    if (type === "array") return some(random(4), (_, i) => valueFor(s.prefixItems?.[i] ?? s.items ?? {}, depth - 1));
    if (type === "string") return pick(strings);
    if (type === "integer" || type === "number") return pick(numbers);
    if (type === "boolean") return chance(50);
    return type === "null" ? null : anyValue(2);
}

// -- both verdicts
function compile(s) {
    try {
        return s?.$schema?.includes("draft-07") ? new Ajv7(options).compile(s) : new Ajv2020(options).compile(s?.$schema ? { ...s, $schema: undefined } : s);
    } catch {
        return null;
    }
}

// undefined: the reference failed. It recurses until its stack is full where a $ref goes round in circles on one and the same value, and stumbles over
// its own bookkeeping for unevaluatedProperties in some combinations.
function judge(verdict, value) {
    try {
        return verdict(JSON.parse(JSON.stringify(value)));
    } catch {
        return undefined;
    }
}

const real = (await Promise.all(servers.map(toolsOf))).flat().map((t) => t.inputSchema);
const schemas = [...real, ...some(1000, generated)];
const cases = [];
for (const [i, s] of schemas.entries()) {
    const verdict = compile(s);
    if (verdict) cases.push({ schema: s, real: i < real.length, verdict, values: some(i < real.length ? 200 : 12, () => valueFor(s)) });
}
const lines = cases.map(({ schema, values }) => JSON.stringify({ schema, values })).join("\n") + "\n";
const done = spawnSync(checker, { input: lines, encoding: "utf8", maxBuffer: 1 << 28 });
if (done.status !== 0) throw new Error(`${checker}: ${done.status ?? done.signal} ${done.stderr}`);
const report = { tools: real.length, tools_refused: 0, schemas: 0, values: 0, fitting: 0, refused: {}, wrong: [] };
for (const [i, line] of done.stdout.trimEnd().split("\n").entries()) {
    const { schema, real, verdict, values } = cases[i];
    if (line.startsWith("refused")) {
        const why = line.replace(/.*: /, "");
        report.refused[why] = (report.refused[why] ?? 0) + 1;
        report.tools_refused += real;
        continue;
    }
    report.schemas++;
    for (const [n, value] of values.entries()) {
        const ours = line[n] === "1", theirs = judge(verdict, value);
        if (theirs === undefined) continue;
        report.values++;
        report.fitting += theirs;
        if (ours !== theirs && report.wrong.length < 20) report.wrong.push({ ours, theirs, value, schema });
    }
}
console.log(JSON.stringify(report));
