#include "common/smoke/talk_sse.h"

void talk_sse_deinit(struct talk_sse *s)
{
        buf_deinit(&s->line);
        buf_deinit(&s->data);
        buf_deinit(&s->type);
}

static int dispatch(struct talk_sse *s, talk_event_fn event, void *user, struct err **err)
{
        int r = 0;

        if (s->data.len > 0) {
                const char *type = s->type.len > 0 ? s->type.data : "message";
                /* The last LF is a separator that separates nothing. */
                s->data.data[s->data.len - 1] = '\0';
                r = event(type, s->data.data, s->data.len - 1, user, err);
        }
        buf_drop(&s->data, s->data.len);
        buf_drop(&s->type, s->type.len);
        return r;
}

static int take_line(struct talk_sse *s, talk_event_fn event, void *user, struct err **err)
{
        const char *line = s->line.len > 0 ? s->line.data : "";
        size_t n = s->line.len, name;
        const char *colon, *value;

        if (!s->started && n >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0)
                line += 3, n -= 3;
        s->started = true;
        if (n == 0)
                return dispatch(s, event, user, err);
        colon = memchr(line, ':', n);
        name = colon ? (size_t)(colon - line) : n;
        value = colon ? colon + 1 : line + n;
        n -= (size_t)(value - line);
        if (n > 0 && *value == ' ')
                value++, n--;
        if (name == 4 && memcmp(line, "data", 4) == 0) {
                if (s->data.len + n + 1 > s->max)
                        return err_set(err, ERR_LIMIT, "an event of more than %zu bytes", s->max);
                buf_add(&s->data, value, n);
                buf_addc(&s->data, '\n');
        } else if (name == 5 && memcmp(line, "event", 5) == 0) {
                buf_drop(&s->type, s->type.len);
                buf_add(&s->type, value, MIN(n, (size_t)64));
        }
        return 0;
}

int talk_sse_feed(struct talk_sse *s, const char *bytes, size_t n, talk_event_fn event, void *user, struct err **err)
{
        while (n > 0) {
                size_t stop = 0;

                if (s->after_cr && bytes[0] == '\n') {
                        s->after_cr = false;
                        bytes++, n--;
                        continue;
                }
                s->after_cr = false;
                while (stop < n && bytes[stop] != '\r' && bytes[stop] != '\n')
                        stop++;
                if (s->line.len + stop > s->max)
                        return err_set(err, ERR_LIMIT, "a line of more than %zu bytes in an event stream", s->max);
                if (stop > 0)
                        buf_add(&s->line, bytes, stop);
                if (stop == n)
                        return 0;
                s->after_cr = bytes[stop] == '\r';
                bytes += stop + 1, n -= stop + 1;
                if (take_line(s, event, user, err) < 0)
                        return -1;
                buf_drop(&s->line, s->line.len);
        }
        return 0;
}
