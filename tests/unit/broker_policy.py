#!/usr/bin/env -S python3 -B
"""The door for agents: what the policy's file does when it is good or bad, classes of tools, and limits that admit exactly as many calls as they should, also over kills."""
import concurrent.futures
import http.client
import json
import os
import pathlib
import socket
import sys
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import broker_agents as agents
import broker_process as process
from broker_process import JSON_RPC, eventually


class Policy(agents.AgentTest):
    def call(self):
        return self.v1("bob", "call", {"name": "echo:echo", "arguments": {}})[0]

    def troubles(self):
        """What the controller was told last."""
        told = self.heard("state")
        return told[-1]["troubles"] if told else None

    def in_force_though(self, what, *words):
        """The good policy stays, whatever its file is now, and people are told why."""
        with self.subTest(what):
            said = eventually(lambda: (self.troubles() or "") and all(w in self.troubles() for w in words) and self.troubles())
            self.assertIn("the last good policy stays in force: ", said)
            self.assertIn(str(self.dir), said)
            self.assertEqual(self.call(), 200)

    def is_good_again(self):
        (self.dir / "policy.json").unlink(missing_ok=True)
        self.write_policy()
        eventually(lambda: self.troubles() == "")
        self.assertEqual(self.call(), 200)

    def put(self, make):
        """make(path) makes another file, which takes the policy's place at once."""
        fresh = self.dir / "policy.other"
        make(fresh)
        os.rename(fresh, self.dir / "policy.json")

    def test_the_last_good_one_stays_in_force(self):
        self.begin()
        path, good = self.dir / "policy.json", (self.dir / "policy.json").read_text()
        eventually(lambda: self.troubles() == "")
        self.assertEqual(self.call(), 200)
        # Broken, in place and by renaming.
        for number, bad in enumerate(("", good[:50], good[:-1], good.replace("version", "vers"), good.replace("1.0", "9.9"), good.replace('"allow"', '"allow_all"'), "null", good + good, good + "\0")):
            path.write_text(bad)
            self.in_force_though(f"written {number}")
            self.is_good_again()
            self.put(lambda fresh, bad=bad: fresh.write_text(bad))
            self.in_force_though(f"renamed {number}")
            self.is_good_again()
        # Half-written: no word while it is being written; told to read it then, the broker sees that it is half a file.
        with open(path, "w") as writing:
            writing.write(good[:len(good) // 2])
            writing.flush()
            self.broker.send_signal(process.signal.SIGHUP)
            self.in_force_though("half-written")
            writing.write(good[len(good) // 2:])
        eventually(lambda: self.troubles() == "")
        # Swapped for what is no file of its owner's.
        (self.dir / "elsewhere.json").write_text(good.replace('"echo:echo"', '"echo:none"'))
        self.put(lambda fresh: fresh.symlink_to(self.dir / "elsewhere.json"))
        self.in_force_though("a symbolic link", "symbolic link")
        self.is_good_again()
        self.put(os.mkfifo)
        self.in_force_though("a fifo", "not a regular file")
        self.is_good_again()
        path.unlink()
        self.in_force_though("gone", "No such file")
        self.is_good_again()
        path.unlink()
        self.put(os.mkdir)
        self.in_force_though("a directory", "not a regular file")
        path.rmdir()
        self.is_good_again()
        # Written by others.
        for mode in (0o666, 0o664, 0o646):
            path.chmod(mode)
            self.in_force_though(oct(mode), "written by others")
            self.is_good_again()
        self.dir.chmod(0o777)
        self.in_force_though("a directory where others write", "written by others")
        self.dir.chmod(0o755)
        eventually(lambda: self.troubles() == "")
        # And a good one counts, again and at once.
        self.write_policy(agents={"bob": {}})
        eventually(lambda: self.call() == 404)

    @unittest.skipUnless(os.geteuid() == 0, "needs root: files of two users")
    def test_files_of_others(self):
        self.begin()
        path = self.dir / "policy.json"
        path.chmod(0o600)
        self.in_force_though("unreadable", "Permission denied")
        self.is_good_again()
        os.chown(path, 1234, 1234)
        self.in_force_though("somebody else's", "belongs to uid 1234")
        self.is_good_again()

    def test_troubles_are_told_anew_when_the_link_comes_back(self):
        self.begin()
        (self.dir / "policy.json").write_text("{")
        self.in_force_though("broken")
        before = len(self.heard("state"))
        self.tell_host(do="close")
        eventually(lambda: len(self.heard("state")) > before)
        self.in_force_though("broken still")
        (self.dir / "agents.json").write_text("{")
        self.in_force_though("both", "agents: those before count on: ")
        # A broker that starts with such a file lets nobody do anything, and says that.
        self.broker.kill()
        self.broker.wait()
        self.again()
        eventually(lambda: "agents may do nothing until it is mended" in self.troubles() and "none is let in until this is mended" in self.troubles())
        self.assertEqual(self.send("POST", "/v1/call", {"name": "echo:echo"}, self.tokens["bob"])[0], 401)

    def test_without_files_nobody_gets_in(self):
        (self.dir / "policy.json").unlink()
        self.begin()
        self.assertEqual(self.v1("bob", "call", {"name": "echo:echo"})[0], 404)
        self.write_policy()
        eventually(lambda: self.v1("bob", "call", {"name": "echo:echo"})[0] == 200)

    def test_what_cannot_be_logged_is_refused(self):
        self.begin()
        self.assertEqual(self.v1("bob", "call", {"name": "echo:echo"})[0], 200)
        # a file that is too long is moved away, and there is no place where to
        self.write_policy(audit_log={"max_file_mb": 1, "max_files": 2})
        eventually(lambda: "the policy was read" in self.log())
        (self.state / "decisions.jsonl.1").mkdir()
        with open(self.state / "decisions.jsonl", "ab") as log:
            log.truncate(1 << 20)
        self.broker.kill()
        self.broker.wait()
        self.again()
        status, answer, _ = self.v1("bob", "call", {"name": "echo:echo"})
        self.assertEqual((status, answer["status"]), (503, "failed"))
        self.assertIn("broker cannot log", self.rpc("bob", "tools/call", {"name": "echo:echo"}, self.session_of("bob"))["error"]["message"])
        (self.state / "decisions.jsonl.1").rmdir()
        self.assertEqual(self.v1("bob", "call", {"name": "echo:echo"})[0], 200)

    def test_no_state_directory_no_door(self):
        self.state.rmdir()
        self.start_host()
        self.start()
        self.assertIn("agents are not served", self.log())
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", self.door), 5)


class Classes(agents.AgentTest):
    """What class a tool is of, the approved entry says; what it does not say is taken for the worst."""
    policy = {"tool_approval_required": ["exec"], "rate_limits": [], "budgets": {"max_api_calls": 1000}}

    def outcome(self, *actions):
        self.begin(**({"actions": list(actions)} if actions else {}))
        return self.v1("bob", "call", {"name": "echo:echo", "arguments": {"text": "x"}})[0]

    def test_read(self):
        self.assertEqual(self.outcome("exec other", "read echo"), 200)

    def test_exec(self):
        self.assertEqual(self.outcome("exec echo"), 202)

    def test_not_told(self):
        self.assertEqual(self.outcome(), 202)


class Counting(agents.AgentTest):
    LIMIT = 300
    # Each of them lets exactly so many calls pass.
    BOUNDS = {"rate limit": {"rate_limits": [{"tools": ["echo:*"], "max_calls": LIMIT, "window_seconds": 86400}]},
              "rate limit of the agent": {"agents": {"bob": {"allow": ["echo:echo"], "rate_limits": [{"tools": ["*:*"], "max_calls": LIMIT, "window_seconds": 86400}]}}},
              "budget of calls": {"budgets": {"period": "month", "max_api_calls": LIMIT}},
              "budget of money": {"budgets": {"period": "month", "max_cost_usd": LIMIT / 100}, "prices": [{"tools": ["*:*"], "usd_per_call": 0.01}]}}

    def bound(self, name):
        self.write_policy(**{"budgets": {}, **self.BOUNDS[name]})
        self.begin()

    def burst(self, n, name="echo:echo", arguments=None):
        """n calls by 64 callers at once: how each was answered, 0 for those that the broker's death cut off."""
        body = json.dumps({"name": name, "arguments": arguments or {"text": "x"}})
        local, opened = threading.local(), []

        def one(_):
            try:
                if not hasattr(local, "connection"):
                    local.connection = http.client.HTTPConnection("127.0.0.1", self.door, timeout=20)
                    opened.append(local.connection)
                local.connection.request("POST", "/v1/call", body, {**JSON_RPC, "Authorization": f"Bearer {self.tokens['bob']}"})
                answer = local.connection.getresponse()
                answer.read()
                return answer.status
            except (OSError, http.client.HTTPException):
                local.connection.close()
                return 0
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(one, range(n)))
        for connection in opened:
            connection.close()
        return answers

    def allowed(self):
        return (self.state / "decisions.jsonl").read_text().count('"outcome":"allow"')

    def kill_and_start_again(self):
        self.broker.kill()
        self.broker.wait()
        self.again()
        eventually(lambda: self.v1("bob", "describe", {"name": "echo:echo"})[0] == 200)

    def test_exactly_as_many_as_may(self):
        for name in self.BOUNDS:
            with self.subTest(name):
                self.bound(name)
                answers = self.burst(self.LIMIT + 100)
                self.assertEqual((answers.count(200), answers.count(429)), (self.LIMIT, 100))
                self.end_all()

    def test_exactly_as_many_as_may_over_kills(self):
        """A call that was admitted and cut off counts, one that was not does not: of those the log has all but the one in whose middle a kill came."""
        for name in self.BOUNDS:
            with self.subTest(name):
                self.bound(name)
                done = 0
                for kill in range(3):
                    with concurrent.futures.ThreadPoolExecutor(1) as pool:
                        running = pool.submit(self.burst, self.LIMIT // 4)
                        eventually(lambda kill=kill: self.allowed() > (2 * kill + 1) * self.LIMIT // 10)
                        self.broker.kill()
                        done += running.result().count(200)
                    self.kill_and_start_again()
                rest = self.burst(self.LIMIT + 100)
                done += rest.count(200)
                self.assertEqual(set(rest), {200, 429})
                self.assertLessEqual(done, self.LIMIT)
                self.assertLessEqual(self.allowed(), self.LIMIT)
                self.assertGreaterEqual(self.allowed(), self.LIMIT - 3)
                self.kill_and_start_again()
                self.assertEqual(set(self.burst(100)), {429})
                self.end_all()


class Tokens(Counting):
    """What a call uses is known when it is over. Until then what is reserved for it counts, so that many at once do not use more than there is either."""
    agents = {"bob": {"allow": ["any:costs", "echo:echo"]}}
    USED, RESERVED = 100, 104  # as the server reports them; arguments of 14 bytes, and reserve_tokens
    MAX = 20000
    BOUNDS = {"budget of tokens": {"budgets": {"period": "month", "max_tokens": MAX, "reserve_tokens": 100}},
              "budget of money": {"budgets": {"period": "month", "max_cost_usd": MAX / 1000, "reserve_tokens": 100}, "prices": [{"tools": ["*:*"], "usd_per_1000_tokens": 1}]}}

    def bound(self, name):
        self.more_entries = [{"name": "any", "transport": "stdio", "command": [sys.executable, "-B", str(pathlib.Path(__file__).resolve().parent / "any_server.py"), os.devnull, "costs"]}]
        super().bound(name)
        eventually(lambda: self.v1("bob", "describe", {"name": "any:costs"})[0] == 200)

    def use(self, n):
        return self.burst(n, "any:costs", {"tokens": self.USED})

    def use_up(self):
        """One after the other, until there is nothing left."""
        answers = []
        while not answers or answers[-1] == 200:
            answers += self.use(1)
        self.assertEqual(answers[-1], 429)
        return len(answers) - 1

    def used(self, done):
        """By all calls that ended; the end of the last one is written behind its answer."""
        ends = lambda: [d["tokens"] for d in self.decisions() if d["event"] == "end"]
        return sum(eventually(lambda: len(ends()) >= done and ends()))

    def test_exactly_as_many_as_may(self):
        for name in self.BOUNDS:
            with self.subTest(name):
                self.bound(name)
                done = self.use(self.MAX // self.USED + 100).count(200)
                done += self.use_up()
                self.assertEqual(self.used(done), done * self.USED)
                self.assertEqual(done, (self.MAX - self.RESERVED) // self.USED + 1)
                self.kill_and_start_again()
                self.assertEqual(set(self.use(100)), {429})
                self.end_all()

    def test_exactly_as_many_as_may_over_kills(self):
        """What was under way at a kill has used what was reserved for it: more than it may have used, never less."""
        for name in self.BOUNDS:
            with self.subTest(name):
                self.bound(name)
                for _ in range(3):
                    before = self.allowed()
                    with concurrent.futures.ThreadPoolExecutor(1) as pool:
                        running = pool.submit(self.use, 60)
                        eventually(lambda before=before: self.allowed() > before + 20)
                        self.broker.kill()
                        running.result()
                    self.kill_and_start_again()
                self.use(self.MAX // self.USED)
                self.use_up()
                # One look at the log: ends are written behind their answers, some of them perhaps now.
                log = self.decisions()
                ended = [d["tokens"] for d in log if d["event"] == "end"]
                cut = [d.get("outcome") for d in log].count("allow") - len(ended)
                # Of what ended, the last lines before a kill may be lost; then it is among those that were cut off, and used less than was reserved.
                self.assertLessEqual(sum(ended) + cut * self.USED, self.MAX)
                # The log may lack the line in whose middle a kill came.
                self.assertGreater(sum(ended) + (cut + 3) * self.RESERVED, self.MAX - self.RESERVED)
                self.kill_and_start_again()
                self.assertEqual(set(self.use(100)), {429})
                self.end_all()


if __name__ == "__main__":
    unittest.main()
