"""Broken and hostile input: refused by name, with the last good state in force and what runs untouched."""
import json
import os
import pwd
import socket
import subprocess
import time
import unittest

from host import Host
from rig import eventually, rig

DEEP = "[" * 5000 + "]" * 5000


def registry(servers='{}', **more):
    return json.dumps({"version": "1.0", **more}).rstrip("}") + f', "servers": {servers}}}'


ENTRY = '"description": "x", "enabled": true, "source": "docker_image", "image": "127.0.0.1:5000/x@sha256:' + "0" * 64 + '", "transport": "stdio"'
# Name -> (the file's text, what the message must have beside the file's name).
BAD_REGISTRIES = {
    "empty": ("", ["text ends"]),
    "broken": ('{"version": "1.0",\n "servers": {', [":2:14: a key"]),
    "not an object": ("[]", ["is an array"]),
    "duplicate key": ('{"version": "1.0", "version": "1.0", "servers": {}}', ["version\" stands twice"]),
    "duplicate server": ('{"version": "1.0", "servers": {\n"a": {%s},\n"a": {%s}}}' % (ENTRY, ENTRY), [":3:1: key \"a\" stands twice"]),
    "NUL in a key": ('{"version": "1.0", "ser\\u0000vers": {}, "servers": {}}', ["u0000"]),
    "NUL in a value": (registry('{"a": {%s, "path": "/x\\u0000y"}}' % ENTRY), ["u0000"]),
    "2^64": (registry('{"a": {%s, "resources": {"pids": 18446744073709551616}}}' % ENTRY), ["beyond 2^53"]),
    "2^53 + 1": (registry('{"a": {%s, "resources": {"pids": 9007199254740993}}}' % ENTRY), ["beyond 2^53"]),
    "10 MB": (registry(description="x" * (10 << 20)), ["bytes, more than"]),
    "deep nesting": (registry('{"a": %s}' % DEEP), ["nested too deeply"]),
    "invalid UTF-8": (b'{"version": "1.0", "servers": {"a\xff\xfe": {}}}', ["not valid UTF-8"]),
    "unknown key": (registry('{"a": {%s, "privileged": true}}' % ENTRY), ["privileged mode is never given"]),
    "wrong type": (registry('{"a": {%s, "env": ["A=b"]}}' % ENTRY), ["a.env: is not an object"]),
    "path as a name": (registry('{"../../etc/cron.d/x": {%s}}' % ENTRY), ["is not a server name"]),
    "slash in a name": (registry('{"a/b": {%s}}' % ENTRY), ["is not a server name"]),
    "upper case in a name": (registry('{"Echo": {%s}}' % ENTRY), ["is not a server name"]),
    "dots as a name": (registry('{"..": {%s}}' % ENTRY), ["is not a server name"]),
    "option as an image": (registry('{"a": {%s}}' % ENTRY.replace("127.0.0.1:5000/x", "--privileged")), ["image", "does not name its registry"]),
    "image without a digest": (registry('{"a": {%s}}' % ENTRY.replace("@sha256:" + "0" * 64, ":latest")), ["image", "has no digest"]),
    "Docker's socket as a mount": (registry('{"a": {%s, "mounts": [{"source": "/var/run/docker.sock", "target": "/s"}]}}' % ENTRY), ["access to a container engine"]),
    "mount outside the roots": (registry('{"a": {%s, "mounts": [{"source": "/srv/elsewhere", "target": "/s"}]}}' % ENTRY), ["under no directory that this host allows"]),
    "key that nobody knows": (registry('{"a": {%s, "privilegd": true}}' % ENTRY), ["privilegd: unknown key"]),
    "registry that is not allowed": (registry('{"a": {%s}}' % ENTRY.replace("127.0.0.1:5000", "registry.example.org")), ["is not allowed on this host"]),
    "address of the host's bits": (registry('{"a": {%s, "egress": [{"cidr": "192.0.2.1/24", "ports": [1]}]}}' % ENTRY), ["bits set behind"]),
    "control character": (registry('{"a": {%s}}' % ENTRY.replace('"x"', '"x\\u001b[2J"')), ["control characters are not allowed"]),
    "trailing text": (registry() + " {}", ["more text behind"]),
    "byte order mark": ("\ufeff" + registry(), ["not a JSON value"]),
}


