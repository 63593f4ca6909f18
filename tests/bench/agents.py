"""What the policy costs a call: the same echo server through the gateway's port and through the agents' door of one broker, with 1,000 tools, 100 agents and every kind of
rule in force. Part of gateway.py."""
import http.client
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

from figures import cpu_seconds, figure, say
from gateway import ECHO, LEGACY, MODERN, RELAY, ROOT, USER, WARMUP, Gateway, Processes, free_port, interleave, load, median, ratio, stdio, wait_for, with_cpu

ANY_SERVER = pathlib.Path(__file__).resolve().parents[1] / "unit/any_server.py"
WORDS = ("file", "issue", "branch", "message", "calendar", "invoice", "customer", "metric", "container", "query", "image", "ticket", "document", "alert", "deployment")
VERBS = ("read", "create", "list", "search", "delete", "update", "send")


def tools(server):
    return [f"{VERBS[i % len(VERBS)]}_{WORDS[(i + server) % len(WORDS)]}_{i}" for i in range(111)]


def agent(number):
    return {"allow": ["echo:*", f"server-{number % 9}:*", "server-*:read_*", "server-*:*_1?"], "deny": ["*:delete_*"], "ask": ["danger:*"],
            "rate_limits": [{"tools": ["echo:*"], "max_calls": 1000000000, "window_seconds": 10}]}


def policy():
    """Every kind of rule, none of which says no."""
    return {"version": "1.0", "tool_approval_required": [], "rate_limits": [{"tools": [f"server-{i}*:*"], "max_calls": 1000000000, "window_seconds": 60} for i in range(8)]
            + [{"tools": ["*:*"], "max_calls": 1000000000, "window_seconds": 3600}, {"tools": ["write", "network"], "max_calls": 1000000000, "window_seconds": 60}],
            "budgets": {"period": "day", "max_api_calls": 9000000000000, "max_tokens": 9000000000000000, "max_cost_usd": 1000000},
            "prices": [{"tools": ["echo:*"], "usd_per_call": 0.000001, "usd_per_1000_tokens": 0.000001}],
            "argument_patterns": [{"tools": ["*:*"], "arguments": ["url", "*_url"], "pattern": "^https://api\\.example\\.com/"}],
            "blocked_patterns": [{"name": "sql", "pattern": "\\bdrop\\s+table\\b"}],
            "path_rules": [{"tools": ["*:*"], "arguments": ["path", "*_path"], "allow": ["/srv/data", "."], "deny": ["/srv/data/x"]}],
            "agents": {f"agent-{i}": agent(i) for i in range(100)}}


