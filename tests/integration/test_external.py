"""An external server, which nobody here runs: through the gate, called through the gateway, and withdrawn when it offers something else, leaves or is revoked."""
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

from brokered import fixture, record
from callers import Refused
from host import Host
from rig import eventually, rig
from test_gateway_clients import everything

RIG = pathlib.Path(__file__).resolve().parents[1] / "rig"
sys.path.insert(0, str(RIG))
from tls_front import Authority, pin  # noqa: E402

PORT, OTHER = 14483, 14484
NAME = "mcp.tools.example"
INITIALIZE = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize",
                         "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}})


class External(unittest.TestCase):
    limit = 180

    @classmethod
    def setUpClass(cls):
        cls.rig = rig()
        cls.host = Host()
        cls.addClassCleanup(cls.end)
        cls.servers = {}
        cls.serve(PORT)
        cls.serve(OTHER)
        cls.host.start()
        cls.host.approve("outside", {"url": f"http://127.0.0.1:{PORT}/mcp", "transport": "streamable-http", "tools": {"echo": {"action": "read"}}})
        cls.host.start_broker()
        cls.gateway = cls.host.gateway

    @classmethod
    def end(cls):
        try:
            for port in list(cls.servers):
                cls.leave(port)
            cls.host.stop_broker()
            cls.host.stop()
        finally:
            cls.host.close()

    @classmethod
    def serve(cls, port, *args):
        process = subprocess.Popen(cls.rig.in_host(fixture("mcp_echo"), "--http", str(port), *args), stderr=subprocess.DEVNULL)
        record(pathlib.Path(cls.host.dir, f"outside-{port}.pid"), process)
        cls.servers[port] = process
        eventually(f"port {port} answers", 10, lambda: cls.fetch(port, "root") == 200)

    @classmethod
    def leave(cls, port):
        process = cls.servers.pop(port)
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    @classmethod
    def fetch(cls, port, user):
        """HTTP status of an initialize, as that user of the host; 0 = it is not reached."""
        done = cls.rig.host("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "3",
                            "-H", "Content-Type: application/json", "-H", "Accept: application/json, text/event-stream", "-d", INITIALIZE,
                            f"http://127.0.0.1:{port}/mcp", check=False)
        return int(done.stdout or 0)

    def ask_again(self):
        """A controller that starts takes nobody's word from before."""
        self.host.stop()
        self.host.start(init=False)

    def echoes(self, text):
        return self.gateway.tool("/mcp", "outside__echo", text=text) == text

    def refusal(self, text):
        """Why a call is refused; "": it is not."""
        try:
            self.echoes(text)
        except Refused as e:
            return str(e)
        return ""

    def test_1_called(self):
        server = self.host.wait_state("outside", "running")
        self.assertEqual((server["url"], server["verdict"]), (f"http://127.0.0.1:{PORT}/mcp", "approved"))
        self.assertNotIn("container", server)
        eventually("it is called", 20, lambda: self.echoes("hello"))
        self.assertEqual(self.gateway.tool("/servers/outside/mcp", "echo", text="alone"), "alone")
        self.assertEqual(self.host.containers(role=None), [])
        self.host.settle()
        self.assertIn(f"http://127.0.0.1:{PORT}/mcp", self.host.cli("status", "outside").stdout)

    def test_2_the_broker_reaches_it_and_nothing_else(self):
        broker, nobody = self.rig.env["RIG_BROKER"], self.rig.env["RIG_NOBODY"]
        self.assertEqual([self.fetch(PORT, broker), self.fetch(OTHER, broker)], [200, 0])
        self.assertEqual(self.fetch(OTHER, nobody), 200)
        shown = self.host.json("egress", "show", "outside")["instances"]
        self.assertEqual([(s["external"], s["in_force"], s["rules"][0]["rule"]) for s in shown], [(True, True, f"broker: tcp 127.0.0.1/32:{PORT}")])
        # What the kernel holds is looked after like everything else there.
        self.rig.host("nft", "delete", "element", "inet", "bulkhead", "external", f"{{ 127.0.0.1 . {PORT} }}")
        eventually("the permission is back", 20, lambda: self.fetch(PORT, broker) == 200)
        # As a new process finds it.
        self.ask_again()
        eventually("it is called", 20, lambda: self.echoes("after a restart"))

    def test_3_approved_tools_only(self):
        approval = self.host.approval("outside")
        self.host.add_record({**approval, "serial": approval["serial"] + 1, "tools": ["echo"]})
        eventually("the rest is withheld", 20, lambda: self.gateway.names() == ["outside__echo"])
        with self.assertRaises(Refused):
            self.gateway.tool("/mcp", "outside__sleep", ms=1)
        self.assertTrue(self.echoes("one is left"))

    def test_4_offers_something_else(self):
        self.leave(PORT)
        self.serve(PORT, "--variant", "another")
        self.ask_again()
        server = self.host.wait_state("outside", "quarantined")
        self.assertIn("manifest-mismatch", server["why"])
        eventually("callers are told", 20, lambda: "manifest-mismatch" in self.refusal("changed"))
        eventually("the broker cannot reach it", 20, lambda: self.fetch(PORT, self.rig.env["RIG_BROKER"]) == 0)
        self.leave(PORT)
        self.serve(PORT)
        self.ask_again()
        self.host.wait_state("outside", "running")
        eventually("it is called", 20, lambda: self.echoes("as before"))

    def test_5_is_away(self):
        self.leave(PORT)
        self.ask_again()
        # A controller that has just started waits for other reasons.
        eventually("it says why", 20, lambda: "nobody accepts connections" in self.host.server("outside")["why"])
        self.host.wait_state("outside", "waiting")
        # The broker hears of it a moment later, and a connection that it kept is served by a child of the server that is gone.
        eventually("callers are told", 20, lambda: "nobody accepts connections" in self.refusal("nobody"))
        self.serve(PORT)
        self.host.wait_state("outside", "running", 60)
        eventually("it is called", 20, lambda: self.echoes("back"))

    def test_6_revoked(self):
        self.host.cli("revoke", "--server", "outside", "--key", self.host.key, "--reason", "a test")
        self.host.wait_refused("outside", "revoked")
        eventually("it is no server any more", 20, lambda: self.gateway.request("POST", "/servers/outside/mcp", INITIALIZE)[0] == 404)
        eventually("the broker cannot reach it", 20, lambda: self.fetch(PORT, self.rig.env["RIG_BROKER"]) == 0)


