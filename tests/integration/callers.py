"""The gateway as its callers see it: HTTP to an address in the rig's host namespace, with the token.

    gateway = Port("127.0.0.1:8080", token)
    gateway.tool("/mcp", "echo__echo", text="modern")
    with gateway.client("/servers/echo/mcp") as client:
        client.tool("echo", text="legacy")

The clients here are a few lines of Python that keep to the protocol; what real ones do is test_gateway_clients.py's matter."""
import contextlib
import ctypes
import http.client
import itertools
import json
import socket

from rig import rig

BOTH = "application/json, text/event-stream"
LEGACY, MODERN = "2025-11-25", "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"}}
_libc = ctypes.CDLL(None, use_errno=True)


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


class Refused(AssertionError):
    """No result: the HTTP status, and the error where the body is JSON-RPC."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body[:500]}")
        self.status, self.body, self.error = status, body, {}
        with contextlib.suppress(ValueError, KeyError, TypeError):
            self.error = json.loads(body)["error"]

    @property
    def retryable(self):
        return (self.error.get("data") or {}).get("retryable")


class Port:
    """One that the broker listens at. token: None = none is sent."""

    def __init__(self, address, token=None):
        self.rig = rig()
        host, port = address.split(":")
        self.place = (host, int(port))
        self.token = token

    def socket(self, timeout=30):
        with in_namespace(self.rig.env["RIG_HOST_NS"]):
            s = socket.socket()
        s.settimeout(timeout)
        # A request's head and body are two packets: the second one must not wait until the first one has been acknowledged.
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.connect(self.place)
        return s

    def connection(self, timeout=30):
        c = http.client.HTTPConnection(*self.place, timeout=timeout)
        c.sock = self.socket(timeout)
        return c

    def headers(self, **more):
        return {**({"Authorization": f"Bearer {self.token}"} if self.token else {}), **{k.replace("_", "-"): v for k, v in more.items()}}

    def request(self, method, path, body=None, timeout=30, **headers):
        """(status, headers, text) of one request on a connection of its own."""
        with contextlib.closing(self.connection(timeout)) as c:
            c.request(method, path, body, self.headers(**headers))
            answer = c.getresponse()
            return answer.status, answer.headers, answer.read().decode()

    def client(self, path="/mcp", **options):
        return Client(self, path, **options)

    def ask(self, path, method, params=None, timeout=30, name=None):
        """One request of a modern client: the result; Refused when there is none."""
        params = {**(params or {}), "_meta": {**META, **(params or {}).get("_meta", {})}}
        status, headers, text = self.request("POST", path, json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}), timeout,
                                             Content_Type="application/json", Accept=BOTH, MCP_Protocol_Version=MODERN, Mcp_Method=method,
                                             **({"Mcp_Name": name} if name else {}))
        answer = [m for m in messages(headers, text) if m.get("id") == 1] if status == 200 else []
        if not answer or "error" in answer[0]:
            raise Refused(status, json.dumps(answer[0]) if answer else text)
        return answer[0]["result"]

    def call(self, path, name, arguments=None, timeout=30, meta=None):
        """A modern client's tool call: the result."""
        return self.ask(path, "tools/call", {"name": name, "arguments": arguments or {}, "_meta": meta or {}}, timeout, name)

    def tool(self, path, name, **arguments):
        """A modern client's tool call: its text."""
        return text_of(self.call(path, name, arguments))

    def names(self, path="/mcp", kind="tools"):
        """Of a modern client's list."""
        return pages(lambda params: self.ask(path, f"{kind}/list", params), kind)


def text_of(result):
    if result.get("isError"):
        raise AssertionError(f"the tool says that it failed: {result}")
    return "".join(part.get("text", "") for part in result["content"])


def pages(ask, kind):
    found, cursor = [], {}
    while True:
        page = ask(cursor)
        found += [item["name"] for item in page[kind]]
        if "nextCursor" not in page:
            return found
        cursor = {"cursor": page["nextCursor"]}


def messages(headers, text):
    """What an answer holds, as plain JSON or as a stream that has ended."""
    if "text/event-stream" not in (headers.get("Content-Type") or ""):
        return [json.loads(text)] if text else []
    return [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:") and line[5:].strip()]


class Client:
    """A legacy session on one kept connection; requests one at a time."""

    def __init__(self, port, path, version=LEGACY, capabilities=None, timeout=30):
        self.port, self.path, self.numbers = port, path, itertools.count(1)
        self.connection = port.connection(timeout)
        self.session = None
        self.notes = []
        self.opened = self.request("initialize", {"protocolVersion": version, "capabilities": capabilities or {}, "clientInfo": {"name": "test", "version": "1"}})
        self.version = self.opened["protocolVersion"]
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, message):
        headers = self.port.headers(Content_Type="application/json", Accept=BOTH)
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
        return text_of(self.request("tools/call", {"name": name, "arguments": arguments}))

    def names(self, kind="tools"):
        return pages(lambda params: self.request(f"{kind}/list", params), kind)

    def end(self):
        headers = self.port.headers(Mcp_Session_Id=self.session, MCP_Protocol_Version=self.version)
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
