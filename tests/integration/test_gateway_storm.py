"""Random clients of random servers: each leaves when it likes, in the middle of what it likes. Nobody gets what is another's, the broker lives, and nothing is left of them.

STORM_SEED repeats a run, as far as time allows; STORM_SECONDS makes it longer (build the broker with the sanitizers then)."""
import contextlib
import json
import os
import random
import re
import socket
import struct
import threading
import time
import unittest

from brokered import BOTH, LEGACY, META, MODERN, Gateway, fixture, http_server, stdio
from rig import eventually

SEED = int(os.environ.get("STORM_SEED", time.time_ns() % 1000000))
SECONDS = float(os.environ.get("STORM_SECONDS", 8))
HOSTILE = ("two-answers", "answer-later", "close-kept", "half-chunk", "reset", "get-again")
CONF = {"call_timeout": "2s", "start_timeout": "3s", "max_message": "1m"}
READS = [("tools/call", {"name": "fill", "arguments": {"bytes": 400000}}), ("resources/read", {"uri": "test://nobody"}), ("tools/list", {}), ("prompts/get", {"name": "none"})]


class Caller(threading.Thread):
    def __init__(self, gateway, number, paths, until):
        super().__init__()
        self.gateway, self.until, self.paths = gateway, until, paths
        self.random, self.number = random.Random(SEED * 100 + number), number
        self.sessions, self.failures, self.right, self.n = [], [], 0, 0

    # -- requests -------------------------------------------------------------------------------------------------------
    def text(self, path, message, headers, chunked=False):
        body = json.dumps(message).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {self.gateway.address}\r\nContent-Type: application/json\r\nAccept: {BOTH}\r\n{headers}"
        if chunked:
            return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"".join(b"1;x\r\n%c\r\n" % c for c in body) + b"0\r\nX: y\r\n\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def modern(self, path, method, params, chunked=False):
        name = params.get("name") or params.get("uri")
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": {**META, "progressToken": 1}}}
        return self.text(path, message, f"MCP-Protocol-Version: {MODERN}\r\nMcp-Method: {method}\r\n" + (f"Mcp-Name: {name}\r\n" if name else ""), chunked)

    def legacy(self, path, session, message):
        return self.text(path, {"jsonrpc": "2.0", **message}, f"Mcp-Session-Id: {session}\r\nMCP-Protocol-Version: {LEGACY}\r\n" if session else "")

    def echo(self):
        self.n += 1
        text = f"{self.number}-{self.n}"
        return text.encode(), self.modern("/servers/good/mcp", "tools/call", {"name": "echo", "arguments": {"text": text}}, self.random.random() < 0.3)

    def any(self):
        path = self.random.choice(self.paths)
        method, params = self.random.choice(READS) if self.random.random() < 0.5 else ("tools/call", {"name": "a", "arguments": {"text": "x"}})
        return self.modern(path, method, params)

    def check(self, got, asked):
        """What was answered is what was asked, in that order; on a slow machine some of it may have taken too long."""
        texts = re.findall(rb'"text":"([0-9]+-[0-9]+)"', got)
        self.right += len(texts)
        if [t for t in asked if t in texts] != texts:
            self.failures.append((asked, got))

    # -- what it does -----------------------------------------------------------------------------------------------------
    def asks_properly(self, s):
        text, request = self.echo()
        for i in range(0, len(request), step := self.random.choice((len(request), 100))):
            s.sendall(request[i:i + step])
        self.check(s.recv(65536), [text])

    def asks_in_a_row(self, s):
        texts, requests = zip(*(self.echo() for _ in range(self.random.randrange(2, 30))))
        s.sendall(b"".join(requests))
        got, enough = b"", self.random.randrange(len(texts))
        while got.count(b"HTTP/1.1 200") < enough and (part := s.recv(65536)):
            got += part
        self.check(got, list(texts))

    def leaves_at_once(self, s):
        s.sendall(self.any())

    def leaves_in_the_middle(self, s):
        request = self.any()
        s.sendall(request[:self.random.randrange(len(request))])

    def does_not_read(self, s):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.sendall(self.modern("/servers/good/mcp", *READS[0]) * 3)
        time.sleep(self.random.random() / 4)

    def listens(self, s):
        s.sendall(self.modern(self.random.choice(self.paths), "subscriptions/listen", {"notifications": {"toolsListChanged": True}}))
        time.sleep(self.random.random() / 8)

    def talks_nonsense(self, s):
        host = self.gateway.address.encode()
        s.sendall(self.random.choice((b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", b"GET /mcp HTTP/1.1\r\nHost: %s\r\n\r\n" % host * 20,
                                      b"POST /mcp HTTP/1.1\r\nHost: %s\r\nContent-Length: 900000\r\n\r\nabc" % host, os.urandom(100))))

    def has_a_session(self, s):
        path = self.random.choice(self.paths)
        s.sendall(self.legacy(path, None, {"id": 1, "method": "initialize", "params": {
            "protocolVersion": LEGACY, "capabilities": {"elicitation": {}}, "clientInfo": {"name": "storm", "version": "1"}}}))
        _, found, rest = s.recv(65536).partition(b"Mcp-Session-Id: ")
        if not found:
            return
        session = rest.partition(b"\r\n")[0].decode()
        self.sessions.append((path, session))
        with contextlib.closing(self.gateway.socket(3)) as stream:
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {self.gateway.address}\r\nAccept: text/event-stream\r\nMcp-Session-Id: {session}\r\n\r\n".encode())
            for i in range(2, self.random.randrange(3, 8)):
                method, params = self.random.choice(READS)
                message = self.random.choice(({"id": i, "method": method, "params": params}, {"method": "notifications/cancelled", "params": {"requestId": i - 1}},
                                              {"id": i, "method": "resources/subscribe", "params": {"uri": "test://x"}}))
                with contextlib.closing(self.gateway.socket(3)) as other:
                    other.sendall(self.legacy(path, session, message))
                    if self.random.random() < 0.5:
                        other.recv(65536)

    def run(self):
        ways = (self.asks_properly, self.asks_in_a_row, self.leaves_at_once, self.leaves_in_the_middle, self.does_not_read, self.listens, self.talks_nonsense,
                self.has_a_session)
        while time.monotonic() < self.until:
            with contextlib.suppress(OSError), contextlib.closing(self.gateway.socket(3)) as s:
                self.random.choice(ways)(s)
                if self.random.random() < 0.3:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif self.random.random() < 0.3:
                    s.shutdown(socket.SHUT_WR)


