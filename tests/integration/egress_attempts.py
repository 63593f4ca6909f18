#!/usr/bin/env python3
"""The guard and the policy against a small world of network namespaces: two servers on bridges of their own, a host, and an internet.

    egress_attempts.py PATH-OF-egress_drive [--legacy] [--bench] [--rounds N]

Every attempt is first made without any rule of ours and has to arrive: a test that cannot fail proves nothing. Then it is made against them, and the
counters on the far side have to read 0, while what is allowed works. Needs root; exits 77 without. Everything happens inside namespaces made here.
"""
import argparse
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import egress_probe  # noqa: E402

PREFIX = "bh-eg%d" % os.getpid()
HOST, SINK, ONE, TWO = (PREFIX + n for n in ("-host", "-sink", "-one", "-two"))
BRIDGE = {ONE: "bh11111111", TWO: "bh22222222"}
ADDRESS = {ONE: "10.213.0.2", TWO: "10.213.0.10"}
GATEWAY = {ONE: "10.213.0.1", TWO: "10.213.0.9"}
OWN, BROKER, OTHER = "2", "1", "65534"  # uids that every Debian has: bin, daemon, nobody
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
RULES = [{"cidr": "198.51.100.0/24", "ports": [443]}, {"cidr": "192.0.2.53/32", "protocol": "udp", "ports": [5353]}]
HOST_PORTS = [22, 53, 80, 111, 443, 2375, 5355, 8080, 32768, 65535]
TARGETS = {
    "device": "eth0", "address": ADDRESS[ONE], "gateway": GATEWAY[ONE], "listed": "198.51.100.7", "listed_port": 443,
    "udp_listed": "192.0.2.53", "udp_port": 5353, "unlisted": "203.0.113.5", "resolver": "8.8.8.8",
    "metadata": ["169.254.169.254", "168.63.129.16", "100.100.100.200"], "metadata6": ["fd00:ec2::254"], "host": ["192.168.77.1", "10.213.0.9"],
    "host_ports": HOST_PORTS, "sibling": ADDRESS[TWO], "sibling_port": 8080, "sibling_mac": "02:00:00:00:00:22", "sibling_listed": "203.0.113.7",
    "global6": "2001:db8::7",
}
ECHO = r"""
import socket, sys, threading, selectors
tcp, udp = [[(p.rpartition('@')[0] or '::', int(p.rpartition('@')[2])) for p in a.split(',') if p] for a in sys.argv[1:3]]
def talk(c):
    try:
        while True:
            d = c.recv(65536)
            if not d: break
            c.sendall(d)
    except OSError: pass
    c.close()
sel = selectors.DefaultSelector()
for kind, ports in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)):
    for address, port in ports:
        s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, kind)
        if ':' in address: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind((address, port))
        if kind == socket.SOCK_STREAM: s.listen(64)
        sel.register(s, selectors.EVENT_READ, kind)
print('ready', flush=True)
while True:
    for key, _ in sel.select():
        try:
            if key.data == socket.SOCK_STREAM:
                threading.Thread(target=talk, args=(key.fileobj.accept()[0],), daemon=True).start()
            else:
                d, a = key.fileobj.recvfrom(65536)
                if d == b'later': threading.Timer(1.0, key.fileobj.sendto, (d, a)).start()
                else: key.fileobj.sendto(d, a)
        except OSError: pass
"""
# What arrives, whatever it is. Neighbour discovery and multicast reports are the kernels' own talk.
WITNESS = """table inet witness {
 counter arrived { }
 chain at { type filter hook %s; policy accept;
  icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld-listener-report, mld2-listener-report, mld-listener-query } accept
  %s counter name arrived
 }
}
"""
FLOOD = r"""
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setblocking(False)
while True:
    for a in (('203.0.113.5', 443), ('198.51.100.7', 53)):
        try: s.sendto(b'leak', a)
        except OSError: pass
    time.sleep(0.0005)
"""
STREAM = r"""
import socket, sys, time
s = socket.create_connection(('198.51.100.7', 443), 5); s.settimeout(15); n = 0
try:
    while True:
        s.sendall(b'x'); s.recv(16); n += 1; print(n, flush=True); time.sleep(0.005)
except OSError as e: print('end', e, flush=True)
"""
MANY = r"""
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
sockets, got, missed = [], 0, 0
while len(sockets) < 1200 and missed < 10:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.2); sockets.append(s)
    try: s.connect(('192.0.2.53', 5353)); s.send(b'x'); s.recv(9); got += 1; missed = 0
    except OSError: missed += 1
print(got)
"""
LATER = r"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1.8); s.connect(('192.0.2.53', 5353))
try: s.send(b'ping'); s.recv(9); s.send(b'later'); print('sent', flush=True); s.recv(9); print('reply')
except OSError as e: print(e)
"""
failures = []


def check(right, what):
    print("%s %s" % ("ok  " if right else "FAIL", what), flush=True)
    if not right:
        failures.append(what)


def sh(ns, *argv, check_exit=True, **kw):
    argv = (["ip", "netns", "exec", ns] if ns else []) + list(argv)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, **kw)
    if check_exit and done.returncode:
        raise RuntimeError("%s: %s" % (" ".join(argv), done.stderr.strip()))
    return done.stdout


class World:
    """The namespaces, their links and their listeners."""

    def __init__(self):
        self.children = []

    def spawn(self, ns, *argv, user=None, caps=None, **kw):
        command = ["ip", "netns", "exec", ns]
        if user:
            command += ["setpriv", "--reuid", user, "--regid", user, "--clear-groups"]
            if caps:
                command += ["--inh-caps", caps, "--ambient-caps", caps]
        child = subprocess.Popen(command + list(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, **kw)
        self.children.append(child)
        return child

    def stop(self, child, how=signal.SIGKILL):
        child.send_signal(how)
        child.wait()
        self.children.remove(child)

    def build(self):
        for ns in (HOST, SINK, ONE, TWO):
            sh(None, "ip", "netns", "add", ns)
            sh(ns, "ip", "link", "set", "lo", "up")
        sh(HOST, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.rp_filter=0",
           "net.ipv4.conf.default.rp_filter=0", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0")
        sh(SINK, "sysctl", "-q", "-w", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0", "net.ipv6.conf.default.accept_dad=0")
        self.link_sink()
        for number, ns in enumerate((ONE, TWO), 1):
            self.link_server(ns, number)
        # As Docker does for a network that is not internal.
        sh(HOST, "iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "10.213.0.0/16", "-o", "up0", "-j", "MASQUERADE")
        self.witness()
        self.listen(SINK, [53, 80, 443, 853, 8443], [53, 80, 443, "192.0.2.53@5353"])
        self.listen(HOST, HOST_PORTS, HOST_PORTS)
        for ns in (ONE, TWO):
            self.listen(ns, [8080], [8080])

    def link_sink(self):
        sh(HOST, "ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", SINK)
        for ns, device, last in ((HOST, "up0", 1), (SINK, "eth0", 2)):
            sh(ns, "ip", "addr", "add", "192.168.77.%d/24" % last, "dev", device)
            sh(ns, "ip", "-6", "addr", "add", "fd00:77::%d/64" % last, "dev", device, "nodad")
            sh(ns, "ip", "link", "set", device, "up")
        sh(HOST, "ip", "route", "add", "default", "via", "192.168.77.2")
        sh(HOST, "ip", "-6", "route", "add", "default", "via", "fd00:77::2")
        for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "8.8.8.8", "169.254.169.254", "168.63.129.16", "100.100.100.200"):
            sh(SINK, "ip", "route", "add", "local", net, "dev", "lo")
        for net in ("2001:db8::/32", "fd00:ec2::/64"):
            sh(SINK, "ip", "-6", "route", "add", "local", net, "dev", "lo")
        sh(SINK, "ip", "route", "add", "10.213.0.0/16", "via", "192.168.77.1")
        sh(SINK, "ip", "-6", "route", "add", "fd00:213::/32", "via", "fd00:77::1")

    def link_server(self, ns, number):
        bridge = BRIDGE[ns]
        sh(HOST, "ip", "link", "add", bridge, "type", "bridge")
        sh(HOST, "ip", "link", "add", "veth%d" % number, "type", "veth", "peer", "name", "eth0", "netns", ns)
        sh(HOST, "ip", "link", "set", "veth%d" % number, "master", bridge)
        sh(HOST, "ip", "addr", "add", GATEWAY[ns] + "/29", "dev", bridge)
        sh(HOST, "ip", "-6", "addr", "add", "fd00:213:%d::1/64" % number, "dev", bridge, "nodad")
        sh(HOST, "ip", "link", "set", "veth%d" % number, "up")
        sh(HOST, "ip", "link", "set", bridge, "up")
        sh(ns, "ip", "link", "set", "eth0", "address", "02:00:00:00:00:%d%d" % (number, number))
        sh(ns, "ip", "addr", "add", ADDRESS[ns] + "/29", "dev", "eth0")
        sh(ns, "ip", "-6", "addr", "add", "fd00:213:%d::2/64" % number, "dev", "eth0", "nodad")
        sh(ns, "ip", "link", "set", "eth0", "up")
        sh(ns, "ip", "route", "add", "default", "via", GATEWAY[ns])
        sh(ns, "ip", "-6", "route", "add", "default", "via", "fd00:213:%d::1" % number)

    def witness(self):
        for ns, hook, what in ((SINK, "prerouting priority raw", ""), (TWO, "prerouting priority raw", ""),
                               (HOST, "input priority 200", 'iifname "bh*"')):
            sh(ns, "nft", "-f", "-", input=WITNESS % (hook, what))

    def listen(self, ns, tcp, udp):
        child = self.spawn(ns, PYTHON, "-c", ECHO, ",".join(map(str, tcp)), ",".join(map(str, udp)))
        assert child.stdout.readline().strip() == "ready"

    def arrived(self, ns):
        out = json.loads(sh(ns, "nft", "-j", "list", "counter", "inet", "witness", "arrived"))
        return out["nftables"][-1]["counter"]["packets"]

    def seen(self):
        return {ns: self.arrived(ns) for ns in (SINK, TWO, HOST)}

    def destroy(self):
        for child in list(self.children):
            child.kill()
            child.wait()
        for ns in (HOST, SINK, ONE, TWO):
            subprocess.run(["ip", "netns", "del", ns], stderr=subprocess.DEVNULL, check=False)


class Drive:
    """egress_drive as the service user, in the host's namespace."""

    def __init__(self, world, path):
        self.world, self.events, self.answers, self.number = world, [], queue.Queue(), 0
        self.child = world.spawn(HOST, path, "daemon", user=OWN, caps="+net_admin,+net_raw")
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.child.stdout:
            message = json.loads(line)
            (self.events.append((time.monotonic(), message)) if "event" in message else self.answers.put(message))

    def ask(self, op, timeout=20, before="", **arguments):
        """before: lines that it is to read together with this one."""
        self.number += 1
        self.child.stdin.write(before + json.dumps({"op": op, "id": str(self.number), **arguments}) + "\n")
        while True:
            answer = self.answers.get(timeout=timeout)
            if answer.get("id") == str(self.number):
                return answer

    def set(self, ns, rules, **more):
        return self.ask("set", bridge=BRIDGE[ns], address=ADDRESS[ns], server=ns[-3:], rules=rules, **more)

    def kill(self):
        self.world.stop(self.child)


