#!/usr/bin/env -S python3 -B
"""The skill in deploy/openclaw: each of its lines runs as written, arguments arrive as they are, and the pattern that the manual gives lets these lines through and nothing else."""
import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from broker_agents import AgentTest
from broker_process import BUILD

ROOT = pathlib.Path(os.environ.get("top_srcdir", pathlib.Path(__file__).resolve().parents[2]))
SKILL = ROOT / "deploy/openclaw/bulkhead/SKILL.md"
HARNESS = ["harness_search_tools", "harness_describe_tool", "harness_call_tool", "harness_load_tools"]
HOSTILE = ["'", "''; id; '", '"', '"; id #', "$(touch trap)", "`touch trap`", "${HOME}", "a\nb", "a\r\nb\n", "\\", "\\'", "\\n", "-", "--", "--url http://192.0.2.1", " --json", "-x",
           "&& touch trap", "| touch trap", "> trap", "!!", "*", "~", "%s%n", "\t", "\u202e", "\U0001f600", "\x7f", "x' --url 'http://192.0.2.1", "x" * 100_000]


def commands():
    """The lines that the skill tells its reader to run."""
    return re.findall(r"^```sh\n(.+)\n```$", SKILL.read_text(), re.M)


def pattern():
    """The manual's, which JavaScript and Python read alike but for the end, where Python would let a line end pass."""
    blocks = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", (ROOT / "docs/openclaw.md").read_text(), re.M | re.S)]
    entry, = next(b for b in blocks if "agents" in b)["agents"]["main"]["allowlist"]
    assert entry["pattern"].endswith("/bulkhead") and entry["argPattern"].startswith("^") and entry["argPattern"].endswith("$")
    return re.compile(entry["argPattern"][:-1] + r"\Z")


def written(arguments):
    """As the skill says that arguments are written."""
    return "'" + json.dumps(arguments).replace("'", "\\u0027").replace("--", "-\\u002d") + "'"


class Skill(unittest.TestCase):
    def test_front_matter(self):
        front = re.match(r"---\n(.*?)\n---\n", SKILL.read_text(), re.S).group(1)
        keys = dict(line.split(": ", 1) for line in front.splitlines())
        self.assertEqual(keys["name"], SKILL.parent.name)
        self.assertRegex(keys["name"], r"^[a-z0-9]+(-[a-z0-9]+)*$")
        self.assertTrue(0 < len(keys["description"]) <= 1024)
        self.assertNotRegex(keys["description"], r": |#")  # plain YAML on one line
        self.assertEqual(json.loads(keys["metadata"])["openclaw"]["requires"]["bins"], ["bulkhead"])

    def test_it_offers_the_four_tools_and_nothing_else(self):
        self.assertEqual(sorted(re.search(r"--tool (\S+)", c).group(1) for c in commands()), sorted(HARNESS))


class Pattern(unittest.TestCase):
    def test_lets_the_skills_lines_through(self):
        for line in commands():
            self.assertTrue(pattern().match(line.removeprefix("bulkhead ").replace("'", "")), line)
        for text in HOSTILE:
            argument = subprocess.run(["sh", "-c", "printf %s " + written({"name": "echo:echo", "arguments": {"text": text}})], stdout=subprocess.PIPE, text=True, check=True).stdout
            self.assertTrue(pattern().match("call --tool harness_call_tool --json " + argument), text[:80])

    def test_lets_nothing_else_through(self):
        call = "call --tool harness_call_tool --json {}"
        for line in ("", "status", "approve c-0123456789abcdef", "token openclaw", "call", "--json " + call, "--config /x " + call, " " + call, call + " ", call + " x", call + "\n", call + "\n{}",
                     call + " --url http://192.0.2.1", call + " --token-file /etc/shadow", call + " --url=http://192.0.2.1 {}", "call --url http://192.0.2.1 --tool harness_call_tool --json {}",
                     "call --tool echo:echo --json {}", "call --tool harness_call_tool --json -", "call --tool harness_call_tool --json={}", "call --tool harness_call_toolx --json {}",
                     "call --tool harness_call_tool --json {} --socket /x {}", "x" + call, "call --tool harness_call_tool --json {\n}", "call --tool  harness_call_tool --json {}"):
            self.assertFalse(pattern().match(line), line)


