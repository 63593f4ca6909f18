#!/usr/bin/env -S python3 -B
"""Agents and their tokens: added, signed for, rotated, removed; the key stays where it is."""
import base64
import json
import os
import unittest

from cli_host import CliTest


class Agents(CliTest):
    def setUp(self):
        super().setUp()
        self.file, self.secret = self.conf.parent / "agents.json", self.conf.parent / "agents.key"
        self.write_conf(f"agents:\n  file: {self.file}\n  key: {self.secret}\n")

    def token(self, agent, *more):
        text = self.run_cli("token", agent, *more).out.strip()
        prefix, key, payload, _ = text.split(".")
        self.assertEqual(prefix, "bh1")
        return key, json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))

    def test_token_says_who_for_whom_and_until_when(self):
        self.run_cli("agent", "add", "openclaw")
        key, content = self.token("openclaw", "--ttl", "5m", "--run", "nightly-7")
        self.assertEqual((content["agent"], content["aud"], content["run"]), ("openclaw", "test.example", "nightly-7"))
        self.assertEqual(content["exp"] - content["iat"], 300)
        self.assertRegex(key, "^[0-9a-f]{16}$")
        self.assertRegex(self.token("openclaw")[1]["run"], "^r-[0-9a-f]{12}$")
        answer = self.run_cli("token", "openclaw", "--json").json()
        self.assertEqual(answer["agent"], "openclaw")
        self.assertTrue(answer["token"].startswith("bh1."))

    def test_key_is_for_its_owner_only(self):
        self.run_cli("agent", "add", "openclaw")
        self.assertEqual(self.secret.stat().st_mode & 0o777, 0o600)
        public = json.loads(self.file.read_text())["keys"][0]["public"]
        self.assertNotIn(self.secret.read_text()[:64], self.file.read_text())
        self.assertEqual(self.secret.read_text().strip()[64:], public)
        self.secret.chmod(0o640)
        self.assertIn("may read", self.run_cli("token", "openclaw", code=77).err)

    def test_rotated_for_one(self):
        self.run_cli("agent", "add", "a")
        self.run_cli("agent", "add", "b")
        first = self.token("a")[1]
        self.run_cli("agent", "rotate", "a")
        ended = json.loads(self.file.read_text())["agents"]
        second = self.token("a")[1]
        # Tokens made before the rotation are earlier than not_before, the next one is not.
        self.assertGreater(second["iat"], first["iat"])
        self.assertNotEqual(ended["a"]["not_before"], ended["b"]["not_before"])

    def test_rotated_for_all(self):
        self.run_cli("agent", "add", "a")
        before, old = self.token("a")[0], self.secret.read_text()
        self.run_cli("agent", "rotate")
        self.assertNotEqual(self.token("a")[0], before)
        self.assertNotEqual(self.secret.read_text(), old)
        # Another host's key, or a restored old one: what would not count is not handed out.
        self.secret.write_text(old)
        self.assertIn("would not count", self.run_cli("token", "a", code=77).err)

    def test_removed(self):
        self.run_cli("agent", "add", "a")
        self.run_cli("agent", "remove", "a")
        self.assertIn("agent add a", self.run_cli("token", "a", code=1).err)
        self.assertIn("no agent yet", self.run_cli("agent", "list").out)

    def test_listed(self):
        for name in ("b", "a"):
            self.run_cli("agent", "add", name)
        lines = self.run_cli("agent", "list").out.splitlines()
        self.assertEqual([line.split()[0] for line in lines[1:]], ["a", "b"])
        self.assertEqual(sorted(self.run_cli("agent", "list", "--json").json()["agents"]), ["a", "b"])

    def test_mistakes(self):
        self.assertIn("already", (self.run_cli("agent", "add", "a"), self.run_cli("agent", "add", "a", code=1))[1].err)
        self.run_cli("agent", "add", "Not A Name", code=64)
        self.run_cli("agent", "burn", code=64)
        self.run_cli("agent", "add", code=64)
        self.run_cli("agent", "remove", "nobody", code=1)
        self.run_cli("agent", "rotate", "nobody", code=1)
        for ttl in ("0s", "25h", "soon", "-1s"):
            self.run_cli("token", "a", f"--ttl={ttl}", code=64)
        self.run_cli("token", "a", "--run", "with space", code=1)
        self.secret.write_text("rubbish\n")
        self.assertIn("holds no key", self.run_cli("token", "a", code=1).err)

    def test_files_of_others_are_refused(self):
        self.run_cli("agent", "add", "a")
        self.file.chmod(0o666)
        self.assertIn("agents.json", self.run_cli("agent", "list", code=77).err)

    def test_broken_file_is_kept(self):
        self.file.write_text('{"version": 1, "keys": [], "agents": {"a": {}, "a": {}}}')
        os.chmod(self.file, 0o644)
        text = self.file.read_text()
        self.assertIn("agents.json:1:", self.run_cli("agent", "add", "b", code=1).err)
        self.assertEqual(self.file.read_text(), text)


if __name__ == "__main__":
    unittest.main()
