/*
 * Docker Engine API client: libcurl multi over the Engine's unix socket, driven by sd-event. Nothing here blocks, except
 * engine_wait(), which is for programs without a loop of their own (CLI, tests). Every call has a deadline and a bound on its answer;
 * errors carry the Engine's own message. Single-threaded.
 *
 * The protocol's source: Docker Engine API reference, v1.41 and later (https://docs.docker.com/reference/api/engine/).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/err.h"
#include "common/json.h"

#define ENGINE_API_FLOOR  41 /* 1.41 = Engine 20.10 */
#define ENGINE_API_NEWEST 51 /* the newest this client was written against */

struct engine;

/* Borrows loop for its lifetime (takes a reference). Connects lazily: never fails because the Engine is away. */
_must_check_ int engine_new(struct engine **ret, sd_event *loop, const char *socket_path, struct err **err);
/* Outstanding calls are dropped without calling back. */
struct engine *engine_free(struct engine *e);
DEFINE_FREEP(struct engine *, engine_free)

/* Negotiated API minor version, 0 before the first successful call. */
unsigned engine_api_minor(const struct engine *e);
/* "20.10.24", "" before. Podman's profile: engine_is_podman(). */
const char *engine_version(const struct engine *e);
bool engine_is_podman(const struct engine *e);

struct engine_call; /* one call in flight */

/*
 * Called exactly once, from the loop, never from inside engine_call_start(). It may start and cancel calls and free the engine.
 *
 * err is NULL when the Engine answered 2xx (or 304, "already so"): then status is its code and body its JSON (NULL when empty). Otherwise
 * err says what failed and carries the Engine's message (foreign text, at most 1 KiB of it, not escaped):
 *
 * - ERR_NOT_FOUND: 404
 * - ERR_CONFLICT: 409, and conflicts that some Engines report as 403 or 500 (address pools that overlap, names in use)
 * - ERR_INVALID: 400 and other refusals, and answers that are not HTTP or JSON
 * - ERR_DENIED: 401, 403, or no access to the socket
 * - ERR_UNAVAILABLE: 5xx, no socket, cut off, or an Engine whose API versions do not meet ours
 * - ERR_TIMEOUT: no complete answer within the call's time
 * - ERR_LIMIT: an answer over its bound
 *
 * status is 0 when no answer came. All arguments are borrowed. Integers of the body beyond 2^53 are strings of their digits.
 */
typedef void (*engine_done_fn)(int status, json_object *body, struct err *err, void *user);

struct engine_request {
        const char *method;  /* "GET", "POST", "DELETE" */
        const char *path;    /* "/containers/create", without the version prefix, already escaped (engine_escape) */
        const char *query;   /* "all=1&filters=…" escaped, or NULL */
        json_object *body;   /* borrowed: serialised at once; NULL = none */
        uint64_t timeout_ms; /* whole call; 0 = 30 s */
        size_t max_answer;   /* bytes; 0 = 4 MiB */
};
/* Starts with version negotiation when that is not done (or the connection was lost since). ret may be NULL. */
void engine_call_start(struct engine *e, struct engine_call **ret, const struct engine_request *request, engine_done_fn done, void *user);
/* Forgets the call: done is not called. What the Engine already began goes on: look again before repeating it. */
struct engine_call *engine_call_cancel(struct engine_call *c);
/* Percent-escapes for a path segment or a query value; owned. */
char *engine_escape(const char *s);
/* The same for an image reference in a path: its / : @ stay as they are (Podman does not undo their escapes); owned. */
char *engine_escape_reference(const char *reference);
/* ("label", "a=b") -> {"label":["a=b"]}, escaped, to stand behind "filters="; owned. */
char *engine_filters(const char *key, const char *value);

/* Runs the loop until the one call is done. *body owned, may be NULL. */
_must_check_ int engine_wait(struct engine *e, const struct engine_request *request, int *status, json_object **body, struct err **err);

/* The same for typed calls: pass engine_waiter_done and a zeroed waiter as their done and user, then wait. 0, or the call's error. */
struct engine_waiter {
        bool finished;
        int status;
        json_object *body; /* owned by the waiter */
        struct err *err;
};
void engine_waiter_done(int status, json_object *body, struct err *err, void *user);
_must_check_ int engine_waiter_wait(struct engine *e, struct engine_waiter *w, struct err **err);
void engine_waiter_deinit(struct engine_waiter *w);

/* -- typed calls: thin, all through engine_call_start() ------------------------------------------------------------------ */

