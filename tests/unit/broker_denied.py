#!/usr/bin/env -S python3 -B
"""The door for agents: what an agent may not use does not exist for it. Every route, method, meta-tool, header, way of writing and era answers for it what it
answers for a name that nobody has; and for an agent that may use nothing, a broker with servers is one without any."""
import base64
import bisect
import contextlib
import http.client
import json
import pathlib
import random
import re
import socket
import statistics
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import broker_agents as agents
from broker_process import BUILD, INITIALIZE, JSON_RPC, eventually

LEGACY, MODERN = "2025-11-25", "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}, "sampling": {}, "roots": {}},
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"}}
JSON_LINES = tuple(f"{k}: {v}" for k, v in JSON_RPC.items())
HARNESS = ("harness_search_tools", "harness_describe_tool", "harness_call_tool", "harness_load_tools")
# What there is and bob may not use, each beside a name of the same shape that nobody has.
TOOLS = (("echo", "echo", "ecko"), ("full", "test_error_handling", "test_errar_handling"))
PROMPTS = (("full__test_simple_prompt", "full__test_simple_prampt"),)
URIS = (("test://watched-resource", "test://wotched-resource"), ("test://template/7/data", "tost://template/7/data"))


def full_server(*options):
    return {"name": "full", "transport": "stdio", "command": [str(BUILD / "tests/rig/servers/mcp_conformance"), *options]}


def full_width(text):
    return "".join(chr(ord(c) + 0xfee0) if "!" <= c <= "~" else c for c in text)


def written(text):
    """Ways to write a text so that somebody might read it as another one."""
    yield from (text, text.upper(), text.title(), f" {text}", f"{text} ", f"{text}\t", f"{text}\n", f"{text}\0", f"{text}\0x", f"\ufeff{text}", f"{text}\u200b", f"{text}\u0301")
    yield full_width(text)
    yield "".join(f"%{ord(c):02x}" for c in text)
    yield "".join(f"%25{ord(c):02X}" for c in text)
    yield from (f"./{text}", f"x/../{text}", f"{text}/", f"{text}*", f"*{text}", f"{text[0]}\\u0000{text[1:]}", f"{text}:", f":{text}", f"{text}#", f"{text}?")


def escaped(text):
    """A JSON string of the same text, in escapes alone."""
    return '"' + "".join(f"\\u{ord(c):04x}" for c in text) + '"'


