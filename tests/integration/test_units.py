#!/usr/bin/env python3
"""What deploy/ and compose/ give the machine: hardened units, users, directories, and a container with no more rights than the unit.

Judged with systemd's own tools (offline, in a directory of our own) and with docker-compose, so that a typing mistake in a directive, which
systemd only warns about, fails here.
"""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

TOP = pathlib.Path(__file__).resolve().parents[2]
UNITS = ("bulkhead-controller.service", "bulkhead-guard.service", "bulkhead-registry.service", "bulkhead-broker.service")
EXPOSURE_MAX = 2.3
BROKER_EXPOSURE_MAX = 1.5
RUNTIME_CAPS = {"NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"}
# To become the service user, and gone after that.
STARTUP_CAPS = {"SETUID", "SETGID", "SETPCAP"}


def run(*argv, **kw):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False, **kw)


def directives(path):
    """[(key, value)] of a unit file, in order, comments left out."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return [tuple(line.split("=", 1)) for line in lines if "=" in line and not line.startswith(("#", ";"))]


class Units(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="bulkhead-units-"))
        self.addCleanup(shutil.rmtree, self.dir)
        for name in ("bulkhead-controller", "bulkhead-broker"):
            program = self.dir / name
            program.write_text("#!/bin/sh\n")
            program.chmod(0o755)
        for name in UNITS:
            source = TOP / "deploy/systemd" / name
            text = source.read_text() if source.exists() else source.with_name(name + ".in").read_text()
            (self.dir / name).write_text(text.replace("@sbindir@", str(self.dir)))

    def test_exposure(self):
        for name in UNITS:
            result = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(self.dir / name))
            found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", result.stdout)
            self.assertIsNotNone(found, result.stdout)
            limit = BROKER_EXPOSURE_MAX if name == "bulkhead-broker.service" else EXPOSURE_MAX
            self.assertLessEqual(float(found.group(1)), limit, f"{name}:\n{result.stdout}")
            self.assertNotIn("Unknown", result.stdout)

    def test_verify_finds_nothing(self):
        # The registry's program need not be installed where the tests run.
        text = (self.dir / UNITS[2]).read_text().replace("/usr/bin/docker-registry", str(self.dir / "bulkhead-controller"))
        (self.dir / UNITS[2]).write_text(text)
        result = run("systemd-analyze", "verify", "--man=no", *(str(self.dir / name) for name in UNITS))
        ours = [line for line in result.stdout.splitlines() if "bulkhead" in line]
        self.assertEqual(ours, [])

    def test_controller_is_not_root_and_has_three_capabilities(self):
        unit = dict(directives(self.dir / UNITS[0]))
        self.assertEqual(unit["User"], "bulkhead")
        self.assertEqual(unit["Type"], "notify")
        self.assertGreater(int(unit["WatchdogSec"]), 0)
        for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
            self.assertEqual({c.removeprefix("CAP_") for c in unit[key].split()}, RUNTIME_CAPS, key)

    def test_broker_has_nothing(self):
        unit = dict(directives(self.dir / "bulkhead-broker.service"))
        self.assertEqual(unit["User"], "bulkhead-broker")
        self.assertNotIn("SupplementaryGroups", unit)
        self.assertEqual(unit["CapabilityBoundingSet"], "")
        self.assertNotIn("AmbientCapabilities", unit)
        self.assertEqual(unit["ReadWritePaths"], "-/var/lib/bulkhead/broker")
        self.assertEqual(unit["Type"], "notify")
        self.assertGreater(int(unit["WatchdogSec"]), 0)
        self.assertEqual(set(unit["RestrictAddressFamilies"].split()), {"AF_UNIX", "AF_INET"})
        hidden = unit["InaccessiblePaths"].split()
        for path in ("/run/docker.sock", "/run/bulkhead/control", "/var/lib/bulkhead/state", "/etc/bulkhead/secrets.d"):
            self.assertIn("-" + path, hidden)
        # In a user namespace it could not tell who the controller is.
        self.assertNotIn("PrivateUsers", unit)

    def test_guard_is_loaded_before_docker(self):
        unit = dict(directives(self.dir / UNITS[1]))
        self.assertEqual(unit["Type"], "oneshot")
        self.assertIn("docker.service", unit["Before"].split())
        self.assertIn("docker.service", unit["WantedBy"].split())
        self.assertTrue(unit["ExecStart"].endswith("bulkhead-controller --load-guard"))
        self.assertEqual(unit["AmbientCapabilities"], "CAP_NET_ADMIN")


@unittest.skipUnless(os.geteuid() == 0, "needs root: makes files of other users")
class Users(unittest.TestCase):
    """sysusers and tmpfiles in a root directory of their own."""

    @classmethod
    def setUpClass(cls):
        cls.root = pathlib.Path(tempfile.mkdtemp(prefix="bulkhead-root-"))
        cls.addClassCleanup(shutil.rmtree, cls.root)
        (cls.root / "etc").mkdir()
        # Users that exist on a Debian machine with Docker, so that ours are numbered around them.
        (cls.root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (cls.root / "etc/group").write_text("root:x:0:\ndocker:x:107:\n")
        for tool, source in (("systemd-sysusers", "bulkhead.sysusers"), ("systemd-tmpfiles", "bulkhead.tmpfiles")):
            conf = cls.root / source.replace(".", "-")
            shutil.copy(TOP / "deploy/systemd" / source, conf)
            options = ["--create"] if tool == "systemd-tmpfiles" else []
            result = run(tool, *options, f"--root={cls.root}", f"/{conf.name}" if tool == "systemd-tmpfiles" else str(conf))
            if result.returncode != 0:
                result = run(tool, *options, f"--root={cls.root}", str(conf))
            assert result.returncode == 0, result.stdout
        cls.uids = {f[0]: int(f[2]) for f in cls.table("etc/passwd")}
        cls.gids = {f[0]: int(f[2]) for f in cls.table("etc/group")}

    @classmethod
    def table(cls, path):
        return [line.split(":") for line in (cls.root / path).read_text().splitlines()]

    def test_users(self):
        members = {f[0]: f[3].split(",") for f in self.table("etc/group")}
        self.assertIn("bulkhead", members["docker"])
        self.assertNotIn("bulkhead-registry", members["docker"])
        self.assertNotIn("bulkhead-broker", members["docker"])
        self.assertIn("bulkhead-operators", self.gids)
        self.assertEqual([g for g, who in members.items() if "bulkhead-broker" in who], [])
        shells = {f[0]: f[6] for f in self.table("etc/passwd")}
        for user in ("bulkhead", "bulkhead-broker", "bulkhead-registry"):
            self.assertGreater(self.uids[user], 0)
            self.assertEqual(shells[user], "/usr/sbin/nologin")

    def test_directories(self):
        expected = {
            "etc/bulkhead": (0o755, "root", "root"),
            "etc/bulkhead/registry": (0o755, "root", "root"),
            "etc/bulkhead/secrets.d": (0o700, "bulkhead", "bulkhead"),
            "var/lib/bulkhead": (0o755, "root", "root"),
            "var/lib/bulkhead/state": (0o700, "bulkhead", "bulkhead"),
            "var/lib/bulkhead/broker": (0o700, "bulkhead-broker", "bulkhead-broker"),
            "run/bulkhead": (0o755, "root", "root"),
            "run/bulkhead/control": (0o755, "bulkhead", "bulkhead"),
            "run/bulkhead/link": (0o750, "bulkhead", "bulkhead-broker"),
            "run/xtables.lock": (0o660, "root", "bulkhead"),
        }
        for path, (mode, user, group) in expected.items():
            st = (self.root / path).stat()
            self.assertEqual((st.st_mode & 0o7777, st.st_uid, st.st_gid), (mode, self.uids[user], self.gids[group]), path)

    def test_service_user_can_take_the_xtables_lock(self):
        def become():
            os.setgroups([])
            os.setgid(self.gids["bulkhead"])
            os.setuid(self.uids["bulkhead"])

        # mkdtemp is 0700: let the other user through to the file, which is what is tested.
        self.root.chmod(0o755)
        lock = self.root / "run/xtables.lock"
        result = run("flock", "-n", str(lock), "true", preexec_fn=become)
        self.assertEqual(result.returncode, 0, result.stdout)


class Compose(unittest.TestCase):
    FILE = TOP / "compose/docker-compose.yml"

    def services(self):
        import yaml
        return yaml.safe_load(self.FILE.read_text())["services"]

    def controller(self):
        return self.services()["controller"]

    @unittest.skipUnless(shutil.which("docker-compose"), "docker-compose is not installed")
    def test_accepted(self):
        result = run("env", "BULKHEAD_BROKER=990:990", "docker-compose", "-f", str(self.FILE), "config", "-q")
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertEqual(result.stdout, "")

    @unittest.skipUnless(shutil.which("docker-compose"), "docker-compose is not installed")
    def test_broker_is_never_root_by_mistake(self):
        result = run("env", "-u", "BULKHEAD_BROKER", "docker-compose", "-f", str(self.FILE), "config", "-q")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("BULKHEAD_BROKER", result.stdout)

    def test_broker_has_nothing(self):
        service = self.services()["broker"]
        self.assertIs(service["read_only"], True)
        self.assertEqual(service["cap_drop"], ["ALL"])
        for key in ("cap_add", "privileged", "ports"):
            self.assertNotIn(key, service)
        self.assertIn("no-new-privileges:true", service["security_opt"])
        writable = {m["target"] for m in service["volumes"] if not m.get("read_only", False)}
        self.assertEqual(writable, {"/var/lib/bulkhead/broker", "/run/bulkhead/link"})
        self.assertFalse([m for m in service["volumes"] if "docker.sock" in m["source"] or "approvals" in m["source"]])

    def test_hardened(self):
        service = self.controller()
        self.assertIs(service["read_only"], True)
        self.assertEqual(service["cap_drop"], ["ALL"])
        self.assertEqual(set(service["cap_add"]), RUNTIME_CAPS | STARTUP_CAPS)
        self.assertIn("no-new-privileges:true", service["security_opt"])
        self.assertNotIn("privileged", service)
        self.assertNotIn("ports", service)

    def test_what_it_reads_it_cannot_write(self):
        mounts = {m["target"]: m.get("read_only", False) for m in self.controller()["volumes"]}
        for path in ("/etc/bulkhead", "/var/lib/bulkhead/approvals.git", "/etc/passwd", "/etc/group"):
            self.assertIs(mounts[path], True, path)


class ToolHive(unittest.TestCase):
    """The profile that runs ToolHive beside the others."""
    FILES = ("-f", str(Compose.FILE), "-f", str(TOP / "compose/toolhive.yml"))

    def config(self, *args, image=None):
        return run("env", *([f"TOOLHIVE_IMAGE={image}"] if image else ["-u", "TOOLHIVE_IMAGE"]), "BULKHEAD_BROKER=990:990", "docker-compose", *self.FILES, *args)

    @unittest.skipUnless(shutil.which("docker-compose"), "docker-compose is not installed")
    def test_its_image_must_be_named(self):
        image = "registry.example/toolhive@sha256:" + "0" * 64
        result = self.config("--profile", "toolhive", "config", "--services", image=image)
        self.assertEqual(sorted(result.stdout.split()), ["broker", "controller", "toolhive"], result.stdout)
        result = self.config("--profile", "toolhive", "config", "-q")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("TOOLHIVE_IMAGE", result.stdout)

    def test_listens_on_loopback_and_has_none_of_our_files(self):
        import yaml
        service = yaml.safe_load((TOP / "compose/toolhive.yml").read_text())["services"]["toolhive"]
        self.assertEqual(service["profiles"], ["toolhive"], "only when it is asked for")
        self.assertEqual(service["command"], ["serve", "--host", "127.0.0.1", "--port", "4483"])
        self.assertEqual(service["cap_drop"], ["ALL"])
        for key in ("ports", "privileged", "cap_add"):
            self.assertNotIn(key, service)
        self.assertFalse([m for m in service["volumes"] if "bulkhead" in (m if isinstance(m, str) else m["source"])])


class Scripts(unittest.TestCase):
    def test_syntax(self):
        for path in sorted((TOP / "deploy").glob("*.sh")):
            result = run("dash", "-n", str(path))
            self.assertEqual(result.returncode, 0, result.stdout)

    def test_packages_are_named_once_and_for_something(self):
        seen = set()
        for line in (TOP / "deploy/packages.txt").read_text().splitlines():
            if line.startswith("#"):
                continue
            name, uses, *rest = line.split()
            self.assertNotIn(name, seen)
            seen.add(name)
            self.assertLessEqual(set(uses.split(",")), {"build", "run", "image", "test", "lint"}, line)
            self.assertLessEqual(len(rest), 1, line)

    def test_workflow_is_pinned_and_may_only_read(self):
        import yaml
        workflow = yaml.safe_load((TOP / "deploy/ci/github-actions.yml").read_text())
        self.assertEqual(workflow["permissions"], {"contents": "read"})
        for job in workflow["jobs"].values():
            for step in job["steps"]:
                if "uses" in step:
                    self.assertRegex(step["uses"], r"@[0-9a-f]{40}$")
                # What a pull request names reaches a shell through the environment only.
                self.assertNotIn("${{", step.get("run", ""))


if __name__ == "__main__":
    unittest.main(verbosity=2)