class Runs(AgentTest):
    agents = {"bob": {"allow": ["echo:echo"], "ask": ["echo:env"]}}

    def run_it(self, what, shell, **env):
        (self.dir / "t").write_text(self.tokens["bob"] + "\n")
        (self.dir / "cwd").mkdir(exist_ok=True)
        environment = {"PATH": f"{BUILD.resolve()}:{os.environ['PATH']}", "BULKHEAD_TOKEN_FILE": str(self.dir / "t"), **env}
        return subprocess.run(["sh", "-c", what] if shell else what, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=20, check=False, env=environment, cwd=self.dir / "cwd")

    def line(self, command):
        """Only the door is at another port here than the skill takes for granted."""
        return self.run_it(f"{command} --url http://127.0.0.1:{self.door}", shell=True)

    def argv(self, *argv, **env):
        return self.run_it(["bulkhead", "--json", *argv, "--url", f"http://127.0.0.1:{self.door}"], shell=False, **env)

    def test_each_line_as_written(self):
        self.begin()
        search, describe, call, load = ({re.search(r"--tool (\S+)", c).group(1): c for c in commands()}[tool] for tool in HARNESS)
        fill = lambda line: line.replace("SERVER:TOOL", "echo:echo").replace('"arguments": {}', '"arguments": {"text": "hello"}')
        found = self.line(search.replace("read a file", "echo the text"))
        self.assertEqual((found.returncode, json.loads(found.stdout)["tools"][0]["name"]), (0, "echo__echo"), found.stderr)
        self.assertIn("inputSchema", json.loads(self.line(fill(describe)).stdout)["tool"])
        called = self.line(fill(call))
        self.assertEqual((called.returncode, called.stdout), (0, "hello\n"), called.stderr)
        self.assertEqual(json.loads(self.line(fill(load)).stdout), {"loaded": ["echo__echo"], "unknown": []})

    def test_what_comes_back(self):
        self.begin()
        one = lambda name, text=None: f"bulkhead call --tool harness_call_tool --json '{json.dumps({'name': name, 'arguments': {'text': text} if text else {}})}'"
        self.assertEqual(self.line(one("echo:none", "x")).returncode, 1)
        waits = self.line(one("echo:env"))
        self.assertEqual(waits.returncode, 2)
        self.assertRegex(waits.stderr, r"c-[0-9a-f]+")
        self.assertEqual(self.line("bulkhead call --tool harness_call_tool --json '{'").returncode, 64)
        self.assertEqual(self.line("bulkhead call --tool harness_search_tools --json '{}'").returncode, 1)
        self.assertEqual(self.run_it("bulkhead call --tool harness_search_tools --json '{}' --url http://127.0.0.1:1", shell=True).returncode, 69)
        self.tokens["bob"] = "wrong"
        self.assertEqual(self.line(one("echo:echo", "x")).returncode, 77)

    def test_how_long_to_wait(self):
        self.write_policy(rate_limits=[{"tools": ["*:*"], "max_calls": 1, "window_seconds": 60}])
        self.begin()
        first, second = (self.argv("call", "--tool", "echo:echo", "--json", '{"text": "x"}') for _ in range(2))
        self.assertEqual((first.returncode, second.returncode), (0, 1), second.stderr)
        self.assertRegex(second.stderr, r"rate_limited.*try again in \d+ s")

    def test_hostile_arguments_arrive_as_they_are(self):
        self.begin()
        for text in HOSTILE:
            with self.subTest(text=text[:80]):
                arguments = {"name": "echo:echo", "arguments": {"text": text}}
                for done in (self.argv("call", "--tool", "harness_call_tool", "--json", json.dumps(arguments)), self.argv("call", "--tool", "echo:echo", "--json", json.dumps({"text": text})),
                             self.line(f"bulkhead --json call --tool harness_call_tool --json {written(arguments)}")):
                    self.assertEqual(done.returncode, 0, done.stderr[:500])
                    self.assertEqual(json.loads(done.stdout)["result"]["content"][0]["text"], text)
        self.assertEqual(os.listdir(self.dir / "cwd"), [])

    def test_hostile_argument_lists(self):
        self.begin()
        for argv in (["call", "--tool", "--json", "{}"], ["call", "--tool", "harness_call_tool", "--json", "--tool"], ["call", "--tool", "harness_call_tool", "--json", "-x"],
                     ["call", "--tool", "harness_call_tool", "--json", "{}", "{}"], ["call", "--tool", "harness_call_tool", "--json", '{"name": "echo:echo"} {}'],
                     ["call", "--tool", "$(touch trap)", "--json", "{}"], ["call", "--tool", "a\nb", "--json", "{}"], ["call", "--tool", "x" * 100_000, "--json", "{}"],
                     ["call", "--tool", "", "--json", "{}"], ["call", "-tool", "x"], ["call --tool harness_load_tools --json {}"], ["call", "--tool harness_load_tools --json {}"],
                     ["call", "--tool", "harness_load_tools --json {}"], ["call", "--tool", "harness_load_tools", "--json {}"]):
            with self.subTest(argv=[a[:60] for a in argv]):
                done = self.argv(*argv)
                self.assertIn(done.returncode, (1, 64), done.stdout[:500])
                self.assertTrue(done.stderr)
        self.assertEqual(os.listdir(self.dir / "cwd"), [])

    def test_the_environment_names_no_files_and_no_broker(self):
        self.begin()
        os.mkfifo(self.dir / "fifo")  # whoever opens it, waits for ever
        there = {name: str(self.dir / "fifo") for name in ("OPENSSL_CONF", "SSLKEYLOGFILE", "SSL_CERT_FILE", "HOSTALIASES", "RES_OPTIONS", "CURL_HOME", "NETRC", "LOCALDOMAIN")}
        done = self.argv("call", "--tool", "echo:echo", "--json", '{"text": "x"}', **there, BULKHEAD_URL="http://127.0.0.1:1", http_proxy="http://127.0.0.1:1", ALL_PROXY="http://127.0.0.1:1")
        self.assertEqual(done.returncode, 0, done.stderr)


del AgentTest  # its own tests run elsewhere
if __name__ == "__main__":
    unittest.main(verbosity=1)
