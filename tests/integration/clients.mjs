// The official SDK clients, unchanged, against whatever speaks MCP at a URL: one process for many visits, because Node is slow to start.
//
//   node clients.mjs NPM-DIRECTORY < visits      [{"sdk":"v1"|"v2"|"v2-modern","url":…,"what":"everything"|…,"token":…,"arguments":{…}}, …]
//
// Writes an array with {"visit":n,"check":…,"ok":bool,"why":…} for everything that was looked at.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";

const require = createRequire(process.argv[2] + "/");
const v1 = {
    Client: require("@modelcontextprotocol/sdk/client/index.js").Client,
    Transport: require("@modelcontextprotocol/sdk/client/streamableHttp.js").StreamableHTTPClientTransport,
    types: require("@modelcontextprotocol/sdk/types.js"),
};
const v2 = require("@modelcontextprotocol/client");
const capabilities = { sampling: {}, elicitation: {}, roots: {} };
const roots = [{ uri: "file:///somewhere", name: "Somewhere" }];
const MODERN = "2026-07-28";

// What differs between the two in how they are called, and nothing else.
const faces = {
    v1: {
        make() {
            const client = new v1.Client({ name: "test", version: "1" }, { capabilities });
            const t = v1.types;
            client.setRequestHandler(t.ElicitRequestSchema, answers.elicit);
            client.setRequestHandler(t.CreateMessageRequestSchema, answers.sample);
            client.setRequestHandler(t.ListRootsRequestSchema, () => ({ roots }));
            client.heard = [];
            client.fallbackNotificationHandler = async (n) => client.heard.push(n);
            client.setNotificationHandler(t.LoggingMessageNotificationSchema, (n) => client.heard.push(n));
            return client;
        },
        transport: (url, options) => new v1.Transport(url, options),
        call: (client, name, args, options) => client.callTool({ name, arguments: args }, undefined, options),
        end: async (client) => {
            await client.transport.terminateSession();
            await client.close();
        },
    },
    v2: {
        make(mode = "legacy") {
            const client = new v2.Client({ name: "test", version: "1" }, { capabilities, versionNegotiation: { mode } });
            client.setRequestHandler("elicitation/create", answers.elicit);
            client.setRequestHandler("sampling/createMessage", answers.sample);
            client.setRequestHandler("roots/list", () => ({ roots }));
            client.heard = [];
            for (const method of ["message", "tools/list_changed", "prompts/list_changed", "resources/updated"])
                client.setNotificationHandler(`notifications/${method}`, (n) => client.heard.push(n));
            return client;
        },
        transport: (url, options) => new v2.StreamableHTTPClientTransport(url, options),
        call: (client, name, args, options) => client.callTool({ name, arguments: args }, options),
        end: async (client) => {
            if (client.getProtocolEra() === "legacy") await client.transport.terminateSession();
            await client.close();
        },
    },
};
faces["v2-modern"] = { ...faces.v2, make: () => faces.v2.make({ pin: MODERN }) };

const answers = {
    asked: [],
    elicit(request) {
        answers.asked.push(request.method);
        const wanted = request.params.requestedSchema?.properties ?? {};
        const content = {};
        for (const key of Object.keys(wanted)) if (wanted[key].type === "string" && !wanted[key].enum && !wanted[key].oneOf && !wanted[key].format) content[key] = "Alice";
        return { action: "accept", content };
    },
    sample(request) {
        answers.asked.push(request.method);
        return { role: "assistant", content: { type: "text", text: "Bonjour" }, model: "test-model", stopReason: "endTurn" };
    },
};

const PATIENCE_MS = 10000;
const within = (ms, promise) => {
    let timer;
    const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`not within ${ms} ms`)), ms)));
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};
const text = (result) => result.content.map((part) => part.text ?? "").join("");
const names = (list) => list.map((item) => item.name);
const until = async (what, check, ms = 5000) => {
    for (const end = Date.now() + ms; !check(); await new Promise((r) => setTimeout(r, 20))) assert(Date.now() < end, `${what}: not within ${ms} ms`);
};
const all = async (list) => {
    const found = [];
    let cursor;
    do {
        const page = await list(cursor ? { cursor } : undefined);
        found.push(...(page.tools ?? page.prompts ?? page.resources ?? page.resourceTemplates));
        cursor = page.nextCursor;
    } while (cursor);
    return found;
};

const tool = (result) => result.structuredContent;
const refused = async (promise) => assert.equal((await promise.then((r) => ({ code: r.isError ? "result" : "none" }), (e) => e)).code, -32602);

