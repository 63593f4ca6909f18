"""The proof is inside: what a running server's own process sees of its prison, and what the Engine says of it."""
import re
import unittest

from attached import Attached
from host import Host
from rig import rig

MEMORY = 128 << 20


class Inside(unittest.TestCase):
    limit = 60

    @classmethod
    def setUpClass(cls):
        cls.rig = rig()
        cls.host = Host()
        cls.addClassCleanup(cls.host.close)
        cls.host.start()
        cls.host.approve("echo", cls.host.entry("mcp/echo:1", resources={"memory": "128m", "cpus": 0.5, "pids": 64, "tmpfs": "8m"}, env={"COLOUR": "grey"}))
        cls.host.wait_state("echo", "running")
        cls.inspect = cls.host.container("echo")
        cls.server = Attached(cls.rig.engine_socket, cls.inspect["Id"])
        cls.addClassCleanup(cls.server.close)
        text, _ = cls.server.tool("status")
        cls.identity, *sections = re.split(r"^== ", text, flags=re.M)
        cls.files = {s.split("\n", 1)[0]: s.split("\n", 1)[1] for s in sections}
        cls.status = dict(line.split(":\t", 1) for line in cls.files["/proc/self/status"].splitlines() if ":\t" in line)

    def first(self, *paths):
        """The content of the first of these files that is there: control groups come in two versions."""
        for p in paths:
            content = self.files.get(p, "")
            if content and not content.startswith(p + ":"):
                return content.strip()
        raise AssertionError(f"none of {paths}: {[self.files.get(p) for p in paths]}")

    # -- privileges ----------------------------------------------------------------------------------------------------
    def test_no_capability(self):
        for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(self.status[key], 16), 0, key)

    def test_no_new_privileges_and_seccomp(self):
        self.assertEqual(self.status["NoNewPrivs"].strip(), "1")
        self.assertEqual(self.status["Seccomp"].strip(), "2")

    def test_nobody(self):
        self.assertEqual(self.status["Uid"].split(), ["65532"] * 4)
        self.assertEqual(self.status["Gid"].split(), ["65532"] * 4)
        self.assertIn(self.status.get("Groups", "").split(), ([], ["65532"]))

    def test_own_process_tree(self):
        self.assertLess(int(self.identity.split()[-1]), 20)

    # -- file system ---------------------------------------------------------------------------------------------------
    def mounts(self):
        return [line.split()[:4] for line in self.files["/proc/self/mounts"].splitlines()]

    def test_root_and_every_mount_is_read_only(self):
        """But /tmp, and what the Engine gives every container: /dev, the masks over files of /proc, and with control groups of version 1 a folder of mount
        points that only root could write to."""
        writable = []
        for _, where, kind, options in self.mounts():
            if "rw" in options.split(",") and not re.match("/(proc|dev)(/|$)|/sys/fs/cgroup$", where):
                writable.append((where, kind))
        self.assertEqual(sorted(w for w, _ in writable if w not in ("/etc/resolv.conf", "/etc/hostname", "/etc/hosts")), ["/tmp"])

    def test_nothing_but_tmp_can_be_written(self):
        for path in ("/x", "/bin/x", "/server", "/etc/x", "/etc/hosts", "/etc/resolv.conf", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/x",
                     "/sys/fs/cgroup/x", "/dev/x", "/var/tmp/x"):
            text, failed = self.server.tool("write_file", path=path, text="x")
            self.assertTrue(failed, f"{path}: {text}")
        text, failed = self.server.tool("write_file", path="/tmp/x", text="x")
        self.assertFalse(failed, f"/tmp must be writable: {text}")

    def test_tmp_is_small_and_without_programs(self):
        options = next(o for _, where, kind, o in self.mounts() if where == "/tmp" and kind == "tmpfs").split(",")
        for word in ("noexec", "nosuid", "nodev", "size=8192k"):
            self.assertIn(word, options)
        # A copy of a program that runs where it was.
        _, failed = self.server.tool("exec", path="/bin/env")
        self.assertFalse(failed)
        self.rig.api.execute(self.inspect["Id"], "sh", "-c", "cat /bin/busybox >/tmp/env; /bin/busybox chmod 755 /tmp/env")
        text, failed = self.server.tool("exec", path="/tmp/env")
        self.assertTrue(failed, text)

    def test_no_socket_of_the_engine(self):
        for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"):
            _, failed = self.server.tool("read_file", path=path)
            self.assertTrue(failed, path)

    # -- limits --------------------------------------------------------------------------------------------------------
    def test_limits_in_the_control_group(self):
        self.assertEqual(int(self.first("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")), MEMORY)
        self.assertEqual(int(self.first("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max")), 64)
        self.assertIn(self.first("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us").split()[0], ("50000",))

    def test_limits_of_the_process(self):
        limits = {line[:26].strip(): line[26:].split()[:2] for line in self.files["/proc/self/limits"].splitlines()}
        self.assertEqual(limits["Max open files"], ["1024", "4096"])
        self.assertEqual(limits["Max core file size"], ["0", "0"])

    def test_processes_run_out_before_the_host_does(self):
        code, output = self.rig.api.execute(self.inspect["Id"], "sh", "-c", "i=0; while [ $i -lt 100 ]; do sleep 3 & i=$((i+1)); done; wait")
        self.assertRegex(output, "can't fork|Resource temporarily unavailable", f"exit {code}")

    # -- network ---------------------------------------------------------------------------------------------------------
    def test_no_way_out(self):
        """Its network is internal. (Engine 20.10 gives even those a default route, so it is tried and not read.)"""
        self.assertTrue(self.rig.api.call("GET", f"/networks/{self.inspect['HostConfig']['NetworkMode']}")["Internal"])
        before = self.rig.far.arrived()
        for address in ("192.0.2.10", "198.51.100.10", "203.0.113.1", "169.254.169.254"):
            for proto in ("tcp", "udp", "icmp"):
                text, _ = self.server.tool("connect", host=address, port=443, proto=proto, timeout_ms=300)
                self.assertNotEqual(text, "connected", f"{proto} {address}")
        self.assertEqual(self.rig.far.arrived(), before)

    def test_no_ipv6(self):
        self.assertNotIn("eth0", self.files["/proc/net/if_inet6"])
        text, _ = self.server.tool("connect", host="2001:db8:2::10", port=80, timeout_ms=300)
        self.assertNotEqual(text, "connected")

    def test_resolver_is_its_own_gateway(self):
        network = self.rig.api.call("GET", f"/networks/{self.inspect['HostConfig']['NetworkMode']}")
        self.assertEqual(self.inspect["HostConfig"]["Dns"], [network["IPAM"]["Config"][0]["Gateway"]])

    def test_environment_is_what_was_approved(self):
        text, _ = self.server.tool("env")
        names = {line.split("=", 1)[0] for line in text.splitlines()}
        self.assertIn("COLOUR", names)
        self.assertLessEqual(names, {"COLOUR", "PATH", "HOME", "HOSTNAME"})

    # -- system calls that our profile adds to the Engine's refusals ------------------------------------------------------
    def test_forbidden_sockets(self):
        for proto in ("packet", "icmp-raw", "gre"):
            text, _ = self.server.tool("connect", host="192.0.2.10", port=80, proto=proto)
            self.assertRegex(text, "not permitted|ermission denied|not supported", proto)


