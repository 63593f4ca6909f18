/*
 * Signatures, for whoever checks many: the trust files are read once, checked, and handed to ssh-keygen as sealed copies in memory, so that
 * what was checked is what is used and nothing has to be removed afterwards. Private to common/forge/; others use repo.h.
 */
#pragma once

#include <time.h>

#include "common/conf.h"
#include "common/json.h"

#define SSHSIG_MAX_BYTES          (16U << 10)
#define ALLOWED_SIGNERS_MAX_BYTES (1U << 20)

struct sshsig_trust {
        int signers_fd;          /* memfd with the checked text */
        int revoked_fd;          /* memfd, -1 when no list is configured */
        char sha256[SHA256_HEX]; /* of both files: a cached answer holds only while they are the same */
        char *last;              /* whose signature was found good last: most likely the next one's too */
};

_must_check_ int sshsig_trust_load(struct sshsig_trust **ret, const struct conf *conf, struct err **err);
struct sshsig_trust *sshsig_trust_free(struct sshsig_trust *t);
DEFINE_FREEP(struct sshsig_trust *, sshsig_trust_free)

/* See sshsig_verify() in repo.h. */
_must_check_ int sshsig_trust_verify(char **principal, struct sshsig_trust *trust, const void *data, size_t n, const char *sig,
                                     size_t sig_len, time_t verify_time, struct err **err);

/* The rules of allowed_signers_check() on text; name is for messages. Pure. */
_must_check_ int allowed_signers_check_text(const char *text, size_t n, const char *name, struct err **err);
