"""Whatever a foreign hand does to what is ours is put right, and what is not ours is left alone."""
import contextlib
import signal
import time
import unittest

from host import Host
from rig import EngineError, body_of, eventually, rig

FOREIGN = {"some.label": "of somebody else"}


class Drift(unittest.TestCase):
    """One host with one running server for all tests: each begins and ends with an empty plan."""
    limit = 120

    @classmethod
    def setUpClass(cls):
        cls.rig = rig()
        cls.host = Host()
        cls.addClassCleanup(cls.host.close)
        cls.host.start()
        cls.host.approve("echo", cls.host.entry("mcp/echo:1", egress=[{"cidr": "192.0.2.10/32", "protocol": "tcp", "ports": [80]}]))
        cls.foreign = cls.rig.api.create("not-ours", cls.rig.image("tool/busybox:1"), labels=FOREIGN)
        cls.addClassCleanup(cls.rig.api.remove, cls.foreign)
        cls.rig.api.call("POST", f"/containers/{cls.foreign}/start")
        cls.foreign_network = cls.rig.api.call("POST", "/networks/create", {"Name": "not-ours", "Labels": FOREIGN})["Id"]
        cls.addClassCleanup(cls.rig.api.call, "DELETE", f"/networks/{cls.foreign_network}")

    def setUp(self):
        try:
            self.host.wait_state("echo", "running")
            self.host.settle()
        except AssertionError:
            # What one test broke is not the next one's fault.
            self.host.stop()
            self.host.clean_engine()
            self.host.start()
            self.host.wait_state("echo", "running", seconds=30)
            self.host.settle()
        self.before = self.host.container("echo")
        self.foreign_before = self.foreign_facts()

    def tearDown(self):
        self.assertEqual(self.foreign_facts(), self.foreign_before, "something that is not ours was touched")

    def foreign_facts(self):
        c = self.rig.api.inspect(self.foreign)
        n = self.rig.api.call("GET", f"/networks/{self.foreign_network}")
        return c["Id"], c["Name"], c["State"]["StartedAt"] if c["State"]["Running"] else None, n["Id"]

    def repaired(self, seconds=10, same=None):
        """One container, running, as it was approved, and nothing left to do. same: whether it must be the same container as before."""
        def check():
            c = self.host.container("echo")
            if not c["State"]["Running"]:
                raise AssertionError(c["State"])
            if same is not None and (c["Id"] == self.before["Id"]) != same:
                raise AssertionError(f"container {c['Id']}, before {self.before['Id']}")
            if c["Id"] == self.before["Id"] and c["State"]["StartedAt"] == self.before["State"]["StartedAt"] and same is None:
                raise AssertionError("not restarted yet")
            return c
        now = eventually("the server is as it should be", seconds, check)
        self.host.settle()
        for key in ("Memory", "NanoCpus", "PidsLimit", "ReadonlyRootfs", "CapDrop", "NetworkMode", "SecurityOpt", "Binds", "Privileged"):
            self.assertEqual(now["HostConfig"][key], self.before["HostConfig"][key], key)
        self.assertEqual(list(now["NetworkSettings"]["Networks"]), list(self.before["NetworkSettings"]["Networks"]))
        self.assertEqual(len(self.host.networks()), 1)
        self.assertReach()
        return now

    def assertReach(self):
        """The firewall again: what is allowed works, what is not does not arrive."""
        c = self.host.container("echo")["Id"]
        self.assertEqual(self.rig.api.fetch(c, "192.0.2.10"), "far 192.0.2.10:80")
        before = self.rig.far.seen().get(("192.0.2.11", "tcp", 80), 0)
        self.assertEqual(self.rig.api.fetch(c, "192.0.2.11", seconds=1), "")
        self.assertEqual(self.rig.far.seen().get(("192.0.2.11", "tcp", 80), 0), before)

    def post(self, path, body=None, **query):
        self.rig.api.call("POST", f"/containers/{self.before['Id']}{path}", body, **query)

    # -- containers ----------------------------------------------------------------------------------------------------
    def test_killed(self):
        self.post("/kill")
        self.repaired()

    def test_stopped(self):
        self.post("/stop", t=1)
        self.repaired()

    def test_paused(self):
        self.post("/pause")
        eventually("unpaused or replaced", 10, lambda: self.host.container("echo")["State"]["Status"] == "running")
        self.host.settle()

    def test_removed(self):
        self.rig.api.remove(self.before["Id"])
        self.repaired(same=False)

    def test_memory_raised(self):
        self.post("/update", {"Memory": 1 << 30, "MemorySwap": 1 << 30})
        self.repaired(same=False)

    def test_restart_policy_set(self):
        self.post("/update", {"RestartPolicy": {"Name": "always"}})
        self.repaired(same=False)

    def test_renamed(self):
        self.post("/rename", name="somebody-elses-name")
        self.repaired(same=False)

    def test_network_disconnected(self):
        network = self.before["HostConfig"]["NetworkMode"]
        self.rig.api.call("POST", f"/networks/{network}/disconnect", {"Container": self.before["Id"], "Force": True})
        self.repaired(same=False)

    def test_second_network_connected(self):
        self.rig.api.call("POST", f"/networks/{self.foreign_network}/connect", {"Container": self.before["Id"]})
        self.repaired(same=False)

    @contextlib.contextmanager
    def controller_held(self):
        """It sees what was done meanwhile all at once, however slow the machine is."""
        self.host.controller.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.host.controller.send_signal(signal.SIGCONT)

    def test_duplicate(self):
        """A second container with all our labels, running."""
        config = self.before["Config"]
        with self.controller_held():
            copy = self.rig.api.create("echo-copy", config["Image"], labels=config["Labels"])
            self.rig.api.call("POST", f"/containers/{copy}/start")
        eventually("the duplicate is gone", 10, lambda: self.gone(copy))
        self.assertEqual(self.host.container("echo")["State"]["StartedAt"], self.before["State"]["StartedAt"], "the right one was restarted as well")
        self.host.settle()

    def impostor(self, **changes):
        """The approved container made once more by a foreign hand, with every label, limit and name of ours, but for `changes` of its configuration."""
        self.host.stop()
        config = {**body_of(self.before), **changes}
        network, endpoint = next(iter(self.before["NetworkSettings"]["Networks"].items()))
        config["NetworkingConfig"] = {"EndpointsConfig": {network: {"IPAMConfig": endpoint["IPAMConfig"]}}}
        name = self.before["Name"].lstrip("/")
        self.rig.api.remove(self.before["Id"])
        made = self.rig.api.call("POST", "/containers/create", config, name=name)["Id"]
        self.host.start(init=False)
        return made

    def test_impostor_with_another_variable(self):
        made = self.impostor(Env=self.before["Config"]["Env"] + ["LD_PRELOAD=/tmp/x.so"])
        self.assertNotEqual(self.repaired(seconds=20)["Id"], made)
        self.assertEqual([e for e in self.host.starts("echo") if e["Actor"]["ID"] == made], [], "it was started")

    def test_impostor_with_another_command(self):
        made = self.impostor(Cmd=["--variant", "b"])
        self.assertNotEqual(self.repaired(seconds=20)["Id"], made)
        self.assertEqual([e for e in self.host.starts("echo") if e["Actor"]["ID"] == made], [], "it was started")

    def test_impostor_that_differs_in_nothing(self):
        """The other side: the same thing, made again, is adopted."""
        made = self.impostor()
        self.assertEqual(self.repaired(seconds=20)["Id"], made)

    def gone(self, container):
        try:
            self.rig.api.inspect(container)
        except EngineError as e:
            return e.status == 404
        return False

    def test_orphan_of_an_unknown_server(self):
        labels = {**self.before["Config"]["Labels"], "io.bulkhead.server": "nobody"}
        orphan = self.rig.api.create("orphan", self.before["Config"]["Image"], labels=labels)
        eventually("the orphan is gone", 10, lambda: self.gone(orphan))
        self.host.settle()

    def test_labels_of_another_owner_are_not_ours(self):
        labels = {**self.before["Config"]["Labels"], "io.bulkhead.owner": "another.example.org"}
        other = self.rig.api.create("another-host", self.before["Config"]["Image"], labels=labels)
        self.addCleanup(self.rig.api.remove, other)
        self.host.cli("apply", "--once")
        self.assertFalse(self.gone(other))

    def test_foreign_container_with_our_name(self):
        """It is not ours to remove: the server is blocked, says so, and comes back when the name is free."""
        self.host.stop()
        name = self.before["Name"].lstrip("/")
        self.rig.api.remove(self.before["Id"])
        squatter = self.rig.api.create(name, self.rig.image("tool/busybox:1"), labels=FOREIGN)
        self.addCleanup(self.rig.api.remove, squatter)
        self.host.start()
        server = self.host.wait_state("echo", "blocked")
        self.assertIn(name, server["why"])
        self.assertFalse(self.gone(squatter))
        self.rig.api.remove(squatter)
        self.host.wait_state("echo", "running", seconds=45)
        self.repaired(same=False)

    def test_network_removed(self):
        network = self.before["HostConfig"]["NetworkMode"]
        self.rig.api.remove(self.before["Id"])
        for _ in range(20):
            try:
                self.rig.api.call("DELETE", f"/networks/{network}", ok=(204, 404))
                break
            except EngineError:
                time.sleep(0.05)
                for c in self.host.containers():
                    self.rig.api.remove(c["Id"])
        self.repaired(same=False)

    # -- firewall --------------------------------------------------------------------------------------------------------
    def rules(self):
        """What the kernel holds of ours, counters aside. Read past the controller: asking that one would make it look, and repair."""
        nft = [self.rig.host("nft", "-s", "-t", "list", "table", "inet", "bulkhead", check=False).stdout]
        nft += [self.rig.host("nft", "-s", "list", "set", "inet", "bulkhead", name, check=False).stdout for name in ("pairs", "denied", "http", "own")]
        policy = self.rig.host("iptables-save", "-t", "filter").stdout.splitlines()
        user = ":DOCKER-USER " in "\n".join(policy)
        jumps = ("-A DOCKER-USER -j BULKHEAD-FORWARD" in policy or not user) and ("-A FORWARD -j DOCKER-USER" in policy or "-A FORWARD -j BULKHEAD-FORWARD" in policy)
        return nft, [line for line in policy if line.startswith("-A BULKHEAD-FORWARD ")], jumps, sorted(self.rig.host("ipset", "save").stdout.splitlines())

    def flushed(self, *command):
        before = self.rules()
        self.assertTrue(before[2])
        self.rig.host(*command)
        eventually("the rules are back", 5, lambda: self.rules() == before)
        eventually("all is verified", 5, self.verified)
        self.assertReach()
        self.assertEqual(self.host.container("echo")["State"]["StartedAt"], self.before["State"]["StartedAt"], "the server was restarted")

    def verified(self):
        return self.host.cli("egress", "verify", check=False).returncode == 0 and self.host.status()["egress"]["ok"]

    def test_iptables_flushed(self):
        self.flushed("iptables", "-w", "-F")

    def test_jump_removed(self):
        self.flushed("iptables", "-w", "-F", "DOCKER-USER")

    def test_policy_flushed(self):
        self.flushed("iptables", "-w", "-F", "BULKHEAD-FORWARD")

    def test_guard_deleted(self):
        self.flushed("nft", "delete", "table", "inet", "bulkhead")

    def test_guard_emptied(self):
        self.flushed("nft", "flush", "table", "inet", "bulkhead")

    def altered_while_away(self, *command):
        """Nobody was there to be told: the next start reads the kernel back and finds it."""
        before = self.rules()
        self.host.stop()
        self.rig.host(*command)
        self.assertNotEqual(self.rules(), before)
        self.host.start(init=False)
        eventually("the rules are back", 10, lambda: self.rules() == before)
        self.assertReach()

    def test_guard_altered_while_away(self):
        self.altered_while_away("nft", "insert", "rule", "inet", "bulkhead", "from_server", "accept")

    def test_guard_deleted_while_away(self):
        self.altered_while_away("nft", "delete", "table", "inet", "bulkhead")

    def test_pair_added_while_away(self):
        self.altered_while_away("nft", "add", "element", "inet", "bulkhead", "pairs", "{ bh00000000 . 10.213.99.2 }")

    def test_policy_altered_while_away(self):
        self.altered_while_away("iptables", "-w", "-I", "BULKHEAD-FORWARD", "-i", "bh+", "-j", "MARK", "--set-xmark", "0x200000/0x200000")

    def test_entry_added_while_away(self):
        self.altered_while_away("ipset", "add", "bulkhead-allow", self.host.server("echo")["address"] + ",tcp:80,192.0.2.11")

    def test_guard_is_back_within_a_second(self):
        self.rig.host("nft", "delete", "table", "inet", "bulkhead")
        eventually("the guard is back", 1, lambda: "chain" in self.rig.host("nft", "list", "table", "inet", "bulkhead", check=False).stdout, pause=0.02)
        eventually("all is verified", 5, self.verified)

    def test_sets_emptied(self):
        before = self.rules()
        names = self.rig.host("ipset", "list", "-n").stdout.split()
        self.assertTrue(names)
        for n in names:
            self.rig.host("ipset", "flush", n)
        # The kernel announces no change of a set: their sizes are asked for a few times a second.
        eventually("the entries are back", 5, lambda: self.rules() == before)
        self.assertReach()

    def test_rule_that_accepts_everything(self):
        """Before ours, where nothing behind it is asked: opens nothing. (It shuts even what is allowed, until it is gone.)"""
        c = self.host.container("echo")["Id"]
        before = self.rig.far.seen().get(("192.0.2.11", "tcp", 80), 0)
        for chain in ("FORWARD", "DOCKER-USER"):
            self.rig.host("iptables", "-w", "-I", chain, "1", "-j", "ACCEPT")
            try:
                self.assertEqual(self.rig.api.fetch(c, "192.0.2.11", seconds=1), "")
                self.assertEqual(self.rig.far.seen().get(("192.0.2.11", "tcp", 80), 0), before)
            finally:
                self.rig.host("iptables", "-w", "-D", chain, "-j", "ACCEPT", check=False)
        eventually("all is verified", 5, self.verified)
        self.assertReach()


