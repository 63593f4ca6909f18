#include <string.h>

#include "common/http/internal.h"

#define TARGET (HTTP_IN_VALUE | HTTP_IN_TARGET)
#define TOKEN  (TARGET | HTTP_IN_TOKEN)
#define HEX    (TOKEN | HTTP_IN_HEX)
const unsigned char http_kinds[256] = {
        ['\t'] = HTTP_IN_VALUE,
        [' '] = HTTP_IN_VALUE,
        ['!'] = TOKEN,
        ['"'] = TARGET,
        ['#'] = HTTP_IN_VALUE | HTTP_IN_TOKEN, /* begins a fragment, which is nobody's but the client's */
        ['$' ... '\''] = TOKEN,
        ['(' ... ')'] = TARGET,
        ['*' ... '+'] = TOKEN,
        [','] = TARGET,
        ['-' ... '.'] = TOKEN,
        ['/'] = TARGET,
        ['0' ... '9'] = HEX,
        [':' ... '@'] = TARGET,
        ['A' ... 'F'] = HEX,
        ['G' ... 'Z'] = TOKEN,
        ['[' ... ']'] = TARGET,
        ['^' ... '`'] = TOKEN,
        ['a' ... 'f'] = HEX,
        ['g' ... 'z'] = TOKEN,
        ['{'] = TARGET,
        ['|'] = TOKEN,
        ['}'] = TARGET,
        ['~'] = TOKEN,
        [0x80 ... 0xff] = HTTP_IN_VALUE,
};

bool http_is_token(const char *s, size_t n)
{
        return n > 0 && http_span(s, s + n, HTTP_IN_TOKEN) == s + n;
}

bool http_is_value(const char *s, size_t n)
{
        return http_span(s, s + n, HTTP_IN_VALUE) == s + n;
}

static const struct {
        unsigned status;
        const char *text;
} faults[] = {
        [HTTP_FAULT_NONE] = {200, "nothing is wrong"},
        [HTTP_FAULT_START_LINE] = {400, "the first line is none of HTTP's"},
        [HTTP_FAULT_VERSION] = {505, "a version of HTTP that is neither 1.0 nor 1.1"},
        [HTTP_FAULT_LINE_END] = {400, "a CR or LF that stands alone"},
        [HTTP_FAULT_FIELD] = {400, "a header that is not \"name: value\" on one line, or has characters that no header may have"},
        [HTTP_FAULT_LENGTH] = {400, "neither exactly one Content-Length nor Transfer-Encoding: chunked"},
        [HTTP_FAULT_CHUNK] = {400, "a chunk that is not delimited as it must be"},
        [HTTP_FAULT_TARGET_SIZE] = {414, "the first line is too long"},
        [HTTP_FAULT_HEAD_SIZE] = {431, "too many headers, or too long ones"},
        [HTTP_FAULT_BODY_SIZE] = {413, "a length that is no 64-bit number"},
};

unsigned http_fault_status(enum http_fault fault)
{
        return faults[fault].status;
}

const char *http_fault_text(enum http_fault fault)
{
        return faults[fault].text;
}

/* By length, so that most names are compared with none or one. */
static const struct {
        unsigned char n;
        unsigned char known;
        const char *name;
} names[] = {
        {4, HTTP_HOST, "host"},
        {6, HTTP_ACCEPT, "accept"},
        {6, HTTP_EXPECT, "expect"},
        {6, HTTP_ORIGIN, "origin"},
        {7, HTTP_UPGRADE, "upgrade"},
        {8, HTTP_MCP_NAME, "mcp-name"},
        {10, HTTP_CONNECTION, "connection"},
        {10, HTTP_MCP_METHOD, "mcp-method"},
        {11, HTTP_RETRY_AFTER, "retry-after"},
        {12, HTTP_CONTENT_TYPE, "content-type"},
        {13, HTTP_AUTHORIZATION, "authorization"},
        {14, HTTP_CONTENT_LENGTH, "content-length"},
        {14, HTTP_MCP_SESSION_ID, "mcp-session-id"},
        {16, HTTP_CONTENT_ENCODING, "content-encoding"},
        {17, HTTP_TRANSFER_ENCODING, "transfer-encoding"},
        {20, HTTP_MCP_PROTOCOL_VERSION, "mcp-protocol-version"},
};
/* Where names of that length begin in the list above. */
static const unsigned char by_length[] = {
        [4] = 1, [6] = 2, [7] = 5, [8] = 6, [10] = 7, [11] = 9, [12] = 10, [13] = 11, [14] = 12, [16] = 14, [17] = 15, [20] = 16};

static uint64_t load8(const char *s)
{
        uint64_t w;

        memcpy(&w, s, sizeof(w));
        return w;
}

static uint32_t load4(const char *s)
{
        uint32_t w;

        memcpy(&w, s, sizeof(w));
        return w;
}

/* lower: of lower-case letters and "-", at least 4. In tokens, the bit that is set here tells nothing but the case of these apart. */
static bool is_name(const char *name, const char *lower, size_t n)
{
        const uint64_t bits = UINT64_C(0x2020202020202020);

        if (n < 8)
                return (load4(name) | (uint32_t)bits) == load4(lower) && (load4(name + n - 4) | (uint32_t)bits) == load4(lower + n - 4);
        for (size_t i = 0; i + 8 < n; i += 8)
                if ((load8(name + i) | bits) != load8(lower + i))
                        return false;
        return (load8(name + n - 8) | bits) == load8(lower + n - 8);
}

enum http_known http_known_field(const char *name, size_t n)
{
        unsigned i = n < ELEMENTSOF(by_length) ? by_length[n] : 0;

        for (; i > 0 && i <= ELEMENTSOF(names) && names[i - 1].n == n; i++)
                if (is_name(name, names[i - 1].name, n))
                        return names[i - 1].known;
        return HTTP_N_KNOWN;
}
