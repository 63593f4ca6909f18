"""Nothing runs without a valid approval, each refusal says why, and a revocation stops what runs."""
import datetime
import json
import time
import unittest

from host import PRINCIPAL, Host
from rig import eventually, rig, run


def at(seconds):
    """RFC 3339, so many seconds from now."""
    t = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return t.strftime("%Y-%m-%dT%H:%M:%SZ")


def setUpModule():
    """One approved server, made once with the command line."""
    global PROTOTYPE  # pylint: disable=global-statement
    PROTOTYPE = Host()
    unittest.addModuleCleanup(PROTOTYPE.close)
    PROTOTYPE.start()
    PROTOTYPE.approve("echo", PROTOTYPE.entry("mcp/echo:1"))
    PROTOTYPE.stop()
    PROTOTYPE.clean_engine()


PROTOTYPE = None


class ApprovalsCase(unittest.TestCase):
    """Every test begins with a copy of the approved server's files, on a host that has seen nothing yet."""
    limit = 90

    def setUp(self):
        self.prototype = PROTOTYPE
        self.approved = PROTOTYPE.approval("echo")

    def host(self, **kw):
        host = self.enterContext(Host(prototype=self.prototype, **kw))
        # No event may be needed for a refusal, and no resync for a revocation: the default interval stays.
        return host

    def changed(self, **changes):
        """The approval with other content and a higher serial; None takes a key away."""
        record = {**self.approved, "serial": self.approved["serial"] + 1, **changes}
        return {k: v for k, v in record.items() if v is not None}

    def changed_source(self, **changes):
        source = {**self.approved["source"], **changes}
        return self.changed(source={k: v for k, v in source.items() if v is not None})

    def refused(self, host, verdict, *words):
        """With the reason in status, and no start of a server's container since the host began."""
        server = host.wait_refused("echo", verdict, words=words)
        time.sleep(0.5)
        self.assertEqual(host.starts(), [], "a container was started")
        self.assertEqual([c for c in host.containers() if c["State"] == "running"], [])
        text = host.cli("status", "echo").stdout
        for word in words:
            self.assertIn(word, text)
        return server


class Accepted(ApprovalsCase):
    """Beside every refusal stands what must work, or the refusals prove nothing."""

    def test_copy_of_the_approved_host_runs(self):
        host = self.host().start()
        server = host.wait_state("echo", "running")
        self.assertEqual(server["approval"], self.approved["id"])
        host.settle()

    def test_hand_written_record_counts(self):
        host = self.host()
        record = host.add_record(self.changed(reason="written by a test"))
        host.start()
        self.assertEqual(host.wait_state("echo", "running")["approval"], record["id"])

    def test_serial_decides_and_not_the_date(self):
        host = self.host()
        older = host.add_record(self.changed(serial=self.approved["serial"] + 9, approved_at="2020-01-01T00:00:00Z"))
        host.add_record(self.changed(serial=self.approved["serial"] + 8, approved_at=at(0)))
        host.start()
        self.assertEqual(host.wait_state("echo", "running")["approval"], older["id"])


