#!/usr/bin/env python3
"""The attempts of docs/egress.md that must fail, made from inside one network namespace. Only the standard library; no knowledge of the host.

    nsenter --net=/proc/PID/ns/net python3 egress_probe.py --targets targets.json            every attempt, one JSON line each
    ... egress_probe.py --targets targets.json --serve                                        names on stdin, one JSON line each

Whether a packet got through is for a counter on the far side to say; the result here only tells what the sender saw:
connected, reply, refused, unreachable, timeout, sent (nothing can be heard back), eperm, failed.

targets: {"device", "address", "gateway", "listed", "listed_port", "udp_listed", "udp_port", "unlisted", "resolver", "metadata": [...], "metadata6": [...],
          "host": [...], "host_ports": [...], "sibling", "sibling_port", "sibling_mac", "sibling_listed", "global6", "source6"}
"""
import argparse
import errno
import json
import socket
import struct
import sys
import time

WAIT = 0.25


def outcome(error):
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "timeout"
    number = getattr(error, "errno", None)
    if number in (errno.ECONNREFUSED, errno.ECONNRESET):
        return "refused"
    if number in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES):
        return "unreachable"
    if number == errno.EPERM:
        return "eperm"
    return "failed: %s" % error


def tcp(address, port, family=socket.AF_INET, data=b"ping"):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(WAIT)
        try:
            s.connect((address, port))
            s.sendall(data)
            return "reply" if s.recv(16) else "connected"
        except OSError as e:
            return outcome(e)


def udp(address, port, family=socket.AF_INET, data=b"ping"):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(WAIT)
        try:
            s.connect((address, port))
            s.send(data)
            return "reply" if s.recv(16) else "failed"
        except OSError as e:
            return outcome(e)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_header(source, destination, protocol, length, ident=7, offset=0, more=False):
    fragment = (0x2000 if more else 0) | offset // 8
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + length, ident, fragment, 64, protocol, 0, socket.inet_aton(source), socket.inet_aton(destination))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:]


def l4(source, destination, protocol, head, at):
    pseudo = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!BBH", 0, protocol, len(head))
    return head[:at] + struct.pack("!H", checksum(pseudo + head)) + head[at + 2:]


def tcp_syn(source, destination, port):
    return l4(source, destination, 6, struct.pack("!HHIIBBHHH", 40123, port, 1, 0, 5 << 4, 2, 1024, 0, 0), 16)


def udp_datagram(source, destination, port, data=b"ping"):
    return l4(source, destination, 17, struct.pack("!HHHH", 40123, port, 8 + len(data), 0) + data, 6)


def raw_ip(*packets):
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
            for packet in packets:
                s.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
        return "sent"
    except OSError as e:
        return outcome(e)


def raw_protocol(address, protocol, data):
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as s:
            s.sendto(data, (address, 0))
        return "sent"
    except OSError as e:
        return outcome(e)


def ping(address):
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as s:
            s.settimeout(WAIT)
            echo = struct.pack("!BBHHH", 8, 0, 0, 77, 1) + b"egress"
            s.sendto(echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:], (address, 0))
            end = time.monotonic() + WAIT
            while time.monotonic() < end:
                packet, source = s.recvfrom(200)
                if source[0] == address and packet[20] == 0:
                    return "reply"
            return "timeout"
    except OSError as e:
        return outcome(e)


def frame(t, destination, kind, payload):
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) as s:
            s.bind((t["device"], 0))
            own = s.getsockname()[4]
            s.send((destination or gateway_mac(t)) + own + struct.pack("!H", kind) + payload)
        return "sent"
    except OSError as e:
        return outcome(e)


def gateway_mac(t):
    udp(t["gateway"], 9)  # fills the neighbour table
    with open("/proc/net/arp") as f:
        for line in f:
            fields = line.split()
            if fields[0] == t["gateway"]:
                return bytes.fromhex(fields[3].replace(":", ""))
    return b"\xff" * 6


def arp(t, address):
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as s:
            s.bind((t["device"], 0))
            own = s.getsockname()[4]
            s.settimeout(WAIT)
            s.send(b"\xff" * 6 + own + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + own + socket.inet_aton(t["address"]) + b"\0" * 6 +
                   socket.inet_aton(address))
            end = time.monotonic() + WAIT
            while time.monotonic() < end:
                reply = s.recv(64)
                if reply[20:22] == b"\0\2" and reply[28:32] == socket.inet_aton(address):
                    return "reply"
            return "timeout"
    except OSError as e:
        return outcome(e)


def fragments(t, protocol, whole, first):
    destination = t["listed"]
    return raw_ip(ip_header(t["address"], destination, protocol, first, more=True) + whole[:first],
                  ip_header(t["address"], destination, protocol, len(whole) - first, offset=first) + whole[first:])


def every_port(t):
    """Plain connects, many at a time."""
    worst = "refused"
    for port in t["host_ports"]:
        got = tcp(t["gateway"], port)
        if got in ("reply", "connected"):
            worst = got
        if udp(t["gateway"], port) == "reply":
            worst = "reply"
    return worst


def router_advertisement(t):
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as s:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            scope = socket.if_nametoindex(t["device"])
            s.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, scope))
        return "sent"
    except OSError as e:
        return outcome(e)