class Prober:
    def __init__(self, world, ns, targets, bare=False):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".json")
        json.dump(targets, self.file)
        self.file.flush()
        os.chmod(self.file.name, 0o644)
        argv = [PYTHON, os.path.join(HERE, "egress_probe.py"), "--targets", self.file.name, "--serve"]
        if bare:
            argv = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs", "--reuid", "65532", "--regid", "65532", "--clear-groups"] + argv
        self.child = world.spawn(ns, *argv)

    def run(self, name):
        self.child.stdin.write(name + "\n")
        return json.loads(self.child.stdout.readline())


def quiet(world):
    """What is counted when nothing is under way any more: the end of an allowed flow before this is none of the next attempt's."""
    before, now = None, world.seen()
    until = time.monotonic() + 2
    while now != before and time.monotonic() < until:
        time.sleep(0.03)
        before, now = now, world.seen()
    return now


def attempt(world, prober, name):
    before = quiet(world)
    result = prober.run(name)
    time.sleep(0.03)
    after = world.seen()
    return result, {ns[len(PREFIX) + 1:]: after[ns] - before[ns] for ns in after if after[ns] > before[ns]}


def test_control(world):
    prober = Prober(world, ONE, TARGETS)
    for name in egress_probe.ATTEMPTS:
        if name == "15-sibling-frame":
            continue  # every server has a bridge of its own: there is no segment on which it could arrive, with or without rules
        result, arrived = attempt(world, prober, name)
        check(bool(arrived) or result["got"] == "reply", "without the guard %s arrives (%s, %s)" % (name, result["got"], arrived))
    for name, got in outside(world)[0].items():
        check(got == "reply", "without the guard %s from outside arrives (%s)" % (name, got))
    world.stop(prober.child)


