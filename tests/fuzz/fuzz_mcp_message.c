/*
 * A message, or any JSON: what is accepted json_parse() accepts too, every slice lies inside and is a value of its kind, walking finds what
 * json-c found, and edits are undone by their opposite.
 */
#include "common/json.h"
#include "common/mcp/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool fine)
{
        if (!fine)
                abort();
}

static void inside(const struct mcp_message *m, struct mcp_slice s)
{
        if (!mcp_has(s))
                return;
        check(s.at >= m->text && s.at + s.n <= m->text + m->n && s.n > 0);
        check(mcp_value_check(s.at, s.n, NULL) == 0);
}

static void slices(const struct mcp_message *m)
{
        const struct mcp_slice all[] = {
                m->id,
                m->params,
                m->result,
                m->error,
                m->meta,
                m->name,
                m->uri,
                m->cursor,
                m->arguments,
                m->request_id,
                m->level,
                m->input_responses,
                m->request_state,
                m->notifications,
                m->ref,
                m->ref_name,
                m->ref_uri,
                m->protocol_version,
                m->capabilities,
                m->client_info,
                m->result_type,
                m->next_cursor,
                m->instructions,
                m->server_info,
                m->progress_token,
                m->meta_version,
                m->meta_capabilities,
                m->meta_client_info,
                m->meta_log_level,
                m->meta_subscription,
                m->error_message,
                m->error_data,
        };

        for (size_t i = 0; i < ELEMENTSOF(all); i++)
                inside(m, all[i]);
        check(m->kind != MCP_REQUEST || (mcp_has(m->id) && mcp_has(m->method)));
        check(m->kind != MCP_NOTIFICATION || (!mcp_has(m->id) && mcp_has(m->method)));
        check(m->kind != MCP_RESULT || (mcp_has(m->id) && mcp_is_object(m->result)));
        check(m->kind != MCP_ERROR || mcp_is_string(m->error_message));
}

/* As json-c has it: the same keys with the same texts in them, at every level. */
static void compare(struct mcp_slice s, json_object *o)
{
        struct mcp_slice key, value;
        size_t n = 0;

        if (mcp_is_object(s)) {
                for (size_t pos = 0; mcp_object_next(s, &pos, &key, &value); n++) {
                        _cleanup_free_ char *name = mcp_string((struct mcp_slice){key.at - 1, key.n + 2});
                        json_object *member = NULL;
                        check(json_object_object_get_ex(o, name, &member));
                        check(mcp_same(mcp_object_get(s, name), value));
                        compare(value, member);
                }
                check(n == (size_t)json_object_object_length(o));
        } else if (mcp_is_array(s)) {
                for (size_t pos = 0; mcp_array_next(s, &pos, &value); n++)
                        compare(value, json_object_array_get_idx(o, n));
                check(n == json_object_array_length(o));
        } else if (mcp_is_string(s)) {
                _cleanup_free_ char *text = mcp_string(s);
                _cleanup_buf_ struct buf again = {0};
                check(str_eq(text, json_object_get_string(o)));
                mcp_add_string(&again, text, strlen(text));
                _cleanup_free_ char *back = mcp_string((struct mcp_slice){again.data, again.len});
                check(str_eq(text, back));
        } else {
                check(mcp_is_true(s) == (json_object_is_type(o, json_type_boolean) && json_object_get_boolean(o)));
                check(mcp_is_integer(s) == json_object_is_type(o, json_type_int));
        }
}

/* Setting a member that is new and removing it again gives the same text; so does setting one to what it is. */
static void edit(struct mcp_slice object)
{
        _cleanup_buf_ struct buf more = {0}, back = {0}, same = {0};
        struct mcp_slice key, value;
        size_t pos = 0;

        if (!mcp_is_object(object) || mcp_has(mcp_object_get(object, "fuzz")))
                return;
        mcp_object_set(&more, object, "fuzz", mcp_slice_of("[1]"));
        check(mcp_value_check(more.data, more.len, NULL) == 0);
        check(mcp_is(mcp_object_get((struct mcp_slice){more.data, more.len}, "fuzz"), "[1]"));
        mcp_object_set(&back, (struct mcp_slice){more.data, more.len}, "fuzz", (struct mcp_slice){0});
        check(mcp_same((struct mcp_slice){back.data, back.len}, object));
        if (!mcp_object_next(object, &pos, &key, &value))
                return;
        _cleanup_free_ char *name = mcp_string((struct mcp_slice){key.at - 1, key.n + 2});
        mcp_object_set(&same, object, name, value);
        check(mcp_same((struct mcp_slice){same.data, same.len}, object));
        same.len = 0;
        mcp_object_set(&same, object, name, (struct mcp_slice){0});
        check(mcp_value_check(same.data, same.len, NULL) == 0 && !mcp_has(mcp_object_get((struct mcp_slice){same.data, same.len}, name)));
}

static size_t trim(const char **text, size_t n)
{
        while (n > 0 && memchr(" \t\r\n", **text, 4))
                (*text)++, n--;
        while (n > 0 && memchr(" \t\r\n", (*text)[n - 1], 4))
                n--;
        return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        const struct json_limits limits = {.max_bytes = SIZE_MAX, .max_depth = MCP_MAX_DEPTH};
        /* A copy of its exact size: reading past the end shows. */
        _cleanup_free_ char *copy = mem_dup(data, size);
        _cleanup_err_ struct err *err = NULL, *why = NULL;
        _cleanup_json_ json_object *o = NULL;
        const char *text = copy;
        struct mcp_message m;
        int fault = mcp_message_scan(&m, text, size, &err), bad = mcp_value_check(text, size, NULL);

        check((fault == 0) == !err);
        check((bad != 0) == (fault == MCP_FAULT_PARSE || fault == MCP_FAULT_LIMIT));
        if (fault == 0)
                slices(&m);
        int r = json_parse(&o, text, size, "fuzz", &limits, &why);
        /* json_parse() has no limit of keys; but both refuse the same. */
        check((r < 0) == (bad != 0));
        if (bad)
                return 0;
        size = trim(&text, size);
        compare((struct mcp_slice){text, size}, o);
        edit((struct mcp_slice){text, size});
        return 0;
}
