/*
 * What the files of this folder share: the embedded seccomp profile, the builders by version and comparing JSON values as an Engine writes
 * them.
 */
#pragma once

#include "common/spec/spec.h"

/* Generated from seccomp.json. */
extern const char spec_seccomp_text[];

/* The part of a spec that a version defines: *body and *canonical owned. */
typedef int (*spec_builder_fn)(json_object **body, json_object **canonical, const struct registry_entry *entry,
                               const struct image_facts *image, struct err **err);
_must_check_ int spec_build_v1(json_object **body, json_object **canonical, const struct registry_entry *entry,
                               const struct image_facts *image, struct err **err);

/* In SecurityOpt: "seccomp=" and then the hash (in a spec) or the text (for the Engine). */
#define SECCOMP_OPTION "seccomp="

/* -- drift ---------------------------------------------------------------------------------------------------------------- */
struct judge {
        const struct spec *spec;
        const struct spec_host *host;
        json_object *want;    /* the whole create body */
        json_object *inspect; /* borrowed */
        char **reasons;
};
/* "where: is X, approved Y", both escaped and cut. */
void judge_add(struct judge *j, const char *where, const char *is, const char *want);
void judge_add_json(struct judge *j, const char *where, json_object *is, json_object *want);
/* null, false, 0, "", [] and {}: what an Engine writes for "not set". */
bool value_is_default(json_object *o);
/* Equal, where "not set" in any spelling equals itself, and the order of an array matters only if `ordered`. */
bool value_same(json_object *a, json_object *b, bool ordered);

void judge_config(struct judge *j);
void judge_host_config(struct judge *j);
void judge_network(struct judge *j);
void judge_mounts(struct judge *j);
