/*
 * What lies in one commit's tree: SERVER/ID.yaml with SERVER/ID.yaml.sig beside it, and everything that pretends to. Only names and object
 * ids; no content is read here. Private to common/forge/.
 */
#pragma once

#include "common/forge/git.h"
#include "common/mem.h"

struct found {
        char *path;   /* "github/f-….yaml"; escaped, because it may be any bytes */
        char *server; /* NULL when the directory's name is not a server's */
        char *id;     /* NULL when refused */
        git_oid record, signature;
        bool has_record, has_signature;
        char *refused; /* why this is no record */
};

struct found_list {
        struct found *v;
        size_t n;
};
void found_list_deinit(struct found_list *l);

/* -1: the tree cannot be read or is over a bound. *l is to be zeroed by the caller. */
_must_check_ int collect(struct found_list *l, git_repository *repo, const git_oid *commit, struct err **err);
