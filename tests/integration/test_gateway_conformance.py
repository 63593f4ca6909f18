"""The public conformance suite, unchanged, with the gateway between it and the full fixture: exact scores, scenario by scenario.

Both revisions of the suite against servers of both eras, over both transports, alone and split over four servers that share an endpoint. The fixture scores
30 of 30 and 37 of 37 without us. What cannot be passed across eras stands below, each with its reason, and in docs/gateway.md."""
import json
import pathlib
import re
import sys
import tempfile
import unittest

import yaml

from brokered import LEGACY, MODERN, Gateway, fixture, http_server, node, npm, stdio
from rig import rig, run

SUITE = "@modelcontextprotocol/conformance"
SCORED = {LEGACY: 30, MODERN: 37}
# How the fixture's names are cut, so that four servers with a prefix each make them whole again.
PREFIXES = ["test_input_required_result_", "test_t", "test_", ""]


def scored(revision, leg="server"):
    return yaml.safe_load(pathlib.Path(npm(SUITE, "requirements", f"{revision}.yaml")).read_text())[leg]


class Score:
    """What one run of the suite said."""

    def __init__(self, revision, url, folder, in_host):
        done = run(*in_host(*node(npm(SUITE, "dist/index.js"), "server", "--url", url, "--requirements", revision, "-o", folder)), check=False, timeout=100)
        self.output = done.stdout
        self.passed = {m[2]: m[1] == "✓" for m in re.finditer(r"^([✓✗]) (\S+): \d+ passed, \d+ failed", self.output, re.M)}
        self.failed = {name for name in scored(revision) if not self.passed.get(name)}
        self.complaints = []
        for path in sorted(pathlib.Path(folder).glob("server-*/checks.json")):
            name = re.match(r"server-(.*)-\d{4}-\d\d-\d\dT", path.parent.name)[1]
            if name in scored(revision):
                self.complaints += [f"{name}: {c['id']}: {c['status']}: {c.get('errorMessage')}" for c in json.loads(path.read_text())
                                    if c["status"] not in ("SUCCESS", "INFO")]


class Conformance(unittest.TestCase):
    limit = 240

    def entries(self, transport, era, split):
        for n in range(1, 5 if split else 2):
            options = ["--era", era]
            if split:
                options += ["--part", f"{n}of4", "--prefixes", ",".join(PREFIXES)]
            name, prefix = f"part{n}", {"prefix": PREFIXES[n - 1]} if split else {}
            if transport == "stdio":
                yield stdio(name, fixture("mcp_conformance"), *options, **prefix)
            else:
                yield http_server(name, 17000 + n, fixture("mcp_conformance"), "--http", 17000 + n, *options, **prefix)

    def scores(self, transport, era, split, failing=()):
        """Both suites. failing: {revision: scenarios} that cannot pass."""
        failing = dict(failing)
        with Gateway(*self.entries(transport, era, split)) as gateway, tempfile.TemporaryDirectory() as folder:
            path = "/mcp" if split else "/servers/part1/mcp"
            for revision in (LEGACY, MODERN):
                self.assertEqual(len(scored(revision)), SCORED[revision])
                with self.subTest(revision):
                    score = Score(revision, f"http://{gateway.address}{path}", f"{folder}/{revision}", gateway.rig.in_host)
                    self.assertEqual(score.failed, set(failing.get(revision, ())), "\n".join(score.complaints) or score.output[-3000:])
                    complaints = [c for c in score.complaints if not failing.get(revision) or c.split(":")[0] not in failing[revision] | self.ADVICE]
                    self.assertEqual(complaints, [])

    # In the modern era a server names its own questions. A legacy server's have no names: the gateway gives them some, and keeps the call open, so that a
    # client cannot bring an answer along that it was not asked for.
    NAMES = {MODERN: {"input-required-result-basic-elicitation"}}
    ADVICE = {"input-required-result-ignore-extra-params"}  # the same, but only a warning

    def test_stdio_legacy(self):
        self.scores("stdio", "legacy", False, self.NAMES)

    def test_stdio_legacy_split(self):
        self.scores("stdio", "legacy", True, self.NAMES)

    def test_stdio_modern(self):
        self.scores("stdio", "modern", False)

    def test_stdio_modern_split(self):
        self.scores("stdio", "modern", True)

    def test_http_legacy(self):
        self.scores("http", "legacy", False, self.NAMES)

    def test_http_legacy_split(self):
        self.scores("http", "legacy", True, self.NAMES)

    def test_http_modern(self):
        self.scores("http", "modern", False)

    def test_http_modern_split(self):
        self.scores("http", "modern", True)


