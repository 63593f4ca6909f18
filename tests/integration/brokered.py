"""bulkhead-broker in the rig, with link_host in the controller's place: servers are plain processes, so that tests of the gateway need no containers.

    with Gateway(stdio("echo", fixture("mcp_echo"))) as gateway:
        with gateway.client("/servers/echo/mcp") as client:
            client.tool("echo", text="hello")

A client here is a few lines of Python that keep to the protocol of a legacy session; what real clients do is test_gateway_clients.py's matter."""
import contextlib
import ctypes
import hashlib
import http.client
import itertools
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time

from host import ROOT
from rig import eventually, rig, run

BUILD = pathlib.Path(os.environ.get("BULKHEAD_BUILD", ROOT))
BOTH = "application/json, text/event-stream"
LEGACY, MODERN = "2025-11-25", "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"}}
_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


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


@contextlib.contextmanager
def in_namespace(name):
    """Sockets that this thread makes inside belong there."""
    with open("/proc/thread-self/ns/net", "rb") as before, open(f"/run/netns/{name}", "rb") as there:
        if _libc.setns(there.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            _libc.setns(before.fileno(), 0x40000000)


def record(path, process):
    """So that the rig's end finds it, whatever becomes of us."""
    stat = pathlib.Path(f"/proc/{process.pid}/stat").read_text()
    path.write_text(f"{process.pid} {stat.rsplit(')', 1)[1].split()[19]}\n")


class Refused(AssertionError):
    def __init__(self, status, body):
        super().__init__(f"{status} {body[:500]}")
        self.status, self.body = status, body
        with contextlib.suppress(ValueError, KeyError, TypeError):
            self.error = json.loads(body)["error"]


class Gateway:
    def __init__(self, *entries, conf=None, token=None):
        """entries: as link_host takes them. conf: settings below `gateway`. token: what callers must show (none: nobody is asked)."""
        self.rig = rig()
        self.number = next(_numbers)
        self.dir = self.rig.run_dir / "instances" / f"g{os.getpid() % 10000}-{self.number}"
        self.port = 18000 + self.number
        self.address = f"127.0.0.1:{self.port}"
        self.token = token
        self.entries = entries
        self.log_path = self.dir / "broker.log"
        self.events = []
        self.broker = self.host = None
        self.dir.mkdir(parents=True, mode=0o755)
        settings = {"audience": "gateway.example.org", "controller": {"user": self.rig.env["RIG_USER"]}, "link": {"socket": str(self.dir / "link.sock")},
                    "network": {"broker_user": self.rig.env["RIG_BROKER"]},
                    "gateway": {"listen": self.address, "auth": "token" if token else "none", **({"token": str(self.dir / "token")} if token else {}), **(conf or {})}}
        (self.dir / "bulkhead.conf").write_text(json.dumps(settings) + "\n")
        if token:
            (self.dir / "token").write_text(hashlib.sha256(token.encode()).hexdigest() + "\n")

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

    # -- HTTP --------------------------------------------------------------------------------------------------------------
    def socket(self, timeout=30):
        with in_namespace(self.rig.env["RIG_HOST_NS"]):
            s = socket.socket()
        s.settimeout(timeout)
        s.connect(("127.0.0.1", self.port))
        return s

    def connection(self, timeout=30):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        c.sock = self.socket(timeout)
        return c

    def headers(self, **more):
        return {**({"Authorization": f"Bearer {self.token}"} if self.token else {}), **{k.replace("_", "-"): v for k, v in more.items()}}

    def request(self, method, path, body=None, timeout=30, **headers):
        """(status, headers, text) of one request on a connection of its own."""
        c = self.connection(timeout)
        try:
            c.request(method, path, body, self.headers(**headers))
            answer = c.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            c.close()

    def client(self, path="/mcp", **options):
        return Client(self, path, **options)

    def call(self, path, name, arguments=None, timeout=30, meta=None):
        """One tool call of a modern client: the result; Refused when there is none."""
        params = {"name": name, "arguments": arguments or {}, "_meta": {**META, **(meta or {})}}
        status, headers, text = self.request("POST", path, json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}), timeout,
                                             Content_Type="application/json", Accept=BOTH, MCP_Protocol_Version=MODERN, Mcp_Method="tools/call", Mcp_Name=name)
        answer = [m for m in messages(headers, text) if m.get("id") == 1] if status == 200 else []
        if not answer or "error" in answer[0]:
            raise Refused(status, text)
        return answer[0]["result"]

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


def messages(headers, text):
    """What an answer holds, as plain JSON or as a stream that has ended."""
    if "text/event-stream" not in (headers.get("Content-Type") or ""):
        return [json.loads(text)] if text else []
    return [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:") and line[5:].strip()]


class Client:
    """A legacy session on one kept connection; requests one at a time."""

    def __init__(self, gateway, path, version=LEGACY, capabilities=None, timeout=30):
        self.gateway, self.path, self.numbers = gateway, path, itertools.count(1)
        self.connection = gateway.connection(timeout)
        self.session = None
        self.notes = []
        self.opened = self.request("initialize", {"protocolVersion": version, "capabilities": capabilities or {}, "clientInfo": {"name": "test", "version": "1"}})
        self.version = self.opened["protocolVersion"]
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, message):
        headers = self.gateway.headers(Content_Type="application/json", Accept=BOTH)
        if self.session:
            headers |= {"Mcp-Session-Id": self.session, "MCP-Protocol-Version": self.version}
        self.connection.request("POST", self.path, json.dumps(message), headers)
        return self.connection.getresponse()

    def stream(self, message):
        """The messages of its answer, each as it comes."""
        answer = self.send(message)
        if "text/event-stream" not in (answer.headers.get("Content-Type") or ""):
            yield from messages(answer.headers, answer.read().decode())
            return
        for line in answer:
            if line.startswith(b"data:") and line[5:].strip():
                yield json.loads(line[5:])

    def post(self, message):
        answer = self.send(message)
        text = answer.read().decode()
        if answer.status not in (200, 202):
            raise Refused(answer.status, text)
        self.session = answer.headers.get("Mcp-Session-Id") or self.session
        return messages(answer.headers, text)

    def request(self, method, params=None):
        number = next(self.numbers)
        answer = None
        for m in self.post({"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}}):
            if m.get("id") == number and "method" not in m:
                answer = m
            else:
                self.notes.append(m)
        if answer is None:
            raise AssertionError(f"{method}: the stream ended without an answer")
        if "error" in answer:
            raise Refused(200, json.dumps(answer))
        return answer["result"]

    def tool(self, name, **arguments):
        """Its text."""
        return "".join(part.get("text", "") for part in self.request("tools/call", {"name": name, "arguments": arguments})["content"])

    def names(self, kind="tools"):
        found, cursor = [], {}
        while True:
            page = self.request(f"{kind}/list", cursor)
            found += [item["name"] for item in page[kind]]
            if "nextCursor" not in page:
                return found
            cursor = {"cursor": page["nextCursor"]}

    def end(self):
        headers = self.gateway.headers(Mcp_Session_Id=self.session, MCP_Protocol_Version=self.version)
        self.connection.request("DELETE", self.path, headers=headers)
        answer = self.connection.getresponse()
        answer.read()
        return answer.status

    def close(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.end()
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
