#include <errno.h>
#include <stdio.h>
#include <strings.h>
#include <unistd.h>

#include "tests/bench/load.h"

#define MAX_HEAD (16U << 10)

void http_send(struct stream *s, const char *method, const char *name, const struct buf *message)
{
        const struct load_options *o = &s->load->o;
        static struct buf b;

        b.len = 0;
        buf_addf(&b,
                 "POST %s HTTP/1.1\r\nHost: %s:%u\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
                 "Content-Length: %zu\r\n",
                 o->path, o->host, o->port, message->len);
        if (o->modern)
                buf_addf(&b, "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: %s\r\n", method);
        else if (s->step > 1)
                buf_adds(&b, "MCP-Protocol-Version: 2025-11-25\r\n");
        if (o->modern && name)
                buf_addf(&b, "Mcp-Name: %s\r\n", name);
        if (s->session)
                buf_addf(&b, "Mcp-Session-Id: %s\r\n", s->session);
        if (o->header)
                buf_addf(&b, "%s\r\n", o->header);
        buf_adds(&b, "\r\n");
        buf_add(&b, message->data, message->len);
        stream_write(s, b.data, b.len);
}

/* The value of a header in a head that ends with an empty line; *n its length. */
static const char *header(const char *head, const char *end, const char *name, size_t *n)
{
        size_t len = strlen(name);

        for (const char *line = head; line < end;) {
                const char *stop = memmem(line, (size_t)(end - line), "\r\n", 2);

                stop = stop ? stop : end;
                if ((size_t)(stop - line) > len && line[len] == ':' && strncasecmp(line, name, len) == 0) {
                        const char *value = line + len + 1;
                        while (value < stop && *value == ' ')
                                value++;
                        *n = (size_t)(stop - value);
                        return value;
                }
                line = stop + 2;
        }
        return NULL;
}

static void take_head(struct stream *s, const char *head, const char *end)
{
        size_t n;
        const char *value;

        s->status = head[8] == ' ' ? atoi(head + 9) : 0;
        if (s->status != 200 && s->status != 202)
                load_die("HTTP: %.*s", (int)MIN((size_t)(end - head), (size_t)300), head);
        value = header(head, end, "content-type", &n);
        s->is_events = value && n >= 17 && strncasecmp(value, "text/event-stream", 17) == 0;
        value = header(head, end, "mcp-session-id", &n);
        if (value && !s->session)
                s->session = mem_strndup(value, n);
        value = header(head, end, "content-length", &n);
        s->left = value ? strtoul(value, NULL, 10) : 0;
        s->at = HTTP_BODY;
        s->body.len = 0;
        if (!value && (value = header(head, end, "transfer-encoding", &n)) && n == 7 && strncasecmp(value, "chunked", 7) == 0)
                s->at = HTTP_CHUNK_SIZE;
        sse_reader_deinit(&s->events);
        s->events = (struct sse_reader){.max = 256U << 20};
}

static int on_event(_unused_ const char *type, const char *data, size_t n, void *user, _unused_ struct err **err)
{
        if (n > 0)
                load_message(user, data, n);
        return 0;
}

static void body_bytes(struct stream *s, const char *data, size_t n)
{
        _cleanup_err_ struct err *err = NULL;

        if (!s->is_events)
                buf_add(&s->body, data, n);
        else if (sse_reader_feed(&s->events, data, n, on_event, s, &err) < 0)
                load_die("%s", err_msg(err));
}

static void end_of_answer(struct stream *s)
{
        s->at = HTTP_HEAD;
        if (!s->is_events && s->body.len > 0)
                load_message(s, s->body.data, s->body.len);
        load_answered(s);
}

/* A line that ends at or behind `from`; its length without the line end, or -1 when it is not complete. */
static ssize_t line_at(const struct stream *s, size_t from)
{
        const char *p = s->got.data + from, *stop = memmem(p, s->got.len - from, "\r\n", 2);

        if (!stop && s->got.len - from > MAX_HEAD)
                load_die("HTTP: a line without end");
        return stop ? stop - p : -1;
}

/* One step; false when more bytes are wanted. */
static bool step(struct stream *s)
{
        char *p = s->got.data + s->seen;
        size_t n = s->got.len - s->seen;
        ssize_t line;

        switch (s->at) {
        case HTTP_HEAD: {
                const char *end = n > 0 ? memmem(p, n, "\r\n\r\n", 4) : NULL;
                if (!end)
                        return false;
                take_head(s, p, end + 2);
                s->seen += (size_t)(end - p) + 4;
                if (s->at == HTTP_BODY && s->left == 0)
                        end_of_answer(s);
                return true;
        }
        case HTTP_BODY:
        case HTTP_CHUNK:
                n = MIN(n, s->left);
                if (n == 0)
                        return false;
                body_bytes(s, p, n);
                s->seen += n;
                s->left -= n;
                if (s->left == 0 && s->at == HTTP_BODY)
                        end_of_answer(s);
                else if (s->left == 0)
                        s->at = HTTP_TRAILER;
                return true;
        case HTTP_CHUNK_SIZE:
                line = line_at(s, s->seen);
                if (line < 0)
                        return false;
                s->left = strtoul(p, NULL, 16);
                s->seen += (size_t)line + 2;
                /* The last one is empty, and so is the line behind it. */
                s->at = s->left ? HTTP_CHUNK : HTTP_TRAILER;
                s->is_last = !s->left;
                return true;
        case HTTP_TRAILER:
                line = line_at(s, s->seen);
                if (line < 0)
                        return false;
                s->seen += (size_t)line + 2;
                s->at = HTTP_CHUNK_SIZE;
                if (s->is_last)
                        end_of_answer(s);
                return true;
        }
        return false;
}

void http_take(struct stream *s)
{
        while (s->seen < s->got.len && step(s))
                ;
        if (s->seen == s->got.len) {
                s->got.len = s->seen = 0;
        } else {
                buf_drop(&s->got, s->seen);
                s->seen = 0;
        }
}
