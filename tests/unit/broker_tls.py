#!/usr/bin/env -S python3 -B
"""External servers by https: which ones are trusted and which are not, and that HTTP over TLS is the same as without."""
import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import threading
import unittest
import warnings

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parents[1] / "rig")]
import broker_process as process
from broker_process import BrokerTest, eventually, free_port
from tls_front import Authority, Front, pin

NAME = "mcp.tools.example"


class Tls(BrokerTest):
    era = "both"

    def setUp(self):
        super().setUp()
        self.known, self.unknown = Authority(self.dir, "known"), Authority(self.dir, "unknown")
        self.ca_file = self.dir / "authorities.pem"
        self.ca_file.write_bytes(self.known.certificate.read_bytes())
        self.write_conf(ca_file=str(self.ca_file), start_timeout="60s")
        self.server_port = free_port()
        self.server = subprocess.Popen([process.BUILD / "tests/rig/servers/mcp_echo", "--http", str(self.server_port), "--era", self.era], stderr=subprocess.DEVNULL)
        self.addCleanup(self.stop, self.server)
        eventually(self.listens)

    def listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.server_port)).close()
            return True
        except OSError:
            return False

    def front(self, *pair):
        front = Front(0, self.server_port, *pair)
        self.addCleanup(front.close)
        return front

    def good(self):
        return self.known.issue("good", NAME)

    def entry(self, name, port, host=NAME, **more):
        return {"name": name, "transport": "streamable-http", "per_session": False, "port": port, "tls_host": host, **more}

    def begin(self, *entries):
        self.more_entries = entries
        self.start_host()
        self.start()

    def ask_for(self, server, tool="echo", **arguments):
        """An answer of the server, or the error's text."""
        eventually(lambda: self.readiness()["controller"] == "connected")
        request = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": arguments, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {}}}}
        headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": tool}
        text = self.ask("POST", f"/servers/{server}/mcp", request, headers)[1]
        if not text.startswith("{"):
            text = re.findall(r"^data: (\{.*\})$", text, re.M)[-1]
        answer = json.loads(text)
        return answer["error"]["message"] if "error" in answer else answer["result"]["content"][0]["text"]

    def test_calls(self):
        front = self.front(*self.good())
        self.begin(self.entry("web", front.port))
        self.assertEqual(self.ask_for("web", text="hello"), "hello")
        before = front.connections
        for i in range(20):
            self.assertEqual(self.ask_for("web", text=str(i)), str(i))
        self.assertEqual(front.connections, before)  # one is kept
        self.assertEqual(set(front.names), {NAME})
        # Around the sizes of a record and of what is read at once, and far above.
        for n in (16383, 16384, 16385, 65535, 65536, 200000, 3 << 20):
            text = "x" * (n - 8) + "12345678"
            self.assertTrue(self.ask_for("web", text=text) == text, n)

    def test_many_at_once(self):
        front = self.front(*self.good())
        self.begin(self.entry("web", front.port))
        answers = {}
        threads = [threading.Thread(target=lambda i=i: answers.update({i: self.ask_for("web", text=f"{i}" * 5000)})) for i in range(32)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertTrue(answers == {i: f"{i}" * 5000 for i in range(32)})

    def test_who_is_trusted(self):
        certificate, key = self.good()
        self_signed = Authority(self.dir, "self")
        old = self.front(*self.known.issue("old", NAME))
        with warnings.catch_warnings(action="ignore"):
            old.context.maximum_version = old.context.minimum_version = ssl.TLSVersion.TLSv1_1
        old.context.set_ciphers("ALL:@SECLEVEL=0")
        fronts = {
            "other-name": (self.front(*self.known.issue("other", "mcp.tools.example.org", "tools.example")), NAME, None, "not good for mcp.tools.example: hostname mismatch"),
            "part-of-name": (self.front(*self.known.issue("wild", "m*.tools.example")), NAME, None, "not good for mcp.tools.example: hostname mismatch"),
            "other-address": (self.front(*self.known.issue("address", "127.0.0.2")), "127.0.0.1", None, "not good for 127.0.0.1: IP address mismatch"),
            "unknown-authority": (self.front(*self.unknown.issue("foreign", NAME)), NAME, None, "unable to get local issuer certificate"),
            "self-signed": (self.front(self_signed.certificate, self_signed.key), NAME, None, "self-signed certificate"),
            "expired": (self.front(*self.known.issue("expired", NAME, days=0)), NAME, None, "certificate has expired"),
            "other-key": (self.front(certificate, key), NAME, [pin(self_signed.certificate)], f"key is {pin(certificate)}, which is none of its tls_pins"),
            "old-version": (old, NAME, None, "TLS: "),
            "name": (self.front(certificate, key), NAME, None, None),
            "address": (self.front(*self.known.issue("by-address", "127.0.0.1")), "127.0.0.1", None, None),
            "wildcard": (self.front(*self.known.issue("wildcard", "*.tools.example")), NAME, None, None),
            "pinned": (self.front(self_signed.certificate, self_signed.key), NAME, [pin(certificate), pin(self_signed.certificate)], None),
        }
        self.begin(*(self.entry(name, front.port, host, **({"tls_pins": sorted(pins)} if pins else {}))
                     for name, (front, host, pins, _) in fronts.items()))
        for name, (front, _, _, why) in fronts.items():
            with self.subTest(name):
                answer = self.ask_for(name, text="hello")
                if why:
                    self.assertIn(why, answer)
                    self.assertEqual(front.bytes, 0)  # not one of a request
                else:
                    self.assertEqual(answer, "hello")

    def test_trust_is_not_shared(self):
        """Connections to one place are of those only who trust it for the same reason."""
        certificate, key = self.good()
        front = self.front(certificate, key)
        self.begin(self.entry("named", front.port), self.entry("pinned", front.port, tls_pins=[pin(certificate)]), self.entry("other", front.port, "www.tools.example"),
                   self.entry("other-key", front.port, tls_pins=[pin(self.unknown.certificate)]), {"name": "plain", "transport": "streamable-http", "port": front.port})
        for _ in range(3):
            for name in ("named", "pinned"):
                self.assertEqual(self.ask_for(name, text="hello"), "hello")
            self.assertIn("hostname mismatch", self.ask_for("other", text="hello"))
            self.assertIn("tls_pins", self.ask_for("other-key", text="hello"))

    def test_who_waits_is_told(self):
        front = self.front(*self.unknown.issue("foreign", NAME))
        front.gate.clear()
        self.begin(self.entry("web", front.port))
        answers = []
        thread = threading.Thread(target=lambda: answers.append(self.ask_for("web", text="hello")))
        thread.start()
        eventually(lambda: 'calls_waiting{server="web"} 1\n' in self.ask("GET", "/metrics")[1])
        front.gate.set()
        thread.join(20)
        self.assertIn("local issuer", answers[0])

    def test_no_tls_there(self):
        self.write_conf(ca_file=str(self.ca_file), start_timeout="1s")
        self.begin(self.entry("plain", self.server_port))
        self.assertRegex(self.ask_for("plain", text="hello"), "did not come up in time|did not finish the handshake")

    def test_nobody_to_vouch(self):
        self.ca_file.unlink()
        self.begin(self.entry("web", self.server_port))
        self.assertIn("gateway.ca_file", self.ask_for("web", text="hello"))

    def test_authorities_change(self):
        front = self.front(*self.unknown.issue("later", NAME))
        self.begin(self.entry("web", front.port))
        self.assertIn("local issuer", self.ask_for("web", text="hello"))
        fresh = self.dir / "fresh.pem"
        fresh.write_bytes(self.unknown.certificate.read_bytes())
        fresh.rename(self.ca_file)
        self.assertEqual(eventually(lambda: self.ask_for("web", text="hello") == "hello"), True)
        # And the other way: what is connected already goes on, nothing is connected anew.
        fresh.write_bytes(self.known.certificate.read_bytes())
        fresh.rename(self.ca_file)
        front.cut()
        self.assertIn("local issuer", eventually(lambda: re.search("local issuer", self.ask_for("web", text="hello")) and self.ask_for("web", text="x")))
        for bad, why in ((b"", "no certificate in it"), (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1 is broken"), (None, "gateway.ca_file")):
            fresh.write_bytes(bad or b"")
            fresh.rename(self.ca_file)
            if bad is None:
                self.ca_file.unlink()
            answer = self.ask_for("web", text="hello")
            self.assertIn("gateway.ca_file", answer)
            self.assertIn(why, answer)

    def test_ends(self):
        front = self.front(*self.good())
        self.begin(self.entry("web", front.port))
        self.assertEqual(self.ask_for("web", text="hello"), "hello")
        # While nobody uses it.
        front.cut()
        self.assertEqual(self.ask_for("web", text="again"), "again")
        # In the middle of an answer, of which the length was told.
        front.cut_after = 100
        front.cut()
        self.assertIn("in the middle of the answer", self.ask_for("web", text="x" * 1000))
        front.cut_after = None
        self.assertEqual(self.ask_for("web", text="after"), "after")


class LegacyTls(Tls):
    """The same with a server of the older revision: a session, and a stream that stays."""
    era = "legacy"


if __name__ == "__main__":
    unittest.main(verbosity=2)