class BadRegistry(unittest.TestCase):
    limit = 120

    @classmethod
    def setUpClass(cls):
        cls.host = Host()
        cls.addClassCleanup(cls.host.close)
        cls.host.start()
        cls.host.approve("echo", cls.host.entry("mcp/echo:1"))
        cls.host.wait_state("echo", "running")
        cls.good = cls.host.registry_path.read_text()

    def setUp(self):
        self.host.wait_state("echo", "running")
        self.before = self.host.container("echo")

    def error(self):
        return self.host.status()["registry"].get("error")

    def good_again(self):
        self.host.registry_path.unlink(missing_ok=True)
        self.host.write_registry_text(self.good)
        eventually("the good file counts again", 10, lambda: not self.error())
        now = self.host.container("echo")
        self.assertEqual((now["Id"], now["State"]["StartedAt"]), (self.before["Id"], self.before["State"]["StartedAt"]), "the running server was touched")
        self.assertTrue(self.host.alive())

    def refused(self, words=(), name="mcp.servers.json"):
        said = eventually("status names the file and the fault", 10, self.error)
        self.assertIn(name, said)
        for w in words:
            self.assertIn(w, said)
        self.assertEqual(self.host.server("echo")["state"], "running")
        return said

    def test_broken_files(self):
        for name, (text, words) in BAD_REGISTRIES.items():
            with self.subTest(name):
                self.host.write_registry_text(text)
                said = self.refused(words)
                self.assertLess(len(said), 2000)
                self.assertFalse(any(c in said for c in "\x00\x1b"), repr(said))
                done = self.host.cli("validate", check=False)
                self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
                self.assertRegex(done.stdout + done.stderr, r"mcp\.servers\.json")
                self.good_again()

    def test_message_has_line_and_column(self):
        self.host.write_registry_text('{"version": "1.0",\n  "servers": {\n    "a": {"enabled": maybe}}}')
        self.assertRegex(self.refused(), r"mcp\.servers\.json:3:\d+")
        self.good_again()

    def test_half_written_file(self):
        """Written in place, slowly, as some editors do: only the whole counts."""
        half = len(self.good) // 2
        with open(self.host.registry_path, "w", encoding="utf-8") as f:
            f.write(self.good[:half])
            f.flush()
            time.sleep(1)
            self.assertEqual(self.host.server("echo")["state"], "running")
            f.write(self.good[half:])
        self.good_again()

    def test_file_that_others_may_write(self):
        self.host.registry_path.chmod(0o666)
        os.utime(self.host.registry_path)
        self.refused()
        self.good_again()

    def test_folder_that_others_may_write(self):
        self.host.registry_path.parent.chmod(0o777)
        self.addCleanup(self.host.registry_path.parent.chmod, 0o755)
        self.host.write_registry_text(self.good)
        self.refused(name=str(self.host.registry_path.parent))
        self.host.registry_path.parent.chmod(0o755)
        self.good_again()

    def test_file_of_somebody_else(self):
        nobody = pwd.getpwnam(self.host.rig.env["RIG_NOBODY"])
        os.chown(self.host.registry_path, nobody.pw_uid, nobody.pw_gid)
        self.refused()
        self.good_again()

    def test_symbolic_link(self):
        other = self.host.dir / "elsewhere.json"
        other.write_text(self.good)
        self.host.registry_path.unlink()
        self.host.registry_path.symlink_to(other)
        self.refused()
        self.good_again()

    def test_missing_file(self):
        self.host.registry_path.unlink()
        self.refused()
        self.good_again()

    def test_fifo_does_not_hang_the_daemon(self):
        self.host.registry_path.unlink()
        os.mkfifo(self.host.registry_path)
        self.refused()
        self.good_again()


