/*
 * Messages between our programs over unix stream sockets: one JSON object a line, bounded, peer credentials checked by the receiver.
 * Control socket: CLI -> controller. Request {"verb": "...", ...}; answers are zero or more {"progress": {...}} lines and one last
 * {"ok": true, "result": ...} or {"ok": false, "error": "...", "exit": N}.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/err.h"
#include "common/json.h"

#define LINK_MAX_LINE (8U << 20)

struct link_peer {
        pid_t pid;
        uid_t uid;
        gid_t gid;
        gid_t *groups; /* supplementary, SO_PEERGROUPS */
        size_t n_groups;
};

/* -- server, in a loop ---------------------------------------------------------------------------------------------------- */
struct link_server;
struct link_conn;
/* One request. request is borrowed. Answer now or later with link_answer()/link_fail(); the conn stays valid until then even if the peer left (link_alive()). */
typedef void (*link_request_fn)(struct link_conn *c, const struct link_peer *peer, json_object *request, void *user);
/* Takes a listening descriptor or binds path (directory must exist; an old socket file is replaced; mode 0666: who may is decided by credentials). */
_must_check_ int link_server_new(struct link_server **ret, sd_event *loop, const char *path, int listen_fd, link_request_fn request, void *user, struct err **err);
struct link_server *link_server_free(struct link_server *s);
DEFINE_FREEP(struct link_server *, link_server_free)
void link_progress(struct link_conn *c, json_object *progress /* handed over */);
void link_answer(struct link_conn *c, json_object *result /* handed over */);
void link_fail(struct link_conn *c, int exit_code, const char *message);
bool link_alive(const struct link_conn *c);
bool link_peer_in_group(const struct link_peer *peer, gid_t gid);

/* -- client, blocking (CLI) ----------------------------------------------------------------------------------------------- */
typedef void (*link_progress_fn)(json_object *progress, void *user);
/*
 * Sends request, waits for the last line. 0: *result owned (may be NULL). -1: *exit_code says which exit code fits: 69 unreachable, 77 not permitted, else the
 * daemon's own.
 */
_must_check_ int link_call(const char *path, json_object *request, unsigned timeout_s, link_progress_fn progress, void *user, json_object **result, int *exit_code, struct err **err);
