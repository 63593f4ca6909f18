/*
 * libgit2, kept on a short lead: repositories opened by full path and only when nobody else may write them, objects read by id with their
 * hash checked and their size bounded before they are loaded. Private to common/forge/.
 */
#pragma once

#include <git2.h>

#include "common/conf.h"
#include "common/err.h"

#define GIT_MAX_COMMIT_BYTES (1U << 20)
#define GIT_MAX_TREE_BYTES   (4U << 20)

/* Hands to us what libgit2 opened; cleanup functions tolerate NULL. */
static inline void git_repo_freep(git_repository **p)
{
        git_repository_free(*p);
}
static inline void git_odb_freep(git_odb **p)
{
        git_odb_free(*p);
}
static inline void git_odb_object_freep(git_odb_object **p)
{
        git_odb_object_free(*p);
}
static inline void git_tree_freep(git_tree **p)
{
        git_tree_free(*p);
}
static inline void git_commit_freep(git_commit **p)
{
        git_commit_free(*p);
}
static inline void git_reference_freep(git_reference **p)
{
        git_reference_free(*p);
}
static inline void git_signature_freep(git_signature **p)
{
        git_signature_free(*p);
}

/* "<text>: <libgit2's reason, escaped>". Returns -1. */
int git_fault(struct err **err, enum err_code code, const char *fmt, ...) _printf_(3, 4);
/* Process-wide settings; cheap to call again. */
_must_check_ int git_setup(struct err **err);
/* Opens it, after judging the owners and modes of everything that decides what we read. */
_must_check_ int git_open(git_repository **ret, const struct conf *conf, struct err **err);
/* The commit conf->approvals_ref names. 1: there is no such reference (yet). */
_must_check_ int git_tip(git_oid *ret, git_repository *repo, const struct conf *conf, struct err **err);
/* Is `old` the same as `tip` or an ancestor? Walks commits itself: a commit-graph file is a cache that somebody else wrote. */
_must_check_ int git_descends(bool *ret, git_repository *repo, const git_oid *tip, const git_oid *old, struct err **err);

_must_check_ int git_load_commit(git_commit **ret, git_repository *repo, const git_oid *id, struct err **err);
_must_check_ int git_load_tree(git_tree **ret, git_repository *repo, const git_oid *id, struct err **err);
/* Refuses blobs over max before they are read. *ret owned, NUL-terminated. */
_must_check_ int git_load_blob(char **ret, size_t *len, git_repository *repo, const git_oid *id, size_t max, struct err **err);
/* An ordinary file, not a link, directory or submodule? */
bool git_is_file(const git_tree_entry *e);
