"""The Engine client on real Engines: dockerd, and Podman's compatible socket. The program that walks through every call is tests/integration/engine_real."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from rig import TOP, eventually, rig, run

BUILD = pathlib.Path(os.environ.get("BULKHEAD_BUILD", TOP))
PODMAN_CONF = """
[[registry]]
location = "{registry}"
insecure = true
"""


class EngineClient(unittest.TestCase):
    limit = 240

    def setUp(self):
        self.rig = rig()
        self.image = self.rig.image("tool/busybox:1")

    def walk(self, socket):
        done = run(*self.rig.in_host(BUILD / "tests/integration/engine_real", socket, self.image), timeout=180, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertNotIn("FAIL", done.stdout)
        self.assertGreater(len(re.findall("(?m)^ok ", done.stdout)), 30, done.stdout)
        return done.stdout

    def test_dockerd(self):
        self.assertNotIn("Podman", self.walk(self.rig.engine_socket))

    @unittest.skipUnless(shutil.which("podman"), "podman is not installed")
    def test_podman(self):
        work = pathlib.Path(tempfile.mkdtemp(prefix="bulkhead-podman-"))
        self.addCleanup(shutil.rmtree, work, ignore_errors=True)
        (work / "registries.conf").write_text(PODMAN_CONF.format(registry=self.image.split("/")[0]))
        options = ["--root", work / "root", "--runroot", work / "run", "--tmpdir", work / "tmp", "--network-config-dir", work / "net",
                   "--cgroup-manager", "cgroupfs"]
        socket = work / "podman.sock"
        with open(work / "log", "wb") as log:
            service = subprocess.Popen([*self.rig.in_host("podman", *options, "system", "service", "-t", "0", f"unix://{socket}")], stdout=log, stderr=log,
                                       stdin=subprocess.DEVNULL, env={**os.environ, "CONTAINERS_REGISTRIES_CONF": str(work / "registries.conf")})
        self.addCleanup(lambda: (service.terminate(), service.wait(30)))
        self.addCleanup(run, *self.rig.in_host("podman", *options, "rm", "--all", "--force", "--time", "0"), check=False)
        eventually("podman's socket", 20, socket.exists)
        self.assertIn("(Podman)", self.walk(socket))


if __name__ == "__main__":
    unittest.main()
