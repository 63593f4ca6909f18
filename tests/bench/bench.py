#!/usr/bin/env python3
"""Figures of the controller on the real Engine, in one run, as ratios to what they are compared with. Needs a rig (tests/bench/run.sh sees to it).

Nothing here fails: figures are for reading. Medians are quoted; machines are shared and noisy, so every comparison is interleaved."""
import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("BULKHEAD_BUILD", HERE.parents[1]))
sys.path.insert(0, str(HERE.parent / "integration"))
from figures import cpu_seconds, figure, machine, ms, private_dirty, say  # noqa: E402
from host import PRINCIPAL, Host  # noqa: E402
from rig import _Connection, body_of, rig, run  # noqa: E402

IN_FLIGHT = 4
LABEL = "io.bulkhead.server"


class Starts(threading.Thread):
    """Counts start events of containers with a label, as the Engine tells them."""

    def __init__(self, socket_path, label, wanted):
        super().__init__(daemon=True)
        self.wanted, self.count, self.first, self.last = wanted, 0, None, None
        self.done, self.ready = threading.Event(), threading.Event()
        self.connection = _Connection(socket_path, 600)
        self.filters = json.dumps({"type": ["container"], "event": ["start"], "label": [label]})

    def run(self):
        import urllib.parse
        self.connection.request("GET", "/events?" + urllib.parse.urlencode({"filters": self.filters}))
        answer = self.connection.getresponse()
        self.ready.set()
        while self.count < self.wanted:
            line = answer.readline()
            if not line:
                return
            if line.strip():
                self.count += 1
                self.last = time.monotonic()
                self.first = self.first or self.last
        self.done.set()

    def wait(self, seconds):
        if not self.done.wait(seconds):
            raise AssertionError(f"only {self.count} of {self.wanted} starts within {seconds} s")
        return self.last


def approve_many(host, count, first=0):
    names = [f"s{i:03d}" for i in range(first, first + count)]
    entry = host.entry("mcp/echo:1")
    ids = {}

    def prepare(name):
        proposal = host.propose(name, entry)
        host.cli("smoke", proposal, timeout=300)
        host.cli("approve", proposal, "--key", host.key, "--expires", "24h", "--yes")
        ids[name] = proposal
    with concurrent.futures.ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(prepare, names))
    host.write_registry({**host.read_registry(), **{name: entry for name in names}})
    return names


def running(host):
    return sum(c["State"] == "running" for c in host.containers())


def wait_running(host, count, seconds):
    end = time.monotonic() + seconds
    while running(host) < count:
        if time.monotonic() > end:
            raise AssertionError(f"{running(host)} of {count} run; {host.log_tail(5)}")
        time.sleep(0.5)
    host.settle(120)


def bodies_of(host):
    """What was created, as bodies for the bare API: [(network body, name, container body)]."""
    made = []
    networks = {n["Name"]: n for n in host.networks()}
    for c in host.containers():
        i = host.rig.api.inspect(c["Id"])
        net = networks[i["HostConfig"]["NetworkMode"]]
        n = {"Name": net["Name"], "Driver": "bridge", "Internal": net["Internal"], "EnableIPv6": False, "CheckDuplicate": True,
             "IPAM": {"Driver": "default", "Config": net["IPAM"]["Config"]}, "Options": net["Options"], "Labels": {"bench": "bare"}}
        config = {**body_of(i), "Labels": {"bench": "bare"}}
        address = i["NetworkSettings"]["Networks"][net["Name"]]["IPAMConfig"]
        config["NetworkingConfig"] = {"EndpointsConfig": {net["Name"]: {"IPAMConfig": address}}}
        made.append((n, i["Name"].lstrip("/"), config))
    return made


def bare_start(engine_socket, made):
    """The same objects through the bare API, four in flight, a kept connection each."""
    local = threading.local()

    def call(method, path, body=None):
        if not hasattr(local, "c"):
            local.c = _Connection(engine_socket, 120)
        local.c.request(method, "/v1.41" + path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
        answer = local.c.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise AssertionError(f"{method} {path}: {answer.status} {text[:300]}")
        return json.loads(text) if text.strip() else None

    def one(item):
        network, name, container = item
        call("POST", "/networks/create", network)
        made_id = call("POST", f"/containers/create?name={name}", container)["Id"]
        call("POST", f"/containers/{made_id}/start")
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(one, made))
    return time.monotonic() - began


