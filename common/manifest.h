/*
 * What a server offers, as an approval binds it: the canonical manifest that is hashed and signed for, and the pins of its items, one hash
 * each, by which a single definition is recognised later. Pure functions of values. Used by the smoke test's helper (makes the manifest),
 * the controller (takes it to pins) and the broker (compares what a running server lists).
 *
 * Source of the canonical form: RFC 8785.
 */
#pragma once

#include "common/json.h"

enum manifest_part {
        MANIFEST_TOOLS,
        MANIFEST_PROMPTS,
        MANIFEST_RESOURCES,
        MANIFEST_TEMPLATES,
        MANIFEST_LISTS,
        MANIFEST_INSTRUCTIONS = MANIFEST_LISTS
};

#define MANIFEST_PIN      44U    /* bytes of a pin's text: 43 of unpadded base64url (RFC 4648, section 5) and NUL */
#define MANIFEST_MAX_PINS 65536U /* of one manifest */
#define MANIFEST_DEPTH    64U    /* of nested values in one item; more is refused */

const char *manifest_member(enum manifest_part part); /* "tools", of the manifest and of the list's answer; "instructions" */
const char *manifest_key(enum manifest_part list);    /* what a list's items are told apart and sorted by: "name" */

/*
 * RFC 8785 text (owned) of {"instructions", "prompts", "resources", "resourceTemplates", "tools"}. instructions may be NULL (then "").
 * lists: MANIFEST_LISTS arrays, each sorted by its key; borrowed.
 */
char *manifest_text(const char *instructions, json_object *const *lists);

/* The hash of one complete definition, whatever order its members are in. For MANIFEST_INSTRUCTIONS: of a JSON string. */
void manifest_pin(char out[MANIFEST_PIN], enum manifest_part part, json_object *item);
/* The hash of an item's key alone: is there one of this name at all? */
void manifest_key_pin(char out[MANIFEST_PIN], enum manifest_part list, const char *key);
/* All pins of a manifest (owned, sorted, each once): of every item, of the keys of prompts and resources, and of the instructions. */
_must_check_ int manifest_pins(char ***ret, const char *text, size_t n, struct err **err);
/* Is it one of n sorted ones? */
bool manifest_has(char *const *pins, size_t n, const char *pin);
