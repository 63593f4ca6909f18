/*
 * The broker's end of the link to the controller: connects, connects again, and tells the gateway what it hears. Used by the broker's main.
 */
#pragma once

#include "broker/gateway/gateway.h"

struct uplink;

/*
 * path: of the controller's socket; controller: the uid its process must have; grace_ms: how long what it told counts without it. Nothing
 * happens before uplink_start().
 */
struct uplink *uplink_new(sd_event *loop, const char *path, uid_t controller, uint64_t grace_ms);
/* What the gateway asks goes over the link; while that is down, starts are refused and the rest is dropped. */
struct gateway_controller uplink_controller(struct uplink *u);
_must_check_ int uplink_start(struct uplink *u, struct gateway *gateway, struct err **err);
struct uplink *uplink_free(struct uplink *u);
DEFINE_FREEP(struct uplink *, uplink_free)

/* What the controller's people ask about calls that wait for a human. */
struct uplink_calls {
        /* Calls each(text, to) for every one of them: a JSON object. */
        void (*list)(void (*each)(const char *text, void *to), void *to, void *user);
        int (*decide)(const char *id, bool approve, uint64_t valid_ms, const char *by, void *user, struct err **err);
        void *user;
};
/* Copied. Without, there are none. */
void uplink_serve_calls(struct uplink *u, const struct uplink_calls *calls);

/*
 * What people must know of the broker's own files (may be NULL: nothing), told to the controller now and whenever the link comes up. Of a
 * long sentence its beginning, of more than CHANNEL_MAX_TROUBLES the first. Copied.
 */
void uplink_set_troubles(struct uplink *u, char *const *troubles);

bool uplink_is_up(const struct uplink *u);      /* connected, and all there is was told */
bool uplink_was_synced(const struct uplink *u); /* all there is was told at least once */
