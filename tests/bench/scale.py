#!/usr/bin/env python3
"""Figures at a size that no test machine has real containers for: the controller against a scripted Engine on which everything runs as approved.
Records, signatures, files and the kernel's rules are real. Needs a rig (tests/bench/run.sh sees to it) and BULKHEAD_BUILD.

Nothing here fails because of a figure."""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
from figures import cpu_seconds, figure, machine, private_dirty, say  # noqa: E402
from host import PRINCIPAL, Host  # noqa: E402
from rig import Engine, eventually, run  # noqa: E402

BUILD = pathlib.Path(os.environ.get("BULKHEAD_BUILD", HERE.parents[1]))
MEMORY_GOALS = {100: 8, 1000: 24}


class Scale(Host):
    """A host whose Engine is scripted. Its rules go into the rig's namespace, like every host's."""

    def __init__(self, count):
        self.count, self.engine, self.scripted = count, None, None
        super().__init__(engine_socket="/nonexistent")
        self.socket = self.dir / "scripted.sock"
        self.write_conf(**{"engine.socket": str(self.socket), "controller.max_servers": 1000})
        began = time.monotonic()
        run(BUILD / "tests/bench/make_world", self.conf_path, count, self.key, PRINCIPAL, timeout=300)
        self.made_in = time.monotonic() - began

    def start_engine(self):
        self.engine = subprocess.Popen([str(BUILD / "tests/bench/scripted_engine"), str(self.conf_path), str(self.count), str(self.socket)],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True)
        stat = pathlib.Path(f"/proc/{self.engine.pid}/stat").read_text()
        (self.dir / "scripted.pid").write_text(f"{self.engine.pid} {stat.rsplit(')', 1)[1].split()[19]}\n")
        if self.engine.stdout.readline() != "ready\n":
            raise AssertionError("the scripted Engine does not start")
        self.scripted = Engine(str(self.socket))

    def counts(self):
        return self.scripted.call("GET", "/counts")

    def all_run(self):
        states = {}
        for s in self.status()["servers"]:
            states[s["state"]] = states.get(s["state"], 0) + 1
        if states != {"running": self.count}:
            raise AssertionError(states)
        return self.plan_is_empty()

    def close(self):
        try:
            super().close()
        finally:
            if self.engine:
                self.engine.kill()
                self.engine.wait()
                self.engine.stdout.close()


def measure(count, rounds, idle):
    say(f"\n{count} servers on a scripted Engine, everything as approved")
    with Scale(count) as host:
        host.start_engine()
        host.init_state()
        began = time.monotonic()
        host.start(init=False)
        answered = time.monotonic() - began
        eventually(f"{count} servers are seen to run (log: {host.log_tail(5)})", 300, host.all_run, pause=0.2)
        figure("from start to settled, every signature checked", f"{time.monotonic() - began:.1f}", "s", note=f"first answer after {answered:.1f} s")
        pid = host.controller.pid
        before, took = host.counts(), []
        mutations = host.status()["mutations"]
        for _ in range(rounds):
            host.plan()
            took.append(host.status()["last_pass_us"] / 1000)
        figure("a pass, median", f"{statistics.median(took):.1f}", "ms", "<= 500" if count == 1000 else "", f"of {rounds}; least {min(took):.1f}, worst {max(took):.1f}")
        time.sleep(2)
        cpu = cpu_seconds(pid)
        time.sleep(idle)
        figure("idle CPU of one core", f"{(cpu_seconds(pid) - cpu) / idle * 100:.3f}", "%", note=f"over {idle} s")
        goal = MEMORY_GOALS.get(count)
        figure("private dirty memory", f"{private_dirty(pid) / 1024:.1f}", "MB", f"<= {goal}" if goal else "")
        after = host.counts()
        figure("mutations asked of the Engine since the start", str(after["mutations"]), "", "0")
        figure("mutations counted by the controller since settled", str(host.status()["mutations"] - mutations), "", "0")
        figure("requests to the Engine since settled", str(after["gets"] - before["gets"]), "")
        if after["unknown"]:
            say(f"  the scripted Engine was asked {after['unknown']} questions it does not know: the figures are not to be trusted")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--counts", default="100,1000")
    p.add_argument("--rounds", type=int, default=20)
    p.add_argument("--idle", type=int, default=60)
    args = p.parse_args()
    machine()
    for count in args.counts.split(","):
        measure(int(count), args.rounds, args.idle)


if __name__ == "__main__":
    main()