class Twins(agents.AgentTest):
    """Requests in pairs that differ in what is named alone: there, and nowhere else, their answers may differ."""
    agents = {"bob": {"allow": ["echo:*", "full:*"], "deny": ["echo:echo", "full:test_error_handling"], "prompts": ["full:*_image"], "resources": ["full:test://static*"]},
              "nobody": {}, "alice": agents.ALLOW_ALL}
    more_entries = (full_server("--page", "3"),)

    def begin(self, **entry):
        super().begin(**entry)
        eventually(lambda: self.v1("alice", "describe", {"name": "full:wait"})[0] == 200)
        # Of a denied resource it must not count either whether anybody has read it.
        self.rpc("alice", "resources/list", headers=self.session_of("alice"))

    def lines(self, agent, *more):
        return (*JSON_LINES, f"Authorization: Bearer {self.tokens[agent]}", *more)

    def same(self, agent, real, twin, method="POST", path="/mcp", body=b"", lines=()):
        """body, path and lines: functions of a name, or what is sent whatever the name is."""
        requests = []
        for name in (real, twin):
            text = body(name) if callable(body) else body
            requests.append((method, path(name) if callable(path) else path, tuple(lines(name)) if callable(lines) else tuple(lines), text.encode() if isinstance(text, str) else text))
        answers = [self.raw(*r[:2], self.lines(agent, *r[2]), r[3]) for r in requests]
        answers = [(status, re.sub(rb"Mcp-Session-Id: [0-9a-f]{32}", b"Mcp-Session-Id: fresh", answer)) for status, answer in answers]
        may = {(a, b) for one, other in zip(*(f"{r[1]}{r[2]}".encode() + r[3] for r in requests)) for a, b in [(one, other)] if a != b}
        for way in (str, str.upper, full_width):  # what was sent in escapes comes back as itself
            may |= {pair for pair in zip(way(real).encode(), way(twin).encode()) if pair[0] != pair[1]}
        (status, one), (status_of_twin, other) = answers
        self.assertEqual(status, status_of_twin, (requests[0], answers))
        self.assertEqual(len(one), len(other), (requests[0], answers))
        self.assertLessEqual({(a, b) for a, b in zip(one, other) if a != b}, may, (requests[0], answers))
        self.assertNotIn(b"hello-from-the-tool", one)
        self.seen += 1
        return status, one

    seen = 0

    # -- calls, however they are written ---------------------------------------------------------------------------------
    def eras(self, agent):
        """(headers, what to add to params) of each way to speak MCP."""
        yield self.session_lines(agent), {}
        yield (f"MCP-Protocol-Version: {MODERN}",), {"_meta": META}

    def session_lines(self, agent):
        return tuple(f"{k}: {v}" for k, v in self.session_of(agent))

    def rpc_body(self, method, params, more):
        return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, **more}})

    def named_headers(self, more, method, name):
        return (f"Mcp-Method: {method}", f"Mcp-Name: {name}") if more else ()

    def calls(self, agent, lines, more, server, real, twin):
        def same(params_of, method="tools/call", name_of=None):
            self.same(agent, real, twin, body=lambda n: self.rpc_body(method, params_of(n), more),
                      lines=lambda n: (*lines, *self.named_headers(more, method, encode((name_of or (lambda x: params_of(x)["name"]))(n)))))

        def encode(name):
            return name if name.isascii() and name.isprintable() and name == name.strip() else f"=?base64?{base64.b64encode(name.encode()).decode()}?="
        arguments = {"text": "hello-from-the-tool"}
        for form in ("{0}__{1}", "{0}:{1}", "{1}", "{0}/{1}", "{0}.{1}", "harness_call_tool:{0}:{1}", "{0}__{0}__{1}", "{0}::{1}", ":{1}", "__{1}"):
            for full in (lambda n, w=w, form=form: list(written(form.format(server, n)))[w] for w in range(len(list(written("xx"))))):
                same(lambda n: {"name": full(n), "arguments": arguments})
                same(lambda n: {"name": "harness_call_tool", "arguments": {"name": full(n), "arguments": arguments}})
                same(lambda n: {"name": "harness_describe_tool", "arguments": {"name": full(n)}})
                same(lambda n: {"name": "harness_load_tools", "arguments": {"names": [full(n), full(n)]}})
        full = lambda n: f"{server}__{n}"
        for odd in (lambda n: [full(n)], lambda n: {"name": full(n)}, lambda n: {full(n): 1}):
            same(lambda n: {"name": "harness_call_tool", "arguments": {"name": odd(n)}})
            same(lambda n: {"name": "harness_describe_tool", "arguments": {"name": odd(n)}})
        same(lambda n: {"name": "harness_call_tool", "arguments": {"name": "harness_call_tool", "arguments": {"name": full(n), "arguments": arguments}}})
        same(lambda n: {"name": "harness_call_tool", "arguments": arguments, full(n): True})
        for key in ("task", "inputResponses", "requestState", "uri", "ref", "cursor", "_name"):
            same(lambda n, key=key: {"name": full(n), "arguments": arguments, key: {"name": full(n)}})

    def raw_bodies(self, agent, lines, more, server, real, twin):
        """What no JSON library writes."""
        meta = json.dumps(META)
        tail = f',"_meta":{meta}' if more else ""
        for head, params in (('"tools/call"', '"name":{0},"arguments":{{"text":"hello-from-the-tool"}}'), ('"tools/call"', '"name":"harness_call_tool","name":{0}'),
                             ('"tools/call"', '"name":{0},"name":"harness_call_tool"'), ('"tools\\u002fcall"', '"name":{0}'), ('"tools/call"', '"\\u006eame":{0}'),
                             ('"tools/call"', '"name":"harness_call_tool","arguments":{{"name":{0}}}'), ('"tools/call"', '"name":"harness_call_tool","arguments":{{"name":"x","name":{0}}}')):
            for name in (escaped, json.dumps):
                self.same(agent, real, twin, lines=lambda n: (*lines, *self.named_headers(more, "tools/call", f"{server}__{n}")),
                          body=lambda n: f'{{"jsonrpc":"2.0","id":1,"method":{head},"params":{{{params.format(name(f"{server}__{n}"))}{tail}}}}}')
        one = lambda n: self.rpc_body("tools/call", {"name": f"{server}__{n}", "arguments": {}}, more)
        for body in (lambda n: f"[{one(n)}]", lambda n: f"{one(n)}{one(n)}", lambda n: one(n)[:-1], lambda n: f"\ufeff{one(n)}", lambda n: one(n).replace('"id": 1', '"id": null'),
                     lambda n: one(n).replace('"id": 1, ', ""), lambda n: json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"name": f"{server}__{n}"}})):
            self.same(agent, real, twin, body=body, lines=lines)

    def plain(self, agent, server, real, twin):
        for form in ("{0}__{1}", "{0}:{1}", "{1}", "harness_call_tool"):
            for w in range(len(list(written("xx")))):
                full = lambda n: list(written(form.format(server, n)))[w]
                for verb, body in (("call", lambda n: {"name": full(n), "arguments": {"text": "hello-from-the-tool", "name": full(n)}}), ("describe", lambda n: {"name": full(n)}),
                                   ("load", lambda n: {"names": [full(n)]})):
                    self.same(agent, real, twin, path=f"/v1/{verb}", body=lambda n: json.dumps(body(n)))
        for verb in ("call", "describe", "load", "search", "pending"):
            name = f"{server}__{real}", f"{server}__{twin}"
            self.same(agent, *name, path=f"/v1/{verb}", body=lambda n: f'{{"name":{escaped(n)},"names":[{escaped(n)}]}}')
            self.same(agent, *name, path=lambda n: f"/v1/{verb}?name={n}", body=b"{}")
            self.same(agent, *name, path=lambda n: f"/v1/{verb}/{n}", body=b"{}")

    def test_calls(self):
        self.begin()
        for agent in ("bob", "nobody"):
            for server, real, twin in TOOLS:
                self.plain(agent, server, real, twin)
                for lines, more in self.eras(agent):
                    self.calls(agent, lines, more, server, real, twin)
                    self.raw_bodies(agent, lines, more, server, real, twin)
        self.assertGreater(self.seen, 4000)
        self.assertEqual({d["outcome"] for d in self.decisions() if d["event"] == "decision"}, {"does-not-exist"})
        # The same requests of one who may: they are not all nonsense.
        for lines, more in self.eras("alice"):
            for params in ({"name": "echo__echo", "arguments": {"text": "hello-from-the-tool"}}, {"name": "harness_call_tool", "arguments": {"name": "echo:echo", "arguments": {"text": "hello-from-the-tool"}}}):
                _, answer = self.raw("POST", "/mcp", self.lines("alice", *lines, *self.named_headers(more, "tools/call", params["name"])), self.rpc_body("tools/call", params, more).encode())
                self.assertIn(b"hello-from-the-tool", answer)

    # -- prompts, resources, completion ----------------------------------------------------------------------------------
    def test_prompts_and_resources(self):
        self.begin()
        for agent in ("bob", "nobody"):
            for lines, more in self.eras(agent):
                def same(real, twin, method, params_of, agent=agent, lines=lines, more=more):
                    named = lambda n: params_of(n).get("name") or params_of(n).get("uri") or ""
                    self.same(agent, real, twin, body=lambda n: self.rpc_body(method, params_of(n), more), lines=lambda n: (*lines, *self.named_headers(more, method, named(n))))
                for real, twin in PROMPTS:
                    same(real, twin, "prompts/get", lambda n: {"name": n})
                    same(real, twin, "completion/complete", lambda n: {"ref": {"type": "ref/prompt", "name": n}, "argument": {"name": "arg1", "value": "p"}})
                    same(real.replace("full__", ""), twin.replace("full__", ""), "prompts/get", lambda n: {"name": n})
                for real, twin in URIS:
                    for method in ("resources/read", "resources/subscribe", "resources/unsubscribe"):
                        for uri in (lambda n: n, lambda n: n + "#x", lambda n: n + "?x", lambda n: n.replace("/", "%2f"), lambda n: n.title(), lambda n: f"full__{n}"):
                            same(real, twin, method, lambda n: {"uri": uri(n)})
                    same(real, twin, "completion/complete", lambda n: {"ref": {"type": "ref/resource", "uri": n}, "argument": {"name": "id", "value": "p"}})
        self.assertGreater(self.seen, 150)
        self.assertEqual({d["outcome"] for d in self.decisions() if d["event"] == "decision"}, {"does-not-exist"})
        # Bob may read these, and an agent that may gets the others: the requests are good ones.
        read = lambda agent, uri: self.rpc(agent, "resources/read", {"uri": uri}, self.session_of(agent))
        self.assertIn("static text", json.dumps(read("bob", "test://static-text")))
        self.assertIn("Watch me", json.dumps(read("alice", "test://watched-resource")))

    # -- routes, methods, headers ------------------------------------------------------------------------------------------
    def test_routes_and_methods(self):
        self.begin()
        paths = (lambda n: f"/servers/{n}/mcp", lambda n: f"/servers/{n}", lambda n: f"/mcp/{n}", lambda n: f"/mcp?server={n}", lambda n: f"/mcp?name={n}__{n}", lambda n: f"/{n}/mcp",
                 lambda n: f"/v1/call/{n}", lambda n: f"/v1/{n}", lambda n: f"/.well-known/oauth-protected-resource/servers/{n}/mcp", lambda n: f"/mcp/../servers/{n}/mcp",
                 lambda n: f"/%73ervers/{n}/mcp", lambda n: f"//servers/{n}/mcp", lambda n: f"/servers/{n}/mcp/", lambda n: f"/SERVERS/{n}/MCP", lambda n: f"/servers/{n}%00/mcp",
                 lambda n: f"http://127.0.0.1:{self.door}/servers/{n}/mcp", lambda n: f"http://127.0.0.1:{self.port}/servers/{n}/mcp", lambda n: f"/mcp;{n}")
        for agent in ("bob", "nobody"):
            for real, twin in (("echo", "ecko"), ("full", "fuul")):
                for path in paths:
                    for method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH", "TRACE", "PROPFIND", "post"):
                        self.same(agent, real, twin, method=method, path=path, body=json.dumps(INITIALIZE))
        self.assertGreater(self.seen, 700)
        for path in ("/metrics", "/servers", "/servers/echo/mcp", "/mcp/", "/readyz/", "/v1", "/tools", "/admin", "/"):
            self.assertEqual(self.raw("GET", path, self.lines("alice"))[0], 404, path)  # not even for one who may use everything

    def test_headers(self):
        self.begin()
        def headers(n):
            full, encoded = f"echo__{n}", base64.b64encode(f"echo__{n}".encode()).decode()
            yield from ((f"X-HTTP-Method-Override: {n}",), (f"X-Original-URL: /servers/{n}/mcp",), (f"X-Rewrite-URL: /servers/{n}/mcp",), (f"X-Forwarded-Prefix: /servers/{n}",),
                        (f"Forwarded: for=127.0.0.1;host={n}",), (f"X-Forwarded-For: {n}",), (f"Mcp-Name: {full}",), (f"Mcp-Name: =?base64?{encoded}?=",), (f"Mcp-Param-Name: {full}",),
                        (f"Mcp-Session-Id: {n}",), (f"Mcp-Method: tools/{n}",), (f"Last-Event-ID: {n}",), (f"Referer: http://127.0.0.1/servers/{n}/mcp",), (f"Upgrade: {n}",),
                        (f"Mcp-Name: {full}", "Mcp-Method: tools/call"), (f"Mcp-Name: harness_search_tools, {full}",), (f"Mcp-Name: harness_search_tools\t{full}",))
        for agent in ("bob", "nobody"):
            for lines, more in self.eras(agent):
                for h in range(len(list(headers("echo")))):
                    for params in (lambda n: {"name": f"echo__{n}"}, lambda n: {"name": "harness_call_tool", "arguments": {"name": f"echo__{n}"}},
                                   lambda n: {"name": "harness_describe_tool", "arguments": {"name": "echo__none"}}):
                        self.same(agent, "echo", "ecko", body=lambda n: self.rpc_body("tools/call", params(n), more), lines=lambda n: (*lines, *list(headers(n))[h]))
        self.assertGreater(self.seen, 200)
        self.assertFalse([d for d in self.decisions() if d.get("outcome") == "allow"])

    # -- a broker with servers is one without any ----------------------------------------------------------------------------
    def everything(self, agent):
        """What can be asked without a name: {request: answer}."""
        found = {}
        words = ("echo", "text", "test", "error", "a", "server", "tool", "wait", "e", "*", "%", "'", "json", "full", "read")
        for number, (lines, more) in enumerate(self.eras(agent)):
            def ask(method, params, lines=lines, more=more, number=number, name=None):
                body = self.rpc_body(method, params, more).encode()
                found[number, method, json.dumps(params)] = self.raw("POST", "/mcp", self.lines(agent, *lines, *self.named_headers(more, method, name or "")), body)
            for method in ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "server/discover", "ping", "logging/setLevel", "roots/list", "tasks/list", "nothing"):
                for params in ({}, {"cursor": "x"}, {"level": "debug"}):
                    ask(method, params)
            for word in words:
                ask("tools/call", {"name": "harness_search_tools", "arguments": {"query": word, "limit": 25}}, name="harness_search_tools")
                ask("tools/call", {"name": "harness_describe_tool", "arguments": {"name": word}}, name="harness_describe_tool")
        for word in words:
            for verb, body in (("search", {"query": word}), ("pending", {}), ("describe", {"name": word})):
                found[verb, word] = self.raw("POST", f"/v1/{verb}", self.lines(agent), json.dumps(body).encode())
        for path in ("/healthz", "/readyz", "/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp", "/metrics"):
            found[path] = self.raw("GET", path, self.lines(agent))
        found["initialize"] = [(k, v) for k, v in json.loads(self.raw("POST", "/mcp", self.lines(agent), json.dumps(INITIALIZE).encode())[1].split(b"\r\n\r\n", 1)[1]).items()]
        return found

    def test_who_may_nothing_sees_an_empty_broker(self):
        self.begin()
        full = self.everything("nobody")
        self.assertIn("echo__echo", json.dumps(self.v1("alice", "search", {"query": "echo"})[1]))
        for name in ("echo", "full"):
            self.tell_host(do="remove", name=name)
        eventually(lambda: "bulkhead_servers 0" in self.ask("GET", "/metrics")[1])
        empty = self.everything("nobody")
        self.assertGreater(len(full), 150)
        for request, answer in full.items():
            self.assertEqual(answer, empty[request], request)

    # -- what others have: sessions, cursors, states, questions, progress ------------------------------------------------------
    def ask_modern(self, agent, method, params, name=""):
        body = self.rpc_body(method, params, {"_meta": META}).encode()
        status, answer = self.raw("POST", "/mcp", self.lines(agent, f"MCP-Protocol-Version: {MODERN}", *self.named_headers(True, method, name)), body)
        return status, agents.last_message(answer.split(b"\r\n\r\n", 1)[1].decode())

    def test_cursors_and_states_of_another_agent(self):
        self.begin()
        cursor = self.ask_modern("alice", "resources/list", {})[1]["result"]["nextCursor"]
        bad = self.ask_modern("bob", "resources/list", {"cursor": "A" * len(cursor)})
        for agent in ("bob", "nobody"):
            self.assertEqual(self.ask_modern(agent, "resources/list", {"cursor": cursor}), bad)
        self.assertIn("resources", self.ask_modern("alice", "resources/list", {"cursor": cursor})[1]["result"])
        tool = {"name": "full__test_input_required_result_request_state"}
        asked = self.ask_modern("alice", "tools/call", tool, tool["name"])[1]["result"]
        self.assertEqual(asked["resultType"], "input_required")
        reply = {**tool, "requestState": asked["requestState"], "inputResponses": {key: {"action": "accept", "content": {"name": "Mallory"}} for key in asked["inputRequests"]}}
        answers = [self.ask_modern(agent, "tools/call", {**reply, **change}, tool["name"]) for agent in ("bob", "nobody") for change in ({}, {"requestState": "A" * len(reply["requestState"])})]
        self.assertEqual(answers, answers[:1] * 4)  # as a state that nobody ever had, whether they may use the tool or not
        self.assertEqual(answers[0][1]["error"]["code"], -32602)
        other = {"name": "full__test_input_required_result_tampered_state"}
        self.assertEqual(self.ask_modern("alice", "tools/call", {**reply, **other}, other["name"]), answers[0])  # nor is it good for another call of hers
        reply["inputResponses"] = {key: {"action": "accept", "content": {"name": "Alice"}} for key in asked["inputRequests"]}
        self.assertIn("Alice", json.dumps(self.ask_modern("alice", "tools/call", reply, tool["name"])[1]))  # and it was not used up by others

    def test_questions_go_through_the_policy_too(self):
        """A server's question reaches no agent that may not be asked it, in neither era of the server's or the client's."""
        self.begin()
        for tool, kind in (("elicitation", "elicitation"), ("sampling", "sampling"), ("list_roots", "roots"), ("multiple_inputs", "all")):
            name = f"full__test_input_required_result_{tool}"
            self.assertEqual(self.ask_modern("alice", "tools/call", {"name": name}, name)[1]["result"]["resultType"], "input_required", kind)
            refused = self.ask_modern("bob", "tools/call", {"name": name}, name)[1]
            self.assertIn("error", refused, kind)
            self.assertNotIn("inputRequests", json.dumps(refused))

    def stream(self, agent, body, *lines):
        """An answer that is read line by line while it comes."""
        s = socket.create_connection(("127.0.0.1", self.door), 20)
        self.addCleanup(s.close)
        data = json.dumps(body).encode() if body is not None else b""
        head = [f"{'POST' if body is not None else 'GET'} /mcp HTTP/1.1", f"Host: 127.0.0.1:{self.door}", *self.lines(agent, *lines), f"Content-Length: {len(data)}"]
        s.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + data)
        return s.makefile("rb")

    def next_message(self, stream):
        until = time.monotonic() + 20
        for line in stream:
            if line.startswith(b"data:") and line[5:].strip():
                return json.loads(line[5:])
            self.assertLess(time.monotonic(), until, "the stream says nothing")  # but comments
        return self.fail("the stream ended")

    def test_questions_progress_and_cancellation_of_another_agent(self):
        self.begin()
        opened = {**INITIALIZE, "params": {**INITIALIZE["params"], "capabilities": {"elicitation": {}, "sampling": {}}}}
        _, answer = self.raw("POST", "/mcp", self.lines("alice"), json.dumps(opened).encode())
        session = next(line for line in answer.decode().split("\r\n") if line.lower().startswith("mcp-session-id")), f"MCP-Protocol-Version: {LEGACY}"
        call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "full__test_input_required_result_elicitation", "_meta": {"progressToken": 7}}}
        waiting = self.stream("alice", call, *session)
        question = self.next_message(waiting)
        self.assertEqual(question["method"], "elicitation/create")
        forged = lambda asked, call, content="Mallory": [
            {"jsonrpc": "2.0", "id": asked, "result": {"action": "accept", "content": {"name": content}}}, {"jsonrpc": "2.0", "id": asked, "error": {"code": 1, "message": "x"}},
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": call}}, {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": asked}},
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": call, "progress": 1}}]
        for agent in ("bob", "nobody"):
            own = self.session_lines(agent)
            for message, other in zip(forged(question["id"], 7), forged("nobody-asked", 70)):
                self.assertEqual(*(self.raw("POST", "/mcp", self.lines(agent, *own), json.dumps(m).encode()) for m in (message, other)))
                self.assertEqual(self.raw("POST", "/mcp", self.lines(agent, *session), json.dumps(message).encode())[0], 404)  # alice's session is none of theirs
        self.assertEqual(self.raw("POST", "/mcp", self.lines("alice", *session), json.dumps(forged(question["id"], 7, "Alice")[0]).encode())[0], 202)
        while (message := self.next_message(waiting)).get("id") != 7:
            pass
        self.assertIn("Hello, Alice", json.dumps(message))

    def test_nothing_is_heard_of_what_is_denied(self):
        """Changes, log lines and updates of a server reach those alone who may see what they are about."""
        self.begin()
        heard = {}
        listen = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True, "resourceSubscriptions": ["test://watched-resource", "test://wotched-resource"]}
        body = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": {"notifications": listen, "_meta": META}}
        for agent in ("alice", "nobody"):
            lines = (f"MCP-Protocol-Version: {MODERN}", "Mcp-Method: subscriptions/listen")
            heard[agent] = self.stream(agent, body, *lines)
            acknowledged = self.next_message(heard[agent])
            self.assertEqual("test://watched-resource" in json.dumps(acknowledged), agent == "alice")
            self.assertNotIn("wotched", json.dumps(acknowledged))
        own = self.session_lines("nobody")
        heard["legacy"] = self.stream("nobody", None, *own)
        for name, arguments in (("touch", {"uri": "test://watched-resource"}), ("test_trigger_prompt_change", {}), ("test_trigger_tool_change", {}), ("test_tool_with_logging", {})):
            self.assertEqual(self.v1("alice", "call", {"name": f"full:{name}", "arguments": arguments})[0], 200)
        methods = set()
        while not methods >= {"notifications/resources/updated", "notifications/prompts/list_changed"}:
            # What is touched before the server was told of the subscription, nobody hears of.
            self.assertEqual(self.v1("alice", "call", {"name": "full:touch", "arguments": {"uri": "test://watched-resource"}})[0], 200)
            methods.add(self.next_message(heard["alice"])["method"])
        # Nobody's streams have had the time that alice's took, and more: then they are asked to say something of their own.
        time.sleep(0.3)
        self.broker.terminate()
        self.broker.wait(10)
        left = {}
        for stream in ("nobody", "legacy"):
            with contextlib.suppress(OSError):
                left[stream] = b"".join(line for line in heard[stream] if line.startswith(b"data:") and line[5:].strip())
            self.assertNotIn(b"notifications/", left[stream].replace(b"notifications/subscriptions", b""), stream)


