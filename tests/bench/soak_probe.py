#!/usr/bin/env python3
"""Sends, without end and about twice a millisecond, what must not arrive: run inside a server's network namespace with every capability, as if a
server had broken out of its process. argv: UNLISTED LISTED RESOLVER OWN-ADDRESS. Only the standard library."""
import errno
import os
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integration"))
from egress_probe import checksum, ip_header, udp_datagram  # noqa: E402


def sockets():
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for s in (udp, icmp, raw):
        s.setblocking(False)
    return udp, icmp, raw


def connect(address, port):
    """One SYN and no waiting."""
    s = socket.socket()
    s.setblocking(False)
    if s.connect_ex((address, port)) not in (0, errno.EINPROGRESS):
        pass
    return s


def main():
    unlisted, listed, resolver, own = sys.argv[1:5]
    udp, icmp, raw = sockets()
    echo = struct.pack("!BBHHH", 8, 0, 0, 77, 1) + b"soak"
    echo = echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]
    spoofed = udp_datagram("10.213.255.2", unlisted, 443)
    spoofed = ip_header("10.213.255.2", unlisted, 17, len(spoofed)) + spoofed
    fragment = ip_header(own, unlisted, 17, 16, more=True) + b"\0" * 16
    attempts = [lambda: udp.sendto(b"soak", (unlisted, 443)), lambda: udp.sendto(b"soak", (resolver, 53)), lambda: udp.sendto(b"soak", (listed, 443)),
                lambda: icmp.sendto(echo, (unlisted, 0)), lambda: raw.sendto(spoofed, (unlisted, 0)), lambda: raw.sendto(fragment, (unlisted, 0))]
    half_open = []
    while True:
        for attempt in attempts:
            try:
                attempt()
            except OSError:
                pass
        time.sleep(0.004)
        for address, port in ((unlisted, 443), (listed, 80)):
            half_open.append(connect(address, port))
        while len(half_open) > 32:
            half_open.pop(0).close()


if __name__ == "__main__":
    main()
