#!/usr/bin/env -S python3 -B
"""TLS in front of a server that speaks plain HTTP, and certificates for it: good ones and others.

    tls_front.py LISTEN-PORT SERVER-PORT CERTIFICATE KEY
"""
import pathlib
import select
import socket
import ssl
import subprocess
import sys
import threading


def openssl(*argv, data=None):
    return subprocess.run(["openssl", *map(str, argv)], input=data, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE).stdout


class Authority:
    """One of our own, in a folder."""

    def __init__(self, folder, name):
        self.folder, self.name = pathlib.Path(folder), name
        self.certificate, self.key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-days", "2",
                "-addext", "keyUsage=critical,keyCertSign", "-keyout", self.key, "-out", self.certificate)

    def issue(self, name, *names, days=1):
        """A certificate for DNS names and addresses: its file and that of its key."""
        certificate, key, request, more = (self.folder / f"{name}.{ending}" for ending in ("pem", "key", "csr", "ext"))
        more.write_text("subjectAltName=" + ",".join(("IP:" if n[0].isdigit() else "DNS:") + n for n in names) + "\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-days", days, "-extfile", more, "-out", certificate)
        return certificate, key


def pin(certificate):
    """Of its public key, as tls_pins has it."""
    key = openssl("pkey", "-pubin", "-outform", "der", data=openssl("x509", "-in", certificate, "-noout", "-pubkey"))
    return "sha256//" + openssl("base64", data=openssl("dgst", "-sha256", "-binary", data=key)).decode().strip()


class Front:
    def __init__(self, port, server_port, certificate, key):
        self.server_port = server_port
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.context.sni_callback = lambda _sock, name, _context: self.names.append(name)
        self.names, self.connections, self.bytes = [], 0, 0  # what was asked for; completed handshakes; what came over them
        self.cut_after = None  # bytes of answers, then the connection ends without a word
        self.live = set()
        self.gate = threading.Event()  # cleared: handshakes wait
        self.gate.set()
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                raw = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.talk, args=(raw,), daemon=True).start()

    def talk(self, raw):
        self.gate.wait()
        try:
            outside = self.context.wrap_socket(raw, server_side=True)
        except (ssl.SSLError, OSError):
            raw.close()
            return
        self.connections += 1
        self.live.add(outside)
        try:
            with socket.create_connection(("127.0.0.1", self.server_port)) as inside:
                self.pass_on(outside, inside)
        except (ssl.SSLError, OSError):
            pass
        self.live.discard(outside)
        outside.close()

    def pass_on(self, outside, inside):
        answered = 0
        while True:
            ready = [outside] if outside.pending() else select.select([outside, inside], [], [])[0]
            if outside in ready:
                data = outside.recv(65536)
                self.bytes += len(data)
                if not data:
                    return
                inside.sendall(data)
            if inside in ready:
                data = inside.recv(65536)
                if not data:
                    outside.unwrap()
                    return
                answered += len(data)
                if self.cut_after is not None and answered > self.cut_after:
                    outside.sendall(data[:self.cut_after])
                    return
                outside.sendall(data)

    def cut(self):
        """Every connection, without a word of TLS."""
        for s in list(self.live):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended meanwhile

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()


if __name__ == "__main__":
    Front(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
    threading.Event().wait()
