"""A stand-in for the broker: the other end of the controller's link, as the protocol has it and with nothing behind it.

    with Broker(host) as broker:
        stream = broker.stream("echo")
        stream.initialize()"""
import array
import json
import os
import pwd
import select
import socket
import time

from attached import Stream
from rig import rig


def connect(path, user):
    """A connection of that user's: the kernel notes who one is at this moment."""
    who = pwd.getpwnam(user)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.setegid(who.pw_gid)
    os.seteuid(who.pw_uid)
    try:
        link.connect(str(path))
    finally:
        os.seteuid(0)
        os.setegid(0)
    return link


class Broker:
    def __init__(self, host, user=None, synced=True):
        self.link = connect(host.settings["link.socket"], user or rig().env["RIG_BROKER"])
        self.hello, self.synced, self.ended = None, False, False
        self.pins, self.servers, self.gone, self.refused, self.streams, self.history = {}, {}, [], [], {}, []
        if synced:
            self.until("the catalogue", lambda: self.synced)

    def pump(self, seconds=0.0):
        """Takes what is there, and waits for the first of it so long."""
        while not self.ended and select.select([self.link], [], [], seconds)[0]:
            seconds = 0
            fds = array.array("i")
            try:
                data, ancillary, flags, _ = self.link.recvmsg(1 << 17, socket.CMSG_SPACE(8 * fds.itemsize))
            except ConnectionError:
                data, ancillary, flags = b"", [], 0
            for level, kind, payload in ancillary:
                assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
                fds.frombytes(payload)
            if not data:
                self.ended = True
                return
            assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) and len(data) <= 65536
            self._take(json.loads(data), list(fds))

    def _take(self, m, fds):
        kind, name = m.pop("kind"), m.get("name")
        assert len(fds) == (kind == "stream"), (kind, fds)
        self.history.append((kind, name, m))
        if kind == "hello":
            assert self.hello is None and len(self.history) == 1
            self.hello = m
        elif kind == "pins":
            self.pins.setdefault(name, []).extend(m["pins"])
        elif kind == "server":
            assert m["pinned"] or name not in self.pins
            m["pins"] = self.pins.pop(name, [])
            self.servers[name] = m
        elif kind == "gone":
            del self.servers[name]
            self.gone.append(name)
        elif kind == "synced":
            assert not self.synced
            self.synced = True
        elif kind == "stream":
            self.drop(name)
            self.streams[name] = (m["instance"], Stream(socket.socket(fileno=fds[0])))
        elif kind == "refused":
            self.refused.append((name, m["why"]))
        else:
            raise AssertionError(kind)

    def drop(self, name):
        if name in self.streams:
            self.streams.pop(name)[1].close()

    def until(self, what, check, seconds=20):
        end = time.monotonic() + seconds
        while True:
            self.pump(0.05)
            value = check()
            if value:
                return value
            if self.ended or time.monotonic() > end:
                raise AssertionError(f"{what}: not within {seconds} s{' (the link ended)' if self.ended else ''}; servers: {self.servers}, "
                                     f"streams: {list(self.streams)}, refused: {self.refused}")

    def readiness(self, name):
        return self.servers.get(name, {}).get("readiness")

    def up(self, name, seconds=20):
        """The entry of a server that may be called: for a stdio server, one whose stream is here."""
        def check():
            entry = self.servers.get(name)
            if not entry or entry["readiness"] != "up":
                return None
            if entry["transport"] == "stdio" and self.streams.get(name, (None,))[0] != entry["instance"]:
                return None
            return entry
        return self.until(f"{name} is up", check, seconds)

    def stream(self, name, seconds=20):
        self.up(name, seconds)
        return self.streams[name][1]

    def say(self, kind, name, **more):
        self.link.send(json.dumps({"kind": kind, "name": name, **more}).encode())

    def renew(self, name):
        self.say("renew", name, instance=self.streams[name][0])

    def close(self):
        for name in list(self.streams):
            self.drop(name)
        self.link.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
