#!/usr/bin/env python3
"""The fault proxy does what it says, in front of a small HTTP server of our own: a test that believes in faults which never happened proves nothing."""
import http.client
import http.server
import json
import os
import pathlib
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import unittest

PROXY = pathlib.Path(__file__).resolve().parents[1] / "rig/fault_proxy.py"


class Upstream(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    allow_reuse_address = True


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def address_string(self):
        return "unix"

    def reply(self, data):
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/chunks":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (b"one", b"two\r\n0\r\n\r\n", b"three"):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
                time.sleep(0.02)
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.reply(json.dumps({"path": self.path}).encode())

    def do_POST(self):
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.posts.append((self.path, data))
        if "attach" in self.path:
            self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nearly")
            self.wfile.flush()
            while line := self.rfile.readline():
                self.wfile.write(b"got " + line)
            self.wfile.write(b"end")
            self.close_connection = True
        else:
            self.reply(b'{"done":true}')


class Client(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(5)
        self.sock.connect(self.path)

    def ask(self, method, path, body=None):
        self.request(method, path, body)
        answer = self.getresponse()
        return answer.status, answer.read()


class FaultProxy(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="bulkhead-proxy-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.server = Upstream(self.dir + "/up", Handler)
        self.server.posts = []
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        argv = [sys.executable, str(PROXY), "--listen", self.dir + "/p", "--upstream", self.dir + "/up", "--log", self.dir + "/log",
                "--control", self.dir + "/c"]
        self.proxy = subprocess.Popen(argv, stdout=subprocess.PIPE)
        self.addCleanup(self.stop)
        self.assertEqual(self.proxy.stdout.readline(), b"ready\n")

    def stop(self):
        self.proxy.kill()
        self.proxy.wait()
        self.proxy.stdout.close()

    def control(self, wish):
        for _ in range(50):
            try:
                with socket.socket(socket.AF_UNIX) as s:
                    s.connect(self.dir + "/c")
                    s.sendall(json.dumps(wish).encode() + b"\n")
                    return json.loads(s.makefile().readline())
            except (ConnectionError, FileNotFoundError):
                time.sleep(0.02)
        self.fail("the control socket does not answer")

    def arm(self, action, **wish):
        self.assertTrue(self.control({"action": action, **wish})["ok"])

    def client(self):
        c = Client(self.dir + "/p")
        self.addCleanup(c.close)
        return c

    def log(self):
        with open(self.dir + "/log", encoding="utf-8") as f:
            return [json.loads(line) for line in f]

    def victim(self):
        p = subprocess.Popen(["sleep", "60"])
        self.addCleanup(lambda: (p.kill(), p.wait()))
        return p

    def test_untouched(self):
        c = self.client()
        self.assertEqual(c.ask("GET", "/a"), (200, b'{"path": "/a"}'))
        self.assertEqual(c.ask("GET", "/chunks"), (200, b"onetwo\r\n0\r\n\r\nthree"))
        self.assertEqual(c.ask("POST", "/b", b"x" * 100000), (200, b'{"done":true}'))
        self.assertEqual(self.server.posts, [("/b", b"x" * 100000)])
        time.sleep(0.05)
        self.assertEqual([(r["n"], r["method"], r["path"], r["status"], r["fault"]) for r in self.log()],
                         [(1, "GET", "/a", 200, None), (2, "GET", "/chunks", 200, None), (3, "POST", "/b", 200, None)])

    def test_attach(self):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(self.dir + "/p")
            s.sendall(b"POST /attach HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            data = b""
            while b"early" not in data:
                data += s.recv(100)
            s.sendall(b"hel")
            s.sendall(b"lo\n")
            s.shutdown(socket.SHUT_WR)
            while piece := s.recv(100):
                data += piece
        self.assertTrue(data.startswith(b"HTTP/1.1 101 "))
        self.assertTrue(data.endswith(b"earlygot hello\nend"), data)

    def test_counting(self):
        self.arm("error500", at=2, count="mutations", match="/b")
        c = self.client()
        self.assertEqual([c.ask("POST", "/b")[0], c.ask("GET", "/b")[0], c.ask("POST", "/a")[0], c.ask("POST", "/b")[0], c.ask("POST", "/b")[0]],
                         [200, 200, 200, 500, 200])
        self.assertEqual(len(self.server.posts), 4 - 1)
        self.assertEqual(self.control({"query": True}), {"ok": True, "calls": 3, "fired": 1, "armed": "error500"})
        self.arm(None)
        self.assertEqual(c.ask("POST", "/b")[0], 200)
        self.assertFalse(self.control({"action": "explode"})["ok"])
        self.assertFalse(self.control({"action": "kill-after"})["ok"])

    def test_cuts(self):
        for action, happened in (("cut-before", 0), ("cut-after", 1)):
            self.arm(action)
            del self.server.posts[:]
            with self.assertRaises((http.client.RemoteDisconnected, ConnectionResetError)):
                self.client().ask("POST", "/b")
            self.assertEqual(len(self.server.posts), happened)

    def test_kills(self):
        for action, happened, answered in (("kill-before", 0, False), ("kill-after", 1, False), ("kill-reply", 1, True)):
            p = self.victim()
            self.arm(action, pid=p.pid)
            del self.server.posts[:]
            try:
                self.assertEqual(self.client().ask("POST", "/b")[0], 200)
                got = True
            except (http.client.RemoteDisconnected, ConnectionResetError):
                got = False
            self.assertEqual(p.wait(5), -signal.SIGKILL)
            self.assertEqual((len(self.server.posts), got), (happened, answered), action)

    def test_answers(self):
        self.arm("truncate")
        self.assertEqual(self.client().ask("GET", "/chunks"), (200, b"onetwo\r\n0"[:9]))
        self.arm("garble-body")
        status, data = self.client().ask("GET", "/a")
        self.assertEqual(status, 200)
        self.assertRaises(ValueError, json.loads, data)
        self.arm("garble")
        self.assertRaises(http.client.BadStatusLine, self.client().ask, "GET", "/a")
        self.arm("delay", delay=0.3)
        begin = time.monotonic()
        self.client().ask("GET", "/a")
        self.assertGreater(time.monotonic() - begin, 0.29)
        self.arm("hang")
        c = self.client()
        c.timeout = 0.3
        c.connect()
        c.sock.settimeout(0.3)
        self.assertRaises(TimeoutError, c.ask, "GET", "/a")
        self.arm("endless")
        c = self.client()
        c.request("GET", "/a")
        self.assertEqual(len(c.getresponse().read(1 << 20)), 1 << 20)


if __name__ == "__main__":
    os.umask(0o077)
    unittest.main()
