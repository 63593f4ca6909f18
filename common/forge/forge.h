/*
 * The forge's reading side: everything one pinned commit of the approvals repository says, verified.
 *
 * forge_read() is what the helper program `bulkhead-forge-read` does for the controller (git objects and signatures are parsed there, without
 * capabilities); the controller starts it through forge_read_start() and gets the same struct back through a small JSON text. The CLI calls forge_read() itself.
 *
 * History only moves forward: the tip must descend from the last accepted commit and contain every record accepted before, unchanged; else the
 * tip is refused as a whole, except that a validly signed revocation in it still counts.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>
#include <time.h>

#include "common/conf.h"
#include "common/forge/record.h"

/* One record as this host knows it. */
struct forge_item {
        struct record *record;
        char *path;        /* "github/f-….yaml" in the repository */
        char *sha256;      /* of record bytes + NUL + signature bytes: what "unchanged" means */
        char *signer;      /* verified principal; NULL when unsigned or refused */
        time_t accepted_at; /* when this host first accepted it; 0 = not yet */
        char *refused;     /* why it does not count (bad signature, wrong audience, unreadable …); NULL = good. record may be NULL then */
};

/* Persisted by the controller (state.h), handed to every read. */
struct forge_state {
        char *commit;     /* last accepted, 40 hex; NULL = nothing accepted yet (initialised, empty) */
        struct {
                char *id, *server, *sha256;
                time_t at;
        } *accepted;      /* every signed record ever accepted */
        size_t n_accepted;
        char **revoked;   /* ids of approvals that a valid revocation ended: for ever */
        struct {
                char *server;
                uint64_t serial;
        } *serials;       /* highest accepted serial by server */
        size_t n_serials;
        time_t time_floor; /* the latest time this host has seen: expiry is judged by the later of this and the clock */
};
struct forge_state *forge_state_free(struct forge_state *s);
DEFINE_FREEP(struct forge_state *, forge_state_free)
/* JSON <-> state; version and bounds are checked. */
json_object *forge_state_to_json(const struct forge_state *s);
_must_check_ int forge_state_from_json(struct forge_state **ret, json_object *o, struct err **err);

struct forge_view {
        char *commit;          /* the tip that was read */
        char *refused;         /* why the whole tip is refused (rolled back, record deleted …); NULL = accepted */
        struct forge_item *items;
        size_t n_items;
        struct forge_state *next; /* the state to persist when this view is accepted (when refused: the old one plus new revocations) */
};
struct forge_view *forge_view_free(struct forge_view *v);
DEFINE_FREEP(struct forge_view *, forge_view_free)

/*
 * Reads conf->approvals_repository at conf->approvals_ref. -1: could not be read at all (missing, not ours, unreadable); a refused tip is 0 with view->refused set.
 * Blocks (git objects, ssh-keygen): CLI and helper only.
 */
_must_check_ int forge_read(struct forge_view **ret, const struct conf *conf, const struct forge_state *state, time_t now, struct err **err);

typedef void (*forge_read_fn)(struct forge_view *view /* handed over, NULL on error */, struct err *err, void *user);
struct spawn;
/* The daemon's way: runs the helper, calls back from the loop. Cancel with spawn_cancel(). */
_must_check_ int forge_read_start(struct spawn **ret, sd_event *loop, const struct conf *conf, const struct forge_state *state, forge_read_fn done, void *user, struct err **err);

/* -- verdict: which approval, if any, lets a server run. Pure. ------------------------------------------------------------ */
enum forge_verdict {
        FORGE_APPROVED,
        FORGE_UNAPPROVED,      /* no approval record at all */
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
 * The record with the highest serial decides. *record is borrowed from view (may be NULL), *spec owned (NULL unless FORGE_APPROVED), *why owned:
 * a sentence for status that says what to do. now: the later of clock and floor.
 * With FORGE_HISTORY_REFUSED, *record and *spec are still given when the previously accepted records approve it: what runs may stay.
 */
enum forge_verdict forge_judge(const struct forge_view *view, const struct registry_entry *entry, const struct conf *conf, time_t now,
                               const struct record **record, struct spec **spec, char **why);
