"""The controller is killed between any two of its Engine calls, at every step of creating, replacing and removing a server. After its restart all is as
without the fault: no duplicate, no orphan, and never a start of something unapproved."""
import time
import unittest

from faults import FaultProxy
from host import Host
from rig import eventually, rig

# What the controller does to the Engine, and what it looks up about one object. Its lists are left out: they change nothing, so that being dead before the
# second of them is the same as being dead before the first.
STEPS = "^(POST|DELETE|PUT) |^GET [^?]*/(containers|images|networks)/[^?]+$"
# More calls than any of these ways has: a loop that reaches it has gone wrong.
MANY = 200


def setUpModule():
    """Two approved versions of one server, one after the other in the same history."""
    global FIRST, SECOND  # pylint: disable=global-statement
    host = Host()
    unittest.addModuleCleanup(host.close)
    host.start()
    host.approve("echo", host.entry("mcp/echo:1"))
    FIRST = {"tip": host.tip(), "registry": host.registry_path.read_text(), "approval": host.approval("echo")}
    host.approve("echo", host.entry("mcp/echo:2", env={"VERSION": "2"}))
    SECOND = {"tip": host.tip(), "registry": host.registry_path.read_text(), "approval": host.approval("echo"), "host": host}
    host.stop()
    host.clean_engine()


FIRST = SECOND = None


class Crash(unittest.TestCase):
    limit = 600

    def setUp(self):
        self.rig = rig()
        self.proxy = FaultProxy(self.rig, "fp")
        self.addCleanup(self.proxy.close)

    def version(self, host, version):
        host.set_tip(version["tip"])
        host.write_registry_text(version["registry"])

    def fresh(self, version):
        """A host that has this version's files and nothing else."""
        host = Host(engine_socket=str(self.proxy.listen), prototype=SECOND["host"], conf={"controller.resync": "5s"})
        self.version(host, version)
        return host

    def check(self, host, version, allowed):
        """As without the fault."""
        if version is None:
            eventually("nothing is left", 20, lambda: not host.containers(role=None) and not host.networks())
            host.settle(20)
        else:
            host.wait_state("echo", "running", seconds=30)
            host.settle(20)
            c = host.container("echo")
            self.assertEqual(c["Config"]["Labels"]["io.bulkhead.approval"], version["approval"]["id"])
            self.assertEqual(c["Config"]["Image"].partition("@")[2], version["approval"]["source"]["digest"])
            self.assertEqual([x["Names"] for x in host.containers(role=None) if x["Id"] != c["Id"]], [], "a duplicate or an orphan")
            self.assertEqual([n["Name"] for n in host.networks()], [c["HostConfig"]["NetworkMode"]], "an orphaned network")
        started = {e["Actor"]["Attributes"].get("io.bulkhead.approval") for e in host.starts("echo")}
        self.assertLessEqual(started, {v["approval"]["id"] for v in allowed}, "something was started that was not approved")

    def at_every_call(self, action, count, before, begin, after, allowed):
        """before: what runs first (or None). begin(host): what sets the change off. after: what must be in the end."""
        steps = 0
        for at in range(1, MANY):
            host = self.fresh(before or after)
            try:
                if before:
                    host.start()
                    host.wait_state("echo", "running")
                    host.settle()
                    self.proxy.arm(action, at, count, match=STEPS, pid=host.controller.pid)
                    begin(host)
                else:
                    host.init_state()
                    self.proxy.arm(action, at, count, match=STEPS, pid_file=str(host.dir / "pid"))
                    # setpriv and the rest exec one another: the number is known before the program talks to an Engine.
                    host.start(init=False, wait=False)
                    (host.dir / "pid").write_text(str(host.controller.pid))
                fired = self.until_fired_or_done(host, after)
                self.proxy.disarm()
                # A later pass may have met the fault just now: that is one more step, and not the last.
                fired = fired or not host.alive()
                if fired:
                    steps += 1
                    host.kill()
                    host.start(init=False)
                with self.subTest(f"{action} at call {at} of {count}", calls=self.proxy.last_calls()):
                    self.check(host, after, allowed)
                if not fired:
                    return steps
            finally:
                self.proxy.disarm()
                host.close()
        raise AssertionError(f"{MANY} calls and no end")

    def until_fired_or_done(self, host, after):
        """Whether the fault hit while there was still something to do."""
        def state():
            if self.proxy.fired():
                return "fired"
            if after is None:
                return "done" if not host.containers(role=None) and not host.networks() and host.plan_is_empty() else None
            server = host.server("echo")
            same = server and server["state"] == "running" and server.get("approval") == after["approval"]["id"]
            return "done" if same and host.plan_is_empty() and self.container_is(host, after) else None
        return eventually("the fault or the end", 30, state, pause=0.05) == "fired"

    @staticmethod
    def container_is(host, version):
        found = host.containers(role=None)
        return len(found) == 1 and found[0]["Labels"]["io.bulkhead.approval"] == version["approval"]["id"] and len(host.networks()) == 1

    def create(self, action, count):
        return self.at_every_call(action, count, None, None, SECOND, [SECOND])

    def replace(self, action, count):
        return self.at_every_call(action, count, FIRST, lambda h: self.version(h, SECOND), SECOND, [FIRST, SECOND])

    def remove(self, action, count):
        return self.at_every_call(action, count, SECOND, lambda h: h.write_registry({}), None, [SECOND])

    # Between two calls: dead before the next one goes out. And with the call done, but its answer never heard.
    def test_create_killed_before_each_call(self):
        self.assertGreater(self.create("kill-before", "all"), 12)

    def test_create_killed_with_the_answer_on_its_way(self):
        self.assertGreater(self.create("kill-after", "mutations"), 5)

    def test_replace_killed_before_each_call(self):
        self.assertGreater(self.replace("kill-before", "all"), 10)

    def test_replace_killed_with_the_answer_on_its_way(self):
        self.assertGreater(self.replace("kill-after", "mutations"), 6)

    def test_remove_killed_before_each_call(self):
        self.assertGreater(self.remove("kill-before", "all"), 1)

    def test_remove_killed_with_the_answer_on_its_way(self):
        self.assertGreater(self.remove("kill-after", "mutations"), 1)


class RevokedWhileDown(unittest.TestCase):
    """The controller is dead when the approval ends: the server goes as soon as there is a controller again, before anything else starts."""
    limit = 60

    def test_revoked_while_down(self):
        with Host(prototype=SECOND["host"]) as host:
            host.start()
            host.wait_state("echo", "running")
            host.kill()
            host.cli("revoke", "--server", "echo", "--key", host.key, "--reason", "a test")
            began = time.time()
            host.start()
            eventually("it is gone", 3, lambda: not any(c["State"] == "running" for c in host.containers()))
            self.assertEqual(host.starts(since=began), [])
