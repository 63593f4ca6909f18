#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/file.h"
#include "common/forge/confine.h"
#include "common/forge/sshsig.h"
#include "tests/unit/forge_rig.h"
#include "tests/unit/test.h"

#define TEXT "apiVersion: bulkhead/v1\n"

static int setup(void **state)
{
        struct rig *rig = NEW(struct rig);

        rig_init(rig);
        *state = rig;
        return 0;
}

static int teardown(void **state)
{
        rig_deinit(*state);
        free(*state);
        return 0;
}

static int verify(struct rig *rig, char **who, const char *text, const char *sig, time_t at, struct err **err)
{
        return sshsig_verify(who, &rig->conf, text, strlen(text), sig, strlen(sig), at, err);
}

static void a_signature_verifies(void **state)
{
        struct rig *rig = *state;
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *sig = NULL, *who = NULL, *other = NULL;

        assert_ok(sshsig_sign(&sig, rig->key, TEXT, strlen(TEXT), &err));
        assert_ok(verify(rig, &who, TEXT, sig, 0, &err));
        assert_string_equal(who, "alice@example.org");
        assert_fails(verify(rig, &other, TEXT "serial: 8\n", sig, 0, &err), "does not verify");
        assert_null(other);
}

static void foreign_signatures_do_not(void **state)
{
        struct rig *rig = *state;
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *unknown = rig_sign(rig->mallory, RECORD_NAMESPACE, TEXT), *git = rig_sign(rig->key, "git", TEXT), *who = NULL;

        assert_fails(verify(rig, &who, TEXT, unknown, 0, &err), "does not list");
        rig_trust(rig, "alice@example.org", NULL, rig->key); /* without the namespaces option: our own -n decides */
        assert_fails(verify(rig, &who, TEXT, git, 0, &err), "does not verify");
        assert_fails(verify(rig, &who, TEXT, "", 0, &err), "not an armoured");
        assert_fails(verify(rig, &who, TEXT, "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n", 0, &err),
                     "allowed_signers");
        assert_null(who);
}

static void a_key_counts_while_it_is_valid(void **state)
{
        struct rig *rig = *state;
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *sig = NULL, *who = NULL, *later = NULL;

        assert_ok(sshsig_sign(&sig, rig->key, TEXT, strlen(TEXT), &err));
        rig_trust(rig, "alice@example.org", "namespaces=\"" RECORD_NAMESPACE "\",valid-before=\"20251125000000Z\"", rig->key);
        assert_ok(verify(rig, &who, TEXT, sig, RIG_NOW, &err));
        assert_fails(verify(rig, &later, TEXT, sig, RIG_NOW + 2 * 86400, &err), "not for that time");
}

static void a_revoked_key_never_counts(void **state)
{
        struct rig *rig = *state;
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *sig = NULL, *who = NULL, *pub = mem_printf("%s.pub", rig->key), *text = NULL;

        assert_ok(sshsig_sign(&sig, rig->key, TEXT, strlen(TEXT), &err));
        assert_ok(file_read(&text, NULL, pub, 65536, FILE_ANY, &err));
        rig->conf.revoked_keys = rig_write(rig, "revoked", text);
        assert_fails(verify(rig, &who, TEXT, sig, RIG_NOW, &err), "revoked");
        /* A configured list that is missing must not mean "nothing is revoked". */
        unlink(rig->conf.revoked_keys);
        assert_fails(verify(rig, &who, TEXT, sig, RIG_NOW, &err), "revoked_keys");
}

static void a_key_others_can_read_does_not_sign(void **state)
{
        struct rig *rig = *state;
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *sig = NULL;

        assert_int_equal(chmod(rig->key, 0640), 0);
        assert_fails(sshsig_sign(&sig, rig->key, TEXT, strlen(TEXT), &err), "may be read by others");
        assert_null(sig);
        _cleanup_free_ char *pub = mem_printf("%s.pub", rig->key);
        unsetenv("SSH_AUTH_SOCK");
        assert_fails(sshsig_sign(&sig, pub, TEXT, strlen(TEXT), &err), "no ssh-agent is reachable");
        assert_fails(sshsig_sign(&sig, "/nonexistent", TEXT, strlen(TEXT), &err), "signing key");
}