def allowed(prober, when):
    for name in egress_probe.ALLOWED:
        got = prober.run(name)["got"]
        check(got == "reply", "%s: %s works (%s)" % (when, name, got))


def denied(world, prober, when, names=egress_probe.ATTEMPTS):
    for name in names:
        result, arrived = attempt(world, prober, name)
        check(not arrived and result["got"] not in ("reply", "connected"), "%s: %s does not arrive (%s, %s)" % (when, name, result["got"], arrived))
        # A source address that is not assigned gets no answer at all.
        if name.startswith(("1-", "2-")) and when != "boot":
            check(result["got"] == "refused" and result["ms"] < 150, "%s: %s is refused at once (%d ms)" % (when, name, result["ms"]))


def test_boot(world, path):
    """The text of the boot unit alone shuts everything."""
    text = sh(HOST, path, "--guard")
    sh(HOST, "nft", "-f", "-", input=text)
    prober = Prober(world, ONE, TARGETS)
    denied(world, prober, "boot")
    before = world.seen()
    for name in egress_probe.ALLOWED:
        check(prober.run(name)["got"] != "reply", "boot: %s is shut" % name)
    check(world.seen() == before, "boot: nothing arrives")
    test_outside(world, "boot")
    world.stop(prober.child)
    return text


def test_capless(world):
    prober = Prober(world, ONE, TARGETS, bare=True)
    for name in sorted(egress_probe.NEEDS_RAW):
        got = prober.run(name)["got"]
        check(got == "eperm", "without capabilities %s cannot be sent (%s)" % (name, got))
    allowed(prober, "without capabilities")
    world.stop(prober.child)


