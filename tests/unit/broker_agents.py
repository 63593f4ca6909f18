#!/usr/bin/env -S python3 -B
"""The door for agents, through the program itself: tokens, the one decision, /mcp and /v1, what survives a kill, what a bad file does.

The controller is tests/rig/link_host, the server the rig's echo server, tokens are the command line's. As root the broker is started as another user."""
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
import threading
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import broker_process as process
from broker_process import BUILD, INITIALIZE, JSON_RPC, NOBODY, eventually

META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
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

    def end_all(self):
        """For a test that begins anew."""
        self.stop(self.broker)
        self.stop(self.host)
        for left in (self.socket, self.dir / "log", *self.state.glob("*.jsonl*"), *self.state.glob("counters/*")):
            left.unlink(missing_ok=True)

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

    def raw(self, method, path, lines=(), body=b""):
        """One request as it is written here, on a connection of its own: status, and the answer's bytes without its date."""
        head = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.door}", *lines, "Connection: close", f"Content-Length: {len(body)}"]
        with socket.create_connection(("127.0.0.1", self.door), 20) as s:
            s.sendall("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body)
            answer = b""
            while more := s.recv(65536):
                answer += more
        return int(answer.split(b" ", 2)[1]), re.sub(rb"\r\nDate: [^\r]*", b"", answer)

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


class Ends(AgentTest):
    """What outlives a request ends with what it was let in by, though nothing is ever said on it."""

    def stream_of(self, agent, session=None, token=None):
        """Answer of an event stream: the session's own, or a modern client's."""
        connection = http.client.HTTPConnection("127.0.0.1", self.door, timeout=10)
        headers = {"Authorization": f"Bearer {token or self.tokens[agent]}", "Accept": JSON_RPC["Accept"]}
        if session:
            connection.request("GET", "/mcp", headers={**headers, **dict(session), "Accept": "text/event-stream"})
        else:
            body = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": {"_meta": META, "notifications": {"toolsListChanged": True}}}
            connection.request("POST", "/mcp", json.dumps(body), {**headers, **JSON_RPC, "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen"})
        answer = connection.getresponse()
        self.assertEqual(answer.status, 200)
        self.addCleanup(connection.close)
        return answer

    def ends(self, stream):
        """Within the connection's time limit, and by the broker's doing."""
        stream.read()

    def goes_on(self, stream):
        stream.fp.raw._sock.settimeout(0.5)  # pylint: disable=protected-access
        try:
            self.assertNotEqual(stream.read1(1), b"", "a stream ended")
        except TimeoutError:
            pass

    def test_removed_and_rotated(self):
        self.begin()
        session, others = self.session_of("bob"), self.session_of("alice")
        mine = [self.stream_of("bob", session), self.stream_of("bob")]
        theirs = [self.stream_of("alice", others), self.stream_of("alice")]
        self.cli("agent", "rotate", "bob")
        for stream in mine:
            self.ends(stream)
        self.tokens["bob"] = self.token_of("bob")
        eventually(lambda: self.send("POST", "/v1/search", {"query": "echo"}, self.tokens["bob"])[0] == 200)  # a new token counts from the next second on
        self.assertEqual(self.send("POST", "/mcp", {"jsonrpc": "2.0", "id": 7, "method": "ping"}, self.tokens["bob"], session)[0], 404)
        mine = [self.stream_of("bob", self.session_of("bob")), self.stream_of("bob")]
        self.cli("agent", "remove", "bob")
        for stream in mine:
            self.ends(stream)
        for stream in theirs:
            self.goes_on(stream)

    def test_named_by_the_policy_no_longer(self):
        self.begin()
        streams = [self.stream_of("bob", self.session_of("bob")), self.stream_of("bob")]
        other = self.stream_of("alice")
        self.agents = {agent: rights for agent, rights in self.agents.items() if agent != "bob"}
        self.write_policy()
        for stream in streams:
            self.ends(stream)
        self.goes_on(other)

    def test_expired(self):
        self.begin()
        session = self.session_of("bob")
        short = self.token_of("bob", "--ttl", "3s")
        old = [self.stream_of("bob", session, short), self.stream_of("bob", token=short)]
        self.rpc("bob", "ping", headers=session)  # the session goes on with a token that counts for longer
        begun = time.monotonic()
        for stream in old:
            self.ends(stream)
        self.assertLess(time.monotonic() - begun, 8)
        self.goes_on(self.stream_of("bob", session))

    def test_a_call_under_way(self):
        self.begin()
        session = self.session_of("alice")
        answers = []
        call = threading.Thread(target=lambda: answers.append(self.rpc("alice", "tools/call", {"name": "echo:sleep", "arguments": {"ms": 15000}}, session)))
        plain = threading.Thread(target=lambda: answers.append(self.v1("alice", "call", {"name": "echo:sleep", "arguments": {"ms": 15000}})))
        begun = time.monotonic()
        call.start()
        plain.start()
        eventually(lambda: [d.get("outcome") for d in self.decisions()].count("allow") == 2)
        self.cli("agent", "remove", "alice")
        call.join(10)
        plain.join(10)
        self.assertLess(time.monotonic() - begun, 10)
        self.assertEqual(len(answers), 2)
        self.assertIn("does not count any more", str(answers))


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


class Odd(AgentTest):
    """Servers that are not understood, and such as say what they cost."""
    agents = {"bob": {"allow": ["any:*"], "preload": ["any:*"]}, "poor": {"allow": ["any:*"]}}
    policy = {"tool_approval_required": [], "rate_limits": [], "budgets": {"period": "month", "max_tokens": 100000}}

    def begin(self, **entry):
        self.more_entries = [{"name": "any", "transport": "stdio", "command": [sys.executable, "-B", str(HERE / "any_server.py"), os.devnull, "asks", "costs", "plain", "strange_one"]}]
        super().begin(**entry)
        eventually(lambda: self.v1("bob", "describe", {"name": "any:plain"})[0] == 200)

    def test_a_tool_whose_schema_is_not_understood_is_not_offered(self):
        self.begin()
        self.assertEqual([t["name"] for t in self.v1("bob", "search", {"query": "any strange plain"})[1]["tools"]], ["any__plain", "any__asks", "any__costs"])
        self.assertEqual(tool_names(self.rpc("bob", "tools/list", headers=self.session_of("bob")))[4:], ["any__asks", "any__costs", "any__plain"])
        self.assertEqual(self.v1("bob", "load", {"names": ["any:strange_one"]})[1], {"loaded": [], "unknown": ["any:strange_one"]})
        described = self.v1("bob", "describe", {"name": "any:strange_one"})[1]
        self.assertEqual(described["access"], "none")
        self.assertIn("$dynamicRef", described["why"])
        self.assertNotIn("why", self.v1("bob", "describe", {"name": "any:plain"})[1])
        status, answer, _ = self.v1("bob", "call", {"name": "any:strange_one"})
        self.assertEqual((status, answer["status"]), (400, "bad_arguments"))
        self.assertIn("$dynamicRef", answer["message"])

    def test_plain_http_says_what_a_tool_would_ask(self):
        self.begin()
        status, answer, _ = self.v1("bob", "call", {"name": "any:asks"})
        self.assertEqual((status, answer["status"], answer["requests"]["q"]["method"]), (409, "input_required", "elicitation/create"))

    def test_tokens_as_servers_report_them(self):
        self.begin()
        def used(calls):
            """Of all calls so far. The end of one is written behind its answer."""
            ends = lambda: [d["tokens"] for d in self.decisions() if d["event"] == "end"]
            return eventually(lambda: len(ends()) == calls and ends())
        call = lambda tokens: self.v1("poor", "call", {"name": "any:costs", "arguments": {"tokens": tokens}})[0]
        self.assertEqual(call(1), 200)
        estimated = used(1)[0]
        self.assertGreater(estimated, 10)  # less than what went over the wire, no server can make of it
        for odd in (-5, 1.5, "7000", 1e300, [9000], {"n": 9000}, None, True):
            self.assertEqual(call(odd), 200)
        self.assertLess(max(used(9)), 2 * estimated + 100)
        self.assertEqual(call(70000), 200)
        self.assertEqual(used(10)[-1], 70000)
        self.assertEqual([call(40000), call(1)], [200, 429])


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
                while not kinds or kinds[-1] in ("state", "call"):
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



class Remembered(AgentTest):
    """What servers offered, over a restart: found and described as stale, until they are asked again."""
    ENTRY = {"lifecycle": "on-demand", "manifest": "a" * 64, "tools": ["echo", "sleep"]}

    def hits(self, query="echo the text back"):
        status, answer, _ = self.v1("bob", "search", {"query": query})
        self.assertEqual(status, 200)
        return {hit["name"]: hit.get("stale", False) for hit in answer["tools"]}

    def learn(self):
        self.begin(**self.ENTRY)
        self.assertEqual(self.hits(), {"echo__echo": False})
        eventually((self.state / "tools.json").exists)

    def restart(self):
        self.broker.kill()
        self.broker.wait()
        self.again()

    def test_over_a_restart(self):
        self.learn()
        kept = self.state / "tools.json"
        self.assertEqual(kept.stat().st_mode & 0o777, 0o600)
        self.assertEqual(sorted(t["name"] for t in json.loads(kept.read_text())["servers"][0]["tools"]), ["echo", "sleep"], "only what was approved")
        self.restart()
        ups = len(self.heard("up"))
        self.assertEqual(self.hits(), {"echo__echo": True})
        described = self.v1("bob", "describe", {"name": "echo:echo"})[1]
        self.assertEqual((described["stale"], described["tool"]["name"]), (True, "echo__echo"))
        listed = self.rpc("alice", "tools/list", headers=self.session_of("alice"))["result"]["tools"]
        self.assertEqual({t["name"]: t.get("_meta") for t in listed if t["name"] not in HARNESS}, {n: {"io.bulkhead/stale": True} for n in ("echo__echo", "echo__sleep")})
        self.assertEqual(len(self.heard("up")), ups, "nothing was started for that")
        # The call starts it, and it says for itself what it offers.
        self.assertEqual(self.v1("bob", "call", {"name": "echo:echo", "arguments": {"text": "x"}})[0], 200)
        eventually(lambda: self.hits() == {"echo__echo": False})
        self.tell_host(do="down", name="echo", why="it went away")
        eventually(lambda: self.hits() == {"echo__echo": True})
        status, answer, _ = self.v1("bob", "call", {"name": "echo:echo", "arguments": {"text": "x"}})
        self.assertNotEqual(status, 200)
        self.assertIn("it went away", json.dumps(answer))
        self.tell_host(do="remove", name="echo")
        eventually(lambda: self.hits() == {})
        eventually(lambda: json.loads(kept.read_text())["servers"] == [])

    def test_what_does_not_count(self):
        self.learn()
        good = json.loads((self.state / "tools.json").read_text())
        for change in (lambda s: s.update(manifest="b" * 64), lambda s: s.update(server="other"), lambda s: s["tools"][0].update(name="env"), lambda s: s.update(tools={})):
            bad = json.loads(json.dumps(good))
            change(bad["servers"][0])
            bad["servers"][0]["tools"] = bad["servers"][0]["tools"][:1]  if isinstance(bad["servers"][0]["tools"], list) else {}
            self.remember(json.dumps(bad))
            self.assertNotIn(True, self.hits().values(), bad["servers"][0]["manifest"])
        for text in ("", "{", "[]", '{"version":2,"servers":[]}', json.dumps(good)[:-3], '{"version":1,"servers":[1]}', "[" * 100000,
                     '{"version":1,"servers":[],"servers":[]}', " " * (9 << 20), json.dumps({"version": 1, "servers": good["servers"] * 2})):
            self.remember(text)
            self.assertIn("what servers offered before is not known", self.log(), text[:40])
            self.assertNotIn(True, self.hits().values())
        self.remember(json.dumps(good))
        self.assertEqual(self.hits(), {"echo__echo": True}, "and beside all that a good one does")

    def remember(self, text):
        """A broker that finds this when it starts, and its server asleep."""
        self.broker.kill()
        self.broker.wait()
        kept = self.state / "tools.json"
        kept.write_text(text)
        if os.geteuid() == 0:
            os.chown(kept, NOBODY, NOBODY)
        self.again()


if __name__ == "__main__":
    unittest.main()