def separation(one, other):
    """The chance that a sample of `other` is larger than one of `one`, ties by half (Mann and Whitney's U over its maximum): 0.5 when they are alike."""
    ordered = sorted(one)
    return statistics.fmean((bisect.bisect_left(ordered, x) + bisect.bisect_right(ordered, x)) / 2 for x in other) / len(one)


class Timing(agents.AgentTest):
    agents = {"bob": {"allow": ["echo:*"], "deny": ["echo:echo"]}, "alice": {}}
    ROUNDS, SAMPLES = 5, 200  # of each
    ALIKE = 0.08              # from 0.5. Of 1,000 samples that are alike, the standard error is 0.013

    def told_apart(self, rounds):
        """Every round says the same, and all of them together clearly."""
        each = [separation(one, other) - 0.5 for one, other in rounds]
        return abs(statistics.fmean(each)) > self.ALIKE and (all(e > 0 for e in each) or all(e < 0 for e in each))

    def measure(self, once):
        rounds = []
        for _ in range(self.ROUNDS):
            times = ([], [])
            for _ in range(self.SAMPLES):
                for which in random.sample((0, 1), 2):
                    times[which].append(once(which))
            rounds.append(times)
        return rounds

    def ways(self):
        """(name, path, headers, the bodies for what is denied and for what does not exist)"""
        session = dict(self.session_of("bob"))
        call = lambda params: json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        yield "tools/call", "/mcp", session, [call({"name": f"echo__{n}", "arguments": {"text": "x"}}) for n in ("echo", "ecko")]
        yield "describe", "/v1/describe", {}, [json.dumps({"name": f"echo__{n}"}) for n in ("echo", "ecko")]
        yield "/v1/call", "/v1/call", {}, [json.dumps({"name": f"echo:{n}", "arguments": {"text": "x"}}) for n in ("echo", "ecko")]

    def test_time_tells_nothing(self):
        """1,000 calls each of a tool that is denied and of one that does not exist, in turns. A machine that is too busy to see a difference of 20 us is asked again."""
        self.begin()
        connection = http.client.HTTPConnection("127.0.0.1", self.door, timeout=20)
        self.addCleanup(connection.close)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name, path, headers, bodies in self.ways():
            headers = {**JSON_RPC, **headers, "Authorization": f"Bearer {self.tokens['bob']}"}

            def once(which):
                begun = time.perf_counter()
                connection.request("POST", path, bodies[which], headers)
                connection.getresponse().read()
                return time.perf_counter() - begun
            with self.subTest(name):
                for _ in range(4):
                    rounds = self.measure(once)
                    later = [(one, [t + 20e-6 for t in other]) for one, other in rounds]
                    sooner = [([t + 20e-6 for t in one], other) for one, other in rounds]
                    apart, sharp = self.told_apart(rounds), self.told_apart(later) and self.told_apart(sooner)
                    if sharp and not apart:
                        break
                self.assertFalse(apart, [separation(*r) for r in rounds])
                if not sharp:
                    self.skipTest(f"{name}: this machine is too busy to see 20 us over HTTP: {[round(separation(*r), 3) for r in later]}")


