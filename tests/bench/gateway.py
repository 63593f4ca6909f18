#!/usr/bin/env python3
"""Figures of the gateway, in one run, as ratios to what they are compared with: the same server called directly over the same kind of stream, and a relay
that only copies bytes. Servers are plain processes whose streams link_host hands over as the controller does; sealed.py has the Engine's.

Nothing here fails because of a figure, but every answer is checked. Medians are quoted; machines are shared and noisy, so every comparison is
interleaved. Needs root: the broker runs as its own user."""
import argparse
import contextlib
import http.client
import importlib
import json
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from figures import cpu_seconds, figure, machine, private_dirty, say  # noqa: E402

BUILD = pathlib.Path(os.environ.get("BULKHEAD_BUILD", HERE.parents[1]))
ECHO = BUILD / "tests/rig/servers/mcp_echo"
LOAD = BUILD / "tests/bench/load_client"
RELAY = BUILD / "tests/bench/byte_relay"
LINK_HOST = BUILD / "tests/rig/link_host"
ROOT = pathlib.Path(os.environ.get("BULKHEAD_ROOT", "/nonexistent"))
BROKER = next((p for p in (ROOT / "usr/sbin/bulkhead-broker", ROOT / "usr/libexec/bulkhead/bulkhead-broker") if p.exists()), None)
NPM = pathlib.Path(os.environ.get("RIG_NPM") or "/nonexistent")
BRIDGES = pathlib.Path(os.environ.get("RIG_BRIDGES") or "/nonexistent")
USER = os.environ.get("RIG_BROKER", "nobody")
LEGACY, MODERN = [], ["--modern"]
MESSAGE = {"everything": ["--argument", "message"]}
MEBI = 1 << 20
WARMUP = 50  # calls of each client that load_client does not count, unless told otherwise


def free_port():
    """Below those that the kernel gives away by itself: nothing else takes it before it is listened on."""
    while True:
        port = random.randrange(20000, 32768)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