class Agents(Gateway):
    """A broker with the agents' door, in front of ten servers."""

    def __init__(self):
        super().__init__([stdio("echo", ECHO), *(stdio(f"server-{i}", sys.executable, "-B", ANY_SERVER, os.devnull, *tools(i)) for i in range(9))])
        self.names, self.door = ["echo"], free_port()

    def write_conf(self, link, more):
        state = self.dir / "state"
        state.mkdir(mode=0o700)
        shutil.chown(state, USER)
        (self.dir / "policy.json").write_text(json.dumps(policy()))
        super().write_conf(link, {**more, "policy": str(self.dir / "policy.json"), "broker.listen": [f"127.0.0.1:{self.door}"], "broker.state": str(state),
                                  "agents.file": str(self.dir / "agents.json"), "agents.key": str(self.dir / "agents.key")})
        for i in range(100):
            self.command("agent", "add", f"agent-{i}")

    def command(self, *argv):
        return subprocess.run([ROOT / "usr/bin/bulkhead", "--config", self.dir / "bulkhead.conf", *argv], stdout=subprocess.PIPE, check=True, text=True).stdout.strip()

    def start_all(self):
        super().start_all()
        self.token = self.command("token", "agent-7")
        self.wait("the tools of all servers", lambda: self.known() >= 1000)

    def ask(self, port, method, path, body=None):
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        c.request(method, path, body, {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"})
        text = c.getresponse().read().decode()
        c.close()
        return text

    def known(self):
        self.ask(self.door, "POST", "/v1/search", '{"query": "file"}')
        return next((int(line.split()[1]) for line in self.ask(self.port, "GET", "/metrics").splitlines() if line.startswith("bulkhead_tools ")), 0)

    def measured(self, options, *target):
        """One run, and what a call of it cost the broker."""
        return with_cpu(self.pid(), self.calls_of(options), lambda: load(options, *target))

    @staticmethod
    def calls_of(options):
        value = lambda key, other: options[options.index(key) + 1] if key in options else other
        return value("--in-flight", 1) * (value("--calls", 1) + value("--warmup", WARMUP))


def bench_search(g, times):
    """As the door does it, with the rights of an agent looked at for each of 1,000 tools; the client and the wire are in the wall's time, and not in the CPU's."""
    c = http.client.HTTPConnection("127.0.0.1", g.door, timeout=60)
    took = []
    queries = [f"{VERBS[i % len(VERBS)]} the {WORDS[i % len(WORDS)]} of a {WORDS[(3 * i + 1) % len(WORDS)]}" for i in range(times)]
    before = cpu_seconds(g.pid())
    for query in queries:
        begun = time.perf_counter()
        c.request("POST", "/v1/search", json.dumps({"query": query}), {"Content-Type": "application/json", "Authorization": f"Bearer {g.token}"})
        found = json.loads(c.getresponse().read())["tools"]
        took.append((time.perf_counter() - begun) * 1e6)
        if not found:
            raise AssertionError(f"nothing is found for {query}")
    figure("search over 1,000 tools: CPU of the broker for one", f"{(cpu_seconds(g.pid()) - before) * 1e6 / times:.0f}", "us", "<= 500",
           f"whole, with client and wire: p50 {statistics.median(took):.0f}, p99 {sorted(took)[times * 99 // 100]:.0f}")
    c.close()


def bench(rounds, calls):
    say("\nThe policy: one broker, the gateway's port and the agents' door, 1,000 tools, 100 agents, all rules")
    relay_port = free_port()
    with Processes() as p:
        wait_for(relay_port, p.start(RELAY, "--framed", "tcp", relay_port, "exec", ECHO))
        g = p.enter_context(Agents())
        figure("tools that are known", f"{g.known()}", "")
        for title, era in (("legacy", LEGACY), ("modern", MODERN)):
            o = ["--calls", calls, "--tool", "echo__echo", *era]
            gateway = lambda more=(), o=o: g.measured([*o, *more], "http", f"127.0.0.1:{g.port}/mcp")
            agents = lambda more=(), o=o: g.measured([*o, *more, "--header", f"Authorization: Bearer {g.token}"], "http", f"127.0.0.1:{g.door}/mcp")
            got = interleave(rounds, direct=lambda e=era: load(["--calls", calls, *e, "--framed"], "stdio", ECHO), relay=lambda e=era: load(["--calls", calls, *e, "--framed"], "tcp", relay_port),
                             gateway=gateway, agents=agents)
            direct, relay, ours, all_of_it = (median(got[k], "p50_us") for k in ("direct", "relay", "gateway", "agents"))
            whole = ratio(direct, relay, all_of_it)
            figure(f"{title}: p50 added by the relay / the gateway / the agents' door", f"{relay - direct:.0f} / {ours - direct:.0f} / {all_of_it - direct:.0f}", "us")
            figure(f"{title}: p50 of the agents' door to the relay's", f"{whole:.2f}" if whole is not None else "noise", "x", "<= 1.7")
            show_cpu(f"{title}, one client", got)
            many = ["--in-flight", 32]
            show_cpu(f"{title}, 32 clients", interleave(max(rounds // 2, 1), gateway=lambda: gateway(many), agents=lambda: agents(many)))
        bench_search(g, 1000)


def show_cpu(title, got):
    gateway, agents = median(got["gateway"], "cpu_us"), median(got["agents"], "cpu_us")
    each = sorted(b["cpu_us"] - a["cpu_us"] for a, b in zip(got["gateway"], got["agents"]))
    figure(f"{title}: CPU of a call, gateway / agents' door", f"{gateway:.1f} / {agents:.1f}", "us")
    figure(f"{title}: CPU that the policy adds", f"{statistics.median(each):.1f}", "us", "<= 15", f"of the rounds: {each[0]:.1f} .. {each[-1]:.1f}")
