#include "common/mcp/message.h"

#include "common/mcp/scan.h"

enum { STRING = 1, OBJECT = 2, INTEGER = 4, ANY = 8 };

/* A message and the values that are judged before they become part of it. */
struct found {
        struct mcp_message m;
        struct mcp_slice jsonrpc, raw_id, method, error_code, token_in_params;
};

struct field {
        enum place place;
        enum place inside; /* what its value is */
        unsigned types;    /* a value of none of these is left out, and m.misfit names it */
        const char *key;
        size_t offset; /* of a slice in struct found */
};

#define IN_MESSAGE_OF(slice) offsetof(struct found, m.slice)
#define BESIDE(slice)        offsetof(struct found, slice)

/* Members of the message itself are judged all together when they are all there. */
static const struct field fields[] = {
        {IN_MESSAGE, IN_OTHER, ANY, "jsonrpc", BESIDE(jsonrpc)},
        {IN_MESSAGE, IN_OTHER, ANY, "id", IN_MESSAGE_OF(id)},
        {IN_MESSAGE, IN_OTHER, ANY, "method", BESIDE(method)},
        {IN_MESSAGE, IN_PARAMS, ANY, "params", IN_MESSAGE_OF(params)},
        {IN_MESSAGE, IN_RESULT, ANY, "result", IN_MESSAGE_OF(result)},
        {IN_MESSAGE, IN_ERROR, ANY, "error", IN_MESSAGE_OF(error)},

        {IN_PARAMS, IN_META, OBJECT, "_meta", IN_MESSAGE_OF(meta)},
        {IN_PARAMS, IN_OTHER, STRING, "name", IN_MESSAGE_OF(name)},
        {IN_PARAMS, IN_OTHER, STRING, "uri", IN_MESSAGE_OF(uri)},
        {IN_PARAMS, IN_OTHER, STRING, "cursor", IN_MESSAGE_OF(cursor)},
        {IN_PARAMS, IN_OTHER, ANY, "arguments", IN_MESSAGE_OF(arguments)},
        {IN_PARAMS, IN_OTHER, STRING | INTEGER, "requestId", IN_MESSAGE_OF(request_id)},
        {IN_PARAMS, IN_OTHER, STRING, "level", IN_MESSAGE_OF(level)},
        {IN_PARAMS, IN_OTHER, OBJECT, "inputResponses", IN_MESSAGE_OF(input_responses)},
        {IN_PARAMS, IN_OTHER, STRING, "requestState", IN_MESSAGE_OF(request_state)},
        {IN_PARAMS, IN_OTHER, OBJECT, "notifications", IN_MESSAGE_OF(notifications)},
        {IN_PARAMS, IN_REF, OBJECT, "ref", IN_MESSAGE_OF(ref)},
        {IN_PARAMS, IN_OTHER, STRING, "protocolVersion", IN_MESSAGE_OF(protocol_version)},
        {IN_PARAMS, IN_OTHER, OBJECT, "capabilities", IN_MESSAGE_OF(capabilities)},
        {IN_PARAMS, IN_OTHER, OBJECT, "clientInfo", IN_MESSAGE_OF(client_info)},
        {IN_PARAMS, IN_OTHER, STRING | INTEGER, "progressToken", BESIDE(token_in_params)},

        {IN_RESULT, IN_META, OBJECT, "_meta", IN_MESSAGE_OF(meta)},
        {IN_RESULT, IN_OTHER, STRING, "resultType", IN_MESSAGE_OF(result_type)},
        {IN_RESULT, IN_OTHER, STRING, "nextCursor", IN_MESSAGE_OF(next_cursor)},
        {IN_RESULT, IN_OTHER, STRING, "instructions", IN_MESSAGE_OF(instructions)},
        {IN_RESULT, IN_OTHER, STRING, "protocolVersion", IN_MESSAGE_OF(protocol_version)},
        {IN_RESULT, IN_OTHER, OBJECT, "capabilities", IN_MESSAGE_OF(capabilities)},
        {IN_RESULT, IN_OTHER, OBJECT, "serverInfo", IN_MESSAGE_OF(server_info)},

        {IN_META, IN_OTHER, STRING | INTEGER, "progressToken", IN_MESSAGE_OF(progress_token)},
        {IN_META, IN_OTHER, STRING, "io.modelcontextprotocol/protocolVersion", IN_MESSAGE_OF(meta_version)},
        {IN_META, IN_OTHER, OBJECT, "io.modelcontextprotocol/clientCapabilities", IN_MESSAGE_OF(meta_capabilities)},
        {IN_META, IN_OTHER, OBJECT, "io.modelcontextprotocol/clientInfo", IN_MESSAGE_OF(meta_client_info)},
        {IN_META, IN_OTHER, STRING, "io.modelcontextprotocol/logLevel", IN_MESSAGE_OF(meta_log_level)},
        {IN_META, IN_OTHER, STRING | INTEGER, "io.modelcontextprotocol/subscriptionId", IN_MESSAGE_OF(meta_subscription)},

        {IN_REF, IN_OTHER, STRING, "name", IN_MESSAGE_OF(ref_name)},
        {IN_REF, IN_OTHER, STRING, "uri", IN_MESSAGE_OF(ref_uri)},

        {IN_ERROR, IN_OTHER, ANY, "code", BESIDE(error_code)},
        {IN_ERROR, IN_OTHER, ANY, "message", IN_MESSAGE_OF(error_message)},
        {IN_ERROR, IN_OTHER, ANY, "data", IN_MESSAGE_OF(error_data)},
};

