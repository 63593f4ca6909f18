/*
 * What differs between two JSON values, for people who approve a change. Pure.
 */
#pragma once

#include "cli/out.h"

struct difference {
        char *path;                  /* "/egress/0/ports" */
        json_object *before, *after; /* borrowed from the values compared; NULL = absent */
};
struct differences {
        struct difference *v;
        size_t n;
};
void diff_values(struct differences *ret, json_object *before, json_object *after);
void differences_deinit(struct differences *d);
#define _cleanup_differences_ _cleanup_(differences_deinit)
/* "- path: old" in red and "+ path: new" in green. Returns how many. */
size_t diff_print(struct out *o, const struct differences *d);
/* {"tools": [{"name": "a", …}]} -> {"tools": {"a": {…}}}, so that a tool in the middle does not shift the others. Owned. */
json_object *diff_by_name(json_object *manifest);
