#!/usr/bin/env -S python3 -B
"""bulkhead-broker as a process: who may start it, what it says of itself, what it gives up, how it ends, and what it does while the controller is away.

The controller is tests/rig/link_host, the server behind it the rig's echo server. Needs no root; as root the broker is started as another user."""
import hashlib
import http.client
import http.server
import json
import os
import pathlib
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

BUILD = pathlib.Path(os.environ.get("top_builddir", "."))
NOBODY = 65534
JSON_RPC = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize",
              "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}


def eventually(what, seconds=10):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")


MARKS = []  # of the ports that this process has


def free_port():
    """Below those that the kernel gives away by itself, and of no other process of these tests that runs meanwhile: one that is free only because a broker is being
    started anew is that broker's. Held until this process ends, by a name that can be bound once."""
    while True:
        port = random.randrange(20000, 32768)
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            mark.bind(f"\0bulkhead-test-port-{port}")
            with socket.socket() as s:
                s.bind(("127.0.0.1", port))
        except OSError:
            mark.close()
            continue
        MARKS.append(mark)
        return port


class BrokerTest(unittest.TestCase):
    more_entries = ()  # of other servers, beside the echo server

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="bh-broker-"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.dir.chmod(0o755)
        self.port = free_port()
        self.conf, self.token, self.socket = self.dir / "conf", self.dir / "token", self.dir / "link.sock"
        self.program = self.dir / "bulkhead-broker"  # where another user can reach it
        shutil.copy(BUILD / "bulkhead-broker", self.program)
        self.set_token("secret")
        self.write_conf()

    def write_conf(self, **gateway):
        gateway = {"listen": f"127.0.0.1:{self.port}", "token": str(self.token), **gateway}
        # Nothing of a Bulkhead that this machine may have.
        self.conf.write_text(json.dumps({"audience": "test.example", "link": {"socket": str(self.socket)}, "gateway": gateway,
                                         "controller": {"user": pwd.getpwuid(os.geteuid()).pw_name}, "broker": {"state": str(self.dir / "none")},
                                         "agents": {"file": str(self.dir / "agents.json")}, "policy": str(self.dir / "policy.json")}))

    def set_token(self, token):
        fresh = self.dir / "token.new"
        fresh.write_text(hashlib.sha256(token.encode()).hexdigest() + "\n")
        fresh.rename(self.token)

    def command(self, *argv):
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
        return [*drop, str(self.program), *argv]

    def run_broker(self, *argv):
        return subprocess.run(self.command(*argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20, check=False)

    def start(self):
        with open(self.dir / "log", "ab") as log:
            self.broker = subprocess.Popen(self.command("--config", str(self.conf)), stdout=log, stderr=log)
        self.addCleanup(self.stop, self.broker)
        eventually(lambda: "started" in self.log() or self.broker.poll() is not None)
        self.assertIsNone(self.broker.poll(), self.log())

    @staticmethod
    def stop(process):
        if process.poll() is None:
            process.kill()
        process.wait()

    def start_host(self, **more):
        entry = {"name": "echo", "transport": "stdio", "command": [str(BUILD / "tests/rig/servers/mcp_echo")], **more}
        said = open(self.dir / "host.jsonl", "wb")
        self.addCleanup(said.close)
        self.host = subprocess.Popen([BUILD / "tests/rig/link_host", "--socket", self.socket, "--broker-uid", str(NOBODY if os.geteuid() == 0 else os.geteuid()),
                                      *(x for e in (entry, *self.more_entries) for x in ("--entry", json.dumps(e)))], stdin=subprocess.PIPE, stdout=said, text=True)
        self.addCleanup(self.stop, self.host)
        self.addCleanup(self.host.stdin.close)

    def tell_host(self, **command):
        self.host.stdin.write(json.dumps(command) + "\n")
        self.host.stdin.flush()

    def heard(self, event):
        """What link_host said of that kind; it may be in the middle of a line."""
        return [said for line in (self.dir / "host.jsonl").read_text().rpartition("\n")[0].splitlines() for said in [json.loads(line)] if said["event"] == event]

    def log(self):
        return (self.dir / "log").read_text()

    def ask(self, method, path, body=None, headers=None, token="secret", timeout=10):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = {**(JSON_RPC if body else {}), **({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers
        finally:
            connection.close()

    def status(self, path, **kw):
        return self.ask("GET", path, **kw)[0]

    def readiness(self):
        return json.loads(self.ask("GET", "/readyz", token=None)[1])

    def session(self):
        eventually(lambda: self.readiness()["controller"] == "connected")
        status, _, headers = self.ask("POST", "/servers/echo/mcp", INITIALIZE)
        self.assertEqual(status, 200)
        return {"Mcp-Session-Id": headers["Mcp-Session-Id"], "MCP-Protocol-Version": "2025-11-25"}

    def call(self, session, tool, arguments, number=2):
        return self.ask("POST", "/servers/echo/mcp", {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}, session)


class Start(BrokerTest):
    @unittest.skipUnless(os.geteuid() == 0, "needs root to show that root is refused")
    def test_root_is_refused(self):
        result = subprocess.run([self.program, "--config", self.conf], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("does not run as root", result.stdout)

    def test_options(self):
        self.assertEqual(self.run_broker("--nonsense").returncode, 64)
        self.assertEqual(self.run_broker("more").returncode, 64)
        self.assertRegex(self.run_broker("--version").stdout, r"^bulkhead [0-9.]+\n$")
        self.assertIn("usage: bulkhead-broker", self.run_broker("--help").stdout)

    def test_what_is_wrong_is_said(self):
        for gateway, part in (({"token": str(self.dir / "none")}, "cannot open"), ({"listen": "0.0.0.0:1", "auth": "none"}, "loopback"),
                              ({"listen": "192.0.2.1:18999"}, "cannot listen on 192.0.2.1 port 18999")):
            self.write_conf(**gateway)
            result = self.run_broker("--config", str(self.conf))
            self.assertEqual(result.returncode, 1, result.stdout)
            self.assertIn(part, result.stdout)

    def test_no_token_is_shouted(self):
        self.write_conf(auth="none")
        self.start()
        self.assertIn("gateway.auth is none", self.log())
        self.assertEqual(self.status("/metrics", token=None), 200)


class Running(BrokerTest):
    def test_health_before_and_after_the_controller(self):
        self.start()
        self.assertEqual(self.status("/healthz", token=None), 200)
        self.assertEqual(self.status("/readyz", token=None), 503)
        self.assertEqual(self.readiness(), {"status": "waiting", "controller": "away"})
        self.start_host()
        eventually(lambda: self.status("/readyz", token=None) == 200)
        self.assertEqual(self.log().count("cannot be reached"), 1)
        self.assertEqual(self.ask("POST", "/healthz", {})[0], 405)
        self.assertEqual(self.status("/nothing"), 404)
        self.assertEqual(self.status("/nothing", token=None), 401)

    def test_metrics_without_a_token(self):
        self.write_conf(metrics="none")
        self.start()
        self.assertEqual([self.status(path, token=None) for path in ("/metrics", "/metrics/", "/mcp", "/servers/echo/mcp")], [200, 401, 401, 401])
        self.assertEqual(self.status("/metrics", token="wrong"), 200)
        self.assertEqual(self.ask("POST", "/metrics", {}, token=None)[0], 405)

    def test_metrics(self):
        self.start_host()
        self.start()
        self.call(self.session(), "echo", {"text": "x"})
        self.assertEqual(self.status("/metrics", token=None), 401)
        status, text, headers = self.ask("GET", "/metrics")
        self.assertEqual(status, 200)
        self.assertTrue(headers["Content-Type"].startswith("text/plain; version=0.0.4"))
        values = {}
        for line in text.splitlines():
            if line.startswith("#"):
                self.assertRegex(line, r"^# (HELP|TYPE) bulkhead_[a-z_]+ ")
            else:
                self.assertRegex(line, r'^bulkhead_[a-z_]+(\{[a-z]+="[^"]*"\})? [0-9.]+$')
                name, value = line.rsplit(" ", 1)
                self.assertNotIn(name, values)
                values[name] = float(value)
        self.assertEqual(values["bulkhead_controller_connected"], 1)
        self.assertEqual(values['bulkhead_server_up{server="echo"}'], 1)
        self.assertEqual(values["bulkhead_http_refused_total"], 1)
        self.assertGreaterEqual(values["bulkhead_http_requests_total"], 4)

    def test_confined(self):
        self.start()
        if "not confined" in self.log():
            self.skipTest("built with a sanitizer")
        pid = self.broker.pid  # setpriv became the broker
        status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
        for key in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            self.assertEqual(int(status[key], 16), 0, key)
        self.assertEqual(status["NoNewPrivs"].strip(), "1")
        self.assertEqual(status["Seccomp"].strip(), "2")

    def sleeps(self, requests=40):
        """How often the broker slept during so many, one after the other and with a little time between them."""
        count = lambda: int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", pathlib.Path(f"/proc/{self.broker.pid}/status").read_text(), re.M)[1])
        with socket.create_connection(("127.0.0.1", self.port), 10) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            before = count()
            for _ in range(requests):
                s.sendall(f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())
                self.assertIn(b"200 OK", s.recv(65536))
                time.sleep(0.0003)
            return count() - before

    @unittest.skipUnless(len(os.sched_getaffinity(0)) > 1, "needs two processors: on one the broker sleeps at once")
    def test_looks_before_it_sleeps(self):
        """For a moment only: without anything to do it takes no processor."""
        self.write_conf(busy_poll_us=1000)
        self.start()
        self.assertIn("busy_poll_us=1000", self.log())
        # Where tests run side by side requests may come later than it looks.
        eventually(lambda: self.sleeps() < 20, 90)
        cpu = lambda: sum(map(int, pathlib.Path(f"/proc/{self.broker.pid}/stat").read_text().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")
        before = cpu()
        time.sleep(1)
        self.assertLess(cpu() - before, 0.3)

    def test_sleeps_at_once_where_it_shall(self):
        self.write_conf(busy_poll_us=0)
        self.start()
        self.assertIn("busy_poll_us=0", self.log())
        self.assertGreater(self.sleeps(), 35)

    def test_token_is_read_again(self):
        self.start()
        self.set_token("fresh")
        self.broker.send_signal(signal.SIGHUP)
        eventually(lambda: "was read again" in self.log())
        self.assertEqual(self.status("/metrics"), 401)
        self.assertEqual(self.status("/metrics", token="fresh"), 200)
        self.token.write_text("nonsense")
        self.broker.send_signal(signal.SIGHUP)
        eventually(lambda: "the old one goes on" in self.log())
        self.assertEqual(self.status("/metrics", token="fresh"), 200)

    def test_link_is_lost_and_found(self):
        self.start_host()
        self.start()
        session = self.session()
        self.assertIn("hello", self.call(session, "echo", {"text": "hello"})[1])
        self.tell_host(do="close")
        eventually(lambda: "link to the controller is lost" in self.log())
        eventually(lambda: self.readiness()["controller"] == "connected")
        self.assertIn("again", eventually(lambda: self.call(self.session(), "echo", {"text": "again"})[1]))
        # And for good: it still answers, and says what it can.
        self.stop(self.host)
        eventually(lambda: self.readiness() == {"status": "ready", "controller": "away"})
        self.assertEqual(self.status("/healthz", token=None), 200)

    def test_gone_while_the_link_was_lost(self):
        """What a controller that comes back does not tell of any more has been taken back meanwhile."""
        self.start_host()
        self.start()
        self.session()
        self.stop(self.host)
        eventually(lambda: self.readiness()["controller"] == "away")
        self.assertNotEqual(self.status("/servers/echo/mcp"), 404)
        self.start_host(name="other")
        eventually(lambda: self.readiness()["controller"] == "connected")
        self.assertEqual(self.status("/servers/echo/mcp"), 404)
        self.assertNotEqual(self.status("/servers/other/mcp"), 404)

    def test_controller_of_another_version(self):
        """Nothing is taken from one that does not greet, or greets in another version, and the log says which."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(listener.close)
        listener.settimeout(10)
        listener.bind(str(self.socket))
        self.socket.chmod(0o666)
        listener.listen()
        self.start()
        for first, why in (({"kind": "hello", "version": 1000000}, "it speaks version 1000000 of the link"), ({"kind": "synced"}, "its first message is no greeting")):
            link, _ = listener.accept()
            with link:
                link.settimeout(10)
                link.send(json.dumps(first).encode())
                self.assertEqual(link.recv(65536), b"")
            eventually(lambda: why in self.log())  # pylint: disable=cell-var-from-loop
            self.assertEqual(self.readiness()["controller"], "away")

    def test_controller_that_stays_away(self):
        """Nobody could tell of a revocation: what runs is used on for a while, and not for ever."""
        self.write_conf(controller_grace="1500ms")
        self.start_host()
        self.start()
        session = self.session()
        # The link alone ends, as when the controller is killed; its servers run on.
        elsewhere = self.socket.rename(self.dir / "elsewhere.sock")
        self.tell_host(do="close")
        eventually(lambda: self.readiness()["controller"] == "away")
        self.assertIn("meanwhile", self.call(session, "echo", {"text": "meanwhile"})[1])
        waiting = []
        thread = threading.Thread(target=lambda: waiting.append(self.call(session, "sleep", {"ms": 20000})))
        thread.start()
        eventually(lambda: "calls stop" in self.log())
        thread.join(5)
        self.assertIs(json.loads(waiting[0][1])["error"]["data"]["retryable"], True)
        for _ in range(2):
            error = json.loads(self.call(session, "echo", {"text": "x"})[1])["error"]
            self.assertIn("gateway.controller_grace", error["message"])
            self.assertIs(error["data"]["retryable"], True)
        elsewhere.rename(self.socket)
        eventually(lambda: self.readiness()["controller"] == "connected")
        self.assertIn("again", eventually(lambda: self.call(self.session(), "echo", {"text": "again"})[1]))
        self.tell_host(do="close")
        eventually(lambda: "link to the controller is lost" in self.log().rpartition("calls stop")[2])
        eventually(lambda: self.readiness()["controller"] == "connected")
        time.sleep(2)  # one that is back in time is not away any more
        self.assertEqual(self.log().count("calls stop"), 1)
        self.assertIn("still", self.call(self.session(), "echo", {"text": "still"})[1])

    def test_approval_ends(self):
        """When its time is over, whether the controller is there to say so or not; and nothing else does."""
        for away in (False, True):
            with self.subTest(away=away):
                end = int(time.time()) + 3
                self.more_entries = ({"name": "other", "transport": "stdio", "command": [str(BUILD / "tests/rig/servers/mcp_echo")], "expires_at": end + 60},)
                self.start_host(expires_at=end)
                self.start()
                session = self.session()
                self.assertIn("before", self.call(session, "echo", {"text": "before"})[1])
                if away:
                    self.stop(self.host)
                    eventually(lambda: self.readiness()["controller"] == "away")
                waiting = []
                thread = threading.Thread(target=lambda: waiting.append(self.call(session, "sleep", {"ms": 20000})))  # pylint: disable=cell-var-from-loop
                thread.start()
                eventually(lambda: self.status("/servers/echo/mcp") == 404)
                self.assertGreaterEqual(time.time(), end)
                thread.join(5)
                self.assertIn("error", json.loads(waiting[0][1]))
                self.assertNotEqual(self.status("/servers/other/mcp"), 404)
                self.stop(self.broker)
                self.stop(self.host)
                for left in (self.socket, self.dir / "log"):
                    left.unlink(missing_ok=True)

    def test_headers_of_the_entry(self):
        """They are sent with every request to the server, and are those of the newest entry."""
        seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):  # pylint: disable=invalid-name
                seen.append((self.headers["Host"], self.headers["X-Tenant"]))
                self.send_error(503)

            def log_message(self, *_):  # pylint: disable=arguments-differ
                pass
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.addCleanup(server.server_close)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        entry = {"name": "web", "transport": "streamable-http", "port": server.server_port, "headers": ["Host: tools.example", "X-Tenant: one"]}
        self.more_entries = (entry,)
        self.start_host()
        self.start()
        eventually(lambda: len(seen) > 1)
        self.assertEqual(set(seen), {("tools.example", "one")})
        seen.clear()
        self.tell_host(do="add", entry={**entry, "headers": ["X-Tenant: two"]})
        eventually(lambda: (f"127.0.0.1:{server.server_port}", "two") in seen)

    def test_ends_with_answers(self):
        self.start_host()
        self.start()
        session = self.session()
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(self.call(session, "sleep", {"ms": 20000})))
        waiting.start()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/servers/echo/mcp", headers={"Authorization": "Bearer secret", "Accept": "text/event-stream", **session})
        stream = connection.getresponse()
        self.assertEqual(stream.status, 200)
        in_flight = re.compile(r'bulkhead_server_calls_in_flight\{server="echo"\} 1\n')
        eventually(lambda: in_flight.search(self.ask("GET", "/metrics")[1]))
        began = time.monotonic()
        self.broker.send_signal(signal.SIGTERM)
        self.assertEqual(self.broker.wait(timeout=5), 0)
        self.assertLess(time.monotonic() - began, 3)
        waiting.join(5)
        stream.read()  # ends properly: no IncompleteRead
        connection.close()
        status, text, _ = answers[0]
        self.assertIn(status, (200, 503))
        self.assertIs(json.loads(text)["error"]["data"]["retryable"], True)
        self.assertIn("stopping", self.log())


if __name__ == "__main__":
    unittest.main(verbosity=2)
