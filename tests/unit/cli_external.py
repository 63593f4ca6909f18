#!/usr/bin/env -S python3 -B
"""An external server's way through the gate, with a real one on this machine: proposed, asked what it offers, approved, promoted; no Engine anywhere."""
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import unittest

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "rig"))
from broker_process import free_port
from cli_host import CliTest, digest
from tls_front import Authority, Front, pin

BUILD = pathlib.Path(os.environ.get("top_builddir", ".")).resolve()


class External(CliTest):
    def setUp(self):
        super().setUp()
        self.write_conf(f"helpers: {BUILD}\nsmoke:\n  timeout: 20s\n")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"

    def serve(self, *args):
        process = subprocess.Popen([BUILD / "tests/rig/servers/mcp_echo", "--http", str(self.port), *args], stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return process
            except ConnectionRefusedError:
                time.sleep(0.05)
        raise AssertionError("mcp_echo does not listen")

    def propose_url(self, *args, name="outside"):
        return self.run_cli("propose", name, "--url", self.url, *args).out.strip()

    def smoke(self, proposal, code=0):
        return self.run_cli("smoke", proposal, "--ci", "--json", code=code)

    def approve(self, proposal, code=0):
        return self.run_cli("approve", proposal, "--key", self.key, "--yes", "--json", code=code)

    def test_the_whole_way(self):
        self.serve()
        proposal = self.propose_url("--reason", "a gateway next door")
        pending = self.run_cli("pending", "--json").json()
        self.assertEqual([(p["id"], p["url"], p["smoke"]) for p in pending], [(proposal, self.url, "none")])
        self.assertIn(self.url, self.run_cli("pending").out)
        tested = self.smoke(proposal).json()[0]
        self.assertNotIn("image", tested)
        self.assertIn("echo", tested["smoke"]["tools"])
        shown = self.run_cli("approve", proposal, "--key", self.key, "--yes").out
        self.assertIn(self.url, shown)
        self.assertIn("Bulkhead does not run it", shown)
        self.run_cli("validate")
        self.run_cli("promote", proposal)
        entry = json.loads(self.registry.read_text())["servers"]["outside"]
        self.assertEqual(entry, {"enabled": True, "url": self.url, "transport": "streamable-http"})
        self.run_cli("validate")

    def test_record_binds_place_and_manifest(self):
        server = self.serve()
        proposal = self.propose_url()
        self.smoke(proposal)
        record = self.approve(proposal).json()
        self.assertEqual(record["source"], {"type": "url", "url": self.url})
        self.assertEqual(record["tools"], sorted(record["tools"]))
        first = record["manifest_sha256"]
        server.kill()
        server.wait()
        # The same place offers something else: another manifest, and the diff shows it.
        self.serve("--variant", "another")
        again = self.propose_url()
        self.smoke(again)
        second = self.run_cli("approve", again, "--key", self.key, "--yes").out
        self.assertIn("Changes since", second)
        self.assertNotIn(first, second)

    def test_nobody_is_there(self):
        proposal = self.propose_url()
        began = time.monotonic()
        self.assertIn("nobody accepts connections", self.smoke(proposal, code=1).json()[0]["smoke"]["why"])
        self.assertLess(time.monotonic() - began, 15, "it was waited for")
        self.assertIn("smoke test of", self.approve(proposal, code=77).err)
        self.assertEqual(len([f for f in self.files() if f.endswith(".sig")]), 0)

    def test_evidence_of_a_container_is_none_of_an_external_server(self):
        proposal = self.propose_url()
        self.add_files({f"outside/{proposal}.smoke.json": self.evidence(proposal, [{"name": "echo"}])})
        self.assertIn("is about the image", self.approve(proposal, code=77).err)
        proposal = self.propose()
        evidence = json.loads(self.evidence(proposal, [{"name": "echo"}]))
        del evidence["image"]
        self.add_files({f"echo/{proposal}.smoke.json": json.dumps(evidence)})
        self.assertIn("of no container", self.approve(proposal, code=77).err)

    def test_source_and_entry_must_agree(self):
        self.serve()
        text = self.git("show", f"main:outside/{self.propose_url()}.yaml").decode()
        entry_sha256 = text.split("entry_sha256: ")[1].split("\n")[0].strip('"')
        content = {"apiVersion": "bulkhead/v1", "kind": "Proposal", "serial": 2, "audience": "test.example", "server": "outside",
                   "entry_sha256": entry_sha256, "proposed_by": "mallory", "proposed_at": "2026-11-20T10:00:00Z",
                   "entry": {"enabled": True, "url": self.url, "transport": "streamable-http"}}
        for source in ({"type": "url", "url": "http://127.0.0.1:1/mcp"},
                       {"type": "docker_image", "reference": "127.0.0.1:5000/a", "digest": digest("a")}):
            proposal = self.add_record({**content, "source": source})
            self.assertIn("another source than it says", self.run_cli("smoke", proposal, "--ci", code=77).err)
        for source, part in (({"type": "url"}, "needs the key source.url"), ({"type": "url", "url": self.url, "digest": digest("a")}, "source.digest: unknown key"),
                             ({"type": "url", "url": "a\u0085b"}, "control character")):
            self.add_record({**content, "source": source})
            self.assertIn(part, self.run_cli("validate", code=1).err.replace("/", "."))

    def test_refused_at_once(self):
        for url in ("https://169.254.169.254/mcp", "http://example.org/mcp", "http://192.0.2.1/mcp", "http://127.0.0.1:8080/mcp"):
            self.assertIn("outside.url", self.run_cli("propose", "outside", "--url", url, code=1).err)
        self.assertIn("goes with servers that run here", self.run_cli("propose", "outside", "--url", self.url, "--memory", "64m", code=1).err)
        self.assertIn("address", self.run_cli("propose", "outside", "--url", "https://mcp.example.com/mcp", code=1).err)
        self.assertIn("tls_pins", self.run_cli("propose", "outside", "--url", self.url, "--tls-pin", "a", code=1).err)
        self.run_cli("propose", "outside", "--url", self.url, "--image", "a", code=64)
        self.assertEqual(self.files(), [])

    def test_smoke_by_https(self):
        self.serve()
        known, other = Authority(self.dir, "known"), Authority(self.dir, "other")
        good, foreign = known.issue("good", "mcp.tools.example"), other.issue("foreign", "mcp.tools.example")
        self.write_conf(f"helpers: {BUILD}\nsmoke:\n  timeout: 20s\ngateway:\n  ca_file: {known.certificate}\n")
        cases = ((good, "mcp.tools.example", (), None), (good, "mcp.tools.example", (pin(good[0]), pin(foreign[0])), None), (foreign, "mcp.tools.example", (pin(foreign[0]),), None),
                 (good, "www.tools.example", (), "certificate subject name"), (foreign, "mcp.tools.example", (), "certificate"),
                 (good, "mcp.tools.example", (pin(foreign[0]),), f"key is {pin(good[0])}, which is none of"))
        for i, (pair, host, pins, why) in enumerate(cases):
            with self.subTest(i):
                front = Front(0, self.port, *pair)
                self.url = f"https://{host}:{front.port}/mcp"
                proposal = self.propose_url("--address", "127.0.0.1", *(x for p in pins for x in ("--tls-pin", p)), name=f"outside-{i}")
                answer = self.smoke(proposal, code=1 if why else 0)
                if why:
                    self.assertIn(why, answer.json()[0]["smoke"]["why"])
                    self.assertEqual(front.bytes, 0)
                else:
                    self.assertIn("echo", answer.json()[0]["smoke"]["tools"])
                    self.assertEqual(set(front.names), {host})
                front.close()

    def test_by_https(self):
        key = "sha256//AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
        proposal = self.run_cli("propose", "outside", "--url", "https://mcp.example.com/mcp", "--address", "203.0.113.5", "--tls-pin", key).out.strip()
        text = self.git("show", f"main:outside/{proposal}.yaml").decode()
        for part in ("https://mcp.example.com:443/mcp", "203.0.113.5", key):
            self.assertIn(part, text)


if __name__ == "__main__":
    unittest.main()