class Refused(ApprovalsCase):
    def test_unapproved(self):
        host = self.host()
        host.restart_history({"README": b"nothing\n"})
        host.start()
        self.refused(host, "unapproved")

    def test_proposed_only(self):
        host = self.host()
        proposal = next(r for r in self.prototype.records("echo") if r["kind"] == "Proposal")
        host.restart_history(host.record_files(proposal, signature=None))
        host.start()
        self.refused(host, "unapproved", proposal["id"])

    def test_expired(self):
        host = self.host()
        # Older than its own end, however short ago the first approval was made: else it would be no record at all.
        host.add_record(self.changed(approved_at=at(-60), expires_at=at(-5)))
        host.start()
        self.refused(host, "expired")

    def test_clock_set_back_does_not_revive_an_expired_one(self):
        """Expiry is judged by the latest time this host has seen."""
        host = self.host()
        host.start()
        host.wait_state("echo", "running")
        host.stop()
        host.clean_engine()
        state = host.state_dir / "forge.json"
        text = state.read_text()
        content = json.loads(text)
        key = next(k for k in content if "floor" in k)
        content[key] = int(time.time()) + 40 * 86400 if isinstance(content[key], int) else at(40 * 86400)
        state.write_text(json.dumps(content))
        host.began = time.time()
        host.start()
        self.refused(host, "expired")

    def test_revoked_before_the_start(self):
        host = self.host()
        host.cli("revoke", self.approved["id"], "--key", host.key, "--reason", "a test")
        host.start()
        self.refused(host, "revoked")

    def test_revocation_outlives_a_history_without_it(self):
        host = self.host()
        before = host.tip()
        host.start()
        host.wait_state("echo", "running")
        host.cli("revoke", self.approved["id"], "--key", host.key, "--reason", "a test")
        host.wait_refused("echo", "revoked")
        host.stop()
        host.set_tip(before)
        host.began = time.time()
        host.start()
        self.refused(host, "revoked")

    def test_rejected(self):
        host = self.host()
        proposal = next(r for r in self.prototype.records("echo") if r["kind"] == "Proposal")
        host.restart_history(host.record_files(proposal, signature=None))
        host.cli("reject", proposal["id"], "--key", host.key, "--reason", "too curious")
        host.start()
        self.refused(host, "rejected", "too curious")

    def test_unsigned(self):
        host = self.host()
        host.restart_history(host.record_files(self.changed(), signature=None))
        host.start()
        self.refused(host, "bad-signature", "is not signed")

    def test_signed_by_an_unknown_key(self):
        host = self.host()
        host.restart_history(host.record_files(self.changed(), key=host.new_key("mallory")))
        host.start()
        self.refused(host, "bad-signature", "allowed_signers does not list")

    def test_signed_by_somebody_else_than_it_says(self):
        host = self.host()
        key = host.new_key("bob")
        public = key.with_suffix(".pub").read_text().split()
        with open(host.allowed_signers, "a", encoding="utf-8") as f:
            f.write(f"bob@example.org {public[0]} {public[1]}\n")
        host.restart_history(host.record_files(self.changed(), key=key))
        host.start()
        self.refused(host, "bad-signature", "but approved_by says")

    def test_bob_may_sign_as_bob(self):
        """The same key and file as above, with the name it has: works."""
        host = self.host()
        key = host.new_key("bob")
        public = key.with_suffix(".pub").read_text().split()
        with open(host.allowed_signers, "a", encoding="utf-8") as f:
            f.write(f"bob@example.org {public[0]} {public[1]}\n")
        host.restart_history(host.record_files(self.changed(approved_by="bob@example.org"), key=key))
        host.start()
        host.wait_state("echo", "running")

    def test_signature_for_another_purpose(self):
        host = self.host()
        host.restart_history(host.record_files(self.changed(), namespace="git"))
        host.start()
        self.refused(host, "bad-signature", "does not verify")

    def test_signature_of_another_record(self):
        host = self.host()
        other = host.sign(host.encode(self.changed(reason="another"))[1])
        host.restart_history(host.record_files(self.changed(), signature=other))
        host.start()
        self.refused(host, "bad-signature", "does not verify")

    def test_changed_after_signing(self):
        host = self.host()
        (path, text), (sig_path, sig) = host.record_files(self.changed()).items()
        host.restart_history({path: text.replace(b"agent-1", b"agent-2"), sig_path: sig})
        host.start()
        self.refused(host, "bad-signature", "does not verify")

    def test_revoked_key(self):
        host = self.host()
        (host.allowed_signers.parent / "revoked_keys").write_text((host.dir / "key.pub").read_text())
        host.write_conf(**{"approvals.revoked_keys": str(host.allowed_signers.parent / "revoked_keys")})
        host.start()
        self.refused(host, "bad-signature", "does not verify")

    def test_wildcard_principal_opens_nothing(self):
        host = self.host()
        public = (host.dir / "key.pub").read_text().split()
        host.allowed_signers.write_text(f"* {public[0]} {public[1]}\n")
        host.start()
        self.refused(host, None, "wildcard")

    def test_trust_root_that_others_may_write(self):
        host = self.host()
        host.allowed_signers.chmod(0o666)
        host.start()
        self.refused(host, None, "allowed_signers may be written by others")

    def test_other_host(self):
        host = self.host()
        host.restart_history(host.record_files(self.changed(audience="other.example.org")))
        host.start()
        self.refused(host, "audience-mismatch", "other.example.org")

    def test_other_digest_in_the_registry(self):
        host = self.host()
        # Under the same name, or the name alone would tell them apart.
        host.change_entry("echo", image=rig().image("mcp/echo:1").partition("@")[0] + "@" + rig().image("mcp/echo:2").partition("@")[2])
        host.start()
        self.refused(host, "digest-mismatch")

    def test_other_digest_in_the_record(self):
        host = self.host()
        host.add_record(self.changed_source(digest=rig().image("mcp/echo:2").partition("@")[2]))
        host.start()
        self.refused(host, "digest-mismatch")

    def test_other_image_than_the_record_knows(self):
        host = self.host()
        host.add_record(self.changed_source(image_id="sha256:" + "0" * 64))
        host.start()
        self.refused(host, "spec-mismatch")

    def test_other_platform(self):
        host = self.host()
        host.add_record(self.changed_source(platform="linux/s390x"))
        host.start()
        self.refused(host, "digest-mismatch", "s390x")

    def test_other_platform_digest(self):
        host = self.host()
        host.add_record(self.changed_source(platform_digest="sha256:" + "1" * 64))
        host.start()
        self.refused(host, "spec-mismatch")

    def test_other_entry(self):
        for name, change in {"environment": {"env": {"A": "b"}}, "arguments": {"args": ["--era", "legacy"]},
                             "egress": {"egress": [{"cidr": "192.0.2.0/24", "protocol": "tcp", "ports": [443]}]},
                             "memory": {"resources": {"memory": "1g"}}, "user": {"user": "1000:1000"}, "secrets": {"secrets": ["TOKEN"]}}.items():
            with self.subTest(name), Host(prototype=self.prototype) as host:
                host.change_entry("echo", **change)
                host.start()
                self.refused(host, "entry-mismatch")

    def test_list_that_a_human_read_differs_from_the_entry(self):
        host = self.host()
        host.add_record(self.changed(egress=["tcp 192.0.2.0/24:443"]))
        host.start()
        self.refused(host, "entry-mismatch")

    def test_other_spec(self):
        host = self.host()
        host.add_record(self.changed(spec_sha256="2" * 64))
        host.start()
        self.refused(host, "spec-mismatch")

    def test_other_manifest(self):
        host = self.host()
        host.add_record(self.changed(manifest_sha256="3" * 64))
        host.start()
        server = self.refused(host, None, "manifest")
        self.assertEqual(server["state"], "quarantined")

    def test_rug_pull_at_the_next_host(self):
        """The image offers one more tool once the smoke test of the approval is over."""
        prototype = self.enterContext(Host())
        prototype.start()
        prototype.approve("echo", prototype.entry("mcp/echo:1", args=["--rug-at", str(int(time.time()) + 15)]))
        prototype.stop()
        prototype.clean_engine()
        time.sleep(max(0, 16 - (time.time() - prototype.began)))
        host = self.enterContext(Host(prototype=prototype))
        host.start()
        host.wait_state("echo", "quarantined")
        self.assertEqual(host.starts(), [])


