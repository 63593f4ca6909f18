#!/usr/bin/env -S python3 -B
"""What the command makes of the daemon's answers: exit codes, tables, alarms. The daemon is a socket with canned answers, because here the command is tested."""
import json
import os
import pwd
import socket
import threading
import unittest

from cli_host import CliTest, digest

STATUS = {
    "audience": "test.example", "signatures": "required", "engine": {"version": "20.10.24", "api": "1.41", "up": True, "error": None},
    "registry": {"path": "/etc/x", "error": None}, "approvals": {"commit": "c" * 40, "error": None, "refused": None},
    "egress": {"ok": True, "error": None},
    "servers": [
        {"name": "echo", "state": "running", "verdict": "approved", "why": None, "approval": "f-1", "expires_at": "2999-01-01T00:00:00Z", "restarts": 2, "since": 1},
        {"name": "other", "state": "refused", "verdict": "digest-mismatch", "why": "image\x1b[2J \u202edifferent", "retry_in_ms": 1500},
    ],
}


class Daemon(CliTest):
    def setUp(self):
        super().setUp()
        self.asked = []
        self.answers = {}
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.socket))
        listener.listen(8)
        self.addCleanup(listener.close)
        thread = threading.Thread(target=self.serve, args=(listener,), daemon=True)
        thread.start()
        # Before the descriptor may be used again, by the next test, this thread must have left it.
        self.addCleanup(thread.join)
        self.addCleanup(listener.shutdown, socket.SHUT_RDWR)

    def serve(self, listener):
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, peer.makefile("rwb") as stream:
                request = json.loads(stream.readline())
                self.asked.append(request)
                for line in self.answers.get(request["verb"], [{"ok": True, "result": {}}]):
                    stream.write(json.dumps(line).encode() + b"\n")

    def answer(self, verb, result, *progress):
        self.answers[verb] = [*({"progress": p} for p in progress), {"ok": True, "result": result}]

    def test_calls_of_agents(self):
        call = "c-0123456789abcdef"
        self.assertIn("approved: " + call, self.run_cli("approve", call).out)
        self.assertEqual(self.asked[-1], {"verb": "decide", "id": call, "approve": True, "valid_ms": 0})
        self.run_cli("approve", call, "--expires", "2h")
        self.assertEqual(self.asked[-1]["valid_ms"], 7200000)
        self.assertEqual(self.run_cli("reject", call, "--json").json(), {"id": call, "decision": "rejected"})
        self.assertEqual(self.asked[-1]["approve"], False)

    def test_status(self):
        self.answer("status", STATUS)
        shown = self.run_cli("status").out
        lines = shown.splitlines()
        head = next(line for line in lines if line.startswith("SERVER"))
        echo = next(line for line in lines if line.startswith("echo"))
        other = next(line for line in lines if line.startswith("other"))
        self.assertEqual(head.index("STATE"), echo.index("running"))
        self.assertEqual(head.index("STATE"), other.index("refused"))
        self.assertNotIn("approved", echo)
        self.assertIn("digest-mismatch: image\\x1b[2J \\u{202e}different; next try in 2s", other)
        self.assertNotIn("!", shown)
        self.assertEqual(self.run_cli("status", "--json").json(), STATUS)

    def test_status_of_one_server(self):
        self.answer("status", {**STATUS, "servers": [STATUS["servers"][1]]})
        shown = self.run_cli("status", "other").out
        self.assertEqual(self.asked[-1], {"verb": "status", "server": "other"})
        self.assertIn("digest-mismatch", shown)
        self.answer("status", {**STATUS, "servers": []})
        self.run_cli("status", "nobody", code=1)

    def test_alarms(self):
        for change, part in (
            ({"signatures": "none"}, "SIGNATURES ARE OFF"),
            ({"gateway": {"auth": "none", "listen": "127.0.0.1:8080"}}, "THE GATEWAY ASKS FOR NO TOKEN"),
            ({"engine": {"up": False, "error": "no\x1bsocket"}}, "no\\x1bsocket"),
            ({"registry": {"error": "mcp.servers.json:3:7: broken"}}, "3:7"),
            ({"approvals": {"refused": "history was rewritten"}}, "history was rewritten"),
            ({"approvals": {"error": "unreadable"}}, "unreadable"),
            ({"approvals": {"refused_records": [{"path": "echo/f-1.yaml", "why": "by nobody"}]}}, "echo/f-1.yaml: by nobody"),
            ({"egress": {"ok": False, "error": "table is gone"}}, "table is gone"),
            ({"gateway": {"auth": "token", "broker": {"linked": True, "troubles": ["the last good policy stays in force: \x1b"]}}},
             "the broker says: the last good policy stays in force: \\x1b"),
        ):
            self.answer("status", {**STATUS, **change})
            self.assertIn(part, self.run_cli("status").out)
            code, shown = self.run_on_terminal("status", answer="")
            self.assertIn("\x1b[31m!", shown)

    def test_gateway(self):
        broker = {"linked": True, "listening": True}
        asleep = {"name": "lazy", "state": "stopped", "asleep": True, "lifecycle": "on-demand", "why": "asleep: started by the first call"}
        self.answer("status", {**STATUS, "gateway": {"auth": "token", "listen": "127.0.0.1:8080", "broker": broker}, "servers": [asleep]})
        shown = self.run_cli("status").out
        self.assertIn("127.0.0.1:8080, the broker is linked", shown)
        self.assertRegex(shown, r"lazy +asleep ")
        self.assertIn("on-demand", self.run_cli("status", "lazy").out)
        self.answer("status", {**STATUS, "gateway": {"auth": "token", "broker": {"linked": False, "error": "no\x1buser"}}})
        self.assertIn("no broker is linked, nobody can call the servers: no\\x1buser", self.run_cli("status").out)
        self.answer("plan", {"complete": True, "actions": [], "servers": [asleep], "gateway": {"auth": "none", "listen": "127.0.0.1:8080"}})
        shown = self.run_cli("plan").out
        self.assertIn("asleep until somebody calls: lazy", shown)
        self.assertIn("nothing to do", shown)
        code, shown = self.run_on_terminal("plan", answer="")
        self.assertIn("\x1b[31m! THE GATEWAY ASKS FOR NO TOKEN", shown)

    def test_expiry_is_red(self):
        for until, red in (("2999-01-01T00:00:00Z", False), ("2001-01-01T00:00:00Z", True)):
            self.answer("status", {**STATUS, "servers": [{**STATUS["servers"][0], "expires_at": until}]})
            code, shown = self.run_on_terminal("status", answer="")
            self.assertEqual("\x1b[31m" in shown, red, shown)

    def test_plan(self):
        action = {"server": "echo", "action": "create", "object": "echo-12345678", "reason": "absent"}
        self.answer("plan", {"complete": True, "actions": [], "servers": []})
        self.assertIn("nothing to do", self.run_cli("plan").out)
        self.answer("plan", {"complete": True, "actions": [action], "servers": []})
        self.assertIn("echo-12345678", self.run_cli("plan", code=2).out)
        self.assertEqual(self.run_cli("plan", "--json", code=2).json()["actions"], [action])
        # What was not seen may need doing.
        self.answer("plan", {"complete": False, "actions": [], "servers": []})
        self.assertNotIn("nothing to do", self.run_cli("plan", code=1).out)
        self.answer("plan", {"complete": True})
        self.run_cli("plan", code=1)

    def test_apply(self):
        running = [STATUS["servers"][0]]
        self.answer("apply", {"actions": [], "servers": running}, {"text": "pulling", "current": 1, "total": 2})
        self.assertIn("running", self.run_cli("apply", "--once").out)
        self.assertEqual(self.asked[-1], {"verb": "apply", "once": True})
        self.answer("apply", {"actions": [], "servers": STATUS["servers"]})
        self.run_cli("apply", code=2)
        self.answer("apply", {"actions": [{"server": "echo", "action": "start"}], "servers": running})
        self.run_cli("apply", code=2)
        self.answer("apply", {"actions": [], "servers": [{"name": "echo", "state": "error"}]})
        self.run_cli("apply", code=1)

    def test_egress(self):
        none = {"packets": 0, "bytes": 0}
        rule = {"rule": "tcp 192.0.2.0/24:443", "in_kernel": True}
        instance = {"server": "echo", "bridge": "bh12345678", "address": "10.213.0.2", "in_force": True, "rules": [rule], "sent": none,
                    "denied": {"packets": 3, "bytes": 180}}
        show = {"instances": [instance], "guard": {"right": True, "dropped": {"ipv6": {"packets": 2, "bytes": 80}}},
                "policy": {"backend": "iptables-nft", "hook": "DOCKER-USER", "right": True}}
        self.answer("egress", show)
        shown = self.run_cli("egress", "show").out
        for part in ("tcp 192.0.2.0/24:443", "3 packets, 180 B", "Dropped ipv6", "from DOCKER-USER"):
            self.assertIn(part, shown)
        self.assertNotIn("NOT", shown)
        self.assertEqual(self.asked[-1], {"verb": "egress", "server": None, "verify": False})
        self.assertIn("as read back", self.run_cli("egress", "verify", "echo").out)
        self.assertEqual(self.asked[-1], {"verb": "egress", "server": "echo", "verify": True})
        self.answer("egress", {**show, "instances": []})
        self.assertIn("other has no network", self.run_cli("egress", "show", "other").out)
        # Whatever part is not as it must be, it is not in force.
        for broken in ({"guard": {"right": False}}, {"policy": {"right": False}}, {"guard": None}, {"error": "nft failed"}, {"ok": False},
                       {"instances": [{**instance, "in_force": False}]}, {"instances": [{**instance, "rules": [{**rule, "in_kernel": False}]}]}):
            self.answer("egress", {**show, **broken})
            self.assertIn("NOT", self.run_cli("egress", "verify", code=1).out, broken)
            self.run_cli("egress", "show")

    def test_the_daemon_says_no(self):
        self.answers["apply"] = [{"ok": False, "error": "operators\x1b only", "exit": 77}]
        result = self.run_cli("apply", code=77)
        self.assertIn("operators\\x1b only", result.err)
        self.answers["apply"] = [{"ok": "yes"}]
        self.assertIn("makes no sense", self.run_cli("apply", code=1).err)

    def test_doctor_adds_the_daemons_checks(self):
        check = {"name": "pool", "ok": False, "level": "error", "detail": "routed elsewhere", "remedy": "set network.pool"}
        self.answer("doctor", {"checks": [check]})
        checks = self.run_cli("doctor", "--json", code=1).json()["checks"]
        self.assertIn(check, checks)
        shown = self.run_cli("doctor", code=1).out
        self.assertIn("set network.pool", shown)
        self.assertIn("controller: pool", shown)
        self.answers["doctor"] = [{"ok": False, "error": "operators only", "exit": 77}]
        self.assertIn("run doctor as root", self.run_cli("doctor", code=1).out)

    def test_doctor_looks_after_the_gateways_token(self):
        me, token = pwd.getpwuid(os.getuid()).pw_name, self.dir / "etc/token.sha256"
        find = lambda name: next((c for c in self.run_cli("doctor", "--json", code=1).json()["checks"] if c["name"] == name), None)
        self.write_conf("network:\n  broker_user: no-such-broker\n")
        self.assertEqual(find("broker user")["level"], "warning")
        self.assertIsNone(find("gateway token"))
        self.write_conf(f"network:\n  broker_user: {me}\ngateway:\n  token: {token}\n")
        self.assertEqual(find("gateway token")["level"], "error")
        token.write_text("the token itself\n")
        self.assertIn("64 hex digits", find("gateway token")["detail"])
        token.write_text("0f" * 32 + "\n")
        self.assertEqual(find("gateway token")["level"], "ok")
        token.chmod(0o666)
        self.assertEqual(find("gateway token")["level"], "error")
        self.write_conf(f"network:\n  broker_user: {me}\ngateway:\n  auth: none\n")
        self.assertEqual(find("gateway token")["level"], "warning")

    def test_doctor_sees_a_key_that_others_can_read(self):
        key = self.make_key("etc/signing_key")
        find = lambda: [c for c in self.run_cli("doctor", "--json", code=1).json()["checks"] if c["name"] == "signing key"]
        if os.getuid() == 0:
            self.assertTrue(find()[0]["ok"])
        os.chmod(key, 0o640)
        self.assertFalse(find()[0]["ok"])

    def test_smoke_keeps_what_the_daemon_saw(self):
        proposal = self.propose()
        made = json.loads(self.evidence(proposal, [{"name": "echo"}]))
        entry = self.git("show", f"main:echo/{proposal}.yaml").decode()
        entry_sha256 = entry.split("entry_sha256: ")[1].split("\n")[0].strip('"')
        answer = {"image": made["image"], "smoke": made["smoke"], "entry_sha256": entry_sha256, "spec_sha256": "0" * 64}
        # A daemon that builds another container is not believed; it tells us the hash that ours has.
        self.answer("smoke", answer)
        error = self.run_cli("smoke", proposal, code=1).err
        self.assertIn("another container", error)
        answer["spec_sha256"] = error.split("this program (")[1][:64]
        self.answer("smoke", {**answer, "entry_sha256": "0" * 64})
        self.assertIn("another hash", self.run_cli("smoke", proposal, code=1).err)
        self.assertNotIn(f"echo/{proposal}.smoke.json", self.files())
        self.answer("smoke", answer, {"text": "pulling"})
        report = self.dir / "junit.xml"
        shown = self.run_cli("smoke", proposal, "--junit", str(report)).out
        self.assertIn("pass", shown)
        self.assertIn('tests="1" failures="0" errors="0"', report.read_text())
        self.assertEqual(self.asked[-1]["server"], "echo")
        self.assertEqual(self.asked[-1]["entry"]["image"].split("@")[1], digest("echo"))
        # A second test, which fails, does not replace the first one's evidence but counts.
        answer["smoke"] = {**answer["smoke"], "passed": False, "why": "died <early>"}
        self.answer("smoke", answer)
        self.run_cli("smoke", proposal, "--junit", str(report), code=1)
        self.assertIn('<failure message="died &lt;early&gt;"/>', report.read_text())
        self.assertIn(f"echo/{proposal}.smoke-2.json", self.files())
        self.assertIn("died", self.run_cli("approve", proposal, "--key", self.key, "--yes", code=77).err)

    def test_decisions_poke_the_daemon(self):
        proposal = self.propose()
        self.run_cli("reject", proposal, "--key", self.key, "--reason", "no")
        self.assertEqual(self.asked[-1], {"verb": "reload"})


if __name__ == "__main__":
    unittest.main(verbosity=1)
