#!/usr/bin/env -S python3 -B
"""`compose export`: only what is approved, every limit of it, texts that Compose leaves alone, and a file that docker-compose takes."""
import ipaddress
import json
import pathlib
import shutil
import subprocess
import unittest

import yaml
from cli_host import CliTest, digest

HARDENED = {
    "user": "65532:65532", "read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true", "seccomp:./seccomp.json"], "mem_limit": 64 << 20, "memswap_limit": 64 << 20,
    "cpus": 0.25, "pids_limit": 33, "shm_size": 16 << 20, "ipc": "private", "init": True, "restart": "no", "oom_score_adj": 500, "stdin_open": True, "stop_grace_period": "10s",
    "ulimits": {"core": {"soft": 0, "hard": 0}, "nofile": {"soft": 1024, "hard": 4096}}, "logging": {"driver": "none"}, "healthcheck": {"disable": True}, "dns_search": ["."],
    "tmpfs": ["/tmp:rw,noexec,nosuid,nodev,size=8388608,mode=1777,uid=65532,gid=65532"], "sysctls": {"net.ipv6.conf.all.disable_ipv6": "1"},
}
NASTY = ["$HOME", "${HOME:?no}", "$$", "a\nb: c", "# no comment", "'\"", "yes", "\u2028", "- x", "{}", "\\"]
ECHO = [{"name": "echo", "description": "says it back", "inputSchema": {"type": "object"}}]


