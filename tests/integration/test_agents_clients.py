"""Real clients, unchanged, at the agents' door with a token: the official SDK in both major versions and the inspector's command line find, read, load and call tools of
servers from npm, and what an agent may not use is not there for them."""
import json
import os
import tempfile
import unittest

from brokered import Gateway, Port, Refused, fixture, node, npm, stdio
from rig import eventually, rig, run
from test_gateway_clients import HERE, SERVER, everything

MAY_ASK = {"sampling": ["*"], "elicitation": ["*"], "roots": ["*"]}


def whole(server):
    """May use all of one server, and has its tools in its list."""
    return {"allow": [f"{server}:*"], "preload": [f"{server}:*"], "prompts": [f"{server}:*"], "resources": [f"{server}:*"], **MAY_ASK}


class Agents(unittest.TestCase):
    limit = 180

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="bulkhead-files-")
        cls.addClassCleanup(run, "rm", "-rf", cls.folder)
        seeker = {"allow": ["everything:*", "filesystem:read_*"], "deny": ["everything:get-sum"]}
        cls.gateway = Gateway(
            stdio("everything", *everything("stdio")),
            stdio("filesystem", *node(npm(SERVER + "filesystem", "dist/index.js"), cls.folder)),
            stdio("memory", "env", f"MEMORY_FILE_PATH={cls.folder}/memory.json", *node(npm(SERVER + "memory", "dist/index.js"))),
            stdio("fixture", fixture("mcp_conformance")),
            agents={"seeker": seeker, "fresh": seeker, "newest": seeker, "inspecting": {**whole("everything"), "deny": ["everything:get-sum"]}, "nobody": {},
                    **{server: whole(server) for server in ("everything", "filesystem", "memory", "fixture")}})
        cls.addClassCleanup(cls.gateway.close)
        cls.gateway.start()
        for entry in cls.gateway.entries:
            cls.gateway.event("up", 60, name=entry["name"])
        for server, tool in (("everything", "everything__echo"), ("filesystem", "filesystem__read_file"), ("memory", "memory__read_graph"), ("fixture", "fixture__wait")):
            door = cls.gateway.agent(server)
            eventually(f"{server} is known", 60, lambda d=door, t=tool: t in d.names())

    def visit(self, *plans):
        for plan in plans:
            plan |= {"url": f"http://{self.gateway.door}/mcp", "token": self.gateway.agent(plan["agent"]).token}
        done = run(*rig().in_host(*node(f"{HERE}/clients.mjs", rig().env["RIG_NPM"])), input=json.dumps(plans), timeout=150)
        report = json.loads(done.stdout)
        bad = [f"{plans[x['visit']]['sdk']} as {plans[x['visit']]['agent']}: {x['check']}: {x['why']}" for x in report if not x["ok"]]
        self.assertEqual(bad, [], "\n".join(bad))
        for number, plan in enumerate(plans):
            seen = [x["check"] for x in report if x["visit"] == number]
            self.assertGreaterEqual(len(seen), 3, f"{plan}: {seen}")

    def plans(self, sdk, seeker):
        """Every SDK has a seeker of its own: what a modern client loads belongs to the agent's run."""
        yield {"sdk": sdk, "agent": seeker, "what": "agent", "arguments": {"query": "echo back the input message", "tool": "everything__echo", "denied": "everything__get-sum",
                                                                        "arguments": {"message": "found"}, "says": "Echo: found"}}
        # All that the gateway's port passes on, as far as one agent sees one server's.
        yield {"sdk": sdk, "agent": "everything", "prefix": "everything__", "what": "everything"}
        yield {"sdk": sdk, "agent": "filesystem", "prefix": "filesystem__", "what": "filesystem", "arguments": {"folder": self.folder, "file": f"{sdk}.txt"}}
        yield {"sdk": sdk, "agent": "memory", "prefix": "memory__", "what": "memory", "arguments": {"entity": f"Ada-{sdk}"}}
        yield {"sdk": sdk, "agent": "fixture", "prefix": "fixture__", "what": "fixture"}

    def test_sdk_v1(self):
        self.visit(*self.plans("v1", "seeker"))

    def test_sdk_v2(self):
        self.visit(*self.plans("v2", "fresh"))

    def test_sdk_v2_modern(self):
        self.visit(*self.plans("v2-modern", "newest"))

    def inspector(self, agent, method, *more, check=True):
        argv = node(npm("@modelcontextprotocol/inspector", "clients/launcher/build/index.js"), "--cli", f"http://{self.gateway.door}/mcp", "--transport", "http",
                    "--header", f"Authorization: Bearer {self.gateway.agent(agent).token}", "--method", method, *more)
        done = run(*rig().in_host(*argv), env={**os.environ, "HOME": self.folder, "MCP_CATALOG_PATH": f"{self.folder}/catalog.json"}, timeout=60, check=check)
        return json.loads(done.stdout) if check else done

    def test_inspector(self):
        def call(tool, *args, **how):
            return self.inspector("inspecting", "tools/call", "--tool-name", tool, *(a for arg in args for a in ("--tool-arg", arg)), **how)
        tools = [t["name"] for t in self.inspector("inspecting", "tools/list")["tools"]]
        self.assertIn("harness_search_tools", tools)
        self.assertIn("everything__echo", tools)
        self.assertNotIn("everything__get-sum", tools)
        self.assertEqual({t.split("__")[0] for t in tools[4:]}, {"everything"})
        self.assertEqual(call("everything__echo", "message=inspected")["content"][0]["text"], "Echo: inspected")
        found = call("harness_search_tools", "query=echo a message")["structuredContent"]["tools"]
        self.assertEqual(found[0]["name"], "everything__echo")
        self.assertEqual(call("harness_describe_tool", "name=everything__echo")["structuredContent"]["tool"]["name"], "everything__echo")
        self.assertNotEqual(call("everything__get-sum", "a=2", "b=3", check=False).returncode, 0)

    def test_others_learn_nothing(self):
        nobody = self.gateway.agent("nobody")
        self.assertEqual(len(nobody.names()), 4)
        for name in ("everything__echo", "harness_call_tool"):
            with self.assertRaises(Refused):
                nobody.call("/mcp", name, {"name": "everything__echo", "arguments": {"message": "x"}})
        for token in (None, "wrong"):
            self.assertEqual(Port(self.gateway.door, token).request("POST", "/mcp", "{}", Content_Type="application/json")[0], 401)


if __name__ == "__main__":
    unittest.main(verbosity=2)
