#!/usr/bin/env -S python3 -B
"""Usage, exit codes, and `validate` on broken files: every error names its file, line and column."""
import os
import pathlib
import re
import subprocess
import unittest

from cli_host import CliTest, PROGRAM, digest

VERBS = "init validate plan apply status discover propose smoke approve promote reject revoke pending agent token tools call egress compose doctor".split()


class Usage(CliTest):
    def test_help_and_version(self):
        self.assertIn("Usage: bulkhead", subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout)
        self.assertRegex(subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout, r"^bulkhead \d+\.\d+")
        for verb in VERBS:
            for flag in ("--help", "-h"):
                shown = self.run_cli(verb, flag).out
                self.assertTrue(shown.startswith(f"Usage: bulkhead {verb}"), shown)

    def test_every_verb_is_in_the_manual_and_completed(self):
        top = pathlib.Path(os.environ.get("top_srcdir", pathlib.Path(__file__).resolve().parents[2]))
        manual, completion = ((top / name).read_text() for name in ("docs/man/bulkhead.1", "cli/completion.bash"))
        shown = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
        verbs = re.findall(r"^  (\w+) ", shown, re.M)
        self.assertEqual(sorted(verbs), sorted(VERBS))
        completed = re.search(r'local verbs="(.*)"', completion).group(1).split()
        self.assertEqual(sorted(completed), sorted(verbs))
        for verb in verbs:
            self.assertRegex(manual, rf"(?m)^\.It Cm {verb}\b")
            own = self.run_cli(verb, "--help").out.partition("Options of every verb:")[0]
            options = re.search(rf"(?ms)^        {verb}\) echo (.*?);;", completion)
            for option in re.findall(r"^  --([a-z-]+)", own, re.M):
                self.assertRegex(manual, rf"(?m)Fl -{option}\b", f"{verb} --{option}")
                if option != "json":  # a global one as well
                    self.assertIn(f"--{option}", options.group(1).replace('"', " ").split(), f"{verb} --{option}")

    def test_usage_errors(self):
        for args in ([], ["fly"], ["--fly", "status"], ["status", "--fly"], ["status", "-x"], ["status", "a", "b"], ["status", "--socket"],
                     ["plan", "--json=yes"], ["promote"], ["egress", "burn"], ["egress"], ["compose"], ["compose", "up"], ["compose", "seccomp", "x"], ["smoke"], ["smoke", "x", "--engine", "y"],
                     ["validate", "file.txt"]):
            done = subprocess.run([PROGRAM, "--config", str(self.conf), *args], capture_output=True, text=True)
            self.assertEqual(done.returncode, 64, f"{args}: {done.stderr}")
            self.assertTrue(done.stderr)

    def test_unreachable(self):
        for args in (["status"], ["plan"], ["apply"], ["egress", "show"], ["status", "--socket", "/nonexistent"]):
            self.assertIn("bulkhead-controller running", self.run_cli(*args, code=69).err)
        answer = self.run_cli("status", "--json", code=69)
        self.assertEqual(answer.json()["exit"], 69)

    def test_colour_only_on_terminals(self):
        for env in ({"TERM": "xterm"}, {"TERM": "xterm", "NO_COLOR": ""}):
            self.assertNotIn("\x1b", self.run_cli("validate", env=env).out)
        code, shown = self.run_on_terminal("validate", answer="")
        self.assertEqual(code, 0)
        self.assertIn("\x1b[32m", shown)
        code, shown = self.run_on_terminal("validate", "--no-color", answer="")
        self.assertNotIn("\x1b", shown)
        os.environ["NO_COLOR"] = "1"
        self.addCleanup(os.environ.pop, "NO_COLOR")
        self.assertNotIn("\x1b", self.run_on_terminal("validate", answer="")[1])