class CisBenchmark(unittest.TestCase):
    """Section 5 of the CIS Docker benchmark (container runtime), item by item, on the Engine's inspect. Items on images, hosts or ssh daemons inside are not the runtime's."""
    limit = 60

    @classmethod
    def setUpClass(cls):
        cls.rig = rig()
        cls.host = Host()
        cls.addClassCleanup(cls.host.close)
        cls.host.start()
        cls.host.approve("everything", cls.host.entry("mcp/everything:2026.8.31"))
        cls.host.wait_state("everything", "running", seconds=60)
        cls.c = cls.host.container("everything")
        cls.h = cls.c["HostConfig"]

    def test_5_1_apparmor_where_the_kernel_has_it(self):
        info = self.rig.api.call("GET", "/info")
        if any("apparmor" in o for o in info["SecurityOptions"]):
            self.assertEqual(self.c["AppArmorProfile"], "docker-default")
        else:
            self.assertNotIn("apparmor=unconfined", self.h["SecurityOpt"])

    def test_5_2_selinux_not_switched_off(self):
        self.assertNotIn("label=disable", self.h["SecurityOpt"])

    def test_5_3_capabilities(self):
        self.assertEqual(self.h["CapDrop"], ["ALL"])
        self.assertFalse(self.h["CapAdd"])

    def test_5_4_not_privileged(self):
        self.assertFalse(self.h["Privileged"])

    def test_5_5_no_sensitive_host_directories(self):
        self.assertFalse(self.h["Binds"])
        self.assertEqual([m for m in self.c["Mounts"] if m["Type"] == "bind"], [])

    def test_5_7_no_privileged_ports_and_5_8_none_at_all_and_5_13_no_address_of_the_host(self):
        self.assertFalse(self.h["PortBindings"])
        self.assertFalse(self.h["PublishAllPorts"])
        self.assertEqual([p for p in self.c["NetworkSettings"]["Ports"].values() if p], [])

    def test_5_9_network_of_its_own(self):
        self.assertRegex(self.h["NetworkMode"], "^bh-")
        network = self.rig.api.call("GET", f"/networks/{self.h['NetworkMode']}")
        self.assertEqual(len(network["Containers"]), 1)
        self.assertTrue(network["Internal"])

    def test_5_10_memory_and_5_11_cpu(self):
        self.assertGreater(self.h["Memory"], 0)
        self.assertEqual(self.h["MemorySwap"], self.h["Memory"])
        self.assertGreater(self.h["NanoCpus"], 0)

    def test_5_12_read_only_root(self):
        self.assertTrue(self.h["ReadonlyRootfs"])

    def test_5_14_restart_is_the_controllers(self):
        self.assertEqual(self.h["RestartPolicy"]["Name"], "no")

    def test_5_15_to_17_namespaces_and_5_30_users(self):
        self.assertEqual(self.h["PidMode"], "")
        self.assertEqual(self.h["IpcMode"], "private")
        self.assertEqual(self.h["UTSMode"], "")
        self.assertEqual(self.h["UsernsMode"], "")
        self.assertEqual(self.h["CgroupnsMode"], "private")

    def test_5_18_no_devices(self):
        self.assertFalse(self.h["Devices"])
        self.assertFalse(self.h["DeviceRequests"])
        self.assertFalse(self.h["DeviceCgroupRules"])

    def test_5_19_ulimits(self):
        self.assertEqual({u["Name"]: (u["Soft"], u["Hard"]) for u in self.h["Ulimits"]}, {"nofile": (1024, 4096), "core": (0, 0)})

    def test_5_20_mount_propagation(self):
        self.assertEqual([m for m in self.c["Mounts"] if m.get("Propagation") == "shared"], [])

    def test_5_22_seccomp_profile_of_our_own(self):
        profile = next(o for o in self.h["SecurityOpt"] if o.startswith("seccomp="))
        self.assertNotIn("unconfined", profile)
        self.assertIn("SCMP_ACT_", profile)

    def test_5_22_the_profile_is_in_force(self):
        """Sockets for which a process needs no capability: the kernel and the Engine's own profile (of 20.10) would allow them."""
        for family, kind, protocol, what in ((38, 5, 0, "AF_ALG"), (40, 1, 0, "AF_VSOCK"), (16, 3, 15, "AF_NETLINK for events"), (2, 1, 0, "AF_INET")):
            program = f"socket(my $s, {family}, {kind}, {protocol}) ? print 'open' : print 'error ', $! + 0"
            _, output = self.rig.api.execute(self.c["Id"], "perl", "-e", program)
            self.assertEqual(output.strip(), "open" if what == "AF_INET" else "error 1", what)

    def test_5_25_cgroup_parent(self):
        # The rig's Engine has one for all its containers; ours must not choose another.
        self.assertIn(self.h["CgroupParent"], ("", f"/{self.rig.env['RIG_CGROUP']}"))

    def test_5_26_no_new_privileges(self):
        self.assertIn("no-new-privileges:true", self.h["SecurityOpt"])

    def test_5_27_no_health_check_that_writes_into_inspect(self):
        self.assertEqual((self.c["Config"].get("Healthcheck") or {}).get("Test", ["NONE"]), ["NONE"])

    def test_5_29_pids(self):
        self.assertEqual(self.h["PidsLimit"], 128)

    def test_5_31_no_socket_of_the_engine(self):
        self.assertEqual([m for m in self.c["Mounts"] if "docker.sock" in m.get("Source", "")], [])

    def test_user_is_nobody_although_the_image_wants_root(self):
        self.assertEqual(self.c["Config"]["User"], "65532:65532")

    def test_stdio_is_not_logged(self):
        self.assertEqual(self.h["LogConfig"]["Type"], "none")
