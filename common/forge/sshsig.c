#include "common/forge/sshsig.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/forge/record.h"
#include "common/forge/repo.h"
#include "common/spawn.h"
#include "common/text.h"

#define SSH_KEYGEN "/usr/bin/ssh-keygen"
#define ARMOUR     "-----BEGIN SSH SIGNATURE-----"
/* Descriptors of the child, in the order of pass_fds. ssh-keygen opens files by name; these names are its own descriptors. */
#define FD_SIGNATURE "/proc/self/fd/3"
#define FD_SIGNERS   "/proc/self/fd/4"
#define FD_REVOKED   "/proc/self/fd/5"

/* A file in memory that nobody can change any more; -1 with err set. */
static int memory_file(const char *name, const void *data, size_t n, struct err **err)
{
        _cleanup_fd_ int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

        if (fd < 0)
                return err_sys(err, errno, "no file in memory for %s", name);
        if (fd_write_all(fd, data, n, err) < 0)
                return -1;
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
                return err_sys(err, errno, "cannot seal the copy of %s", name);
        return TAKE_FD(fd);
}

int sshsig_trust_load(struct sshsig_trust **ret, const struct conf *conf, struct err **err)
{
        _cleanup_(sshsig_trust_freep) struct sshsig_trust *t = NEW(struct sshsig_trust);
        _cleanup_free_ char *signers = NULL, *revoked = NULL;
        size_t n, n_revoked = 0;

        t->signers_fd = t->revoked_fd = -1;
        if (file_read(&signers, &n, conf->allowed_signers, ALLOWED_SIGNERS_MAX_BYTES, FILE_TRUSTED, err) < 0)
                return err_wrap(err, "approvals.allowed_signers");
        if (allowed_signers_check_text(signers, n, conf->allowed_signers, err) < 0)
                return err_wrap(err, "approvals.allowed_signers");
        t->signers_fd = memory_file("allowed_signers", signers, n, err);
        if (t->signers_fd < 0)
                return -1;
        if (conf->revoked_keys) {
                if (file_read(&revoked, &n_revoked, conf->revoked_keys, ALLOWED_SIGNERS_MAX_BYTES, FILE_TRUSTED, err) < 0)
                        return err_wrap(err, "approvals.revoked_keys");
                t->revoked_fd = memory_file("revoked_keys", revoked, n_revoked, err);
                if (t->revoked_fd < 0)
                        return -1;
        }
        _cleanup_buf_ struct buf both = {0};
        buf_addf(&both, "%zu %d %zu\n", n, conf->revoked_keys != NULL, n_revoked);
        buf_add(&both, signers, n);
        if (n_revoked)
                buf_add(&both, revoked, n_revoked);
        sha256_hex(t->sha256, both.data, both.len);
        *ret = TAKE_PTR(t);
        return 0;
}

struct sshsig_trust *sshsig_trust_free(struct sshsig_trust *t)
{
        if (!t)
                return NULL;
        fd_closep(&t->signers_fd);
        fd_closep(&t->revoked_fd);
        free(t->last);
        free(t);
        return NULL;
}

/* ssh-keygen reads times in the local zone unless told otherwise: it runs in UTC. */
static int run(struct spawn_result *result, const char *const *argv, const char *agent, const void *input, size_t n, const int *fds,
               size_t n_fds, struct err **err)
{
        const char *env[] = {"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC0", agent, NULL};
        struct spawn_options o = {
                .argv = argv,
                .env = env,
                .input = input,
                .input_len = n,
                .max_output = 64U << 10,
                .timeout_ms = agent ? 120000 : 10000, /* an agent may ask its owner for a touch */
                .pass_fds = fds,
                .n_pass_fds = n_fds,
        };

        return spawn_run(result, &o, err);
}

static int fault(const struct spawn_result *result, const char *what, struct err **err)
{
        const char *said = result->errors.data ? result->errors.data : "";
        _cleanup_free_ char *first = mem_strndup(said, MIN(strcspn(said, "\r\n"), (size_t)200));
        _cleanup_free_ char *safe = text_escape(first);

        return err_set(err, ERR_DENIED, "%s%s%s%s", what, *safe ? " (ssh-keygen: " : "", safe, *safe ? ")" : "");
}

static bool ended_well(const struct spawn_result *result)
{
        return result->status == 0;
}

static int find_principal(char **ret, const int *fds, const char *time_option, struct err **err)
{
        const char *argv[] = {SSH_KEYGEN, "-Y", "find-principals", "-s", FD_SIGNATURE, "-f", FD_SIGNERS, "-O", time_option, NULL};
        _cleanup_(spawn_result_deinit) struct spawn_result result = {0};

        if (run(&result, argv, NULL, NULL, 0, fds, 2, err) < 0)
                return -1;
        size_t n = result.out.data ? strcspn(result.out.data, "\r\n") : 0;
        if (!ended_well(&result) || n == 0)
                return fault(&result, "signed by a key that allowed_signers does not list, or not for that time", err);
        *ret = mem_strndup(result.out.data, n);
        return 0;
}

