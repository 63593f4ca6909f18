#include "common/smoke/talk.h"

#include <time.h>

#include "common/smoke/talk_session.h"
#include "common/text.h"

#define MAX_ROUNDS 5U /* of reading lists that the server says have changed meanwhile */

uint64_t talk_now_ms(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void talk_result_deinit(struct talk_result *r)
{
        mem_freep(&r->why);
        mem_freep(&r->protocol);
        mem_freep(&r->manifest);
        strv_freep(&r->tools);
}

/* What talk_request() returned, when only a result will do. */
static int want_result(struct talk_session *s, int r, const struct talk_message *reply, const char *method, struct err **err)
{
        _cleanup_free_ char *safe = NULL, *more = NULL;

        if (r < 0)
                return err_wrap(err, "%s", method);
        if (r == 1)
                return err_set(err, ERR_TIMEOUT, "no answer to %s within the %llu s of the whole test", method,
                               (unsigned long long)(s->config->timeout_ms + 999) / 1000);
        if (r == 2)
                return err_set(err, ERR_INVALID, "%s was answered with HTTP status %ld and no message", method, s->http_status);
        if (reply->kind == TALK_RESULT)
                return 0;
        safe = text_escape(reply->error);
        if (json_object_is_type(reply->data, json_type_string))
                more = text_escape(json_object_get_string(reply->data));
        return err_set(err, ERR_INVALID, "%s was refused: %.500s (%lld)%s%.300s", method, safe, (long long)reply->code, more ? ": " : "",
                       more ? more : "");
}

static void take_instructions(struct talk_manifest *m, json_object *result)
{
        mem_replace(&m->instructions, mem_strdup(json_str(result, "instructions")));
}

static bool in_array(json_object *array, const char *value)
{
        if (!json_object_is_type(array, json_type_array))
                return false;
        for (size_t i = 0; i < json_object_array_length(array); i++) {
                json_object *o = json_object_array_get_idx(array, i);
                if (json_object_is_type(o, json_type_string) && str_eq(json_object_get_string(o), value))
                        return true;
        }
        return false;
}

/* A result of a revision with result types: absent means complete (basic/index, "ResultType"). */
static bool is_complete(json_object *result)
{
        const char *type = json_str(result, "resultType");

        return !json_get(result, "resultType") || str_eq(type, "complete");
}

/* The answer to server/discover: 0 modern, 1 not, go and initialize. */
static int judge_discover(struct talk_session *s, const struct talk_message *reply, struct talk_manifest *m, json_object **capabilities,
                          struct err **err)
{
        if (reply->kind == TALK_ERROR) {
                bool modern_error = reply->code == -32020 || reply->code == -32021 || reply->code == -32022;
                json_object *supported = json_get(reply->data, "supported");
                if (!modern_error || in_array(supported, TALK_LEGACY))
                        return 1;
                return err_set(err, ERR_INVALID, "server/discover: a modern server (error %lld) that does not speak " TALK_MODERN,
                               (long long)reply->code);
        }
        /* A legacy server that answers unknown methods with an empty result is no modern one. */
        if (!json_object_is_type(json_get(reply->result, "supportedVersions"), json_type_array))
                return 1;
        if (!in_array(json_get(reply->result, "supportedVersions"), TALK_MODERN)) {
                if (in_array(json_get(reply->result, "supportedVersions"), TALK_LEGACY))
                        return 1;
                return err_set(err, ERR_INVALID, "server/discover: none of the server's revisions is known here");
        }
        if (!is_complete(reply->result) || !json_object_is_type(json_get(reply->result, "capabilities"), json_type_object))
                return err_set(err, ERR_INVALID, "server/discover: the answer is incomplete or without \"capabilities\"");
        s->modern = true;
        mem_replace(&s->protocol, mem_strdup(TALK_MODERN));
        *capabilities = json_object_get(json_get(reply->result, "capabilities"));
        take_instructions(m, reply->result);
        return 0;
}

static int discover(struct talk_session *s, struct talk_manifest *m, json_object **capabilities, struct err **err)
{
        _cleanup_talk_message_ struct talk_message reply = {.id = -1};
        uint64_t until = s->config->transport == TALK_STDIO ? talk_now_ms() + s->config->probe_ms : 0;
        int r;

        s->modern = true;
        r = talk_request(s, &reply, "server/discover", NULL, NULL, until, err);
        s->modern = false;
        if (r < 0)
                return err_wrap(err, "server/discover");
        if (r == 1 && talk_now_ms() >= s->deadline)
                return want_result(s, r, &reply, "server/discover", err);
        if (r == 1)
                s->probe_id = s->last_id;
        return r > 0 ? 1 : judge_discover(s, &reply, m, capabilities, err);
}

static int initialize(struct talk_session *s, struct talk_manifest *m, json_object **capabilities, struct err **err)
{
        static const char *const known[] = {TALK_LEGACY, "2025-06-18", "2025-03-26", "2024-11-05"};
        _cleanup_talk_message_ struct talk_message reply = {.id = -1};
        json_object *params = json_object_new_object();
        const char *version;
        bool found = false;
        int r;

        json_add_str(params, "protocolVersion", TALK_LEGACY);
        json_add(params, "capabilities", json_object_new_object());
        r = talk_request(s, &reply, "initialize", NULL, params, 0, err);
        /* A modern server that was slow to start answers the probe first: then it is what it says. */
        if (r == 0 && s->have_late && s->late.kind == TALK_RESULT && judge_discover(s, &s->late, m, capabilities, NULL) == 0)
                return 0;
        if (want_result(s, r, &reply, "initialize", err) < 0)
                return -1;
        version = json_str(reply.result, "protocolVersion");
        for (size_t i = 0; i < ELEMENTSOF(known); i++)
                found = found || str_eq(version, known[i]);
        if (!found) {
                _cleanup_free_ char *safe = text_escape(version ? version : "");
                return err_set(err, ERR_INVALID, "initialize: the server chose revision \"%.40s\", which is not known here", safe);
        }
        if (!json_object_is_type(json_get(reply.result, "capabilities"), json_type_object))
                return err_set(err, ERR_INVALID, "initialize: the answer has no \"capabilities\"");
        mem_replace(&s->protocol, mem_strdup(version));
        *capabilities = json_object_get(json_get(reply.result, "capabilities"));
        take_instructions(m, reply.result);
        return talk_notify(s, "notifications/initialized", err);
}

static int read_list(struct talk_session *s, struct talk_manifest *m, enum talk_list list, struct err **err)
{
        const struct talk_listing *l = talk_listing(list);
        const char *cursor = NULL;

        talk_manifest_begin(m, list);
        do {
                _cleanup_talk_message_ struct talk_message reply = {.id = -1};
                json_object *params = json_object_new_object();
                int r;

                json_add_str(params, "cursor", cursor);
                r = talk_request(s, &reply, l->method, NULL, params, 0, err);
                /* Servers with resources but without templates often do not know the method. */
                if (r == 0 && list == TALK_TEMPLATES && reply.kind == TALK_ERROR && reply.code == -32601)
                        return 0;
                if (want_result(s, r, &reply, l->method, err) < 0)
                        return -1;
                if (!is_complete(reply.result))
                        return err_set(err, ERR_INVALID, "%s: the answer is not complete", l->method);
                if (talk_manifest_page(m, list, reply.result, &cursor, err) < 0)
                        return -1;
        } while (cursor);
        return 0;
}

/* Reads what the server has, and again what it says has changed, until it is quiet. */
static int read_lists(struct talk_session *s, struct talk_manifest *m, json_object *capabilities, struct err **err)
{
        unsigned todo = 0;

        for (unsigned i = 0; i < TALK_N_LISTS; i++)
                if (json_object_is_type(json_get(capabilities, talk_listing((enum talk_list)i)->capability), json_type_object))
                        todo |= 1U << i;
        const unsigned all = todo;
        for (unsigned round = 0; todo; round++) {
                if (round == MAX_ROUNDS)
                        return err_set(err, ERR_LIMIT, "the server keeps saying that its lists changed (%u times)", MAX_ROUNDS);
                s->changed &= ~todo;
                for (unsigned i = 0; i < TALK_N_LISTS; i++)
                        if ((todo & 1U << i) && read_list(s, m, (enum talk_list)i, err) < 0)
                                return -1;
                if (talk_listen(s, talk_now_ms() + s->config->settle_ms, err) < 0)
                        return -1;
                todo = s->changed & all;
        }
        return 0;
}

static int call_tool(struct talk_session *s, struct talk_manifest *m, struct err **err)
{
        _cleanup_talk_message_ struct talk_message reply = {.id = -1};
        const char *tool = json_str(s->config->call, "tool");
        json_object *arguments = json_get(s->config->call, "arguments"), *definition = talk_manifest_tool(m, tool), *params;

        if (!tool)
                return 0;
        if (!definition)
                return err_set(err, ERR_INVALID, "the smoke test should call the tool \"%s\", which the server does not list", tool);
        s->params = talk_param_headers(json_get(definition, "inputSchema"), arguments);
        params = json_object_new_object();
        json_add_str(params, "name", tool);
        json_add(params, "arguments", arguments ? json_object_get(arguments) : json_object_new_object());
        if (want_result(s, talk_request(s, &reply, "tools/call", tool, params, 0, err), &reply, "tools/call", err) < 0)
                return -1;
        if (!is_complete(reply.result))
                return err_set(err, ERR_INVALID, "tools/call %s: the server asks for input, which a smoke test does not give", tool);
        if (json_get(reply.result, "isError") && json_flag(reply.result, "isError", true))
                return err_set(err, ERR_INVALID, "tools/call %s: the tool says that it failed", tool);
        if (!json_object_is_type(json_get(reply.result, "content"), json_type_array) && !json_get(reply.result, "structuredContent"))
                return err_set(err, ERR_INVALID, "tools/call %s: the result has no content", tool);
        return 0;
}

static int converse(struct talk_session *s, struct talk_manifest *m, char **manifest, struct err **err)
{
        _cleanup_json_ json_object *capabilities = NULL;
        /* The SSE transport ended with revision 2024-11-05: no server behind it is modern. */
        int r = s->config->transport == TALK_SSE ? 1 : discover(s, m, &capabilities, err);

        if (r == 1)
                r = initialize(s, m, &capabilities, err);
        if (r < 0 || read_lists(s, m, capabilities, err) < 0)
                return -1;
        if (talk_manifest_text(m, manifest, err) < 0)
                return -1;
        if (strlen(*manifest) > s->config->max_bytes)
                return err_set(err, ERR_LIMIT, "the canonical manifest has more than %zu bytes", s->config->max_bytes);
        return call_tool(s, m, err);
}

void talk_run(struct talk_result *ret, const struct talk_config *config, const struct talk_io *io)
{
        struct talk_session s = {.config = config, .io = io, .deadline = talk_now_ms() + config->timeout_ms, .late = {.id = -1}};
        _cleanup_(talk_manifest_deinit) struct talk_manifest m = {0};
        _cleanup_free_ char *manifest = NULL;
        _cleanup_err_ struct err *err = NULL;

        *ret = (struct talk_result){0};
        ret->passed = converse(&s, &m, &manifest, &err) == 0;
        ret->protocol = TAKE_PTR(s.protocol);
        if (ret->passed) {
                ret->manifest = TAKE_PTR(manifest);
                ret->tools = talk_manifest_tools(&m);
        } else {
                ret->why = mem_strdup(err_msg(err));
        }
        talk_session_deinit(&s);
}