class EngineGone(unittest.TestCase):
    """dockerd and the controller themselves go away. Last, and on a host of its own: everybody's containers end with dockerd."""
    limit = 240

    @classmethod
    def setUpClass(cls):
        cls.rig = rig()
        cls.host = Host()
        cls.addClassCleanup(cls.host.close)
        cls.host.start()
        cls.host.approve("echo", cls.host.entry("mcp/echo:1", egress=[{"cidr": "192.0.2.10/32", "protocol": "tcp", "ports": [80]}]))
        cls.foreign = cls.rig.api.create("not-ours", cls.rig.image("tool/busybox:1"), labels=FOREIGN)
        cls.addClassCleanup(cls.rig.api.remove, cls.foreign)

    def setUp(self):
        self.addCleanup(self.engine_up)
        if not self.host.alive():
            self.host.start()
        self.host.wait_state("echo", "running", seconds=60)
        self.host.settle()

    def engine_up(self):
        """A test that fails half way leaves no dead Engine to those behind it."""
        try:
            self.rig.api.call("GET", "/_ping")
        except OSError:
            self.rig.engine_control("start")
            self.rig.engine_control("wait")

    def tearDown(self):
        self.assertEqual(self.rig.api.inspect(self.foreign)["Name"], "/not-ours")

    def back(self, seconds=60):
        self.host.wait_state("echo", "running", seconds=seconds)
        self.host.settle(60)
        c = self.host.container("echo")["Id"]
        self.assertEqual(self.rig.api.fetch(c, "192.0.2.10"), "far 192.0.2.10:80")
        seen = self.rig.far.seen().get(("192.0.2.11", "tcp", 80), 0)
        self.assertEqual(self.rig.api.fetch(c, "192.0.2.11", seconds=1), "")
        self.assertEqual(self.rig.far.seen().get(("192.0.2.11", "tcp", 80), 0), seen)
        self.assertEqual(len(self.host.networks()), 1)

    def test_dockerd_restarted(self):
        self.rig.engine_control("stop")
        eventually("status says that the Engine is away", 15, lambda: not self.host.status()["engine"]["up"])
        self.rig.engine_control("start")
        self.rig.engine_control("wait")
        self.back()

    def test_dockerd_killed(self):
        self.rig.engine_control("kill")
        self.rig.engine_control("start")
        self.rig.engine_control("wait")
        self.back()

    def test_controller_killed(self):
        before = self.host.container("echo")
        self.host.kill()
        self.host.start()
        self.back()
        now = self.host.container("echo")
        self.assertEqual((now["Id"], now["State"]["StartedAt"]), (before["Id"], before["State"]["StartedAt"]), "what was right was not left alone")

    def test_controller_and_dockerd_killed(self):
        self.host.kill()
        self.rig.engine_control("kill")
        self.host.start(wait=False)
        self.rig.engine_control("start")
        self.rig.engine_control("wait")
        self.back()

    def test_controller_stopped_gracefully_leaves_servers_running(self):
        before = self.host.container("echo")
        self.host.stop()
        time.sleep(0.5)
        now = self.rig.api.inspect(before["Id"])
        self.assertEqual((now["State"]["Running"], now["State"]["Pid"]), (True, before["State"]["Pid"]))
        # Without a controller the kernel still refuses what was never allowed.
        seen = self.rig.far.seen().get(("192.0.2.11", "tcp", 80), 0)
        self.assertEqual(self.rig.api.fetch(before["Id"], "192.0.2.11", seconds=1), "")
        self.assertEqual(self.rig.far.seen().get(("192.0.2.11", "tcp", 80), 0), seen)