class Storm(unittest.TestCase):
    limit = 120 + int(SECONDS)

    def state(self):
        m = self.gateway.metrics()
        return {k: m[f"bulkhead_{k}"] for k in ("sessions", "calls_in_flight", "http_streams")}

    def test_nothing_is_left(self):
        servers = [stdio("good", fixture("mcp_echo")), http_server("web", 17801, fixture("mcp_echo"), "--http", 17801)]
        servers += [http_server(mode, 17810 + i, fixture("mcp_hostile_http"), 17810 + i, mode) for i, mode in enumerate(HOSTILE)]
        with Gateway(*servers, conf=CONF) as self.gateway:
            paths = ["/mcp"] + [f"/servers/{s['name']}/mcp" for s in servers]
            for name in ("good", "web"):
                eventually(f"{name} answers", 20, lambda n=name: self.gateway.call(f"/servers/{n}/mcp", "echo", {"text": "x"}))
            before, descriptors = self.state(), self.gateway.descriptors()
            callers = [Caller(self.gateway, n, paths, time.monotonic() + SECONDS) for n in range(8)]
            for c in callers:
                c.start()
            for c in callers:
                c.join()
            print(f"        STORM_SEED={SEED}: {sum(c.right for c in callers)} right answers", flush=True)
            self.assertIsNone(self.gateway.broker.poll(), "the broker ended")
            self.assertEqual([f for c in callers for f in c.failures], [])
            self.assertGreater(sum(c.right for c in callers), 0)
            for path, session in (s for c in callers for s in c.sessions):
                self.gateway.request("DELETE", path, Mcp_Session_Id=session)
            eventually(f"no state is left, {before}", 30, lambda: self.state() == before)
            eventually(f"no descriptor is left: {descriptors} before", 30, lambda: self.gateway.descriptors() <= descriptors + len(servers))
            self.gateway.broker.terminate()
            self.assertEqual(self.gateway.broker.wait(20), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
