"""The command with the real Engine: `smoke --ci` without a controller, what it leaves, and that what it saw is what the controller then runs."""
import pathlib
import signal
import subprocess
import time
import unittest
import xml.etree.ElementTree

from host import Host
from rig import eventually, rig


class CliCase(unittest.TestCase):
    limit = 120

    def setUp(self):
        self.host = self.enterContext(Host())
        self.report = pathlib.Path(self.host.dir) / "junit.xml"

    def propose(self, server, entry):
        return self.host.propose(server, entry)

    def objects(self):
        """Names of every container and network of the Engine."""
        api = rig().api
        return sorted([name for c in api.containers() for name in c["Names"]] + [n["Name"] for n in api.networks()])

    def suite(self):
        return xml.etree.ElementTree.parse(self.report).getroot()


class SmokeCi(CliCase):
    def test_from_proposal_to_running(self):
        before = self.objects()
        proposal = self.propose("echo", self.host.entry("mcp/echo:1"))
        self.host.cli("smoke", proposal, "--ci", "--junit", str(self.report))
        self.assertEqual(self.suite().attrib["failures"] + self.suite().attrib["errors"], "00")
        self.assertEqual(self.objects(), before)
        self.host.cli("approve", proposal, "--key", str(self.host.key), "--yes")
        self.host.cli("promote", proposal)
        self.host.start()
        self.host.wait_state("echo", "running")
        self.host.cli("apply")
        self.assertTrue(self.host.plan_is_empty())
        self.host.cli("egress", "verify", "echo")
        metrics = self.host.cli("status", "--metrics").stdout
        for line in ('servers{state="running"} 1', 'ok{part="engine"} 1', 'ok{part="registry"} 1', 'ok{part="approvals"} 1', 'ok{part="egress"} 1', 'ok{part="signatures"} 1'):
            self.assertIn(f"bulkhead_controller_{line}\n", metrics)
        self.assertRegex(metrics, r"approval_end_timestamp_seconds \d{10}\n")
        self.host.cli("revoke", proposal, "--key", str(self.host.key), "--reason", "test")
        self.host.wait_refused("echo", "revoked")
        self.assertEqual(self.host.cli("apply", check=False).returncode, 2)

    def test_server_that_fails(self):
        before = self.objects()
        proposal = self.propose("hostile", {**self.host.entry("mcp/hostile:1"), "args": ["exit-at-start"]})
        done = self.host.cli("smoke", proposal, "--ci", "--junit", str(self.report), check=False)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertEqual((self.suite().attrib["failures"], self.suite().attrib["errors"]), ("1", "0"))
        self.assertEqual(self.objects(), before)
        self.assertNotEqual(self.host.cli("approve", proposal, "--key", str(self.host.key), "--yes", check=False).returncode, 0)

    def test_registry_file(self):
        entries = {"echo": self.host.entry("mcp/echo:1"), "off": {**self.host.entry("mcp/hostile:1"), "enabled": False}}
        self.host.write_registry(entries)
        self.host.cli("smoke", "--ci", "--registry", str(self.host.registry_path), "--junit", str(self.report))
        self.assertEqual([case.attrib["name"] for case in self.suite()], ["echo"])

    @staticmethod
    def minds(pid, number):
        """Does the process catch the signal, or block it to read it later? (nsenter, which it was a moment ago, does neither.)"""
        status = dict(line.split(":\t") for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Sig"))
        return any(int(status[key], 16) >> (number - 1) & 1 for key in ("SigBlk", "SigCgt"))

    def test_interrupted(self):
        other = rig().api.create(f"bystander-{self.host.name}", rig().image("tool/busybox:1"))
        self.addCleanup(rig().api.remove, other)
        before = self.objects()
        proposal = self.propose("hostile", {**self.host.entry("mcp/hostile:1"), "args": ["never-answer"]})
        for number, seconds in ((signal.SIGINT, 0.2), (signal.SIGTERM, 0.6), (signal.SIGINT, 1.5)):
            argv = rig().in_host(self.host._program("bulkhead"), "--config", str(self.host.conf_path), "smoke", proposal, "--ci")
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            eventually("the command minds signals", 20, lambda p=process, n=number: self.minds(p.pid, n), pause=0.01)
            time.sleep(seconds)
            process.send_signal(number)
            out, _ = process.communicate(timeout=30)
            self.assertIn(b"interrupted", out)
            self.assertEqual(self.objects(), before, f"after {number} at {seconds} s")