class Compose(CliTest):
    def approved(self, *options, server="echo"):
        proposal = self.run_cli("propose", server, "--image", "127.0.0.1:5000/mcp/echo:1.0@" + digest("echo"), *options).out.strip()
        self.add_files({f"{server}/{proposal}.smoke.json": self.evidence(proposal, ECHO)})
        approval = self.run_cli("--json", "approve", proposal, "--key", self.key, "--yes").json()["id"]
        self.run_cli("promote", approval)
        return approval

    def export(self, *args):
        return yaml.safe_load(self.run_cli("compose", "export", *args).out)

    def test_every_limit(self):
        self.approved("--memory", "64m", "--cpus", "0.25", "--pids", "33", "--tmpfs", "8m", "--arg", "stdio")
        file = self.export()
        service = file["services"]["echo"]
        self.assertEqual(list(file["services"]), ["echo"])
        self.assertEqual({key: service.get(key) for key in HARDENED}, HARDENED)
        self.assertEqual((service["image"], service["command"], service["hostname"]), ("127.0.0.1:5000/mcp/echo:1.0@" + digest("echo"), ["stdio"], "echo"))
        for key in ("cap_add", "privileged", "ports", "volumes", "labels", "container_name", "network_mode", "pid", "devices", "environment"):
            self.assertNotIn(key, service)
        network, = file["networks"].values()
        pool, = network["ipam"]["config"]
        subnet = ipaddress.ip_network(pool["subnet"])
        self.assertEqual((network["internal"], network["driver"], subnet.prefixlen), (True, "bridge", 29))
        self.assertEqual(network["driver_opts"]["com.docker.network.bridge.enable_icc"], "false")
        hosts = list(subnet.hosts())
        self.assertEqual((pool["gateway"], service["dns"], service["networks"]), (str(hosts[0]), [str(hosts[0])], {"echo": {"ipv4_address": str(hosts[1])}}))

    def test_sharing(self):
        """Here one container serves all; a reader has to be told where that is not what was approved."""
        entry = self.dir / "entry.json"
        for sharing in ("shared", "per-session"):
            entry.write_text(json.dumps({"source": "docker_image", "image": "127.0.0.1:5000/mcp/echo:1.0@" + digest("echo"), "transport": "stdio", "sharing": sharing}))
            proposal = self.run_cli("propose", "echo", "--entry", str(entry)).out.strip()
            self.add_files({f"echo/{proposal}.smoke.json": self.evidence(proposal, ECHO)})
            self.run_cli("promote", self.run_cli("--json", "approve", proposal, "--key", self.key, "--yes").json()["id"])
            self.assertEqual("# echo: ONE CONTAINER FOR ALL HERE" in self.run_cli("compose", "export").out, sharing == "per-session")

    def test_what_a_server_has_besides(self):
        where = self.dir / "roots"
        where.mkdir()
        self.write_conf(f"mounts:\n  roots: [{where}]\nruntimes: [runsc]\n")
        entry = self.dir / "entry.json"
        entry.write_text(json.dumps({
            "source": "docker_image", "image": "127.0.0.1:5000/mcp/echo:1.0@" + digest("echo"), "transport": "streamable-http", "port": 3000, "runtime": "runsc", "entrypoint": ["/server", "$x"],
            "env": {"A": "$b"}, "secrets": ["TOKEN"], "mounts": [{"source": f"{where}/data", "target": "/data"}], "egress": [{"cidr": "192.0.2.0/24", "ports": [443]}]}))
        proposal = self.run_cli("propose", "echo", "--entry", str(entry)).out.strip()
        self.add_files({f"echo/{proposal}.smoke.json": self.evidence(proposal, ECHO)})
        self.run_cli("promote", self.run_cli("--json", "approve", proposal, "--key", self.key, "--yes").json()["id"])
        text = self.run_cli("compose", "export").out
        service = yaml.safe_load(text)["services"]["echo"]
        self.assertEqual(service["environment"], ["A=$$b", "TOKEN"])
        self.assertEqual((service["entrypoint"], service["runtime"]), (["/server", "$$x"], "runsc"))
        self.assertEqual(service["volumes"], [{"type": "bind", "source": f"{where}/data", "target": "/data", "read_only": True, "bind": {"propagation": "rprivate"}}])
        self.assertEqual(service["logging"], {"driver": "local", "options": {"max-size": "8m", "max-file": "2"}})
        self.assertNotIn("stdin_open", service)
        self.assertIn("# echo: approved way out: tcp 192.0.2.0/24:443\n", text)
        # An allow-list without the kernel's rules is none.
        self.assertIs(yaml.safe_load(text)["networks"]["echo"]["internal"], True)
        opened = self.run_cli("compose", "export", "--open").out
        self.assertIs(yaml.safe_load(opened)["networks"]["echo"]["internal"], False)
        self.assertIn("WITHOUT THE KERNEL'S RULES", opened)
        self.assertNotIn("WITHOUT THE KERNEL'S RULES", text)

    def test_only_what_is_approved(self):
        self.write_registry({name: {"source": "docker_image", "image": "127.0.0.1:5000/x@" + digest("x"), "transport": "stdio", "enabled": name != "off"} for name in ("new", "off")})
        self.assertIn("no server is approved", self.run_cli("compose", "export", code=1).err)
        approval = self.approved()
        text = self.run_cli("compose", "export").out
        self.assertEqual(list(yaml.safe_load(text)["services"]), ["echo"])
        self.assertRegex(text, "# new: left out: unapproved")
        self.assertRegex(text, "# off: left out: it is not enabled")
        self.assertRegex(text, f"# echo: approved by .*{approval}")
        self.assertEqual(list(self.export("echo")["services"]), ["echo"])
        self.assertIn("unapproved", self.run_cli("compose", "export", "echo", "new", code=2).err)
        self.assertIn("no server is called", self.run_cli("compose", "export", "nobody", code=1).err)
        self.assertEqual(self.run_cli("compose", "export", "--json").json(), yaml.safe_load(text))
        self.run_cli("revoke", approval, "--key", self.key, "--reason", "test")
        self.assertIn("no server is approved", self.run_cli("compose", "export", code=1).err)

    def test_options(self):
        self.approved()
        self.approved(server="other")
        file = self.export("--pool", "198.18.0.0/24", "--seccomp", "/etc/x y.json")
        self.assertEqual(sorted(n["ipam"]["config"][0]["subnet"] for n in file["networks"].values()), ["198.18.0.0/29", "198.18.0.8/29"])
        self.assertIn("seccomp:/etc/x y.json", file["services"]["echo"]["security_opt"])
        self.assertIn("defaultAction", json.loads(self.run_cli("compose", "seccomp").out))
        self.assertIn("198.18", self.run_cli("compose", "export", "--pool", "198.18.0.0", code=1).err)

    @unittest.skipUnless(shutil.which("docker-compose"), "docker-compose is not installed")
    def test_docker_compose_takes_it(self):
        self.approved(*(x for i, text in enumerate(NASTY) if "\n" not in text for x in ("--env", f"E{i}={text}")), *(x for text in NASTY if "\n" not in text for x in ("--arg", text)))
        (self.dir / "docker-compose.yml").write_text(self.run_cli("compose", "export").out)
        (self.dir / "seccomp.json").write_text(self.run_cli("compose", "seccomp").out)
        done = subprocess.run(["docker-compose", "config"], cwd=self.dir, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        # Its answer escapes dollars again, so that it could be read once more.
        service = yaml.safe_load(done.stdout)["services"]["echo"]
        plain = [text for text in NASTY if "\n" not in text]
        self.assertEqual([text.replace("$$", "$") for text in service["command"]], plain)
        self.assertEqual({k: v.replace("$$", "$") for k, v in service["environment"].items()}, {f"E{NASTY.index(text)}": text for text in plain})
        self.assertEqual(pathlib.Path(service["security_opt"][1].removeprefix("seccomp:")).name, "seccomp.json")


if __name__ == "__main__":
    unittest.main(verbosity=1)