class Denied(agents.AgentTest):
    agents = {"nobody": {}, "bob": {"allow": ["echo:*"]}}

    def test_long_names_do_not_push_the_log_out(self):
        self.begin()
        session = self.session_of("nobody")
        for name in ("x" * 1000000, "\u00e9" * 500000):
            self.assertIn("error", self.rpc("nobody", "tools/call", {"name": name}, session))
            self.assertEqual(self.v1("nobody", "call", {"name": name})[0], 404)
        self.assertEqual([d["name_bytes"] for d in self.decisions()], [1000000] * 4)
        self.assertLess((self.state / "decisions.jsonl").stat().st_size, 8192)

    def test_a_loop_of_denied_calls_does_not_push_the_log_out(self):
        self.begin()
        self.assertEqual(self.v1("bob", "call", {"name": "echo:echo"})[0], 200)
        for n in range(600):
            self.assertEqual(self.v1("nobody", "call", {"name": "echo:echo" if n % 2 else f"echo:t{n}"})[0], 404)
        self.assertEqual(self.v1("bob", "call", {"name": "echo:echo"})[0], 200)
        self.broker.terminate()
        self.broker.wait(10)
        lines = self.decisions()
        self.assertEqual(len([d for d in lines if d.get("outcome") == "allow"]), 2)
        denied = [d for d in lines if d["agent"] == "nobody"]
        self.assertLess(len(denied), 20)
        self.assertEqual(sum(d.get("times", 1) for d in denied), 600, denied)
        same = [d for d in denied if d["event"] == "repeated" and d.get("name") == "echo"]
        self.assertEqual([(d["times"], d["outcome"], d["server"]) for d in same], [(299, "does-not-exist", "echo")])
        self.assertNotIn("name", next(d for d in denied if d["event"] == "repeated" and d not in same))  # of all that had another name


if __name__ == "__main__":
    unittest.main()
