/*
 * The keys of an approval record as one table: which kinds carry them, which must, what they hold. Parser and writer share it, so the order
 * here is the order in the file. Private to common/forge/.
 */
#pragma once

#include "common/forge/record.h"

enum field_type {
        FIELD_API, /* the constant "bulkhead/v1" */
        FIELD_KIND,
        FIELD_ID,
        FIELD_SERIAL,
        FIELD_AUDIENCE,
        FIELD_SERVER,
        FIELD_SOURCE,
        FIELD_HEX,    /* 64 hex digits */
        FIELD_DIGEST, /* "sha256:" and 64 hex digits */
        FIELD_STRING,
        FIELD_TIME,
        FIELD_LIST, /* of strings, no doubles */
        FIELD_SMOKE,
        FIELD_ENTRY,
};

struct record_field {
        const char *key;
        enum field_type type;
        size_t offset;    /* of the member in struct record (image_facts for source fields) */
        size_t max;       /* bytes of a string, or of one string of a list */
        unsigned allowed; /* bit mask of kinds: 1 << enum record_kind */
        unsigned required;
};

extern const struct record_field record_fields[];
extern const size_t record_n_fields;
extern const struct record_field record_source_fields[];
extern const size_t record_n_source_fields;
extern const struct record_field record_url_fields[]; /* of an external server's source */
extern const size_t record_n_url_fields;

#define RECORD_API_VERSION "bulkhead/v1"
#define RECORD_MAX_LIST    1024
