#include "common/mcp/message.h"

#include "common/mcp/scan.h"

enum { STRING = 1, OBJECT = 2, INTEGER = 4, ANY = 8 };

/* A message and the values that are judged before they become part of it. */
struct found {
        struct mcp_message *m;
        struct mcp_slice jsonrpc, raw_id, method, error_code, token_in_params;
};

struct field {
        enum place inside; /* what its value is */
        unsigned types;    /* a value of none of these is left out, and m.misfit names it */
        bool beside;       /* it belongs to struct found, not to the message */
        size_t offset;     /* of a slice in it */
        const char *key;
        size_t n; /* its length */
};

#define AT(slice)     false, offsetof(struct mcp_message, slice)
#define BESIDE(slice) true, offsetof(struct found, slice)
#define KEY(text)     (text), sizeof(text) - 1

/* Members of the message itself are judged all together when they are all there. */
static const struct field in_message[] = {
        {IN_OTHER, ANY, BESIDE(jsonrpc), KEY("jsonrpc")}, {IN_OTHER, ANY, AT(id), KEY("id")},
        {IN_OTHER, ANY, BESIDE(method), KEY("method")},   {IN_PARAMS, ANY, AT(params), KEY("params")},
        {IN_RESULT, ANY, AT(result), KEY("result")},      {IN_ERROR, ANY, AT(error), KEY("error")},
};
static const struct field in_params[] = {
        {IN_META, OBJECT, AT(meta), KEY("_meta")},
        {IN_OTHER, STRING, AT(name), KEY("name")},
        {IN_OTHER, STRING, AT(uri), KEY("uri")},
        {IN_OTHER, STRING, AT(cursor), KEY("cursor")},
        {IN_OTHER, ANY, AT(arguments), KEY("arguments")},
        {IN_OTHER, STRING | INTEGER, AT(request_id), KEY("requestId")},
        {IN_OTHER, STRING, AT(level), KEY("level")},
        {IN_OTHER, OBJECT, AT(input_responses), KEY("inputResponses")},
        {IN_OTHER, STRING, AT(request_state), KEY("requestState")},
        {IN_OTHER, OBJECT, AT(notifications), KEY("notifications")},
        {IN_REF, OBJECT, AT(ref), KEY("ref")},
        {IN_OTHER, STRING, AT(protocol_version), KEY("protocolVersion")},
        {IN_OTHER, OBJECT, AT(capabilities), KEY("capabilities")},
        {IN_OTHER, OBJECT, AT(client_info), KEY("clientInfo")},
        {IN_OTHER, STRING | INTEGER, BESIDE(token_in_params), KEY("progressToken")},
};
static const struct field in_result[] = {
        {IN_META, OBJECT, AT(meta), KEY("_meta")},
        {IN_OTHER, STRING, AT(result_type), KEY("resultType")},
        {IN_OTHER, STRING, AT(next_cursor), KEY("nextCursor")},
        {IN_OTHER, STRING, AT(instructions), KEY("instructions")},
        {IN_OTHER, STRING, AT(protocol_version), KEY("protocolVersion")},
        {IN_OTHER, OBJECT, AT(capabilities), KEY("capabilities")},
        {IN_OTHER, OBJECT, AT(server_info), KEY("serverInfo")},
};
static const struct field in_meta[] = {
        {IN_OTHER, STRING | INTEGER, AT(progress_token), KEY("progressToken")},
        {IN_OTHER, STRING, AT(meta_version), KEY("io.modelcontextprotocol/protocolVersion")},
        {IN_OTHER, OBJECT, AT(meta_capabilities), KEY("io.modelcontextprotocol/clientCapabilities")},
        {IN_OTHER, OBJECT, AT(meta_client_info), KEY("io.modelcontextprotocol/clientInfo")},
        {IN_OTHER, STRING, AT(meta_log_level), KEY("io.modelcontextprotocol/logLevel")},
        {IN_OTHER, STRING | INTEGER, AT(meta_subscription), KEY("io.modelcontextprotocol/subscriptionId")},
};
static const struct field in_ref[] = {
        {IN_OTHER, STRING, AT(ref_name), KEY("name")},
        {IN_OTHER, STRING, AT(ref_uri), KEY("uri")},
};
static const struct field in_error[] = {
        {IN_OTHER, ANY, BESIDE(error_code), KEY("code")},
        {IN_OTHER, ANY, AT(error_message), KEY("message")},
        {IN_OTHER, ANY, AT(error_data), KEY("data")},
};