OUTSIDE = r"""
import socket, sys
for family, kind, address in ((socket.AF_INET, socket.SOCK_STREAM, sys.argv[1]), (socket.AF_INET, socket.SOCK_DGRAM, sys.argv[1]),
                              (socket.AF_INET6, socket.SOCK_STREAM, sys.argv[2]), (socket.AF_INET6, socket.SOCK_DGRAM, sys.argv[2])):
    s = socket.socket(family, kind); s.settimeout(0.4)
    try:
        s.connect((address, 8080)); s.send(b'x'); print('reply' if s.recv(4) else 'connected')
    except OSError as e: print(type(e).__name__)
"""


def outside(world):
    """What somebody beyond the host hears from a server that listens, and how many packets reached it: whoever has a route to it may try."""
    before = world.arrived(TWO)
    got = sh(SINK, PYTHON, "-c", OUTSIDE, ADDRESS[TWO], "fd00:213:2::2").split()
    return dict(zip(("tcp", "udp", "ipv6-tcp", "ipv6-udp"), got)), world.arrived(TWO) - before


def test_outside(world, when):
    got, arrived = outside(world)
    check(arrived == 0 and not {"reply", "connected"} & set(got.values()), "%s: nobody outside reaches a server (%s, %d packets)" % (when, got, arrived))


HOST_TALK = r"""
import socket, sys
s = socket.socket(); s.settimeout(0.4)
try:
    s.connect((sys.argv[1], 8080)); s.sendall(b'x'); print('reply' if s.recv(4) else 'connected')
except OSError as e: print(type(e).__name__)
"""


def host_talk(user, ns):
    return sh(HOST, "setpriv", "--reuid", user, "--regid", user, "--clear-groups", PYTHON, "-c", HOST_TALK, ADDRESS[ns]).strip()


def test_host(world, drive):
    before = world.arrived(TWO)
    for user in (OTHER, "0", OWN):
        got = host_talk(user, TWO)
        check(got not in ("reply", "connected"), "host: uid %s does not reach a server (%s)" % (user, got))
    check(world.arrived(TWO) == before, "host: nothing of them arrives")
    got = host_talk(BROKER, TWO)
    check(got == "reply", "host: the broker's uid does (%s)" % got)
    drive.set(TWO, [], http_port=8080, smoke=True)
    check(host_talk(OWN, TWO) == "reply", "host: our own uid reaches a smoke test")
    check(host_talk(OTHER, TWO) != "reply", "host: another uid does not")
    drive.set(TWO, [{"cidr": "203.0.113.7/32", "ports": [443]}], http_port=8080)
    check(host_talk(OWN, TWO) != "reply", "host: our own uid no longer, when it is none")


def rules_right():
    guard = sh(HOST, "nft", "list", "table", "inet", "bulkhead", check_exit=False)
    policy = sh(HOST, "iptables", "-S", check_exit=False)
    entries = sh(HOST, "ipset", "save", "bulkhead-allow", check_exit=False)
    user = "-N DOCKER-USER" not in policy or "-A DOCKER-USER -j BULKHEAD-FORWARD" in policy
    jump = "-A FORWARD -j BULKHEAD-FORWARD" in policy or "-A FORWARD -j DOCKER-USER" in policy
    return ("meta mark & 0x00200000 != 0x00200000 goto refused" in guard and BRIDGE[ONE] in guard and BRIDGE[TWO] in guard and "hook output" in guard and
            "dormant" not in guard and "flood" not in guard and policy.count("--match-set bulkhead-allow") == 2 and user and jump and
            entries.count("add ") == 3)


