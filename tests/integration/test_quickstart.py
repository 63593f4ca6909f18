#!/usr/bin/env python3
"""README's first command, from a fresh clone: quickstart, a call through the gateway, again (nothing changes), a kill (repaired), teardown (as it was
before).

It runs as it is shipped, but in namespaces of its own: its network is not the machine's, and /etc, /root, /run, /usr/local, /var/cache and /var/lib
are overlays that vanish with the test. That network reaches nothing, so the downloads are made before (quickstart.sh --fetch), and the base image is
the stand-in. Takes some minutes. (README's second command is tests/run.sh, which is what runs this.)
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

TOP = pathlib.Path(__file__).resolve().parents[2]
NETNS = f"bh-quickstart-{os.getpid()}"
# Not where a real quickstart keeps its downloads: other ones there would make its next run build another image.
WORK = {"BULKHEAD_WORK": "/var/cache/bulkhead-rig/quickstart"}
OVERLAYS = ("etc", "root", "usr/local", "var/cache", "var/lib")
# Docker cannot keep layers on an overlay: these are plain directories.
PLAIN = ("/var/lib/docker", "/var/lib/containerd")
CAPS = 1 << 10 | 1 << 12 | 1 << 13  # NET_BIND_SERVICE, NET_ADMIN, NET_RAW: linux/capability.h


def run(*argv, timeout=900, check=True, **kw):
    result = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, timeout=timeout, check=False,
                            env={**os.environ, **WORK}, **kw)
    if check and result.returncode != 0:
        raise AssertionError(f"{' '.join(argv)}: exit {result.returncode}\n{result.stdout[-6000:]}")
    return result


class Host:
    """A mount and network namespace that looks like a fresh machine."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="bulkhead-quickstart-"))
        run("ip", "netns", "add", NETNS)
        script = ["set -e", "ip link set lo up", "echo 0 >/proc/sys/net/ipv4/ip_forward"]
        for name in OVERLAYS:
            upper, work = (self.dir / "overlay" / name.replace("/", "_") / part for part in ("upper", "work"))
            upper.mkdir(parents=True)
            work.mkdir()
            script.append(f"mount -t overlay overlay -o lowerdir=/{name},upperdir={upper},workdir={work} /{name}")
        script.append("mount -t tmpfs -o mode=0755 tmpfs /run; mkdir /run/lock")
        # A machine that was never used: nothing of ours from before.
        script.append("rm -rf /etc/bulkhead /var/lib/bulkhead /var/lib/bulkhead-quickstart /usr/local/bin/bulkhead /usr/local/sbin/bulkhead-* "
                      "/usr/local/lib/systemd/system/bulkhead* /usr/local/libexec/bulkhead")
        # On a machine where the README's first command ran, its users are there: not here. Their numbers stay taken: what runs by them is seen from here, too,
        # and no user who has processes can be removed.
        script.append("sed -i s/^bulkhead/former-bulkhead/ /etc/passwd /etc/group /etc/shadow /etc/gshadow")
        for path in PLAIN:
            plain = self.dir / pathlib.Path(path).name
            plain.mkdir()
            script.append(f"mkdir -p {path}; mount --bind {plain} {path}")
        script.append("echo ready; exec sleep infinity")
        self.holder = subprocess.Popen(["nsenter", f"--net=/run/netns/{NETNS}", "unshare", "-m", "--propagation", "private", "sh", "-c", "; ".join(script)],
                                       stdout=subprocess.PIPE, text=True)
        if self.holder.stdout.readline() != "ready\n":
            self.close()
            raise AssertionError("the namespaces could not be made")

    def run(self, *argv, **kw):
        return run("nsenter", "-t", str(self.holder.pid), "-m", "-n", "--", *argv, **kw)

    def members(self):
        """Every process in our network namespace but the holder."""
        ours = os.readlink(f"/proc/{self.holder.pid}/ns/net")
        pids = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/ns/net") == ours and int(pid) != self.holder.pid:
                    pids.append(int(pid))
            except OSError:
                continue
        return pids

    def close(self):
        if self.holder.poll() is None:
            for sig in (signal.SIGTERM, signal.SIGKILL):
                for pid in self.members():
                    try:
                        os.kill(pid, sig)
                    except ProcessLookupError:
                        pass
                deadline = time.monotonic() + 15
                while self.members() and time.monotonic() < deadline:
                    time.sleep(0.2)
            self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()
        run("ip", "netns", "del", NETNS, check=False)
        shutil.rmtree(self.dir, ignore_errors=True)


def eventually(seconds, probe):
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(0.3)


