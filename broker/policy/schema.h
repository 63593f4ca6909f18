/*
 * JSON Schema for the arguments of tools: a subset of draft 2020-12 that refuses what it does not understand. A schema is written by a
 * server, the value by an agent: both are hostile, so size, depth and work are bounded, and expressions match in linear time.
 * Pure; used by the broker. The subset is documented in docs/formats.md.
 *
 *   understood  type enum const · properties required additionalProperties patternProperties propertyNames minProperties maxProperties
 *               dependentRequired dependentSchemas · items prefixItems contains minContains maxContains minItems maxItems uniqueItems ·
 *               minimum maximum exclusiveMinimum exclusiveMaximum multipleOf · minLength maxLength pattern · allOf anyOf oneOf not
 *               if then else · $ref to a place in the same schema · $defs definitions · true and false
 *   older ones  the array form of items with additionalItems where $schema names draft-07 or earlier
 *   no meaning  $schema $id $comment title description default examples deprecated readOnly writeOnly format contentEncoding
 *               contentMediaType contentSchema, and names that begin with "x-"
 *   refused     every other key, a $ref to elsewhere, expressions with backreferences or look-around
 */
#pragma once

#include "common/mcp/value.h"

#define SCHEMA_MAX_BYTES (512U << 10)
#define SCHEMA_MAX_NODES 20000U  /* subschemas */
#define SCHEMA_MAX_DEPTH 128U    /* of subschemas in one another while a value is checked; $ref counts */
#define SCHEMA_MAX_WORK  200000U /* subschemas applied and values compared while a value is checked: a few milliseconds */

struct schema;

/* text is any text from a server. *ret is owned and immutable. -1: what is not understood and where ("/properties/path: …"). */
_must_check_ int schema_new(struct schema **ret, const char *text, size_t n, struct err **err);
struct schema *schema_free(struct schema *s);
DEFINE_FREEP(struct schema *, schema_free)

/* Why a value does not fit. */
struct schema_fault {
        char where[192]; /* RFC 6901 pointer into the value; cut when longer */
        char why[192];
};

/* 0: it fits. 1: it does not, and *fault says where and why; also when that would cost too much to find out. */
_must_check_ int schema_check(const struct schema *s, const struct value_tree *t, struct schema_fault *fault);
