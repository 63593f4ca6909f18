/*
 * The forge's writing side: commits to the approvals repository, signatures by ssh-keygen. CLI only.
 */
#pragma once

#include "common/conf.h"
#include "common/err.h"

struct repo_file {
        const char *path; /* "github/f-….yaml" */
        const void *data;
        size_t len;
};
/* Adds files in one commit on conf->approvals_ref of the bare repository (created with mode 0755 when it does not exist). Refuses to
 * replace a file, compare-and-swaps the ref and retries. *commit (may be NULL): 41 bytes. */
_must_check_ int repo_commit(const struct conf *conf, const struct repo_file *files, size_t n, const char *author, const char *message,
                             char *commit, struct err **err);
/* Reads one blob at the tip: owned; ERR_NOT_FOUND. */
_must_check_ int repo_read(const struct conf *conf, const char *path, size_t max, char **ret, size_t *len, struct err **err);
/*
 * ssh-keygen -Y sign -n RECORD_NAMESPACE. key: a private key file, or a public key file whose private half the ssh-agent holds
 * (SSH_AUTH_SOCK is passed on). *sig owned, armoured.
 */
_must_check_ int sshsig_sign(char **sig, const char *key, const void *data, size_t n, struct err **err);
/* find-principals, then verify at verify_time (0 = now), then the revoked keys. *principal owned. -1: why not. */
_must_check_ int sshsig_verify(char **principal, const struct conf *conf, const void *data, size_t n, const char *sig, size_t sig_len,
                               time_t verify_time, struct err **err);
/* Refuses "*" principals, cert-authority, ssh-rsa and files others may write, naming the line. */
_must_check_ int allowed_signers_check(const char *path, struct err **err);
