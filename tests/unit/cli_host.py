"""A host in a temporary directory for tests of the bulkhead command: configuration, registry, a signing key, an approvals repository."""
import hashlib
import json
import os
import pathlib
import pty
import shutil
import subprocess
import tempfile
import unittest

PROGRAM = os.path.join(os.environ.get("top_builddir", "."), "bulkhead")
NAMESPACE = "bulkhead-approval@v1"
SPEAKER = "alice@example.org"


def digest(text):
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def json(self):
        return json.loads(self.out)


class CliTest(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="bh-cli-"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.dir.chmod(0o755)
        self.conf = self.dir / "etc" / "bulkhead.conf"
        self.registry = self.dir / "etc" / "registry" / "mcp.servers.json"
        self.policy = self.dir / "etc" / "security_policy.json"
        self.signers = self.dir / "etc" / "allowed_signers"
        self.repository = self.dir / "approvals.git"
        self.socket = self.dir / "control.sock"
        self.conf.parent.mkdir()
        self.write_conf()
        self.key = self.make_key("operator", SPEAKER)
        self.registry.parent.mkdir()
        self.write_registry({})
        self.write_policy({})

    def write_conf(self, more=""):
        if "agents:" not in more:
            more += f"agents:\n  file: {self.dir}/agents.json\n"
        self.conf.write_text(
            f'audience: "test.example"\nregistry: "{self.registry}"\npolicy: "{self.policy}"\n'
            f'approvals:\n  repository: "{self.repository}"\n  allowed_signers: "{self.signers}"\n'
            f'controller:\n  socket: "{self.socket}"\n  state: "{self.dir}/state"\n'
            f'engine:\n  socket: "{self.dir}/no-engine.sock"\n'  # never the machine's own
            f"images:\n  registries: [127.0.0.1:5000]\n{more}"
        )

    def write_registry(self, servers):
        self.registry.write_text(json.dumps({"version": "1.0", "servers": servers}))

    def write_policy(self, content):
        self.policy.write_text(json.dumps({"version": "1.0", **content}))

    def make_key(self, name, principal=None):
        path = self.dir / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path], check=True)
        if principal:
            public = path.with_suffix(".pub").read_text()
            with open(self.signers, "a") as f:
                f.write(f'{principal} namespaces="{NAMESPACE}" {public}')
        return str(path)

    def run_cli(self, *args, code=0, stdin="", env=None):
        done = subprocess.run(
            [PROGRAM, "--config", str(self.conf), *args],
            input=stdin.encode(), capture_output=True, timeout=60, env={**os.environ, **(env or {})},
        )
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        self.assertEqual(result.code, code, f"bulkhead {args}: {result.out}{result.err}")
        return result

    def run_on_terminal(self, *args, answer):
        """Runs with a terminal as standard input, output and error; returns exit code and what was shown."""
        master, slave = pty.openpty()
        process = subprocess.Popen([PROGRAM, "--config", str(self.conf), *args], stdin=slave, stdout=slave, stderr=slave,
                                   env={**os.environ, "TERM": "xterm"}, close_fds=True)
        os.close(slave)
        os.write(master, answer.encode())
        shown = b""
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                break
            if not chunk:
                break
            shown += chunk
        os.close(master)
        return process.wait(timeout=30), shown.decode(errors="replace")

    def git(self, *args, **kwargs):
        return subprocess.run(["git", "-C", str(self.repository), *args], check=True, capture_output=True, **kwargs).stdout

    def files(self):
        if not self.repository.exists() or not self.git("branch", "--list", "main"):
            return []
        return self.git("ls-tree", "-r", "--name-only", "main").decode().split()

    def add_files(self, files, message="by hand"):
        """Commits files (path -> text) as another tool would."""
        tip = self.git("rev-parse", "main").decode().strip()
        lines = [f"commit refs/heads/main\ncommitter x <x@y> 1700000000 +0000\ndata {len(message)}\n{message}\nfrom {tip}\n".encode()]
        for path, text in files.items():
            raw = text.encode()
            lines.append(f"M 100644 inline {path}\ndata {len(raw)}\n".encode() + raw + b"\n")
        self.git("fast-import", "--quiet", "--force", input=b"".join(lines))

    def add_record(self, content, path=None):
        """Commits a record as its author wrote it; JSON is YAML too. Returns its id."""
        ident = "f-" + hashlib.sha256(canonical(content).encode()).hexdigest()[:16]
        self.add_files({path or f"{content['server']}/{ident}.yaml": json.dumps({**content, "id": ident})})
        return ident

    def evidence(self, proposal, tools, passed=True, image=None, **smoke):
        """What a smoke test would have left."""
        manifest = canonical({"instructions": "", "prompts": [], "resources": [], "tools": tools})
        return json.dumps({
            "version": 1,
            "proposal": proposal,
            "image": {
                "reference": "127.0.0.1:5000/mcp/echo:1.0", "digest": image or digest("echo"), "platform": "linux/amd64",
                "image_id": digest("id"), "user": "node", "exposed_ports": ["3000/tcp"], "size": 123456789, "layers": 7,
            },
            "smoke": {
                "passed": passed, "protocol": "2025-11-25", "duration_ms": 812, "at": "2026-11-20T10:00:00Z",
                "tools": sorted(t["name"] for t in tools), "manifest": manifest,
                "manifest_sha256": hashlib.sha256(manifest.encode()).hexdigest(), "stderr_tail": "", **smoke,
            },
        })

    def propose(self, *args):
        return self.run_cli("propose", "echo", "--image", "127.0.0.1:5000/mcp/echo:1.0@" + digest("echo"), *args).out.strip()

    def verify(self, path, principal=SPEAKER):
        """Does ssh-keygen itself accept the record at the tip?"""
        signature = self.dir / "signature"
        signature.write_bytes(self.git("show", f"main:{path}.sig"))
        record = self.git("show", f"main:{path}")
        return subprocess.run(["ssh-keygen", "-Y", "verify", "-n", NAMESPACE, "-I", principal, "-f", self.signers, "-s", signature],
                              input=record, capture_output=True).returncode == 0
