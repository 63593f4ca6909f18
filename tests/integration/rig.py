"""The rig as tests see it: names and paths from the environment, the Engine's API, commands in its namespaces, and what arrived in the far one.

Stands on tests/rig/rig; needs RIG_NAME of a rig that is up (tests/run.sh sees to both)."""
import functools
import http.client
import json
import os
import pathlib
import socket
import subprocess
import time
import urllib.parse

TOP = pathlib.Path(__file__).resolve().parents[2]
TOOL = TOP / "tests/rig/rig"


def eventually(what, seconds, check, pause=0.05):
    """Returns check()'s first true value; fails with `what` and its last value (or exception) after that many seconds."""
    end = time.monotonic() + seconds
    while True:
        last = None
        try:
            last = check()
            if last:
                return last
        except (OSError, AssertionError, KeyError, http.client.HTTPException, subprocess.SubprocessError, json.JSONDecodeError) as e:
            last = e
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s; last: {last!r}")
        time.sleep(pause)


def run(*argv, timeout=60, check=True, input=None, **kw):
    """A program's outcome as text; raises with its whole output when it fails."""
    argv = [str(a) for a in argv]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout, check=False, input=input,
                          stdin=None if input is not None else subprocess.DEVNULL, **kw)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def body_of(container):
    """What makes another container like the one that was inspected, but for its place in a network."""
    body = {k: v for k, v in container["Config"].items() if k != "Domainname"}
    # The Engine tells these and takes none of them back.
    body["HostConfig"] = {k: v for k, v in container["HostConfig"].items() if k not in ("MaskedPaths", "ReadonlyPaths", "ConsoleSize")}
    return body


class EngineError(AssertionError):
    def __init__(self, method, path, status, message):
        super().__init__(f"{method} {path}: {status} {message}")
        self.status = status


class _Connection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("engine", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Engine:
    """The Engine's API, as a foreign hand would use it."""

    def __init__(self, path):
        self.path = path

    def call(self, method, path, body=None, ok=(200, 201, 204, 304), timeout=60, **query):
        connection = _Connection(self.path, timeout)
        try:
            query = {k: json.dumps(v) if isinstance(v, (dict, list)) else v for k, v in query.items()}
            target = path + ("?" + urllib.parse.urlencode(query) if query else "")
            connection.request(method, target, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        finally:
            connection.close()
        if answer.status not in ok:
            raise EngineError(method, path, answer.status, text[:500])
        if answer.headers.get_content_type() == "application/json" and text.count("\n") <= 1:
            return json.loads(text) if text.strip() else None
        return text

    def containers(self, **labels):
        return self.call("GET", "/containers/json", all=1, filters={"label": [f"{k}={v}" for k, v in labels.items()]})

    def inspect(self, container):
        return self.call("GET", f"/containers/{container}/json")

    def networks(self, **labels):
        return self.call("GET", "/networks", filters={"label": [f"{k}={v}" for k, v in labels.items()]})

    def remove(self, container):
        def gone():
            # 409: somebody is removing it already.
            self.call("DELETE", f"/containers/{container}", ok=(204, 404, 409), force=1, v=1)
            return self.call("GET", f"/containers/{container}/json", ok=(200, 404)).get("message")
        eventually(f"container {container} is gone", 20, gone)

    def events(self, since, until=None, **filters):
        """What happened between two times (seconds, as time.time() gives them), from the Engine's own memory of the last 256 events."""
        text = self.call("GET", "/events", since=f"{since:.9f}", until=f"{until or time.time():.9f}", filters=filters)
        if isinstance(text, dict):
            return [text]
        return [json.loads(line) for line in (text or "").splitlines() if line.strip()]

    def execute(self, container, *argv, user=None, timeout=60):
        """Runs a command in a container; returns (exit code, output)."""
        body = {"AttachStdout": True, "AttachStderr": True, "Tty": True, "Cmd": list(argv)}
        if user:
            body["User"] = user
        job = self.call("POST", f"/containers/{container}/exec", body)["Id"]
        output = self.call("POST", f"/exec/{job}/start", {"Detach": False, "Tty": True}, timeout=timeout)
        code = self.call("GET", f"/exec/{job}/json")["ExitCode"]
        return code, (output or "").replace("\r", "")

    def fetch(self, container, address, port=80, seconds=3):
        """The body of http://address:port/ as seen from a container that has busybox; "" when there is no answer."""
        _, output = self.execute(container, "sh", "-c", f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w {seconds} {address} {port}")
        return output.partition("\n\n")[2].strip()

    def pull(self, image):
        self.call("POST", "/images/create", fromImage=image, timeout=180)
        return self.call("GET", f"/images/{image}/json")

    def create(self, name, image, labels=None, host_config=None, command=None):
        """A container that is not ours."""
        self.pull(image)
        body = {"Image": image, "Labels": labels or {}, "HostConfig": host_config or {}}
        if command:
            body["Cmd"] = command
        return self.call("POST", "/containers/create", body, name=name)["Id"]


class Rig:
    def __init__(self):
        text = run(TOOL, "env").stdout
        self.env = dict(line.split("=", 1) for line in text.splitlines())
        for key, value in self.env.items():
            setattr(self, key[4:].lower(), value)
        self.run_dir = pathlib.Path(self.env["RIG_RUN"])
        if not (self.run_dir / "images.json").exists():
            raise AssertionError(f"rig {self.env['RIG_NAME']} is not up: tests/rig/rig up")
        self.engine_socket = self.env["RIG_ENGINE"]
        self.api = Engine(self.engine_socket)
        self.far = Far(self)

    def image(self, name):
        """"mcp/echo:1" -> the reference with its digest."""
        images = json.loads((self.run_dir / "images.json").read_text())
        if name not in images:
            raise AssertionError(f"the rig has no image {name}; it has {', '.join(images)}")
        return images[name]

    def in_host(self, *argv):
        return ["nsenter", f"--net=/run/netns/{self.env['RIG_HOST_NS']}", *argv]

    def in_far(self, *argv):
        return ["nsenter", f"--net=/run/netns/{self.env['RIG_FAR_NS']}", *argv]

    def host(self, *argv, **kw):
        return run(*self.in_host(*argv), **kw)

    def engine_control(self, verb):
        """start, stop, kill (as by SIGKILL) or wait."""
        run(TOOL, "engine", verb, timeout=90)


class Far:
    """The far side of the small internet."""

    def __init__(self, rig):
        self.rig = rig

    def arrived(self):
        """How many packets came from the host's side, of any kind (neighbour discovery aside)."""
        listing = json.loads(run(*self.rig.in_far("nft", "-j", "list", "counter", "inet", "farcount", "arrived")).stdout)
        return next(x["counter"]["packets"] for x in listing["nftables"] if "counter" in x)

    def seen(self):
        """{(address, protocol, port or None): packets}"""
        found = {}
        for name in ("seen4", "seen6", "other4", "other6"):
            listing = json.loads(run(*self.rig.in_far("nft", "-j", "list", "set", "inet", "farcount", name)).stdout)
            for item in next(x["set"] for x in listing["nftables"] if "set" in x).get("elem", []):
                key = item["elem"]["val"]["concat"]
                found[(key[0], key[1], key[2] if len(key) > 2 else None)] = item["elem"]["counter"]["packets"]
        return found

    def contacts(self):
        """What the listeners heard, oldest first."""
        log = self.rig.run_dir / "far.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@functools.lru_cache(maxsize=1)
def rig():
    return Rig()
