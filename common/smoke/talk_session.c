#include "common/smoke/talk_session.h"

#include "common/text.h"

#define MAX_FOREIGN_REQUESTS 1000U

void talk_session_deinit(struct talk_session *s)
{
        talk_message_deinit(&s->late);
        mem_freep(&s->protocol);
        strv_freep(&s->params);
}

static json_object *envelope(void)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "jsonrpc", "2.0");
        return o;
}

static int send_message(struct talk_session *s, json_object *o, const char *method, const char *name, bool request, struct err **err)
{
        const struct talk_outgoing out = {.message = o,
                                          .method = method,
                                          .name = name,
                                          .protocol = s->protocol,
                                          .modern = s->modern,
                                          .request = request,
                                          .params = request ? s->params : NULL};

        return s->io->send(s->io->self, &out, err);
}

static json_object *client_info(void)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "name", "bulkhead-smoke");
        json_add_str(o, "version", "1");
        return o;
}

/* Revision 2026-07-28, basic/index, "_meta": every request says who asks and in which revision. */
static void add_meta(json_object *params)
{
        json_object *meta = json_object_new_object();

        json_add_str(meta, "io.modelcontextprotocol/protocolVersion", TALK_MODERN);
        json_add(meta, "io.modelcontextprotocol/clientInfo", client_info());
        json_add(meta, "io.modelcontextprotocol/clientCapabilities", json_object_new_object());
        json_add(params, "_meta", meta);
}

int talk_notify(struct talk_session *s, const char *method, struct err **err)
{
        _cleanup_json_ json_object *o = envelope();

        json_add_str(o, "method", method);
        return send_message(s, o, method, NULL, false, err);
}

/* We offer no roots, no sampling and no elicitation: only a ping has an answer. */
static int answer(struct talk_session *s, const struct talk_message *m, struct err **err)
{
        _cleanup_json_ json_object *o = envelope();

        if (++s->foreign_requests > MAX_FOREIGN_REQUESTS)
                return err_set(err, ERR_LIMIT, "more than %u requests from the server to us", MAX_FOREIGN_REQUESTS);
        json_add(o, "id", json_object_get(m->id_json));
        if (str_eq(m->method, "ping")) {
                json_add(o, "result", json_object_new_object());
        } else {
                json_object *error = json_object_new_object();
                json_add_int(error, "code", -32601);
                json_add_str(error, "message", "not offered in a smoke test");
                json_add(o, "error", error);
        }
        return send_message(s, o, NULL, NULL, false, err);
}

static void note_change(struct talk_session *s, const char *method)
{
        for (unsigned i = 0; i < TALK_N_LISTS; i++)
                if (str_eq(talk_listing((enum talk_list)i)->changed, method))
                        s->changed |= 1U << i;
}

static void keep_late(struct talk_session *s, struct talk_message *m)
{
        talk_message_deinit(&s->late);
        s->late = *m;
        *m = (struct talk_message){.id = -1};
        s->have_late = true;
        s->probe_id = 0;
}

/* 1: m is the answer to `id`. 0: dealt with. */
static int sort_message(struct talk_session *s, struct talk_message *m, int64_t id, struct err **err)
{
        if (m->kind == TALK_NOTIFICATION) {
                note_change(s, m->method);
                return 0;
        }
        if (m->kind == TALK_REQUEST)
                return answer(s, m, err);
        /*
         * JSON-RPC 2.0, 5.1: an error may come without an id when the request could not be read; only one request of ours is open. HTTP
         * servers also make one up ("server-error") when they turn a request down before they read it: the status says so.
         */
        if (id > 0 && (m->id == id || (m->kind == TALK_ERROR && (m->id_missing || s->http_status >= 400))))
                return 1;
        if (s->probe_id > 0 && m->id == s->probe_id) {
                keep_late(s, m);
                return 0;
        }
        if (m->id > 0 && m->id <= s->last_id)
                return err_set(err, ERR_INVALID, "the server answered request %lld twice", (long long)m->id);
        return err_set(err, ERR_INVALID, "the server answered with an id that was never asked (%s)",
                       id > 0 ? "another request was open" : "no request was open");
}

static int take(struct talk_session *s, struct talk_message *m, const char *text, size_t n, struct err **err)
{
        int r = talk_message_parse(m, text, n, err);

        if (r < 0)
                return err_wrap(err, "a message of the server breaks the protocol");
        if (r > 0 && ++s->noise > TALK_MAX_NOISE)
                return err_set(err, ERR_LIMIT, "the server wrote more than %u lines that are not MCP messages", TALK_MAX_NOISE);
        return r;
}

static int wait_for(struct talk_session *s, struct talk_message *reply, int64_t id, uint64_t until, struct err **err)
{
        for (;;) {
                _cleanup_talk_message_ struct talk_message m = {.id = -1};
                _cleanup_free_ char *text = NULL;
                size_t n = 0;
                int r = s->io->receive(s->io->self, &text, &n, &s->http_status, until, err);

                if (r != 0)
                        return r;
                r = take(s, &m, text, n, err);
                if (r == 0)
                        r = sort_message(s, &m, id, err);
                else if (r > 0)
                        r = 0;
                if (r < 0)
                        return -1;
                if (r == 1) {
                        *reply = m;
                        m = (struct talk_message){.id = -1};
                        return 0;
                }
        }
}

int talk_request(struct talk_session *s, struct talk_message *reply, const char *method, const char *name, json_object *params,
                 uint64_t until, struct err **err)
{
        _cleanup_json_ json_object *o = envelope();
        int64_t id = ++s->last_id;

        if (!params)
                params = json_object_new_object();
        if (s->modern)
                add_meta(params);
        else if (str_eq(method, "initialize"))
                json_add(params, "clientInfo", client_info());
        json_add_int(o, "id", id);
        json_add_str(o, "method", method);
        json_add(o, "params", params);
        s->http_status = 0;
        if (send_message(s, o, method, name, true, err) < 0)
                return -1;
        return wait_for(s, reply, id, until ? MIN(until, s->deadline) : s->deadline, err);
}

int talk_listen(struct talk_session *s, uint64_t until, struct err **err)
{
        struct talk_message none;
        int r = wait_for(s, &none, 0, MIN(until, s->deadline), err);

        return r < 0 ? -1 : 0;
}
