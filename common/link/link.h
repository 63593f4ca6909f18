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

#define LINK_MAX_LINE       (8U << 20)   /* an answer */
#define LINK_MAX_REQUEST    (256U << 10) /* a request: a registry entry and little else */
#define LINK_MAX_CONNS      64           /* of one server; the next is told to come again and closed */
#define LINK_MAX_CONNS_USER 16           /* of one uid that is neither root nor the server's own: nobody locks the operators out */
#define LINK_DEADLINE_MS    10000        /* to finish a request, and to read an answer: slow and silent peers are dropped */

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
/*
 * One request. request is borrowed. Answer exactly once, now or later, with link_answer()/link_fail(); the conn stays valid until then even
 * if the peer left (link_alive()) or the server was freed, and must not be used afterwards. A conn has one request at a time: the next one
 * waits.
 */
typedef void (*link_request_fn)(struct link_conn *c, const struct link_peer *peer, json_object *request, void *user);
/* Takes a listening descriptor or binds path (directory must exist; an old socket file is replaced; mode 0666: who may is decided by
 * credentials). */
_must_check_ int link_server_new(struct link_server **ret, sd_event *loop, const char *path, int listen_fd, link_request_fn request,
                                 void *user, struct err **err);
struct link_server *link_server_free(struct link_server *s);
DEFINE_FREEP(struct link_server *, link_server_free)
/* For tests: another deadline than LINK_DEADLINE_MS for connections made from now on. */
void link_server_set_deadline(struct link_server *s, uint64_t ms);
size_t link_server_connections(const struct link_server *s);
/* Progress is dropped while the peer has not read what was sent before. */
void link_progress(struct link_conn *c, json_object *progress /* handed over */);
void link_answer(struct link_conn *c, json_object *result /* handed over */);
void link_fail(struct link_conn *c, int exit_code, const char *message);
bool link_alive(const struct link_conn *c);
bool link_peer_in_group(const struct link_peer *peer, gid_t gid);

/* -- client, blocking (CLI) ----------------------------------------------------------------------------------------------- */
typedef void (*link_progress_fn)(json_object *progress, void *user);
/*
 * Sends request, waits for the last line. 0: *result owned (may be NULL). -1: *exit_code says which exit code fits: 69 unreachable, 77 not
 * permitted, else the daemon's own.
 */
_must_check_ int link_call(const char *path, json_object *request, unsigned timeout_s, link_progress_fn progress, void *user,
                           json_object **result, int *exit_code, struct err **err);
