#!/usr/bin/env -S python3 -B
"""/metrics and `bulkhead status --metrics`: text that Prometheus reads, numbers that are right, and a dashboard and alerts that ask for nothing that is not there."""
import json
import os
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from broker_agents import AgentTest
from broker_process import eventually
from cli_daemon import Daemon, STATUS

GRAFANA = pathlib.Path(os.environ.get("top_srcdir", pathlib.Path(__file__).resolve().parents[2])) / "deploy/grafana"
FOREIGN = {"node_textfile_mtime_seconds"}  # node_exporter's own
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="[^"\\\n]*",?)*)\})? ([0-9]+(?:\.[0-9]+)?)')


def read(text):
    """{name: {labels: value}}; asserts that the text is what the format's description says, as far as we use it."""
    types, samples, last = {}, {}, None
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, name, rest = line.split(" ", 3)
            if word == "HELP":
                assert name not in types and rest.endswith("."), line
                last = name
            else:
                assert (word, name) == ("TYPE", last) and rest in ("counter", "gauge", "histogram"), line
                types[name] = rest
            continue
        name, labels, value = SAMPLE.fullmatch(line).groups()
        family = re.sub(r"_(bucket|sum|count)$", "", name) if types.get(re.sub(r"_(bucket|sum|count)$", "", name)) == "histogram" else name
        assert family == last, line  # a family's lines stand together
        assert (types[family] == "counter") == name.endswith("_total"), line
        assert labels not in samples.setdefault(name, {}), line
        samples[name][labels] = float(value)
    for name in (n for n, t in types.items() if t == "histogram"):
        values = list(samples[f"{name}_bucket"].values())
        assert values == sorted(values) and values[-1] == samples[f"{name}_count"][None] and list(samples[f"{name}_bucket"])[-1] == 'le="+Inf"'
    return samples


def asked():
    """[(where, expression)] of the dashboard and the alerts."""
    found = [(panel["title"], target["expr"]) for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    return found + [("alerts", expr) for expr in re.findall(r"^ +expr: (.+)$", (GRAFANA / "bulkhead.rules.yml").read_text(), re.M)]


def dashboard():
    return json.loads((GRAFANA / "bulkhead.json").read_text())


class Files(unittest.TestCase):
    def test_dashboard(self):
        board = dashboard()
        panels = board["panels"]
        ids = [panel["id"] for panel in panels]
        self.assertEqual(len(ids), len(set(ids)))
        places = set()
        for panel in panels:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24)
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            self.assertFalse(cells & places, panel["title"])
            places |= cells
            if panel["type"] != "row":
                self.assertTrue(panel["targets"] and panel["description"], panel["title"])
                references = [target["refId"] for target in panel["targets"]]
                self.assertEqual(len(references), len(set(references)))
                self.assertEqual({target["datasource"]["uid"] for target in panel["targets"]}, {"${datasource}"})
        self.assertEqual([v["name"] for v in board["templating"]["list"]], ["datasource"])

    def test_brackets(self):
        for where, expr in asked():
            for pair in ("()", "[]", "{}"):
                self.assertEqual(expr.count(pair[0]), expr.count(pair[1]), (where, expr))