def remove_labelled(api, label):
    def gone(c):
        api.remove(c["Id"])
    filters = {"label": [label]}
    with concurrent.futures.ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(gone, api.call("GET", "/containers/json", all=1, filters=filters)))
    for n in api.call("GET", "/networks", filters=filters):
        api.call("DELETE", f"/networks/{n['Id']}", ok=(204, 404))


def compose_file(made):
    services, networks = {}, {}
    for network, name, c in made:
        h = c["HostConfig"]
        pool = network["IPAM"]["Config"][0]
        networks[network["Name"]] = {"driver": "bridge", "internal": network["Internal"], "driver_opts": network["Options"],
                                     "ipam": {"driver": "default", "config": [{"subnet": pool["Subnet"], "gateway": pool["Gateway"]}]}}
        services[name] = {
            "image": c["Image"], "container_name": name, "user": c["User"], "read_only": True, "cap_drop": ["ALL"], "stdin_open": True, "init": True,
            "security_opt": ["no-new-privileges:true"], "mem_limit": h["Memory"], "memswap_limit": h["MemorySwap"], "pids_limit": h["PidsLimit"],
            "cpus": h["NanoCpus"] / 1e9, "tmpfs": [f"{k}:{v}" for k, v in h["Tmpfs"].items()], "logging": {"driver": h["LogConfig"]["Type"]},
            "shm_size": h["ShmSize"], "ipc": "private", "labels": {"bench": "compose"},
            "networks": {network["Name"]: {"ipv4_address": c["NetworkingConfig"]["EndpointsConfig"][network["Name"]]["IPAMConfig"]["IPv4Address"]}}}
        if c.get("Cmd"):
            services[name]["command"] = c["Cmd"]
    return {"version": "2.4", "services": services, "networks": networks}


def compose_start(the_rig, made, folder):
    path = folder / "docker-compose.json"
    path.write_text(json.dumps(compose_file(made)))
    env = {**os.environ, "DOCKER_HOST": f"unix://{the_rig.engine_socket}", "COMPOSE_PROJECT_NAME": "bench"}
    argv = the_rig.in_host("docker-compose", "-f", str(path))
    began = time.monotonic()
    run(*argv, "up", "-d", "--no-build", env=env, timeout=300)
    took = time.monotonic() - began
    run(*argv, "down", "-t", "0", env=env, timeout=300)
    return took


def bench_start(host, count, rounds):
    say(f"\n{count} servers from nothing to running, networks included, smoke tests made before")
    names = approve_many(host, count)
    wait_running(host, count, 300)
    made = bodies_of(host)
    ours, bare, composed, first = [], [], [], []
    for _ in range(rounds):
        host.stop()
        host.clean_engine()
        starts = Starts(host.rig.engine_socket, f"io.bulkhead.owner={host.audience}", count)
        starts.start()
        starts.ready.wait(10)
        began = time.monotonic()
        host.start(init=False, wait=False)
        ours.append(starts.wait(300) - began)
        first.append(starts.first - began)
        host.stop()
        host.clean_engine()
        bare.append(bare_start(host.rig.engine_socket, made))
        remove_labelled(host.rig.api, "bench=bare")
        composed.append(compose_start(host.rig, made, host.dir))
    host.start(init=False)
    wait_running(host, count, 300)
    a, b, c = statistics.median(ours), statistics.median(bare), statistics.median(composed)
    figure("bulkhead-controller, from its own start", ms(a), "ms", note=f"the first one after {ms(statistics.median(first))}")
    figure("bare API, 4 in flight", ms(b), "ms")
    figure("docker-compose up", ms(c), "ms")
    figure("ratio to the bare API", f"{statistics.median(x / y for x, y in zip(ours, bare)):.2f}", "x", "<= 1.10")
    figure("ratio to docker-compose", f"{statistics.median(x / y for x, y in zip(ours, composed)):.2f}", "x", "< 0.75")
    return names


def controller_pid(host):
    return host.controller.pid


def bench_idle(host, seconds):
    say(f"\nIdle, {running(host)} servers, {seconds} s")
    time.sleep(2)
    pid = controller_pid(host)
    before = cpu_seconds(pid)
    time.sleep(seconds)
    figure("CPU of one core", f"{(cpu_seconds(pid) - before) / seconds * 100:.3f}", "%", "<= 0.1")


