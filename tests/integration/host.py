"""One Bulkhead on the rig's host: configuration, signing key, approvals repository, registry file, controller, broker, and the command line as an operator
types it.

    with Host() as host:
        host.start()
        host.approve("echo", host.entry("mcp/echo:1"))
        host.wait_state("echo", "running")

A host owns everything that carries its label, and the kernel's rules: only one can be up at a time. close() ends and removes all of it."""
import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import time

import yaml

from callers import Port
from rig import eventually, rig, run

ROOT = pathlib.Path(os.environ.get("BULKHEAD_ROOT", "/"))
PRINCIPAL = "alice@example.org"
NAMESPACE = "bulkhead-approval@v1"
CAPS = "+net_admin,+net_raw,+net_bind_service"
TOKEN = "the operator's token"
_numbers = itertools.count(1)


def canonical(value):
    """RFC 8785, as far as records go."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class _Loader(yaml.SafeLoader):
    """Times stay text: a record's id is made from what is written."""


_Loader.yaml_implicit_resolvers = {k: [(tag, exp) for tag, exp in v if tag != "tag:yaml.org,2002:timestamp"]
                                   for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}


class Host:
    def __init__(self, conf=None, engine_socket=None, prototype=None, audience=None):
        """conf: settings by their dotted name, over the defaults. prototype: a host whose keys, records and registry file this one starts with."""
        self.rig = rig()
        self.number = next(_numbers)
        self.name = f"h{os.getpid() % 10000}-{self.number}"
        self.dir = self.rig.run_dir / "instances" / self.name
        self.audience = audience or (prototype.audience if prototype else f"{self.name}.example.org")
        self.conf_path = self.dir / "bulkhead.conf"
        self.registry_path = self.dir / "registry/mcp.servers.json"
        self.repository = self.dir / "approvals.git"
        self.key = self.dir / "key"
        self.log_path = self.dir / "controller.log"
        self.broker_log_path = self.dir / "broker.log"
        self.state_dir = self.dir / "state"
        # In a folder of its own, as everything that is watched: what a test writes beside it must not wake the controller.
        self.allowed_signers = self.dir / "trust/allowed_signers"
        self.settings = {
            "audience": self.audience,
            "registry": str(self.registry_path),
            "approvals.repository": str(self.repository),
            "approvals.allowed_signers": str(self.allowed_signers),
            "engine.socket": engine_socket or self.rig.engine_socket,
            "controller.user": self.rig.env["RIG_USER"],
            "controller.socket": str(self.dir / "control/control.sock"),
            "controller.state": str(self.state_dir),
            "control.operators": self.rig.env["RIG_OPERATORS"],
            "control.readers": self.rig.env["RIG_OPERATORS"],
            "network.broker_user": self.rig.env["RIG_BROKER"],
            "link.socket": str(self.dir / "link/link.sock"),
            "gateway.token": str(self.dir / "gateway.token.sha256"),
            # Agents are not served until a test says so; and nothing of a Bulkhead that this machine may have is looked at.
            "broker.state": str(self.dir / "none"),
            "agents.file": str(self.dir / "agents.json"),
            "agents.key": str(self.dir / "agents.key"),
            "policy": str(self.dir / "policy.json"),
            "images.registries": [self.rig.env["RIG_REGISTRY"]],
            "smoke.timeout": "30s",
            "helpers": str(ROOT / "usr/libexec/bulkhead"),
        }
        self.settings.update(conf or {})
        self.controller = self.broker = None
        self.began = time.time()
        self._make(prototype)

    # -- files ---------------------------------------------------------------------------------------------------------
    def _make(self, prototype):
        self.dir.mkdir(parents=True, mode=0o755)
        user = pwd.getpwnam(self.rig.env["RIG_USER"])
        for name, mine in (("registry", False), ("trust", False), ("state", True), ("control", True), ("link", True)):
            (self.dir / name).mkdir(mode=0o755)
            if mine:
                os.chown(self.dir / name, user.pw_uid, user.pw_gid)
        (self.dir / "gateway.token.sha256").write_text(hashlib.sha256(TOKEN.encode()).hexdigest() + "\n")
        self.write_conf()
        if prototype:
            for name in ("key", "key.pub", "trust/allowed_signers", "registry/mcp.servers.json"):
                shutil.copy2(prototype.dir / name, self.dir / name)
            shutil.copytree(prototype.repository, self.repository)
        else:
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", self.key)
            public = (self.dir / "key.pub").read_text().split()
            self.allowed_signers.write_text(f"{PRINCIPAL} {public[0]} {public[1]}\n")
            self.write_registry({})
            run("git", "init", "-q", "--bare", "-b", "main", self.repository)

    def write_conf(self, **extra):
        self.settings.update(extra)
        tree = {}
        for key, value in self.settings.items():
            if value is None:
                continue
            node = tree
            *parents, last = key.split(".")
            for p in parents:
                node = node.setdefault(p, {})
            node[last] = value
        # JSON is YAML.
        self.conf_path.write_text(json.dumps(tree, indent=1) + "\n")

    def read_registry(self):
        return json.loads(self.registry_path.read_text())["servers"]

    def write_registry(self, servers):
        self.write_registry_text(json.dumps({"version": "1.0", "servers": servers}, indent=2) + "\n")

    def write_registry_text(self, text):
        new = self.registry_path.with_suffix(".new")
        new.write_bytes(text.encode() if isinstance(text, str) else text)
        new.chmod(0o644)
        new.rename(self.registry_path)

    def change_entry(self, server, **changes):
        servers = self.read_registry()
        servers[server].update(changes)
        self.write_registry(servers)

    def entry(self, image, **more):
        return {"description": "a test's server", "enabled": True, "source": "docker_image", "image": self.rig.image(image), "transport": "stdio", **more}

    # -- controller ----------------------------------------------------------------------------------------------------
    def _program(self, name):
        for folder in ("usr/sbin", "usr/bin"):
            if (ROOT / folder / name).exists():
                return str(ROOT / folder / name)
        raise AssertionError(f"{name} is not below {ROOT}")

    def controller_argv(self, *args):
        group = os.stat(self.rig.engine_socket).st_gid
        user = self.rig.env["RIG_USER"]
        return self.rig.in_host("setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={group}", f"--inh-caps=-all,{CAPS}", f"--ambient-caps={CAPS}",
                                f"--bounding-set=-all,{CAPS}", "--no-new-privs", self._program("bulkhead-controller"), "--config", str(self.conf_path), *args)

    def start(self, init=True, wait=True):
        if init:
            self.init_state()
        log = open(self.log_path, "ab")
        self.controller = subprocess.Popen(self.controller_argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        log.close()
        self._record("controller", self.controller)
        if wait:
            eventually(f"the controller answers (log: {self.log_tail()})", 15, self.answers)
        return self

    def _record(self, name, process):
        """So that the rig's end finds it, whatever becomes of us."""
        stat = pathlib.Path(f"/proc/{process.pid}/stat").read_text()
        (self.dir / f"{name}.pid").write_text(f"{process.pid} {stat.rsplit(')', 1)[1].split()[19]}\n")

    def init_state(self):
        """A new host's first step, as quickstart does it; harmless when done before."""
        run(*self.controller_argv("--init-state"))

    def answers(self):
        if self.controller.poll() is not None:
            raise RuntimeError(f"controller ended with {self.controller.returncode}:\n{self.log_tail()}")
        return self.cli("status", "--json", check=False).returncode == 0

    @staticmethod
    def _end(name, process, how):
        if process and process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
                raise AssertionError(f"the {name} did not end within 10 s of SIGTERM") from None

    def stop(self, how=signal.SIGTERM):
        process, self.controller = self.controller, None
        self._end("controller", process, how)

    def kill(self):
        self.stop(signal.SIGKILL)

    def alive(self):
        return self.controller is not None and self.controller.poll() is None

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, n=30):
        return "\n".join(self.log().splitlines()[-n:])

    # -- broker --------------------------------------------------------------------------------------------------------
    def start_broker(self, linked=True):
        """bulkhead-broker as its unit runs it: no group, no capability, nothing to be gained by exec. linked: until the controller told it all."""
        user = self.rig.env["RIG_BROKER"]
        with open(self.broker_log_path, "ab") as log:
            self.broker = subprocess.Popen(self.rig.in_host("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all",
                                                            "--no-new-privs", self._program("bulkhead-broker"), "--config", str(self.conf_path)),
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._record("broker", self.broker)
        if linked:
            self.wait_linked()
        return self

    def wait_linked(self, seconds=15):
        def check():
            if self.broker.poll() is not None:
                raise RuntimeError(f"broker ended with {self.broker.returncode}:\n{self.broker_log()}")
            status, _, text = self.gateway.request("GET", "/readyz")
            return status == 200 and json.loads(text)["controller"] == "connected"
        eventually("the broker is linked", seconds, check)

    def stop_broker(self, how=signal.SIGTERM):
        process, self.broker = self.broker, None
        self._end("broker", process, how)

    def broker_log(self):
        return self.broker_log_path.read_text(errors="replace") if self.broker_log_path.exists() else ""

    @property
    def gateway(self):
        """Its port, with the operator's token."""
        return Port(self.settings.get("gateway.listen", "127.0.0.1:8080"), TOKEN)

    # -- command line --------------------------------------------------------------------------------------------------
    def cli(self, *args, check=True, timeout=60, input=None, user=None):
        prefix = []
        if user:
            prefix = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return run(*self.rig.in_host(*prefix, self._program("bulkhead"), "--config", str(self.conf_path), *args), check=check, timeout=timeout, input=input)

    def json(self, *args, **kw):
        return json.loads(self.cli(*args, "--json", **kw).stdout)

    def status(self):
        return self.json("status")

    def server(self, name):
        return next((s for s in self.status()["servers"] if s["name"] == name), None)

    def plan(self):
        done = self.cli("plan", "--json", check=False)
        if done.returncode not in (0, 2):
            raise AssertionError(f"plan: exit {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def plan_is_empty(self):
        return self.cli("plan", check=False).returncode == 0

    def wait_state(self, name, state, seconds=20):
        def check():
            server = self.server(name)
            if server and server["state"] == state:
                return server
            raise AssertionError(server)
        try:
            return eventually(f"{name} is {state}", seconds, check)
        except AssertionError as e:
            raise AssertionError(f"{e}\ncontroller's log:\n{self.log_tail()}") from None

    def wait_refused(self, name, verdict=None, seconds=20, words=()):
        """Refused (or whatever it is called) with that verdict, a reason, and no container that runs."""
        def check():
            server = self.server(name)
            if not server or server["state"] not in ("refused", "quarantined", "blocked") or not server.get("why"):
                raise AssertionError(server)
            if verdict and server.get("verdict") != verdict:
                raise AssertionError(server)
            if not all(w in server["why"] for w in words):
                raise AssertionError(server)
            return server
        return eventually(f"{name} is refused with {verdict} {words}", seconds, check)

    def settle(self, seconds=30):
        """Until there is nothing left to do."""
        def check():
            done = self.cli("plan", check=False)
            if done.returncode != 0:
                raise AssertionError(f"plan: exit {done.returncode}: {done.stdout}{done.stderr}")
            return True
        try:
            eventually("an empty plan", seconds, check, pause=0.1)
        except AssertionError as e:
            raise AssertionError(f"{e}\ncontroller's log:\n{self.log_tail()}") from None

    # -- forge ---------------------------------------------------------------------------------------------------------
    def propose(self, server, entry):
        return self.json("propose", server, "--entry", "-", "--by", "agent-1", "--reason", "a test", input=json.dumps(entry))["id"]

    def approve(self, server, entry, expires="24h", promote=True):
        """The whole way from proposal to registry. Returns the approval's id."""
        proposal = self.propose(server, entry)
        self.cli("smoke", proposal, timeout=120)
        self.cli("approve", proposal, "--key", self.key, "--expires", expires, "--yes")
        if promote:
            self.cli("promote", proposal)
        return self.approval(server)["id"]

    # -- records, by hand ----------------------------------------------------------------------------------------------
    def git(self, *args, input=None, **kw):
        return run("git", "-c", "safe.directory=*", "--git-dir", self.repository, *args, input=input,
                   env={**os.environ, "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.org",
                        "GIT_INDEX_FILE": str(self.dir / "index")}, **kw).stdout.strip()

    def tip(self):
        return self.git("rev-parse", "refs/heads/main")

    def paths(self):
        return self.git("ls-tree", "-r", "--name-only", "refs/heads/main").splitlines()

    def show(self, path):
        return run("git", "-c", "safe.directory=*", "--git-dir", self.repository, "show", f"refs/heads/main:{path}").stdout

    def records(self, server):
        found = [yaml.load(self.show(p), _Loader) for p in self.paths() if p.startswith(server + "/") and p.endswith(".yaml")]
        return sorted(found, key=lambda r: r["serial"])

    def approval(self, server):
        """The newest one."""
        return [r for r in self.records(server) if r["kind"] == "Approval"][-1]

    def commit(self, files, remove=(), parents=None, message="by hand"):
        """files: {path: bytes, None to take it away, or (mode, object id)}. A commit on top of the branch; returns its id."""
        tip = self.git("rev-parse", "--verify", "-q", "refs/heads/main", check=False)
        base = tip if parents is None else (parents[0] if parents else "")
        with contextlib.suppress(FileNotFoundError):
            (self.dir / "index").unlink()
        if base:
            self.git("read-tree", base)
        if remove:
            self.git("update-index", "--index-info", input="".join(f"0 {'0' * 40}\t{path}\n" for path in remove))
        for path, content in files.items():
            if isinstance(content, tuple):
                mode, obj = content
            else:
                blob = self.dir / "blob"
                blob.write_bytes(content)
                mode, obj = "100644", self.git("hash-object", "-w", str(blob))
            self.git("update-index", "--add", "--cacheinfo", f"{mode},{obj},{path}")
        tree = self.git("write-tree")
        args = ["commit-tree", tree, "-m", message]
        for p in ([tip] if tip else []) if parents is None else parents:
            args += ["-p", p]
        new = self.git(*args)
        self.set_tip(new)
        return new

    def restart_history(self, files):
        """Makes the repository one commit with just these files: what a host sees that has never read it before."""
        return self.commit(files, parents=[])

    def set_tip(self, commit):
        self.git("update-ref", "refs/heads/main", commit)

    def sign(self, data, key=None, namespace=NAMESPACE):
        blob = self.dir / "to-sign"
        blob.write_bytes(data)
        with contextlib.suppress(FileNotFoundError):
            pathlib.Path(f"{blob}.sig").unlink()
        run("ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", key or self.key, blob)
        return pathlib.Path(f"{blob}.sig").read_bytes()

    @staticmethod
    def encode(record):
        """The record's text, with the id that its content gives it."""
        content = {k: v for k, v in record.items() if k != "id"}
        record = {**content, "id": "f-" + hashlib.sha256(canonical(content)).hexdigest()[:16]}
        return record, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()

    def record_files(self, record, key=None, namespace=NAMESPACE, signature=True):
        """{path: bytes} of a record as it is given, right or wrong, and of its signature (True: made now; bytes; None: without)."""
        record, text = self.encode(record)
        path = f"{record['server']}/{record['id']}.yaml"
        files = {path: text}
        if signature is True:
            files[path + ".sig"] = self.sign(text, key, namespace)
        elif signature:
            files[path + ".sig"] = signature
        return files

    def add_record(self, record, **how):
        self.commit(self.record_files(record, **how))
        return self.encode(record)[0]

    def new_key(self, name):
        path = self.dir / name
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path)
        return path

    # -- what the Engine has ---------------------------------------------------------------------------------------------
    def containers(self, role="server"):
        labels = {"io.bulkhead.owner": self.audience}
        if role:
            labels["io.bulkhead.role"] = role
        return self.rig.api.containers(**labels)

    def container(self, server):
        """Full inspect of the one container of a server."""
        found = [c for c in self.containers() if c["Labels"].get("io.bulkhead.server") == server]
        if len(found) != 1:
            raise AssertionError(f"{server} has {len(found)} containers: {[(c['Names'], c['State']) for c in found]}")
        return self.rig.api.inspect(found[0]["Id"])

    def networks(self):
        return self.rig.api.networks(**{"io.bulkhead.owner": self.audience})

    def starts(self, server=None, since=None):
        """Start events of servers (not of smoke tests) that the Engine remembers."""
        events = self.rig.api.events(since or self.began, type=["container"], event=["start"], label=[f"io.bulkhead.owner={self.audience}", "io.bulkhead.role=server"])
        return [e for e in events if server is None or e["Actor"]["Attributes"].get("io.bulkhead.server") == server]

    # -- the end -----------------------------------------------------------------------------------------------------------
    def close(self):
        try:
            self.stop_broker(signal.SIGKILL)
            self.stop(signal.SIGKILL)
            self.clean_engine()
        finally:
            clean_rules(self.rig)
            shutil.rmtree(self.dir, ignore_errors=True)

    def clean_engine(self):
        """Everything that any Bulkhead made: what one test could not remove must not be in the next one's way."""
        api = self.rig.api
        for c in api.call("GET", "/containers/json", all=1, filters={"label": ["io.bulkhead.owner"]}):
            api.remove(c["Id"])
        for n in api.call("GET", "/networks", filters={"label": ["io.bulkhead.owner"]}):
            eventually(f"network {n['Name']} is gone", 10, lambda n=n: api.call("DELETE", f"/networks/{n['Id']}", ok=(204, 404)) or True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if value is not None and self.log():
            print(f"        end of the controller's log:\n{self.log_tail(25)}", flush=True)
        self.close()


def clean_rules(the_rig):
    """Takes a host's kernel rules away, so that the next test starts as after a boot: nft table, our chains and their jumps, our sets."""
    the_rig.host("nft", "delete", "table", "inet", "bulkhead", check=False)
    for tool in ("iptables", "ip6tables"):
        saved = the_rig.host(f"{tool}-save", check=False).stdout
        table = None
        for line in saved.splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith("-A ") and "BULKHEAD" in line:
                the_rig.host(tool, "-w", "-t", table, "-D", *_words(line)[1:], check=False)
        table = None
        for line in saved.splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith(":BULKHEAD"):
                chain = line[1:].split()[0]
                the_rig.host(tool, "-w", "-t", table, "-F", chain, check=False)
                the_rig.host(tool, "-w", "-t", table, "-X", chain, check=False)
    for name in the_rig.host("ipset", "list", "-n", check=False).stdout.split():
        if "bulkhead" in name.lower() or name.startswith("bh"):
            the_rig.host("ipset", "destroy", name, check=False)


def _words(line):
    import shlex
    return shlex.split(line)
