#!/usr/bin/env -S python3 -B
"""The door for agents, through the program itself: tokens, the one decision, /mcp and /v1, what survives a kill, what a bad file does.

The controller is tests/rig/link_host, the server the rig's echo server, tokens are the command line's. As root the broker is started as another user."""
import base64
import concurrent.futures
import http.client
import json
import os
import pathlib
import pwd
import re
import socket
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import broker_process as process
from broker_process import BUILD, INITIALIZE, JSON_RPC, NOBODY, eventually

ALLOW_ALL = {"allow": ["*:*"], "prompts": ["*:*"], "resources": ["*:*"], "sampling": ["*"], "elicitation": ["*"], "roots": ["*"]}


class AgentTest(process.BrokerTest):
    agents = {"alice": {**ALLOW_ALL, "preload": ["echo:*"]}, "bob": {"allow": ["echo:echo"]}, "carol": {}}
    policy = {"tool_approval_required": [], "rate_limits": [], "budgets": {"max_api_calls": 1000000, "max_tokens": 1000000000}}

    def setUp(self):
        super().setUp()
        self.state = self.dir / "state"
        self.state.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(self.state, NOBODY, NOBODY)
        self.door = process.free_port()
        self.write_policy()
        self.conf.write_text(json.dumps({
            "audience": "test.example", "link": {"socket": str(self.socket)}, "policy": str(self.dir / "policy.json"),
            "gateway": {"listen": f"127.0.0.1:{self.port}", "token": str(self.token)},
            "broker": {"listen": [f"127.0.0.1:{self.door}"], "state": str(self.state)},
            "agents": {"file": str(self.dir / "agents.json"), "key": str(self.dir / "agents.key")},
            "controller": {"user": pwd.getpwuid(os.geteuid()).pw_name, "socket": str(self.dir / "none.sock")}}))
        for agent in self.agents:
            self.cli("agent", "add", agent)

    def cli(self, *argv):
        result = subprocess.run([(BUILD / "bulkhead").resolve(), "--config", self.conf, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=20, check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout.strip()

    def token_of(self, agent, *argv):
        return self.cli("token", agent, "--run", f"run-of-{agent}", *argv)

    def write_policy(self, **changes):
        fresh = self.dir / "policy.new"
        fresh.write_text(json.dumps({"version": "1.0", **self.policy, "agents": self.agents, **changes}))
        fresh.rename(self.dir / "policy.json")

    def begin(self, **entry):
        self.start_host(**entry)
        self.start()
        eventually(lambda: self.readiness()["controller"] == "connected")
        self.tokens = {agent: self.token_of(agent) for agent in self.agents}

    def again(self):
        (self.dir / "log").unlink()
        self.start()
        eventually(lambda: self.readiness()["controller"] == "connected")

    def send(self, method, path, body=None, token=None, headers=(), timeout=20):
        connection = http.client.HTTPConnection("127.0.0.1", self.door, timeout=timeout)
        try:
            connection.putrequest(method, path)
            data = json.dumps(body).encode() if body is not None else b""
            lines = [*([("Authorization", f"Bearer {token}")] if token else []), *headers, *([(k, v) for k, v in JSON_RPC.items()] if body is not None else [])]
            for key, value in [*lines, ("Content-Length", str(len(data)))]:
                connection.putheader(key, value)
            connection.endheaders(data)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers
        finally:
            connection.close()

    def rpc(self, agent, method, params=None, headers=()):
        _, text, _ = self.send("POST", "/mcp", {"jsonrpc": "2.0", "id": 7, "method": method, "params": params or {}}, self.tokens[agent], headers)
        return last_message(text)

    def session_of(self, agent):
        status, text, headers = self.send("POST", "/mcp", INITIALIZE, self.tokens[agent])
        self.assertEqual(status, 200, text)
        return [("Mcp-Session-Id", headers["Mcp-Session-Id"]), ("MCP-Protocol-Version", "2025-11-25")]

    def v1(self, agent, verb, body):
        status, text, headers = self.send("POST", f"/v1/{verb}", body, self.tokens[agent])
        return status, json.loads(text), headers

    def decisions(self):
        return [json.loads(line) for line in (self.state / "decisions.jsonl").read_text().splitlines()]


def last_message(text):
    """Of an answer that is one message or a stream of them."""
    return json.loads(text if text.startswith("{") else [line for line in text.splitlines() if line.startswith("data:")][-1][5:])


def tool_names(answer):
    return [tool["name"] for tool in answer["result"]["tools"]]


HARNESS = ["harness_search_tools", "harness_describe_tool", "harness_call_tool", "harness_load_tools"]


class Tools(AgentTest):
    def test_from_search_to_call(self):
        self.begin()
        session = self.session_of("bob")
        self.assertEqual(tool_names(self.rpc("bob", "tools/list", headers=session)), HARNESS)
        found = self.rpc("bob", "tools/call", {"name": "harness_search_tools", "arguments": {"query": "echo the text back"}}, session)
        self.assertEqual([hit["name"] for hit in found["result"]["structuredContent"]["tools"]], ["echo__echo"])
        described = self.rpc("bob", "tools/call", {"name": "harness_describe_tool", "arguments": {"name": "echo__echo"}}, session)
        self.assertEqual(described["result"]["structuredContent"]["tool"]["name"], "echo__echo")
        for name in ("echo__echo", "echo:echo"):
            called = self.rpc("bob", "tools/call", {"name": "harness_call_tool", "arguments": {"name": name, "arguments": {"text": "hello"}}}, session)
            self.assertIn("hello", json.dumps(called["result"]))
        loaded = self.rpc("bob", "tools/call", {"name": "harness_load_tools", "arguments": {"names": ["echo__echo", "echo__other"]}}, session)
        self.assertEqual(loaded["result"]["structuredContent"], {"loaded": ["echo__echo"], "unknown": ["echo__other"]})
        self.assertEqual(tool_names(self.rpc("bob", "tools/list", headers=session)), [*HARNESS, "echo__echo"])
        self.assertIn("direct", json.dumps(self.rpc("bob", "tools/call", {"name": "echo__echo", "arguments": {"text": "direct"}}, session)["result"]))

    def test_preloaded_tools_are_in_the_list(self):
        self.begin()
        self.assertIn("echo__echo", tool_names(self.rpc("alice", "tools/list", headers=self.session_of("alice"))))
        self.assertEqual(tool_names(self.rpc("carol", "tools/list", headers=self.session_of("carol"))), HARNESS)

    def test_modern_clients(self):
        self.begin()
        meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"}}

        def ask(method, params, name=None):
            headers = [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", method), *([("Mcp-Name", name)] if name else [])]
            return self.rpc("bob", method, {**params, "_meta": meta}, headers)
        self.assertEqual(tool_names(ask("tools/list", {})), HARNESS)
        called = ask("tools/call", {"name": "harness_call_tool", "arguments": {"name": "echo:echo", "arguments": {"text": "hi"}}}, "harness_call_tool")
        self.assertEqual(called["result"]["resultType"], "complete")
        self.assertIn("hi", json.dumps(called))
        ask("tools/call", {"name": "harness_load_tools", "arguments": {"names": ["echo:echo"]}}, "harness_load_tools")
        self.assertEqual(tool_names(ask("tools/list", {})), [*HARNESS, "echo__echo"])

    def test_loading_is_announced(self):
        self.begin()
        session = self.session_of("bob")
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "harness_load_tools", "arguments": {"names": ["echo:echo"]}}}
        _, text, _ = self.send("POST", "/mcp", body, self.tokens["bob"], session)
        self.assertIn("notifications/tools/list_changed", text)
        _, text, _ = self.send("POST", "/mcp", body, self.tokens["bob"], session)
        self.assertNotIn("list_changed", text)  # nothing new

    def test_operators_see_what_they_saw(self):
        self.begin()
        session = self.session()
        self.assertEqual(self.call(session, "echo", {"text": "x"})[0], 200)
        self.assertEqual(self.ask("POST", "/servers/echo/mcp", INITIALIZE, token=self.tokens["alice"])[0], 401)
        self.assertNotRegex(self.ask("GET", "/metrics")[1], r"bulkhead_decisions_total\{.*\} [1-9]")


class Plain(AgentTest):
    def test_end_with_things_under_way(self):
        self.begin()
        session = self.session_of("alice")
        stream = http.client.HTTPConnection("127.0.0.1", self.door, timeout=20)
        stream.request("GET", "/mcp", headers={**dict(session), "Accept": "text/event-stream", "Authorization": f"Bearer {self.tokens['alice']}"})
        self.assertEqual(stream.getresponse().status, 200)
        for agent in self.agents:
            self.rpc(agent, "tools/call", {"name": "harness_load_tools", "arguments": {"names": ["echo:echo"]}}, self.session_of(agent))
            self.v1(agent, "call", {"name": "echo:echo", "arguments": {"text": "x"}})
        self.tell_host(do="down", name="echo", why="a test")  # calls wait, or fail
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(lambda: self.v1("alice", "call", {"name": "echo:echo", "arguments": {"text": "x"}}))
            self.broker.terminate()
            self.assertEqual(self.broker.wait(10), 0, self.log()[-3000:])
        stream.close()
        self.assertNotIn("ERROR", self.log())

    def test_verbs(self):
        self.begin()
        status, found, _ = self.v1("bob", "search", {"query": "echo"})
        self.assertEqual((status, [t["name"] for t in found["tools"]]), (200, ["echo__echo"]))
        self.assertEqual(self.v1("bob", "describe", {"name": "echo:echo"})[1]["tool"]["description"], "Gives the text back")
        self.assertEqual(self.v1("bob", "load", {"names": ["echo:echo"]})[1], {"loaded": ["echo__echo"], "unknown": []})
        status, called, _ = self.v1("bob", "call", {"name": "echo:echo", "arguments": {"text": "plain"}})
        self.assertEqual((status, called["status"], called["result"]["content"][0]["text"]), (200, "ok", "plain"))
        self.assertEqual(self.decisions()[0]["door"], "http")

    def test_what_is_wrong_is_said(self):
        self.begin()
        for verb, body, want in (("call", {"name": "echo:none"}, 404), ("call", {}, 400), ("call", {"name": 1}, 400), ("describe", {"name": "x"}, 404),
                                 ("call", {"name": "echo:echo", "arguments": []}, 400), ("call", {"name": "echo:echo", "arguments": {"text": 1}}, 400),
                                 ("search", {"query": 1}, 400), ("search", {"query": "x", "limit": 0}, 400), ("search", [], 400), ("nothing", {}, 404),
                                 ("load", {"names": "x"}, 400)):
            with self.subTest(verb=verb, body=body):
                self.assertEqual(self.send("POST", f"/v1/{verb}", body, self.tokens["bob"])[0], want)
        self.assertEqual(self.send("GET", "/v1/search", None, self.tokens["bob"])[0], 405)
        self.assertEqual(self.send("POST", "/v1/search", None, self.tokens["bob"])[0], 415)

    def test_limits(self):
        self.write_policy(rate_limits=[{"tools": ["*:*"], "max_calls": 2, "window_seconds": 60}])
        self.begin()
        answers = [self.v1("bob", "call", {"name": "echo:echo", "arguments": {}}) for _ in range(3)]
        self.assertEqual([a[0] for a in answers], [200, 200, 429])
        self.assertEqual(answers[2][1]["status"], "rate_limited")
        self.assertGreater(int(answers[2][2]["Retry-After"]), 0)
        limited = self.rpc("bob", "tools/call", {"name": "harness_call_tool", "arguments": {"name": "echo:echo"}}, self.session_of("bob"))
        self.assertTrue(limited["result"]["isError"])
        self.assertEqual(limited["result"]["structuredContent"]["status"], "rate_limited")


class CommandLine(AgentTest):
    agents = {"bob": {"allow": ["echo:echo"], "ask": ["echo:env"]}}

    def agent_cli(self, *argv, token=None, **env):
        environment = {"PATH": os.environ["PATH"], "BULKHEAD_TOKEN": token or self.tokens["bob"], "http_proxy": "http://127.0.0.1:1", **env}
        program = [(BUILD / "bulkhead").resolve(), *argv, *(() if "--url" in argv else ("--url", f"http://127.0.0.1:{self.door}"))]
        result = subprocess.run(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=20, check=False, env=environment, input=env.get("INPUT"))
        return result.returncode, result.stdout, result.stderr

    def test_tools_and_call(self):
        self.begin()
        code, out, _ = self.agent_cli("tools", "search", "echo", "text")
        self.assertEqual((code, "echo__echo" in out), (0, True))
        self.assertEqual([t["name"] for t in json.loads(self.agent_cli("--json", "tools", "search", "text", "--limit", "1")[1])["tools"]], ["echo__echo"])
        self.assertIn("Gives the text back", self.agent_cli("tools", "describe", "echo:echo")[1])
        self.assertEqual(self.agent_cli("tools", "load", "echo:echo")[0], 0)
        self.assertEqual(self.agent_cli("tools", "load", "echo:echo", "echo:none")[0], 1)
        code, out, err = self.agent_cli("call", "--tool", "echo:echo", "--json", '{"text": "through \\u001b[31m"}')
        self.assertEqual((code, out), (0, "through \\x1b[31m\n"), err)
        self.assertEqual(json.loads(self.agent_cli("--json", "call", "--tool", "echo:echo", "--json", '{"text": "x"}')[1])["result"]["content"][0]["text"], "x")
        self.assertEqual(self.agent_cli("call", "--tool", "echo:echo", "--json", "-", INPUT='{"text": "piped"}')[1], "piped\n")

    def test_exit_codes(self):
        self.begin()
        for want, *argv in ((1, "call", "--tool", "echo:none"), (1, "call", "--tool", "echo:echo", "--json", '{"text": 1}'), (2, "call", "--tool", "echo:env"),
                            (64, "call"), (64, "call", "--tool", "echo:echo", "--json", "{"), (64, "call", "--tool", "echo:echo", "--json", "[]"), (64, "tools", "none", "x")):
            with self.subTest(argv=argv):
                self.assertEqual(self.agent_cli(*argv)[0], want, self.agent_cli(*argv))
        self.assertEqual(self.agent_cli("call", "--tool", "echo:echo", token="wrong")[0], 77)
        self.assertEqual(self.agent_cli("call", "--tool", "echo:echo", "--url", "http://127.0.0.1:1")[0], 69)
        self.assertEqual(self.agent_cli("call", "--tool", "echo:echo", BULKHEAD_TOKEN="")[0], 64)
        (self.dir / "t").write_text(self.tokens["bob"] + "\n")
        self.assertEqual(self.agent_cli("call", "--tool", "echo:echo", "--json", '{"text": "x"}', "--token-file", str(self.dir / "t"), BULKHEAD_TOKEN="")[0], 0)


class Tokens(AgentTest):
    def assert_refused(self, method, path, headers, body=None):
        status, text, got = self.send(method, path, body, None, headers)
        self.assertEqual(status, 401, (path, headers, text))
        self.assertEqual(got["WWW-Authenticate"], f'Bearer resource_metadata="http://127.0.0.1:{self.door}/.well-known/oauth-protected-resource/mcp"')
        self.assertEqual(json.loads(text), {"jsonrpc": "2.0", "error": {"code": -32000, "message": "send Authorization: Bearer with a token of an agent that counts"}})

    def bad_tokens(self):
        good = self.tokens["bob"]
        prefix, key, payload, signature = good.split(".")
        decoded = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))

        def forged(**changes):
            return base64.urlsafe_b64encode(json.dumps({**decoded, **changes}, separators=(",", ":")).encode()).decode().rstrip("=")
        none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
        yield from (("empty", ""), ("word", "secret"), ("operator", "secret"), ("truncated", good[:-1]), ("longer", good + "A"), ("no signature", f"{prefix}.{key}.{payload}."),
                    ("other agent", f"{prefix}.{key}.{forged(agent='alice')}.{signature}"), ("later end", f"{prefix}.{key}.{forged(exp=decoded['exp'] + 9999)}.{signature}"),
                    ("other key", f"{prefix}.{'0' * 16}.{payload}.{signature}"), ("other version", f"bh2.{key}.{payload}.{signature}"), ("jwt none", f"{none}.{payload}."),
                    ("upper", good.upper()), ("padded", good + "="), ("twice in one", f"{good},{good}"), ("long", good + "x" * 4000), ("nul", good + "%00"))

    def test_what_does_not_count(self):
        self.begin()
        good = self.tokens["bob"]
        for path in ("/mcp", "/v1/call", "/v1/search", "/v1/nothing", "/nothing", "/servers/echo/mcp", "/metrics", "/"):
            self.assert_refused("POST", path, [], INITIALIZE)
        for name, token in self.bad_tokens():
            with self.subTest(name):
                self.assert_refused("POST", "/mcp", [("Authorization", f"Bearer {token}")], INITIALIZE)
        for headers in ([("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {good}")], [("Authorization", f"Bearer {good}"), ("authorization", "Bearer x")],
                        [("Authorization", good)], [("Authorization", f"Basic {good}")], [("Authorization", f"Token {good}")], [("X-Authorization", f"Bearer {good}")],
                        [("Cookie", f"token={good}")], [("Proxy-Authorization", f"Bearer {good}")]):
            self.assert_refused("POST", "/mcp", headers, INITIALIZE)
        for path in (f"/mcp?access_token={good}", f"/v1/search?access_token={good}"):
            self.assert_refused("POST", path, [], INITIALIZE)
            self.assert_refused("POST", path, [("Authorization", f"Bearer {good}")], INITIALIZE)
        self.assertEqual(self.send("POST", "/mcp", INITIALIZE, good)[0], 200)

    def test_end_removal_and_rotation(self):
        self.begin()
        brief = self.token_of("bob", "--ttl", "1s")
        self.assertEqual(self.send("POST", "/mcp", INITIALIZE, brief)[0], 200)
        eventually(lambda: self.send("POST", "/mcp", INITIALIZE, brief)[0] == 401)
        session = self.session_of("bob")
        self.cli("agent", "remove", "bob")
        eventually(lambda: self.send("POST", "/mcp", INITIALIZE, self.tokens["bob"])[0] == 401)
        self.assert_refused("POST", "/mcp", [("Authorization", f"Bearer {self.tokens['bob']}"), *session], {"jsonrpc": "2.0", "id": 1, "method": "ping"})
        self.cli("agent", "rotate")
        eventually(lambda: self.send("POST", "/mcp", INITIALIZE, self.tokens["alice"])[0] == 401)
        self.assertEqual(self.send("POST", "/mcp", INITIALIZE, self.token_of("alice"))[0], 200)

    def test_a_bad_file_changes_nothing(self):
        self.begin()
        agents = self.dir / "agents.json"
        good = agents.read_text()
        for bad in ("", "{", good.replace("version", "Version"), good[:len(good) // 2]):
            agents.write_text(bad)
            eventually(lambda: "those before count on" in self.log())
            self.assertEqual(self.send("POST", "/mcp", INITIALIZE, self.tokens["bob"])[0], 200)

    def test_time_does_not_go_back(self):
        self.start_host()
        later = int(time.time()) + 7200
        (self.state / "time").write_text(f"{later}\n")
        if os.geteuid() == 0:
            os.chown(self.state / "time", NOBODY, NOBODY)
        self.start()
        self.assertEqual(self.send("POST", "/mcp", INITIALIZE, self.token_of("bob", "--ttl", "1h"))[0], 401)
        self.assertEqual(self.send("POST", "/mcp", INITIALIZE, self.token_of("bob", "--ttl", "3h"))[0], 200)

    def test_metadata(self):
        self.begin()
        for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"):
            status, text, _ = self.send("GET", path)
            self.assertEqual((status, json.loads(text)["resource"]), (200, f"http://127.0.0.1:{self.door}/mcp"))
        self.assertEqual(self.send("GET", "/healthz")[0], 200)
        self.assertEqual(self.send("GET", "/healthz", headers=[("Origin", "http://evil.example")])[0], 403)
        self.assertEqual(self.send("POST", "/mcp", INITIALIZE, self.tokens["bob"], [("Origin", "http://evil.example")])[0], 403)

    def test_sessions_belong_to_agents(self):
        self.begin()
        session = self.session_of("bob")
        for method, body in (("POST", {"jsonrpc": "2.0", "id": 1, "method": "ping"}), ("GET", None), ("DELETE", None)):
            headers = [*session, ("Accept", "text/event-stream")] if method == "GET" else session
            self.assertEqual(self.send(method, "/mcp", body, self.tokens["alice"], headers)[0], 404, method)
            self.assertEqual(self.ask(method, "/mcp", body, dict(headers))[0], 404, method)  # nor to operators
        self.assertEqual(self.send("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, self.token_of("bob"), session)[0], 200)


class Neighbours(AgentTest):
    def test_many_sessions_of_one_cost_others_none(self):
        conf = json.loads(self.conf.read_text())
        conf["gateway"]["max_sessions"] = 16
        self.conf.write_text(json.dumps(conf))
        self.begin()
        session = self.session_of("bob")
        for _ in range(40):
            self.session_of("alice")
        self.assertEqual(self.send("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, self.tokens["bob"], session)[0], 200)


class Denied(AgentTest):
    agents = {"bob": {"allow": ["echo:*"], "deny": ["echo:echo"]}, "nobody": {}, "alice": ALLOW_ALL}

    def test_no_way_to_what_is_denied(self):
        """Routes, methods, meta-tools and ways of writing a name: each answers what it answers for a name that nobody has."""
        self.begin()
        for agent in ("bob", "nobody"):
            session = self.session_of(agent)

            def same(method, params_of, agent=agent, session=session):
                denied, unknown = (self.rpc(agent, method, params_of(name), session) for name in ("echo", "ecko"))
                self.assertEqual(json.dumps(denied).replace("echo", "ecko"), json.dumps(unknown).replace("echo", "ecko"), (agent, method))
                self.assertNotIn("hello", json.dumps(denied))
            for write in ("echo__{}", "echo:{}", "{}", "echo__{} ", "Echo__{}", "echo__{}\u0000", "echo:{}:x", ":{}", "harness_call_tool:{}"):
                same("tools/call", lambda name, write=write: {"name": write.format(name), "arguments": {"text": "hello"}})
                same("tools/call", lambda name, write=write: {"name": "harness_call_tool", "arguments": {"name": write.format(name), "arguments": {"text": "hello"}}})
                same("tools/call", lambda name, write=write: {"name": "harness_describe_tool", "arguments": {"name": write.format(name)}})
                same("tools/call", lambda name, write=write: {"name": "harness_load_tools", "arguments": {"names": [write.format(name)]}})
                found = self.rpc(agent, "tools/call", {"name": "harness_search_tools", "arguments": {"query": write.format("echo")}}, session)
                self.assertNotIn("echo__echo", json.dumps(found))
                for verb, body in (("call", {"name": "NAME", "arguments": {"text": "hello"}}), ("describe", {"name": "NAME"}), ("load", {"names": ["NAME"]})):
                    denied, unknown = (self.v1(agent, verb, json.loads(json.dumps(body).replace('"NAME"', json.dumps(write.format(name))))) for name in ("echo", "ecko"))
                    self.assertEqual(denied[0], unknown[0])
                    self.assertEqual(json.dumps(denied[1]).replace("echo", "ecko"), json.dumps(unknown[1]).replace("echo", "ecko"), (verb, write))
            for name in ("prompts/get", "resources/read", "resources/subscribe", "completion/complete"):
                same(name, lambda n: {"name": f"echo__{n}", "uri": f"echo://{n}", "ref": {"type": "ref/prompt", "name": f"echo__{n}"}, "argument": {"name": "x", "value": ""}})
            nested = {"name": "harness_call_tool", "arguments": {"name": "harness_call_tool", "arguments": {"name": "echo__echo", "arguments": {"text": "hello"}}}}
            self.assertIn("error", self.rpc(agent, "tools/call", nested, session))
            for path in ("/servers/echo/mcp", "/mcp/", "/mcp/echo", "//mcp", "/v1/../mcp", "/v1", "/metrics", "/readyz/", "/servers"):
                self.assertIn(self.send("POST", path, INITIALIZE, self.tokens[agent])[0], (400, 404), path)
        self.assertFalse([d for d in self.decisions() if d.get("outcome") == "allow"])

    def test_long_names_do_not_push_the_log_out(self):
        self.begin()
        session = self.session_of("nobody")
        for name in ("x" * 1000000, "\u00e9" * 500000):
            self.assertIn("error", self.rpc("nobody", "tools/call", {"name": name}, session))
            self.assertEqual(self.v1("nobody", "call", {"name": name})[0], 404)
        self.assertEqual([d["name_bytes"] for d in self.decisions()], [1000000] * 4)
        self.assertLess((self.state / "decisions.jsonl").stat().st_size, 8192)

    def test_time_tells_nothing(self):
        self.begin()
        connection = http.client.HTTPConnection("127.0.0.1", self.door, timeout=20)
        session = dict(self.session_of("bob"))

        def once(name):
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": {"text": "x"}}})
            begun = time.perf_counter()
            connection.request("POST", "/mcp", body, {**JSON_RPC, **session, "Authorization": f"Bearer {self.tokens['bob']}"})
            connection.getresponse().read()
            return time.perf_counter() - begun
        times = {"echo__echo": [], "echo__ecko": []}
        for _ in range(1000):
            for name, taken in times.items():
                taken.append(once(name))
        connection.close()
        denied, unknown = (sorted(taken) for taken in times.values())
        for quantile in (100, 250, 500, 750):
            self.assertLess(abs(denied[quantile] - unknown[quantile]), 0.15 * unknown[quantile], (quantile, denied[quantile], unknown[quantile]))


class Classes(AgentTest):
    """What class a tool is of, the approved entry says; what it does not say is taken for the worst."""
    policy = {"tool_approval_required": ["exec"], "rate_limits": [], "budgets": {"max_api_calls": 1000}}

    def outcome(self, *actions):
        self.begin(**({"actions": list(actions)} if actions else {}))
        return self.v1("bob", "call", {"name": "echo:echo", "arguments": {"text": "x"}})[0]

    def test_read(self):
        self.assertEqual(self.outcome("exec other", "read echo"), 200)

    def test_exec(self):
        self.assertEqual(self.outcome("exec echo"), 202)

    def test_not_told(self):
        self.assertEqual(self.outcome(), 202)


class Counting(AgentTest):
    policy = {"tool_approval_required": [], "rate_limits": [], "budgets": {"period": "month", "max_api_calls": 100}}

    def burst(self, n):
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            def one(_):
                try:
                    return self.v1("bob", "call", {"name": "echo:echo", "arguments": {"text": "x"}})[0]
                except (OSError, http.client.HTTPException):
                    return 0
            return list(pool.map(one, range(n)))

    def test_exactly_as_many_as_may_also_over_a_kill(self):
        self.begin()
        first = self.burst(60)
        self.assertEqual(first.count(200), 60)
        self.broker.kill()
        self.broker.wait()
        self.again()
        self.v1("bob", "search", {"query": "echo"})
        second = self.burst(128)
        self.assertEqual((second.count(200), second.count(429)), (40, 88))

    def test_killed_in_the_middle(self):
        self.begin()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            running = pool.submit(self.burst, 90)
            eventually(lambda: (self.state / "decisions.jsonl").read_text().count('"allow"') > 20)
            self.broker.kill()
            self.broker.wait()
            done = running.result().count(200)
        self.again()
        self.v1("bob", "search", {"query": "echo"})
        after = self.burst(128).count(200)
        self.assertLessEqual(done + after, 100)
        allowed = sum(d.get("outcome") == "allow" for d in self.decisions())
        self.assertLessEqual(allowed, 100)
        self.assertGreaterEqual(allowed, 100 - 64)  # what was admitted and never logged is at most what was under way


class ManyApprovals(AgentTest):
    agents = {f"bob{i}": {"ask": ["echo:echo"]} for i in range(6)}

    def test_a_long_list_does_not_end_the_link(self):
        self.begin()
        for agent in self.agents:
            for i in range(32):
                self.assertEqual(self.v1(agent, "call", {"name": "echo:echo", "arguments": {"text": "\\" * 3500, "n": i}})[0], 202)
        self.stop(self.host)
        self.socket.unlink()
        version = re.search(r"CHANNEL_VERSION +(\d+)", (pathlib.Path(__file__).resolve().parents[2] / "common/link/channel.h").read_text()).group(1)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:  # a controller that reads slowly
            listener.bind(str(self.socket))
            self.socket.chmod(0o666)
            listener.listen()
            listener.settimeout(20)
            link, _ = listener.accept()
            with link:
                link.settimeout(20)
                for message in (f'{{"kind":"hello","version":{version}}}', '{"kind":"synced"}', '{"kind":"calls","serial":1}'):
                    link.send(message.encode())
                eventually(lambda: "not listed" in self.log())
                kinds = []
                while not kinds or kinds[-1] == "call":
                    kinds.append(json.loads(link.recv(1 << 17) or '{"kind":"end"}')["kind"])
        self.assertEqual(kinds[-1], "done")
        self.assertGreater(kinds.count("call"), 32)


class Approvals(AgentTest):
    agents = {"bob": {"ask": ["echo:echo"]}, "eve": {"ask": ["echo:echo"]}}
    CALL = {"name": "echo:echo", "arguments": {"text": "please", "n": 1}}

    def decide(self, call, approve=True, **more):
        self.tell_host(do="decide", call=call, approve=approve, **more)

    def ask_for(self, agent="bob", **arguments):
        return self.v1(agent, "call", {**self.CALL, "arguments": {**self.CALL["arguments"], **arguments}})

    def pending(self, agent="bob"):
        return {c["id"]: c["state"] for c in self.v1(agent, "pending", {})[1]["pending"]}

    def test_once_and_bound_to_what_was_asked(self):
        self.begin()
        status, answer, _ = self.ask_for()
        self.assertEqual((status, answer["status"], answer["state"]), (202, "approval_required", "waits"))
        call = answer["id"]
        self.assertRegex(call, "^c-[0-9a-f]{16}$")
        self.assertEqual(self.ask_for()[1]["id"], call)  # the same question, also with members in another order
        self.assertEqual(self.v1("bob", "call", {"arguments": {"n": 1, "text": "please"}, "name": "echo__echo"})[1]["id"], call)
        other = self.ask_for("eve")[1]["id"]
        different = self.ask_for(text="other")[1]["id"]
        self.assertEqual(len({call, other, different}), 3)
        self.assertEqual((set(self.pending()), set(self.pending("eve"))), ({call, different}, {other}))
        self.decide(call)
        eventually(lambda: self.pending()[call] == "approved")
        self.assertEqual([self.ask_for("eve")[0], self.ask_for(text="other")[0]], [202, 202])
        status, answer, _ = self.ask_for()
        self.assertEqual((status, answer["result"]["content"][0]["text"]), (200, "please"))
        self.assertEqual([d["approval"] for d in self.decisions() if d.get("outcome") == "allow"], [call])
        self.assertNotEqual(self.ask_for()[1]["id"], call)  # used up

    def test_over_mcp_and_over_a_restart(self):
        self.begin()
        asked = self.rpc("bob", "tools/call", self.CALL, self.session_of("bob"))["result"]
        self.assertTrue(asked["isError"])
        call = asked["structuredContent"]["id"]
        self.broker.kill()
        self.broker.wait()
        self.again()
        self.assertEqual(self.pending(), {call: "waits"})
        self.decide(call, valid_ms=60000)
        eventually(lambda: self.pending()[call] == "approved")
        self.broker.kill()
        self.broker.wait()
        self.again()
        for _ in range(3):  # for a time, as often as is liked
            self.assertNotIn("isError", json.dumps(self.rpc("bob", "tools/call", self.CALL, self.session_of("bob"))).replace('"isError": false', ""))

    def test_once_is_once_also_when_many_try(self):
        self.begin()
        self.decide(self.ask_for()[1]["id"])
        eventually(lambda: "approved" in self.pending().values())
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: self.ask_for()[0], range(32)))
        self.assertEqual((answers.count(200), answers.count(202)), (1, 31))

    def test_rejected_and_over(self):
        self.begin()
        call = self.ask_for()[1]["id"]
        self.decide(call, approve=False)
        eventually(lambda: self.pending()[call] == "rejected")
        self.assertEqual((self.ask_for()[0], self.ask_for()[1]["state"]), (202, "rejected"))
        brief = self.ask_for(text="brief")[1]["id"]
        self.decide(brief, valid_ms=300)
        eventually(lambda: self.pending()[brief] == "approved")
        eventually(lambda: brief not in self.pending())
        self.assertEqual(self.ask_for(text="brief")[0], 202)

    def test_bounded(self):
        self.begin()
        answers = [self.ask_for(n=n)[1] for n in range(40)]
        self.assertEqual([("id" in a) for a in answers], [True] * 32 + [False] * 8)
        self.assertIn("too many", answers[-1]["message"])
        self.assertIn("are more than", self.ask_for("eve", text="x" * 9000)[1]["message"])
        self.assertIn("id", self.ask_for("eve", text="\x7f\u2028 \"\\")[1])
        self.tell_host(do="calls")  # all fit through the link, which is still there
        self.decide(answers[0]["id"])
        eventually(lambda: self.pending()[answers[0]["id"]] == "approved")
        self.assertEqual(self.readiness()["controller"], "connected")


class Policy(AgentTest):
    def test_reload_and_what_is_bad(self):
        self.begin()
        call = lambda: self.v1("bob", "call", {"name": "echo:echo", "arguments": {}})[0]
        self.assertEqual(call(), 200)
        path = self.dir / "policy.json"
        good = path.read_text()
        for bad in ("", good[:50], good.replace("version", "vers"), good.replace("1.0", "9.9")):
            path.write_text(bad)
            eventually(lambda: "the one before goes on" in self.log())
            self.assertEqual(call(), 200)
        path.write_text(good)
        path.chmod(0o666)
        self.broker.send_signal(process.signal.SIGHUP)
        eventually(lambda: "0666" in self.log() or "writable" in self.log() or "others may write" in self.log())
        self.assertEqual(call(), 200)
        path.chmod(0o644)
        self.write_policy(agents={"bob": {}})
        eventually(lambda: call() == 404)

    def test_without_files_nobody_gets_in(self):
        (self.dir / "policy.json").unlink()
        self.begin()
        self.assertEqual(self.v1("bob", "call", {"name": "echo:echo"})[0], 404)
        self.write_policy()
        eventually(lambda: self.v1("bob", "call", {"name": "echo:echo"})[0] == 200)

    def test_what_cannot_be_logged_is_refused(self):
        self.begin()
        self.assertEqual(self.v1("bob", "call", {"name": "echo:echo"})[0], 200)
        # a file that is too long is moved away, and there is no place where to
        self.write_policy(audit_log={"max_file_mb": 1, "max_files": 2})
        eventually(lambda: "the policy was read" in self.log())
        (self.state / "decisions.jsonl.1").mkdir()
        with open(self.state / "decisions.jsonl", "ab") as log:
            log.truncate(1 << 20)
        self.broker.kill()
        self.broker.wait()
        self.again()
        status, answer, _ = self.v1("bob", "call", {"name": "echo:echo"})
        self.assertEqual((status, answer["status"]), (503, "failed"))
        self.assertIn("broker cannot log", self.rpc("bob", "tools/call", {"name": "echo:echo"}, self.session_of("bob"))["error"]["message"])
        (self.state / "decisions.jsonl.1").rmdir()
        self.assertEqual(self.v1("bob", "call", {"name": "echo:echo"})[0], 200)

    def test_no_state_directory_no_door(self):
        self.state.rmdir()
        self.start_host()
        self.start()
        self.assertIn("agents are not served", self.log())
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", self.door), 5)


if __name__ == "__main__":
    unittest.main()
