/*
 * Where in a value: a chain on the stack while somebody walks, written out only when something is wrong. Only for broker/policy.
 */
#pragma once

#include "common/mcp/value.h"

struct spot {
        const struct spot *up; /* NULL: the whole value */
        const struct value *v; /* its key is the step; without a key the step is `index` */
        size_t index;
};

/* RFC 6901 pointer, NUL-terminated, cut between characters when it is longer than size - 1 bytes. */
void spot_write(char *out, size_t size, const struct spot *at);
