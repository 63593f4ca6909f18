#include "common/http/chunked.h"

#include <string.h>

#include "common/http/internal.h"

enum state {
        SIZE,      /* digits, at least one */
        EXTENSION, /* behind ";", up to CR */
        SIZE_LF,
        DATA,
        DATA_CR,
        DATA_LF,
        TRAILER, /* at the beginning of a line */
        TRAILER_NAME,
        TRAILER_VALUE,
        TRAILER_LF,
        LAST_LF,
        OVER,
};

static unsigned hex_value(char c)
{
        return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c | 0x20) - 'a' + 10;
}

static bool is_kind(char c, unsigned kind)
{
        return http_kinds[(unsigned char)c] & kind;
}

static enum http_fault take_size(struct http_chunked *c, char byte)
{
        if (is_kind(byte, HTTP_IN_HEX)) {
                if (c->counted++ == 16)
                        return HTTP_FAULT_BODY_SIZE;
                c->left = c->left << 4 | hex_value(byte);
                return HTTP_FAULT_NONE;
        }
        if (c->counted == 0 || (byte != ';' && byte != '\r'))
                return HTTP_FAULT_CHUNK;
        c->counted = 0;
        c->state = byte == ';' ? EXTENSION : SIZE_LF;
        return HTTP_FAULT_NONE;
}

/* Of a text that is thrown away: up to its CR, within a bound. */
static enum http_fault take_text(struct http_chunked *c, char byte, unsigned max, enum state next)
{
        if (byte == '\r')
                c->state = next;
        else if (!is_kind(byte, HTTP_IN_VALUE) || c->counted++ == max)
                return HTTP_FAULT_CHUNK;
        return HTTP_FAULT_NONE;
}

static enum http_fault take_trailer_name(struct http_chunked *c, char byte)
{
        bool first = c->state == TRAILER;

        if (first && byte == '\r') {
                c->state = LAST_LF;
                return HTTP_FAULT_NONE;
        }
        if (c->counted++ == HTTP_MAX_TRAILERS || (!is_kind(byte, HTTP_IN_TOKEN) && (first || byte != ':')))
                return HTTP_FAULT_CHUNK;
        c->state = byte == ':' ? TRAILER_VALUE : TRAILER_NAME;
        return HTTP_FAULT_NONE;
}

/* A byte that stands there alone. */
static enum http_fault expect(struct http_chunked *c, char byte, char wanted, enum state next)
{
        c->state = next;
        return byte == wanted ? HTTP_FAULT_NONE : HTTP_FAULT_CHUNK;
}

/* Any byte but data. */
static enum http_fault take_byte(struct http_chunked *c, char byte)
{
        switch ((enum state)c->state) {
        case SIZE:
                return take_size(c, byte);
        case EXTENSION:
                return take_text(c, byte, HTTP_MAX_EXTENSION, SIZE_LF);
        case SIZE_LF:
                c->counted = 0;
                return expect(c, byte, '\n', c->left > 0 ? DATA : TRAILER);
        case DATA_CR:
                return expect(c, byte, '\r', DATA_LF);
        case DATA_LF:
                return expect(c, byte, '\n', SIZE);
        case TRAILER:
        case TRAILER_NAME:
                return take_trailer_name(c, byte);
        case TRAILER_VALUE:
                return take_text(c, byte, HTTP_MAX_TRAILERS, TRAILER_LF);
        case TRAILER_LF:
                return expect(c, byte, '\n', TRAILER);
        case LAST_LF:
                return expect(c, byte, '\n', OVER);
        case DATA:
        case OVER:
                break;
        }
        return HTTP_FAULT_CHUNK;
}

int http_chunked_read(struct http_chunked *c, const char *bytes, size_t n, size_t *used, const char **data, size_t *data_n,
                      enum http_fault *fault)
{
        for (size_t i = 0; i < n && c->state != OVER; i++) {
                if (c->state == DATA) {
                        *data = bytes + i;
                        *data_n = (size_t)MIN((uint64_t)(n - i), c->left);
                        *used = i + *data_n;
                        c->left -= *data_n;
                        if (c->left == 0)
                                c->state = DATA_CR;
                        return HTTP_CHUNKED_DATA;
                }
                *fault = take_byte(c, bytes[i]);
                if (*fault != HTTP_FAULT_NONE)
                        return -1;
                if (c->state == OVER) {
                        *used = i + 1;
                        return HTTP_CHUNKED_END;
                }
        }
        *used = c->state == OVER ? 0 : n;
        return c->state == OVER ? HTTP_CHUNKED_END : HTTP_CHUNKED_MORE;
}