class Validate(CliTest):
    def broken(self, *args, part, place=None):
        result = self.run_cli("validate", *args, code=1)
        self.assertIn(part, result.err)
        if place:
            self.assertIn(place, result.err)
        return result

    def test_sound(self):
        self.write_registry({"a": {"source": "docker_image", "image": "127.0.0.1:5000/x@" + digest("x"), "transport": "stdio"}})
        self.run_cli("validate")
        self.assertEqual(self.run_cli("validate", "--json").json(), {"ok": True, "errors": [], "warnings": []})

    def test_registry(self):
        place = lambda line, column: f"{self.registry}:{line}:{column}"
        for text, part, where in (
            ("{", "", place(1, 2)),
            ('{"version": "1.0",\n "servers": {},\n "servers": {}}', "servers", place(3, 2)),
            ('{"version": "1.0", "servers": {\n  "Bad Name": {}}}', "name", place(2, 3)),
            ('{"version": "1.0", "servers": {"a": {"transport": "stdio",\n"source": "docker_image",\n\n  "image": "x:1"}}}', "digest", place(4, 3)),
            ('{"version": "1.0", "servers": {}, "x": "\\u0000"}', "", place(1, 1)[:-2]),
        ):
            self.registry.write_text(text)
            self.broken(part=part, place=where)
            self.broken(str(self.registry), part=part, place=where)
        errors = self.run_cli("validate", "--json", code=1).json()["errors"]
        self.assertEqual(len(errors), 1)

    def test_policy(self):
        place = lambda line, column: f"{self.policy}:{line}:{column}"
        for text, part, where in (
            ("{", "", place(1, 2)),
            ('{"version": "1.0",\n "agents": {},\n "agents": {}}', "agents", place(3, 2)),
            ('{"version": "1.0", "agents": {"a":\n {"alow": ["x:*"]}}}', "agents.a.alow: unknown key", place(2, 3)),
            ('{"version": "1.0",\n "blocked_patterns": [{"pattern": "(a)\\\\1"}]}', "not a regular expression", place(2, 24)),
            ('{"version": "1.0",\n "forge_approval_required": false}', "would open the gate", place(2, 2)),
        ):
            self.policy.write_text(text)
            self.broken(part=part, place=where)
            self.broken(str(self.policy), part=part, place=where)
        self.write_policy({})
        self.policy.chmod(0o666)
        self.broken(part=str(self.policy))

    def test_every_file_in_one_run(self):
        self.registry.write_text("{")
        self.policy.write_text("[]")
        for args in ([], [str(self.registry), str(self.policy)]):
            answer = self.run_cli("validate", "--json", *args, code=1).json()
            self.assertEqual([e.split(":")[0] for e in answer["errors"]], [str(self.registry), str(self.policy)], answer)

    def test_policy_that_is_not_there(self):
        self.policy.unlink()
        answer = self.run_cli("validate", "--json").json()
        self.assertTrue(answer["ok"])
        self.assertEqual(len(answer["warnings"]), 1)
        self.assertIn(str(self.policy), answer["warnings"][0])
        self.broken(str(self.policy), part=str(self.policy))  # asked for by name it has to be there

    def test_names_that_nothing_has(self):
        self.write_registry({"git-hub": {"source": "docker_image", "image": "127.0.0.1:5000/x@" + digest("x"), "transport": "stdio"}})
        text = (
            '{"version": "1.0",\n"rate_limits": [{"tools": ["*:*", "githbu:x"], "max_calls": 1, "window_seconds": 1}],\n'
            '"tool_approval_required": ["exec"],\n'
            '"agents": {"a": {"allow": ["git-hub:*", "git-*:get_x", "g*t:*"],\n "sampling": ["other"],\n "deny": ["*:drop", "x?:y"]}}}'
        )
        self.policy.write_text(text)
        # Of tools nothing is known here: the server has no approval.
        expected = []
        for line, written, glob in ((2, "githbu:x", "githbu:x"), (4, "g*t:*", "g*t:*"), (5, "other", "other:*"), (6, "x?:y", "x?:y")):
            expected.append((line, text.splitlines()[line - 1].index(f'"{written}"') + 1, glob))
        for args in ([], [str(self.policy), str(self.registry)]):
            answer = self.run_cli("validate", "--json", *args).json()
            self.assertTrue(answer["ok"])
            self.assertEqual(
                answer["warnings"],
                [f'{self.policy}:{line}:{column}: "{glob}" is for no server of the registry: correct the name, or take it out'
                 for line, column, glob in expected],
            )
        shown = self.run_cli("validate")
        self.assertIn("warning: ", shown.err)
        self.assertIn("no errors", shown.out)
        self.assertEqual(self.run_cli("validate", "--json", str(self.policy)).json()["warnings"], [])  # compared with nothing

    def test_agents_without_a_token(self):
        self.write_conf(f"agents:\n  file: {self.dir}/agents.json\n  key: {self.dir}/agents.key\n")
        self.write_policy({"agents": {"alice": {}, "bob.1": {}}})
        self.assertEqual(self.run_cli("validate", "--json").json()["warnings"], [])  # no agent was ever added
        self.run_cli("agent", "add", "alice")
        warning, = self.run_cli("validate", "--json").json()["warnings"]
        self.assertIn("agents.bob.1: nobody can have a token", warning)

    def test_registry_that_others_may_write(self):
        self.registry.chmod(0o666)
        self.broken(part=str(self.registry))

    def test_configuration(self):
        self.conf.write_text('audience: "a"\nunknown: 1\n')
        self.broken(part="unknown", place=f"{self.conf}:2:1")
        self.broken(str(self.conf), part="unknown", place=f"{self.conf}:2:1")
        self.write_conf()
        self.run_cli("validate", str(self.conf))
        self.conf.chmod(0o666)
        self.broken(part=str(self.conf))
        self.conf.unlink()
        self.broken(part=str(self.conf))

    def test_allowed_signers(self):
        with open(self.signers, "a") as f:
            f.write("* ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDIhz2GK/XCUj4i6Q5yQJNL1MKJ9LvzJvIh9WzEBIpqa\n")
        self.broken(part="allowed_signers")

    def test_records(self):
        proposal = self.propose()
        path = f"echo/{proposal}.yaml"
        text = self.git("show", f"main:{path}").decode()
        self.add_files({path: text.replace("serial: 1", "serial: 9")})
        self.broken(part=path)
        record = self.dir / "record.yaml"
        record.write_text(text)
        self.run_cli("validate", str(record))
        record.write_text(text.replace("kind: Proposal", "kind: Wish"))
        self.broken(str(record), part="kind", place=f"{record}:2:1")
        record.write_text(text + "extra: 1\n")
        self.broken(str(record), part="extra", place=f"{record}:{text.count(chr(10)) + 1}:1")
        record.write_text("- 1\n\t- 2\n")
        self.broken(str(record), part=f"{record}:")
        self.add_files({"echo/f-0000000000000000.yaml": "x: y\n"})
        errors = self.run_cli("validate", "--json", code=1).json()["errors"]
        self.assertTrue(any("f-0000000000000000" in e for e in errors), errors)

    def test_repository_that_others_may_write(self):
        self.propose()
        (self.repository / "objects").chmod(0o777)
        self.broken(part=str(self.repository))

    def test_init(self):
        etc, var = self.dir / "new" / "etc", self.dir / "new" / "var"
        self.conf = etc / "bulkhead.conf"
        self.run_cli("init", "--audience", "new.example", "--var", str(var))
        self.assertIn('audience: "new.example"', self.conf.read_text())
        for path in (etc / "registry" / "mcp.servers.json", etc / "allowed_signers", var / "approvals.git" / "HEAD", var / "state"):
            self.assertTrue(path.exists(), path)
        self.run_cli("validate")
        self.assertEqual(self.run_cli("--json", "pending").json(), [])
        mine = "# mine\n" + self.conf.read_text()
        self.conf.write_text(mine)
        self.run_cli("init", "--audience", "other.example")
        self.assertEqual(self.conf.read_text(), mine)


if __name__ == "__main__":
    unittest.main(verbosity=1)
