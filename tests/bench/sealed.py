"""What a call of a sealed server costs: the real controller and broker on the real Engine, against a container made alike that the client is attached to itself, by the
Engine's own attach stream. Part of gateway.py; needs a rig (run.sh sees to it)."""
import contextlib
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
from figures import say  # noqa: E402
from gateway import LEGACY, MODERN, RELAY, WARMUP, Processes, free_port, interleave, load, show_added, show_throughput, wait_for, with_cpu  # noqa: E402
from host import TOKEN, Host  # noqa: E402
from rig import body_of  # noqa: E402


@contextlib.contextmanager
def twin(host, server):
    """The id of a container like that server's, which nobody is attached to, and whose input stays open when a client leaves."""
    api = host.rig.api
    body = body_of(host.container(server))
    body.update(StdinOnce=False, Labels={"bench": "sealed"})
    body["HostConfig"]["NetworkMode"] = "none"
    made = api.call("POST", "/containers/create", body)["Id"]
    try:
        api.call("POST", f"/containers/{made}/start")
        yield made
    finally:
        api.remove(made)


def bench(rounds, calls):
    say("\nA sealed server on the Engine, over the Engine's attach stream")
    with Host() as host, Processes() as p:
        host.start()
        host.approve("echo", host.entry("mcp/echo:1"))
        host.wait_state("echo", "running")
        host.start_broker()
        attached = ("attach", host.rig.engine_socket, p.enter_context(twin(host, "echo")))
        relay_port = free_port()
        wait_for(relay_port, p.start(RELAY, "tcp", relay_port, *attached))

        def gateway(o):
            return load([*o, "--header", f"Authorization: Bearer {TOKEN}"], "http", f"{host.gateway.place[0]}:{host.gateway.place[1]}/servers/echo/mcp", via=host.rig.in_host())
        for title, era in (("legacy", LEGACY), ("modern", MODERN)):
            o = ["--calls", calls // 2, *era]
            show_added(title, interleave(rounds, direct=lambda: load(o, *attached), relay=lambda: load([*o, "--framed"], "tcp", relay_port), gateway=lambda: gateway(o)))
        o = ["--in-flight", 32, "--calls", calls // 2]
        show_throughput("32 clients", interleave(max(rounds // 2, 1), direct=lambda: load(o, *attached),
                                                 gateway=lambda: with_cpu(host.broker.pid, 32 * (calls // 2 + WARMUP), lambda: gateway(o))))
