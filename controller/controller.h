/*
 * The controller's parts and what they share. One struct controller a process; every module below works on it from the one loop:
 *   inputs.c   registry file and approvals -> desired        pass.c     observe -> plan -> apply, and when
 *   apply.c    one server's actions, one after the other     smoking.c  smoke tests
 *   control.c  the control socket's verbs                    status.c   what `bulkhead status` and `plan` show
 *   broker.c   the link to the broker                        keys.c     the table of servers, and their failures
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/address.h"
#include "common/conf.h"
#include "common/engine/engine.h"
#include "common/link/link.h"
#include "common/smoke/smoke.h"
#include "common/spawn.h"
#include "controller/broker.h"
#include "controller/demand.h"
#include "controller/desired.h"
#include "controller/egress/egress.h"
#include "controller/observe.h"
#include "controller/plan.h"
#include "controller/state.h"

/* Longest a pull may take: a large image over a slow line. */
#define PULL_MS 600000U

struct controller;
struct smoking;

/* One server as the controller works on it: its last plan, what runs of it, its backoff. */
struct key {
        struct controller *c;
        char *name;
        struct plan_server *plan; /* of the last pass; its actions are being done while busy */
        size_t next;              /* index of the action that is being done */
        bool busy;
        bool holds_slot, waits_for_slot;
        struct desired *desired; /* what the actions work from, while busy */
        char subnet[SUBNET_MAX]; /* of its network, or reserved for it */

        char *image_of; /* record id that image_ok and image_refused speak of */
        bool image_ok;
        char *image_refused;
        char *tested_for;  /* record id that the last smoke test was made for */
        uint64_t asked_ms; /* external servers: when it last answered what it offers; 0 = not since we started, or not the last time */
        char *stopping;    /* container that is being ended beside the actions */

        char *error; /* why the last attempt failed; NULL = it did not */
        bool smoke_failed;
        enum server_state failed_state; /* what the server was to become when it failed */
        bool failed_removal;            /* the failed action was to end a container */
        unsigned failures;              /* in a row */
        uint64_t retry_at_ms;           /* CLOCK_MONOTONIC; 0 = at once */
        uint64_t up_since_ms;           /* running without a failure since; 0 = it is not */
        bool exit_counted;              /* the end of what runs or ran is part of `failures` already, or is no fault of its own */
        unsigned restarts;

        struct session session; /* stdio */
        char *hung;             /* HTTP: the instance that the broker gave back; NULL = none */
        char **differs;         /* what the broker withholds of it, since it is not what was approved; escaped. NULL = nothing */
        struct demand demand;   /* on-demand servers */
};

/* Someone at the control socket who waits until a pass is through. */
struct waiter {
        struct link_conn *conn;
        bool settle; /* until nothing is left to do, not just until the next pass */
};

struct controller {
        const struct conf *conf;
        sd_event *loop;
        struct engine *engine;
        struct engine_events *events;
        struct egress *egress;
        struct link_server *control;
        struct observer *observer;
        struct images *images;
        struct address_pool *pool;
        struct smoked *smoked;

        /* inputs.c */
        struct shared *registry; /* struct registry, last good */
        char *registry_error;
        time_t registry_loaded_at;
        struct shared *view;               /* struct forge_view, last read */
        struct forge_state *initial_state; /* until the first view */
        char *view_error;
        bool state_unsaved; /* the view's state is not on disk yet */
        char fingerprint[SHA256_HEX];
        struct spawn *reading;
        bool read_again;
        struct desired *desired;
        struct desired *looked_for; /* what the Engine is being looked at with; NULL = no look is under way */
        struct desired nothing;     /* stands in for `desired` while the inputs were never good */
        int inotify;
        bool unwatched; /* some directory could not be watched, which was said */
        sd_event_source *watch, *watch_timer, *expiry_timer;

        /* pass.c */
        struct key **keys; /* sorted by name */
        size_t n_keys;
        unsigned slots_used;
        bool passing, pass_wanted, full_wanted, observed_once;
        unsigned pass_failures;
        char *engine_error;
        bool engine_left; /* its event stream broke and is not back yet */
        sd_event_source *pass_timer, *resync_timer;
        uint64_t passes, mutations, pass_began_us, last_pass_us;
        struct waiter *waiters;
        size_t n_waiters;

