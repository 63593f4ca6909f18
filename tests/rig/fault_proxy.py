#!/usr/bin/env python3
"""A proxy in front of a real Engine's unix socket that breaks one chosen call.

It understands where HTTP requests and answers end, so "call N" is an Engine call and not a packet, and it passes attach streams and endless
answers through untouched. What to break comes from the command line or, again and again, as JSON lines through a control socket:

    fault_proxy.py --listen P --upstream U --log L --control C [--at N --count all|mutations --action A --pid PID]
    {"at": 3, "count": "mutations", "action": "kill-after", "pid": 1234}    arms (counting starts anew) and answers {"ok": true}
    {"action": null}                                                       disarms
    {"query": true}                                                        answers {"calls": n, "fired": k, "armed": …}

Actions: kill-before (PID dies before the call is forwarded; it is not), kill-after (the Engine gets the call, PID dies, the answer is dropped),
kill-reply (PID dies when it has been sent the answer), cut-before, cut-after (the connection is closed instead), delay (SECONDS, then normal),
hang (nothing ever comes), garble (not HTTP), garble-body (HTTP, not JSON), error500, truncate (half the answer, properly framed), endless
(a 200 that never ends). "repeat" is how many counted calls from N on are hit (1; 0 = all). "match" is a regular expression that a call's
"METHOD path" must match to be counted. Each call is one JSON line in the log: n (counted calls so far), method, path, status, fault, ms.
"""

import argparse
import json
import os
import re
import select
import signal
import socket
import sys
import threading
import time

ACTIONS = ("kill-before", "kill-after", "kill-reply", "cut-before", "cut-after", "delay", "hang", "garble", "garble-body", "error500",
           "truncate", "endless")
HEADER_MAX = 1 << 20


class Closed(Exception):
    """One of the two sides closed its connection."""


class Plan:
    """Which call is to be broken, and how. Shared by all connections."""

    def __init__(self):
        self.lock = threading.Lock()
        self.arm({})

    def arm(self, fault):
        if fault.get("action") is not None and fault["action"] not in ACTIONS:
            raise ValueError(f"unknown action {fault['action']!r}")
        if (fault.get("action") or "").startswith("kill"):
            if not fault.get("pid") and not fault.get("pid_file"):
                raise ValueError("kill needs a pid or a pid_file")
        with self.lock:
            self.fault = dict(fault)
            self.match = re.compile(fault["match"]) if fault.get("match") else None
            self.calls = 0
            self.fired = 0

    def take(self, method, path):
        """Counts a call; (its number, the fault for it or None)."""
        with self.lock:
            fault = self.fault
            if fault.get("count", "all") == "mutations" and method in ("GET", "HEAD"):
                return self.calls, None
            if self.match and not self.match.search(f"{method} {path}"):
                return self.calls, None
            self.calls += 1
            at, repeat = int(fault.get("at", 1)), int(fault.get("repeat", 1))
            if not fault.get("action") or self.calls < at or (repeat and self.calls >= at + repeat):
                return self.calls, None
            self.fired += 1
            return self.calls, fault

    def state(self):
        with self.lock:
            return {"calls": self.calls, "fired": self.fired, "armed": self.fault.get("action")}


class Side:
    """One end of a proxied connection, with what was read and not used yet. `other` is watched for its end while we wait."""

    def __init__(self, sock):
        self.sock = sock
        self.have = b""
        self.other = None

    def more(self):
        while True:
            watch = [self.sock] + ([self.other.sock] if self.other and not self.other.have else [])
            ready, _, _ = select.select(watch, [], [])
            if self.sock in ready:
                data = self.sock.recv(65536)
                if not data:
                    raise Closed
                self.have += data
                return
            early = self.other.sock.recv(65536)
            if not early:
                raise Closed
            self.other.have += early

    def head(self):
        while b"\r\n\r\n" not in self.have:
            if len(self.have) > HEADER_MAX:
                raise Closed
            self.more()
        head, self.have = self.have.split(b"\r\n\r\n", 1)
        return head + b"\r\n\r\n"

    def exactly(self, n):
        """Yields n bytes in pieces as they come."""
        while n > 0:
            if not self.have:
                self.more()
            piece, self.have = self.have[:n], self.have[n:]
            n -= len(piece)
            yield piece

    def line(self):
        while b"\n" not in self.have:
            self.more()
        line, self.have = self.have.split(b"\n", 1)
        return line + b"\n"

    def chunked(self):
        """Yields a chunked body with its framing, as it came."""
        while True:
            size = self.line()
            yield size
            n = int(size.split(b";")[0], 16)
            if n == 0:
                while True:
                    trailer = self.line()
                    yield trailer
                    if trailer in (b"\r\n", b"\n"):
                        return
            yield from self.exactly(n + 2)

    def rest(self):
        """Everything until the end."""
        try:
            while True:
                if self.have:
                    piece, self.have = self.have, b""
                    yield piece
                self.more()
        except Closed:
            return