TAMPER = [  # what, command, packets that may leak until the repair (None: the guard itself is gone for a moment)
    ("iptables -F", ["iptables", "-F"], 0),
    ("iptables -F; -X", ["sh", "-c", "iptables -F; iptables -X BULKHEAD-FORWARD"], 0),
    ("the jump deleted", ["iptables", "-D", "DOCKER-USER", "-j", "BULKHEAD-FORWARD"], 0),
    ("the policy accepts all", ["sh", "-c", "iptables -F BULKHEAD-FORWARD; iptables -I FORWARD -j ACCEPT"], 0),
    ("a foreign mangle rule marks all", ["iptables", "-t", "mangle", "-I", "FORWARD", "-j", "MARK", "--set-xmark", "0x200000/0x200000"], 0),
    ("ipset flush", ["ipset", "flush", "bulkhead-allow"], 0),
    ("an entry deleted", ["ipset", "del", "bulkhead-allow", ADDRESS[ONE] + ",tcp:443,198.51.100.0/24"], 0),
    ("an entry added", ["ipset", "add", "bulkhead-allow", ADDRESS[ONE] + ",tcp:1,203.0.113.0/24"], 0),
    ("an entry of a kind we never write", ["ipset", "add", "bulkhead-allow", ADDRESS[ONE] + ",sctp:1,203.0.113.0/24", "nomatch"], 0),
    ("an entry swapped for another", ["sh", "-c", "ipset del bulkhead-allow %s,tcp:443,198.51.100.0/24; ipset add bulkhead-allow %s,tcp:444,198.51.100.0/24" %
                                      (ADDRESS[ONE], ADDRESS[ONE])], 0),
    ("the set emptied by a swap", ["sh", "-c", "ipset create other hash:ip,port,net maxelem 1048576; ipset swap other bulkhead-allow; ipset destroy other"], 0),
    ("a pair deleted", ["nft", "delete element inet bulkhead pairs { %s . %s }" % (BRIDGE[ONE], ADDRESS[ONE])], 0),
    ("the guard's output chain flushed", ["nft", "flush chain inet bulkhead output"], 0),
    ("a foreign rule in the guard", ["nft", "insert rule inet bulkhead from_server accept comment flood"], None),
    ("the guard made dormant", ["nft", "add table inet bulkhead { flags dormant; }"], None),
    ("nft delete table inet bulkhead", ["nft", "delete", "table", "inet", "bulkhead"], None),
    ("nft flush ruleset", ["nft", "flush", "ruleset"], None),
]


def docker_chains():
    """As dockerd does at its start."""
    sh(HOST, "sh", "-c", "iptables -N DOCKER-USER 2>/dev/null; iptables -C DOCKER-USER -j RETURN 2>/dev/null || iptables -A DOCKER-USER -j RETURN; "
       "iptables -C FORWARD -j DOCKER-USER 2>/dev/null || iptables -I FORWARD -j DOCKER-USER; "
       "iptables -t nat -C POSTROUTING -s 10.213.0.0/16 -o up0 -j MASQUERADE 2>/dev/null || "
       "iptables -t nat -A POSTROUTING -s 10.213.0.0/16 -o up0 -j MASQUERADE")


def wait_right(limit=3.0):
    start = time.monotonic()
    while time.monotonic() - start < limit:
        if rules_right():
            return time.monotonic() - start
        time.sleep(0.02)
    return None


def test_tamper(world, drive, prober):
    for what, command, may_leak in TAMPER:
        docker_chains()
        time.sleep(0.3)
        check(wait_right() is not None, "before \"%s\" all is in order" % what)
        flood = world.spawn(ONE, PYTHON, "-c", FLOOD)
        time.sleep(0.1)
        before = world.arrived(SINK)
        sh(HOST, *command)
        if what == "an entry swapped for another":
            drive.ask("verify")  # the number of entries is the same: only a full comparison sees it
        took = wait_right()
        time.sleep(0.05)
        leaked = world.arrived(SINK) - before
        world.stop(flood)
        check(took is not None and took <= 1.0, "\"%s\" is repaired within a second (%s)" % (what, "%d ms" % (took * 1000) if took is not None else "not"))
        # The flood sends 4 packets a millisecond at the very most.
        check(leaked <= (0 if may_leak == 0 else 1000), "\"%s\": %d packets leaked" % (what, leaked))
        if what == "nft flush ruleset":
            world_again(world)
        sh(HOST, "iptables", "-t", "mangle", "-F")
        sh(HOST, "sh", "-c", "iptables -D FORWARD -j ACCEPT 2>/dev/null || true")
        docker_chains()
        wait_right()
        allowed(prober, "after \"%s\"" % what)


def world_again(world):
    sh(HOST, "nft", "-f", "-", input=WITNESS % ("input priority 200", 'iifname "bh*"'))


class Leak:
    """Counts what arrives at the sink and matches."""

    def __init__(self, match):
        sh(SINK, "nft", "-f", "-", input="table inet leak { counter leaked { }\n chain at { type filter hook prerouting priority -300; policy accept; %s "
           "counter name leaked; }\n}\n" % match)

    def end(self):
        out = json.loads(sh(SINK, "nft", "-j", "list", "counter", "inet", "leak", "leaked"))
        sh(SINK, "nft", "delete", "table", "inet", "leak")
        return out["nftables"][-1]["counter"]["packets"]


