"""The rig itself: what later tests take for granted. A counter that never moves, or a listener that never answers, would let every one of them pass."""
import unittest

from rig import rig


class RigTest(unittest.TestCase):
    def setUp(self):
        self.rig = rig()
        self.made = []

    def tearDown(self):
        for c in self.made:
            self.rig.api.remove(c)

    def container(self, **host_config):
        c = self.rig.api.create(f"rig-{len(self.made)}-{self.id().rsplit('.', 1)[1].replace('_', '-')}", self.rig.image("tool/busybox:1"), host_config=host_config)
        self.made.append(c)
        self.rig.api.call("POST", f"/containers/{c}/start")
        return c

    def test_unguarded_container_reaches_the_far_side_and_is_counted(self):
        before, seen = self.rig.far.arrived(), self.rig.far.seen().get(("192.0.2.10", "tcp", 80), 0)
        self.assertEqual(self.rig.api.fetch(self.container(), "192.0.2.10"), "far 192.0.2.10:80")
        self.assertGreaterEqual(self.rig.far.arrived(), before + 3)
        self.assertGreater(self.rig.far.seen()[("192.0.2.10", "tcp", 80)], seen)
        self.assertEqual(self.rig.far.contacts()[-1]["to"], "192.0.2.10")

    def test_ping_and_dns_arrive(self):
        c = self.container()
        code, output = self.rig.api.execute(c, "ping", "-c", "1", "-W", "2", "198.51.100.10")
        self.assertEqual(code, 0, output)
        code, output = self.rig.api.execute(c, "nslookup", "allowed.example.org", "198.51.100.53")
        self.assertIn("192.0.2.10", output)
        self.assertIn(("198.51.100.10", "icmp", None), self.rig.far.seen())

    def test_metadata_addresses_are_there_to_be_reached(self):
        self.assertEqual(self.rig.api.fetch(self.container(), "169.254.169.254"), "far 169.254.169.254:80")

    def test_host_listens_where_no_server_may_come(self):
        c = self.container()
        for address in ("192.168.77.1", "203.0.113.2"):
            code, output = self.rig.api.execute(c, "sh", "-c", f"echo hello | nc -w 2 {address} 7001")
            self.assertEqual((code, output.strip()), (0, "hello"), address)

    def test_limits_of_the_engine_reach_the_cgroup(self):
        c = self.container(Memory=48 << 20, MemorySwap=48 << 20)
        code, output = self.rig.api.execute(c, "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max")
        self.assertEqual((code, output.strip()), (0, str(48 << 20)))

    def test_npm_servers_are_images(self):
        for name in ("mcp/everything:2026.8.31", "mcp/filesystem:2026.8.31", "mcp/memory:2026.8.31"):
            image = self.rig.api.pull(self.rig.image(name))
            self.assertEqual(image["Config"]["Entrypoint"][0], "node")
            self.assertIn(self.rig.image(name).replace(":2026.8.31", ""), image["RepoDigests"])