/* Every container (running or not) whose label key has the value; value NULL = any. Body: array. */
void engine_container_list(struct engine *e, const char *label, const char *value, engine_done_fn done, void *user);
void engine_container_create(struct engine *e, const char *name, const char *platform, json_object *body, engine_done_fn done, void *user);
void engine_container_inspect(struct engine *e, const char *id, engine_done_fn done, void *user);
void engine_container_start(struct engine *e, const char *id, engine_done_fn done, void *user);
/* timeout_s: how long the Engine waits before SIGKILL. */
void engine_container_stop(struct engine *e, const char *id, unsigned timeout_s, engine_done_fn done, void *user);
/* force, with anonymous volumes. 404 and "removal already in progress" are waited out: done without error means gone. */
void engine_container_remove(struct engine *e, const char *id, engine_done_fn done, void *user);
void engine_image_inspect(struct engine *e, const char *reference, engine_done_fn done, void *user);
/* Body: array of networks (list does not show containers). */
void engine_network_list(struct engine *e, const char *label, const char *value, engine_done_fn done, void *user);
void engine_network_inspect(struct engine *e, const char *id, engine_done_fn done, void *user);
void engine_network_create(struct engine *e, json_object *body, engine_done_fn done, void *user);
/*
 * While it "has active endpoints": disconnects every container from it, and retries with backoff for 30 s. 404 = done. Force is used only
 * for endpoints that no container holds any more; where a live container needs it, that is the caller's decision
 * (engine_network_disconnect()).
 */
void engine_network_remove(struct engine *e, const char *id, engine_done_fn done, void *user);
/* By force: also from a container that does not run. */
void engine_network_disconnect(struct engine *e, const char *network, const char *container, engine_done_fn done, void *user);

/*
 * Pull by digest. reference "host/name@sha256:…". Errors inside the 200 stream are errors here; a stream that ended early is confirmed by
 * inspecting the digest. progress (may be NULL) is called with bytes so far / known total (0 = unknown) and a status text. max_bytes: of
 * the compressed layers while they come, and of the unpacked image in the end (which is then there all the same); 0 = no bound. A tag
 * instead of a digest is taken too. done's body is the image inspect. progress and done get the same user.
 */
typedef void (*engine_progress_fn)(uint64_t current, uint64_t total, const char *status, void *user);
void engine_image_pull(struct engine *e, struct engine_call **ret, const char *reference, const char *platform, uint64_t max_bytes,
                       uint64_t timeout_ms, engine_progress_fn progress, engine_done_fn done, void *user);
/* What a tag or digest is in its registry, without pulling: GET /distribution/{name}/json; body has Descriptor and Platforms. */
void engine_distribution_inspect(struct engine *e, const char *reference, engine_done_fn done, void *user);

/*
 * Event stream. `event` is called per event; `lost` whenever the stream (re)started, so that the owner lists again: events before are lost.
 * Reconnects by itself with backoff (100 ms to 5 s, with jitter). `down` (may be NULL) when the stream broke or could not be had at first,
 * once per outage. filters as engine_filters() gives them (with or without "filters=" in front), or NULL. Never fails today. Free it before
 * its engine. Integers beyond 2^53 (timeNano) are strings.
 */
struct engine_events;
typedef void (*engine_event_fn)(json_object *event, void *user);
typedef void (*engine_lost_fn)(void *user);
_must_check_ int engine_events_new(struct engine_events **ret, struct engine *e, const char *filters, engine_event_fn event,
                                   engine_lost_fn lost, engine_lost_fn down, void *user, struct err **err);
struct engine_events *engine_events_free(struct engine_events *v);
DEFINE_FREEP(struct engine_events *, engine_events_free)

/*
 * Attach: opens a socket of its own and speaks the upgrade on it. done gets the connected descriptor (owned by the callee; -1 on error)
 * after a parsed 101, and any bytes that already followed the headers. The descriptor is non-blocking and closed on exec.
 */
typedef void (*engine_attach_fn)(int fd, const void *early, size_t n_early, struct err *err, void *user);
void engine_container_attach(struct engine *e, struct engine_call **ret, const char *id, engine_attach_fn done, void *user);

/*
 * The attach stream's frames: 8-byte header (stream, 0, 0, 0, big-endian length), split at any byte. Feed bytes; `chunk` is called with
 * pieces of payload as they come (never buffered whole). -1 when a header is not one or a length is over max_frame.
 */
struct attach_frames {
        unsigned char header[8];
        size_t have;
        uint32_t left;
        int stream;         /* 1 stdout, 2 stderr */
        uint32_t max_frame; /* 0 = 16 MiB */
};
typedef void (*attach_chunk_fn)(int stream, const void *data, size_t n, void *user);
_must_check_ int attach_frames_feed(struct attach_frames *f, const void *data, size_t n, attach_chunk_fn chunk, void *user,
                                    struct err **err);
