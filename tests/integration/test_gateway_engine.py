"""The whole way of a call, as on a host: a client, bulkhead-broker, the link, bulkhead-controller, and servers in their sealed containers on a real Engine."""
import concurrent.futures
import contextlib
import json
import os
import re
import signal
import threading
import time
import unittest

from callers import Port, Refused
from host import TOKEN, Host
from rig import eventually, rig

SMALL = {"resources": {"memory": "64m", "tmpfs": "8m"}}
HTTP = {"transport": "streamable-http", "port": 8080, "args": ["--http", "8080"]}
STANDING = ("all", "echo", "few", "web")
SLEEPING = ("lazy", "lazyweb")


class Background(threading.Thread):
    """A call in flight: its text, or why there is none."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call, self.text, self.why, self.took = call, None, None, None
        self.start()

    def run(self):
        began = time.monotonic()
        try:
            self.text = self.call()
        except Exception as e:  # pylint: disable=broad-exception-caught
            self.why = e
        self.took = time.monotonic() - began

    def outcome(self, seconds=30):
        self.join(seconds)
        if self.is_alive():
            raise AssertionError(f"a call hangs for more than {seconds} s")
        return self.text if self.why is None else self.why


class GatewayEngine(unittest.TestCase):
    """One host with standing and sleeping servers over both transports. Each test begins and ends with controller and broker linked, and with nothing left."""
    limit = 90

    @classmethod
    def setUpClass(cls):
        cls.rig = rig()
        cls.host = Host()
        cls.addClassCleanup(cls.end)
        entry = cls.host.entry
        cls.host.start()
        idle = {"lifecycle": "on-demand", "idle_timeout": "1s"}
        cls.approve(all=entry("mcp/everything:2026.8.31"), echo=entry("mcp/echo:1", **SMALL), few=entry("mcp/echo:1", **SMALL), web=entry("mcp/echo:1", **HTTP, **SMALL),
                    lazy=entry("mcp/echo:1", **idle, **SMALL), lazyweb=entry("mcp/echo:1", **idle, **HTTP, **SMALL))
        # As if a person had approved less than the server offers.
        record = cls.host.approval("few")
        cls.host.add_record({**record, "serial": record["serial"] + 1, "tools": ["echo", "sleep"]})
        cls.host.start_broker()
        cls.gateway = cls.host.gateway

    @classmethod
    def approve(cls, **entries):
        """Host.approve() of several, with their smoke tests side by side."""
        proposals = {name: cls.host.propose(name, entry) for name, entry in entries.items()}
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda p: cls.host.cli("smoke", p, timeout=120), proposals.values()))
        for proposal in proposals.values():
            cls.host.cli("approve", proposal, "--key", cls.host.key, "--expires", "24h", "--yes")
            cls.host.cli("promote", proposal)

    @classmethod
    def end(cls):
        try:
            cls.host.stop_broker()
            cls.host.stop()
        finally:
            cls.host.close()

    def setUp(self):
        # Where a test failed in the middle, the next one is not to fail with it.
        if not self.host.alive():
            self.host.start(init=False)
        if not self.host.broker or self.host.broker.poll() is not None:
            self.host.start_broker()
        self.rests()

    def tearDown(self):
        self.assertTrue(self.host.alive())
        self.assertIsNone(self.host.broker.poll())

    def rests(self):
        """Standing servers answer, the others sleep, nothing is under way, and of all that ran before there is no container or network left."""
        for name in STANDING:
            eventually(f"{name} answers", 30, lambda n=name: self.gateway.tool(f"/servers/{n}/mcp", "echo", **self.echo_arguments(n, "x")))
        for name in SLEEPING:
            self.host.wait_state(name, "stopped", 15)
        self.host.settle()
        self.assertEqual(sorted(c["Labels"]["io.bulkhead.server"] for c in self.host.containers(role=None)), sorted(STANDING))
        self.assertEqual(sorted(n["Labels"]["io.bulkhead.server"] for n in self.host.networks()), sorted(STANDING))
        self.assertEqual(self.metric("bulkhead_calls_in_flight"), 0)
        self.assertEqual(self.metric("bulkhead_http_streams"), 0)

    @staticmethod
    def echo_arguments(name, text):
        return {"message" if name == "all" else "text": text}

    # -- looking ---------------------------------------------------------------------------------------------------------
    def metric(self, name):
        status, _, text = self.gateway.request("GET", "/metrics")
        self.assertEqual(status, 200)
        return next(float(line.split()[-1]) for line in text.splitlines() if line.split(" ")[0] == name)

    def metrics(self, name):
        text = self.gateway.request("GET", "/metrics")[2]
        return {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line.startswith(name + "{")}

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.host.broker.pid}/fd"))

    def started(self, name):
        return self.host.container(name)["State"]["StartedAt"]

    def refused(self, call, *args, **kw):
        with self.assertRaises(Refused) as raised:
            call(*args, **kw)
        return raised.exception

    def works_again(self, name, seconds):
        began = time.monotonic()
        eventually(f"{name} answers again", seconds, lambda: self.gateway.tool("/mcp", f"{name}__echo", text="again") == "again")
        return time.monotonic() - began

    def in_flight(self, name, ms=20000):
        """A call that the server works at when this returns."""
        before = self.metric("bulkhead_calls_in_flight")
        call = Background(lambda: self.gateway.tool("/mcp", f"{name}__sleep", ms=ms))
        eventually("the call is in flight", 10, lambda: call.why or self.metric("bulkhead_calls_in_flight") > before)
        time.sleep(0.2)
        self.assertIsNone(call.why)
        return call

    def retryable(self, call):
        """It failed, and says that it may be tried again."""
        why = call.outcome()
        self.assertIsInstance(why, Refused)
        self.assertIs(why.retryable, True, why)
        self.assertLess(call.took, 10)

    # -- every server, through every way in --------------------------------------------------------------------------------
    def test_calls_of_both_eras(self):
        for name in ("echo", "web", "all"):
            with self.subTest(name), self.gateway.client(f"/servers/{name}/mcp") as legacy, self.gateway.client() as merged:
                arguments = lambda text, n=name: self.echo_arguments(n, text)
                answer = lambda text, n=name: f"Echo: {text}" if n == "all" else text
                self.assertRegex(legacy.session, "^[!-~]{16,}$")
                self.assertEqual(legacy.tool("echo", **arguments("legacy")), answer("legacy"))
                self.assertEqual(merged.tool(f"{name}__echo", **arguments("merged")), answer("merged"))
                self.assertEqual(self.gateway.tool(f"/servers/{name}/mcp", "echo", **arguments("modern")), answer("modern"))
                self.assertEqual(self.gateway.tool("/mcp", f"{name}__echo", **arguments("modern, merged")), answer("modern, merged"))
                self.assertEqual(legacy.end(), 200)
                self.assertEqual(self.refused(legacy.tool, "echo", **arguments("after its end")).status, 404)
        self.assertEqual(self.refused(self.gateway.call, "/mcp", "echo", {"text": "without a prefix"}).error["code"], -32602)
        self.assertEqual(self.refused(self.gateway.call, "/servers/nobody/mcp", "echo", {"text": "x"}).status, 404)

    def test_names_are_those_of_the_approvals(self):
        tools = {name: self.host.approval(name)["tools"] for name in (*STANDING, *SLEEPING)}
        names = sorted(f"{name}__{tool}" for name, of in tools.items() for tool in of)
        # Those that sleep are started for the first list of all, which does not wait for them for long.
        eventually(f"all are listed: {names}", 30, lambda: sorted(self.gateway.names()) == names)
        with self.gateway.client() as client:
            self.assertEqual(client.names(), self.gateway.names())
        for name in STANDING:
            self.assertEqual(sorted(self.gateway.names(f"/servers/{name}/mcp")), sorted(tools[name]))

    def test_what_was_not_approved_is_withheld(self):
        self.assertEqual(sorted(self.gateway.names("/servers/few/mcp")), ["echo", "sleep"])
        self.assertEqual([n for n in self.gateway.names() if n.startswith("few__")], ["few__echo", "few__sleep"])
        self.assertIn("uid", self.gateway.tool("/servers/echo/mcp", "status"))
        withheld = self.refused(self.gateway.call, "/servers/few/mcp", "status")
        self.assertEqual(withheld.body.replace("status", "st4tus"), self.refused(self.gateway.call, "/servers/few/mcp", "st4tus").body)
        self.assertEqual(withheld.error["code"], -32602)
        self.assertEqual(self.refused(self.gateway.call, "/mcp", "few__status").error["code"], -32602)
        with self.gateway.client("/servers/few/mcp") as client:
            self.assertEqual(client.tool("echo", text="approved"), "approved")
            self.assertEqual(self.refused(client.tool, "status").error["code"], -32602)

    def test_definitions_are_those_of_the_approvals(self):
        """Of an honest server nothing is withheld: a real one's lists come as its smoke test saw them."""
        evidence = next(p for p in self.host.paths() if re.fullmatch(r"all/f-[0-9a-f]+\.smoke\.json", p))
        manifest = json.loads(json.loads(self.host.show(evidence))["smoke"]["manifest"])
        for kind, method, key in (("tools", "tools/list", "name"), ("prompts", "prompts/list", "name"), ("resources", "resources/list", "uri"),
                                  ("resourceTemplates", "resources/templates/list", "uriTemplate")):
            got, cursor = [], {}
            while cursor is not None:
                page = self.gateway.ask("/servers/all/mcp", method, cursor)
                got += page[kind]
                cursor = {"cursor": page["nextCursor"]} if "nextCursor" in page else None
            approved = [i for i in manifest[kind] if kind != "tools" or i["name"] in self.host.approval("all")["tools"]]
            self.assertEqual(sorted(got, key=lambda item, k=key: item[k]), approved, kind)
            self.assertTrue(got, kind)
        self.assertEqual(sum(v for k, v in self.metrics("bulkhead_server_withheld").items()), 0)
        self.assertNotIn("withheld", self.host.cli("status").stdout)

    def test_rug_pull(self):
        """What is described otherwise after its approval does not exist any more, and `status` says so."""
        self.approve(rug=self.host.entry("mcp/hostile:1", args=["call-rug-pull"], **SMALL))
        try:
            for text in ("one", "two"):
                eventually("the server answers", 30, lambda t=text: self.gateway.tool("/servers/rug/mcp", "a", text=t) == t)
            eventually("the tool is gone", 10, lambda: self.gateway.names("/servers/rug/mcp") == ["b"])
            self.assertEqual(self.refused(self.gateway.call, "/servers/rug/mcp", "a", {"text": "x"}).error["code"], -32602)
            self.assertEqual(self.gateway.tool("/servers/rug/mcp", "b", text="still"), "still")
            eventually("status says so", 10, lambda: self.host.server("rug").get("withheld") == ["tool a"])
            self.assertIn("withheld, since it differs from what was approved: tool a of server rug", self.host.cli("status").stdout)
            self.assertIn("Withheld", self.host.cli("status", "rug").stdout)
        finally:
            self.host.write_registry({k: v for k, v in self.host.read_registry().items() if k != "rug"})
            self.host.settle()

    def test_token(self):
        for token in (None, "", "wrong", TOKEN[:-1], TOKEN + "x"):
            for method, path in (("POST", "/mcp"), ("POST", "/servers/echo/mcp"), ("GET", "/mcp"), ("GET", "/metrics"), ("POST", f"/mcp?token=wrong")):
                status, headers, text = Port(self.host.settings.get("gateway.listen", "127.0.0.1:8080"), token).request(method, path, "{}" if method == "POST" else None)
                self.assertEqual(status, 401, (token, method, path))
                self.assertTrue(headers["WWW-Authenticate"].startswith("Bearer"))
                self.assertNotIn("echo", text)
        self.assertEqual(self.gateway.tool("/mcp", "echo__echo", text="right"), "right")

    def test_only_the_broker_reaches_a_servers_address(self):
        inspect = self.host.container("web")
        address = next(iter(inspect["NetworkSettings"]["Networks"].values()))["IPAddress"]
        reached = {user: self.rig.host("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "curl", "-s", "-o", "/dev/null", "-m", "2", "-w", "%{http_code}",
                                       f"http://{address}:8080/mcp", check=False).stdout for user in (self.rig.env["RIG_NOBODY"], self.rig.env["RIG_BROKER"])}
        self.assertEqual(reached[self.rig.env["RIG_NOBODY"]], "000")
        self.assertNotEqual(reached[self.rig.env["RIG_BROKER"]], "000")
        self.assertEqual(self.gateway.tool("/servers/web/mcp", "echo", text="through the broker"), "through the broker")

    def test_operators_see_the_broker(self):
        status = self.host.status()
        self.assertTrue(status["gateway"]["broker"]["linked"])
        self.assertEqual(status["gateway"]["broker"]["user"], self.rig.env["RIG_BROKER"])
        self.assertNotIn("no broker is linked", self.host.cli("status").stdout)
        self.assertTrue(all(self.host.server(name)["session"] for name in ("all", "echo", "few")))
        checks = {c["name"]: c["level"] for c in self.host.json("doctor", check=False)["checks"]}
        self.assertEqual((checks["broker"], checks["gateway token"], checks["broker user"]), ("ok", "ok", "ok"))

    def test_quarantine_beside_the_broker(self):
        """A smoke test needs no broker, and the broker knows nothing of what is being tested."""
        for name, more in (("new", {}), ("newweb", HTTP)):
            proposal = self.host.propose(name, self.host.entry("mcp/echo:1", **more, **SMALL))
            smoke = Background(lambda p=proposal: self.host.cli("smoke", p, timeout=60))
            while smoke.is_alive():
                self.assertEqual(self.refused(self.gateway.call, f"/servers/{name}/mcp", "echo", {"text": "x"}).status, 404)
                self.assertEqual(self.gateway.tool("/mcp", "echo__echo", text="meanwhile"), "meanwhile")
            self.assertEqual(smoke.outcome().returncode, 0)

    # -- on demand -----------------------------------------------------------------------------------------------------------
    def test_on_demand(self):
        since = time.time()
        self.assertTrue(all(self.host.server(name)["asleep"] for name in SLEEPING))
        self.assertIn("asleep until somebody calls: lazy, lazyweb", self.host.cli("plan").stdout)
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            texts = [(name, str(i)) for i in range(6) for name in SLEEPING]
            self.assertEqual(list(pool.map(lambda t: self.gateway.tool("/mcp", f"{t[0]}__echo", text=t[1]), texts)), [text for _, text in texts])
        self.assertEqual(self.starts(since), [1, 1])
        # They stay while they are used, longer than their idle time: by many calls, and by one.
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for name in SLEEPING:
                self.assertEqual(self.gateway.tool(f"/servers/{name}/mcp", "echo", text="used"), "used")
            time.sleep(0.2)
        calls = [Background(lambda n=name: self.gateway.tool(f"/servers/{n}/mcp", "sleep", ms=2500)) for name in SLEEPING]
        self.assertEqual([call.outcome() for call in calls], ["slept", "slept"])
        self.assertEqual(self.starts(since), [1, 1])
        for name in SLEEPING:
            self.host.wait_state(name, "stopped", 15)
        self.host.settle()
        self.assertEqual(sorted(c["Labels"]["io.bulkhead.server"] for c in self.host.containers()), sorted(STANDING))
        # What they offer is known without waking them.
        self.assertLessEqual({f"{name}__echo" for name in SLEEPING}, set(self.gateway.names()))
        self.assertEqual(self.starts(since), [1, 1])
        for name in SLEEPING:
            with self.gateway.client(f"/servers/{name}/mcp") as client:
                self.assertEqual(client.tool("echo", text="once more"), "once more")
        self.assertEqual(self.starts(since), [2, 2])

    def starts(self, since):
        return [len(self.host.starts(name, since)) for name in SLEEPING]

    # -- ends ----------------------------------------------------------------------------------------------------------------
    def test_killed_server(self):
        for name in ("echo", "web"):
            with self.subTest(name):
                call = self.in_flight(name)
                self.rig.api.call("POST", f"/containers/{self.host.container(name)['Id']}/kill")
                self.retryable(call)
                self.assertLess(self.works_again(name, 15), 10)

    def test_killed_broker(self):
        web, echo, restarts = self.started("web"), self.started("echo"), self.host.server("echo")["restarts"]
        client = self.gateway.client("/servers/web/mcp")
        calls = [self.in_flight(name) for name in ("echo", "web")]
        self.host.stop_broker(signal.SIGKILL)
        for call in calls:
            self.assertNotIsInstance(call.outcome(), str)
        self.assertFalse(self.host.status()["gateway"]["broker"]["linked"])
        self.host.start_broker()
        for name in ("echo", "web"):
            self.assertLess(self.works_again(name, 15), 10)
        self.assertEqual(self.started("web"), web)
        self.assertNotEqual(self.started("echo"), echo)
        self.assertEqual(self.host.server("echo")["restarts"], restarts)
        # Its session was the broker's.
        with contextlib.closing(client.connection):
            client.connection = self.gateway.connection()
            self.assertEqual(self.refused(client.tool, "echo", text="x").status, 404)

    def test_broker_that_ends_in_order(self):
        call = self.in_flight("web")
        began = time.monotonic()
        self.host.stop_broker()
        self.assertLess(time.monotonic() - began, 5)
        self.retryable(call)
        self.host.start_broker()

    def test_killed_controller(self):
        web = self.started("web")
        done, failed, over = [], [], threading.Event()

        def caller():
            with self.gateway.client("/servers/web/mcp") as client:
                while not over.is_set():
                    for call in (lambda: client.tool("echo", text="on"), lambda: self.gateway.tool("/mcp", "web__echo", text="on")):
                        try:
                            call()
                            done.append(time.monotonic())
                        except Exception as e:  # pylint: disable=broad-exception-caught
                            failed.append(e)
                    time.sleep(0.02)
        thread = threading.Thread(target=caller, daemon=True)
        thread.start()
        eventually("calls are made", 10, lambda: len(done) > 2)
        self.host.kill()
        killed = time.monotonic()
        eventually("the broker sees it", 5, lambda: '"away"' in self.gateway.request("GET", "/readyz")[2])
        self.assertEqual(self.gateway.tool("/mcp", "echo__echo", text="stdio too"), "stdio too")
        sleeping = self.refused(self.gateway.call, "/mcp", "lazy__echo", {"text": "x"})
        self.assertIs(sleeping.retryable, True, sleeping)
        eventually("calls go on", 10, lambda: done[-1] > killed + 1)
        self.host.start(init=False)
        self.host.wait_linked()
        back = time.monotonic()
        self.works_again("echo", 15)
        eventually("calls go on", 10, lambda: done[-1] > back)
        over.set()
        thread.join(10)
        self.assertEqual(failed, [])
        self.assertEqual(self.started("web"), web)

    def test_revoked(self):
        names = ("doomed", "doomedweb")
        self.addCleanup(lambda: self.host.write_registry({k: v for k, v in self.host.read_registry().items() if k not in names}))
        self.approve(doomed=self.host.entry("mcp/echo:1", **SMALL), doomedweb=self.host.entry("mcp/echo:1", **HTTP, **SMALL))
        for name in names:
            self.works_again(name, 20)
        for name in names:
            with self.subTest(name), self.gateway.client() as client, self.gateway.client(f"/servers/{name}/mcp") as own:
                self.assertIn(f"{name}__echo", client.names())
                self.assertEqual(client.tool(f"{name}__echo", text="still"), "still")
                self.assertEqual(own.tool("echo", text="still"), "still")
                call = self.in_flight(name)
                self.host.cli("revoke", self.host.approval(name)["id"], "--key", self.host.key, "--reason", "a test")
                began = time.monotonic()
                why = call.outcome()
                took = [time.monotonic() - began]
                eventually("calls fail", 5, lambda n=name: self.is_gone(n))
                took.append(time.monotonic() - began)
                self.assertLess(max(took), 2, took)
                self.assertIsInstance(why, Refused)
                self.assertIs(why.retryable, False, why)
                for tools in (self.gateway.names(), client.names()):
                    self.assertNotIn(f"{name}__echo", tools)
                    self.assertIn("echo__echo", tools)
                self.assertEqual(self.refused(client.tool, f"{name}__echo", text="x").error["code"], -32602)
                self.assertEqual(self.refused(own.tool, "echo", text="x").status, 404)
                self.assertEqual(client.tool("echo__echo", text="the others"), "the others")

    def is_gone(self, name):
        try:
            self.gateway.tool("/mcp", f"{name}__echo", text="x")
        except Refused as e:
            return e.error.get("code") == -32602
        return False

    def test_nothing_is_left_of_many_callers(self):
        """Descriptors come back to what they were: sessions that end, sessions that are left, callers that hang up in the middle."""
        def caller(i):
            for name in ("echo", "web", "all"):
                client = self.gateway.client(f"/servers/{name}/mcp")
                client.tool("echo", **self.echo_arguments(name, str(i)))
                if i % 2:
                    client.end()
                else:
                    with self.gateway.socket() as s:
                        s.sendall(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n")
                client.connection.close()

        def round_of_callers():
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                list(pool.map(caller, range(16)))
            time.sleep(0.5)
        # The first brings the connections to HTTP servers that are kept.
        round_of_callers()
        before = self.descriptors()
        for _ in range(2):
            round_of_callers()
        eventually(f"there are {before} descriptors again", 20, lambda: self.descriptors() <= before)
