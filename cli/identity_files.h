/*
 * The two files of agents' identities as the command line handles them: the public one (agents.file) and the key that signs (agents.key),
 * which only root can read. Used by the verbs agent and token.
 */
#pragma once

#include "common/conf.h"
#include "common/file.h"
#include "common/identity/identity.h"

/* A file that does not exist yet has no keys and no agents. */
_must_check_ int identity_files_load(struct identities **ret, const struct conf *conf, struct err **err);
/* secret is the caller's to wipe. */
_must_check_ int identity_key_read(const struct conf *conf, uint8_t secret[IDENTITY_SECRET], struct err **err);
_must_check_ int identity_key_write(const struct conf *conf, const uint8_t secret[IDENTITY_SECRET], struct err **err);
