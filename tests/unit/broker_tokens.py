#!/usr/bin/env -S python3 -B
"""The door for agents: tokens. Whatever does not count is answered alike at every route, byte by byte, and nothing is learned from it."""
import base64
import hashlib
import hmac
import json
import os
import pathlib
import socket
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import broker_agents as agents
from broker_process import INITIALIZE, NOBODY, eventually, free_port

BODY = json.dumps(INITIALIZE).encode()
JSON_LINES = ("Content-Type: application/json", "Accept: application/json, text/event-stream")
ROUTES = (("POST", "/mcp"), ("GET", "/mcp"), ("DELETE", "/mcp"), ("HEAD", "/mcp"), ("OPTIONS", "/mcp"), ("POST", "/v1/search"), ("POST", "/v1/describe"), ("POST", "/v1/load"),
          ("POST", "/v1/call"), ("POST", "/v1/pending"), ("GET", "/v1/call"), ("POST", "/v1/nothing"), ("POST", "/v1"), ("GET", "/"), ("POST", "/servers/echo/mcp"), ("POST", "/servers/nobody/mcp"),
          ("GET", "/metrics"), ("POST", "/nothing"), ("GET", "/.well-known/oauth-authorization-server"), ("GET", "/.well-known/oauth-protected-resource/servers/echo/mcp"))


