/*
 * Requests and answers with one server: ids, the server's own requests, list changes. Between talk.c (what is asked) and the transports.
 * Private to the helper bulkhead-smoke-talk.
 */
#pragma once

#include "common/smoke/talk.h"
#include "common/smoke/talk_message.h"

struct talk_session {
        const struct talk_config *config;
        const struct talk_io *io;
        uint64_t deadline;
        int64_t last_id;
        int64_t probe_id;         /* the server/discover nobody waits for any more, 0 = none */
        struct talk_message late; /* its answer, when it came after all */
        bool have_late;
        bool modern;
        char *protocol;
        unsigned changed; /* bit per enum talk_list: the server said that this list is a new one */
        char **params;    /* headers of the next request */
        unsigned noise, foreign_requests;
        long http_status;
};
void talk_session_deinit(struct talk_session *s);

/*
 * Sends and waits. params (may be NULL) is handed over. 0: *reply is the answer, a result or an error. 1: none until `until` (0 = the
 * deadline of all). 2: turned down without a message, see http_status. -1: over.
 */
_must_check_ int talk_request(struct talk_session *s, struct talk_message *reply, const char *method, const char *name, json_object *params,
                              uint64_t until, struct err **err);
_must_check_ int talk_notify(struct talk_session *s, const char *method, struct err **err);
/* Takes in what comes unasked until then. 0 or -1. */
_must_check_ int talk_listen(struct talk_session *s, uint64_t until, struct err **err);