def header(head, name):
    m = re.search(rb"(?im)^" + name.encode() + rb":[ \t]*(.*?)\r?$", head)
    return m.group(1).decode("latin-1").lower() if m else ""


def body(side, head, is_answer, status=0, method=""):
    if is_answer and (method == "HEAD" or status in (204, 304) or 100 <= status < 200):
        return iter(())
    if "chunked" in header(head, "Transfer-Encoding"):
        return side.chunked()
    length = header(head, "Content-Length")
    if length:
        return side.exactly(int(length))
    return side.rest() if is_answer else iter(())


def plain(side, head, status, method):
    """A whole answer's body without its framing."""
    if "chunked" not in header(head, "Transfer-Encoding"):
        return b"".join(body(side, head, True, status, method))
    data, pieces = b"", side.chunked()
    framed = b"".join(pieces)
    while framed:
        size, framed = framed.split(b"\r\n", 1)
        n = int(size.split(b";")[0], 16)
        if n == 0:
            break
        data, framed = data + framed[:n], framed[n + 2:]
    return data


def answer(status, data):
    return (b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status.encode(), len(data))) + data


def kill(fault):
    pid = fault.get("pid")
    if not pid:
        with open(fault["pid_file"], encoding="ascii") as f:
            pid = int(f.read().strip())
    try:
        os.kill(int(pid), signal.SIGKILL)
    except ProcessLookupError:
        pass


