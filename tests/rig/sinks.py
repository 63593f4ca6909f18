#!/usr/bin/env python3
"""Listeners of the small internet: TCP ports that answer HTTP or echo, UDP ports that echo. Every contact is one JSON line in the log."""
import argparse
import asyncio
import json
import os
import socket
import time


class Log:
    def __init__(self, path):
        self.file = open(path, "a", buffering=1, encoding="utf-8")

    def note(self, protocol, local, peer, data=b""):
        self.file.write(json.dumps({"at": time.time(), "protocol": protocol, "to": local[0], "port": local[1],
                                    "from": peer[0], "data": data[:64].decode("latin-1")}) + "\n")


class Udp(asyncio.DatagramProtocol):
    def __init__(self, log):
        self.log = log

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.log.note("udp", self.transport.get_extra_info("sockname"), addr, data)
        self.transport.sendto(data, addr)


def tcp_handler(log):
    async def handle(reader, writer):
        local, peer = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        try:
            log.note("tcp", local, peer)
            while True:
                data = await asyncio.wait_for(reader.read(65536), 60)
                if not data:
                    break
                if data.startswith((b"GET ", b"HEAD ", b"POST ")):
                    body = f"far {local[0]}:{local[1]}\n".encode()
                    writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
                    await writer.drain()
                    break
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.TimeoutError, ValueError):
            pass
        finally:
            writer.close()
    return handle


def tcp_socket(port, family):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
    s.listen(128)
    return s


async def serve(args):
    log = Log(args.log)
    loop = asyncio.get_running_loop()
    for family in (socket.AF_INET, socket.AF_INET6):
        for port in args.tcp:
            await asyncio.start_server(tcp_handler(log), sock=tcp_socket(port, family))
    # UDP is bound address by address: from a wildcard socket the echo would leave with the address of the interface.
    for address in args.bind:
        for port in args.udp:
            await loop.create_datagram_endpoint(lambda: Udp(log), local_addr=(address, port))
    with open(args.ready, "w", encoding="utf-8") as f:
        f.write(f"{os.getpid()}\n")
    await asyncio.Event().wait()


def main():
    def ports(text):
        return [int(p) for p in text.split(",") if p]
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--log", required=True)
    p.add_argument("--ready", required=True)
    p.add_argument("--tcp", type=ports, default=[])
    p.add_argument("--bind", type=str.split, default=[], help="addresses of the UDP ports")
    p.add_argument("--udp", type=ports, default=[])
    asyncio.run(serve(p.parse_args()))


main()