static void weak_trust_is_refused_by_line(void **state)
{
        struct rig *rig = *state;
        _cleanup_free_ char *pub_path = mem_printf("%s.pub", rig->key), *pub = NULL;
        _cleanup_err_ struct err *err = NULL;

        assert_ok(file_read(&pub, NULL, pub_path, 65536, FILE_ANY, &err));
        const struct {
                const char *before, *says;
        } cases[] = {
                {"* ", "wildcard"},
                {"*@example.org ", "wildcard"},
                {"!bob@example.org ", "wildcard"},
                {"bo?@example.org ", "wildcard"},
                {"alice@example.org,bob@example.org ", "several principals"},
                {"\"alice@example.org\" ", "a principal may hold"},
                {"alice@example.org cert-authority ", "certificate authorities"},
                {"alice@example.org namespaces=\"git\",cert-authority ", "certificate authorities"},
                {"alice@example.org CERT-AUTHORITY ", "certificate authorities"},
                {"alice@example.org namespaces=\"a\\\",cert-authority\" ", "backslash"},
                {"alice@example.org namespaces=git ", "double quotes"},
                {"alice@example.org whatever=\"x\" ", "neither a key type"},
                {"alice@example.org ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==\n# ", "ssh-rsa"},
                {"alice@example.org ssh-dss AAAAB3NzaC1kc3MAAACBAP==\n# ", "not accepted"},
                {"alice@example.org ssh-ed25519-cert-v01@openssh.com AAAA\n# ", "not accepted"},
                {"alice@example.org ssh-ed25519 AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==\n# ", "not of the type"},
                {"alice@example.org ssh-ed25519 !!!\n# ", "not base64"},
                {"alice@example.org\n# ", "no key after"},
                {"alice@example.org namespaces=\"git\"\n# ", "no key after"},
                {"alice\x1b@example.org ", "control character"},
                {"bob@example.org ", "another person"},
        };
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *text = mem_printf("# keys\n\nalice@example.org %s%s%s", pub, cases[i].before, pub),
                                    *path = rig_write(rig, "signers", text);
                int r = allowed_signers_check(path, &err);
                if (r == 0)
                        print_error("accepted: %s\n", cases[i].before);
                assert_fails(r, cases[i].says);
                assert_int_equal(allowed_signers_check(path, &err), -1);
                assert_non_null(strstr(err_msg(err), "signers:4: "));
                err = err_free(err);
        }
        _cleanup_free_ char *good = mem_printf("# keys\nalice@example.org namespaces=\"a,b\",valid-after=\"20250101\" %s", pub);
        assert_ok(allowed_signers_check_text(good, strlen(good), "good", &err));
}

static void trust_that_others_may_write_is_refused(void **state)
{
        struct rig *rig = *state;
        _cleanup_err_ struct err *err = NULL;

        assert_int_equal(chmod(rig->conf.allowed_signers, 0664), 0);
        assert_fails(allowed_signers_check(rig->conf.allowed_signers, &err), "may be written by others");
        assert_int_equal(chmod(rig->conf.allowed_signers, 0644), 0);
        _cleanup_free_ char *link = mem_printf("%s/link", rig->dir);
        assert_int_equal(symlink(rig->conf.allowed_signers, link), 0);
        assert_fails(allowed_signers_check(link, &err), "symbolic link");
}

/* What bulkhead-forge-read gives up: the Engine's socket, which its group may open. It verifies signatures all the same. */
static void the_reader_reaches_no_socket(void **state)
{
        struct rig *rig = *state;
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *sig = NULL;
        int status, pair[2];

        assert_ok(sshsig_sign(&sig, rig->key, TEXT, strlen(TEXT), &err));
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                const struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "/run/docker.sock"};
                char *who = NULL;

                if (forge_confine(NULL) < 0)
                        _exit(1);
                if (socket(AF_UNIX, SOCK_STREAM, 0) >= 0 || errno != EACCES || socket(AF_INET, SOCK_STREAM, 0) >= 0)
                        _exit(2);
                if (connect(pair[0], (const struct sockaddr *)&a, sizeof(a)) == 0 || errno != EACCES)
                        _exit(3);
                if (process_vm_readv(getppid(), NULL, 0, NULL, 0, 0) == 0 || errno != EACCES)
                        _exit(4);
                _exit(verify(rig, &who, TEXT, sig, 0, NULL) == 0 ? 0 : 5);
        }
        close(pair[0]);
        close(pair[1]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_signature_verifies, setup, teardown),
                cmocka_unit_test_setup_teardown(foreign_signatures_do_not, setup, teardown),
                cmocka_unit_test_setup_teardown(a_key_counts_while_it_is_valid, setup, teardown),
                cmocka_unit_test_setup_teardown(a_revoked_key_never_counts, setup, teardown),
                cmocka_unit_test_setup_teardown(a_key_others_can_read_does_not_sign, setup, teardown),
                cmocka_unit_test_setup_teardown(weak_trust_is_refused_by_line, setup, teardown),
                cmocka_unit_test_setup_teardown(trust_that_others_may_write_is_refused, setup, teardown),
                cmocka_unit_test_setup_teardown(the_reader_reaches_no_socket, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