class History(ApprovalsCase):
    def test_work_tree_is_not_read(self):
        """An approval that lies in the work tree, added but not committed, and one on the branch that HEAD names."""
        host = self.host()
        tree = host.dir / "tree"
        proposal = next(r for r in self.prototype.records("echo") if r["kind"] == "Proposal")
        bare = host.tip()
        host.restart_history(host.record_files(proposal, signature=None))
        run("git", "-c", "safe.directory=*", "clone", "-q", "-b", "main", host.repository, tree)
        for path in self.prototype.paths():
            (tree / path).parent.mkdir(exist_ok=True)
            (tree / path).write_text(self.prototype.show(path))
        run("git", "-C", tree, "add", "-A")
        host.git("update-ref", "refs/heads/other", bare)
        run("git", "-C", tree, "-c", "safe.directory=*", "fetch", "-q", "origin", "other:other")
        run("git", "-C", tree, "symbolic-ref", "HEAD", "refs/heads/other")
        host.write_conf(**{"approvals.repository": str(tree / ".git")})
        host.start()
        self.refused(host, "unapproved")

    def refused_tip(self, host, change, *words):
        """Runs, then the history is changed while the controller is away: nothing starts from then on."""
        host.start()
        host.wait_state("echo", "running")
        host.stop()
        change(host)
        host.clean_engine()
        host.began = time.time()
        host.start()
        return self.refused(host, "history-refused", *words)

    def test_rolled_back(self):
        host = self.host()
        parent = host.git("rev-parse", "refs/heads/main~1")
        host.start()
        host.wait_state("echo", "running")
        host.set_tip(parent)
        eventually("status says that the tip is refused", 10, lambda: host.status()["approvals"].get("refused"))
        # What ran stays; what ends does not come back.
        self.assertEqual(host.server("echo")["state"], "running")
        host.began = time.time()
        rig().api.remove(host.container("echo")["Id"])
        self.refused(host, "history-refused", "does not descend")

    def test_rewritten(self):
        """The same files to the byte, in a history that knows nothing of the one before."""
        self.refused_tip(self.host(), lambda h: h.restart_history({path: h.show(path).encode() for path in h.paths()}), "does not descend")

    def test_record_deleted_by_a_later_commit(self):
        name = f"echo/{self.approved['id']}.yaml"
        self.refused_tip(self.host(), lambda h: h.commit({}, remove=[name, name + ".sig"]), name, "gone now")

    def test_record_changed_by_a_later_commit(self):
        name = f"echo/{self.approved['id']}.yaml"
        self.refused_tip(self.host(), lambda h: h.commit({name: h.show(name).encode() + b"# nothing\n"}), name, "changed now")

    def test_lost_state_refuses(self):
        host = self.host()
        host.start()
        host.wait_state("echo", "running")
        host.stop()
        host.clean_engine()
        (host.state_dir / "forge.json").unlink()
        host.began = time.time()
        host.start(init=False, wait=False)
        eventually("a refusal that says why", 10, lambda: "state" in self.reason(host))
        time.sleep(1)
        self.assertEqual(host.starts(), [])

    def test_damaged_state_refuses(self):
        host = self.host()
        host.start()
        host.wait_state("echo", "running")
        host.stop()
        host.clean_engine()
        state = host.state_dir / "forge.json"
        state.write_bytes(state.read_bytes()[:-20])
        host.began = time.time()
        host.start(init=False, wait=False)
        eventually("a refusal that names the file", 10, lambda: "forge.json" in self.reason(host))
        time.sleep(1)
        self.assertEqual(host.starts(), [])

    @staticmethod
    def reason(host):
        """What an operator sees: status, or the controller's last words when it does not start at all."""
        return host.cli("status", check=False).stdout + host.log()