def encoded(data):
    return base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data, separators=(",", ":")).encode()).decode().rstrip("=")


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Tokens(agents.AgentTest):
    def refusal(self, method, path, *lines):
        status, answer = self.raw(method, path, (*JSON_LINES, *lines), BODY)
        self.assertEqual(status, 401, (method, path, lines, answer))
        return answer

    def other_signer(self, name, **changes):
        """A command line of another host's, or with other keys."""
        conf = json.loads(self.conf.read_text())
        conf.update(changes)
        path = self.dir / name
        path.write_text(json.dumps(conf))
        return path

    def token_by(self, conf, agent, *argv):
        before, self.conf = self.conf, conf
        try:
            return self.cli("token", agent, "--run", "r", *argv)
        finally:
            self.conf = before

    def signed_elsewhere(self):
        """Good signatures that are not for us: another key, another host."""
        own = {"file": str(self.dir / "theirs.json"), "key": str(self.dir / "theirs.key")}
        theirs = self.other_signer("theirs.conf", agents=own)
        before, self.conf = self.conf, theirs
        self.cli("agent", "add", "bob")
        self.conf = before
        foreign = self.token_by(theirs, "bob")
        key = self.tokens["bob"].split(".")[1]
        yield "another's key", foreign
        yield "another's key under our key's name", ".".join(["bh1", key, *foreign.split(".")[2:]])
        yield "another host", self.token_by(self.other_signer("host.conf", audience="other.example"), "bob")
        yield "a host whose name begins as ours", self.token_by(self.other_signer("long.conf", audience="test.example.org"), "bob")
        yield "our host in capitals", self.token_by(self.other_signer("upper.conf", audience="TEST.EXAMPLE"), "bob")

    def forged(self):
        good = self.tokens["bob"]
        prefix, key, payload, signature = good.split(".")
        claims = json.loads(decoded(payload))
        for name, changes in (("other agent", {"agent": "alice"}), ("later end", {"exp": claims["exp"] + 9999}), ("other audience", {"aud": "other"}), ("other run", {"run": "x"}),
                              ("more claims", {"admin": True})):
            yield name, f"{prefix}.{key}.{encoded({**claims, **changes})}.{signature}"
        yield "the same claims in other words", f"{prefix}.{key}.{encoded(json.dumps(claims).encode())}.{signature}"
        yield from (("other key", f"{prefix}.{'0' * 16}.{payload}.{signature}"), ("other version", f"bh2.{key}.{payload}.{signature}"), ("no signature", f"{prefix}.{key}.{payload}."),
                    ("zero signature", f"{prefix}.{key}.{payload}.{encoded(bytes(64))}"), ("parts changed about", f"{prefix}.{key}.{signature}.{payload}"),
                    ("upper", good.upper()), ("padded", good + "="), ("longer", good + "A"), ("twice in one", f"{good},{good}"), ("long", good + "x" * 4000), ("nul", good + "%00"))

    def algorithm_games(self):
        """As JSON Web Tokens are attacked: nothing chosen by the token says how it is checked."""
        _, key, payload, signature = self.tokens["bob"].split(".")
        public = json.loads((self.dir / "agents.json").read_text())["keys"][0]["public"]
        for alg in ("none", "None", "NONE", "", "HS256", "HS512", "EdDSA", "ES256", "RS256"):
            header = encoded({"alg": alg, "typ": "JWT", "kid": key})
            yield f"{alg} unsigned", f"{header}.{payload}."
            yield f"{alg} with our signature", f"{header}.{payload}.{signature}"
            for form, secret in (("text", public.encode()), ("bytes", bytes.fromhex(public)), ("nothing", b"")):
                mac = hmac.new(secret, f"{header}.{payload}".encode(), hashlib.sha512 if alg == "HS512" else hashlib.sha256).digest()
                yield f"{alg} by the public key as {form}", f"{header}.{payload}.{encoded(mac)}"
        for secret in (public.encode(), bytes.fromhex(public)):
            yield "our form, by the public key", f"bh1.{key}.{payload}.{encoded(hmac.new(secret, f'{key}.{payload}'.encode(), hashlib.sha512).digest())}"

    def test_every_token_that_does_not_count_at_every_route(self):
        self.begin()
        good = self.tokens["bob"]
        brief = self.token_of("bob", "--ttl", "1s")
        nothing = {route: self.refusal(*route) for route in ROUTES}
        self.assertEqual(len({answer for (method, _), answer in nothing.items() if method != "HEAD"}), 1)  # no route is told from another
        eventually(lambda: self.raw("POST", "/mcp", (*JSON_LINES, f"Authorization: Bearer {brief}"), BODY)[0] == 401)
        bad = [("expired", brief), ("empty", ""), ("word", "secret"), ("truncated", good[:-1]), *self.signed_elsewhere(), *self.forged(), *self.algorithm_games()]
        self.assertGreater(len(bad), 60)
        for name, token in bad:
            with self.subTest(name):
                for route in ROUTES if len(token) < 2000 else [("POST", "/mcp")]:
                    self.assertEqual(self.refusal(*route, f"Authorization: Bearer {token}"), nothing[route], route)
        for n in range(len(good)):
            self.assertEqual(self.refusal("POST", "/mcp", f"Authorization: Bearer {good[:n]}"), nothing["POST", "/mcp"], n)
        self.assertEqual(self.raw("POST", "/mcp", (*JSON_LINES, f"Authorization: Bearer {good}"), BODY)[0], 200)  # and it is not that nobody gets in

    def test_other_ways_to_show_a_token(self):
        self.begin()
        good = self.tokens["bob"]
        for method, path in ROUTES:
            nothing = self.refusal(method, path)
            for lines in ([f"Authorization: Bearer {good}"] * 2, [f"Authorization: Bearer {good}", "authorization: Bearer x"], ["Authorization: Bearer x", f"Authorization: Bearer {good}"],
                          [f"Authorization: {good}"], [f"Authorization: Basic {good}"], [f"Authorization: Token {good}"], [f"Authorization: Bearer{good}"], [f"Authorization: Bearer, Bearer {good}"],
                          [f"Authorization: Bearer {good} {good}"], [f"X-Authorization: Bearer {good}"], [f"Cookie: token={good}"], [f"Proxy-Authorization: Bearer {good}"],
                          [f"Mcp-Session-Id: {good}"]):
                self.assertEqual(self.refusal(method, path, *lines), nothing, lines)
            for query in (f"?access_token={good}", f"?token={good}", f"?Authorization=Bearer+{good}"):
                self.assertEqual(self.refusal(method, path + query), nothing)
            # RFC 6750 has a place for it in the URL, and URLs are logged in too many places: not even beside a good one.
            for query in (f"?access_token={good}", f"?access%5Ftoken={good}", "?access_token=", f"?a=b&access_token={good}"):
                self.assertEqual(self.refusal(method, path + query, f"Authorization: Bearer {good}"), nothing)

    def test_end_removal_and_rotation(self):
        self.begin()
        brief = self.token_of("bob", "--ttl", "1s")
        self.assertEqual(self.send("POST", "/mcp", INITIALIZE, brief)[0], 200)
        eventually(lambda: self.send("POST", "/mcp", INITIALIZE, brief)[0] == 401)
        session = self.session_of("bob")
        self.cli("agent", "remove", "bob")
        eventually(lambda: self.send("POST", "/mcp", INITIALIZE, self.tokens["bob"])[0] == 401)
        lines = [f"Authorization: Bearer {self.tokens['bob']}", *(f"{k}: {v}" for k, v in session)]
        self.assertEqual(self.refusal("POST", "/mcp", *lines), self.refusal("POST", "/mcp"))
        self.cli("agent", "add", "bob")  # one that comes back does not bring its old tokens to life
        eventually(lambda: "bob" in (self.dir / "agents.json").read_text())
        self.assertEqual(self.refusal("POST", "/v1/call", *lines), self.refusal("POST", "/v1/call"))
        self.cli("agent", "rotate")
        eventually(lambda: self.send("POST", "/mcp", INITIALIZE, self.tokens["alice"])[0] == 401)
        self.assertEqual(self.send("POST", "/mcp", INITIALIZE, self.token_of("alice"))[0], 200)

    def test_a_bad_file_changes_nothing(self):
        self.begin()
        path = self.dir / "agents.json"
        good = path.read_text()
        for bad in ("", "{", good.replace("version", "Version"), good[:len(good) // 2]):
            path.write_text(bad)
            eventually(lambda: "those before count on" in self.log())
            self.assertEqual(self.send("POST", "/mcp", INITIALIZE, self.tokens["bob"])[0], 200)

    def test_time_does_not_go_back(self):
        self.start_host()
        later = int(time.time()) + 7200
        (self.state / "time").write_text(f"{later}\n")
        if os.geteuid() == 0:
            os.chown(self.state / "time", NOBODY, NOBODY)
        self.start()
        early = self.token_of("bob", "--ttl", "1h")
        for route in ROUTES:
            self.assertEqual(self.refusal(*route, f"Authorization: Bearer {early}"), self.refusal(*route))
        self.assertEqual(self.send("POST", "/mcp", INITIALIZE, self.token_of("bob", "--ttl", "3h"))[0], 200)

    def test_metadata(self):
        """Of the address that the client spoke to, where there are several."""
        conf = json.loads(self.conf.read_text())
        self.second = free_port()
        conf["broker"]["listen"].append(f"127.0.0.1:{self.second}")
        self.conf.write_text(json.dumps(conf))
        self.begin()
        for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"):
            status, text, _ = self.send("GET", path)
            self.assertEqual((status, json.loads(text)["resource"]), (200, f"http://127.0.0.1:{self.door}/mcp"))
        for host in (f"127.0.0.1:{self.door}", f"127.0.0.1:{self.second}"):
            with socket.create_connection(("127.0.0.1", int(host.split(":")[1])), 20) as s:
                s.sendall(f"GET /mcp HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                answer = b"".join(iter(lambda s=s: s.recv(65536), b"")).decode()
            self.assertIn(f'\r\nWWW-Authenticate: Bearer resource_metadata="http://{host}/.well-known/oauth-protected-resource/mcp"\r\n', answer)
        self.assertEqual(self.send("GET", "/healthz")[0], 200)
        self.assertEqual(self.send("GET", "/healthz", headers=[("Origin", "http://evil.example")])[0], 403)
        self.assertEqual(self.send("POST", "/mcp", INITIALIZE, self.tokens["bob"], [("Origin", "http://evil.example")])[0], 403)

    def test_sessions_belong_to_agents(self):
        self.begin()
        session = self.session_of("bob")
        for method, body in (("POST", {"jsonrpc": "2.0", "id": 1, "method": "ping"}), ("GET", None), ("DELETE", None)):
            headers = [*session, ("Accept", "text/event-stream")] if method == "GET" else session
            self.assertEqual(self.send(method, "/mcp", body, self.tokens["alice"], headers)[0], 404, method)
            self.assertEqual(self.ask(method, "/mcp", body, dict(headers))[0], 404, method)  # nor to operators
        self.assertEqual(self.send("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, self.token_of("bob"), session)[0], 200)


if __name__ == "__main__":
    unittest.main()
