"""Many clients, many servers, and one server that keeps crashing: no answer lost, crossed or given twice, memory flat, nothing left over."""
import json
import os
import pathlib
import subprocess
import threading
import time
import unittest

from brokered import BUILD, Gateway, Refused, fixture, http_server, stdio
from rig import eventually

SERVERS = 8
CLIENTS = 8  # of each
CALLS = 1000  # of each
CRASHES_EVERY_S = 1.0


class Load(unittest.TestCase):
    limit = 240

    def entries(self):
        """Every second one by HTTP; the last one is the one that crashes."""
        for n in range(SERVERS):
            if n % 2:
                yield stdio(f"server{n}", fixture("mcp_echo"))
            else:
                yield http_server(f"server{n}", 17200 + n, fixture("mcp_echo"), "--http", 17200 + n)

    @staticmethod
    def modern(number):
        return number % 4 < 2

    def steady_load(self, gateway, number):
        """A checking client in C: it fails at the first answer that is not its own."""
        argv = [str(BUILD / "tests/bench/load_client"), "--in-flight", str(CLIENTS), "--calls", str(CALLS), *(["--modern"] if self.modern(number) else []),
                "http", f"{gateway.address}/servers/server{number}/mcp"]
        return subprocess.Popen(gateway.rig.in_host(*argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def shaken_client(self, gateway, number, outcomes):
        """One client of the server that crashes: every call is answered once, with its own text or with an error that says to try again."""
        path = f"/servers/server{SERVERS - 1}/mcp"
        client = gateway.client(path)
        for n in range(CALLS):
            text = f"client {number} call {n}"
            try:
                outcome = client.tool("echo", text=text)
                outcomes.append("answered" if outcome == text else f"crossed: {text} got {outcome}")
            except Refused as e:
                outcomes.append("refused" if "error" in vars(e) and e.error["message"] else f"unclear: {e}")
        client.close()

    def crash(self, gateway, over, crashes):
        name = f"server{SERVERS - 1}"
        while not over.wait(CRASHES_EVERY_S):
            gateway.tell("kill", name)
            crashes.append(time.monotonic())

    def test_two_hundred_servers_behind_one_endpoint(self):
        """More than a legacy session may have calls under way: one list has all of them, and calls find their way."""
        names = [f"s{n:03}" for n in range(200)]
        with Gateway(*(stdio(name, fixture("mcp_echo")) for name in names)) as gateway:
            def complete():
                with gateway.client() as client:
                    listed = client.names()
                    self.assertEqual(client.tool("s199__echo", text="last"), "last")
                return {f"{name}__echo" for name in names} <= set(listed)
            eventually("all of them are listed", 60, complete)
            self.assertLessEqual({f"{name}__echo" for name in names}, set(gateway.names()))

    def test_sixty_four_clients(self):
        with Gateway(*self.entries()) as gateway:
            for n in range(SERVERS):
                gateway.event("up", name=f"server{n}")
                eventually(f"server{n} answers", 10, lambda n=n: gateway.call(f"/servers/server{n}/mcp", "echo", {"text": "x"}))
            before, descriptors, local = gateway.memory(), gateway.descriptors(), gateway.local_sockets()
            over, crashes, outcomes = threading.Event(), [], []
            clients = [self.steady_load(gateway, n) for n in range(SERVERS - 1)]
            threads = [threading.Thread(target=self.shaken_client, args=(gateway, n, outcomes)) for n in range(CLIENTS)]
            crasher = threading.Thread(target=self.crash, args=(gateway, over, crashes))
            for t in [*threads, crasher]:
                t.start()
            peak = 0
            while any(t.is_alive() for t in threads):
                peak = max(peak, gateway.memory())
                time.sleep(0.2)
            over.set()
            crasher.join()
            print(f"        {len(crashes)} crashes, {outcomes.count('answered')} answered, {outcomes.count('refused')} refused, "
                  f"memory {before >> 10} KiB before, {peak >> 10} KiB at most", flush=True)
            for number, client in enumerate(clients):
                out, err = client.communicate(timeout=120)
                self.assertEqual(client.returncode, 0, f"server{number}: {err}")
                self.assertEqual(json.loads(out)["calls"], CLIENTS * CALLS)
            self.assertGreaterEqual(len(crashes), 2)
            self.assertEqual(len(outcomes), CLIENTS * CALLS)
            self.assertEqual([x for x in outcomes if x not in ("answered", "refused")][:5], [])
            self.assertGreater(outcomes.count("answered"), CLIENTS * CALLS // 2)
            self.assertLess(peak - before, 16 << 20, "private dirty memory under load")
            self.nothing_left(gateway, before, descriptors, local)

    def nothing_left(self, gateway, before, descriptors, local):
        def over():
            metrics = gateway.metrics()
            left = {k: v for k, v in metrics.items() if v and ("in_flight" in k or k == "bulkhead_sessions")}
            assert not left, left
            # The one that asks.
            assert gateway.descriptors() <= descriptors + 1, f"{gateway.descriptors()} descriptors, {descriptors} before"
            # Exactly: among all of them a few that are left over hide behind idle connections that have been closed.
            assert gateway.local_sockets() == local, f"{gateway.local_sockets()} local sockets, {local} before"
            return True
        eventually("nothing is left over", 20, over)
        eventually(f"memory is given back: {before} before", 30, lambda: gateway.memory() - before < 4 << 20)
        host = gateway.host.pid
        children = pathlib.Path(f"/proc/{host}/task/{host}/children").read_text().split()
        alive = [c for c in children if os.path.exists(f"/proc/{c}/exe") and os.readlink(f"/proc/{c}/exe").endswith("mcp_echo")]
        self.assertEqual(len(alive), SERVERS)


if __name__ == "__main__":
    unittest.main(verbosity=2)