        bool egress_ok;
        char *egress_error, *egress_last_change;

        struct smoking **smokes;
        size_t n_smokes;

        struct broker *broker; /* NULL in tests */
};

uint64_t controller_now_ms(void); /* CLOCK_MONOTONIC */
uint64_t controller_now_us(void);

/* -- inputs.c ------------------------------------------------------------------------------------------------------------- */
/* Watches the files and reads them for the first time. */
_must_check_ int inputs_start(struct controller *c, struct err **err);
void inputs_stop(struct controller *c);
/* Look again now (control verb "reload", a timer). */
void inputs_reload(struct controller *c);
/* Judges registry and view anew, for instance because an approval expired. */
void inputs_judge(struct controller *c);
/* Remembers the time of day now and then. */
void inputs_raise_floor(struct controller *c);
time_t inputs_now(const struct controller *c); /* the later of the clock and the persisted floor */

/* -- pass.c --------------------------------------------------------------------------------------------------------------- */
_must_check_ int pass_start(struct controller *c, struct err **err);
void pass_stop(struct controller *c);
/* Look again soon: in delay_ms at the latest. full: forget remembered inspects. */
void pass_request(struct controller *c, uint64_t delay_ms, bool full);
/* Now, however busy the Engine is: somebody waits for a server. */
void pass_now(struct controller *c);
void pass_wait(struct controller *c, struct link_conn *conn, bool settle);

/* -- keys.c --------------------------------------------------------------------------------------------------------------- */
struct key *key_get(struct controller *c, const char *name); /* created when missing */
struct key *key_find(struct controller *c, const char *name);
void key_free(struct key *key);
/* Frees those that nothing declares and of which nothing is left. */
void keys_sweep(struct controller *c);
/* The plan's state, corrected by what is going on and by what failed. key may be NULL. */
enum server_state key_state(const struct key *key);
const char *key_why(const struct key *key); /* borrowed; NULL = all is well */
uint64_t key_retry_in_ms(const struct key *key);
/* Counts a failure and sets when to try again. */
void key_backoff(struct key *key);
/* Counts an end of what ran, once. */
void key_count_end(struct key *key);

/* -- apply.c -------------------------------------------------------------------------------------------------------------- */
/* Begins the actions of key->plan. Ends in pass_request(). */
void apply_begin(struct key *key);

/* -- ends.c --------------------------------------------------------------------------------------------------------------- */
/* While the key is busy, which can take minutes (a pull, a smoke test): ends what runs of it and may not run any more. */
void end_unapproved(struct key *key, const struct observed *observed);
/*
 * While the registry was never good, so that nobody knows what is declared: ends what runs without an approval that stands. Approvals are
 * known by then, and a revocation does not wait for a file to be mended.
 */
void end_uncovered(struct controller *c, const struct observed *observed);

/* -- smoking.c ------------------------------------------------------------------------------------------------------------ */
/* result owned by the callee; err borrowed. facts and spec: of the tested image (borrowed). */
typedef void (*smoking_done_fn)(struct smoke_result *result, const struct image_facts *facts, const struct spec *spec, struct err *err,
                                void *user);
struct smoking_request {
        const struct registry_entry *entry; /* borrowed until done */
        const struct image_facts *approved; /* borrowed until done: the image must be this one; NULL = whatever the entry's digest is */
        engine_progress_fn progress;        /* of a pull; may be NULL */
        smoking_done_fn done;
        void *user; /* of both */
};
/* Smoke-tests an entry; pulls and inspects the image first. Always comes to its end, within the limits of bulkhead.conf. */
_must_check_ int smoking_start(struct controller *c, const struct smoking_request *request, struct err **err);
const char *smoking_bridge(const struct smoking *s);
const char *smoking_subnet(const struct smoking *s);
const char *smoking_spec(const struct smoking *s);
/* "host/name@sha256:…" of an entry's image: what the Engine pulls and inspects, without a tag. Owned. */
char *image_reference(const struct registry_entry *entry);

/* -- control.c, status.c, doctor.c ---------------------------------------------------------------------------------------- */
_must_check_ int control_start(struct controller *c, struct err **err);
json_object *status_json(const struct controller *c, const char *server);
json_object *status_plan(const struct controller *c);
json_object *doctor_json(struct controller *c);
