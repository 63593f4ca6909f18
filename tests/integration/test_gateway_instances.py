"""Stdio servers with an instance for every session: what clients of one that keeps state, and asks, see of each other. Nothing, it should be."""
import concurrent.futures
import contextlib
import os
import pathlib
import sys
import time
import unittest

from brokered import Gateway, Refused, stdio
from host import Host
from rig import eventually

NOTES = pathlib.Path(__file__).resolve().parent.parent / "rig/servers/mcp_notes.py"
PATH = "/servers/notes/mcp"
CAN = {"elicitation": {}}


def notes(name="notes", **more):
    return stdio(name, sys.executable, NOTES, **{"per_session": True, **more})


class Instances(unittest.TestCase):
    """With link_host in the controller's place."""
    limit = 120

    @staticmethod
    def linked(gateway):
        eventually("the link is back", 10, lambda: '"away"' not in gateway.request("GET", "/readyz")[2])

    def gateway(self, *entries, **conf):
        gateway = Gateway(*(entries or (notes(),)), conf=conf or None)
        self.addCleanup(gateway.close)
        gateway.start()
        eventually("the servers are known", 10, lambda: gateway.request("GET", "/readyz")[0] == 200)
        return gateway

    def refused(self, call, *args, **kw):
        with self.assertRaises(Refused) as raised:
            call(*args, **kw)
        return raised.exception

    @staticmethod
    def pids(gateway):
        """Of the instances that run."""
        gone = {e["pid"] for e in gateway.events if e["event"] == "exited"}
        stopped = {e["serial"] for e in gateway.events if e["event"] == "asked" and e["kind"] == "stop"}
        return [e["pid"] for e in gateway.events if e["event"] == "up" and "serial" in e and e["pid"] not in gone and e["serial"] not in stopped]

    @staticmethod
    def end(pid):
        """Is the process gone?"""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    def test_state_and_its_end(self):
        gateway = self.gateway()
        with gateway.client(PATH) as a, gateway.client(PATH) as b, gateway.client() as both:
            self.assertEqual(a.tool("note", text="a1"), "a1")
            self.assertEqual(b.tool("note", text="b1"), "b1")
            self.assertEqual(a.tool("note", text="a2"), "a1 a2")
            self.assertEqual(both.tool("notes__note", text="c1"), "c1")
            self.assertEqual(gateway.tool(PATH, "note", text="m1"), "m1")
            self.assertEqual(gateway.tool("/mcp", "notes__note", text="m2"), "m1 m2")
            self.assertEqual(b.tool("note", text="b2"), "b1 b2")
            self.assertEqual(gateway.metrics()['bulkhead_server_up{server="notes"}'], 1)
            first = self.pids(gateway)[0]
            self.assertEqual(a.end(), 200)
            eventually("its session's end stops it", 10, lambda: self.end(first))
            self.assertEqual(b.tool("note", text="b3"), "b1 b2 b3")
            self.assertEqual(self.refused(a.tool, "note", text="x").status, 404)

    def test_a_shared_one_is_as_before(self):
        gateway = self.gateway(notes(per_session=False))
        with gateway.client(PATH, capabilities=CAN) as a, gateway.client(PATH, capabilities=CAN) as b:
            self.assertEqual(a.tool("note", text="a1"), "a1")
            self.assertEqual(b.tool("note", text="b1"), "a1 b1")

    def asks(self, client, text):
        """Calls ask; answers the one question that comes; the call's text, and the question."""
        number, question, result = next(client.numbers), None, None
        for m in client.stream({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": "ask", "arguments": {"text": text}}}):
            if m.get("method") == "elicitation/create":
                self.assertIsNone(question)
                question = m["params"]["message"]
                with contextlib.closing(client.port.connection()) as other:
                    headers = client.port.headers(Content_Type="application/json", Accept="application/json, text/event-stream",
                                                  Mcp_Session_Id=client.session, MCP_Protocol_Version=client.version)
                    body = f'{{"jsonrpc":"2.0","id":{m["id"]},"result":{{"action":"accept","content":{{"is":"{text}!"}}}}}}'
                    other.request("POST", client.path, body, headers)
                    self.assertEqual(other.getresponse().status, 202)
            elif m.get("id") == number:
                result = m["result"]["content"][0]["text"]
        client.connection = client.port.connection()  # the stream took the other one with it
        return result, question

    def test_questions_reach_whom_they_are_for(self):
        """Eight clients at once; a shared server could not say whose any of them is."""
        gateway = self.gateway()
        with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(8) as pool:
            clients = [stack.enter_context(gateway.client(PATH, capabilities=CAN)) for _ in range(8)]
            got = list(pool.map(lambda i: [self.asks(clients[i], f"q{i}-{k}") for k in range(4)], range(8)))
            for i, answers in enumerate(got):
                self.assertEqual(answers, [(f"q{i}-{k}!", f"q{i}-{k}") for k in range(4)])
            clients[0].tool("log", text="mine")
            clients[0].connection = gateway.connection()
            self.assertIn("mine", [m["params"].get("data") for m in clients[0].notes])
            for client in clients[1:]:
                client.tool("note", text="x")
                self.assertEqual(client.notes, [])

    def test_cap(self):
        gateway = self.gateway(notes(cap=2), notes("other"))
        a, b = gateway.client(PATH), gateway.client(PATH)
        why = self.refused(gateway.client, PATH)
        self.assertIs(why.retryable, True, why)
        self.assertIn("too many sessions", why.error["message"])
        self.assertEqual(a.tool("note", text="a1"), "a1")
        with gateway.client("/servers/other/mcp") as c:
            self.assertEqual(c.tool("note", text="c1"), "c1")
        b.close()
        with gateway.client(PATH) as c:
            self.assertEqual(c.tool("note", text="c1"), "c1")
        self.assertEqual(a.tool("note", text="a2"), "a1 a2")
        a.close()
        eventually("no session is left", 10, lambda: gateway.metrics()["bulkhead_sessions"] == 0)

    def test_crash(self):
        gateway = self.gateway()
        with gateway.client(PATH) as a, gateway.client(PATH) as b, gateway.client() as both:
            b.tool("note", text="b1")
            why = self.refused(a.tool, "die")
            self.assertIs(why.retryable, True, why)
            self.assertEqual(self.refused(a.tool, "note", text="x").status, 404)
            self.assertEqual(b.tool("note", text="b2"), "b1 b2")
            both.tool("notes__note", text="c1")
            self.refused(both.tool, "notes__die")
            why = self.refused(both.tool, "notes__note", text="c2")
            self.assertIn("is lost", why.error["message"])
            self.assertEqual(both.tool("notes__note", text="c2"), "c2")
            self.assertEqual(b.tool("note", text="b3"), "b1 b2 b3")
        with gateway.client(PATH) as a:
            self.assertEqual(a.tool("note", text="again"), "again")

    def test_idle(self):
        gateway = self.gateway(notes(idle_ms=300))
        a = gateway.client(PATH)
        a.tool("note", text="a1")
        pid = self.pids(gateway)[0]
        eventually("it stops", 10, lambda: self.end(pid))
        self.assertEqual(self.refused(a.tool, "note", text="a2").status, 404)

    def test_lists_take_no_instance(self):
        gateway = self.gateway()
        with contextlib.ExitStack() as stack:
            for client in [stack.enter_context(gateway.client()) for _ in range(4)]:
                self.assertIn("notes__note", client.names())
            self.assertEqual(len([e for e in gateway.events if e["event"] == "up"]), 1)
        eventually("the gateway's own one stops", 20, lambda: not self.pids(gateway))

    def test_broker_and_controller_restart(self):
        gateway = self.gateway()
        gateway.client(PATH).tool("note", text="a1")
        pid = self.pids(gateway)[0]
        gateway.stop_broker()
        eventually("what the broker read is ended with it", 10, lambda: self.end(pid))
        gateway.start_broker()
        self.linked(gateway)
        b = gateway.client(PATH)
        b.tool("note", text="b1")
        gateway.stop_host()
        eventually("the session ends with its instance", 10, lambda: self.refused(b.tool, "note", text="b2").status == 404)
        gateway.start_host()
        self.linked(gateway)
        with gateway.client(PATH) as c:
            self.assertEqual(c.tool("note", text="c1"), "c1")


class InstancesEngine(unittest.TestCase):
    """The whole way, with the controller, and containers on a real Engine."""
    limit = 90
    SMALL = {"resources": {"memory": "64m", "tmpfs": "8m"}}
    PATH = "/servers/own/mcp"

    @classmethod
    def setUpClass(cls):
        cls.host = Host({"gateway.max_server_instances": 3})
        cls.addClassCleanup(cls.finish)
        cls.host.start()
        cls.host.approve("own", cls.host.entry("mcp/echo:1", sharing="per-session", **cls.SMALL))
        cls.host.start_broker()
        cls.gateway = cls.host.gateway

    @classmethod
    def finish(cls):
        try:
            cls.host.stop_broker()
            cls.host.stop()
        finally:
            cls.host.close()

    def containers(self):
        """Of sessions. The place behind the last one is for lists, and comes and goes."""
        return {c["Labels"]["io.bulkhead.instance"]: c for c in self.host.containers(role=None) if c["Labels"].get("io.bulkhead.instance") != "4"}

    def nothing_is_left(self):
        eventually("no instance is left", 30, lambda: not self.host.containers(role=None) and not self.host.networks())

    def client(self, path=PATH):
        return eventually("a session begins", 30, lambda: self._client(path))

    def _client(self, path):
        try:
            return self.gateway.client(path)
        except Refused as e:
            if e.retryable or e.status == 404:
                return None
            raise

    def test_instances(self):
        eventually("the server is known", 30, lambda: self.gateway.request("GET", "/readyz")[0] == 200)
        a, b = self.client(), self.client()
        self.assertEqual(a.tool("write_file", path="/tmp/state", text="a"), "written")
        self.assertEqual(a.tool("read_file", path="/tmp/state"), "a")
        self.assertIn("No such file", str(b.request("tools/call", {"name": "read_file", "arguments": {"path": "/tmp/state"}})))
        found = self.containers()
        self.assertEqual(sorted(found), ["1", "2"])
        names = sorted(c["Names"][0] for c in found.values())
        self.assertRegex(names[0], r"^/own-[0-9a-f]{8}-1$")
        self.assertRegex(names[1], r"^/own-[0-9a-f]{8}-2$")
        networks = [n["Name"] for n in self.host.networks() if n["Labels"]["io.bulkhead.instance"] != "4"]
        self.assertEqual(sorted(networks), [f"bh-{name[1:]}" for name in names])
        self.assertEqual(len({c["Labels"]["io.bulkhead.spec"] for c in found.values()}), 1)
        status = self.host.server("own")
        self.assertEqual([(i["instance"], i["state"]) for i in status["instances"] if i["instance"] != 4], [(1, "running"), (2, "running")])
        self.assertIn("Instance", self.host.cli("status", "own").stdout)
        # The third is the last one; whoever asks for one more hears why, and the others notice nothing.
        c = self.client()
        with self.assertRaises(Refused) as refused:
            self.gateway.client(self.PATH)
        self.assertIs(refused.exception.retryable, True)
        self.assertIn("gateway.max_server_instances", refused.exception.error["message"])
        self.assertEqual(a.tool("read_file", path="/tmp/state"), "a")
        # A session's end stops its own at once.
        c.close()
        eventually("the third goes", 15, lambda: sorted(self.containers()) == ["1", "2"])
        # So does a foreign hand, and with it that session only.
        self.host.rig.api.call("POST", f"/containers/{found['2']['Id']}/kill")
        eventually("its session is over", 15, lambda: self.is_over(b))
        self.assertEqual(a.tool("read_file", path="/tmp/state"), "a")
        eventually("what is left of it goes", 15, lambda: sorted(self.containers()) == ["1"])
        # The broker's end is that of all of them; a session takes up nothing of one before.
        self.host.stop_broker()
        self.nothing_is_left()
        self.host.start_broker()
        d = self.client()
        self.assertIn("No such file", str(d.request("tools/call", {"name": "read_file", "arguments": {"path": "/tmp/state"}})))
        # And the controller's: it knows of none, so none stays.
        self.host.kill()
        self.host.start(init=False)
        self.nothing_is_left()
        eventually("its session is over", 15, lambda: self.is_over(d))
        self.client().close()
        self.nothing_is_left()

    def test_versions(self):
        """A session stays with the version that it began with, for as long as that is approved, and not a call longer."""
        path = "/servers/next/mcp"
        self.addCleanup(lambda: self.host.write_registry({k: v for k, v in self.host.read_registry().items() if k != "next"}))
        first = self.host.approve("next", self.host.entry("mcp/echo:1", sharing="per-session", **self.SMALL))
        old = self.client(path)
        self.assertEqual(old.tool("write_file", path="/tmp/state", text="old"), "written")
        before = self.containers()
        second = self.host.approve("next", self.host.entry("mcp/echo:2", sharing="per-session", **self.SMALL))
        self.assertNotEqual(first, second)
        # Sessions that begin now may still get the former version until the controller has seen the registry.
        new = self.session_of_another(path, before)
        self.assertEqual(old.tool("read_file", path="/tmp/state"), "old")
        self.assertEqual(self.containers()["1"]["Id"], before["1"]["Id"])
        self.ends_with(first, old)
        self.assertEqual(new.tool("echo", text="still"), "still")
        eventually("its container goes", 15, lambda: before["1"]["Id"] not in [c["Id"] for c in self.containers().values()])
        self.ends_with(second, new)
        with self.assertRaises(Refused) as refused:
            self.gateway.client(path)
        self.assertEqual(refused.exception.status, 404)
        self.nothing_is_left()

    def ends_with(self, approval, session):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asleep = pool.submit(session.tool, "sleep", ms=30000)
            time.sleep(0.5)
            self.assertFalse(asleep.done())
            self.host.cli("revoke", approval, "--key", self.host.key, "--reason", "a test")
            self.assertIsInstance(asleep.exception(5), Refused)
        eventually("its session is over", 5, lambda: self.is_over(session))

    def session_of_another(self, path, before):
        spec = before["1"]["Labels"]["io.bulkhead.spec"]

        def begin():
            session = self.client(path)
            if any(c["Labels"]["io.bulkhead.spec"] != spec for c in self.containers().values()):
                return session
            session.close()
            return None
        return eventually("a session has the new version", 30, begin, pause=0.5)

    @staticmethod
    def is_over(client):
        try:
            client.tool("echo", text="x")
        except Refused as e:
            return e.status == 404
        return False


if __name__ == "__main__":
    unittest.main()
