"""Real clients, unchanged: the official SDK in both major versions and the inspector's command line, through the gateway, to servers from npm.

Node is slow to start: all visits of the SDKs are one process, and every server is started once."""
import json
import os
import tempfile
import unittest

from brokered import Gateway, fixture, http_server, node, npm, stdio
from rig import eventually, rig, run

SERVER = "@modelcontextprotocol/server-"
TOKEN = "a-token-of-the-operator-0123456789abcdef"
HERE = os.path.dirname(os.path.abspath(__file__))


def everything(*how, **env):
    command = node(npm(SERVER + "everything", "dist/index.js"), *how)
    return ["env", *(f"{k}={v}" for k, v in env.items()), *command]


class Clients(unittest.TestCase):
    limit = 180

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="bulkhead-files-")
        cls.addClassCleanup(run, "rm", "-rf", cls.folder)
        cls.gateway = Gateway(
            stdio("everything", *everything("stdio")),
            http_server("everything-http", 17101, *everything("streamableHttp", PORT=17101)),
            http_server("everything-sse", 17102, *everything("sse", PORT=17102), transport="sse", path="/sse"),
            stdio("filesystem", *node(npm(SERVER + "filesystem", "dist/index.js"), cls.folder)),
            stdio("memory", "env", f"MEMORY_FILE_PATH={cls.folder}/memory.json", *node(npm(SERVER + "memory", "dist/index.js"))),
            stdio("fixture", fixture("mcp_conformance")),
            http_server("fixture-http", 17103, fixture("mcp_conformance"), "--http", "17103"),
            http_server("legacy-http", 17104, fixture("mcp_conformance"), "--http", "17104", "--era", "legacy"),
            token=TOKEN)
        cls.addClassCleanup(cls.gateway.close)
        cls.gateway.start()
        for entry in cls.gateway.entries:
            cls.gateway.event("up", 60, name=entry["name"])

    def visit(self, *plans):
        for plan in plans:
            plan.setdefault("token", TOKEN)
            plan["url"] = f"http://{self.gateway.address}{plan['url']}"
        done = run(*rig().in_host(*node(f"{HERE}/clients.mjs", rig().env["RIG_NPM"])), input=json.dumps(plans), timeout=150)
        report = json.loads(done.stdout)
        bad = [f"{plans[x['visit']]['sdk']} at {plans[x['visit']]['url']}: {x['check']}: {x['why']}" for x in report if not x["ok"]]
        self.assertEqual(bad, [], "\n".join(bad))
        for number, plan in enumerate(plans):
            seen = [x["check"] for x in report if x["visit"] == number]
            self.assertGreaterEqual(len(seen), 3, f"{plan}: {seen}")

    def plans(self, sdk):
        files = {"folder": self.folder, "file": f"{sdk}.txt"}
        yield {"sdk": sdk, "url": "/servers/everything/mcp", "what": "everything"}
        yield {"sdk": sdk, "url": "/servers/everything-http/mcp", "what": ["everything"] + ([] if sdk == "v2-modern" else ["asking"])}
        yield {"sdk": sdk, "url": "/servers/everything-sse/mcp", "what": "everything"}
        yield {"sdk": sdk, "url": "/servers/filesystem/mcp", "what": "filesystem", "arguments": files}
        yield {"sdk": sdk, "url": "/servers/memory/mcp", "what": "memory", "arguments": {"entity": f"Ada-{sdk}"}}
        for server in ("fixture", "fixture-http", "legacy-http"):
            yield {"sdk": sdk, "url": f"/servers/{server}/mcp", "what": "fixture"}
        # All of them behind one endpoint.
        yield {"sdk": sdk, "url": "/mcp", "prefix": "memory__", "what": "memory", "arguments": {"entity": f"Grace-{sdk}"}}
        yield {"sdk": sdk, "url": "/mcp", "prefix": "filesystem__", "what": "filesystem", "arguments": {**files, "file": f"{sdk}-all.txt"}}

    def test_sdk_v1(self):
        self.visit(*self.plans("v1"))

    def test_sdk_v2(self):
        self.visit(*self.plans("v2"))

    def test_sdk_v2_modern(self):
        self.visit(*self.plans("v2-modern"))

    inspections = 0

    def inspector(self, path, method, *more):
        Clients.inspections += 1
        argv = node(npm("@modelcontextprotocol/inspector", "clients/launcher/build/index.js"), "--cli", f"http://{self.gateway.address}{path}", "--transport", "http",
                    "--header", f"Authorization: Bearer {TOKEN}", "--method", method, *more)
        done = run(*rig().in_host(*argv), env={**os.environ, "HOME": self.folder, "MCP_CATALOG_PATH": f"{self.folder}/catalog.json"}, timeout=60)
        return json.loads(done.stdout)

    def test_inspector(self):
        def call(path, tool, *args):
            return self.inspector(path, "tools/call", "--tool-name", tool, *(a for arg in args for a in ("--tool-arg", arg)))["content"][0]["text"]
        tools = {t["name"] for t in self.inspector("/servers/everything/mcp", "tools/list")["tools"]}
        self.assertLessEqual({"echo", "get-sum"}, tools)
        self.assertEqual(call("/servers/everything/mcp", "echo", "message=inspected"), "Echo: inspected")
        self.assertIn("5", call("/servers/everything-http/mcp", "get-sum", "a=2", "b=3"))
        self.assertEqual(call("/servers/everything-sse/mcp", "echo", "message=older"), "Echo: older")
        self.assertTrue(self.inspector("/servers/everything-http/mcp", "prompts/list")["prompts"])
        self.assertTrue(self.inspector("/servers/everything-http/mcp", "resources/list")["resources"])
        self.assertIn(self.folder, call("/servers/filesystem/mcp", "list_allowed_directories"))
        self.assertIn("entities", json.dumps(self.inspector("/servers/memory/mcp", "tools/call", "--tool-name", "read_graph")))
        everything_at_once = {t["name"] for t in self.inspector("/mcp", "tools/list")["tools"]}
        self.assertLessEqual({"everything__echo", "everything-http__echo", "filesystem__read_text_file", "memory__read_graph"}, everything_at_once)

    def test_without_the_token(self):
        status, headers, _ = self.gateway.request("POST", "/servers/memory/mcp", "{}", Authorization="Bearer something-else", Content_Type="application/json")
        self.assertEqual(status, 401)
        self.assertIn("Bearer", headers["WWW-Authenticate"])

    def test_zz_nothing_is_left(self):
        """After all of them: no call, no stream, no session of anybody who said goodbye."""
        def counts():
            metrics = self.gateway.metrics()
            return {k: v for k, v in metrics.items() if k.startswith(("bulkhead_sessions", "bulkhead_http_streams")) or "in_flight" in k}

        def none():
            left = {k: v for k, v in counts().items() if v}
            # The inspector goes without a goodbye: its sessions end when they have been idle long enough.
            assert left == ({"bulkhead_sessions": self.inspections} if self.inspections else {}), (left, self.inspections)
            return True
        eventually("nothing is left", 10, none)


if __name__ == "__main__":
    unittest.main(verbosity=2)
