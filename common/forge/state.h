/*
 * Building a forge_state, and the bounds of one repository. Private to common/forge/.
 */
#pragma once

#include "common/forge/forge.h"

#define FORGE_MAX_SERVERS    1000U  /* directories */
#define FORGE_MAX_PER_SERVER 2000U  /* files in one of them */
#define FORGE_MAX_RECORDS    20000U /* records in all */

/* Everything but the signatures found good: those are carried over one by one, as they are used. */
struct forge_state *state_copy(const struct forge_state *s);
void state_add_accepted(struct forge_state *s, const char *id, const char *server, const char *sha256, time_t at);
void state_add_verified(struct forge_state *s, const char *key, const char *signer);
void state_add_revoked(struct forge_state *s, const char *what);
void state_raise_serial(struct forge_state *s, const char *server, uint64_t serial);
/* 0 = none accepted yet. */
uint64_t state_serial(const struct forge_state *s, const char *server);