def bench_kill(host, names):
    say("\nA killed container is back")
    api, whole, alone, rounds = host.rig.api, [], [], len(names)
    for name in names:  # another one each time: a second crash of the same server waits longer, on purpose
        c = host.container(name)
        starts = Starts(host.rig.engine_socket, f"{LABEL}={name}", 1)
        starts.start()
        starts.ready.wait(10)
        began = time.monotonic()
        api.call("POST", f"/containers/{c['Id']}/kill")
        whole.append(starts.wait(60) - began)
        host.settle(60)
        # The Engine's own part: the same kill and start by hand, on a container that is not ours.
    image = host.entry("mcp/echo:1")["image"]
    remove_labelled(api, "bench=kill")
    bare = api.call("POST", "/containers/create", {"Image": image, "OpenStdin": True, "Labels": {"bench": "kill"}}, name="bench-kill")["Id"]
    for _ in range(rounds):
        api.call("POST", f"/containers/{bare}/start")
        api.call("POST", f"/containers/{bare}/kill")
        api.call("POST", f"/containers/{bare}/wait")
        began = time.monotonic()
        api.call("POST", f"/containers/{bare}/start")
        alone.append(time.monotonic() - began)
        api.call("POST", f"/containers/{bare}/kill")
        api.call("POST", f"/containers/{bare}/wait")
    api.remove(bare)
    a, b = statistics.median(whole), statistics.median(alone)
    figure("from the kill to the start event", ms(a), "ms")
    figure("the Engine's own start", ms(b), "ms")
    figure("on top of the Engine", ms(a - b), "ms", "<= 500", "the end of the killed container included")


class Prepared(Host):
    """A host on the real Engine with many servers that were approved and tested long ago, by records that are really signed."""

    def __init__(self, count):
        super().__init__()
        image = self.entry("mcp/echo:1")["image"]
        image_id = self.rig.api.pull(image)["Id"]
        run(BUILD / "tests/bench/make_world", self.conf_path, count, self.key, PRINCIPAL, image, image_id, timeout=300)


def bench_pass(count, rounds):
    say(f"\nNothing to do, {count} real servers")
    with Prepared(count) as host:
        host.start()
        wait_running(host, count, 900)
        took = []
        before = host.status()["mutations"]
        for _ in range(rounds):
            host.plan()
            took.append(host.status()["last_pass_us"] / 1000)
        figure("a pass, median", f"{statistics.median(took):.1f}", "ms", "<= 100", f"of {rounds}; least {min(took):.1f}, worst {max(took):.1f}")
        figure("mutations", str(host.status()["mutations"] - before), "", "0")
        figure("private dirty memory", f"{private_dirty(controller_pid(host)) / 1024:.1f}", "MB", "", f"{count} servers")


def bench_decide():
    """The broker's policy: no rig in it, but the same run and machine."""
    d = json.loads(run(BUILD / "tests/bench/decide", timeout=120).stdout)
    what = "1,000 tools, 100 agents, all policies on"
    figure("decisions, counters on the disk", f"{d['per_cpu_second']:.0f}", "/s", "50000", f"per second of one core; {what}")
    figure("one decision and its settlement, p50 / p99", f"{d['us_p50']:.1f} / {d['us_p99']:.1f}", "us", "15 (p50)")
    figure("memory of an agent", f"{d['bytes_per_agent'] / 1024:.1f}", "KiB", "4")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--servers", type=int, default=32)
    p.add_argument("--many", type=int, default=200)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--idle", type=int, default=60)
    p.add_argument("--only", default="start,idle,kill,pass,decide")
    args = p.parse_args()
    only = args.only.split(",")
    machine(rig().api.call('GET', '/version')['Version'])
    if {"start", "idle", "kill"} & set(only):
        with Host() as host:
            host.start()
            if "start" in only:
                bench_start(host, args.servers, args.rounds)
            else:
                approve_many(host, args.servers)
                wait_running(host, args.servers, 300)
            if "idle" in only:
                bench_idle(host, args.idle)
                figure("private dirty memory", f"{private_dirty(controller_pid(host)) / 1024:.1f}", "MB", "", f"{args.servers} servers")
            if "kill" in only:
                bench_kill(host, [f"s{i:03d}" for i in range(min(9, args.servers))])
    if "pass" in only:
        bench_pass(args.many, 20)
    if "decide" in only:
        bench_decide()


if __name__ == "__main__":
    main()