def wait_for(port, process, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(f"{process.args[0]} ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"{process.args[0]}: nobody listens on {port}")


class Processes(contextlib.ExitStack):
    """What is started here ends here."""

    def start(self, *argv, stdin=subprocess.DEVNULL, log=None, env=None):
        out = open(log, "ab") if log else subprocess.DEVNULL
        p = subprocess.Popen([str(a) for a in argv], stdin=stdin, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, env=env)
        if log:
            out.close()
        self.callback(self.stop, p)
        return p

    @staticmethod
    def stop(p):
        for sig in (signal.SIGTERM, signal.SIGKILL):
            if p.poll() is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(p.pid, sig)
            with contextlib.suppress(subprocess.TimeoutExpired):
                p.wait(10)
        if p.stdin:
            p.stdin.close()


class Gateway(Processes):
    """link_host and a broker before it."""

    def __init__(self, servers, wrapper=(), options=(), **conf):
        super().__init__()
        self.servers, self.wrapper, self.options, self.conf = servers, wrapper, options, conf
        self.port, self.names = free_port(), [s["name"] for s in servers]

    def __enter__(self):
        try:
            self.dir = pathlib.Path(tempfile.mkdtemp(prefix="bulkhead-bench."))
            self.callback(shutil.rmtree, self.dir, ignore_errors=True)
            self.dir.chmod(0o755)
            self.start_all()
        except AssertionError as e:
            said = self.log.read_text()[-2000:]
            self.close()
            raise AssertionError(f"{e}\n{said}") from e
        except BaseException:
            self.close()
            raise
        return self

    def start_all(self):
        user = pwd.getpwnam(USER)
        link, self.log = self.dir / "link.sock", self.dir / "log"
        self.write_conf(link, self.conf)
        entries = [x for s in self.servers for x in ("--entry", json.dumps(s))]
        self.host = self.start(LINK_HOST, "--socket", link, "--broker-uid", user.pw_uid, *entries, stdin=subprocess.PIPE, log=self.log)
        self.wait("link_host", link.exists)
        become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--no-new-privs"]
        self.broker = self.start(*become, *self.wrapper, BROKER, "--config", self.dir / "bulkhead.conf", *self.options, log=self.log)
        wait_for(self.port, self.broker, 60)
        for name in self.names:
            self.wait(name, lambda n=name: load(["--calls", "1", "--warmup", "0", *MESSAGE.get(n, [])], "http", self.url(n), check=False))

    def wait(self, what, ready, seconds=60):
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                raise AssertionError(f"{what} is not ready")
            time.sleep(0.1)

    def write_conf(self, link, more):
        values = {"audience": "bench", "link.socket": str(link), "gateway.listen": f"127.0.0.1:{self.port}", "gateway.auth": "none",
                  "controller.user": "root", "network.broker_user": USER, "broker.state": str(self.dir / "none"), **more}
        tree = {}
        for key, value in values.items():
            at = tree
            *path, last = key.split(".")
            for part in path:
                at = at.setdefault(part, {})
            at[last] = value
        (self.dir / "bulkhead.conf").write_text(json.dumps(tree) + "\n")

    def url(self, name):
        return f"127.0.0.1:{self.port}/servers/{name}/mcp"

    def pid(self):
        """The process that serves: under valgrind and the like it is the same one."""
        return self.broker.pid


def load(options, *target, check=True, timeout=600, via=()):
    """via: what to put before the command, such as nsenter."""
    p = subprocess.run([*via, str(LOAD), *map(str, options), *map(str, target)], capture_output=True, text=True, timeout=timeout, check=False)
    if p.returncode != 0:
        if check:
            raise AssertionError(f"load_client {' '.join(map(str, target))}: {p.stderr.strip()[-500:]}")
        return None
    return json.loads(p.stdout)


def stdio(name, *command):
    return {"name": name, "transport": "stdio", "command": [str(c) for c in command]}


def over_http(name, port):
    return {"name": name, "transport": "streamable-http", "address": "127.0.0.1", "port": port, "path": "/mcp"}


def everything():
    script = NPM / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    return [NPM / "node", script] if script.exists() else None


def median(rows, key):
    return statistics.median(r[key] for r in rows)


def interleave(rounds, **ways):
    """{name: [result of each round]}; every round takes all of them, one after the other."""
    got = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            got[name].append(way())
    return got


# -- what a call costs ---------------------------------------------------------------------------------------------------------------------------

def ratio(direct, relay, gateway):
    """What the gateway adds, in what the relay adds; None when the noise was larger than the relay."""
    return (gateway - direct) / (relay - direct) if relay - direct >= 1 else None


def show_added(title, got, goal="<= 1.5"):
    figure(f"{title}: direct p50 / p99", f"{median(got['direct'], 'p50_us'):.0f} / {median(got['direct'], 'p99_us'):.0f}", "us")
    for key in ("p50_us", "p99_us"):
        direct, relay, gateway = (median(got[k], key) for k in ("direct", "relay", "gateway"))
        whole = ratio(direct, relay, gateway)
        each = sorted(r for r in (ratio(*(got[k][i][key] for k in ("direct", "relay", "gateway"))) for i in range(len(got["direct"]))) if r is not None)
        figure(f"{title}: {key[:3]} added by the relay / by the gateway", f"{relay - direct:.0f} / {gateway - direct:.0f}", "us")
        figure(f"{title}: {key[:3]} ratio", f"{whole:.2f}" if whole is not None else "noise", "x", goal,
               f"of the rounds: {each[0]:.2f} .. {statistics.median(each):.2f} .. {each[-1]:.2f}" if each else "")


def bench_calls(rounds, calls):
    say("\nOne client, one call at a time, added to the same server called directly")
    echo_port, relay_port, http_relay, node_relay = (free_port() for _ in range(4))
    node = everything()
    servers = [stdio("echo", ECHO), over_http("web", echo_port)] + ([stdio("everything", *node)] if node else [])
    with Processes() as p:
        wait_for(echo_port, p.start(ECHO, "--http", echo_port))
        wait_for(relay_port, p.start(RELAY, "--framed", "tcp", relay_port, "exec", ECHO))
        wait_for(http_relay, p.start(RELAY, "tcp", http_relay, "tcp", echo_port))
        if node:
            wait_for(node_relay, p.start(RELAY, "--framed", "tcp", node_relay, "exec", *node))
        g = p.enter_context(Gateway(servers))
        for title, era in (("echo, stdio", LEGACY), ("echo, stdio, modern", MODERN)):
            o = ["--calls", calls, *era]
            show_added(title, interleave(rounds, direct=lambda: load([*o, "--framed"], "stdio", ECHO),
                                         relay=lambda: load([*o, "--framed"], "tcp", relay_port), gateway=lambda: load(o, "http", g.url("echo"))))
        for title, era in (("echo, HTTP", LEGACY), ("echo, HTTP, modern", MODERN)):
            o = ["--calls", calls, *era]
            show_added(title, interleave(rounds, direct=lambda: load(o, "http", f"127.0.0.1:{echo_port}/mcp"),
                                         relay=lambda: load(o, "http", f"127.0.0.1:{http_relay}/mcp"), gateway=lambda: load(o, "http", g.url("web"))))
        if not node:
            say("  server-everything: not installed (RIG_NPM)")
            return
        # Its handshake takes a second, so a session of its own for each measurement is not for many rounds.
        o = ["--calls", calls // 5, *MESSAGE["everything"]]
        show_added("server-everything, stdio", interleave(rounds, direct=lambda: load([*o, "--framed"], "stdio", *node),
                                                          relay=lambda: load([*o, "--framed"], "tcp", node_relay),
                                                          gateway=lambda: load(o, "http", g.url("everything"))))


def show_throughput(title, got):
    """got: {way: results}, of direct, gateway with its cpu_us, and perhaps relay."""
    def of_direct(way):
        return [b["per_second"] / a["per_second"] for a, b in zip(got["direct"], got[way])]
    figure(f"{title}: direct / gateway", f"{median(got['direct'], 'per_second'):.0f} / {median(got['gateway'], 'per_second'):.0f}", "/s")
    figure(f"{title}: of direct throughput", f"{100 * statistics.median(of_direct('gateway')):.0f}", "%", ">= 50", f"worst {100 * min(of_direct('gateway')):.0f}")
    if "relay" in got:
        figure(f"{title}: of direct throughput, a relay that only copies", f"{100 * statistics.median(of_direct('relay')):.0f}", "%")
    figure(f"{title}: CPU of the broker for a call", f"{median(got['gateway'], 'cpu_us'):.1f}", "us", "<= 30")


def with_cpu(pid, calls, run_load):
    """What run_load() gives, and what each of that many calls cost the process."""
    before = cpu_seconds(pid)
    r = run_load()
    return {**r, "cpu_us": (cpu_seconds(pid) - before) * 1e6 / calls}


def bench_throughput(rounds, calls):
    say("\n32 clients at once")
    echo_port, relay_port = free_port(), free_port()
    with Processes() as p:
        wait_for(echo_port, p.start(ECHO, "--http", echo_port))
        wait_for(relay_port, p.start(RELAY, "tcp", relay_port, "tcp", echo_port))
        g = p.enter_context(Gateway([stdio("echo", ECHO), over_http("web", echo_port)]))
        o = ["--in-flight", 32, "--calls", calls]

        def through(name):
            return with_cpu(g.pid(), 32 * (calls + WARMUP), lambda: load(o, "http", g.url(name)))
        # Over stdio all are one stream directly, so that there is nothing like it for a relay.
        show_throughput("echo, stdio", interleave(rounds, direct=lambda: load([*o, "--framed"], "stdio", ECHO), gateway=lambda: through("echo")))
        show_throughput("echo, HTTP", interleave(rounds, direct=lambda: load(o, "http", f"127.0.0.1:{echo_port}/mcp"), gateway=lambda: through("web"),
                                                 relay=lambda: load(o, "http", f"127.0.0.1:{relay_port}/mcp")))


# -- others that do it ---------------------------------------------------------------------------------------------------------------------------

def bridges(port_of):
    node, modules = BRIDGES / "node", BRIDGES / "node_modules"
    return {"supergateway": [node, modules / "supergateway/dist/index.js", "--stdio", str(ECHO), "--outputTransport", "streamableHttp", "--stateful",
                             "--logLevel", "none", "--port", port_of["supergateway"]],
            "mcp-proxy": [node, modules / "mcp-proxy/dist/bin/mcp-proxy.mjs", "--server", "stream", "--port", port_of["mcp-proxy"], "--", ECHO]}


def bench_bridges(rounds, calls):
    say("\nThe same stdio server behind npm's supergateway and mcp-proxy")
    if not (BRIDGES / "node").exists():
        say("  not installed here, and npm's registry was not reachable (RIG_BRIDGES)")
        return
    ports = {"supergateway": free_port(), "mcp-proxy": free_port()}
    with Processes() as p:
        started = {name: p.start(*argv) for name, argv in bridges(ports).items()}
        for name, process in started.items():
            wait_for(ports[name], process, 60)
        g = p.enter_context(Gateway([stdio("echo", ECHO)]))
        urls = {"gateway": g.url("echo"), **{name: f"127.0.0.1:{port}/mcp" for name, port in ports.items()}}
        few = ["--calls", max(calls // 10, 50)]
        one = interleave(rounds, direct=lambda: load([*few, "--framed"], "stdio", ECHO),
                         **{name: (lambda u=url: load(few, "http", u)) for name, url in urls.items()})
        many = interleave(rounds, **{name: (lambda u=url: load(["--in-flight", 32, "--calls", max(calls // 50, 20), "--warmup", 5], "http", u))
                                     for name, url in urls.items()})
        added = {name: median(one[name], "p50_us") - median(one["direct"], "p50_us") for name in urls}
        for name in urls:
            figure(f"{name}: p50 added, 32 clients", f"{added[name]:.0f}", "us", note=f"{median(many[name], 'per_second'):.0f}/s")
        for name in ports:
            figure(f"{name} / gateway: added latency", f"{added[name] / added['gateway']:.0f}", "x", ">= 10")
            figure(f"gateway / {name}: throughput", f"{median(many['gateway'], 'per_second') / median(many[name], 'per_second'):.0f}", "x", ">= 10")


# -- size ----------------------------------------------------------------------------------------------------------------------------------------

def bench_size(rounds):
    say("\nLarge results (gateway.max_message 64m)")
    sizes = [1 << 10, 16 << 10, 256 << 10, MEBI, 8 * MEBI, 32 * MEBI, 64 * MEBI - 4096]
    per_mebi = {}
    with Gateway([stdio("echo", ECHO)], **{"gateway.max_message": "64m"}) as g:
        for size in sizes:
            o = ["--tool", "fill", "--result", size, "--warmup", 2, "--calls", max(3, min(200, 64 * MEBI // max(size, 256 << 10)))]
            got = interleave(rounds, direct=lambda: load([*o, "--framed"], "stdio", ECHO), gateway=lambda: load(o, "http", g.url("echo")))
            direct, ours = median(got["direct"], "p50_us"), median(got["gateway"], "p50_us")
            per_mebi[size] = ours / size * MEBI
            figure(f"{size >> 10} KiB: direct / gateway", f"{direct / 1000:.2f} / {ours / 1000:.2f}", "ms")
            if size == 8 * MEBI:
                figure("8 MiB: ratio to direct", f"{ours / direct:.2f}", "x", "<= 2")
        figure("time for a MiB at 1, 8, 64 MiB", " / ".join(f"{per_mebi[s] / 1000:.1f}" for s in (MEBI, 8 * MEBI, sizes[-1])), "ms", "linear")
        figure("private dirty memory afterwards", f"{private_dirty(g.pid()) / 1024:.1f}", "MB")


# -- memory --------------------------------------------------------------------------------------------------------------------------------------

def open_sessions(port, name, count):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    hello = json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize",
                        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "idle", "version": "1"}}})
    done = json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"})
    for _ in range(count):
        c.request("POST", f"/servers/{name}/mcp", hello, headers)
        answer = c.getresponse()
        answer.read()
        session = answer.headers.get("Mcp-Session-Id")
        if answer.status != 200 or not session:
            raise AssertionError(f"initialize: HTTP {answer.status}")
        c.request("POST", f"/servers/{name}/mcp", done, {**headers, "Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"})
        c.getresponse().read()
    c.close()


def bench_memory(servers, sessions):
    say("\nMemory of the broker, private and dirty")
    with Gateway([]) as g:
        time.sleep(1)
        none = private_dirty(g.pid())
        figure("no servers", f"{none / 1024:.2f}", "MB", "<= 6")
    with Gateway([stdio(f"s{i:03d}", ECHO) for i in range(servers)], **{"gateway.max_sessions": sessions + servers + 100}) as g:
        time.sleep(1)
        many = private_dirty(g.pid())
        figure(f"{servers} stdio servers that were called once: for each", f"{(many - none) / servers:.1f}", "KiB", "<= 64")
        open_sessions(g.port, "s000", sessions)
        time.sleep(1)
        figure(f"{sessions} idle sessions: for each", f"{(private_dirty(g.pid()) - many) / sessions:.2f}", "KiB", "<= 16")


# -- instructions --------------------------------------------------------------------------------------------------------------------------------

def instructions(calls, server, options):
    """Of a broker from its start to its end, counted by callgrind."""
    with tempfile.TemporaryDirectory(prefix="bulkhead-callgrind.") as folder:
        shutil.chown(folder, USER)
        # One instruction that fills or copies a block counts as one a byte there, so the others are used.
        tunables = "glibc.cpu.x86_rep_stosb_threshold=1000000000:glibc.cpu.x86_rep_movsb_threshold=1000000000"
        wrapper = ["env", f"GLIBC_TUNABLES={tunables}", "valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
        # valgrind needs what a confined broker must not; and how often it looks before it sleeps is no work of a call.
        with Gateway([server], wrapper=wrapper, options=["--unconfined"], **{"gateway.busy_poll_us": 0}) as g:
            load(["--calls", calls, "--warmup", 100, *options], "http", g.url(server["name"]))
        text = (pathlib.Path(folder) / "out").read_text(errors="replace")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(("totals:", "summary:")))


def bench_instructions(calls):
    say("\nInstructions of the broker for a call, counted by callgrind: these hardly depend on the machine's mood")
    if not shutil.which("valgrind"):
        say("  valgrind is not installed")
        return
    port = free_port()
    with Processes() as p:
        wait_for(port, p.start(ECHO, "--http", port))
        for kind, server in (("stdio", stdio("echo", ECHO)), ("HTTP", over_http("web", port))):
            for era, options in (("legacy", LEGACY), ("modern", MODERN)):
                # What start, end and warm-up cost is in both.
                figure(f"echo, {kind}, {era}", f"{(instructions(1 + calls, server, options) - instructions(1, server, options)) / calls:.0f}", "")


def bench_part(name, rounds, calls):
    """bench() of a file beside this one."""
    sys.modules.setdefault("gateway", sys.modules[__name__])  # what is run as a program has no name
    importlib.import_module(name).bench(rounds, calls)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rounds", type=int, default=15)
    p.add_argument("--calls", type=int, default=2000)
    p.add_argument("--servers", type=int, default=32)
    p.add_argument("--sessions", type=int, default=10000)
    p.add_argument("--realtime", action="store_true", help="everything measured runs before all else on this machine: steadier where others work too")
    p.add_argument("--only", default="calls,throughput,sealed,agents,bridges,size,memory,instructions")
    args = p.parse_args()
    benches = {"calls": lambda: bench_calls(args.rounds, args.calls), "throughput": lambda: bench_throughput(max(args.rounds // 2, 1), args.calls),
               "sealed": lambda: bench_part("sealed", args.rounds, args.calls), "agents": lambda: bench_part("agents", args.rounds, args.calls),
               "bridges": lambda: bench_bridges(max(args.rounds // 3, 1), args.calls), "size": lambda: bench_size(max(args.rounds // 3, 1)),
               "memory": lambda: bench_memory(args.servers, args.sessions), "instructions": lambda: bench_instructions(1000)}
    machine()
    if args.realtime:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    if not BROKER:
        say("  no bulkhead-broker is installed (BULKHEAD_ROOT)")
        return
    for name in args.only.split(","):
        benches[name]()


if __name__ == "__main__":
    main()
