#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <strings.h>
#include <unistd.h>

#include "tests/bench/load.h"

#define MAX_HEAD   (16U << 10)
#define GOODBYE_MS 2000

/* What stays the same is made once: this is to measure servers, not itself. */
static void make_head(struct stream *s, const char *method, const char *name)
{
        const struct load_options *o = &s->load->o;

        s->head.len = 0;
        s->head_step = s->step;
        buf_addf(&s->head,
                 "POST %s HTTP/1.1\r\nHost: %s:%u\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n",
                 o->path, o->host, o->port);
        if (o->modern)
                buf_addf(&s->head, "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: %s\r\n", method);
        else if (s->step > 1)
                buf_adds(&s->head, "MCP-Protocol-Version: 2025-11-25\r\n");
        if (o->modern && name)
                buf_addf(&s->head, "Mcp-Name: %s\r\n", name);
        if (s->session)
                buf_addf(&s->head, "Mcp-Session-Id: %s\r\n", s->session);
        if (o->header)
                buf_addf(&s->head, "%s\r\n", o->header);
        buf_adds(&s->head, "Content-Length: ");
}

void http_send(struct stream *s, const char *method, const char *name, const struct buf *message)
{
        static struct buf b;
        char length[32];

        if (s->head.len == 0 || s->head_step != s->step)
                make_head(s, method, name);
        b.len = 0;
        buf_add(&b, s->head.data, s->head.len);
        buf_add(&b, length, (size_t)snprintf(length, sizeof(length), "%zu\r\n\r\n", message->len));
        buf_add(&b, message->data, message->len);
        stream_write(s, b.data, b.len);
}

void http_goodbye(struct stream *s)
{
        const struct load_options *o = &s->load->o;
        struct pollfd p = {.fd = s->in, .events = POLLIN};
        _cleanup_buf_ struct buf b = {0};

        if (!s->session)
                return;
        buf_addf(&b, "DELETE %s HTTP/1.1\r\nHost: %s:%u\r\nMCP-Protocol-Version: 2025-11-25\r\nMcp-Session-Id: %s\r\n", o->path, o->host,
                 o->port, s->session);
        if (o->header)
                buf_addf(&b, "%s\r\n", o->header);
        buf_adds(&b, "\r\n");
        stream_write(s, b.data, b.len);
        if (poll(&p, 1, GOODBYE_MS) < 0)
                load_die("poll: %s", strerror(errno));
}

/* Does the line begin with the header? Then *value is behind it. name: lower-case, with its colon. */
static bool is_header(const char *line, size_t n, const char *name, const char **value)
{
        size_t len = strlen(name);

        if (n < len || (*line | 0x20) != *name || strncasecmp(line, name, len) != 0)
                return false;
        *value = line + len;
        while (**value == ' ')
                (*value)++;
        return true;
}

static void take_header(struct stream *s, const char *line, size_t n)
{
        const char *value;

        if (is_header(line, n, "content-length:", &value)) {
                s->left = strtoul(value, NULL, 10);
                s->at = HTTP_BODY;
        } else if (is_header(line, n, "content-type:", &value)) {
                s->is_events = strncasecmp(value, "text/event-stream", 17) == 0;
        } else if (is_header(line, n, "transfer-encoding:", &value)) {
                s->at = strncasecmp(value, "chunked", 7) == 0 ? HTTP_CHUNK_SIZE : HTTP_BODY;
        } else if (!s->session && is_header(line, n, "mcp-session-id:", &value)) {
                s->session = mem_strndup(value, (size_t)(line + n - value));
        }
}

/* Ends with the line end of its last line. */
static void take_head(struct stream *s, const char *head, const char *end)
{
        const char *line = memchr(head, '\n', (size_t)(end - head));

        s->status = head[8] == ' ' ? atoi(head + 9) : 0;
        if (s->status != 200 && s->status != 202)
                load_die("HTTP: %.*s", (int)MIN((size_t)(end - head), (size_t)300), head);
        s->left = 0;
        s->at = HTTP_BODY;
        s->body.len = 0;
        s->is_events = false;
        while (line && line + 1 < end) {
                const char *stop = memchr(line + 1, '\n', (size_t)(end - line - 1));
                if (!stop)
                        break;
                take_header(s, line + 1, (size_t)(stop - line) - 2);
                line = stop;
        }
        if (s->is_events) {
                sse_reader_deinit(&s->events);
                s->events = (struct sse_reader){.max = 256U << 20};
        }
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
