"""`compose export` beside the controller: docker-compose makes of it the container that the controller runs, field by field, on the same Engine."""
import json
import os
import shutil
import subprocess
import unittest

from host import Host
from rig import rig

# What differs, and why: the one is started by an Engine's client for its own bookkeeping, the other by a controller that labels what is its own.
ITS_OWN = {"Labels", "NetworkMode", "Dns", "AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce", "MacAddress"}


def unset(value):
    return value in (None, False, 0, "", [], {})


def differences(a, b, where=""):
    """Names of fields that two inspects do not have alike; what is not set is not set, however it is written."""
    found = []
    for key in sorted(set(a) | set(b)):
        x, y = a.get(key), b.get(key)
        if key in ITS_OWN or x == y or (unset(x) and unset(y)):
            continue
        if isinstance(x, list) and isinstance(y, list) and sorted(map(json.dumps, x)) == sorted(map(json.dumps, y)):
            continue
        found.append(f"{where}{key}: {x!r} is {y!r}")
    return found


@unittest.skipUnless(shutil.which("docker-compose"), "docker-compose is not installed")
class Export(unittest.TestCase):
    limit = 120

    def setUp(self):
        self.host = self.enterContext(Host())

    def compose(self, *argv):
        done = subprocess.run(["docker-compose", "--project-name", self.host.name, *argv], cwd=self.host.dir / "export", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
                              check=False, env={**os.environ, "DOCKER_HOST": f"unix://{rig().engine_socket}"})
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def test_the_same_container(self):
        self.host.start()
        self.host.approve("echo", self.host.entry("mcp/echo:1", resources={"memory": "64m", "cpus": 0.25, "pids": 40, "tmpfs": "8m"}, env={"GREETING": "$HOME ${x}"}))
        self.host.wait_state("echo", "running")
        (self.host.dir / "export").mkdir()
        for name, args in (("docker-compose.yml", ("export", "--pool", "10.240.0.0/24")), ("seccomp.json", ("seccomp",))):
            (self.host.dir / "export" / name).write_text(self.host.cli("compose", *args).stdout)
        self.addCleanup(self.compose, "down", "--timeout", "0")
        self.compose("up", "--no-start", "--quiet-pull")
        ours = rig().api.inspect(self.host.server("echo")["container"])
        theirs = rig().api.inspect(self.compose("ps", "-q").strip())
        self.assertEqual(ours["Config"]["Env"], theirs["Config"]["Env"])
        for inspect in (ours, theirs):  # the profile is a text of JSON; each wrote it its own way
            options = inspect["HostConfig"]["SecurityOpt"]
            inspect["HostConfig"]["SecurityOpt"] = [json.loads(o.removeprefix("seccomp=")) if o.startswith("seccomp=") else o for o in options]
        found = differences(ours["HostConfig"], theirs["HostConfig"], "HostConfig.")
        if rig().api.call("GET", "/info")["CgroupVersion"] == "1":  # what docker-compose 1.29 cannot say, as the file's head tells
            found.remove("HostConfig.CgroupnsMode: 'private' is 'host'")
        self.assertEqual(found, [])
        self.assertEqual(differences(ours["Config"], theirs["Config"], "Config."), [])
        self.assertEqual(ours["Image"], theirs["Image"])
        network, = theirs["NetworkSettings"]["Networks"]
        network = rig().api.call("GET", f"/networks/{network}")
        self.assertEqual((network["Internal"], network["EnableIPv6"], network["IPAM"]["Config"]), (True, False, [{"Subnet": "10.240.0.0/29", "Gateway": "10.240.0.1"}]))
        # The controller sees nothing of it as its own.
        self.host.cli("apply")
        self.assertTrue(self.host.plan_is_empty())
        self.assertEqual(rig().api.inspect(theirs["Id"])["State"]["Status"], "created")