def test_restarting_docker(world, rounds):
    """dockerd deletes and inserts the jump again whenever it starts and makes a network."""
    docker_chains()
    wait_right()
    stream = world.spawn(ONE, PYTHON, "-c", STREAM)
    lines = []
    threading.Thread(target=lambda: [lines.append(x.strip()) for x in stream.stdout], daemon=True).start()
    flood = world.spawn(ONE, PYTHON, "-c", FLOOD)
    time.sleep(0.2)
    leak = Leak("udp dport { 53, 443 }")
    for _ in range(rounds):
        sh(HOST, "sh", "-c", "iptables -D FORWARD -j DOCKER-USER; iptables -I FORWARD -j DOCKER-USER")
    leaked = leak.end()
    count = len(lines)
    time.sleep(1)
    check(leaked == 0, "%d re-insertions of DOCKER-USER: %d packets leaked" % (rounds, leaked))
    check(len(lines) > count and not lines[-1].startswith("end"), "a live flow goes on through them (%s)" % lines[-1:])
    for child in (flood, stream):
        world.stop(child)


def test_revocation(world, drive, prober):
    stream = world.spawn(ONE, PYTHON, "-c", STREAM)
    for _ in range(20):
        stream.stdout.readline()
    answer = drive.set(ONE, RULES[1:])
    check("error" not in answer, "a revocation is in force (%d ms)" % (answer["us"] // 1000))
    # The host itself resets what the sink still sends to a flow that it no longer knows.
    leak = Leak("tcp dport 443 tcp flags & rst != rst")
    time.sleep(0.5)
    leaked = leak.end()
    check(leaked == 0, "a live flow ends with its permission (%d packets)" % leaked)
    flows = sh(HOST, "conntrack", "-L", "-s", ADDRESS[ONE], "-p", "tcp", "--dport", "443")
    check("198.51.100.7" not in flows, "and its connection-tracking entry is gone")
    check(prober.run("allowed-udp")["got"] == "reply", "what is still allowed works")
    world.stop(stream)
    drive.set(ONE, RULES)
    allowed(prober, "allowed again")


def comes_true(what, limit=10.0):
    end = time.monotonic() + limit
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    return what()


def test_every_packet(world, drive):
    """Without a permission nothing goes on, in neither direction, even if nobody removes the flow from the connection table."""
    drive.child.send_signal(signal.SIGSTOP)
    later = world.spawn(ONE, PYTHON, "-c", LATER)
    check(later.stdout.readline().strip() == "sent" and later.stdout.readline().strip() == "reply", "an answer that takes its time arrives")
    stream = world.spawn(ONE, PYTHON, "-c", STREAM)
    lines = []
    threading.Thread(target=lambda: [lines.append(x.strip()) for x in stream.stdout], daemon=True).start()
    check(comes_true(lambda: len(lines) > 5), "a flow flows (%s)" % lines[-1:])
    later = world.spawn(ONE, PYTHON, "-c", LATER)
    later.stdout.readline()
    for entry in (",tcp:443,198.51.100.0/24", ",udp:5353,192.0.2.53"):
        sh(HOST, "ipset", "del", "bulkhead-allow", ADDRESS[ONE] + entry)
    leak = Leak("tcp dport 443")
    got = later.stdout.readline().strip()
    leaked = leak.end()
    check(got == "timed out", "an answer to a flow without permission does not (%s)" % got)
    check(leaked == 0, "a flow that is still in the connection table is cut all the same (%d packets)" % leaked)
    count = len(lines)
    drive.child.send_signal(signal.SIGCONT)
    check(wait_right() is not None, "the entries are put back")
    # TCP tries again after a while, and each time after a longer one.
    check(comes_true(lambda: len(lines) > count) and lines[-1].isdigit(), "and the flow goes on where it stopped (%d, then %s)" % (count, lines[-1:]))
    world.stop(stream)


def test_limit(world, drive):
    """One server cannot fill the host's connection table."""
    drive.set(ONE, [])
    drive.set(ONE, RULES)
    sh(HOST, "conntrack", "-D", "-s", ADDRESS[ONE], check_exit=False)
    got = int(sh(ONE, PYTHON, "-c", MANY))
    check(1000 <= got <= 1024, "%d of 1,200 flows at the same time" % got)
    sh(HOST, "conntrack", "-D", "-s", ADDRESS[ONE], check_exit=False)


def test_start(world, drive):
    """The first milliseconds: the bridge is there before its permissions are."""
    drive.ask("remove", bridge=BRIDGE[ONE])
    before = world.seen()
    flood = world.spawn(ONE, PYTHON, "-c", FLOOD)
    time.sleep(0.3)
    check(world.seen() == before, "nothing arrives before an instance is set")
    answer = drive.set(ONE, RULES)
    check("error" not in answer and drive.ask("in_force", bridge=BRIDGE[ONE])["in_force"], "and it is in force when it is set")
    time.sleep(0.3)
    check(world.seen() == before, "nothing unlisted arrives afterwards")
    world.stop(flood)


def test_crash(world, path, drive):
    """Rules outlive us; the next one adopts what it finds."""
    drive.kill()
    prober = Prober(world, ONE, TARGETS)
    allowed(prober, "controller killed")
    denied(world, prober, "controller killed", ["1-tcp-unlisted-address", "16-ipv6-tcp", "13-gateway-ports"])
    drive = Drive(world, path)
    answer = drive.ask("load")
    check("error" not in answer, "a new controller loads (%s)" % answer.get("error"))
    allowed(prober, "after the new controller's load")
    check(not drive.ask("in_force", bridge=BRIDGE[ONE])["in_force"], "what was only found does not count as in force")
    stream = world.spawn(ONE, PYTHON, "-c", STREAM)
    stream.stdout.readline()
    drive.set(ONE, RULES)
    check(drive.ask("in_force", bridge=BRIDGE[ONE])["in_force"], "setting it again makes it so")
    check(not any(stream.stdout.readline().startswith("end") for _ in range(10)), "without a break in its flows")
    world.stop(stream)
    drive.ask("keep", bridges=[BRIDGE[ONE]])
    check(BRIDGE[TWO] not in sh(HOST, "nft", "list", "table", "inet", "bulkhead"), "keep_only removes the others")
    check(ADDRESS[TWO] + "," not in sh(HOST, "ipset", "save", "bulkhead-allow"), "and their entries")
    drive.set(TWO, [{"cidr": "203.0.113.7/32", "ports": [443]}], http_port=8080)
    drive = test_early(world, path, drive)
    allowed(prober, "after wishes that came before the kernel was read")
    world.stop(prober.child)
    return drive


def test_early(world, path, drive):
    """What is wished for before the kernel was read for the first time takes nothing from those that stay."""
    for op, wish in (("keep", {"bridges": [BRIDGE[ONE]]}), ("remove", {"bridge": BRIDGE[TWO]})):
        drive.kill()
        drive = Drive(world, path)
        stream = world.spawn(ONE, PYTHON, "-c", STREAM)
        stream.stdout.readline()
        answer = drive.ask(op, before='{"op": "load", "id": "0"}\n', **wish)
        check("error" not in answer, "an early %s (%s)" % (op, answer.get("error")))
        check(not any(stream.stdout.readline().startswith("end") for _ in range(10)), "no flow of one that stays breaks at an early %s" % op)
        world.stop(stream)
        check(BRIDGE[ONE] in sh(HOST, "nft", "list", "table", "inet", "bulkhead"), "an early %s leaves the others" % op)
        check(BRIDGE[TWO] not in sh(HOST, "nft", "list", "table", "inet", "bulkhead"), "and takes away what it says")
        check(ADDRESS[TWO] + "," not in sh(HOST, "ipset", "save", "bulkhead-allow"), "with its entries")
        drive.set(ONE, RULES)
        drive.set(TWO, [{"cidr": "203.0.113.7/32", "ports": [443]}], http_port=8080)
    return drive


def test_show(drive, prober):
    prober.run("1-tcp-unlisted-address")
    show = drive.ask("show")["show"]
    one = next(i for i in show["instances"] if i["bridge"] == BRIDGE[ONE])
    check(one["in_force"] and one["denied"]["packets"] > 0 and one["sent"]["packets"] > 0, "show counts what was sent and refused (%s)" % one["denied"])
    check(all(r["in_kernel"] for r in one["rules"]) and len(one["rules"]) == 2, "show has the rules, read back")
    check(show["guard"]["right"] and show["policy"]["right"], "show says that guard and policy are right")


def test_boot_again(drive, text, prober):
    """systemctl restart of the boot unit under a running controller takes nothing away for good."""
    sh(HOST, "nft", "-f", "-", input=text)
    check(BRIDGE[ONE] in sh(HOST, "nft", "list", "set", "inet", "bulkhead", "pairs"), "loading the boot text again keeps the elements")
    time.sleep(0.3)
    allowed(prober, "after the boot text was loaded again")
    del drive


def test_mix(world, path):
    sh(HOST, "iptables-legacy", "-A", "INPUT", "-i", "nowhere0", "-j", "ACCEPT")
    drive = Drive(world, path)
    answer = drive.ask("load")
    check("both iptables-legacy and iptables-nft" in answer.get("error", ""), "a mix of legacy and nft is refused (%s)" % answer.get("error"))
    drive.kill()
    sh(HOST, "iptables-legacy", "-F")


def test_other_form(world, path):
    sh(HOST, "sh", "-c", "iptables -F BULKHEAD-FORWARD; ipset destroy bulkhead-allow; ipset create bulkhead-allow hash:ip,port,net timeout 0")
    drive = Drive(world, path)
    answer = drive.ask("load")
    check("another form" in answer.get("error", ""), "a set of another form is refused (%s)" % answer.get("error"))
    drive.kill()
    sh(HOST, "ipset", "destroy", "bulkhead-allow")


def test_dormant(world, path):
    """A guard that was switched off while nobody looked."""
    sh(HOST, "nft", "add table inet bulkhead { flags dormant; }")
    drive = Drive(world, path)
    answer = drive.ask("load")
    drive.set(ONE, RULES, http_port=8080)
    drive.set(TWO, [{"cidr": "203.0.113.7/32", "ports": [443]}], http_port=8080)
    check("error" not in answer and rules_right(), "a dormant guard is found at the start, and loaded")
    drive.kill()


def refusals(drive):
    answer = drive.set(ONE, [{"cidr": "198.51.100.1/24", "ports": [443]}])
    check("behind its prefix" in answer.get("error", ""), "a bad rule is refused (%s)" % answer.get("error"))
    answer = drive.ask("set", bridge="eth0", address="10.213.0.2", server="x", rules=[])
    check("not a bridge of ours" in answer.get("error", ""), "a foreign bridge is refused")
    answer = drive.ask("set", bridge="bh33333333", address=ADDRESS[ONE], server="x", rules=[])
    check("still the address of bridge" in answer.get("error", ""), "an address in use is refused")


def bench(world, path):
    drive = Drive(world, path)
    print("load %d ms" % (drive.ask("load")["us"] // 1000))
    print("32 instances at once %d ms" % (drive.ask("bulk", servers=32, entries=10)["us"] // 1000))
    drive.ask("keep", bridges=[])
    print("1,000 servers of 100 entries %d ms" % (drive.ask("bulk", servers=1000, entries=100, timeout=60)["us"] // 1000))
    times = sorted(drive.ask("set", bridge="bh01234567", address="10.214.0.2", server="one", http_port=8080,
                             rules=[{"cidr": "198.51.100.0/24", "ports": [n]}])["us"] / 1000 for n in range(1, 12))
    print("one more instance among them, with its entries %.0f ms (median; %.0f to %.0f)" % (times[5], times[0], times[-1]))
    print("full verification %d ms" % (drive.ask("verify", timeout=60)["us"] // 1000))


def as_legacy():
    """Again, in a mount namespace in which the nft programs are the legacy ones; the service user may open their lock, as tmpfiles has it on a host."""
    with tempfile.NamedTemporaryFile() as lock:
        os.chmod(lock.name, 0o666)
        script = ('mount --bind /usr/sbin/xtables-legacy-multi /usr/sbin/xtables-nft-multi && touch /run/xtables.lock && '
                  'mount --bind "$0" /run/xtables.lock && exec "$@"')
        return subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-c", script, lock.name, sys.executable] + sys.argv, check=False).returncode


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("drive")
    parser.add_argument("--bench", action="store_true")
    parser.add_argument("--legacy", action="store_true", help="the same with iptables-legacy in the place of iptables-nft")
    parser.add_argument("--rounds", type=int, default=20, help="re-insertions of DOCKER-USER")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("needs root for network namespaces")
        return 77
    if arguments.legacy and not sh(None, "iptables-restore", "--version").strip().endswith("(legacy)"):
        return as_legacy()
    world = World()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was made is taken away
    # Where the service user can run it, whatever the build folder's mode is.
    folder = tempfile.mkdtemp(prefix="bulkhead-egress-")
    os.chmod(folder, 0o755)
    path = shutil.copy(arguments.drive, os.path.join(folder, "egress_drive"))
    try:
        world.build()
        if arguments.bench:
            bench(world, path)
            return 0
        test_control(world)
        text = test_boot(world, path)
        drive = Drive(world, path)
        if os.environ.get("EGDEBUG"):
            print(repr(sh(HOST, "nft", "-j", "list", "table", "inet", "bulkhead"))[:300])
        answer = drive.ask("load")
        check("error" not in answer, "load (%s)" % answer.get("error", "%d ms" % (answer["us"] // 1000)))
        drive.set(ONE, RULES, http_port=8080)
        drive.set(TWO, [{"cidr": "203.0.113.7/32", "ports": [443]}], http_port=8080)
        prober = Prober(world, ONE, TARGETS)
        allowed(prober, "loaded")
        denied(world, prober, "loaded")
        test_outside(world, "loaded")
        test_capless(world)
        test_host(world, drive)
        test_show(drive, prober)
        refusals(drive)
        test_revocation(world, drive, prober)
        test_every_packet(world, drive)
        test_limit(world, drive)
        test_start(world, drive)
        test_boot_again(drive, text, prober)
        test_tamper(world, drive, prober)
        test_restarting_docker(world, arguments.rounds)
        drive = test_crash(world, path, drive)
        drive.kill()
        test_dormant(world, path)
        test_other_form(world, path)
        if not arguments.legacy:
            test_mix(world, path)
    finally:
        world.destroy()
        shutil.rmtree(folder)
    print("%d failures" % len(failures))
    for what in failures:
        print("  " + what)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