class BadRecords(unittest.TestCase):
    limit = 120

    @classmethod
    def setUpClass(cls):
        cls.host = Host()
        cls.addClassCleanup(cls.host.close)
        cls.host.start()
        cls.host.approve("echo", cls.host.entry("mcp/echo:1"))
        cls.host.wait_state("echo", "running")
        cls.serial = cls.host.approval("echo")["serial"]

    def setUp(self):
        self.host.wait_state("echo", "running")
        self.before = self.host.container("echo")

    def untouched(self):
        """The commit was read (the tip is the accepted one, or refused with a reason), and the server runs on."""
        tip = self.host.tip()
        eventually("the commit was read", 10, lambda: self.host.status()["approvals"].get("commit") == tip or self.host.status()["approvals"].get("refused")
                   or self.host.status()["approvals"].get("error"))
        now = self.host.container("echo")
        self.assertEqual((now["Id"], now["State"]["StartedAt"]), (self.before["Id"], self.before["State"]["StartedAt"]), "the running server was touched")
        self.assertTrue(self.host.alive())

    def named(self, path, word=""):
        """An operator who asks is told the file's name, and what is wrong with it."""
        done = self.host.cli("validate", check=False)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertTrue(any(path in line and word in line for line in (done.stdout + done.stderr).splitlines()), f"{word}: {done.stdout}{done.stderr}")

    def approval(self, **changes):
        return {**self.host.approval("echo"), "serial": self.serial + 50, **changes}

    def test_broken_texts_with_a_good_signature(self):
        text = self.host.encode(self.approval())[1]
        broken = {
            "broken YAML": (b"kind: [Approval\n", ""),
            "duplicate key": (text.replace(b'"serial"', b'"kind": "Approval",\n "serial"', 1), "stands twice"),
            "anchor": (b"a: &a [1]\nb: *a\n", "anchors and tags"),
            "billion laughs": (b"a: &a [x,x]\n" + b"".join(b"%c: &%c [*%c,*%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 120)), "anchors and tags"),
            "tag": (b"!!python/object/apply:os.system ['true']\n", "anchors and tags"),
            "NUL": (text.replace(b"a test", b"a\x00test"), "NUL"),
            "escaped NUL": (text.replace(b"a test", b"a\\u0000test"), "NUL"),
            "2^64": (text.replace(b'"serial": %d' % (self.serial + 50), b'"serial": 18446744073709551616'), "beyond 2^53"),
            "negative serial": (text.replace(b'"serial": %d' % (self.serial + 50), b'"serial": -1'), "must be an integer from 1"),
            "invalid UTF-8": (text.replace(b"a test", b"a \xff\xfe test"), "UTF-8"),
            "deep nesting": (b"a: " + b"[" * 5000 + b"]" * 5000 + b"\n", "nested too deeply"),
            "too large": (text + b"# " + b"x" * (70 << 10) + b"\n", "bytes, more than"),
            "two documents": (text + b"---\n" + text, "only one document"),
            "unknown key": (self.host.encode(self.approval(privileged=True))[1], "unknown key"),
            "another server's folder": (self.host.encode(self.approval(server="other"))[1], "is a record of server other"),
            "empty": (b"", "is empty"),
        }
        for number, (name, (content, word)) in enumerate(broken.items()):
            with self.subTest(name):
                path = f"echo/f-{number:016x}.yaml"
                try:
                    record_id = json.loads(content)["id"]
                    path = f"echo/{record_id}.yaml"
                except ValueError:
                    pass
                self.host.commit({path: content, path + ".sig": self.host.sign(content)})
                self.untouched()
                self.named(path, word)
                self.restart()

    def restart(self):
        """Puts the history back to the good records, on a host that forgets (the tips above are accepted as far as they are good)."""
        self.host.stop()
        self.host.set_tip(self.good_tip())
        (self.host.state_dir / "forge.json").unlink()
        self.host.start()
        self.host.wait_state("echo", "running")
        self.before = self.host.container("echo")

    def good_tip(self):
        """The last commit that the command line made."""
        for commit in self.host.git("log", "--format=%H %s", "refs/heads/main").splitlines():
            if not commit.endswith(" by hand"):
                return commit.split()[0]
        raise AssertionError("no good commit")

    def test_ten_megabytes(self):
        path = "echo/f-00000000000000ff.yaml"
        content = b"# " + b"x" * (10 << 20) + b"\n"
        self.host.commit({path: content, path + ".sig": b"x" * (10 << 20)})
        self.untouched()
        self.named(path, "bytes, more than")
        self.restart()

    def test_symbolic_links_and_submodules(self):
        target = self.host.dir / "blob"
        target.write_bytes(b"../../../../etc/passwd")
        link = self.host.git("hash-object", "-w", str(target))
        for mode, obj, path in (("120000", link, "echo/f-00000000000000aa.yaml"), ("160000", self.host.tip(), "echo/f-00000000000000ab.yaml"),
                                ("120000", link, "linked"), ("160000", self.host.tip(), "module")):
            with self.subTest(f"{mode} {path}"):
                self.host.commit({path: (mode, obj)})
                self.untouched()
                self.named(path.split(".")[0], "symbolic link" if mode == "120000" else "submodule")
                self.restart()

    def test_path_tricks(self):
        """Names that git's own tools refuse to write, written all the same."""
        blob = self.host.dir / "blob"
        blob.write_bytes(b"x\n")
        obj = self.host.git("hash-object", "-w", str(blob))
        for name in ("..", ".git", "echo\\..\\..", "a" * 300, "ECHO", "echo ", "-rf"):
            with self.subTest(name):
                tree = self.tree([("100644", "f-00000000000000ac.yaml", obj)])
                entries = [line.split(None, 3) for line in self.host.git("ls-tree", "refs/heads/main").splitlines()]
                root = self.tree([(mode, path, sha) for mode, _, sha, path in entries] + [("40000", name, tree)])
                commit = self.host.git("commit-tree", root, "-p", self.host.tip(), "-m", "by hand")
                self.host.set_tip(commit)
                self.untouched()
                # Nobody looks into .github and its like; and a dash in front is a name like any other, no option of anything.
                if name != ".git":
                    self.named(name.replace("\\", "\\\\"), "must be a mapping" if name == "-rf" else "not a server's name")
                self.restart()

    def tree(self, entries):
        """A tree object byte by byte: git's own tools would refuse some of these names."""
        def order(e):
            return e[1].encode() + (b"/" if e[0] == "40000" else b"")
        body = b"".join(f"{mode.lstrip('0')} {name}".encode() + b"\0" + bytes.fromhex(obj) for mode, name, obj in sorted(entries, key=order))
        return subprocess.run(["git", "--git-dir", str(self.host.repository), "hash-object", "-t", "tree", "-w", "--literally", "--stdin"], input=body,
                              stdout=subprocess.PIPE, check=True, timeout=30).stdout.decode().strip()

    def test_repository_that_others_may_write(self):
        self.host.stop()
        self.host.clean_engine()
        try:
            with Host(prototype=self.host) as host:
                host.repository.chmod(0o777)
                (host.repository / "refs/heads").chmod(0o777)
                host.start()
                host.wait_refused("echo", words=("may be written by others",))
                self.assertEqual(host.starts(), [])
        finally:
            self.host.start()

    def test_damaged_repository(self):
        """The tip names an object that is not there: what ran stays, and status says what is wrong."""
        good = self.host.tip()
        (self.host.repository / "refs/heads/main").write_text("1" * 40 + "\n")
        eventually("status says what is wrong", 45, lambda: self.host.status()["approvals"].get("error") or self.host.status()["approvals"].get("refused"))
        time.sleep(1)  # what a wrong judgement would set off takes a moment
        now = self.host.container("echo")
        self.assertEqual(now["Id"], self.before["Id"])
        self.host.set_tip(good)
        eventually("all is well again", 45, lambda: not self.host.status()["approvals"].get("error") and not self.host.status()["approvals"].get("refused"))


class BadConfiguration(unittest.TestCase):
    limit = 60

    def refused(self, text=None, change=None, words=()):
        with Host() as host:
            if text is not None:
                host.conf_path.write_bytes(text if isinstance(text, bytes) else text.encode())
            if change:
                change(host)
            for argv in (host.controller_argv(), host.rig.in_host(host._program("bulkhead"), "--config", str(host.conf_path), "validate")):
                done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=15, check=False)
                said = done.stdout.decode(errors="replace")
                self.assertGreater(done.returncode, 0, said)
                self.assertIn("bulkhead.conf", said)
                for w in words:
                    self.assertIn(w, said)

    def test_broken_configurations(self):
        good = 'audience: "x.example.org"\n'
        for name, (text, words) in {
                "empty": ("", ["the file is empty"]), "no audience": ("registry: /x\n", ["audience", "is missing"]),
                "unknown key": (good + "privileged: true\n", [":2:1: privileged: unknown key"]), "duplicate": (good + good, [":2:1", "stands twice"]),
                "anchor": ("audience: &a x\nregistry: *a\n", ["anchors and tags"]), "wrong type": (good + "controller: [1]\n", ["controller: must be a mapping"]),
                "relative path": (good + "registry: ../x\n", ["registry: must be an absolute path"]), "NUL": (b'audience: "x\\0y"\n', ["NUL"]),
                "UTF-8": (b"audience: \xff\n", ["UTF-8"]), "2^64": (good + "controller: {parallel_starts: 18446744073709551616}\n", [":2:", "beyond 2^53"]),
                "10 MB": (good + "# " + "x" * (10 << 20), ["bytes, more than"]), "deep": (good + "network: " + "[" * 3000 + "]" * 3000 + "\n", ["nested too deeply"]),
                "two bits": (good + 'network: {mark: "0x3"}\n', ["mark: must be a single bit"]), "key of a key": (good + "controller/user: x\n", [":2:1: controller/user: unknown key"]),
                "root as a mount root": (good + "mounts: {roots: [/]}\n", ["roots: must be absolute paths"])}.items():
            with self.subTest(name):
                self.refused(text, words=words)

    def test_configuration_that_others_may_write(self):
        self.refused(change=lambda h: h.conf_path.chmod(0o666), words=["may be written by others"])

    def test_configuration_of_somebody_else(self):
        nobody = pwd.getpwnam(rig().env["RIG_NOBODY"])
        self.refused(change=lambda h: os.chown(h.conf_path, nobody.pw_uid, nobody.pw_gid), words=["belongs to uid"])


class Strangers(unittest.TestCase):
    """The control socket: an ordinary uid may do nothing, whatever it sends."""
    limit = 60

    @classmethod
    def setUpClass(cls):
        cls.host = Host()
        cls.addClassCleanup(cls.host.close)
        cls.host.start()

    def test_other_users_are_refused(self):
        for verb in ("status", "plan", "apply"):
            done = self.host.cli(verb, check=False, user=self.host.rig.env["RIG_NOBODY"])
            self.assertEqual(done.returncode, 77, done.stdout + done.stderr)

    def test_garbage_on_the_control_socket(self):
        for data in (b"\n", b"{}\n", b"garbage\n", b'{"verb": 1}\n', b'{"verb": "nothing"}\n', b'{"verb":"status","verb":"apply"}\n', b"[" * 100000 + b"\n",
                     b'{"verb": "status"', b"x" * (9 << 20), b'{"verb": "\xff"}\n', b'{"verb": "status", "server": "../../x"}\n'):
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(5)
                s.connect(self.host.settings["controller.socket"])
                try:
                    s.sendall(data)
                    s.shutdown(socket.SHUT_WR)
                    s.recv(65536)
                except OSError:
                    pass
        self.assertTrue(self.host.alive())
        self.assertEqual(self.host.status()["audience"], self.host.audience)
