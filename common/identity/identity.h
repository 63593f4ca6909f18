/*
 * Who an agent is: signed tokens, and the file of public keys and agents that says which of them count. The command line signs, the broker
 * verifies and holds no secret. Used by both.
 *
 * A token is "bh1.KEY.PAYLOAD.SIGNATURE": the id of the key, base64url (RFC 4648, section 5, no padding) of a JSON object, and the same of
 * an Ed25519 signature (RFC 8032) over a context of its own, key and payload as written. There is no field for an algorithm: nothing to
 * choose.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "common/err.h"
#include "common/json.h"

#define TOKEN_MAX          1024U /* bytes */
#define TOKEN_MAX_TTL      86400 /* seconds; longer ones do not count, whoever signed them */
#define TOKEN_CLOCK_SKEW   60    /* seconds that the signer's clock may be ahead */
#define IDENTITY_MAX_BYTES (1U << 20)
#define IDENTITY_KEY_ID    17  /* 16 hex of the public key's SHA-256, and NUL */
#define IDENTITY_PUBLIC    32U /* bytes */
#define IDENTITY_SECRET    64U /* bytes: seed and public key, as libsodium has them */

/* [a-z0-9-]{1,40}, as servers have them. */
bool identity_name_valid(const char *name);

/* -- the file (/etc/bulkhead/agents.json) --------------------------------------------------------------------------------------- */
struct identity_key {
        char id[IDENTITY_KEY_ID];
        uint8_t public_key[IDENTITY_PUBLIC];
        time_t created_at;
        time_t ends_at; /* nothing signed by it counts from then on; 0 = it is in use */
};
struct identity_agent {
        char *name;
        time_t not_before; /* tokens issued earlier are revoked */
};
struct identities {
        struct identity_key *keys;
        size_t n_keys;
        struct identity_agent *agents; /* sorted by name */
        size_t n_agents;
};
/* path must be a file that only its owner, root or we, may write (FILE_TRUSTED). A missing file is ERR_NOT_FOUND. */
_must_check_ int identities_load(struct identities **ret, const char *path, struct err **err);
_must_check_ int identities_parse(struct identities **ret, const char *text, size_t n, const char *name, struct err **err);
json_object *identities_to_json(const struct identities *i);
struct identities *identities_free(struct identities *i);
DEFINE_FREEP(struct identities *, identities_free)
const struct identity_agent *identities_find(const struct identities *i, const char *agent);
/* Adds or changes one. */
void identities_set_agent(struct identities *i, const char *agent, time_t not_before);
bool identities_remove_agent(struct identities *i, const char *agent); /* false: there is none */
/* A new key pair; the others end at `others_end` unless they end earlier. secret: the caller's, to be kept and wiped. */
void identities_new_key(struct identities *i, uint8_t secret[IDENTITY_SECRET], time_t now, time_t others_end);

/* -- tokens ---------------------------------------------------------------------------------------------------------------------- */
struct token {
        char *agent;
        char *run; /* what the agent is doing: in every log line; [A-Za-z0-9._-]{1,64} */
        char key[IDENTITY_KEY_ID];
        time_t issued_at, expires_at;
};
void token_deinit(struct token *t);
#define _cleanup_token_ _cleanup_(token_deinit)

/* Owned text. t->key is filled in. -1 when a field is not of its form. */
_must_check_ int token_sign(char **ret, struct token *t, const char *audience, const uint8_t secret[IDENTITY_SECRET], struct err **err);
/*
 * 0: *ret is who signed for itself, now. -1: *err says why, for the log alone: whoever showed the token learns only that it does not count.
 * The signature is checked before anything in the payload is read. now: the later of the clock and what it was seen to be before.
 */
_must_check_ int token_verify(struct token *ret, const struct identities *i, const char *audience, const char *text, size_t n, time_t now,
                              struct err **err);
