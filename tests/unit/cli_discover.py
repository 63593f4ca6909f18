#!/usr/bin/env -S python3 -B
"""`bulkhead discover`: what it finds in ToolHive's list and in Cursor's files, in which order, whom it lets nobody shadow, and that nothing of it runs."""
import http.server
import json
import pathlib
import sys
import threading
import unittest

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "rig"))
from cli_host import CliTest, digest
from tls_front import Authority, Front

NOWHERE = "http://127.0.0.1:1/mcp"


class ToolHive(http.server.BaseHTTPRequestHandler):
    answers, asked = {}, []

    def do_GET(self):
        self.asked.append((self.path, self.headers.get("Host")))
        status, headers, body = self.answers.get(self.path, (404, {}, b"no"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Discover(CliTest):
    def setUp(self):
        super().setUp()
        self.handler = type("Handler", (ToolHive,), {"answers": {}, "asked": []})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.url = f"http://127.0.0.1:{server.server_port}/mcp"
        self.home = self.dir / "home"
        self.home.mkdir()
        self.workloads()

    def workloads(self, *workloads, **more):
        self.handler.answers["/api/v1beta/workloads"] = (200, {"Content-Type": "application/json"}, json.dumps({"workloads": workloads, **more}).encode())

    def editor(self, servers):
        path = self.home / ".cursor" / "mcp.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"mcpServers": servers}))

    def discover(self, *args, code=0, url="", **env):
        return self.run_cli("discover", *args, code=code, env={"HOME": str(self.home), "TOOLHIVE_GATEWAY_URL": url, "http_proxy": NOWHERE, **env})

    def found(self, **kw):
        answer = self.discover("--json", **kw).json()
        return {(s["name"], s["source"]): s for s in answer["servers"]}, {s["source"]: s.get("note") for s in answer["sources"]}

    def test_nothing_configured(self):
        servers, notes = self.found()
        self.assertEqual(servers, {})
        self.assertEqual(list(notes), ["toolhive_gateway", "mcp.servers.json", "cursor_config", "tool_registry_cache"])
        self.assertIn("not configured", notes["toolhive_gateway"])
        self.assertIn("development", notes["cursor_config"])
        self.assertEqual(self.handler.asked, [])

    def test_toolhive(self):
        self.workloads({"name": "fetch", "url": "http://127.0.0.1:20001/mcp#fetch", "status": "running", "proxy_mode": "streamable-http"},
                       {"name": "old", "url": "http://localhost:20002/sse#old", "status": "running"},
                       {"name": "mode", "url": "http://127.0.0.1:20003/x", "proxy_mode": "sse"},
                       {"name": "away", "url": "http://127.0.0.1:20004/mcp", "status": "stopped"},
                       {"name": "far", "url": "https://far.example/mcp", "status": "running"},
                       {"name": "Not_A\u001b[2JName", "url": "http://127.0.0.1:20005/mcp"},
                       {"name": "mine", "url": "http://127.0.0.1:20006/mcp"},
                       {"url": "http://127.0.0.1:1/x"}, {"name": 7}, "text", None)
        self.write_registry({"mine": {"source": "docker_image", "image": "127.0.0.1:5000/x@" + digest("x"), "transport": "stdio"}})
        servers, notes = self.found(url=self.url)
        state = {name: s["state"] for (name, source), s in servers.items() if source == "toolhive_gateway"}
        self.assertEqual(state, {"toolhive": "found", "fetch": "found", "old": "found", "mode": "found", "far": "refused", "Not_A\u001b[2JName": "refused", "mine": "refused"})
        self.assertEqual(servers["fetch", "toolhive_gateway"]["entry"], {"url": "http://127.0.0.1:20001/mcp", "transport": "streamable-http"})
        self.assertEqual(servers["old", "toolhive_gateway"]["entry"], {"url": "http://127.0.0.1:20002/sse", "transport": "sse"})
        self.assertEqual(servers["mode", "toolhive_gateway"]["entry"]["transport"], "sse")
        self.assertIn("resolves names", servers["far", "toolhive_gateway"]["why"])
        self.assertIn("the registry has a server of this name", servers["mine", "toolhive_gateway"]["why"])
        self.assertEqual(servers["mine", "mcp.servers.json"]["state"], "declared")
        self.assertIsNone(notes["toolhive_gateway"])
        shown = self.discover(url=self.url)
        self.assertNotIn("\u001b", shown.out)
        self.assertIn("\\x1b[2J", shown.out)
        self.assertEqual(self.files(), [], "looking proposes nothing")

    def test_configured_and_the_list_alone(self):
        self.write_conf(f'discovery:\n  toolhive: "{self.url[:-3]}"\n')
        self.workloads({"name": "fetch", "url": "http://127.0.0.1:20001/mcp"})
        servers, _ = self.found()
        self.assertEqual([name for name, _ in servers], ["fetch"])
        self.write_conf('discovery:\n  toolhive: "http://127.0.0.1:1/mcp"\n')
        servers, notes = self.found()
        self.assertEqual([name for name, _ in servers], ["toolhive"], "it may be proposed, though it gives no list")
        self.assertIn("no list of workloads", notes["toolhive_gateway"])

    def test_toolhive_that_misbehaves(self):
        path = "/api/v1beta/workloads"
        for answer, part in (((500, {}, b"{}"), "HTTP status 500"), ((302, {"Location": "/elsewhere"}, b""), "HTTP status 302"), ((200, {}, b"{"), path),
                             ((200, {}, b'{"workloads": 7}'), "no list"), ((200, {}, b"[]"), "no list"), ((200, {}, b'{"workloads": [], "workloads": []}'), path),
                             ((200, {}, b"[" * 100000), path), ((200, {}, b" " * (2 << 20)), "no list")):
            self.handler.answers[path] = answer
            _, notes = self.found(url=self.url)
            self.assertIn(part, notes["toolhive_gateway"] or "")
        self.assertNotIn("/elsewhere", [p for p, _ in self.handler.asked])
        self.handler.answers[path] = (200, {}, b'{"workloads": null}')
        self.assertIsNone(self.found(url=self.url)[1]["toolhive_gateway"])
        for url in ("https://example.org/mcp", "http://example.org/mcp", "http://192.0.2.1/mcp", "file:///etc/passwd", "http://127.0.0.1:8080/mcp", "nonsense"):
            servers, notes = self.found(url=url)
            self.assertIn("TOOLHIVE_GATEWAY_URL", notes["toolhive_gateway"])
            self.assertEqual(servers, {})

    def test_https(self):
        authority = Authority(self.dir, "known")
        front = Front(0, int(self.url.split(":")[2].split("/")[0]), *authority.issue("good", "127.0.0.1"))
        self.addCleanup(front.close)
        self.workloads({"name": "fetch", "url": "http://127.0.0.1:20001/mcp"})
        url = f"https://127.0.0.1:{front.port}/mcp"
        self.write_conf(f"gateway:\n  ca_file: {authority.certificate}\n")
        servers, notes = self.found(url=url)
        self.assertEqual(sorted(name for name, _ in servers), ["fetch", "toolhive"])
        self.assertIsNone(notes["toolhive_gateway"])
        self.write_conf(f"gateway:\n  ca_file: {Authority(self.dir, 'other').certificate}\n")
        self.assertIn("certificate", self.found(url=url)[1]["toolhive_gateway"])

    def test_too_many(self):
        self.workloads(*({"name": f"s{i}", "url": f"http://127.0.0.1:{i + 1}/mcp"} for i in range(1000)))
        answer = self.discover("--json", url=self.url)
        self.assertEqual(len(answer.json()["servers"]), 256)
        self.assertIn("more than 256", answer.err)

    def test_cursor_in_development_mode_only(self):
        self.editor({"local": {"url": "http://localhost:3000/mcp"}, "program": {"command": "npx", "args": ["-y", "@a/b", 7]},
                     "secret": {"url": "http://127.0.0.1:3001/mcp", "headers": {"Authorization": "Bearer x"}}, "": {"url": NOWHERE}, "none": {}})
        self.assertEqual(self.found()[0], {})
        self.assertEqual(self.found(url="")[0], {})
        self.write_conf("discovery:\n  mode: development\n")
        servers, notes = self.found()
        self.assertIsNone(notes["cursor_config"])
        self.assertEqual({name: s["state"] for (name, _), s in servers.items()}, {"local": "found", "program": "refused", "secret": "refused"})
        self.assertEqual(servers["local", "cursor_config"]["entry"], {"url": "http://127.0.0.1:3000/mcp", "transport": "streamable-http"})
        self.assertIn("make an image", servers["program", "cursor_config"]["why"])
        self.assertEqual(servers["program", "cursor_config"]["place"], "npx -y @a/b 7")
        self.assertIn("headers", servers["secret", "cursor_config"]["why"])
        self.assertNotIn("Bearer", self.discover("--json").out)
        (self.home / ".cursor/mcp.json").write_text("{")
        self.assertIn("mcp.json:1:", self.found()[1]["cursor_config"])
        self.assertIn("missing.json", self.discover("--cursor", str(self.dir / "missing.json"), "--json").out)
        self.write_conf("discovery:\n  mode: anything\n")
        self.assertIn("discovery.mode", self.discover(code=1).err.replace("/", "."))

    def test_order(self):
        self.write_conf("discovery:\n  mode: development\n")
        self.editor({"fetch": {"url": "http://127.0.0.1:3000/mcp"}})
        self.workloads({"name": "fetch", "url": "http://127.0.0.1:20001/mcp"})
        for order, first in ((["toolhive_gateway", "cursor_config"], "toolhive_gateway"), (["cursor_config", "toolhive_gateway"], "cursor_config")):
            self.registry.write_text(json.dumps({"version": "1.0", "discovery_order": order, "servers": {}}))
            servers, notes = self.found(url=self.url)
            self.assertEqual(list(notes), order)
            states = {source: s["state"] for (name, source), s in servers.items() if name == "fetch"}
            self.assertEqual(states, {first: "found", next(o for o in order if o != first): "refused"})
        self.registry.write_text(json.dumps({"version": "1.0", "discovery_order": ["mcp.servers.json"], "servers": {}}))
        before = len(self.handler.asked)
        self.assertEqual(self.found(url=self.url)[0], {})
        self.assertEqual(len(self.handler.asked), before, "a source that is not in the order is not asked")

    def test_proposals(self):
        self.workloads({"name": "fetch", "url": "http://127.0.0.1:20001/mcp"}, {"name": "far", "url": "https://far.example/mcp"})
        self.discover("--propose", code=64, url=self.url)
        self.discover("fetch", code=64, url=self.url)
        self.assertIn("no source", self.discover("--propose", "other", code=1, url=self.url).err)
        self.assertIn("resolves names", self.discover("--propose", "far", code=1, url=self.url).err)
        self.assertEqual(self.files(), [])
        ids = [p["id"] for p in self.discover("--propose", "fetch", "toolhive", "--json", url=self.url).json()]
        self.assertEqual(sorted(self.files()), sorted([f"fetch/{ids[0]}.yaml", f"toolhive/{ids[1]}.yaml"]))
        text = self.git("show", f"main:fetch/{ids[0]}.yaml").decode()
        for part in ("kind: Proposal", "type: url", "http://127.0.0.1:20001/mcp", "found in toolhive_gateway"):
            self.assertIn(part, text)
        self.assertEqual({p["smoke"] for p in self.run_cli("--json", "pending").json()}, {"none"})
        self.assertEqual(json.loads(self.registry.read_text())["servers"], {})
        self.run_cli("validate")


if __name__ == "__main__":
    unittest.main()
