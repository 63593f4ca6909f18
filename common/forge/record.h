/*
 * Approval records: the files humans sign (approvals/SERVER/ID.yaml + ID.yaml.sig). Parsing, writing, ids. Pure functions of values.
 * Used by the CLI (writes) and by the helper that reads the repository for the controller. Format: docs/ and the manual's "records" page.
 */
#pragma once

#include <time.h>

#include "common/json.h"
#include "common/spec/spec.h"

#define RECORD_MAX_BYTES (64U << 10)
#define RECORD_NAMESPACE "bulkhead-approval@v1"

enum record_kind { RECORD_PROPOSAL, RECORD_APPROVAL, RECORD_REJECTION, RECORD_REVOCATION };

struct record {
        enum record_kind kind;
        char *id;        /* "f-" + 16 hex of the SHA-256 of the canonical content without the id */
        uint64_t serial; /* rises with every record of this server; 1 .. 2^53 */
        char *audience;
        char *server;
        char *proposal; /* Approval, Rejection: id of the proposal; Revocation: id of the approval it ends, or NULL = every approval of the
                           server up to this serial */
        enum source_type source;
        struct image_facts *image; /* reference, digest, platform, platform_digest, image_id, volumes; NULL in rejections and revocations,
                                      and for an external server */
        char *url;                 /* of an external server; NULL for others */
        char *entry_sha256, *spec_sha256, *manifest_sha256; /* 64 hex; manifest and spec may be NULL in a proposal */
        char **tools, **secrets, **egress;
        json_object *smoke_test;                     /* {result, at, protocol, duration_ms} */
        char *proposed_by, *approved_by;             /* approved_by is the signer, also of rejections and revocations */
        time_t proposed_at, approved_at, expires_at; /* 0 = absent */
        char *reason;
        json_object *entry; /* Proposal and Approval: the complete registry entry */
        json_object *json;  /* the whole record */
};

_must_check_ int record_parse(struct record **ret, const char *text, size_t n, const char *name, struct err **err);
/* Canonical YAML text of a record value (owned): computes and sets `id` first. */
char *record_write(json_object *record, char **ret_id);
struct record *record_free(struct record *r);
DEFINE_FREEP(struct record *, record_free)
/*
 * The same from a JSON value (borrowed). Slim: a record that our own helper read and verified before, sent on without `entry`: the id is
 * not computed again, and `json` stays NULL so that a daemon with thousands of records holds little.
 */
_must_check_ int record_from_json(struct record **ret, json_object *json, const char *name, bool slim, struct err **err);
/* "f-" and 16 lower-case hex digits. */
bool record_id_valid(const char *id);
/* The id that this record value must have (its own `id` is left out of the hash). Owned. */
char *record_compute_id(json_object *record);
const char *record_kind_name(enum record_kind kind); /* "Approval" */
