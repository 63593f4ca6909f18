"""An MCP client over the Engine's attach stream: talks to a running stdio server as the gateway will, so that tests see what the server's own process sees."""
import http.client
import json
import socket
import struct


class Attached:
    """Owns the stream. The server's standard input ends with it: a stdio server then ends as well, and the controller starts it anew."""

    def __init__(self, engine_socket, container, timeout=30):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(engine_socket)
        self.socket.sendall(f"POST /containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: engine\r\n"
                            "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode())
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise http.client.HTTPException(head.decode())
        self.lines, self.stderr, self.next_id = b"", b"", 1
        self.request("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}})
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"the server ended; stderr: {getattr(self, 'stderr', b'')[-500:]!r}")
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

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
