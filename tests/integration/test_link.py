"""The controller's side of the link, with a stand-in for the broker: the catalogue, streams before and after their server's end, on-demand servers, and who comes and goes."""
import json
import socket
import time
import unittest

from host import Host
from linked import Broker, connect
from rig import eventually, rig

INITIALIZE = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize",
                         "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}})


class Case(unittest.TestCase):
    limit = 120

    def started(self, name):
        state = self.host.container(name)["State"]
        return state["StartedAt"] if state["Running"] else None

    def restarts(self, name):
        return self.host.server(name)["restarts"]

    def works(self, stream, text="hello"):
        stream.initialize()
        self.assertEqual(stream.tool("echo", text=text), (text, False))


class Link(Case):
    """One host with a stdio, an HTTP and three on-demand servers; each test begins without a broker."""

    @classmethod
    def setUpClass(cls):
        cls.rig = rig()
        cls.host = Host({"gateway.max_instances": 2, "gateway.max_memory": "400m"})
        cls.addClassCleanup(cls.host.close)
        cls.host.start()
        small = {"resources": {"memory": "64m", "tmpfs": "8m"}}
        cls.host.approve("echo", cls.host.entry("mcp/echo:1", prefix="e.", **small))
        cls.host.approve("web", cls.host.entry("mcp/echo:1", transport="streamable-http", port=8080, args=["--http", "8080"], **small))
        for name, memory in (("lazy", "64m"), ("idle", "64m"), ("large", "256m")):
            cls.host.approve(name, cls.host.entry("mcp/echo:1", lifecycle="on-demand", idle_timeout="2s", resources={"memory": memory, "tmpfs": "8m"}))

    def setUp(self):
        self.assertTrue(self.host.alive())
        for name in ("echo", "web"):
            self.host.wait_state(name, "running")
        for name in ("lazy", "idle", "large"):
            self.host.wait_state(name, "stopped")
        self.host.settle()

    def fetch(self, entry, user):
        """HTTP status of an initialize at the entry's place, as that user of the host; 0 = it is not reached."""
        done = self.rig.host("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "3",
                             "-H", "Content-Type: application/json", "-H", "Accept: application/json, text/event-stream", "-d", INITIALIZE,
                             f"http://{entry['address']}:{entry['port']}{entry['path']}", check=False)
        return int(done.stdout or 0)

    # -- the catalogue and the streams ---------------------------------------------------------------------------------
    def test_catalogue_and_stream(self):
        before, restarts = self.started("echo"), self.restarts("echo")
        with Broker(self.host) as broker:
            self.assertEqual(broker.hello, {"version": 6})
            self.assertEqual(sorted(broker.servers), ["echo", "idle", "large", "lazy", "web"])
            # It ran, and nobody could talk to it: a session begins with the process.
            self.works(broker.stream("echo"))
            self.assertNotEqual(self.started("echo"), before)
            self.assertEqual(self.restarts("echo"), restarts)
            entry = broker.servers["echo"]
            self.assertEqual((entry["transport"], entry["lifecycle"], entry["prefix"], entry["per_session"]), ("stdio", "always-on", "e.", False))
            self.assertEqual(sorted(entry["tools"]), sorted(self.host.approval("echo")["tools"]))
            self.assertNotIn("address", entry)
            self.assertEqual(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry["expires_at"])), self.host.approval("echo")["expires_at"])
            self.assertGreater(len(entry["pins"]), len(entry["tools"]))
            self.assertEqual(broker.servers["lazy"]["readiness"], "asleep")
            self.assertEqual(broker.servers["lazy"]["idle_ms"], 2000)
            self.assertNotIn("prefix", broker.servers["lazy"])
            status = self.host.status()
            self.assertTrue(status["gateway"]["broker"]["linked"])
            self.assertEqual(status["gateway"]["auth"], "token")
            self.assertTrue(self.host.server("echo")["session"])
            self.host.settle()
            checks = {c["name"]: c for c in self.host.json("doctor", check=False)["checks"]}
            self.assertEqual((checks["broker"]["level"], checks["gateway token"]["level"], checks["broker user"]["level"]), ("ok", "ok", "ok"))
        eventually("the broker's leave is seen", 5, lambda: not self.host.status()["gateway"]["broker"]["linked"])
        self.assertIn("no broker is linked", self.host.cli("status").stdout)

    def test_http_server(self):
        started = self.started("web")
        with Broker(self.host) as broker:
            entry = broker.up("web")
            self.assertEqual((entry["port"], entry["path"], entry["per_session"]), (8080, "/mcp", True))
            self.assertEqual(self.fetch(entry, self.rig.env["RIG_BROKER"]), 200)
            self.assertEqual(self.fetch(entry, self.rig.env["RIG_NOBODY"]), 0)
            self.assertNotIn("web", broker.streams)
        with Broker(self.host) as broker:
            self.assertEqual(broker.up("web")["instance"], entry["instance"])
        self.assertEqual(self.started("web"), started)

    def test_http_server_that_hangs(self):
        """Given back, it is started anew, once; what a broker says of an instance that is history means nothing."""
        started, restarts = self.started("web"), self.restarts("web")
        with Broker(self.host) as broker:
            entry = broker.up("web")
            broker.say("renew", "web", instance="0" * 12)
            for _ in range(3):
                broker.say("renew", "web", instance=entry["instance"])
            broker.until("another instance", lambda: broker.servers["web"].get("instance", entry["instance"]) != entry["instance"], seconds=30)
            again = broker.up("web")
            self.assertEqual(self.fetch(again, self.rig.env["RIG_BROKER"]), 200)
            broker.say("renew", "web", instance=entry["instance"])
            self.host.settle()
            self.assertEqual(broker.up("web")["instance"], again["instance"])
            self.assertEqual(self.restarts("web"), restarts + 1)
        self.assertNotEqual(self.started("web"), started)

    def test_http_in_a_stream_never_reaches_the_engine(self):
        request = "{} HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}"
        body = json.dumps({"Name": "smuggled"})
        attack = (request.format("POST /networks/create", len(body), body) + request.format("GET /containers/json", 0, "")).encode()
        networks = lambda: {n["Name"] for n in self.rig.api.call("GET", "/networks")}
        # On a connection of its own it would do what it says.
        with socket.socket(socket.AF_UNIX) as bare:
            bare.settimeout(10)
            bare.connect(self.rig.engine_socket)
            bare.sendall(attack)
            self.assertIn(b"HTTP/1.1 201", bare.recv(65536))
        self.assertIn("smuggled", networks())
        self.rig.api.call("DELETE", "/networks/smuggled")
        with Broker(self.host) as broker:
            stream = broker.stream("echo")
            # While it runs, the server gets it on its standard input.
            stream.socket.sendall(attack)
            self.works(stream, "still there")
            broker.streams.pop("echo")
            self.assertNotIn(b"HTTP/1.", stream.lines + stream.stderr + stream.buffer)
            # What was written before its end, in the moment of it, and long after.
            stream.socket.sendall(attack)
            self.rig.api.call("POST", f"/containers/{self.host.container('echo')['Id']}/kill")
            for _ in range(30):
                try:
                    stream.socket.sendall(attack)
                except OSError:
                    break
                time.sleep(0.02)
            eventually("the server is started anew", 20, lambda: broker.pump() or self.started("echo"))
            try:
                stream.socket.sendall(attack)
            except OSError:
                pass
            self.assertNotIn(b"HTTP/1.", stream.rest(10))
            stream.close()
        self.assertNotIn("smuggled", networks())

    # -- on-demand servers -----------------------------------------------------------------------------------------------
    def test_on_demand(self):
        self.assertTrue(self.host.server("lazy")["asleep"])
        self.assertIn("asleep until somebody calls: idle, large, lazy", self.host.cli("plan").stdout)
        since = time.time()
        with Broker(self.host) as broker:
            for _ in range(20):
                broker.say("start", "lazy")
            began = time.monotonic()
            self.works(broker.stream("lazy"))
            took = time.monotonic() - began
            self.assertEqual(len(self.host.starts("lazy", since)), 1)
            self.assertEqual(broker.refused, [])
            self.assertFalse(self.host.server("lazy")["asleep"])
            self.assertLess(took, 5)
            # The broker's silence is no reason to end it: it knows who calls.
            time.sleep(2.5)
            self.assertEqual(self.host.server("lazy")["state"], "running")
            stream = broker.streams["lazy"][1]
            broker.say("stop", "lazy")
            self.assertEqual(stream.rest(5), b"")
            broker.until("it is asleep", lambda: broker.readiness("lazy") == "asleep")
            self.host.wait_state("lazy", "stopped")
            self.host.settle()
            self.assertFalse([c for c in self.host.containers() if c["Labels"]["io.bulkhead.server"] == "lazy"])
            self.assertFalse([n for n in self.host.networks() if n["Labels"]["io.bulkhead.server"] == "lazy"])
            # And again.
            broker.drop("lazy")
            broker.say("start", "lazy")
            self.works(broker.stream("lazy"))
            broker.say("stop", "lazy")
            broker.until("it is asleep", lambda: broker.readiness("lazy") == "asleep")

    def test_nobody_to_call_it(self):
        with Broker(self.host) as broker:
            broker.say("start", "idle")
            broker.stream("idle")
        # Its idle time without a broker.
        self.host.wait_state("idle", "stopped", seconds=10)

    def test_caps(self):
        with Broker(self.host) as broker:
            broker.say("start", "lazy")
            broker.stream("lazy")
            broker.say("start", "large")  # 64 + 64 + 64 + 256 > 400
            broker.until("a refusal", lambda: broker.refused)
            self.assertEqual(broker.refused[-1][0], "large")
            self.assertIn("gateway.max_memory", broker.refused[-1][1])
            broker.say("start", "idle")
            broker.stream("idle")
            broker.say("start", "large")
            broker.until("a refusal", lambda: len(broker.refused) == 2)
            self.assertIn("gateway.max_instances", broker.refused[-1][1])
            for name in ("echo", "web", "nobody"):
                broker.say("start", name)
            broker.until("refusals", lambda: len(broker.refused) == 5)
            self.assertEqual(self.host.status()["gateway"]["instances"], 2)
            for name in ("lazy", "idle"):
                broker.say("stop", name)
            broker.until("all are asleep", lambda: {broker.readiness(n) for n in ("lazy", "idle", "large")} == {"asleep"})

    # -- who comes and goes ------------------------------------------------------------------------------------------------
    def test_broker_dies_and_comes_back(self):
        restarts = self.restarts("echo")
        web = self.started("web")
        instances = set()
        for _ in range(4):
            with Broker(self.host) as broker:
                self.works(broker.stream("echo", seconds=10))
                instances.add(broker.streams["echo"][0])
        self.assertEqual(len(instances), 4)
        self.assertEqual(self.restarts("echo"), restarts)
        self.host.wait_state("echo", "running", seconds=10)
        self.assertEqual(self.started("web"), web)

    def test_controller_dies_and_comes_back(self):
        with Broker(self.host) as broker:
            broker.say("start", "lazy")
            broker.stream("lazy")
            web, started = broker.up("web"), self.started("web")
            first = broker.stream("echo")
            self.works(first)
            self.host.kill()
            broker.until("the link's end", lambda: broker.ended)
            # Who has a stream goes on using it.
            self.assertEqual(first.tool("echo", text="alone"), ("alone", False))
            self.host.start(init=False)
            with Broker(self.host) as again:
                self.works(again.stream("echo"))
                self.works(again.stream("lazy"))
                self.assertEqual(again.up("web"), web)
                self.assertEqual(self.started("web"), started)
                again.say("stop", "lazy")
                again.until("it is asleep", lambda: again.readiness("lazy") == "asleep")

    def test_who_may_come(self):
        path = self.host.settings["link.socket"]
        for user in ("root", self.rig.env["RIG_USER"], self.rig.env["RIG_NOBODY"]):
            with connect(path, user) as link:
                link.settimeout(5)
                self.assertEqual(link.recv(1000), b"", user)
        with Broker(self.host) as broker:
            with connect(path, self.rig.env["RIG_BROKER"]) as second:
                second.settimeout(5)
                self.assertEqual(second.recv(1000), b"")
            self.works(broker.stream("echo"))
            # One that breaks the rules is cut off, and the next one may come.
            broker.link.send(b'{"kind":"start","name":"lazy","image":"another"}')
            with self.assertRaises(AssertionError):
                broker.until("nothing", lambda: False, seconds=5)
            self.assertTrue(broker.ended)
        with Broker(self.host) as broker:
            self.works(broker.stream("echo"))


