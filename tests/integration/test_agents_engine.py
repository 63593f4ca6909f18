"""The whole way of a call that a human has to approve, as on a host: an agent, bulkhead-broker, the link, bulkhead-controller's control socket, the command line, and a server
in its sealed container. And what `bulkhead status` says of a security policy that cannot be used."""
import json
import shutil
import signal
import time
import unittest

from callers import Port
from host import Host
from rig import eventually, rig

SMALL = {"resources": {"memory": "64m", "tmpfs": "8m"}}
CALL = {"name": "echo:echo", "arguments": {"text": "please", "n": 1}}
DOOR = "127.0.0.1:8000"


class AgentsEngine(unittest.TestCase):
    limit = 90
    agents = {"asker": {"ask": ["echo:*"]}, "other": {"ask": ["echo:*"]}, "free": {"allow": ["echo:echo"]}}

    @classmethod
    def setUpClass(cls):
        cls.host = host = Host()
        cls.addClassCleanup(cls.end)
        host.write_conf(**{"policy": str(host.dir / "policy.json"), "agents.file": str(host.dir / "agents.json"), "agents.key": str(host.dir / "agents.key"),
                           "broker.listen": [DOOR], "broker.state": str(host.dir / "broker-state")})
        (host.dir / "broker-state").mkdir(mode=0o700)
        shutil.chown(host.dir / "broker-state", rig().env["RIG_BROKER"])
        cls.write_policy()
        host.start()
        host.approve("echo", host.entry("mcp/echo:1", **SMALL))
        for agent in cls.agents:
            host.cli("agent", "add", agent)
        host.start_broker()
        cls.doors = {agent: Port(DOOR, host.cli("token", agent, "--run", f"run-of-{agent}").stdout.strip()) for agent in cls.agents}
        host.wait_state("echo", "running", 30)
        eventually("the tools are known", 30, lambda: cls.post("free", "describe", {"name": "echo:echo"})[0] == 200)

    @classmethod
    def end(cls):
        try:
            cls.host.stop_broker()
            cls.host.stop()
        finally:
            cls.host.close()

    @classmethod
    def write_policy(cls):
        fresh = cls.host.dir / "policy.new"
        fresh.write_text(json.dumps({"version": "1.0", "tool_approval_required": [], "rate_limits": [], "budgets": {}, "agents": cls.agents}))
        fresh.rename(cls.host.dir / "policy.json")

    @classmethod
    def post(cls, agent, verb, body):
        status, _, text = cls.doors[agent].request("POST", f"/v1/{verb}", json.dumps(body), Content_Type="application/json")
        return status, json.loads(text)

    # -- looking -----------------------------------------------------------------------------------------------------------
    def ask(self, agent="asker", **arguments):
        """A call that waits: its id."""
        status, answer = self.post(agent, "call", {**CALL, "arguments": {**CALL["arguments"], **arguments}})
        self.assertEqual((status, answer["status"]), (202, "approval_required"), answer)
        return answer["id"]

    def passes(self, agent="asker", **arguments):
        status, answer = self.post(agent, "call", {**CALL, "arguments": {**CALL["arguments"], **arguments}})
        return status == 200 and answer["result"]["content"][0]["text"] == arguments.get("text", "please")

    def own(self, agent):
        """What it sees of its own calls: {id: state}"""
        return {c["id"]: c["state"] for c in self.post(agent, "pending", {})[1]["pending"]}

    def waiting(self):
        """What a human sees: {id: call}"""
        return {c["id"]: c for c in self.host.json("pending") if c["id"].startswith("c-")}

    # -- tests -------------------------------------------------------------------------------------------------------------
    def test_once_and_for_this_call_alone(self):
        asked = self.ask(text="once")
        others = self.ask("other", text="once")
        seen = self.waiting()
        self.assertLessEqual({asked, others}, set(seen))
        self.assertEqual([seen[asked][k] for k in ("agent", "run", "server", "tool", "state")], ["asker", "run-of-asker", "echo", "echo", "waits"])
        self.assertEqual(json.loads(seen[asked]["arguments"]), {"text": "once", "n": 1})
        self.assertEqual(seen[asked]["manifest_sha256"], self.host.approval("echo")["manifest_sha256"])
        shown = self.host.cli("pending").stdout
        self.assertIn(asked, shown)
        self.assertIn("once", shown)
        # An agent sees its own, whatever it asks for.
        self.assertNotIn(others, self.own("asker"))
        self.assertNotIn(asked, json.dumps([self.post("other", verb, {"name": asked, "query": asked, "id": asked}) for verb in ("pending", "search")]))
        self.assertIn(asked, self.host.cli("approve", asked).stdout)
        # Not for another agent, not for other arguments; but for the same ones, however they are written.
        self.assertEqual(self.ask("other", text="once"), others)
        self.ask(text="twice")
        self.ask(text="once", n=2)
        status, answer = self.post("asker", "call", {"arguments": {"n": 1, "text": "once"}, "name": "echo__echo"})
        self.assertEqual((status, answer["result"]["content"][0]["text"]), (200, "once"))
        self.assertNotEqual(self.ask(text="once"), asked)  # used up
        log = [json.loads(line) for line in (self.host.dir / "broker-state/decisions.jsonl").read_text().splitlines()]
        self.assertEqual([d["by"] for d in log if d["event"] == "approved" and d["approval"] == asked], ["root"])
        self.assertEqual([d["run"] for d in log if d.get("outcome") == "allow" and d.get("approval") == asked], ["run-of-asker"])

    def test_for_a_time(self):
        asked = self.ask(text="brief")
        began = time.monotonic()
        self.host.cli("approve", asked, "--expires", "4s")
        self.assertTrue(self.passes(text="brief"))
        if time.monotonic() - began < 3:
            self.assertTrue(self.passes(text="brief"))  # as often as is liked
        eventually("it is over", 15, lambda: asked not in self.own("asker"))
        self.assertNotEqual(self.ask(text="brief"), asked)

    def test_rejected(self):
        asked = self.ask(text="never")
        self.host.cli("reject", asked)
        status, answer = self.post("asker", "call", {**CALL, "arguments": {"text": "never", "n": 1}})
        self.assertEqual((status, answer["state"], answer["message"]), (202, "rejected", "a human rejected this call"))
        self.assertFalse(self.passes(text="never"))

    def test_whatever_is_killed_in_between(self):
        asked, later = self.ask(text="durable"), self.ask(text="later")
        self.host.stop_broker(signal.SIGKILL)
        self.host.start_broker()
        self.assertIn(later, eventually("the list is back", 15, self.waiting))
        self.host.cli("approve", asked)
        self.host.stop_broker(signal.SIGKILL)
        self.host.kill()
        self.host.start(init=False)
        self.host.start_broker()
        eventually("the approval still counts", 60, lambda: self.own("asker").get(asked) == "approved" and self.post("free", "call", CALL)[0] == 200)
        self.assertTrue(self.passes(text="durable"))
        self.assertNotEqual(self.ask(text="durable"), asked)
        self.host.cli("approve", later)
        self.assertTrue(self.passes(text="later"))

    def test_who_may_decide(self):
        asked = self.ask(text="mine")
        for user in (self.host.rig.env["RIG_NOBODY"], self.host.rig.env["RIG_BROKER"]):
            for verb in ("approve", "reject"):
                self.assertNotEqual(self.host.cli(verb, asked, user=user, check=False).returncode, 0, (user, verb))
        self.assertEqual(self.own("asker")[asked], "waits")
        for unknown in ("c-0000000000000000", "c-zz", "c-" + "0" * 17):
            done = self.host.cli("approve", unknown, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertTrue(done.stderr)
        self.host.stop_broker()
        try:
            done = self.host.cli("approve", asked, check=False)
            self.assertEqual(done.returncode, 69, done.stderr)
            self.assertIn("broker is not linked", done.stderr)
        finally:
            self.host.start_broker()
        self.host.cli("approve", asked)
        self.assertTrue(eventually("it passes", 30, lambda: self.passes(text="mine")))

    def test_status_says_that_the_policy_is_bad(self):
        eventually("it passes", 30, lambda: self.passes("free"))
        troubles = lambda: self.host.status()["gateway"]["broker"].get("troubles", [])
        self.assertEqual(troubles(), [])
        path = self.host.dir / "policy.json"
        for what, spoil, word in (("broken", lambda: path.write_text("{"), "1:2"), ("written by others", lambda: path.chmod(0o666), "written by others"), ("gone", path.unlink, "No such file")):
            with self.subTest(what):
                spoil()
                said = eventually("status says so", 15, lambda: [t for t in troubles() if word in t])
                self.assertIn("the last good policy stays in force: ", said[0])
                self.assertIn("the broker says: the last good policy stays in force: ", self.host.cli("status").stdout)
                self.assertTrue(self.passes("free"))
                path.unlink(missing_ok=True)
                self.write_policy()
                eventually("status says nothing any more", 15, lambda: troubles() == [])
        self.assertNotIn("the broker says", self.host.cli("status").stdout)

    def test_zz_another_manifest_is_another_tool(self):
        asked = self.ask(text="bound")
        self.host.cli("approve", asked)
        before = self.waiting()[asked]["manifest_sha256"]
        self.host.approve("echo", self.host.entry("mcp/echo:1", args=["--variant", "another"], **SMALL))
        eventually("the new one is called", 60, lambda: self.host.approval("echo")["manifest_sha256"] != before and
                   "another" in json.dumps(self.post("free", "describe", {"name": "echo:echo"})[1]))
        fresh = self.ask(text="bound")
        self.assertNotEqual(fresh, asked)
        self.assertNotEqual(self.waiting()[fresh]["manifest_sha256"], before)
        self.assertEqual(self.own("asker")[asked], "approved")  # of no use any more


if __name__ == "__main__":
    unittest.main(verbosity=2)
