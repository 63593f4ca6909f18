/*
 * A proposal with its evidence, every hash computed anew from the parts: what `smoke` shows, what `approve` shows and signs.
 */
#pragma once

#include "cli/records.h"

struct review {
        const struct record *proposal; /* borrowed from the view */
        const struct record *previous; /* the server's last approval, NULL = first; borrowed */
        bool previous_revoked;
        struct registry_entry *entry;
        struct evidence *evidence; /* NULL = no smoke test yet */
        struct spec *spec;         /* NULL without evidence */
        json_object *manifest;     /* NULL without a passed smoke test */
        char manifest_sha256[SHA256_HEX];
        json_object *findings; /* vet_manifest() */
};

/* Finds, parses and recomputes; an entry, image or manifest that does not give the hashes it claims is an error. */
_must_check_ int review_new(struct review **ret, const struct conf *conf, const struct forge_view *view, const struct forge_item *proposal,
                            struct err **err);
/* Everything, in full, escaped. */
void review_print(const struct review *r, const struct conf *conf, struct out *o);
/* The facts for programs. Owned. */
json_object *review_to_json(const struct review *r);
struct review *review_free(struct review *r);
DEFINE_FREEP(struct review *, review_free)

/* The vetting facts of an image and the signals in a manifest, which smoke shows too. */
void review_print_image(const struct image_facts *image, struct out *o);
void review_print_findings(json_object *findings, struct out *o);
