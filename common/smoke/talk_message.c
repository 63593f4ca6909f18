#include "common/smoke/talk_message.h"

#include "common/text.h"

static bool member(json_object *o, const char *key, json_object **ret)
{
        *ret = NULL;
        return json_object_object_get_ex(o, key, ret);
}

static int take_error(struct talk_message *m, json_object *error, struct err **err)
{
        json_object *code, *message;

        if (!json_object_is_type(error, json_type_object))
                return err_set(err, ERR_INVALID, "\"error\" is not an object");
        if (!member(error, "code", &code) || !json_object_is_type(code, json_type_int))
                return err_set(err, ERR_INVALID, "\"error.code\" is not an integer");
        if (!member(error, "message", &message) || !json_object_is_type(message, json_type_string))
                return err_set(err, ERR_INVALID, "\"error.message\" is not a string");
        m->kind = TALK_ERROR;
        m->code = json_object_get_int64(code);
        m->error = json_object_get_string(message);
        m->data = json_get(error, "data");
        return 0;
}

/* A result or an error: exactly one of the two, and an id we can compare. */
static int take_answer(struct talk_message *m, json_object *o, struct err **err)
{
        json_object *id, *result, *error;
        bool has_id = member(o, "id", &id) && id;
        bool has_result = member(o, "result", &result);
        bool has_error = member(o, "error", &error);

        if (has_result == has_error)
                return err_set(err, ERR_INVALID, "a message without \"method\" must have either \"result\" or \"error\"");
        m->id = has_id && json_object_is_type(id, json_type_int) ? json_object_get_int64(id) : -1;
        m->id_missing = !has_id;
        if (has_error)
                return take_error(m, error, err);
        if (!has_id)
                return err_set(err, ERR_INVALID, "a result without an \"id\"");
        if (!json_object_is_type(result, json_type_object))
                return err_set(err, ERR_INVALID, "\"result\" is not an object");
        m->kind = TALK_RESULT;
        m->result = result;
        return 0;
}

static int take_call(struct talk_message *m, json_object *o, json_object *method, struct err **err)
{
        json_object *id, *other;

        if (!json_object_is_type(method, json_type_string))
                return err_set(err, ERR_INVALID, "\"method\" is not a string");
        if (member(o, "result", &other) || member(o, "error", &other))
                return err_set(err, ERR_INVALID, "a message with \"method\" must have neither \"result\" nor \"error\"");
        m->method = json_object_get_string(method);
        m->kind = TALK_NOTIFICATION;
        if (!member(o, "id", &id))
                return 0;
        if (!json_object_is_type(id, json_type_int) && !json_object_is_type(id, json_type_string))
                return err_set(err, ERR_INVALID, "a request's \"id\" is neither a string nor an integer");
        m->kind = TALK_REQUEST;
        m->id_json = id;
        return 0;
}

static bool looks_meant(const char *text, size_t n)
{
        return memmem(text, n, "\"jsonrpc\"", 9) != NULL;
}

int talk_message_parse(struct talk_message *ret, const char *text, size_t n, struct err **err)
{
        const struct json_limits limits = {.max_bytes = n + 1, .max_depth = TALK_MAX_DEPTH};
        _cleanup_json_ json_object *o = NULL;
        _cleanup_err_ struct err *why = NULL;
        json_object *version, *method;
        struct talk_message m = {.id = -1};

        while (n > 0 && strchr(" \t\r\n", text[0]) && text[0])
                text++, n--;
        if (n == 0 || (text[0] != '{' && text[0] != '['))
                return 1;
        if (json_parse(&o, text, n, "message", &limits, &why) < 0) {
                _cleanup_free_ char *safe = NULL;
                /* Servers print objects and the like while they start: only what was meant as a message is held to the rules. */
                if (!looks_meant(text, n))
                        return 1;
                safe = text_escape(err_msg(why));
                return err_set(err, ERR_INVALID, "%s", safe);
        }
        if (!json_object_is_type(o, json_type_object)) {
                if (!looks_meant(text, n))
                        return 1;
                return err_set(err, ERR_INVALID, "a batch of messages, which the agreed revision does not have");
        }
        if (!member(o, "jsonrpc", &version))
                return 1;
        if (!json_object_is_type(version, json_type_string) || strcmp(json_object_get_string(version), "2.0") != 0)
                return err_set(err, ERR_INVALID, "\"jsonrpc\" is not \"2.0\"");
        if ((member(o, "method", &method) ? take_call(&m, o, method, err) : take_answer(&m, o, err)) < 0)
                return -1;
        m.json = TAKE_PTR(o);
        *ret = m;
        return 0;
}

void talk_message_deinit(struct talk_message *m)
{
        json_freep(&m->json);
        *m = (struct talk_message){.id = -1};
}