class Connection(threading.Thread):
    def __init__(self, proxy, sock):
        super().__init__(daemon=True)
        self.proxy = proxy
        self.client = Side(sock)
        self.upstream = None

    def run(self):
        try:
            while self.one_call():
                pass
        except (Closed, OSError, ValueError):
            pass
        finally:
            for side in (self.client, self.upstream):
                if side:
                    side.sock.close()

    def connect(self):
        if self.upstream is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect(self.proxy.upstream)
            self.upstream = Side(sock)
            self.upstream.other = self.client

    def one_call(self):
        head = self.client.head()
        data = b"".join(body(self.client, head, False))
        method, path = (head.split(b"\r\n", 1)[0].decode("latin-1").split(" ") + ["", ""])[:2]
        n, fault = self.proxy.plan.take(method, path)
        record = {"n": n, "method": method, "path": path, "status": 0, "fault": fault["action"] if fault else None}
        begin = time.monotonic()
        try:
            return self.exchange(head + data, method, fault, record)
        finally:
            record["ms"] = round((time.monotonic() - begin) * 1000, 1)
            self.proxy.log(record)

    def exchange(self, request, method, fault, record):
        action = fault["action"] if fault else None
        if action == "kill-before":
            kill(fault)
            return False
        if action == "cut-before":
            return False
        if action == "delay":
            time.sleep(float(fault.get("delay", 1)))
        if action in ("hang", "garble", "error500", "endless"):
            return self.instead(action)
        self.connect()
        self.upstream.sock.sendall(request)
        if action == "kill-after":
            self.upstream.other = None  # the client's death must not keep the Engine from doing the call
            kill(fault)
        if action == "cut-after":
            self.upstream.other = None
        head = self.upstream.head()
        while head.split(b" ")[1] == b"100":
            self.client.sock.sendall(head)
            head = self.upstream.head()
        status = record["status"] = int(head.split(b" ")[1])
        if action in ("kill-after", "cut-after", "truncate", "garble-body") and "/events" in record["path"]:
            return self.break_events(action, head)
        if action in ("kill-after", "cut-after"):
            for _ in body(self.upstream, head, True, status, method):
                pass
            return False
        if action in ("truncate", "garble-body"):
            data = plain(self.upstream, head, status, method)
            data = data[: len(data) // 2] if action == "truncate" else b'{"garbage\x00\xff' + data[:20]
            line = head.split(b"\r\n", 1)[0].split(b" ", 1)[1].decode("latin-1")
            self.client.sock.sendall(answer(line, data))
            return True
        if action == "kill-reply" and status == 101:  # a stream may last for ever: its beginning is the reply
            self.client.sock.sendall(head)
            kill(fault)
            return False
        keep = self.pass_on(head, status, method)
        if action == "kill-reply":
            kill(fault)
        return keep

    def break_events(self, action, head):
        """An event stream has no end to wait for: it begins (unless it was to be cut or killed at once), says something broken, and ends."""
        if action in ("truncate", "garble-body"):
            data = b'{"Type":"container","Act' if action == "truncate" else b"\x00garbage\xff\n"
            self.client.sock.sendall(head + b"%x\r\n%s\r\n" % (len(data), data))
        return False

    def pass_on(self, head, status, method):
        self.client.sock.sendall(head)
        if status == 101 or "docker.raw-stream" in header(head, "Content-Type") or "docker.multiplexed-stream" in header(head, "Content-Type"):
            self.hijacked()
            return False
        for piece in body(self.upstream, head, True, status, method):
            self.client.sock.sendall(piece)
        framed = header(head, "Content-Length") or "chunked" in header(head, "Transfer-Encoding") or status in (204, 304)
        return bool(framed) and header(head, "Connection") != "close"

    def hijacked(self):
        """Both ways until both have ended; a half-close is passed on as one."""
        ends = {self.client.sock: self.upstream.sock, self.upstream.sock: self.client.sock}
        for side, to in ((self.client, self.upstream), (self.upstream, self.client)):
            if side.have:
                to.sock.sendall(side.have)
                side.have = b""
        while ends:
            ready, _, _ = select.select(list(ends), [], [])
            for sock in ready:
                data = sock.recv(65536)
                if data:
                    ends[sock].sendall(data)
                    continue
                try:
                    ends[sock].shutdown(socket.SHUT_WR)
                except OSError:
                    pass
                del ends[sock]

    def instead(self, action):
        """The Engine never hears of the call."""
        sock = self.client.sock
        if action == "garble":
            sock.sendall(b"\x16\x03\x01\x02\x00 this is not HTTP \xff\xfe\r\n\r\n")
            return False
        if action == "error500":
            sock.sendall(answer("500 Internal Server Error", b'{"message":"fault injected by the test"}\n'))
            return True
        if action == "endless":
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                sock.sendall(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
        while sock.recv(65536):
            pass
        return False


class Proxy:
    def __init__(self, listen, upstream, log_path=None):
        self.upstream = upstream
        self.plan = Plan()
        self.lock = threading.Lock()
        self.log_file = open(log_path, "a", encoding="utf-8", buffering=1) if log_path else None
        self.server = self.bind(listen)

    @staticmethod
    def bind(path):
        if os.path.exists(path):
            os.unlink(path)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(path)
        os.chmod(path, 0o666)
        server.listen(128)
        return server

    def log(self, record):
        if self.log_file:
            with self.lock:
                self.log_file.write(json.dumps(record) + "\n")

    def serve(self):
        while True:
            try:
                sock, _ = self.server.accept()
            except OSError:
                return
            Connection(self, sock).start()

    def control(self, path):
        server = self.bind(path)
        while True:
            sock, _ = server.accept()
            threading.Thread(target=self.control_one, args=(sock,), daemon=True).start()

    def control_one(self, sock):
        with sock, sock.makefile("rw", encoding="utf-8") as f:
            for line in f:
                try:
                    wish = json.loads(line)
                    if not wish.get("query"):
                        self.plan.arm(wish)
                    reply = {"ok": True, **self.plan.state()}
                except (ValueError, re.error, AttributeError) as e:
                    reply = {"ok": False, "why": str(e)}
                f.write(json.dumps(reply) + "\n")
                f.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--log")
    parser.add_argument("--control")
    parser.add_argument("--at", type=int, default=1)
    parser.add_argument("--count", choices=("all", "mutations"), default="all")
    parser.add_argument("--match")
    parser.add_argument("--action", choices=ACTIONS)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--delay", type=float, default=1)
    parser.add_argument("--pid", type=int)
    parser.add_argument("--pid-file")
    args = parser.parse_args()
    proxy = Proxy(args.listen, args.upstream, args.log)
    try:
        proxy.plan.arm({k: v for k, v in vars(args).items() if k not in ("listen", "upstream", "log", "control")})
    except ValueError as e:
        sys.exit(str(e))
    if args.control:
        threading.Thread(target=proxy.control, args=(args.control,), daemon=True).start()
    print("ready", flush=True)
    proxy.serve()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