class Agents(unittest.TestCase):
    """The same at the agents' door, for one that may do everything. The suite sends no token, so it is added on the way."""
    limit = 120

    def test_both_revisions(self):
        everything = {"allow": ["*:*"], "preload": ["*:*"], "prompts": ["*:*"], "resources": ["*:*"], "sampling": ["*"], "elicitation": ["*"], "roots": ["*"]}
        entry = stdio("part1", fixture("mcp_conformance"), "--era", "modern", prefix="")
        with Gateway(entry, agents={"everything": everything}) as gateway, gateway.with_token("everything") as address, tempfile.TemporaryDirectory() as folder:
            gateway.event("up", 60, name="part1")
            for revision in (LEGACY, MODERN):
                with self.subTest(revision):
                    score = Score(revision, f"http://{address}/mcp", f"{folder}/{revision}", gateway.rig.in_host)
                    self.assertEqual((score.failed, score.complaints), (set(), []), score.output[-3000:])
                    self.assertEqual(sum(score.passed[name] for name in scored(revision)), SCORED[revision])
            # It was the door that was asked, and not some other way in.
            self.assertGreater(gateway.metrics()["bulkhead_agents_requests_total"], 60)
            self.assertGreater(sum(v for k, v in gateway.metrics().items() if k.startswith("bulkhead_decisions_total")), 30)


class UpstreamLeg(unittest.TestCase):
    """The suite's client mode: it is the server now, and sees what the gateway says to servers. Of its scored scenarios all apply that are not about
    OAuth: the gateway gets no tokens for servers from anybody, and says so in docs/gateway.md."""
    limit = 180

    def scenario(self, name, revision):
        with tempfile.TemporaryDirectory() as folder:
            command = f"{sys.executable} -B {pathlib.Path(__file__).with_name('upstream_leg.py')}"
            done = run(*rig().in_host(*node(npm(SUITE, "dist/index.js"), "client", "--command", command, "--scenario", name, "--spec-version", revision, "-o", folder)),
                       check=False, timeout=60)
            found = [json.loads(path.read_text()) for path in pathlib.Path(folder).rglob("checks.json")]
            self.assertEqual(len(found), 1, done.stdout + done.stderr)
            bad = [f"{c['id']}: {c['status']}: {c.get('errorMessage')}" for c in found[0] if c["status"] not in ("SUCCESS", "INFO")]
            good = [c["id"] for c in found[0] if c["status"] == "SUCCESS"]
            return good, bad, done.stdout + done.stderr

    def test_scored_scenarios(self):
        seen = {}
        for revision in (LEGACY, MODERN):
            names = [n for n in scored(revision, "client") if not n.startswith("auth/")]
            for name in names:
                with self.subTest(f"{name} {revision}"):
                    good, bad, output = self.scenario(name, revision)
                    self.assertEqual(bad, [c for c in bad if c.split(":")[0] in self.NOT_SENT.get(name, ())], output[-3000:])
                    self.assertTrue(good, output[-3000:])
            seen[revision] = len(names)
        self.assertEqual(seen, {LEGACY: 4, MODERN: 7})

    # What is skipped because the gateway never sends such a request in that era.
    NOT_SENT = {"http-standard-headers": ("sep-2243-client-includes-standard-headers",)}


if __name__ == "__main__":
    unittest.main(verbosity=2)
