#!/usr/bin/env -S python3 -B
"""The door for agents: the arguments of tests/unit/data/arguments, sent as they stand there, through every way to a call. What must be refused reaches no server; what
must pass reaches it byte by byte."""
import collections
import json
import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import broker_agents as agents
from broker_process import JSON_RPC, eventually

DATA = HERE / "data/arguments"


def corpus(name):
    """[(server, tool, arguments as text)]"""
    lines = [line for line in (DATA / name).read_bytes().decode("utf-8", "surrogateescape").split("\n") if line and not line.startswith("#")]
    return [(*line.split("\t", 1)[0].split(":", 1), line.split("\t", 1)[1]) for line in lines]


class Arguments(agents.AgentTest):
    policy = {k: v for k, v in json.loads((DATA / "policy.json").read_text()).items() if k not in ("version", "agents")}
    agents = {"tester": {"allow": ["*:*"]}}

    def begin(self, **entry):
        self.cases = {"evasions": corpus("evasions.txt"), "honest": corpus("honest.txt")}
        self.received = self.dir / "received"
        self.received.touch()
        tools = collections.defaultdict(set)
        for server, tool, _ in self.cases["evasions"] + self.cases["honest"]:
            tools[server].add(tool)
        self.more_entries = [{"name": server, "transport": "stdio", "command": [sys.executable, "-B", str(HERE / "any_server.py"), str(self.received), *sorted(names)],
                              "actions": [f"read {name}" for name in sorted(names)]} for server, names in sorted(tools.items())]
        super().begin(**entry)
        for server, names in tools.items():
            for name in names:
                eventually(lambda s=server, n=name: self.v1("tester", "describe", {"name": f"{s}:{n}"})[0] == 200)
        self.session = [f"{k}: {v}" for k, v in self.session_of("tester")]

    def ways(self, server, tool, arguments):
        """(path, body) of each way to a call."""
        call = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%s","arguments":%s}}'
        yield "/v1/call", f'{{"name":"{server}:{tool}","arguments":{arguments}}}'
        yield "/mcp", call % (f"{server}__{tool}", arguments)
        yield "/mcp", call % ("harness_call_tool", f'{{"name":"{server}:{tool}","arguments":{arguments}}}')

    def passes(self, path, body):
        lines = (*(f"{k}: {v}" for k, v in JSON_RPC.items()), f"Authorization: Bearer {self.tokens['tester']}", *(self.session if path == "/mcp" else ()))
        status, answer = self.raw("POST", path, lines, body.encode("utf-8", "surrogateescape"))
        self.assertNotIn(status, (401, 403, 404, 500, 501, 502, 503), (body, answer))
        return status == 200 and b'"done"' in answer, answer

    def test_evasions(self):
        self.begin()
        self.assertGreaterEqual(len(self.cases["evasions"]), 200)
        passed = [body for case in self.cases["evasions"] for path, body in self.ways(*case) if self.passes(path, body)[0]]
        self.assertEqual(passed, [])
        self.assertEqual(self.received.read_text(), "")

    def test_honest_look_alikes(self):
        self.begin()
        self.assertGreaterEqual(len(self.cases["honest"]), 200)
        refused = [(body, answer) for case in self.cases["honest"] for path, body in self.ways(*case) for passed, answer in [self.passes(path, body)] if not passed]
        self.assertEqual(refused, [])
        received = [json.loads(line) for line in self.received.read_text().splitlines()]
        self.assertEqual(len(received), 3 * len(self.cases["honest"]))
        for (tool, line), (_, wanted, arguments) in zip(received, (case for case in self.cases["honest"] for _ in range(3))):
            self.assertEqual(tool, wanted)
            self.assertIn(f'"arguments":{arguments}', line)  # what was looked at is what the server reads


if __name__ == "__main__":
    unittest.main()