// Each of them is one check; `p` is the prefix that the endpoint puts before names.
const visits = {
    everything: {
        async tools({ client, p }) {
            const found = names(await all((page) => client.listTools(page)));
            for (const name of ["echo", "get-sum", "get-tiny-image", "get-structured-content"]) assert(found.includes(p + name), `${p + name} is not in ${found}`);
        },
        async calls({ client, call, p }) {
            assert.equal(text(await call(client, p + "echo", { message: "grüße 🌍" })), "Echo: grüße 🌍");
            assert.match(text(await call(client, p + "get-sum", { a: 2, b: 3 })), /\b5\b/);
            assert((await call(client, p + "get-tiny-image", {})).content.some((part) => part.type === "image" && part.data.length > 100));
            assert((await call(client, p + "get-structured-content", { location: "Chicago" })).structuredContent);
        },
        async failures({ client, call, p }) {
            // Servers of the official SDK answer both with a result that says so; what comes back must be that, or an error.
            for (const [name, args] of [["no-such-tool", {}], ["get-sum", { a: "x" }]]) {
                const outcome = await call(client, p + name, args).then((r) => r.isError === true, (e) => typeof e.code === "number" || e.code !== undefined);
                assert(outcome, `${name} seems to have worked`);
            }
        },
        async progress({ client, call, p }) {
            const seen = [];
            const result = await call(client, p + "trigger-long-running-operation", { duration: 0.4, steps: 4 }, { onprogress: (x) => seen.push(x.progress) });
            assert.match(text(result), /complete/i);
            assert(seen.length >= 3, `progress: ${seen}`);
        },
        async prompts({ client, p }) {
            assert(names(await all((page) => client.listPrompts(page))).includes(p + "args-prompt"));
            assert.match(JSON.stringify(await client.getPrompt({ name: p + "args-prompt", arguments: { city: "Oslo" } })), /Oslo/);
            const { completion } = await client.complete({
                ref: { type: "ref/prompt", name: p + "completable-prompt" }, argument: { name: "department", value: "E" },
            });
            assert.deepEqual(completion.values, ["Engineering"]);
        },
        async resources({ client }) {
            const found = await all((page) => client.listResources(page));
            assert(found.length > 0);
            assert((await client.readResource({ uri: found[0].uri })).contents[0].text.length > 0);
            const templates = await all((page) => client.listResourceTemplates(page));
            assert(templates.some((t) => t.uriTemplate.includes("dynamic/text")), JSON.stringify(templates));
            assert.match((await client.readResource({ uri: "demo://resource/dynamic/text/7" })).contents[0].text, /7/);
        },
        async cancelling({ client, call, p }) {
            const stop = new AbortController();
            setTimeout(() => stop.abort("enough"), 100);
            await assert.rejects(call(client, p + "trigger-long-running-operation", { duration: 30, steps: 3 }, { signal: stop.signal }));
            assert.equal(text(await call(client, p + "echo", { message: "still there" })), "Echo: still there");
        },
    },
    // Only where the server has a session for every client: it offers these tools to clients that can be asked.
    asking: {
        async elicitation({ client, call, p }) {
            answers.asked.length = 0;
            assert.match(text(await call(client, p + "trigger-elicitation-request", {})), /Alice|provided/);
            assert.deepEqual(answers.asked, ["elicitation/create"]);
        },
        async sampling({ client, call, p }) {
            answers.asked.length = 0;
            assert.match(text(await call(client, p + "trigger-sampling-request", { prompt: "Say hello", maxTokens: 20 })), /Bonjour/);
            assert.deepEqual(answers.asked, ["sampling/createMessage"]);
        },
    },
    filesystem: {
        async files({ client, call, p, args }) {
            const path = `${args.folder}/${args.file}`;
            assert(names(await all((page) => client.listTools(page))).includes(p + "write_file"));
            await call(client, p + "write_file", { path, content: "one\ntwo\n" });
            assert.equal(text(await call(client, p + "read_text_file", { path })), "one\ntwo\n");
            await call(client, p + "edit_file", { path, edits: [{ oldText: "two", newText: "three" }] });
            assert.match(text(await call(client, p + "read_text_file", { path })), /three/);
            assert.match(text(await call(client, p + "list_directory", { path: args.folder })), new RegExp(args.file));
            assert((await call(client, p + "read_text_file", { path: "/etc/passwd" })).isError);
        },
    },
    memory: {
        async graph({ client, call, p, args }) {
            const name = args.entity;
            await call(client, p + "create_entities", { entities: [{ name, entityType: "person", observations: ["likes tea"] }] });
            await call(client, p + "add_observations", { observations: [{ entityName: name, contents: ["and cake"] }] });
            assert.match(text(await call(client, p + "search_nodes", { query: name })), /and cake/);
            assert(JSON.stringify((await call(client, p + "read_graph", {})).structuredContent).includes(name));
        },
    },
    // An agent's way to a tool: it finds, reads, loads and calls it, and what it may not use is not there.
    agent: {
        async meta({ client }) {
            const found = names(await all((page) => client.listTools(page)));
            assert.deepEqual(found, ["harness_search_tools", "harness_describe_tool", "harness_call_tool", "harness_load_tools"]);
        },
        async finding({ client, call, args }) {
            const hits = tool(await call(client, "harness_search_tools", { query: args.query, limit: 5 })).tools;
            assert.equal(hits[0].name, args.tool, JSON.stringify(hits));
            const { tool: described } = tool(await call(client, "harness_describe_tool", { name: args.tool }));
            assert.equal(described.name, args.tool);
            assert.equal(described.inputSchema.type, "object");
        },
        async calling({ client, call, args }) {
            assert.match(text(await call(client, "harness_call_tool", { name: args.tool, arguments: args.arguments })), new RegExp(args.says));
            assert.match(text(await call(client, args.tool, args.arguments)), new RegExp(args.says));
        },
        async loading({ client, call, sdk, args }) {
            const subscription = sdk === "v2-modern" ? await client.listen({ toolsListChanged: true }) : undefined;
            client.heard.length = 0;
            assert.deepEqual(tool(await call(client, "harness_load_tools", { names: [args.tool, args.denied] })), { loaded: [args.tool], unknown: [args.denied] });
            await until("tools/list_changed", () => client.heard.some((n) => n.method === "notifications/tools/list_changed"));
            const found = names(await all((page) => client.listTools(page)));
            assert.deepEqual(found.slice(4), [args.tool]);
            assert.match(text(await call(client, args.tool, args.arguments)), new RegExp(args.says));
            await subscription?.close();
        },
        async denied({ client, call, args }) {
            for (const name of [args.denied, "no-such-tool"]) {
                await refused(call(client, name, {}));
                await refused(call(client, "harness_call_tool", { name, arguments: {} }));
                await refused(call(client, "harness_describe_tool", { name }));
            }
            const hits = tool(await call(client, "harness_search_tools", { query: args.denied, limit: 25 })).tools;
            assert(!names(hits).includes(args.denied), JSON.stringify(hits));
        },
    },
    // The fixture: what change notifications, logging and questions to the client come through as.
    fixture: {
        async calls({ client, call, p }) {
            assert.equal(text(await call(client, p + "test_simple_text", {})), "This is a simple text response for testing.");
        },
        async questions({ client, call, p }) {
            answers.asked.length = 0;
            assert.match(text(await call(client, p + "test_sampling", { prompt: "x" })), /Bonjour/);
            assert.match(text(await call(client, p + "test_input_required_result_elicitation", {})), /Hello, Alice/);
            assert.match(text(await call(client, p + "test_input_required_result_multi_round", {})), /Alice likes Alice/);
            assert.match(text(await call(client, p + "test_input_required_result_list_roots", {})), /somewhere/);
            assert.deepEqual(answers.asked, ["sampling/createMessage", ...Array(3).fill("elicitation/create")]);
        },
        async cancelled({ client, call, p }) {
            const before = Number(text(await call(client, p + "cancelled", {})));
            const stop = new AbortController();
            setTimeout(() => stop.abort("enough"), 100);
            await assert.rejects(call(client, p + "wait", { ms: 60000 }, { signal: stop.signal }));
            let now = before;
            for (let i = 0; i < 150 && now === before; i++) {
                await new Promise((r) => setTimeout(r, 20));
                now = Number(text(await call(client, p + "cancelled", {})));
            }
            assert.equal(now, before + 1);
        },
        async changes({ client, call, sdk, p }) {
            const modern = sdk === "v2-modern";
            const subscription = modern ? await client.listen({ toolsListChanged: true, resourceSubscriptions: ["test://watched-resource"] }) : undefined;
            if (!modern) await client.subscribeResource({ uri: "test://watched-resource" });
            client.heard.length = 0;
            // A server may learn of the subscription after the client was told that it stands, and of a touch before that: again, until one is heard of.
            const updated = () => client.heard.some((n) => n.method === "notifications/resources/updated");
            for (let i = 0; i < 50 && !updated(); i++) {
                await call(client, p + "touch", { uri: "test://watched-resource" });
                for (let k = 0; k < 10 && !updated(); k++) await new Promise((r) => setTimeout(r, 10));
            }
            assert(updated(), "resources/updated: not heard of");
            await call(client, p + "test_trigger_tool_change", {});
            await until("tools/list_changed", () => client.heard.some((n) => n.method === "notifications/tools/list_changed"));
            await subscription?.close();
        },
    },
};

async function visit(number, plan, report) {
    const face = faces[plan.sdk];
    const client = face.make();
    const headers = plan.token ? { Authorization: `Bearer ${plan.token}` } : {};
    const look = async (check, run) => {
        try {
            await within(PATIENCE_MS, run());
            report.push({ visit: number, check, ok: true });
        } catch (e) {
            report.push({ visit: number, check, ok: false, why: String(e.stack ?? e).slice(0, 1500) });
        }
    };
    await look("connect", async () => {
        await client.connect(face.transport(new URL(plan.url), { requestInit: { headers } }));
        if (plan.sdk === "v2-modern") assert.equal(client.getNegotiatedProtocolVersion(), MODERN);
    });
    if (report.at(-1).ok)
        for (const what of [plan.what].flat())
            for (const [check, run] of Object.entries(visits[what]))
                await look(`${what}.${check}`, () => run({ client, call: face.call, p: plan.prefix ?? "", sdk: plan.sdk, args: plan.arguments ?? {} }));
    await look("end", () => face.end(client));
}

const report = [];
for (const [number, plan] of JSON.parse(readFileSync(0, "utf8")).entries()) await visit(number, plan, report);
console.log(JSON.stringify(report));
process.exit(0);
