/*
 * The scan before json-c: grammar of RFC 8259 plus what we refuse. Only json.c uses this.
 */
#pragma once

#include "common/json.h"

/* Values whose pointer is longer have no remembered place: long keys above many values would fill the memory with it. */
#define JSON_POINTER_KEPT 1024

struct json_locations {
        struct json_location {
                char *pointer;
                unsigned line, column;
        } * items;
        size_t n;
        size_t cap;
};

/* 0: json-c will read exactly what stands there. loc may be NULL. */
_must_check_ int json_scan(const char *text, size_t n, const char *name, unsigned max_depth, struct json_locations *loc, struct err **err);