class WhileRunning(ApprovalsCase):
    """What ends an approval ends the server, within two seconds, though the next resync is half a minute away."""

    def running(self):
        host = self.host()
        host.start()
        host.wait_state("echo", "running")
        host.settle()
        return host, host.container("echo")["Id"]

    def revocation(self, host):
        return {"apiVersion": "bulkhead/v1", "kind": "Revocation", "serial": self.approved["serial"] + 1, "audience": host.audience, "server": "echo",
                "proposal": self.approved["id"], "approved_by": PRINCIPAL, "approved_at": at(0), "reason": "a test"}

    def stops_within(self, seconds, host, since):
        eventually("the server's container is gone or ended", seconds - (time.monotonic() - since), lambda: not any(c["State"] == "running" for c in host.containers()), pause=0.02)

    def test_revocation(self):
        host, _ = self.running()
        host.cli("revoke", self.approved["id"], "--key", host.key, "--reason", "a test")
        self.stops_within(2, host, time.monotonic())
        host.wait_refused("echo", "revoked")

    def test_revocation_of_everything(self):
        host, _ = self.running()
        host.cli("revoke", "--server", "echo", "--key", host.key, "--reason", "a test")
        self.stops_within(2, host, time.monotonic())

    def test_revocation_that_came_by_a_push(self):
        """Without the command line's nudge: only the repository changed."""
        host, _ = self.running()
        host.add_record(self.revocation(host))
        self.stops_within(2, host, time.monotonic())

    def test_revocation_that_came_by_a_push_into_a_checkout(self):
        """The same where the repository is a checkout's .git."""
        host = self.host()
        tree = host.dir / "tree"
        tree.mkdir()
        host.repository = host.repository.rename(tree / ".git")
        host.write_conf(**{"approvals.repository": str(tree)})
        host.start()
        host.wait_state("echo", "running")
        host.settle()
        host.add_record(self.revocation(host))
        self.stops_within(2, host, time.monotonic())

    def test_revocation_by_a_stranger_changes_nothing(self):
        host, container = self.running()
        host.add_record(self.revocation(host), key=host.new_key("mallory"))
        time.sleep(3)
        self.assertEqual(host.container("echo")["Id"], container)

    def test_expiry(self):
        """At its time, and not only when a resync comes by."""
        host, container = self.running()
        end = time.time() + 8
        record = host.add_record(self.changed(expires_at=at(8)))
        eventually("the shorter approval counts", 7, lambda: host.server("echo")["approval"] == record["id"])
        self.assertEqual(host.container("echo")["Id"], container)
        time.sleep(max(0, end - time.time()))
        self.stops_within(2, host, time.monotonic())
        host.wait_refused("echo", "expired")

    def test_revocation_counts_in_a_refused_history(self):
        host, _ = self.running()
        tip = host.tip()
        revocation = host.record_files(self.revocation(host))
        host.restart_history(revocation)
        self.assertNotEqual(host.tip(), tip)
        self.stops_within(2, host, time.monotonic())

    def test_disabled_and_removed_entries_stop(self):
        host, _ = self.running()
        host.change_entry("echo", enabled=False)
        self.stops_within(5, host, time.monotonic())
        host.change_entry("echo", enabled=True)
        host.wait_state("echo", "running")
        host.write_registry({})
        eventually("nothing of the server is left", 10, lambda: not host.containers() and not host.networks())
        host.settle()