class Beside(unittest.TestCase):
    """A host, and processes beside it that are nothing of Bulkhead's."""
    limit = 180

    @classmethod
    def begin(cls, **conf):
        cls.rig = rig()
        cls.host = Host(conf=conf)
        cls.processes = []
        cls.addClassCleanup(cls.end)

    @classmethod
    def end(cls):
        try:
            for process in cls.processes:
                process.kill()
                process.wait(10)
            cls.host.stop_broker()
            cls.host.stop()
        finally:
            cls.host.close()

    @classmethod
    def run_beside(cls, name, *argv):
        process = subprocess.Popen(cls.rig.in_host(*map(str, argv)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        record(pathlib.Path(cls.host.dir, f"{name}.pid"), process)
        cls.processes.append(process)
        return process

    @classmethod
    def end_beside(cls, process):
        cls.processes.remove(process)
        process.kill()
        process.wait(10)


class ByHttps(Beside):
    """By name and with a certificate, or by the key alone; nobody resolves the name."""

    @classmethod
    def setUpClass(cls):
        cls.folder = cls.enterClassContext(tempfile.TemporaryDirectory(prefix="bulkhead-tls-"))
        pathlib.Path(cls.folder).chmod(0o755)
        cls.authority, stranger = Authority(cls.folder, "known"), Authority(cls.folder, "stranger")
        cls.good, cls.foreign = cls.authority.issue("good", NAME), stranger.issue("foreign", NAME)
        ca_file = pathlib.Path(cls.folder, "authorities.pem")
        ca_file.write_bytes(cls.authority.certificate.read_bytes())
        cls.ca_file = ca_file
        cls.begin(**{"gateway.ca_file": str(ca_file), "gateway.start_timeout": "2s"})
        cls.run_beside("plain", fixture("mcp_echo"), "--http", str(OTHER))
        cls.show(cls.good)
        cls.host.start()
        cls.host.start_broker()

    @classmethod
    def show(cls, pair):
        """Serves with that certificate from now on."""
        front = getattr(cls, "front", None)
        if front:
            cls.end_beside(front)
        cls.front = cls.run_beside("front", sys.executable, "-B", RIG / "tls_front.py", PORT, OTHER, *pair)
        eventually("it listens", 10, lambda: cls.rig.host("curl", "-sk", "-o", "/dev/null", f"https://127.0.0.1:{PORT}/mcp", check=False).returncode == 0)

    def echoes(self, server, text):
        return self.host.gateway.tool("/mcp", f"{server}__echo", text=text) == text

    def authorities(self):
        checks = json.loads(self.host.cli("doctor", "--json", check=False).stdout)["checks"]
        return next(c for c in checks if c["name"] == "authorities")["level"]

    def test_by_name(self):
        entry = {"url": f"https://{NAME}:{PORT}/mcp", "address": "127.0.0.1", "transport": "streamable-http", "headers": {"X-Tenant": "one"}}
        self.host.approve("named", entry)
        server = self.host.wait_state("named", "running")
        self.assertEqual(server["url"], entry["url"])
        eventually("it is called", 20, lambda: self.echoes("named", "hello"))
        shown = self.host.json("egress", "show", "named")["instances"]
        self.assertEqual(shown[0]["rules"][0]["rule"], f"broker: tcp 127.0.0.1/32:{PORT}")
        # Without anybody to vouch for it, people are told before it is asked again.
        self.assertEqual(self.authorities(), "ok")
        hidden = self.ca_file.rename(self.ca_file.with_suffix(".away"))
        self.assertEqual(self.authorities(), "error")
        hidden.rename(self.ca_file)
        # Another place is another thing to approve, and so is a key that is trusted.
        for change in ({"address": "127.0.0.9"}, {"tls_pins": [pin(self.good[0])]}):
            self.host.change_entry("named", **change)
            self.host.wait_refused("named", "entry-mismatch")
            servers = self.host.read_registry()
            servers["named"] = entry
            self.host.write_registry(servers)
            self.host.wait_state("named", "running")
        # Somebody else at its place: neither the controller nor the broker says a word of a request.
        self.show(self.foreign)
        with self.assertRaises(Refused) as raised:
            self.host.gateway.tool("/servers/named/mcp", "echo", text="x")
        self.assertRegex(str(raised.exception), f"not good for {NAME}: unable to get local issuer certificate")
        self.host.stop()
        self.host.start(init=False)
        eventually("it says why", 20, lambda: "unable to get local issuer certificate" in self.host.server("named")["why"])
        self.assertEqual(self.host.server("named")["state"], "waiting")
        self.show(self.good)
        self.host.wait_state("named", "running", 60)
        eventually("it is called", 20, lambda: self.echoes("named", "again"))

    def test_by_key(self):
        entry = {"url": f"https://127.0.0.1:{PORT}/mcp", "transport": "streamable-http", "tls_pins": [pin(self.foreign[0])]}
        proposal = self.host.propose("pinned", entry)
        done = self.host.cli("smoke", proposal, check=False, timeout=120)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(pin(self.good[0]), done.stdout + done.stderr)  # what somebody who looks for the right one can compare
        self.show(self.foreign)
        self.host.approve("pinned", entry)
        self.host.wait_state("pinned", "running")
        eventually("it is called", 20, lambda: self.echoes("pinned", "hello"))
        self.show(self.good)


class FromNpm(Beside):
    """A server from npm that somebody else runs, over both transports that there are for HTTP."""
    ENTRIES = {"web": {"url": f"http://127.0.0.1:{PORT}/mcp", "transport": "streamable-http"}, "events": {"url": f"http://127.0.0.1:{OTHER}/sse", "transport": "sse"}}

    @classmethod
    def setUpClass(cls):
        cls.begin()
        cls.running = {name: cls.serve(name) for name in cls.ENTRIES}
        cls.host.start()
        cls.host.start_broker()

    @classmethod
    def serve(cls, name):
        url = cls.ENTRIES[name]["url"]
        how, port = ("streamableHttp", PORT) if name == "web" else ("sse", OTHER)
        process = cls.run_beside(name, *everything(how, PORT=port))
        # A GET: of the one it wants a session, of the other it is the session, and goes on.
        eventually(f"{name} listens", 20, lambda: cls.rig.host("curl", "-s", "-o", "/dev/null", "-m", "0.3", url, check=False).returncode in (0, 28))
        return process

    def echoes(self, server, text):
        return self.host.gateway.tool("/mcp", f"{server}__echo", message=text) == f"Echo: {text}"

    def test_called(self):
        for name, entry in self.ENTRIES.items():
            with self.subTest(name):
                self.host.approve(name, entry)
                self.host.wait_state(name, "running")
                eventually("it is called", 20, lambda name=name: self.echoes(name, "hello"))
                self.assertIn("12", self.host.gateway.tool("/mcp", f"{name}__get-sum", a=5, b=7))
                # Another process at the same place: what was approved is there again, its sessions are not.
                self.end_beside(self.running[name])
                self.serve(name)
                eventually("it is called", 60, lambda name=name: self.echoes(name, "again"))
        names = self.host.gateway.names()
        self.assertEqual({n.replace("web__", "") for n in names if n.startswith("web__")}, {n.replace("events__", "") for n in names if n.startswith("events__")})
        self.assertEqual(self.host.containers(role=None), [])


if __name__ == "__main__":
    unittest.main()
