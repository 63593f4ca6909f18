"""Egress from real containers: the attempts that must fail, each beside what is allowed, judged by what arrives on the far side."""
import json
import os
import pathlib
import subprocess
import tempfile
import time
import unittest

from attached import Attached
from host import Host
from rig import TOP, eventually, rig, run

import egress_probe

LISTED, LISTED_UDP, SIBLING_LISTED, UNLISTED, RESOLVER = "198.51.100.10", "192.0.2.20", "192.0.2.10", "192.0.2.11", "198.51.100.53"
# No such thing can arrive at the far side or be made, with or without rules: bridges of their own, and addresses of the host itself.
NOT_FAR = {"13-gateway-ports", "14-host-addresses", "15-sibling-tcp", "15-sibling-udp", "15-sibling-frame", "16-ipv6-link-local", "16-router-advertisement",
           "6-packet-socket", "18-spoofed-sibling", "18-spoofed-foreign", "16-ipv6-tcp", "16-ipv6-udp", "12-metadata-v6", "17-6to4-and-ipip",
           "19-tcp-tiny-fragment", "19-udp-fragments", "5-sctp", "5-gre", "5-protocol-200"}


def inside(entry):
    """Begin of a command in a container's network namespace."""
    return ["nsenter", f"--net=/proc/{entry['State']['Pid']}/ns/net"]


