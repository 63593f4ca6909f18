#!/usr/bin/env python3
"""For programs that send no token: everything sent to LISTEN goes on to TARGET with one.    add_token.py ADDRESS:PORT ADDRESS:PORT TOKEN

Requests are read as far as it takes to find their heads; answers are copied as they come. Ends with its standard input."""
import contextlib
import socket
import sys
import threading


def head_of(stream):
    """Up to and with the empty line; b"" at the end."""
    lines = []
    for line in stream:
        lines.append(line)
        if line == b"\r\n":
            return lines
    return []


def body_of(stream, lines):
    length, chunked = 0, False
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        chunked |= name.lower() == b"transfer-encoding"
    if not chunked:
        return stream.read(length)
    body = b""
    while True:
        size = stream.readline()
        chunk = stream.read(int(size.split(b";")[0], 16) + 2)
        body += size + chunk
        if chunk == b"\r\n":
            return body


def copy(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for s in (source, target):
        with contextlib.suppress(OSError):
            s.shutdown(socket.SHUT_RDWR)


def serve(client, target, token):
    with client, socket.create_connection(target) as server:
        for s in (client, server):
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = threading.Thread(target=copy, args=(server, client))
        answers.start()
        stream = client.makefile("rb")
        with contextlib.suppress(OSError):
            while lines := head_of(stream):
                server.sendall(lines[0] + b"Authorization: Bearer " + token + b"\r\n" + b"".join(lines[1:]) + body_of(stream, lines))
        # Whoever has sent all may still be waiting for its answer.
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)
        answers.join()


def main():
    listen, target = ((host, int(port)) for host, port in (a.split(":") for a in sys.argv[1:3]))
    listener = socket.create_server(listen, backlog=128)
    print("ready", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), listener.shutdown(socket.SHUT_RDWR)), daemon=True).start()
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=serve, args=(client, target, sys.argv[3].encode()), daemon=True).start()


main()
