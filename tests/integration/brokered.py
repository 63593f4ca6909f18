"""bulkhead-broker in the rig, with link_host in the controller's place: servers are plain processes, so that tests of the gateway need no containers.

    with Gateway(stdio("echo", fixture("mcp_echo"))) as gateway:
        with gateway.client("/servers/echo/mcp") as client:
            client.tool("echo", text="hello")"""
import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time

from callers import BOTH, LEGACY, META, MODERN, Port, Refused, in_namespace  # pylint: disable=unused-import
from host import ROOT
from rig import TOP, eventually, rig, run

BUILD = pathlib.Path(os.environ.get("BULKHEAD_BUILD", ROOT))
_numbers = itertools.count(1)


def fixture(name):
    """A program of tests/rig/servers."""
    return str(BUILD / "tests/rig/servers" / name)


def stdio(name, *command, **more):
    return {"name": name, "command": [str(c) for c in command], **more}


def http_server(name, port, *command, transport="streamable-http", **more):
    return {"name": name, "transport": transport, "port": port, **({"command": [str(c) for c in command]} if command else {}), **more}


def npm(package, *path):
    """A file of a package that the rig installed."""
    return str(pathlib.Path(rig().env["RIG_NPM"], "node_modules", package, *path))


def node(*argv):
    return [str(pathlib.Path(rig().env["RIG_NPM"], "node")), *map(str, argv)]


def record(path, process):
    """So that the rig's end finds it, whatever becomes of us."""
    stat = pathlib.Path(f"/proc/{process.pid}/stat").read_text()
    path.write_text(f"{process.pid} {stat.rsplit(')', 1)[1].split()[19]}\n")