class Metrics(AgentTest):
    agents = {"bob": {"allow": ["echo:echo"], "ask": ["echo:env"], "budgets": {"max_api_calls": 4}}, "idle": {}}

    def scrape(self):
        return read(self.ask("GET", "/metrics")[1])

    def controllers(self):
        """What the other half prints, of a status such as the controller's."""
        test = Daemon("setUp")
        test.setUp()
        try:
            test.answer("status", {**STATUS, "gateway": {"auth": "token", "broker": {"linked": True}, "instances": 1, "max_instances": 64, "memory": 1 << 28, "max_memory": 1 << 32},
                                   "passes": 7, "mutations": 3, "last_pass_us": 1500})
            test.run_cli("status", "echo", "--metrics", code=64)
            return read(test.run_cli("status", "--metrics").out)
        finally:
            test.doCleanups()

    def test_numbers(self):
        self.begin()
        self.assertEqual(self.v1("bob", "call", {"name": "echo:echo", "arguments": {"text": "x" * 4000}})[0], 200)
        for want, name, arguments in ((404, "echo:other", {}), (404, "echo:none", {}), (400, "echo:echo", {"text": 1}), (202, "echo:env", {}), (200, "echo:echo", {"text": "x"})):
            self.assertEqual(self.v1("bob", "call", {"name": name, "arguments": arguments})[0], want)
        found = self.scrape()
        outcomes = {re.search('"(.*)"', labels).group(1): value for labels, value in found["bulkhead_decisions_total"].items()}
        self.assertEqual(len(outcomes), 7)
        self.assertEqual({k: v for k, v in outcomes.items() if v}, {"allow": 2, "does-not-exist": 2, "bad_arguments": 1, "approval_required": 1})
        self.assertEqual(found["bulkhead_decision_seconds_count"][None], 6)
        self.assertEqual(found["bulkhead_agents_call_seconds_count"][None], 2)
        self.assertTrue(2000 <= found["bulkhead_agents_tokens_total"][None] < 4000)
        self.assertEqual(found["bulkhead_calls_pending"][None], 1)
        self.assertEqual(found["bulkhead_agents"][None], 2)
        self.assertEqual(found["bulkhead_agents_budget"], {'share="0.5"': 1, 'share="0.8"': 0, 'share="1"': 0})
        self.assertEqual(found["bulkhead_budget_calls"][None], 2)
        self.assertEqual(found["bulkhead_server_up"], {'server="echo"': 1})
        for _ in range(2):
            self.v1("bob", "call", {"name": "echo:echo", "arguments": {"text": "x"}})
        self.assertEqual(self.scrape()["bulkhead_agents_budget"], {'share="0.5"': 1, 'share="0.8"': 1, 'share="1"': 1})

    def test_no_series_of_its_own_for_an_agent(self):
        self.begin()
        self.v1("bob", "call", {"name": "echo:echo", "arguments": {"text": "x"}})
        self.assertNotRegex(self.ask("GET", "/metrics")[1], r'"[^"]*bob')

    def test_files_that_are_bad(self):
        self.begin()
        self.assertEqual(self.scrape()["bulkhead_file_bad"], {'file="agents"': 0, 'file="policy"': 0})
        (self.dir / "policy.new").write_text("{")
        (self.dir / "policy.new").rename(self.dir / "policy.json")
        eventually(lambda: self.scrape()["bulkhead_file_bad"]['file="policy"'] == 1)
        self.write_policy()
        eventually(lambda: self.scrape()["bulkhead_file_bad"]['file="policy"'] == 0)

    def test_what_the_files_ask_for_is_there(self):
        self.begin()
        there = {**self.scrape(), **self.controllers()}
        for where, expr in asked():
            names = set(re.findall(r"\b(?:bulkhead|node)_[a-z_]+", expr))
            self.assertTrue(names, (where, expr))
            for name in names - FOREIGN:
                self.assertIn(name, there, (where, expr))
            for name, label, how, values in re.findall(r'\b(bulkhead_[a-z_]+)\{([a-z_]+)(=~?)"([^"]*)"\}', expr):
                for value in values.split("|") if how == "=~" else [values]:
                    self.assertIn(f'{label}="{value}"', there[name], (where, expr))

    def test_the_manual_names_what_is_there(self):
        self.begin()
        there = {re.sub(r"_(bucket|sum|count)$", "", name) if "_seconds_" in name else name for name in {**self.scrape(), **self.controllers()}}
        documented = set()
        for row in re.findall(r"^\| (`bulkhead_.*?) \|", (GRAFANA.parents[1] / "docs/metrics.md").read_text(), re.M):
            for word in re.findall(r"`([a-z_]+)`", row):
                if word.startswith("_"):  # as the one before it, from some word on
                    starts = [start[:end] for start in [full] for end in range(len(start)) if start[end] == "_"]
                    documented.update(start + word for start in starts if start + word in there)
                else:
                    full = word
                    self.assertIn(word, there)
                    documented.add(word)
        self.assertEqual(there - documented - {"bulkhead_broker_info"}, set())

    def test_the_controllers(self):
        found = self.controllers()
        self.assertEqual(set(found["bulkhead_controller_ok"].values()), {1})
        self.assertEqual({k: v for k, v in found["bulkhead_controller_servers"].items() if v}, {'state="running"': 1, 'state="refused"': 1})
        self.assertEqual(found["bulkhead_controller_restarts"][None], 2)
        self.assertEqual(found["bulkhead_controller_approval_end_timestamp_seconds"][None], 32472144000)
        self.assertEqual(found["bulkhead_controller_last_pass_seconds"][None], 0.0015)


del AgentTest  # its own tests run elsewhere
if __name__ == "__main__":
    unittest.main(verbosity=1, defaultTest=["Files", "Metrics"])
