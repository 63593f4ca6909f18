"""A proxy in front of the real Engine that breaks one chosen call (tests/rig/fault_proxy.py), and a scripted Engine for answers that a real one will not give."""
import http.server
import json
import os
import pathlib
import socket
import socketserver
import subprocess
import threading

from rig import TOP, eventually


class FaultProxy:
    def __init__(self, rig, name):
        folder = rig.run_dir / "instances"
        folder.mkdir(exist_ok=True)
        self.listen, self.control, self.log = (folder / f"{name}.{end}" for end in ("sock", "ctl", "log"))
        self.process = subprocess.Popen(["/usr/bin/python3", str(TOP / "tests/rig/fault_proxy.py"), "--listen", str(self.listen), "--upstream", rig.engine_socket,
                                         "--log", str(self.log), "--control", str(self.control)], stdout=subprocess.PIPE, start_new_session=True)
        self.process.stdout.readline()
        eventually("the fault proxy's control socket", 5, self.control.exists)

    def _tell(self, wish):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(10)
            s.connect(str(self.control))
            s.sendall(json.dumps(wish).encode() + b"\n")
            reply = json.loads(s.makefile().readline())
        if not reply["ok"]:
            raise AssertionError(f"fault proxy: {reply}")
        return reply

    def arm(self, action, at=1, count="all", **more):
        self._tell({"action": action, "at": at, "count": count, **more})

    def disarm(self):
        self._tell({"action": None})

    def fired(self):
        return self._tell({"query": True})["fired"]

    def calls(self):
        return self._tell({"query": True})["calls"]

    def last_calls(self, n=5):
        return [f"{c['method']} {c['path'][:60]} {c['status']} {c['fault'] or ''}" for c in map(json.loads, self.log.read_text().splitlines()[-n:])]

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        for path in (self.listen, self.control, self.log):
            path.unlink(missing_ok=True)


class ScriptedEngine:
    """Gives every call the same answer. An Engine only by its socket."""

    def __init__(self, path, status=200, body=b"{}", headers=None):
        self.path, self.calls = pathlib.Path(path), []
        script = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                script.calls.append(f"{self.command} {self.path}")
                self.send_response(script.status)
                for k, v in (script.headers or {}).items():
                    self.send_header(k, v)
                self.send_header("Content-Length", str(len(script.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(script.body)

            do_GET = do_POST = do_DELETE = do_HEAD = answer

            def log_message(self, *args):
                pass

            def address_string(self):
                return "unix"

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

            def get_request(self):
                request, _ = super().get_request()
                return request, ("unix", 0)

        self.status, self.body, self.headers = status, body, headers
        self.path.unlink(missing_ok=True)
        self.server = Server(str(self.path), Handler)
        os.chmod(self.path, 0o666)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.path.unlink(missing_ok=True)
