/*
 * What the controller must not forget, in small files written tmp + fsync + rename: what the forge accepted, and which images passed their
 * smoke test. A missing forge state refuses: it is made once, by `bulkhead-controller --init-state`, and never silently again.
 */
#pragma once

#include "common/conf.h"
#include "common/forge/forge.h"

/* ERR_NOT_FOUND when it is lost; any damage is an error as well. */
_must_check_ int state_load_forge(struct forge_state **ret, const struct conf *conf, struct err **err);
_must_check_ int state_save_forge(const struct conf *conf, const struct forge_state *state, struct err **err);
/* Creates an empty forge state; refuses when there is one (1 = it was there). */
_must_check_ int state_init(const struct conf *conf, struct err **err);

/* Smoke tests that passed: spec hash (it covers image and entry) -> manifest hash, and its pins. A lost file only means that they are made
 * again. */
struct smoked;
struct smoked *smoked_load(const struct conf *conf);
struct smoked *smoked_free(struct smoked *s);
DEFINE_FREEP(struct smoked *, smoked_free)
/* Borrowed; NULL = not tested yet. */
const char *smoked_manifest(const struct smoked *s, const char *spec_hash);
/* Of that manifest (common/manifest.h), sorted; borrowed until the next smoked_remember(). NULL = not known. */
char **smoked_pins(const struct smoked *s, const char *spec_hash);
/* pins (taken over) may be NULL: of a manifest that nobody approved, nobody needs them. */
_must_check_ int smoked_remember(struct smoked *s, const struct conf *conf, const char *spec_hash, const char *manifest_sha256, char **pins,
                                 struct err **err);
