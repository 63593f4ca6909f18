#!/usr/bin/env -S python3 -B
"""`smoke --ci` against a scripted Engine: exit codes and report when it is away, refuses, or the registry is not allowed; and that an interruption removes
what is ours, and only that, whatever the Engine lists. The real Engine's turn is in tests/integration."""
import json
import os
import signal
import socketserver
import subprocess
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler

from cli_host import CliTest, PROGRAM, digest

VERSION = {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, path):
        self.path, self.removed, self.asked, self.owner = path, [], [], None
        self.hanging = threading.Event()
        super().__init__(path, Handler)
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()

    def close(self):
        self.hanging.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "engine"

    def log_message(self, *args):
        pass

    def answer(self, code, value):
        body = json.dumps(value).encode() if value is not None else b""
        self.send_response(code)
        for key, text in (("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Api-Version", "1.41"), ("Server", "Docker/20.10.24")):
            self.send_header(key, text)
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(body)

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        self.server.asked.append((self.command, path))
        if path.endswith("/_ping"):
            return self.answer(200, "OK")
        if path.endswith("/version"):
            return self.answer(200, VERSION)
        if path.endswith("/info"):
            return self.answer(200, {"OSType": "linux", "SwapLimit": True, "DefaultRuntime": "runc"})
        if path.endswith("/json") and "/images/" in path:
            if "broken" in path:
                return self.answer(500, {"message": "disk\x1b is full"})
            return self.answer(200, {"Id": digest("id"), "RepoDigests": ["127.0.0.1:5000/mcp/echo@" + digest("echo")], "Os": "linux", "Architecture": "amd64",
                                     "Size": 5, "RootFS": {"Type": "layers", "Layers": [digest("a")]}, "Config": {"Cmd": ["/server"]}})
        if self.command == "POST" and path.endswith("/networks/create"):
            self.server.owner = json.loads(body)["Labels"]["io.bulkhead.owner"]
            self.server.hanging.wait(30)
            return
        if self.command == "GET" and path.endswith(("/containers/json", "/networks")):
            # An Engine that ignores the filter.
            ours = [{"Id": "ours", "Labels": {"io.bulkhead.owner": self.server.owner}}] if self.server.owner else []
            return self.answer(200, ours + [{"Id": "foreign", "Labels": {"a": "b"}}, {"Id": "bare", "Labels": None}])
        if self.command == "DELETE":
            self.server.removed.append(path.lstrip("/"))
            return self.answer(204, None)
        self.answer(404, {"message": "no such thing"})

    do_GET = do_POST = do_DELETE = do_HEAD = handle_request


class SmokeCi(CliTest):
    def setUp(self):
        super().setUp()
        self.path = str(self.dir / "engine.sock")
        self.report = self.dir / "junit.xml"

    def engine(self):
        engine = Engine(self.path)
        self.addCleanup(engine.close)
        return engine

    def test_engine_is_away(self):
        proposal = self.propose()
        self.run_cli("smoke", proposal, "--ci", "--engine", self.path, "--junit", str(self.report), code=1)
        self.assertIn('errors="1"', self.report.read_text())
        self.assertEqual(len(self.files()), 1)

    def test_engine_fails(self):
        engine = self.engine()
        proposal = self.run_cli("propose", "broken", "--image", "127.0.0.1:5000/broken@" + digest("echo")).out.strip()
        shown = self.run_cli("smoke", proposal, "--ci", "--engine", self.path, code=1).err
        self.assertIn("disk\\x1b is full", shown)
        self.assertTrue(engine.asked)
        entry = {"source": "docker_image", "image": "127.0.0.1:5000/broken@" + digest("echo"), "transport": "stdio"}
        self.write_registry({"one": entry, "two": {**entry, "enabled": False}})
        shown = self.run_cli("smoke", "--ci", "--registry", str(self.registry), "--engine", self.path, "--junit", str(self.report), code=1).err
        self.assertIn("one: ", shown)
        self.assertIn("disk\\x1b is full", shown)
        self.assertNotIn("two", shown)
        self.assertIn('tests="1" failures="0" errors="1"', self.report.read_text())

    def test_registry_that_is_not_allowed(self):
        engine = self.engine()
        proposal = self.propose()
        self.conf.write_text(self.conf.read_text().replace("127.0.0.1:5000", "registry.example"))
        shown = self.run_cli("smoke", proposal, "--ci", "--engine", self.path, code=1)
        self.assertIn("images.registries", shown.err)
        self.assertEqual(engine.asked, [])

    def test_interruption_removes_what_is_ours(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            engine = Engine(self.path)
            proposal = self.propose("--reason", str(number))
            process = subprocess.Popen([PROGRAM, "--config", str(self.conf), "smoke", proposal, "--ci", "--engine", self.path],
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.addCleanup(process.stderr.close)
            self.addCleanup(process.stdout.close)
            for _ in range(200):
                if engine.owner or process.poll() is not None:
                    break
                time.sleep(0.05)
            self.assertIsNotNone(engine.owner, engine.asked)
            self.assertNotEqual(engine.owner, "test.example")
            process.send_signal(number)
            _, err = process.communicate(timeout=20)
            engine.close()
            os.unlink(self.path)
            self.assertEqual(process.returncode, 1, err)
            self.assertIn(b"interrupted", err)
            # Both kinds, and nothing else of what was listed.
            self.assertEqual({path.split("/", 1)[-1] for path in engine.removed}, {"containers/ours", "networks/ours"})


if __name__ == "__main__":
    unittest.main(verbosity=1)
