"""An Engine that answers garbage, half an answer, errors, for ever, or never: a clear error, backoff instead of a storm, and recovery; what runs stays."""
import os
import signal
import threading
import time
import unittest

from callers import Refused
from faults import FaultProxy, ScriptedEngine
from host import Host
from rig import eventually, rig

# Two lists at once, each bounded by the client to 64 MiB, and what was there before.
MEMORY_MAX = 192 << 20


def setUpModule():
    global PROTOTYPE  # pylint: disable=global-statement
    PROTOTYPE = Host()
    unittest.addModuleCleanup(PROTOTYPE.close)
    PROTOTYPE.start()
    PROTOTYPE.approve("echo", PROTOTYPE.entry("mcp/echo:1"))
    PROTOTYPE.stop()
    PROTOTYPE.clean_engine()


PROTOTYPE = None


class Faults(unittest.TestCase):
    limit = 240

    def setUp(self):
        # No resync comes by: what is right again must be found by trying again.
        self.rig = rig()
        self.proxy = FaultProxy(self.rig, "fe")
        self.addCleanup(self.proxy.close)
        self.host = self.enterContext(Host(prototype=PROTOTYPE, engine_socket=str(self.proxy.listen), conf={"controller.resync": "10m"}))

    def memory(self):
        with open(f"/proc/{self.host.controller.pid}/status", encoding="ascii") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))

    def engine_error(self):
        engine = self.host.status()["engine"]
        return None if engine["up"] else engine.get("error")

    def broken(self, action, words, seconds=20):
        """Every call fails in the same way, while a server runs."""
        self.host.start()
        self.host.wait_state("echo", "running")
        self.host.settle()
        before = self.host.container("echo")
        pid = self.host.controller.pid
        self.proxy.arm(action, repeat=0)
        self.rig.api.call("POST", f"/containers/{before['Id']}/kill")
        said = eventually("status says what is wrong with the Engine", seconds, self.engine_error)
        self.assertTrue(any(w in said for w in words), said)
        calls = self.proxy.calls()
        time.sleep(3)
        self.assertLess(self.proxy.calls() - calls, 60, "calls as in a storm")
        self.assertLess(self.memory(), MEMORY_MAX)
        self.proxy.disarm()
        self.host.wait_state("echo", "running", seconds=60)
        self.host.settle()
        self.assertEqual(self.host.controller.pid, pid)
        self.assertTrue(self.host.alive())

    def test_garbage(self):
        self.broken("garble", ["HTTP", "not"])

    def test_body_that_is_not_json(self):
        self.broken("garble-body", ["the Engine's answer:1:"])

    def test_truncated(self):
        self.broken("truncate", ["the Engine's answer:1:"])

    def test_500(self):
        self.broken("error500", ["fault injected by the test"])

    def test_endless(self):
        self.broken("endless", ["large", "bound", "limit", "more than", "bytes", "answer"], seconds=60)

    def test_closed_socket(self):
        self.broken("cut-before", ["closed", "cut", "empty", "without", "end", "reply", "answer"])

    def test_hang(self):
        """The deadline of a call is half a minute."""
        self.broken("hang", ["time", "within", "answer"], seconds=75)

    def once(self, action, count="all", **more):
        """One call of a start from nothing fails, each in turn; no restart, no help from outside."""
        for at in range(1, 100):
            self.host.init_state()
            self.proxy.arm(action, at, count, **more)
            self.host.start(init=False)
            with self.subTest(f"{action} at {count} call {at}", calls=self.proxy.last_calls()):
                self.host.wait_state("echo", "running", seconds=60)
                self.host.settle(60)
                self.assertEqual(len(self.host.containers(role=None)), 1)
                self.assertEqual(len(self.host.networks()), 1)
            fired = self.proxy.fired()
            self.proxy.disarm()
            self.host.close()
            if not fired:
                self.assertGreater(at, 5)
                return
            self.host = self.enterContext(Host(prototype=PROTOTYPE, engine_socket=str(self.proxy.listen), conf={"controller.resync": "10m"}))

    def test_500_at_every_mutation(self):
        self.once("error500", "mutations")

    def test_answer_lost_at_every_mutation(self):
        self.once("cut-after", "mutations")


