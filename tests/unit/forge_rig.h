/*
 * What the tests of common/forge share: a directory of its own with a real bare repository and real ed25519 keys made by ssh-keygen,
 * records signed by them, and commits with any tree, also ones that no honest program would write.
 */
#pragma once

#include <git2.h>

#include "common/conf.h"
#include "common/forge/forge.h"
#include "common/forge/repo.h"

#define RIG_NOW ((time_t)1764000000) /* 2025-11-24T16:00:00Z: the tests' clock */

struct rig {
        char *dir;
        struct conf conf; /* strings owned by the rig */
        char *key;        /* alice@example.org's private key */
        char *mallory;    /* a key that nobody lists */
};

void rig_init(struct rig *rig);
void rig_deinit(struct rig *rig);
/* Another key pair; owned path. */
char *rig_make_key(struct rig *rig, const char *name);
/* "PRINCIPAL [options] KEY" lines, written to the file of the configuration. */
void rig_trust(struct rig *rig, const char *principal, const char *options, const char *key);
void rig_trust_add(struct rig *rig, const char *principal, const char *options, const char *key);
/* A file in the rig's directory; owned path. */
char *rig_write(struct rig *rig, const char *name, const char *text);
/* Signs with any namespace, unlike sshsig_sign(). Owned. */
char *rig_sign(const char *key, const char *name_space, const char *text);

/* A registry entry and records about it. All owned by the caller. */
struct registry_entry *rig_entry(struct rig *rig, const char *extra_json);
json_object *rig_record(struct rig *rig, const char *kind, unsigned serial);
/* An approval that fits rig_entry(): hashes computed as the CLI does. */
json_object *rig_approval(struct rig *rig, unsigned serial);

/* Commits record (and its signature by key; NULL = none) as SERVER/ID.yaml. Hands back the id (owned). record is consumed. */
char *rig_commit_record(struct rig *rig, json_object *record, const char *key);
/* Rewrites the tip's tree: path gets the blob with this mode, or is removed (data NULL). parent: commit on top of the tip, or as a root. */
void rig_rewrite(struct rig *rig, const char *path, const char *data, git_filemode_t mode, bool parent);
/* A tip whose root tree has exactly these directories, all with the content of github/: names that no honest tool writes. */
void rig_raw_root(struct rig *rig, const char *const *names, size_t n);
/* Points the ref anywhere. */
void rig_move_ref(struct rig *rig, const char *commit);
char *rig_tip(struct rig *rig);

struct forge_view *rig_read(struct rig *rig, const struct forge_state *state, time_t now);
const struct forge_item *rig_item(const struct forge_view *view, const char *id);

/* Around a test; *state is its rig. */
int rig_setup(void **state);
int rig_teardown(void **state);
/* The record does not count, for this reason; or it does. */
void rig_assert_refused(const struct forge_view *view, const char *id, enum forge_refusal refusal, const char *says);
void rig_assert_counts(const struct forge_view *view, const char *id);