/* 0: who signed exactly this. -1: not. ssh-keygen itself checks that the key is listed for who, and neither outdated nor revoked. */
static int verify_as(const char *who, const struct sshsig_trust *trust, const int *fds, const char *time_option, const void *data, size_t n,
                     struct err **err)
{
        _cleanup_(spawn_result_deinit) struct spawn_result result = {0};
        const char *revoked = trust->revoked_fd >= 0 ? "-r" : NULL;
        const char *argv[] = {SSH_KEYGEN,   "-Y", "verify",   "-I", who,         "-n",    RECORD_NAMESPACE, "-s",
                              FD_SIGNATURE, "-f", FD_SIGNERS, "-O", time_option, revoked, FD_REVOKED,       NULL};

        if (run(&result, argv, NULL, data, n, fds, revoked ? 3 : 2, err) < 0)
                return -1;
        if (!ended_well(&result))
                return fault(&result, "signature does not verify: other content, another namespace or a revoked key", err);
        return 0;
}

int sshsig_trust_verify(char **principal, struct sshsig_trust *trust, const void *data, size_t n, const char *sig, size_t sig_len,
                        time_t verify_time, struct err **err)
{
        _cleanup_free_ char *who = NULL;
        char option[64];
        struct tm tm;
        time_t at = verify_time ? verify_time : time(NULL);

        if (sig_len > SSHSIG_MAX_BYTES || sig_len < strlen(ARMOUR) || memcmp(sig, ARMOUR, strlen(ARMOUR)) != 0)
                return err_set(err, ERR_DENIED, "not an armoured SSH signature");
        if (!gmtime_r(&at, &tm) ||
            strftime(option, sizeof(option), "verify-time=%Y%m%d%H%M%S", &tm) != strlen("verify-time=YYYYmmddHHMMSS"))
                return err_set(err, ERR_INVALID, "no such time to verify at");
        _cleanup_fd_ int sig_fd = memory_file("signature", sig, sig_len, err);
        if (sig_fd < 0)
                return -1;
        int fds[] = {sig_fd, trust->signers_fd, trust->revoked_fd};
        /* One program less for each of many records by the same person. Each key is one person's: allowed_signers_check_text(). */
        if (trust->last && verify_as(trust->last, trust, fds, option, data, n, NULL) == 0) {
                *principal = mem_strdup(trust->last);
                return 0;
        }
        if (find_principal(&who, fds, option, err) < 0 || verify_as(who, trust, fds, option, data, n, err) < 0)
                return -1;
        mem_replace(&trust->last, mem_strdup(who));
        *principal = TAKE_PTR(who);
        return 0;
}

int sshsig_verify(char **principal, const struct conf *conf, const void *data, size_t n, const char *sig, size_t sig_len,
                  time_t verify_time, struct err **err)
{
        _cleanup_(sshsig_trust_freep) struct sshsig_trust *trust = NULL;

        if (sshsig_trust_load(&trust, conf, err) < 0)
                return -1;
        return sshsig_trust_verify(principal, trust, data, n, sig, sig_len, verify_time, err);
}

/* A private key that others can read is not a person's any more. A public key file only names a key of the agent. */
static int check_key_file(const char *path, bool *is_public, struct err **err)
{
        _cleanup_free_ char *text = NULL;
        struct stat st;

        if (file_read(&text, NULL, path, 64U << 10, FILE_ANY, err) < 0)
                return err_wrap(err, "signing key");
        *is_public = str_has_prefix(text, "ssh-") || str_has_prefix(text, "ecdsa-") || str_has_prefix(text, "sk-");
        if (*is_public)
                return 0;
        if (stat(path, &st) < 0)
                return err_sys(err, errno, "signing key %s", path);
        if (st.st_mode & 077)
                return err_set(
                        err, ERR_DENIED,
                        "signing key %s may be read by others (mode %04o): run chmod 600 on it, and make a new key if it was exposed", path,
                        st.st_mode & 07777U);
        return 0;
}

int sshsig_sign(char **sig, const char *key, const void *data, size_t n, struct err **err)
{
        const char *argv[] = {SSH_KEYGEN, "-Y", "sign", "-n", RECORD_NAMESPACE, "-f", key, NULL};
        const char *socket = getenv("SSH_AUTH_SOCK");
        _cleanup_free_ char *agent = socket && *socket ? mem_printf("SSH_AUTH_SOCK=%s", socket) : NULL;
        _cleanup_(spawn_result_deinit) struct spawn_result result = {0};
        bool is_public = false;

        if (check_key_file(key, &is_public, err) < 0)
                return -1;
        if (is_public && !agent)
                return err_set(err, ERR_UNAVAILABLE,
                               "%s is a public key and no ssh-agent is reachable: start one and add the key, or name the private key file",
                               key);
        if (run(&result, argv, agent, data, n, NULL, 0, err) < 0)
                return err_wrap(err, "signing with %s (a key with a passphrase must be in an ssh-agent)", key);
        if (!ended_well(&result))
                return fault(&result, "ssh-keygen could not sign; a key with a passphrase must be in an ssh-agent", err);
        if (!result.out.data || !str_has_prefix(result.out.data, ARMOUR))
                return err_set(err, ERR_INTERNAL, "ssh-keygen gave no signature for %s", key);
        *sig = mem_strdup(result.out.data);
        return 0;
}