class Restarts(unittest.TestCase):
    """A controller that starts again learns what is wished for, what runs and who is linked one after the other, in any order: nothing that runs is touched for that."""
    limit = 120
    LOOK = "GET /v[0-9.]+/containers/json"

    @classmethod
    def setUpClass(cls):
        cls.proxy = FaultProxy(rig(), "fr")
        cls.addClassCleanup(cls.proxy.close)
        cls.host = cls.enterClassContext(Host(engine_socket=str(cls.proxy.listen), conf={"controller.resync": "10m"}))
        cls.host.start()
        cls.host.approve("web", cls.host.entry("mcp/echo:1", transport="streamable-http", port=8080, args=["--http", "8080"]))
        cls.host.start_broker()
        cls.addClassCleanup(cls.host.stop_broker)
        cls.host.wait_state("web", "running")

    def caller(self, over, done, failed):
        while not over.is_set():
            try:
                self.host.gateway.tool("/mcp", "web__echo", text="on")
                done.append(time.monotonic())
            except (Refused, OSError) as e:
                failed.append((time.monotonic(), e))
            time.sleep(0.01)

    def test_slow_look(self):
        eventually("it answers", 10, lambda: self.host.gateway.tool("/mcp", "web__echo", text="x") == "x")
        for at, repeat in ((1, 1), (2, 1), (1, 0)):
            with self.subTest(at=at, repeat=repeat):
                self.host.settle()
                before = self.host.container("web")
                over, done, failed = threading.Event(), [], []
                thread = threading.Thread(target=self.caller, args=(over, done, failed), daemon=True)
                thread.start()
                self.host.kill()
                os.kill(self.host.broker.pid, signal.SIGSTOP)
                self.proxy.arm("delay", at, match=self.LOOK, repeat=repeat, delay=1.5)
                self.host.start(init=False)
                started = time.monotonic()
                # The first look may be made without knowing what is approved; the broker comes in the middle of the one after it, or of the first.
                eventually("the look is slow", 20, lambda: self.proxy.fired() > (repeat == 0))  # pylint: disable=cell-var-from-loop
                os.kill(self.host.broker.pid, signal.SIGCONT)
                self.host.wait_linked()
                self.host.settle()
                eventually("calls go on", 10, lambda: done and done[-1] > started + 3)  # pylint: disable=cell-var-from-loop
                self.proxy.disarm()
                over.set()
                thread.join(10)
                after = self.host.container("web")
                self.assertEqual((after["Id"], after["State"]["StartedAt"]), (before["Id"], before["State"]["StartedAt"]))
                self.assertEqual(failed, [])


class Scripted(unittest.TestCase):
    """What a real Engine will not say."""
    limit = 60

    def refuse(self, words, **script):
        host = Host(prototype=PROTOTYPE, engine_socket=str(rig().run_dir / "instances/se.sock"))
        self.host = self.enterContext(host)
        engine = ScriptedEngine(host.settings["engine.socket"], **script)
        self.addCleanup(engine.close)
        host.start()

        def said():
            status = host.status()["engine"]
            return status.get("error") if not status["up"] else None
        text = eventually("status says what is wrong", 15, said)
        for w in words:
            self.assertIn(w, text)
        self.assertFalse([c for c in engine.calls if c.startswith("POST")], "something was changed at an Engine that is none")
        calls = len(engine.calls)
        time.sleep(3)
        self.assertLess(len(engine.calls) - calls, 60)
        return text

    def test_too_old(self):
        self.refuse(["1.30", "1.41"], body=b'{"Version":"17.06","ApiVersion":"1.30","MinAPIVersion":"1.12"}', headers={"Api-Version": "1.30", "Content-Type": "application/json"})

    def test_too_new(self):
        self.refuse(["1.99"], body=b'{"Version":"99.0","ApiVersion":"1.120","MinAPIVersion":"1.99"}', headers={"Api-Version": "1.120", "Content-Type": "application/json"})

    def test_no_engine_at_all(self):
        self.refuse([], status=404, body=b"<html>not found</html>", headers={"Content-Type": "text/html"})

    def test_409_for_everything(self):
        text = self.refuse(["conflict of the test"], status=409, body=b'{"message":"conflict of the test"}', headers={"Content-Type": "application/json"})
        self.assertNotIn('"message"', text, "the Engine's answer and not what it says")

    def test_foreign_text_in_an_error_is_escaped(self):
        self.refuse(["red"], status=500, body=b'{"message":"\\u001b[31mred \\u202e drow"}', headers={"Content-Type": "application/json"})
        for text in (self.host.cli("status").stdout, self.host.log()):
            self.assertIn("red", text)
            self.assertFalse(set(text) & {"\x1b", "\u202e"}, text)

    def test_socket_that_nobody_listens_on(self):
        host = Host(prototype=PROTOTYPE, engine_socket="/run/bulkhead-rig/nobody.sock")
        with host:
            host.start()
            error = eventually("status says so", 15, lambda: host.status()["engine"].get("error"))
            self.assertIn("nobody.sock", error)
