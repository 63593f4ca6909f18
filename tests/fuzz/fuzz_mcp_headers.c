/*
 * The first byte chooses. 'd' a header's value: what it decodes to is encoded and decoded to the same. 'e' any text: encoded and decoded it
 * is the same. 's' a schema and arguments with a NUL between them: every header made of them is one, and matches.
 */
#include "common/mcp/headers.h"
#include "common/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(const char *value, size_t n)
{
        _cleanup_free_ char *header = mcp_header_encode(value, n), *back = mcp_header_decode(header);

        for (const char *p = header; *p; p++)
                if (*p < ' ' || *p > '~')
                        abort();
        if (!back || strlen(back) != n || memcmp(back, value, n) != 0)
                abort();
}

static void params(const char *text, size_t n)
{
        _cleanup_(mcp_params_deinit) struct mcp_params p = {0};
        const char *end = memchr(text, '\0', n);
        struct mcp_slice schema = {text, end ? (size_t)(end - text) : n}, arguments = {0};

        if (end)
                arguments = (struct mcp_slice){end + 1, n - schema.n - 1};
        if (mcp_value_check(schema.at, schema.n, NULL) != 0 || (end && mcp_value_check(arguments.at, arguments.n, NULL) != 0) ||
            mcp_params_from_schema(&p, schema, NULL) < 0)
                return;
        for (size_t i = 0; i < p.n; i++) {
                _cleanup_free_ char *value = mcp_param_value(&p.items[i], arguments);
                if (strchr(p.items[i].header, ' ') || strlen(p.items[i].header) <= strlen("Mcp-Param-") ||
                    !mcp_param_matches(&p.items[i], arguments, value))
                        abort();
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_buf_ struct buf text = {0};

        if (size == 0)
                return 0;
        buf_add(&text, data + 1, size - 1);
        if (data[0] == 'd' && !memchr(text.data, '\0', text.len)) {
                _cleanup_free_ char *value = mcp_header_decode(text.data);
                if (value)
                        round_trip(value, strlen(value));
        } else if (data[0] == 'e' && text_is_utf8(text.data, text.len)) {
                round_trip(text.data, text.len);
        } else if (data[0] == 's') {
                _cleanup_free_ char *exact = mem_dup(text.data, text.len);
                params(exact, text.len);
        }
        return 0;
}