@unittest.skipUnless(os.geteuid() == 0, "needs root: namespaces, users, dockerd")
class Quickstart(unittest.TestCase):
    limit = 900

    @classmethod
    def setUpClass(cls):
        cls.clone = pathlib.Path(tempfile.mkdtemp(prefix="bulkhead-clone-")) / "bulkhead"
        cls.addClassCleanup(shutil.rmtree, cls.clone.parent, True)
        if (TOP / ".git").exists():
            run("git", "-c", f"safe.directory={TOP}/.git", "-c", f"safe.directory={TOP}", "clone", "-q", f"file://{TOP}", str(cls.clone))
        else:
            shutil.copytree(TOP, cls.clone, symlinks=True)
        run(str(cls.clone / "deploy/quickstart.sh"), "--fetch", cwd=cls.clone)
        cls.host = Host()
        cls.addClassCleanup(cls.host.close)
        # Another clone was brought up on this machine, and is gone.
        build = pathlib.Path(WORK["BULKHEAD_WORK"]) / "build"
        cls.host.run("sh", "-c", f"rm -rf {build}; mkdir -p {build}; printf 'abs_top_srcdir = /nowhere\ninstall-exec: /nowhere/Makefile.am\n' >{build}/Makefile")

    @contextlib.contextmanager
    def busy(self, user):
        """Something runs by that user."""
        argv = ["nsenter", "-t", str(self.host.holder.pid), "-m", "-n", "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups",
                "sh", "-c", "echo ready; exec sleep 600"]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
            try:
                self.assertEqual(process.stdout.readline(), "ready\n")
                yield
            finally:
                process.kill()

    def docker(self, *argv, **kw):
        return self.host.run("/usr/bin/docker", "-H", "unix:///run/docker.sock", *argv, **kw).stdout.strip()

    def quickstart(self):
        return self.host.run(str(self.clone / "deploy/quickstart.sh"), "--yes", cwd=self.clone).stdout

    def servers(self):
        return self.docker("ps", "-q", "--no-trunc", "--filter", "label=io.bulkhead.role=server").split()

    def is_running(self):
        result = self.host.run("bulkhead", "--json", "status", "everything", check=False)
        return result.returncode == 0 and json.loads(result.stdout)["servers"][0]["state"] == "running"

    def what_is_there(self):
        """What a second run must not change."""
        return {
            "containers": sorted(self.docker("ps", "-q", "--no-trunc").split()),
            "images": sorted(self.docker("image", "ls", "-q", "--no-trunc").split()),
            "approvals": self.host.run("git", "-c", "safe.directory=*", "--git-dir=/var/lib/bulkhead/approvals.git", "rev-parse", "refs/heads/main").stdout,
            "files": self.host.run("sh", "-c", "find /etc/bulkhead /usr/local/bin /usr/local/sbin /usr/local/libexec /usr/local/lib -type f | "
                                   "sort | xargs sha256sum").stdout,
            "ledger": self.host.run("cat", "/var/lib/bulkhead-quickstart/ledger").stdout,
        }

    def test_1_comes_up(self):
        output = self.quickstart()
        self.assertIn("everything", output)
        self.assertTrue(self.is_running(), output)
        self.assertEqual(len(self.servers()), 1)
        self.host.run("bulkhead", "plan")
        self.assertIn("everything:echo -> Echo: hello from a sealed server", output)
        # What the agent was not given does not exist for it.
        self.assertRegex(output, r"everything:get-env -> .*(no|not|unknown)")

    def test_2_server_is_sealed(self):
        (server,) = self.servers()
        facts = json.loads(self.docker("inspect", server))[0]
        self.assertTrue(facts["HostConfig"]["ReadonlyRootfs"])
        self.assertEqual(facts["HostConfig"]["CapDrop"], ["ALL"])
        status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{facts['State']['Pid']}/status").read_text().splitlines() if ":\t" in line)
        self.assertEqual((int(status["CapEff"], 16), status["NoNewPrivs"], status["Seccomp"]), (0, "1", "2"))

    def test_3_controller_is_not_root(self):
        pid = int(self.docker("inspect", "-f", "{{.State.Pid}}", "bulkhead-controller"))
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
        field = lambda name: re.search(rf"^{name}:\s+(.*)$", text, re.M).group(1)  # noqa: E731
        uid = self.host.run("id", "-u", "bulkhead").stdout.strip()
        self.assertEqual(set(field("Uid").split()), {uid})
        for name in ("CapEff", "CapPrm", "CapAmb"):
            self.assertEqual(int(field(name), 16) & ~CAPS, 0, f"{name} {field(name)}")
        self.assertEqual(field("NoNewPrivs"), "1")
        # No TCP listener of the controller's: in this network there is nobody but the registry and the gateway.
        listeners = self.host.run("ss", "-Hltn").stdout.split("\n")
        self.assertEqual(sorted(line.split()[3] for line in listeners if line), ["127.0.0.1:5000", "127.0.0.1:8000", "127.0.0.1:8080"])

    def test_3_broker_can_change_nothing(self):
        pid = int(self.docker("inspect", "-f", "{{.State.Pid}}", "bulkhead-broker"))
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
        field = lambda name: re.search(rf"^{name}:\s+(.*)$", text, re.M).group(1)  # noqa: E731
        self.assertEqual(set(field("Uid").split()), {self.host.run("id", "-u", "bulkhead-broker").stdout.strip()})
        for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
            self.assertEqual(int(field(name), 16), 0, f"{name} {field(name)}")
        self.assertEqual((field("NoNewPrivs"), field("Seccomp")), ("1", "2"))
        mounts = json.loads(self.docker("inspect", "-f", "{{json .Mounts}}", "bulkhead-broker"))
        self.assertFalse([m for m in mounts if "docker.sock" in m["Source"] or "approvals" in m["Source"] or m["RW"] and m["Source"].startswith("/etc")])

    def test_3_gateway_wants_the_token(self):
        url = "http://127.0.0.1:8080/servers/everything/mcp"
        status = self.host.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*", "-d", "{}", url).stdout
        self.assertEqual(status, "401")
        for name in ("gateway.token", "agents.key"):
            self.assertEqual(self.host.run("stat", "-c", "%a %U", f"/etc/bulkhead/{name}").stdout.strip(), "600 root")
        status = self.host.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*", "-d", "{}", "http://127.0.0.1:8000/v1/call").stdout
        self.assertEqual(status, "401")

    def test_4_key_is_for_root_only(self):
        mode = self.host.run("stat", "-c", "%a %U", "/etc/bulkhead/operator_key").stdout.strip()
        self.assertEqual(mode, "600 root")

    def test_5_second_run_changes_nothing(self):
        before = self.what_is_there()
        output = self.quickstart()
        self.assertIn("approved and runs", output)
        self.assertEqual(self.what_is_there(), before)

    def test_6_killed_server_comes_back(self):
        (server,) = self.servers()
        started = self.docker("inspect", "-f", "{{.State.StartedAt}}", server)
        self.docker("kill", server)

        def back():
            servers = self.servers()
            return servers and self.docker("inspect", "-f", "{{.State.StartedAt}}", servers[0], check=False) != started and self.is_running()
        self.assertTrue(eventually(30, back))

    def test_7_teardown_leaves_what_was_there(self):
        self.docker("run", "-d", "--name", "foreign", "--network", "none", "--entrypoint", "/bin/sleep", "debian:bookworm-slim", "600")
        self.host.run("iptables", "-N", "FOREIGN")
        self.host.run("iptables", "-I", "FORWARD", "-j", "FOREIGN")
        ledger = self.host.run("cat", "/var/lib/bulkhead-quickstart/ledger").stdout.splitlines()
        names = [line.split()[1] for line in ledger if line.startswith("user ")]
        tables = [line for line in ledger if line.startswith("table ")]
        self.assertIn("bulkhead", names)
        # An Engine that quickstart started is stopped: look at what is in it before that.
        teardown = (self.clone / "deploy/teardown.sh")
        self.host.run("touch", "/run/foreign-file")
        names.remove("bulkhead-registry")
        with self.busy("bulkhead-registry"):
            output = self.host.run(str(teardown), "--yes", cwd=self.clone).stdout
        self.assertIn("Done", output)
        self.assertRegex(output, "user bulkhead-registry stays: .*process")
        self.assertEqual(output.count(" stays: "), 1, output)
        self.host.run("userdel", "bulkhead-registry")
        for name in names:
            self.assertNotEqual(self.host.run("getent", "passwd", name, check=False).returncode, 0, name)
        rules = self.host.run("iptables-save").stdout
        self.assertNotIn("BULKHEAD", rules)
        self.assertIn("-A FORWARD -j FOREIGN", rules)
        left = self.host.run("nft", "list", "tables").stdout
        self.assertNotIn("bulkhead", left)
        # Tables that were not there before go too, except where somebody's rule is in them.
        self.assertEqual([table for table in tables if table != "table ip filter" and table in left.splitlines()], [])
        # What the Engine that quickstart started had changed.
        self.assertIn(":FORWARD ACCEPT", rules)
        self.assertNotIn("DOCKER", rules)
        self.assertEqual(self.host.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout.strip(), "0")
        for path in ("/etc/bulkhead", "/var/lib/bulkhead", "/var/lib/bulkhead-quickstart", "/usr/local/bin/bulkhead", "/run/bulkhead"):
            self.assertNotEqual(self.host.run("test", "-e", path, check=False).returncode, 0, path)
        processes = {pathlib.Path(f"/proc/{pid}/comm").read_text().strip() for pid in self.host.members()}
        self.assertFalse(processes & {"dockerd", "docker-registry", "bulkhead-contro", "bulkhead-broker"}, processes)
        # The Engine again, by hand: the foreign container is still in it, ours are not.
        engine = subprocess.Popen(["nsenter", "-t", str(self.host.holder.pid), "-m", "-n", "dockerd"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        try:
            eventually(30, lambda: self.docker("version", check=False, timeout=10).count("Version") > 1)
            self.assertEqual(self.docker("ps", "-a", "--format", "{{.Names}}"), "foreign")
            self.assertNotIn("bulkhead", self.docker("image", "ls", "--format", "{{.Repository}}"))
        finally:
            # Removed properly, or its control groups would stay on the machine.
            self.docker("rm", "-f", "foreign", check=False)
            engine.terminate()
            engine.wait(30)


if __name__ == "__main__":
    unittest.main(verbosity=2)
