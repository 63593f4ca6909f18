/*
 * The approvals repository as the CLI sees and writes it: finding records, the next serial, who a key belongs to, signing and committing.
 * Used by the forge verbs. What counts and why is judged in common/forge.
 */
#pragma once

#include "cli/cli.h"
#include "common/forge/forge.h"
#include "common/forge/repo.h"
#include "common/smoke/smoke.h"

/* ERR_DENIED when the caller may not write to the repository: better said before somebody reads five pages and answers yes. */
_must_check_ int records_may_write(const struct conf *conf, struct err **err);
/* Every record at the tip, checked. A repository that does not exist yet is an empty view. */
_must_check_ int records_read(struct cli *c, struct forge_view **ret, struct err **err);
/* The record with this id, or the only one whose id begins so (at least 6 characters). Borrowed. */
_must_check_ int records_find(const struct forge_view *view, const char *id, const struct forge_item **ret, struct err **err);
/* The valid Approval or Rejection of a proposal with the highest serial; NULL = none yet. */
const struct record *records_decision(const struct forge_view *view, const char *proposal);
/* The server's valid Approval with the highest serial, revoked or not; NULL = none. */
const struct record *records_last_approval(const struct forge_view *view, const char *server);
bool records_is_revoked(const struct forge_view *view, const struct record *approval);
/* Higher than every serial of the server's records. */
_must_check_ int records_next_serial(const struct forge_view *view, const char *server, uint64_t *ret, struct err **err);

/* A record value with what all kinds have: apiVersion, kind, serial, audience, server, reason (may be NULL). Owned. */
json_object *records_new(const struct conf *conf, enum record_kind kind, const char *server, uint64_t serial, const char *reason);
/* Adds a time as RFC 3339. */
void records_add_time(json_object *o, const char *key, time_t t);
/* Who signs with this key (a key file, or a public key whose private half ssh-agent holds): the principal that allowed_signers gives it.
 * Owned. */
_must_check_ int records_principal(const struct conf *conf, const char *key, char **ret, struct err **err);
/*
 * Writes the record, signs it with key (NULL: unsigned, for proposals and where signatures are switched off), verifies what it made, and
 * commits it. *ret_id is owned.
 */
_must_check_ int records_publish(struct cli *c, json_object *record, const char *key, const char *author, char **ret_id, struct err **err);
/* A proposal of this entry, inert as all are. from: where it came from, for messages; by, reason: may be NULL. cmd_propose.c */
_must_check_ int records_propose(struct cli *c, const char *server, json_object *entry, const char *from, const char *by,
                                 const char *reason, char **ret_id, struct err **err);
/* The key option of a deciding verb: refuses a missing one unless signatures are off, and finds the signer: `as`, the key's principal, or
 * the user. */
_must_check_ int records_signer(struct cli *c, const char *key, const char *as, char **ret, struct err **err);

/* -- evidence: what a smoke test of a proposal saw, SERVER/ID.smoke.json beside it; later tests are ID.smoke-2.json and so on ---------- */
struct evidence {
        json_object *json;
        struct image_facts *image; /* NULL: of an external server, which has none */
        struct smoke_result *smoke;
        char *path;
};
/* The newest evidence of a proposal. 1: none yet. */
_must_check_ int evidence_read(const struct conf *conf, const char *server, const char *id, struct evidence **ret, struct err **err);
/* Commits evidence in a file of its own. image: facts as JSON, or NULL; smoke: smoke_result as JSON; both borrowed. */
_must_check_ int evidence_write(const struct conf *conf, const char *server, const char *id, json_object *image, json_object *smoke,
                                const char *author, struct err **err);
struct evidence *evidence_free(struct evidence *e);
DEFINE_FREEP(struct evidence *, evidence_free)
