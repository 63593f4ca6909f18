#include "common/forge/record_fields.h"

#define P         (1U << RECORD_PROPOSAL)
#define A         (1U << RECORD_APPROVAL)
#define J         (1U << RECORD_REJECTION)
#define V         (1U << RECORD_REVOCATION)
#define ALL       (P | A | J | V)
#define R(member) offsetof(struct record, member)
#define I(member) offsetof(struct image_facts, member)

const struct record_field record_fields[] = {
        {"apiVersion", FIELD_API, 0, 0, ALL, ALL},
        {"kind", FIELD_KIND, 0, 0, ALL, ALL},
        {"id", FIELD_ID, R(id), 0, ALL, ALL},
        {"serial", FIELD_SERIAL, R(serial), 0, ALL, ALL},
        {"audience", FIELD_AUDIENCE, R(audience), 64, ALL, ALL},
        {"server", FIELD_SERVER, R(server), 40, ALL, ALL},
        {"proposal", FIELD_ID, R(proposal), 0, A | J | V, J},
        {"source", FIELD_SOURCE, R(image), 0, P | A, P | A},
        {"entry_sha256", FIELD_HEX, R(entry_sha256), 0, P | A, P | A},
        {"spec_sha256", FIELD_HEX, R(spec_sha256), 0, P | A, A},
        {"manifest_sha256", FIELD_HEX, R(manifest_sha256), 0, P | A, A},
        {"tools", FIELD_LIST, R(tools), 256, P | A, 0},
        {"secrets", FIELD_LIST, R(secrets), 128, P | A, 0},
        {"egress", FIELD_LIST, R(egress), 1024, P | A, 0},
        {"smoke_test", FIELD_SMOKE, R(smoke_test), 0, P | A, A},
        {"proposed_by", FIELD_STRING, R(proposed_by), 128, P | A, P},
        {"proposed_at", FIELD_TIME, R(proposed_at), 0, P | A, P},
        {"approved_by", FIELD_STRING, R(approved_by), 128, A | J | V, A | J | V},
        {"approved_at", FIELD_TIME, R(approved_at), 0, A | J | V, A | J | V},
        {"expires_at", FIELD_TIME, R(expires_at), 0, A, 0},
        {"reason", FIELD_STRING, R(reason), 2000, ALL, 0},
        {"entry", FIELD_ENTRY, R(entry), 0, P | A, P},
};
const size_t record_n_fields = ELEMENTSOF(record_fields);

/* `type` is read apart: it says which of the others apply. A proposal may come before anything was pulled. */
const struct record_field record_source_fields[] = {
        {"type", FIELD_KIND, 0, 0, P | A, P | A},
        {"reference", FIELD_STRING, I(reference), 512, P | A, P | A},
        {"digest", FIELD_DIGEST, I(digest), 0, P | A, P | A},
        {"platform", FIELD_STRING, I(platform), 64, P | A, A},
        {"platform_digest", FIELD_DIGEST, I(platform_digest), 0, P | A, 0},
        {"image_id", FIELD_DIGEST, I(image_id), 0, P | A, A},
        {"volumes", FIELD_LIST, I(volumes), 512, P | A, 0},
};
const size_t record_n_source_fields = ELEMENTSOF(record_source_fields);

const struct record_field record_url_fields[] = {
        {"type", FIELD_KIND, 0, 0, P | A, P | A},
        {"url", FIELD_STRING, R(url), 512, P | A, P | A},
};
const size_t record_n_url_fields = ELEMENTSOF(record_url_fields);