#define FIELDS(of)                                                                                                                         \
        {                                                                                                                                  \
                (of), ELEMENTSOF(of)                                                                                                       \
        }
static const struct {
        const struct field *fields;
        size_t n;
} places[] = {
        [IN_MESSAGE] = FIELDS(in_message), [IN_PARAMS] = FIELDS(in_params), [IN_RESULT] = FIELDS(in_result),
        [IN_META] = FIELDS(in_meta),       [IN_REF] = FIELDS(in_ref),       [IN_ERROR] = FIELDS(in_error),
};

const struct field *found_field(enum place place, struct mcp_slice key, bool escaped)
{
        for (size_t i = 0; i < places[place].n; i++) {
                const struct field *f = &places[place].fields[i];

                if (escaped ? string_is(key, f->key) : f->n == key.n && *f->key == *key.at && memcmp(f->key, key.at, key.n) == 0)
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
        char *base = field->beside ? (char *)found : (char *)found->m;

        if (field->types == ANY || (field->types & type_of(value)))
                *(struct mcp_slice *)(void *)(base + field->offset) = value;
        else if (!found->m->misfit)
                found->m->misfit = field->key;
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

static bool is_method_character(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '/' || c == '.' || c == '$' ||
               c == '-';
}

static int take_method(struct found *f, const char *bad_id, struct err **err)
{
        struct mcp_message *m = f->m;
        struct mcp_slice name = {f->method.at + 1, f->method.n - 2};

        if (bad_id)
                return invalid(err, bad_id);
        if (!mcp_is_string(f->method) || name.n == 0 || name.n > MCP_MAX_METHOD)
                return invalid(err, "\"method\" is no string of 1 to 128 bytes");
        for (size_t i = 0; i < name.n; i++)
                if (!is_method_character(name.at[i]))
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

/* Of an integer that was checked: at most 2^53, and nothing needs to stand behind it. */
static int64_t integer_of(struct mcp_slice s)
{
        bool negative = *s.at == '-';
        int64_t value = 0;

        for (size_t i = negative; i < s.n; i++)
                value = 10 * value + (s.at[i] - '0');
        return negative ? -value : value;
}

static int take_error(struct found *f, const char *bad_id, struct err **err)
{
        struct mcp_message *m = f->m;

        /* null says that the id could not be read; so may a missing one. */
        if (bad_id && !mcp_is(f->raw_id, "null"))
                return invalid(err, bad_id);
        if (!mcp_is_object(m->error))
                return invalid(err, "\"error\" is not an object");
        if (!mcp_is_integer(f->error_code))
                return invalid(err, "\"error\" has no integer \"code\"");
        if (!mcp_is_string(m->error_message))
                return invalid(err, "\"error\" has no string \"message\"");
        m->error_code = integer_of(f->error_code);
        m->kind = MCP_ERROR;
        return 0;
}

static int take_answer(struct found *f, const char *bad_id, struct err **err)
{
        struct mcp_message *m = f->m;

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
        f->raw_id = f->m->id;
        bad_id = take_id(f->m);
        if (!mcp_is(f->jsonrpc, "\"2.0\""))
                return invalid(err, "\"jsonrpc\" is not \"2.0\"");
        return mcp_has(f->method) ? take_method(f, bad_id, err) : take_answer(f, bad_id, err);
}

int mcp_message_scan(struct mcp_message *m, const char *text, size_t n, struct err **err)
{
        struct found found = {.m = m};
        struct scan s;
        int r;

        *m = (struct mcp_message){.text = text, .n = n};
        s.found = &found;
        s.err = err;
        r = scan_text(&s, text, n, IN_MESSAGE);
        scan_deinit(&s);
        if (r == 0)
                r = take_message(&found, s.value, err);
        if (r != 0)
                *m = (struct mcp_message){.text = text, .n = n, .id = r == MCP_FAULT_INVALID ? m->id : (struct mcp_slice){0}};
        return r;
}

int mcp_value_check(const char *text, size_t n, struct err **err)
{
        struct scan s;
        int r;

        s.err = err;
        r = scan_text(&s, text, n, IN_OTHER);
        scan_deinit(&s);
        return r;
}