class Gateway(Port):
    def __init__(self, *entries, conf=None, token=None, agents=None):
        """entries: as link_host takes them. conf: settings below `gateway`. token: what callers must show (none: nobody is asked). agents: {name: what it may, as
        security_policy.json has it}; none: agents are not served."""
        self.number = next(_numbers)
        self.address = f"127.0.0.1:{18000 + self.number}"
        super().__init__(self.address, token)
        self.dir = self.rig.run_dir / "instances" / f"g{os.getpid() % 10000}-{self.number}"
        self.entries = entries
        self.log_path = self.dir / "broker.log"
        self.events = []
        self.broker = self.host = None
        self.dir.mkdir(parents=True, mode=0o755)
        self.door = f"127.0.0.1:{19000 + self.number}"
        settings = {"audience": "gateway.example.org", "controller": {"user": self.rig.env["RIG_USER"]}, "link": {"socket": str(self.dir / "link.sock")},
                    "network": {"broker_user": self.rig.env["RIG_BROKER"]},
                    "gateway": {"listen": self.address, "auth": "token" if token else "none", **({"token": str(self.dir / "token")} if token else {}), **(conf or {})},
                    "broker": {"listen": [self.door], "state": str(self.dir / "state"), "hosts": ["127.0.0.1"]}, "policy": str(self.dir / "policy.json"),
                    "agents": {"file": str(self.dir / "agents.json"), "key": str(self.dir / "agents.key")}}
        (self.dir / "bulkhead.conf").write_text(json.dumps(settings) + "\n")
        for agent in agents or ():
            self.cli("agent", "add", agent)
        if agents:
            (self.dir / "policy.json").write_text(json.dumps({"version": "1.0", "tool_approval_required": [], "rate_limits": [], "budgets": {}, "agents": agents}))
            (self.dir / "state").mkdir(mode=0o700)
            shutil.chown(self.dir / "state", self.rig.env["RIG_BROKER"])
        if token:
            (self.dir / "token").write_text(hashlib.sha256(token.encode()).hexdigest() + "\n")

    # -- agents --------------------------------------------------------------------------------------------------------
    @property
    def shim(self):
        """Where add_token.py may listen for programs that send no token."""
        return f"127.0.0.1:{20000 + self.number}"

    def cli(self, *argv):
        return run(ROOT / "usr/bin/bulkhead", "--config", self.dir / "bulkhead.conf", *argv).stdout.strip()

    def agent(self, name):
        """The agents' door, with this one's token."""
        return Port(self.door, self.cli("token", name, "--run", f"run-of-{name}"))

    @contextlib.contextmanager
    def with_token(self, agent):
        """An address at which that agent's token is added to everything."""
        argv = self.rig.in_host(sys.executable, "-B", str(TOP / "tests/rig/add_token.py"), self.shim, self.door, self.agent(agent).token)
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            record(self.dir / "add_token.pid", process)
            process.stdout.readline()
            try:
                yield self.shim
            finally:
                process.stdin.close()
                process.kill()

    # -- its two processes ---------------------------------------------------------------------------------------------
    def start(self):
        self.start_host()
        self.start_broker()
        return self

    def start_host(self):
        argv = [BUILD / "tests/rig/link_host", "--socket", self.dir / "link.sock", "--broker-uid", str(pwd.getpwnam(self.rig.env["RIG_BROKER"]).pw_uid)]
        for entry in self.entries:
            argv += ["--entry", json.dumps(entry)]
        with open(self.dir / "host.log", "ab") as log:
            self.host = subprocess.Popen(self.rig.in_host(*map(str, argv)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        record(self.dir / "host.pid", self.host)
        threading.Thread(target=self._read_events, args=(self.host.stdout,), daemon=True).start()
        self.event("ready")

    def _read_events(self, stream):
        for line in stream:
            self.events.append(json.loads(line))

    def start_broker(self):
        user = self.rig.env["RIG_BROKER"]
        with open(self.log_path, "ab") as log:
            self.broker = subprocess.Popen(self.rig.in_host("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs",
                                                            "--bounding-set=-all", "--inh-caps=-all", str(ROOT / "usr/sbin/bulkhead-broker"),
                                                            "--config", str(self.dir / "bulkhead.conf")), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        record(self.dir / "broker.pid", self.broker)
        eventually(f"the broker answers (log: {self.log()[-2000:]})", 15, lambda: self.request("GET", "/healthz")[0] == 200)

    def stop_broker(self, how=signal.SIGTERM):
        if self.broker and self.broker.poll() is None:
            self.broker.send_signal(how)
            self.broker.wait(10)
        self.broker = None

    def stop_host(self):
        if self.host and self.host.poll() is None:
            self.host.stdin.close()
            self.host.wait(10)
        self.host = None

    def close(self):
        try:
            self.stop_broker(signal.SIGKILL)
            self.stop_host()
        finally:
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            print(f"        end of the broker's log:\n{self.log()[-2000:]}", flush=True)
            self.close()
            raise

    def __exit__(self, kind, value, trace):
        if value is not None:
            print(f"        end of the broker's log:\n{self.log()[-3000:]}", flush=True)
        self.close()

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # -- what the controller does ----------------------------------------------------------------------------------------
    def tell(self, do, name=None, **more):
        self.host.stdin.write(json.dumps({"do": do, **({"name": name} if name else {}), **more}) + "\n")
        self.host.stdin.flush()

    def event(self, event, seconds=10, after=0, **more):
        """The first event of that kind from number `after` on."""
        def find():
            return next((e for e in self.events[after:] if e["event"] == event and all(e.get(k) == v for k, v in more.items())), None)
        return eventually(f"link_host says {event} {more}; it said {self.events[-5:]}", seconds, find)

    # -- what it costs -----------------------------------------------------------------------------------------------------
    def metrics(self):
        """{name or name{labels}: number}"""
        lines = self.request("GET", "/metrics")[2].splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line and not line.startswith("#")}

    def memory(self):
        """Private dirty bytes of the broker."""
        for line in pathlib.Path(f"/proc/{self.broker.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no Private_Dirty")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.broker.pid}/fd"))

    def local_sockets(self):
        """How many of its descriptors are sockets of this host alone: the link, and a stream for every stdio server."""
        folder = f"/proc/{self.broker.pid}"
        local = {f"socket:[{line.split()[6]}]" for line in pathlib.Path(folder, "net/unix").read_text().splitlines()[1:]}
        count = 0
        for fd in os.listdir(f"{folder}/fd"):
            with contextlib.suppress(FileNotFoundError):
                count += os.readlink(f"{folder}/fd/{fd}") in local
        return count
