/*
 * A small, strict YAML: one document of mappings, sequences and scalars becomes JSON values. Anchors, aliases, tags, merge keys,
 * duplicate keys, non-string keys, NUL, invalid UTF-8, several documents, too much depth or size are refused with name:line:column.
 * Plain scalars: true/false, null, integers (|n| <= 2^53) and decimals are typed, all else is a string; quoted ones are strings.
 * Used for bulkhead.conf and approval records.
 */
#pragma once

#include "common/json.h"

_must_check_ int yaml_parse(json_object **ret, struct json_locations **loc, const char *text, size_t n, const char *name,
                            const struct json_limits *limits, struct err **err);
/* Block-style YAML text of a JSON value (owned); strings are double-quoted whenever a plain scalar could be read as anything else.
 * yaml_parse() of it gives the same value. Member order is kept. */
char *yaml_write(json_object *o);
