"""The smoke test on a real Engine: servers nobody here wrote over every transport, servers that misbehave, an Engine that fails at any call; and that
nothing is left behind, whatever happens. The program under test is tests/integration/smoke_real with the helper beside it."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

from rig import TOP, rig, run

BUILD = pathlib.Path(os.environ.get("BULKHEAD_BUILD", TOP))
OWNER = {"io.bulkhead.owner": "smoke-real"}
# Debian's node 18 has no global "crypto", which this server's HTTP side wants.
NODE = ["--env", "NODE_OPTIONS=--experimental-global-webcrypto"]
ECHO_TOOLS = ["connect", "echo", "env", "exec", "fill", "read_file", "sleep", "status", "write_file"]


class Base(unittest.TestCase):
    def setUp(self):
        self.rig = rig()
        self.addCleanup(self.assert_clean)

    def assert_clean(self):
        left = [c["Names"] for c in self.rig.api.containers(**OWNER)] + [n["Name"] for n in self.rig.api.networks(**OWNER)]
        self.remove_remains()
        self.assertEqual(left, [])

    def remove_remains(self):
        for c in self.rig.api.containers(**OWNER):
            self.rig.api.remove(c["Id"])
        for n in self.rig.api.networks(**OWNER):
            self.rig.api.call("DELETE", f"/networks/{n['Id']}", ok=(204, 404))

    def smoke(self, name, transport, *args, options=(), socket=None, timeout=90):
        """(exit code, result or None, what it said on standard error)"""
        image = self.rig.image(name)
        self.rig.api.pull(image)
        done = run(*self.rig.in_host(BUILD / "tests/integration/smoke_real", "--helpers", BUILD, *options, socket or self.rig.engine_socket, image,
                                     transport, *args), timeout=timeout, check=False)
        lines = done.stdout.splitlines()
        self.assertIn(done.returncode, (0, 1, 2, 3), done.stdout + done.stderr)
        self.assertEqual(len(lines), 1 if done.returncode in (0, 2) else 0, done.stdout + done.stderr)
        return done.returncode, json.loads(lines[0]) if lines else None, done.stderr

    def passes(self, *args, **kw):
        code, result, said = self.smoke(*args, **kw)
        self.assertEqual(code, 0, f"{result} {said}")
        return result


class Smoke(Base):
    def test_one_manifest_over_every_transport(self):
        name = "mcp/everything:2026.8.31"
        results = [self.passes(name, "stdio"),
                   self.passes(name, "streamable-http", "streamableHttp", options=["--port", "3001", *NODE]),
                   self.passes(name, "sse", "sse", options=["--port", "3001", "--path", "/sse", *NODE])]
        self.assertEqual({r["protocol"] for r in results}, {"2025-11-25"})
        self.assertEqual(len({r["manifest_sha256"] for r in results}), 1)
        manifest = json.loads(results[0]["manifest"])
        self.assertEqual(list(manifest), ["instructions", "prompts", "resourceTemplates", "resources", "tools"])
        self.assertIn("get-sum", [t["name"] for t in manifest["tools"]])
        self.assertTrue(manifest["prompts"] and manifest["resources"] and manifest["resourceTemplates"] and manifest["instructions"])

    def test_other_npm_servers(self):
        self.assertIn("read_text_file", self.passes("mcp/filesystem:2026.8.31", "stdio", "/tmp")["tools"])
        self.assertIn("create_entities", self.passes("mcp/memory:2026.8.31", "stdio")["tools"])

    def test_both_eras_and_a_call(self):
        call = ["--call", '{"tool": "echo", "arguments": {"text": "x"}}']
        new = self.passes("mcp/echo:2", "stdio", options=call)
        old = self.passes("mcp/echo:2", "stdio", "--era", "legacy", options=call)
        http = self.passes("mcp/echo:2", "streamable-http", "--http", "8080", options=["--port", "8080", *call])
        self.assertEqual((new["protocol"], old["protocol"], http["protocol"]), ("2026-07-28", "2025-11-25", "2026-07-28"))
        self.assertEqual(len({r["manifest_sha256"] for r in (new, old, http)}), 1)
        self.assertEqual(new["tools"], ECHO_TOOLS)
        other = self.passes("mcp/echo:2", "stdio", "--variant", "different")
        self.assertNotEqual(new["manifest_sha256"], other["manifest_sha256"])
        code, result, _ = self.smoke("mcp/echo:2", "stdio", options=["--call", '{"tool": "read_file", "arguments": {"path": "/nowhere"}}'])
        self.assertEqual(code, 2)
        self.assertIn("says that it failed", result["why"])

    def test_secrets_are_placeholders(self):
        # The server shows one more tool when the variable holds anything else: that it can is checked beside it.
        self.assertEqual(self.passes("mcp/echo:2", "stdio", "--rug-env", "API_TOKEN", options=["--secret", "API_TOKEN"])["tools"], ECHO_TOOLS)
        self.assertIn("transfer", self.passes("mcp/echo:2", "stdio", "--rug-env", "API_TOKEN", options=["--env", "API_TOKEN=x"])["tools"])

    def test_nothing_leaves_the_quarantine(self):
        before = self.rig.far.seen()
        for target in ("192.0.2.10", "198.51.100.53", "203.0.113.2"):
            self.passes("mcp/echo:2", "stdio", "--probe", target, "53", "600", options=["--call", '{"tool": "sleep", "arguments": {"ms": 700}}'])
        self.assertEqual(self.rig.far.seen(), before)

    def test_hostile_servers(self):
        wants = {"garbage": "not MCP messages", "flood": "more than the 1000000 bytes", "stderr-flood": "more than the 1000000 bytes",
                 "never-answer": "no answer to initialize", "no-read": "no answer to initialize", "exit-at-start": "exited with status 3",
                 "long-line": "more than the 1000000 bytes", "endless-pages": "more than 100 pages", "cursor-loop": "pages never end",
                 "wrong-ids": "id that was never asked", "duplicate-keys": "stands twice", "twice": "listed twice",
                 "half-frame-die": "in the middle of a message", "deep": "nested too deeply", "escapes": "\\x1b[2J\\u{202e} approved",
                 "restless": "keeps saying"}
        for mode, why in wants.items():
            with self.subTest(mode):
                began = time.monotonic()
                code, result, said = self.smoke("mcp/hostile:1", "stdio", mode, options=["--timeout", "3000", "--max-output", "1000000"])
                self.assertEqual(code, 2, said)
                self.assertIn(why, result["why"])
                self.assertNotIn("manifest", result)
                self.assertLess(time.monotonic() - began, 20)
                self.assertTrue(all(" " <= c < "\x7f" for c in result["why"] + result.get("stderr_tail", "")))

    def test_little_text_that_needs_much_memory(self):
        code, result, _ = self.smoke("mcp/hostile:1", "stdio", "bomb")
        self.assertEqual(code, 2)
        self.assertIn("more memory than a smoke test may use", result["why"])

    def test_http_server_that_ends_or_never_listens(self):
        code, result, _ = self.smoke("mcp/hostile:1", "streamable-http", "exit-at-start", options=["--port", "80", "--timeout", "20000"])
        self.assertEqual((code, result["duration_ms"] < 15000), (2, True))
        self.assertIn("exited with status 3", result["why"])
        self.assertIn("out of luck", result["stderr_tail"])
        code, result, _ = self.smoke("mcp/hostile:1", "streamable-http", "stderr-flood", options=["--port", "80", "--max-output", "1000000"])
        self.assertEqual(code, 2)
        self.assertIn("more than the 1000000 bytes", result["why"])
        code, result, _ = self.smoke("mcp/hostile:1", "streamable-http", "no-read", options=["--port", "80", "--timeout", "2000"])
        self.assertEqual(code, 2)
        self.assertIn("did not listen on port 80", result["why"])

    def test_helper_in_the_servers_hands(self):
        """The server may own the program that reads it: what that says is held to its form, and its text escaped."""
        work = pathlib.Path(tempfile.mkdtemp(prefix="bulkhead-smoke-"))
        self.addCleanup(shutil.rmtree, work, True)
        helper = work / "bulkhead-smoke-talk"
        lies = {"not JSON": "came to no answer", '{"passed":true,"protocol":"2025-11-25","tools":[]}': "has not the form",
                '{"passed":true,"protocol":"2025-11-25","tools":["a b"],"manifest":"{}"}': "has not the form",
                '{"passed":true,"protocol":"latest","tools":[],"manifest":"{}"}': "has not the form",
                '{"passed":true,"passed":false,"tools":[],"why":"x"}': "came to no answer",
                '{"passed":false,"tools":[],"why":"\\u001b[2J fine \\u202e"}': "\\x1b[2J fine \\u{202e}"}
        for text, why in lies.items():
            with self.subTest(text):
                helper.write_text("#!/bin/sh\ncat >/dev/null\ncat <<'EOF'\n" + text + "\nEOF\n")
                helper.chmod(0o755)
                code, result, said = self.smoke("mcp/echo:2", "stdio", options=["--helpers", work])
                self.assertEqual(code, 2, said)
                self.assertIn(why, result["why"])
        helper.write_text("#!/bin/sh\nwhile :; do echo flood; done\n")
        code, result, _ = self.smoke("mcp/echo:2", "stdio", options=["--helpers", work])
        self.assertEqual(code, 2)
        self.assertIn("wrote more than", result["why"])

    def test_image_that_does_not_start(self):
        code, result, _ = self.smoke("base/debian:bookworm-slim", "stdio", "/no/such/program")
        self.assertEqual(code, 2)
        self.assertIn("exited with status 127", result["why"])
        self.assertIn("/no/such/program", result["stderr_tail"])

    def test_remains_of_a_killed_test_are_replaced(self):
        self.assertEqual(self.smoke("mcp/hostile:1", "stdio", "no-read", options=["--cancel-after", "1500"])[0], 3)
        self.assertEqual(len(self.rig.api.containers(**OWNER)), 1)
        self.assertEqual(self.smoke("mcp/hostile:1", "stdio", "no-read", options=["--timeout", "1000"])[0], 2)

    def test_foreign_holder_of_the_name_is_left_alone(self):
        self.smoke("mcp/hostile:1", "stdio", "no-read", options=["--cancel-after", "1500"])
        name = self.rig.api.containers(**OWNER)[0]["Names"][0].lstrip("/")
        self.remove_remains()
        foreign = self.rig.api.create(name, self.rig.image("tool/busybox:1"))
        self.addCleanup(self.rig.api.remove, foreign)
        code, _, said = self.smoke("mcp/hostile:1", "stdio", "no-read")
        self.assertEqual(code, 1)
        self.assertIn("somebody else's container", said)
        self.assertEqual(self.rig.api.inspect(foreign)["Id"], foreign)


class SmokeFaults(Base):
    """The Engine fails at call N, for every N: a clear end, and nothing left."""

    def through_proxy(self, action, at):
        work = pathlib.Path(tempfile.mkdtemp(prefix="bulkhead-smoke-"))
        self.addCleanup(shutil.rmtree, work, True)
        proxy = subprocess.Popen([TOP / "tests/rig/fault_proxy.py", "--listen", work / "p.sock", "--upstream", self.rig.engine_socket, "--log", work / "log",
                                  *(["--action", action, "--at", str(at)] if action else [])], stdout=subprocess.PIPE, text=True)
        try:
            self.assertEqual(proxy.stdout.readline().strip(), "ready")
            outcome = self.smoke("mcp/echo:2", "stdio", socket=work / "p.sock")
        finally:
            proxy.terminate()
            proxy.wait()
            proxy.stdout.close()
        return outcome, [json.loads(line) for line in (work / "log").read_text().splitlines()]

    def test_every_call(self):
        (code, _, said), calls = self.through_proxy(None, 0)
        self.assertEqual(code, 0, said)
        self.assertGreater(len(calls), 12)
        for action in ("cut-before", "cut-after", "error500", "garble"):
            for at in range(1, len(calls) + 1):
                with self.subTest(action=action, at=at, call=calls[at - 1]["path"]):
                    (code, result, said), _ = self.through_proxy(action, at)
                    self.assertTrue(code == 0 or (code == 1 and said.strip()) or (code == 2 and result["why"]), f"{code} {result} {said}")
                    self.assert_clean()

    test_every_call.limit = 600


if __name__ == "__main__":
    unittest.main()