class Prober:
    """egress_probe.py in a container's network namespace; with all capabilities, or bare like the server itself."""

    def __init__(self, container, targets, bare=False):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".json")
        json.dump(targets, self.file)
        self.file.flush()
        os.chmod(self.file.name, 0o644)
        strip = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--reuid=65532", "--regid=65532", "--clear-groups"] if bare else []
        self.process = subprocess.Popen([*inside(container), *strip, "/usr/bin/python3", str(TOP / "tests/integration/egress_probe.py"),
                                         "--targets", self.file.name, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def run(self, name):
        self.process.stdin.write(name + "\n")
        return json.loads(self.process.stdout.readline())["got"]

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.kill()
        self.process.wait()
        self.file.close()


class Servers(unittest.TestCase):
    """Two real servers on the real Engine, started by a controller."""
    limit = 120

    @classmethod
    def setUpClass(cls):
        cls.rig = rig()
        cls.host = Host()
        cls.addClassCleanup(cls.host.close)
        cls.host.start()
        cls.host.approve("one", cls.host.entry("mcp/echo:1", egress=[{"cidr": "198.51.100.0/28", "protocol": "tcp", "ports": [443]},
                                                                   {"cidr": LISTED_UDP + "/32", "protocol": "udp", "ports": [5432]}]))
        cls.host.approve("two", cls.host.entry("mcp/echo:1", transport="streamable-http", port=8080, args=["--http", "8080"],
                                               egress=[{"cidr": SIBLING_LISTED + "/32", "protocol": "tcp", "ports": [443]}]))
        for name in ("one", "two"):
            cls.host.wait_state(name, "running")
        cls.one, cls.two = cls.host.container("one"), cls.host.container("two")
        cls.address = {c["Name"]: next(iter(c["NetworkSettings"]["Networks"].values())) for c in (cls.one, cls.two)}
        mine, other = cls.address[cls.one["Name"]], cls.address[cls.two["Name"]]
        cls.targets = {
            "device": "eth0", "address": mine["IPAddress"], "gateway": mine["Gateway"], "listed": LISTED, "listed_port": 443, "udp_listed": LISTED_UDP,
            "udp_port": 5432, "unlisted": UNLISTED, "resolver": RESOLVER, "metadata": ["169.254.169.254", "168.63.129.16", "100.100.100.200"],
            "metadata6": ["fd00:ec2::254"], "host": ["192.168.77.1", "203.0.113.2", other["Gateway"]], "host_ports": [22, 53, 7001, 5000, 65535],
            "sibling": other["IPAddress"], "sibling_port": 8080, "sibling_mac": other["MacAddress"], "sibling_listed": SIBLING_LISTED, "global6": "2001:db8:2::10",
        }
        # Behind the guard: what it lets through to the host itself.
        cls.rig.host("nft", "-f", "-", input="table inet witness { counter arrived { }\n chain at { type filter hook input priority 200; policy accept; "
                     'iifname "bh*" counter name "arrived"\n }\n}\n')
        cls.addClassCleanup(cls.rig.host, "nft", "delete", "table", "inet", "witness", check=False)
        run(*inside(cls.two), "nft", "-f", "-", input="table inet witness { counter arrived { }\n chain at { type filter hook prerouting priority raw; "
            "policy accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld2-listener-report, mld-listener-report } accept\n"
            'iifname "lo" accept\n counter name "arrived"\n }\n}\n')

    def setUp(self):
        # A test that spoke to a server's standard input, or ended it, leaves a new process behind.
        def running(name):
            c = self.host.container(name)
            return c if c["State"]["Running"] and c["State"]["Pid"] else None
        for name in ("one", "two"):
            setattr(type(self), name, eventually(f"{name} runs", 60, lambda n=name: running(n)))

    def arrived(self):
        """Packets at the far side, at the sibling, at the host itself, and contacts at the host's own listeners."""
        witnesses = [run(*where, "nft", "-j", "list", "counter", "inet", "witness", "arrived").stdout for where in (inside(self.two), self.rig.in_host())]
        sibling, host = (json.loads(text)["nftables"][-1]["counter"]["packets"] for text in witnesses)
        log = self.rig.run_dir / "host.jsonl"
        return self.rig.far.arrived(), sibling, host, len(log.read_text().splitlines()) if log.exists() else 0

    def judge(self, prober, names, may_not_be_sent=()):
        for name in names:
            with self.subTest(name):
                before = self.arrived()
                got = prober.run(name)
                time.sleep(0.03)
                self.assertEqual(self.arrived(), before, f"something arrived ({got})")
                self.assertNotIn(got, ("reply", "connected"))
                if name in may_not_be_sent:
                    self.assertEqual(got, "eperm")

    def allowed(self, prober):
        for name in egress_probe.ALLOWED:
            with self.subTest(name):
                self.assertEqual(prober.run(name), "reply")

    def prober(self, container, **kw):
        p = Prober(container, self.targets, **kw)
        self.addCleanup(p.close)
        return p

    # -- the attempts ----------------------------------------------------------------------------------------------------
    def test_without_us_the_attempts_arrive(self):
        """From a container that is not ours, on Docker's own bridge: the far side is there, and its counter counts."""
        c = self.rig.api.create("not-ours-egress", self.rig.image("tool/busybox:1"))
        self.addCleanup(self.rig.api.remove, c)
        self.rig.api.call("POST", f"/containers/{c}/start")
        inspect = self.rig.api.inspect(c)
        mine = inspect["NetworkSettings"]
        prober = Prober(inspect, {**self.targets, "address": mine["IPAddress"], "gateway": mine["Gateway"]})
        self.addCleanup(prober.close)
        for name in egress_probe.ATTEMPTS:
            if name in NOT_FAR:
                continue
            with self.subTest(name):
                before = self.rig.far.arrived()
                got = prober.run(name)
                time.sleep(0.03)
                self.assertGreater(self.rig.far.arrived(), before, got)
        self.allowed(prober)

    def test_with_every_capability(self):
        """As if a server had broken out of its own process, but not out of its network."""
        prober = self.prober(self.one)
        self.allowed(prober)
        self.judge(prober, egress_probe.ATTEMPTS)
        self.allowed(prober)

    def test_without_capabilities(self):
        prober = self.prober(self.one, bare=True)
        self.allowed(prober)
        self.judge(prober, egress_probe.ATTEMPTS, may_not_be_sent=egress_probe.NEEDS_RAW)

    def test_from_the_servers_own_process(self):
        """Through its own tool, with its own seccomp profile."""
        with Attached(self.rig.engine_socket, self.one["Id"]) as server:
            text, _ = server.tool("connect", host=LISTED, port=443, proto="tcp")
            self.assertEqual(text, "connected")
            text, _ = server.tool("connect", host=LISTED_UDP, port=5432, proto="udp")
            self.assertEqual(text, "connected")
            before = self.arrived()
            tries = [(UNLISTED, 443, "tcp"), (LISTED, 80, "tcp"), (LISTED, 443, "udp"), (LISTED, 0, "icmp"), (LISTED, 443, "sctp"), (LISTED, 0, "gre"),
                     (LISTED, 0, "icmp-raw"), (LISTED, 0, "packet"), (RESOLVER, 53, "udp"), (RESOLVER, 53, "tcp"), ("169.254.169.254", 80, "tcp"),
                     (self.targets["gateway"], 22, "tcp"), ("192.168.77.1", 7001, "tcp"), ("192.168.77.1", 7001, "udp"), (self.targets["sibling"], 8080, "tcp"),
                     ("2001:db8:2::10", 443, "tcp"), ("::ffff:192.0.2.11", 443, "tcp"), ("fd00:ec2::254", 80, "tcp")]
            for address, port, proto in tries:
                with self.subTest(f"{proto} {address}:{port}"):
                    text, _ = server.tool("connect", host=address, port=port, proto=proto, timeout_ms=300)
                    self.assertNotEqual(text, "connected")
                    self.assertEqual(self.arrived(), before)
        # Its standard input ended with the stream, and so did it: the next test waits for the one that follows.
        started = self.one["State"]["StartedAt"]
        eventually("the server is started again", 20, lambda: self.host.container("one")["State"]["StartedAt"] > started)

    def test_first_instructions_of_a_server(self):
        """A server that tries from its first instruction on, in the smoke test and after it: nothing has ever arrived."""
        before = self.rig.far.arrived()
        entry = self.host.entry("mcp/echo:1", args=["--probe", UNLISTED, "443", "2000"], egress=[{"cidr": LISTED + "/32", "protocol": "tcp", "ports": [80]}])
        self.host.approve("eager", entry)
        self.host.wait_state("eager", "running")
        time.sleep(2.2)
        self.assertEqual(self.rig.far.arrived(), before)
        self.host.settle()
        servers = self.host.read_registry()
        del servers["eager"]
        self.host.write_registry(servers)
        eventually("it is gone", 10, lambda: all(c["Labels"]["io.bulkhead.server"] != "eager" for c in self.host.containers()))

    # -- while somebody tampers --------------------------------------------------------------------------------------------
    def flood(self, container):
        """UDP to an unlisted address, about once a millisecond, until the returned function is called."""
        code = ("import socket,time\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
                f"while True:\n try: s.sendto(b'leak',('{UNLISTED}',443))\n except OSError: pass\n time.sleep(0.001)\n")
        process = subprocess.Popen([*inside(container), "/usr/bin/python3", "-c", code])

        def stop():
            process.kill()
            process.wait()
        self.addCleanup(stop)
        sent = self.sent(container)
        time.sleep(0.3)
        self.assertGreater(self.sent(container), sent + 20, "the flood does not flow")
        return stop

    @staticmethod
    def sent(container):
        """Packets that left the container's interface, wherever they ended."""
        lines = pathlib.Path(f"/proc/{container['State']['Pid']}/net/dev").read_text().splitlines()
        return int(next(line for line in lines if "eth0:" in line).partition(":")[2].split()[9])

    @classmethod
    def again(cls):
        """From the beginning, for the tests behind this one."""
        cls.doClassCleanups()
        cls.setUpClass()

    def leaked(self):
        return self.rig.far.seen().get((UNLISTED, "udp", 443), 0)

    def test_nothing_leaks_while_iptables_is_flushed(self):
        self.flood(self.one)
        before = self.leaked()
        for _ in range(10):
            self.rig.host("iptables", "-w", "-F")
            time.sleep(0.15)
        self.rig.host("iptables", "-w", "-F", "DOCKER-USER")
        eventually("the rules are back", 5, lambda: self.host.cli("egress", "verify", check=False).returncode == 0)
        self.assertEqual(self.leaked(), before)
        self.allowed(self.prober(self.one))

    def test_little_leaks_while_everything_is_flushed(self):
        """The guard itself is gone as well: what gets through is bounded by its repair within a second."""
        self.flood(self.one)
        before = self.leaked()
        self.rig.host("nft", "delete", "table", "inet", "bulkhead")
        eventually("the rules are back", 5, lambda: self.host.cli("egress", "verify", check=False).returncode == 0)
        time.sleep(0.1)
        after = self.leaked()
        self.assertLess(after - before, 1000)
        time.sleep(0.5)
        self.assertEqual(self.leaked(), after)

    def test_nothing_leaks_while_dockerd_is_killed_and_restarted(self):
        stop = self.flood(self.one)
        before = self.leaked()
        self.rig.engine_control("kill")
        time.sleep(0.5)
        self.rig.engine_control("start")
        self.rig.engine_control("wait")
        self.host.wait_state("one", "running", seconds=60)
        self.host.wait_state("two", "running", seconds=60)
        self.host.settle(60)
        stop()
        self.assertEqual(self.leaked(), before)
        self.again()
        self.allowed(self.prober(self.one))

    # -- the host's own users ------------------------------------------------------------------------------------------------
    def talk(self, user):
        code = ("import socket,sys\ns=socket.socket(); s.settimeout(1)\ntry:\n s.connect((sys.argv[1],8080)); "
                "s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); print('answer' if s.recv(4) else 'end')\nexcept OSError as e: print(type(e).__name__)\n")
        return self.rig.host("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "/usr/bin/python3", "-c", code, self.targets["sibling"]).stdout.strip()

    def test_only_the_brokers_uid_reaches_a_server(self):
        self.assertEqual(self.talk(self.rig.env["RIG_BROKER"]), "answer")
        before = self.arrived()
        for user in (self.rig.env["RIG_NOBODY"], self.rig.env["RIG_USER"]):
            self.assertNotIn(self.talk(user), ("answer", "end"), user)
        self.assertEqual(self.arrived(), before)

    def test_revoked_permission_cuts_a_live_flow(self):
        """Attempt 23: the entry is replaced by one without the permission; what was open goes silent."""
        code = (f"import socket,time\ns=socket.create_connection(('{LISTED}',443),2); s.settimeout(5)\n"
                "while True:\n s.sendall(b'x'); s.recv(16); print('.', flush=True); time.sleep(0.02)\n")
        process = subprocess.Popen([*inside(self.one), "/usr/bin/python3", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for _ in range(5):
            self.assertEqual(process.stdout.readline(), ".\n")
        self.host.cli("revoke", "--server", "one", "--key", self.host.key, "--reason", "a test")
        time.sleep(2)
        before = self.rig.far.seen().get((LISTED, "tcp", 443), 0)
        time.sleep(0.5)
        self.assertEqual(self.rig.far.seen().get((LISTED, "tcp", 443), 0), before)
        self.again()
