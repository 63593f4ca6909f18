#!/usr/bin/env python3
"""The long run: round after round somebody restarts or kills dockerd or takes rules away, while servers and processes in their network namespaces
send to addresses that are not allowed. Nothing of that may arrive, what is allowed must work after each round, and nothing may pile up.
Needs a rig (tests/bench/run.sh sees to it).

The only packets that may arrive are those within GRACE of a hand that takes the guard itself away, which root can always do."""
import argparse
import os
import pathlib
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
from host import Host  # noqa: E402
from rig import Engine, eventually, rig, run  # noqa: E402

LISTED, UNLISTED, RESOLVER = "198.51.100.10", "192.0.2.11", "198.51.100.53"
GRACE = 2.0  # the promise is one second; a busy machine gets two
MORE_FDS, MORE_MEMORY = 4, 2048  # kB
PYTHON = "/usr/bin/python3"


def say(text):
    print(text, flush=True)


# Nobody over there answers: a retransmitted answer to a packet of the grace time would make the host itself send a reset or an ICMP error, much
# later, and that would look like a leak.
MUTE = f"""table inet soak {{
        chain out {{
                type filter hook output priority 0; policy accept;
                ip saddr {LISTED} tcp sport 443 accept
                ip saddr {{ {LISTED}, {UNLISTED}, {RESOLVER} }} drop
        }}
}}
"""


