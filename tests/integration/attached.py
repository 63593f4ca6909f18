"""An MCP client over a stdio server's stream: talks to a running one as the gateway will, so that tests see what the server's own process sees."""
import http.client
import json
import socket
import struct


class Stream:
    """The Engine's attach stream after its 101: frames from the server, bare bytes to it. Owns the socket. The server's standard input ends with it."""

    def __init__(self, stream, buffer=b"", timeout=30):
        self.socket = stream
        self.socket.settimeout(timeout)
        self.buffer, self.lines, self.stderr, self.next_id = buffer, b"", b"", 1

    def initialize(self):
        self.request("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}})
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return self

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"the server ended; stderr: {self.stderr[-500:]!r}")
        self.buffer += data

    def _exactly(self, n):
        while len(self.buffer) < n:
            self._more()
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def _line(self):
        while b"\n" not in self.lines:
            stream, length = struct.unpack(">BxxxL", self._exactly(8))
            data = self._exactly(length)
            if stream == 2:
                self.stderr += data
            else:
                self.lines += data
        line, _, self.lines = self.lines.partition(b"\n")
        return line

    def _send(self, message):
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def request(self, method, params):
        number, self.next_id = self.next_id, self.next_id + 1
        self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        while True:
            answer = json.loads(self._line())
            if answer.get("id") == number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def tool(self, name, **arguments):
        """(text, whether it says that it failed)"""
        result = self.request("tools/call", {"name": name, "arguments": arguments})
        return "".join(part.get("text", "") for part in result["content"]), bool(result.get("isError"))

    def rest(self, seconds):
        """Every byte until the other side closes, which it must within that time."""
        self.socket.settimeout(seconds)
        data, self.buffer = self.buffer, b""
        try:
            while piece := self.socket.recv(65536):
                data += piece
        except ConnectionError:
            pass
        return data

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Attached(Stream):
    """One of our own making, beside the controller's back: when it is closed the server ends, and the controller starts it anew."""

    def __init__(self, engine_socket, container, timeout=30):
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(timeout)
        stream.connect(engine_socket)
        stream.sendall(f"POST /containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: engine\r\n"
                       "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode())
        super().__init__(stream, timeout=timeout)
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise http.client.HTTPException(head.decode())
        self.initialize()