def link_local(t):
    """The router at the other end of the link, if it answers at all."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as s:
            s.settimeout(WAIT)
            scope = socket.if_nametoindex(t["device"])
            s.sendto(struct.pack("!BBHHH", 128, 0, 0, 78, 1), ("ff02::2", 0, 0, scope))
            end = time.monotonic() + WAIT
            while time.monotonic() < end:
                if s.recv(100)[0] == 129:
                    return "reply"
            return "timeout"
    except OSError as e:
        return outcome(e)


def each(results):
    results = list(results)
    for good in ("reply", "connected", "sent"):
        if good in results:
            return good
    return results[0] if results else "failed"


def spoofed(t, source, destination, port):
    return raw_ip(ip_header(source, destination, 6, 20) + tcp_syn(source, destination, port))


def sixto4(t):
    inner = ip_header(t["address"], t["unlisted"], 17, 12) + udp_datagram(t["address"], t["unlisted"], 443)
    return each([raw_protocol(t["unlisted"], 41, inner), raw_protocol(t["listed"], 4, inner)])


ATTEMPTS = {
    "1-tcp-unlisted-address": lambda t: tcp(t["unlisted"], t["listed_port"]),
    "2-tcp-unlisted-port": lambda t: tcp(t["listed"], 8443),
    "3-udp-443": lambda t: udp(t["listed"], t["listed_port"]),
    "4-icmp-echo": lambda t: ping(t["listed"]),
    "5-sctp": lambda t: raw_protocol(t["listed"], 132, struct.pack("!HHII", 40000, t["listed_port"], 0, 0)),
    "5-gre": lambda t: raw_protocol(t["listed"], 47, b"\0\0\x08\0" + b"x" * 20),
    "5-protocol-200": lambda t: raw_protocol(t["listed"], 200, b"x" * 20),
    "6-packet-socket": lambda t: frame(t, None, 0x0800, ip_header(t["address"], t["unlisted"], 17, 12) + udp_datagram(t["address"], t["unlisted"], 443)),
    "6-raw-socket": lambda t: raw_ip(ip_header(t["address"], t["unlisted"], 17, 12) + udp_datagram(t["address"], t["unlisted"], 443)),
    "7-dns-udp": lambda t: udp(t["resolver"], 53),
    "7-dns-tcp": lambda t: tcp(t["resolver"], 53),
    "10-dns-over-tls": lambda t: tcp(t["resolver"], 853),
    "12-metadata": lambda t: each(tcp(a, 80) for a in t["metadata"]),
    "12-metadata-v6": lambda t: each(tcp(a, 80, socket.AF_INET6) for a in t["metadata6"]),
    "13-gateway-ports": every_port,
    "14-host-addresses": lambda t: each(r for a in t["host"] for r in (tcp(a, t["host_ports"][0]), udp(a, t["host_ports"][0]))),
    "15-sibling-tcp": lambda t: tcp(t["sibling"], t["sibling_port"]),
    "15-sibling-udp": lambda t: udp(t["sibling"], t["sibling_port"]),
    "15-sibling-frame": lambda t: frame(t, bytes.fromhex(t["sibling_mac"].replace(":", "")), 0x0800, ip_header(t["address"], t["sibling"], 17, 12) +
                                        udp_datagram(t["address"], t["sibling"], t["sibling_port"])),
    "16-ipv6-tcp": lambda t: tcp(t["global6"], 443, socket.AF_INET6),
    "16-ipv6-udp": lambda t: udp(t["global6"], 443, socket.AF_INET6),
    "16-ipv6-link-local": link_local,
    "16-router-advertisement": router_advertisement,
    "17-6to4-and-ipip": sixto4,
    "18-spoofed-sibling": lambda t: spoofed(t, t["sibling"], t["sibling_listed"], t["listed_port"]),
    "18-spoofed-foreign": lambda t: spoofed(t, "203.0.113.99", t["listed"], t["listed_port"]),
    "19-tcp-tiny-fragment": lambda t: fragments(t, 6, tcp_syn(t["address"], t["listed"], 8443), 8),
    "19-udp-fragments": lambda t: fragments(t, 17, udp_datagram(t["address"], t["listed"], 443, b"x" * 100), 24),
}
# What a container without capabilities cannot even send.
NEEDS_RAW = {"4-icmp-echo", "5-sctp", "5-gre", "5-protocol-200", "6-packet-socket", "6-raw-socket", "15-sibling-frame", "16-ipv6-link-local",
             "16-router-advertisement", "17-6to4-and-ipip", "18-spoofed-sibling", "18-spoofed-foreign", "19-tcp-tiny-fragment", "19-udp-fragments"}

ALLOWED = {
    "allowed-tcp": lambda t: tcp(t["listed"], t["listed_port"]),
    "allowed-tcp-large": lambda t: large(t),
    "allowed-udp": lambda t: udp(t["udp_listed"], t["udp_port"]),
}


def large(t):
    with socket.create_connection((t["listed"], t["listed_port"]), 1) as s:
        s.settimeout(2)
        left = 1 << 20
        s.sendall(b"x" * left)
        s.shutdown(socket.SHUT_WR)
        while left > 0:
            data = s.recv(65536)
            if not data:
                return "failed: cut"
            left -= len(data)
    return "reply"


def run(name, targets):
    start = time.monotonic()
    try:
        got = (ATTEMPTS.get(name) or ALLOWED[name])(targets)
    except Exception as e:  # the result is for the caller to judge
        got = outcome(e)
    print(json.dumps({"attempt": name, "got": got, "ms": int((time.monotonic() - start) * 1000)}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", required=True)
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    with open(arguments.targets) as f:
        targets = json.load(f)
    if arguments.serve:
        for line in sys.stdin:
            run(line.strip(), targets)
    else:
        for name in arguments.names or list(ALLOWED) + list(ATTEMPTS):
            run(name, targets)


if __name__ == "__main__":
    main()
