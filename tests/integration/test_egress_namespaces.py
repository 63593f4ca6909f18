#!/usr/bin/env python3
"""Guard and policy against a world of network namespaces, without an Engine: with iptables-nft, and with iptables-legacy in its place."""
import os
import pathlib
import signal
import subprocess
import sys
import unittest

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BULKHEAD_BUILD", TOP))


class Namespaces(unittest.TestCase):
    limit = 400

    def attempts(self, *options):
        argv = [sys.executable, str(TOP / "tests/integration/egress_attempts.py"), str(BUILD / "tests/integration/egress_drive"), *options]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        try:
            said, _ = process.communicate(timeout=380)
        finally:
            # Ended before its time, it still takes its namespaces away.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.communicate()
        done = subprocess.CompletedProcess(argv, process.returncode, said)
        if done.returncode == 77:
            self.skipTest(done.stdout.strip())
        self.assertEqual(done.returncode, 0, "\n".join(line for line in done.stdout.splitlines() if not line.startswith("ok ")))
        self.assertGreater(done.stdout.count("\nok "), 200)

    def test_attempts(self):
        self.attempts()

    def test_attempts_with_iptables_legacy(self):
        if not os.access("/usr/sbin/xtables-legacy-multi", os.X_OK):
            self.skipTest("iptables-legacy is not installed")
        self.attempts("--legacy")


if __name__ == "__main__":
    unittest.main()
