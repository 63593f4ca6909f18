/*
 * The forge's reading side: everything one pinned commit of the approvals repository says, verified.
 *
 * forge_read() is what the helper program `bulkhead-forge-read` does for the controller (git objects and signatures are parsed there,
 * without capabilities); the controller starts it through forge_read_start() and gets the same struct back through a small JSON text. The
 * CLI calls forge_read() itself.
 *
 * History only moves forward: the tip must descend from the last accepted commit and contain every record accepted before, unchanged; else
 * the tip is refused as a whole, except that a validly signed revocation in it still counts.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>
#include <time.h>

#include "common/conf.h"
#include "common/forge/record.h"

/* Why a file does not count. */
enum forge_refusal {
        FORGE_REFUSAL_NONE,
        FORGE_REFUSAL_FILE,      /* not a regular file, a wrong name, too large, not a record */
        FORGE_REFUSAL_SIGNATURE, /* unsigned, wrongly signed, by another than approved_by */
        FORGE_REFUSAL_AUDIENCE,  /* for another host */
        FORGE_REFUSAL_SERIAL,    /* replayed, out of order, or two of one serial */
};

/* One record as this host knows it. */
struct forge_item {
        struct record *record;
        char *path;         /* "github/f-….yaml" in the repository */
        char *sha256;       /* of record bytes + NUL + signature bytes: what "unchanged" means */
        char *signer;       /* verified principal; NULL when unsigned or refused */
        time_t accepted_at; /* when this host first accepted it; 0 = not yet */
        char *refused; /* why it does not count (bad signature, wrong audience, unreadable …); NULL = good. record may be NULL then */
        enum forge_refusal refusal; /* the same for programs */
};

/* What is remembered of one accepted record. */
struct forge_accepted {
        char *id, *server, *sha256;
        time_t at;
};

struct forge_serial {
        char *server;
        uint64_t serial;
};

/* A signature found good: not asked of ssh-keygen again while record, signature, trust files and verify-time are the same. */
struct forge_verified {
        char *key; /* hash over all of these, 64 hex */
        char *signer;
};

/* Persisted by the controller (state.h), handed to every read. */
struct forge_state {
        char *commit;                    /* last accepted, 40 hex; NULL = nothing accepted yet (initialised, empty) */
        struct forge_accepted *accepted; /* every signed record ever accepted */
        size_t n_accepted;
        char **revoked; /* what valid revocations ended, for ever: ids of approvals, and "SERVER<SERIAL" for every approval of a server
                           below a serial */
        struct forge_serial *serials; /* highest accepted serial by server */
        size_t n_serials;
        time_t time_floor;               /* the latest time this host has seen: expiry is judged by the later of this and the clock */
        struct forge_verified *verified; /* kept in memory only: forge_state_to_json() leaves it out */
        size_t n_verified;
};
struct forge_state *forge_state_free(struct forge_state *s);
DEFINE_FREEP(struct forge_state *, forge_state_free)
/* Is this approval ended by a revocation that this host has seen? */
bool forge_state_revokes(const struct forge_state *s, const struct record *approval);
/* JSON <-> state; version and bounds are checked. */
json_object *forge_state_to_json(const struct forge_state *s);
_must_check_ int forge_state_from_json(struct forge_state **ret, json_object *o, struct err **err);

struct forge_view {
        char *commit;  /* the tip that was read */
        char *refused; /* why the whole tip is refused (rolled back, record deleted …); NULL = accepted */
        struct forge_item *items;
        size_t n_items;
        struct forge_state *next; /* the state to persist when this view is accepted (when refused: the old one plus new revocations) */
};
struct forge_view *forge_view_free(struct forge_view *v);
DEFINE_FREEP(struct forge_view *, forge_view_free)

/*
 * Reads conf->approvals_repository at conf->approvals_ref. -1: could not be read at all (missing, not ours, unreadable); a refused tip is 0
 * with view->refused set. Blocks (git objects, ssh-keygen): CLI and helper only.
 */
_must_check_ int forge_read(struct forge_view **ret, const struct conf *conf, const struct forge_state *state, time_t now,
                            struct err **err);

typedef void (*forge_read_fn)(struct forge_view *view /* handed over, NULL on error */, struct err *err, void *user);
struct spawn;
/*
 * The daemon's way: runs the helper conf->helper_dir/bulkhead-forge-read, calls back from the loop. Cancel with spawn_cancel(). The view is
 * slim, so that thousands of records cost a daemon little: proposals that were answered are left out, and so are superseded approvals
 * but for the last of each server; record->json is NULL and record->entry is there in proposals only. Hand view->next to the following read
 * as its state (in the same process it carries the signatures found good).
 */
_must_check_ int forge_read_start(struct spawn **ret, sd_event *loop, const struct conf *conf, const struct forge_state *state,
                                  forge_read_fn done, void *user, struct err **err);

/*
 * Where references and objects lie: conf->approvals_repository itself when it is bare, or its .git directory. *ret owned, without symbolic
 * links. ERR_NOT_FOUND when there is no repository (yet).
 */
_must_check_ int forge_directory(char **ret, const struct conf *conf, struct err **err);

/*
 * Changes whenever a read could give another answer: reference, trust files, configuration. Cheap (a few stat() and one small file), parses
 * no git object: the same fingerprint as at the last read means that there is nothing to read. -1: cannot be told; then read.
 */
_must_check_ int forge_fingerprint(char out[SHA256_HEX], const struct conf *conf, struct err **err);

/* -- verdict: which approval, if any, lets a server run. Pure. ------------------------------------------------------------ */
enum forge_verdict {
        FORGE_APPROVED,
        FORGE_UNAPPROVED, /* no approval record at all */
        FORGE_EXPIRED,
        FORGE_REVOKED,
        FORGE_REJECTED,
        FORGE_BAD_SIGNATURE,   /* the newest record is unsigned, wrongly signed, by an unknown key … */
        FORGE_ENTRY_MISMATCH,  /* the registry entry is not the one approved */
        FORGE_DIGEST_MISMATCH, /* the entry's image is not the approved digest */
        FORGE_SPEC_MISMATCH,   /* our builder gives another container than the one approved */
        FORGE_AUDIENCE_MISMATCH,
        FORGE_HISTORY_REFUSED, /* the tip is refused: nothing new starts */
};
const char *forge_verdict_name(enum forge_verdict v); /* "entry-mismatch" */
/*
 * The record with the highest serial decides. *record is borrowed from view (may be NULL), *spec owned (NULL unless FORGE_APPROVED), *why
 * owned: a sentence for status that says what to do. now: the later of clock and floor. With FORGE_HISTORY_REFUSED, *record and *spec are
 * still given when the previously accepted records approve it: what runs may stay.
 */
enum forge_verdict forge_judge(const struct forge_view *view, const struct registry_entry *entry, const struct conf *conf, time_t now,
                               const struct record **record, struct spec **spec, char **why);