class Sessions(Case):
    """Ends that are counted: a host of its own for each test, because the next one would wait longer."""

    def setUp(self):
        self.host = Host()
        self.addCleanup(self.host.close)
        self.host.start()
        self.host.approve("echo", self.host.entry("mcp/echo:1"))
        self.host.wait_state("echo", "running")
        self.rig = self.host.rig

    def test_renew(self):
        restarts = self.restarts("echo")
        with Broker(self.host) as broker:
            old = broker.stream("echo")
            first, began = broker.streams["echo"][0], time.monotonic()
            broker.streams.pop("echo")
            broker.say("renew", "echo", instance="0" * 12)
            broker.say("renew", "echo", instance=first)
            self.works(broker.stream("echo", seconds=10))
            self.assertNotEqual(broker.streams["echo"][0], first)
            self.assertEqual(old.rest(5), b"")
            old.close()
            # Given back again and again: it comes back later and later.
            for _ in range(5):
                broker.renew("echo")
                broker.drop("echo")
                broker.stream("echo", seconds=40)
            self.assertGreater(time.monotonic() - began, 1)
            self.assertEqual(self.restarts("echo"), restarts + 6)
            self.works(broker.stream("echo"))
    test_renew.limit = 180

    def test_server_ends_by_itself(self):
        with Broker(self.host) as broker:
            stream = broker.stream("echo")
            first = broker.streams["echo"][0]
            self.rig.api.call("POST", f"/containers/{self.host.container('echo')['Id']}/kill")
            self.assertEqual(stream.rest(5), b"")
            broker.drop("echo")
            broker.say("renew", "echo", instance=first)  # as a broker does that sees a stream end
            broker.until("another instance", lambda: broker.streams.get("echo", (first,))[0] != first, seconds=30)
            self.works(broker.stream("echo"))

    def test_revoked_is_gone_and_its_stream_ends(self):
        self.host.approve("other", self.host.entry("mcp/echo:1"))
        with Broker(self.host) as broker:
            stream = broker.stream("echo").initialize()
            other = broker.stream("other").initialize()
            self.host.cli("revoke", self.host.approval("echo")["id"], "--key", self.host.key, "--reason", "a test")
            began = time.monotonic()
            broker.until("it is gone", lambda: "echo" in broker.gone, seconds=2)
            self.assertEqual(stream.rest(2), b"")
            self.assertLess(time.monotonic() - began, 2)
            broker.say("start", "echo")
            broker.until("a refusal", lambda: broker.refused)
            self.assertEqual(other.tool("echo", text="x"), ("x", False))


class NoBroker(Case):

    def test_without_the_brokers_user(self):
        """Nothing changes from what there was before there was a broker."""
        with Host({"network.broker_user": "bulkhead-rig-none"}) as host:
            host.start()
            host.approve("echo", host.entry("mcp/echo:1"))
            host.wait_state("echo", "running")
            broker = host.status()["gateway"]["broker"]
            self.assertFalse(broker["listening"])
            self.assertIn("bulkhead-rig-none", broker["error"])
            self.assertEqual(len(host.starts("echo")), 1)
            warned = [c for c in host.json("doctor", check=False)["checks"] if c["name"] in ("broker", "broker user")]
            self.assertEqual([c["level"] for c in warned], ["warning", "warning"])
