#include "common/link/line.h"

#define MAX_DEPTH 48 /* a whole registry entry inside a request, an Engine inspect inside an answer */
#define MAX_VERB  32

int line_parse_request(json_object **ret, const char *line, size_t n, struct err **err)
{
        const struct json_limits limits = {.max_bytes = LINK_MAX_REQUEST, .max_depth = MAX_DEPTH};
        _cleanup_json_ json_object *o = NULL;

        if (json_parse(&o, line, n, "request", &limits, err) < 0)
                return -1;
        if (!json_object_is_type(o, json_type_object))
                return err_set(err, ERR_INVALID, "request: not a JSON object");
        const char *verb = json_str(o, "verb");
        if (!verb)
                return err_set(err, ERR_INVALID, "request: \"verb\" is missing or not a string");
        if (*verb == '\0' || strlen(verb) > MAX_VERB || !str_in_charset(verb, "abcdefghijklmnopqrstuvwxyz-"))
                return err_set(err, ERR_INVALID, "request: \"verb\" is not 1 to %d letters a-z or dashes", MAX_VERB);
        *ret = TAKE_PTR(o);
        return 0;
}

static int parse_failure(struct line_answer *ret, json_object *o, struct err **err)
{
        const char *error = json_str(o, "error");
        int64_t code = json_int(o, "exit", 1);

        if (!error)
                return err_set(err, ERR_INVALID, "answer: a failure without \"error\" text");
        if (code < 1 || code > 255)
                return err_set(err, ERR_INVALID, "answer: \"exit\" is not between 1 and 255");
        *ret = (struct line_answer){.kind = LINE_FAILURE, .error = mem_strdup(error), .exit_code = (int)code};
        return 0;
}

int line_parse_answer(struct line_answer *ret, const char *line, size_t n, struct err **err)
{
        const struct json_limits limits = {.max_bytes = LINK_MAX_LINE, .max_depth = MAX_DEPTH};
        _cleanup_json_ json_object *o = NULL;
        json_object *ok, *progress;

        if (json_parse(&o, line, n, "answer", &limits, err) < 0)
                return -1;
        if (!json_object_is_type(o, json_type_object))
                return err_set(err, ERR_INVALID, "answer: not a JSON object");
        ok = json_get(o, "ok");
        progress = json_get(o, "progress");
        if (progress && !ok) {
                if (!json_object_is_type(progress, json_type_object))
                        return err_set(err, ERR_INVALID, "answer: \"progress\" is not an object");
                *ret = (struct line_answer){.kind = LINE_PROGRESS, .value = json_object_get(progress)};
                return 0;
        }
        if (!ok || !json_object_is_type(ok, json_type_boolean))
                return err_set(err, ERR_INVALID, "answer: neither progress nor a boolean \"ok\"");
        if (!json_object_get_boolean(ok))
                return parse_failure(ret, o, err);
        *ret = (struct line_answer){.kind = LINE_RESULT, .value = json_object_get(json_get(o, "result"))};
        return 0;
}

void line_answer_deinit(struct line_answer *a)
{
        if (a->value)
                json_object_put(a->value);
        free(a->error);
        *a = (struct line_answer){0};
}

void line_append(struct buf *b, json_object *o)
{
        /* json-c escapes every control character inside strings, so the text has no newline of its own. */
        buf_adds(b, json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
        buf_addc(b, '\n');
}

void line_append_failure(struct buf *b, int exit_code, const char *message)
{
        _cleanup_json_ json_object *o = json_object_new_object();

        json_add_bool(o, "ok", false);
        json_add_str(o, "error", message ? message : "unknown error");
        json_add_int(o, "exit", exit_code >= 1 && exit_code <= 255 ? exit_code : 1);
        line_append(b, o);
}