class Prober(threading.Thread):
    """Keeps one soak_probe.py in a server's network namespace, whichever container it is at the moment."""

    def __init__(self, host, server):
        super().__init__(daemon=True)
        self.host, self.server = host, server
        self.pid, self.process, self.interface_sent, self.sent, self.entered = None, None, 0, 0, 0
        self.api = Engine(host.rig.engine_socket)
        self.over = threading.Event()

    def look(self):
        """The process id and address of the server that runs now, or None."""
        for c in self.api.containers(**{"io.bulkhead.owner": self.host.audience, "io.bulkhead.role": "server", "io.bulkhead.server": self.server}):
            if c["State"] == "running":
                i = self.api.inspect(c["Id"])
                address = next(iter(i["NetworkSettings"]["Networks"].values()))["IPAddress"]
                if i["State"]["Running"] and i["State"]["Pid"] and address:
                    return i["State"]["Pid"], address
        return None

    def count(self):
        """Packets that left the container's interface, wherever they ended."""
        try:
            lines = pathlib.Path(f"/proc/{self.process.pid}/net/dev").read_text().splitlines()
            now = int(next(line for line in lines if "eth0:" in line).partition(":")[2].split()[9])
        except (OSError, StopIteration, AttributeError):
            return
        if now > self.interface_sent:
            self.sent += now - self.interface_sent
            self.interface_sent = now

    def leave(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process, self.interface_sent = None, 0

    def run(self):
        while not self.over.wait(0.1):
            self.count()
            try:
                found = self.look()
            except Exception:  # an Engine that is away is what this is about
                continue
            if not found or (found[0] == self.pid and self.process and self.process.poll() is None):
                continue
            self.leave()
            self.pid = found[0]
            self.process = subprocess.Popen(["nsenter", f"--net=/proc/{found[0]}/ns/net", PYTHON, "-B", str(HERE / "soak_probe.py"), UNLISTED, LISTED, RESOLVER,
                                             found[1]], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.entered += 1
        self.leave()

    def stop(self):
        self.over.set()
        self.join(10)


class Soak:
    SERVERS = ("loud", "quiet")

    def __init__(self, host, report=say):
        self.host, self.rig, self.report = host, host.rig, report
        self.probers, self.windows, self.failures = [], [], []
        self.disturb = [("iptables -F", self.flush_iptables, False), ("dockerd restarted", self.restart, False), ("guard deleted", self.delete_guard, True),
                        ("ipset flush", self.flush_sets, False), ("dockerd killed", self.kill, False), ("nft flush ruleset", self.flush_all, True),
                        ("dockerd restarted", self.restart, False)]

    # -- what is done to it ------------------------------------------------------------------------------------------------
    def restart(self):
        for verb in ("stop", "start", "wait"):
            self.rig.engine_control(verb)

    def kill(self):
        self.rig.engine_control("kill")
        time.sleep(0.3)
        for verb in ("start", "wait"):
            self.rig.engine_control(verb)

    def flush_iptables(self):
        for _ in range(3):
            self.rig.host("iptables", "-w", "-F")
            time.sleep(0.1)

    def delete_guard(self):
        self.rig.host("nft", "delete", "table", "inet", "bulkhead")

    def flush_sets(self):
        self.rig.host("ipset", "flush")

    def flush_all(self):
        self.rig.host("nft", "flush", "ruleset")

    # -- what must hold ----------------------------------------------------------------------------------------------------
    def leaks(self):
        """Everything that arrived at the far side, but for the one destination that is allowed: {(address, protocol, port): packets}"""
        return {key: n for key, n in self.rig.far.seen().items() if key != (LISTED, "tcp", 443)}

    def leaked(self):
        return sum(self.leaks().values())

    def check(self, ok, text):
        if not ok:
            self.failures.append(text)
            self.report(f"  FAILED: {text}")

    def prove_probes(self):
        """Without us the same probes arrive: the far side is there, and its counters count."""
        c = self.rig.api.create("soak-not-ours", self.rig.image("tool/busybox:1"))
        try:
            self.rig.api.call("POST", f"/containers/{c}/start")
            i = self.rig.api.inspect(c)
            before = self.leaked()
            probe = subprocess.Popen(["nsenter", f"--net=/proc/{i['State']['Pid']}/ns/net", PYTHON, "-B", str(HERE / "soak_probe.py"), UNLISTED, LISTED,
                                      RESOLVER, i["NetworkSettings"]["IPAddress"]])
            time.sleep(2)
            probe.kill()
            probe.wait()
            self.check(self.leaked() > before + 20, "probes of a container that is not ours do not arrive: this run would prove nothing")
        finally:
            self.rig.api.remove(c)

    def allowed_works(self, server):
        def ask():
            pid = self.host.container(server)["State"]["Pid"]
            code = f"import socket; s=socket.create_connection(('{LISTED}',443),2); s.settimeout(2); s.sendall(b'x'); print(len(s.recv(4)))"
            return run("nsenter", f"--net=/proc/{pid}/ns/net", PYTHON, "-c", code, check=False).stdout.strip() not in ("", "0")
        try:
            eventually(f"{server} reaches what it may", 15, ask, pause=0.3)
        except AssertionError as e:
            return str(e)
        return None

    def counts(self):
        """What must not grow."""
        pid = self.host.controller.pid
        rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        task = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        links = run(*self.rig.in_host("ip", "-o", "link", "show", "type", "bridge")).stdout.splitlines()
        return {"descriptors": len(os.listdir(f"/proc/{pid}/fd")), "memory": sum(int(x.split()[1]) for x in rollup if x.startswith("Private_Dirty")),
                "children": len(task), "containers": len(self.host.containers(role=None)), "networks": len(self.host.networks()),
                "bridges": sum(": bh" in line for line in links), "shims": self.shims()}

    def shims(self):
        found = 0
        for p in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                argv = p.read_bytes().split(b"\0")
            except OSError:
                continue
            found += b"containerd-shim" in argv[0] and any(str(self.rig.run_dir).encode() + b"/" in a for a in argv)
        return found

    def compare(self, before, after):
        for name, n in after.items():
            spare = {"descriptors": MORE_FDS, "memory": MORE_MEMORY}.get(name, 0)
            self.check(n <= before[name] + spare, f"{name}: {n} at the end, {before[name]} at first")

    # -- the run -----------------------------------------------------------------------------------------------------------
    def set_up(self):
        self.host.start()
        allowed = [{"cidr": LISTED + "/32", "protocol": "tcp", "ports": [443]}]
        # One tries by itself, from its first instruction on; both have a prober of ours in their namespace.
        self.host.approve("loud", self.host.entry("mcp/echo:1", egress=allowed, args=["--probe", UNLISTED, "443", "2000000000"], resources={"cpus": 0.05}))
        self.host.approve("quiet", self.host.entry("mcp/echo:1", egress=allowed))
        for name in self.SERVERS:
            self.host.wait_state(name, "running")
        self.host.settle(60)

    def good_again(self, what):
        try:
            for name in self.SERVERS:
                self.host.wait_state(name, "running", seconds=90)
            self.host.settle(90)
        except AssertionError as e:
            self.check(False, f"{what}: not put right: {e}")
        for name in self.SERVERS:
            why = self.allowed_works(name)
            self.check(not why, f"{what}: {why}")

    def round(self, number, what, do, has_window):
        before, began = self.leaks(), time.monotonic()
        do()
        if has_window:
            time.sleep(GRACE)
            late = self.leaks()
            self.windows.append((what, sum(late.values()) - sum(before.values())))
            before = late
        self.good_again(f"round {number}, {what}")
        new = {key: n - before.get(key, 0) for key, n in self.leaks().items() if n > before.get(key, 0)}
        self.check(not new, f"round {number}, {what}: arrived although it must not: {new}")
        return time.monotonic() - began

    def run(self, rounds):
        run(*self.rig.in_far("nft", "-f", "-"), input=MUTE)
        try:
            return self.rounds(rounds)
        finally:
            run(*self.rig.in_far("nft", "delete", "table", "inet", "soak"), check=False)

    def rounds(self, rounds):
        self.prove_probes()
        start, began = self.counts(), time.monotonic()
        self.probers = [Prober(self.host, name) for name in self.SERVERS]
        for p in self.probers:
            p.start()
        eventually("the probers probe", 20, lambda: all(p.sent > 100 for p in self.probers))
        try:
            for i in range(rounds):
                what, do, window = self.disturb[i % len(self.disturb)]
                took = self.round(i + 1, what, do, window)
                self.report(f"  round {i + 1:>3}/{rounds} {what:<20} right again after {took:5.1f} s, {sum(p.sent for p in self.probers):>8} probes sent")
                if not self.host.alive():
                    self.check(False, f"the controller ended: {self.host.log_tail(5)}")
                    break
                if i + 1 == len(self.disturb):  # only now every kind of work has been done once: what grows from here on is a leak
                    start = self.counts()
        finally:
            for p in self.probers:
                p.stop()
        if self.host.alive():
            time.sleep(1)
            self.host.settle(60)
            end = self.counts()
            self.compare(start, end)
            self.report(f"  at first   {start}\n  at the end {end}")
        self.summary(rounds, time.monotonic() - began)
        return not self.failures

    def summary(self, rounds, took):
        inside = {}
        for what, n in self.windows:
            inside.setdefault(what, []).append(n)
        for what, found in inside.items():
            self.report(f"  {what}: within {GRACE:.0f} s at most {max(found)} packets arrived, in all {sum(found)} of {len(found)} rounds")
        self.report(f"  {rounds} rounds in {took:.0f} s, {sum(p.sent for p in self.probers)} probes from {sum(p.entered for p in self.probers)} containers, "
                    f"{len(self.failures)} failures")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rounds", type=int, default=200)
    args = p.parse_args()
    say(f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}: {args.rounds} rounds, Linux {os.uname().release}, Engine {rig().api.call('GET', '/version')['Version']}")
    with Host() as host:
        soak = Soak(host)
        soak.set_up()
        good = soak.run(args.rounds)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