const struct field *found_field(enum place place, struct mcp_slice key, bool escaped)
{
        for (size_t i = 0; i < ELEMENTSOF(fields); i++) {
                const struct field *f = &fields[i];

                if (f->place == place && (escaped ? string_is(key, f->key) : mcp_is(key, f->key)))
                        return f;
        }
        return NULL;
}

enum place found_place(const struct field *field)
{
        return field->inside;
}

static unsigned type_of(struct mcp_slice value)
{
        return mcp_is_string(value) ? STRING : mcp_is_object(value) ? OBJECT : mcp_is_integer(value) ? INTEGER : 0;
}

void found_value(struct found *found, const struct field *field, struct mcp_slice value)
{
        if (field->types == ANY || (field->types & type_of(value)))
                *(struct mcp_slice *)(void *)((char *)found + field->offset) = value;
        else if (!found->m.misfit)
                found->m.misfit = field->key;
}

static int invalid(struct err **err, const char *why)
{
        (void)!err_set(err, ERR_INVALID, "no JSON-RPC message of MCP: %s", why);
        return MCP_FAULT_INVALID;
}

/* An id that cannot be repeated in an answer is none. */
static const char *take_id(struct mcp_message *m)
{
        struct mcp_slice id = m->id;
        bool fits = id.n <= MCP_MAX_ID;

        if (!mcp_has(id) || (fits && type_of(id) & (STRING | INTEGER)))
                return NULL;
        m->id = (struct mcp_slice){0};
        return fits ? "\"id\" is neither a string nor an integer" : "\"id\" is longer than 256 bytes";
}

static int take_method(struct found *f, const char *bad_id, struct err **err)
{
        struct mcp_message *m = &f->m;
        struct mcp_slice name = {f->method.at + 1, f->method.n - 2};

        if (bad_id)
                return invalid(err, bad_id);
        if (!mcp_is_string(f->method) || name.n == 0 || name.n > MCP_MAX_METHOD)
                return invalid(err, "\"method\" is no string of 1 to 128 bytes");
        for (size_t i = 0; i < name.n; i++)
                if (!memchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_/.$-", name.at[i], 67))
                        return invalid(err, "\"method\" has characters other than letters, digits and _ / . $ -");
        if (mcp_has(m->result) || mcp_has(m->error))
                return invalid(err, "\"method\" stands beside \"result\" or \"error\"");
        if (mcp_has(m->params) && !mcp_is_object(m->params))
                return invalid(err, "\"params\" is not an object");
        m->method = name;
        m->kind = mcp_has(m->id) ? MCP_REQUEST : MCP_NOTIFICATION;
        if (mcp_is(name, "notifications/progress"))
                m->progress_token = f->token_in_params;
        return 0;
}

static int take_error(struct found *f, const char *bad_id, struct err **err)
{
        struct mcp_message *m = &f->m;

        /* null says that the id could not be read; so may a missing one. */
        if (bad_id && !mcp_is(f->raw_id, "null"))
                return invalid(err, bad_id);
        if (!mcp_is_object(m->error))
                return invalid(err, "\"error\" is not an object");
        if (!mcp_is_integer(f->error_code))
                return invalid(err, "\"error\" has no integer \"code\"");
        if (!mcp_is_string(m->error_message))
                return invalid(err, "\"error\" has no string \"message\"");
        m->error_code = strtoll(f->error_code.at, NULL, 10);
        m->kind = MCP_ERROR;
        return 0;
}

static int take_answer(struct found *f, const char *bad_id, struct err **err)
{
        struct mcp_message *m = &f->m;

        if (mcp_has(m->params))
                return invalid(err, "\"params\" without \"method\"");
        if (mcp_has(m->result) == mcp_has(m->error))
                return invalid(err, "not exactly one of \"method\", \"result\" and \"error\"");
        if (mcp_has(m->error))
                return take_error(f, bad_id, err);
        if (bad_id || !mcp_has(m->id))
                return invalid(err, bad_id ? bad_id : "a \"result\" without \"id\"");
        if (!mcp_is_object(m->result))
                return invalid(err, "\"result\" is not an object");
        m->kind = MCP_RESULT;
        return 0;
}

static int take_message(struct found *f, struct mcp_slice value, struct err **err)
{
        const char *bad_id;

        if (mcp_is_array(value)) {
                (void)!err_set(err, ERR_INVALID, "a batch of messages, where only one is allowed");
                return MCP_FAULT_BATCH;
        }
        if (!mcp_is_object(value))
                return invalid(err, "not an object");
        f->raw_id = f->m.id;
        bad_id = take_id(&f->m);
        if (!mcp_is(f->jsonrpc, "\"2.0\""))
                return invalid(err, "\"jsonrpc\" is not \"2.0\"");
        return mcp_has(f->method) ? take_method(f, bad_id, err) : take_answer(f, bad_id, err);
}

int mcp_message_scan(struct mcp_message *m, const char *text, size_t n, struct err **err)
{
        struct found found = {.m = {.text = text, .n = n}};
        _cleanup_(scan_deinit) struct scan s = {.found = &found, .err = err};
        int r = scan_text(&s, text, n, IN_MESSAGE);

        if (r == 0)
                r = take_message(&found, s.value, err);
        if (r == 0)
                *m = found.m;
        else
                *m = (struct mcp_message){.text = text, .n = n, .id = r == MCP_FAULT_INVALID ? found.m.id : (struct mcp_slice){0}};
        return r;
}

int mcp_value_check(const char *text, size_t n, struct err **err)
{
        _cleanup_(scan_deinit) struct scan s = {.err = err};

        return scan_text(&s, text, n, IN_OTHER);
}
