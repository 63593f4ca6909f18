#include <stdio.h>

#include "tests/bench/load.h"

#define LEGACY "2025-11-25"
#define MODERN "2026-07-28"
#define META                                                                                                                               \
        "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"" MODERN "\",\"io.modelcontextprotocol/clientCapabilities\":{},"         \
        "\"io.modelcontextprotocol/clientInfo\":{\"name\":\"load\",\"version\":\"1\"}}"
#define INITIALIZE_ID 0

static void send(struct stream *s, const char *method, const char *name, const struct buf *message)
{
        if (load_is_http(&s->load->o))
                http_send(s, method, name, message);
        else
                line_send(s, message);
}

/* Not the same from call to call, so that an answer to another one is seen. */
static void add_text(struct buf *b, const struct load *l, uint64_t id)
{
        char text[32];

        buf_add(b, text, (size_t)snprintf(text, sizeof(text), "%llu:", (unsigned long long)id));
        buf_add(b, l->filler.data + id % 64, l->o.payload);
}

static void call(struct stream *s, struct slot *slot)
{
        struct load *l = s->load;
        static struct buf b;

        char id[32];

        b.len = 0;
        slot->id = l->next_id++ * l->o.slots + (uint64_t)(slot - l->slots) + INITIALIZE_ID + 1;
        buf_adds(&b, "{\"jsonrpc\":\"2.0\",\"id\":");
        buf_add(&b, id, (size_t)snprintf(id, sizeof(id), "%llu", (unsigned long long)slot->id));
        buf_adds(&b, ",\"method\":\"tools/call\",\"params\":{\"name\":\"");
        buf_adds(&b, l->o.tool);
        buf_adds(&b, "\",\"arguments\":{");
        if (l->o.result) {
                buf_addf(&b, "\"bytes\":%zu", l->o.result);
        } else {
                buf_addc(&b, '"');
                buf_adds(&b, l->o.argument);
                buf_adds(&b, "\":\"");
                add_text(&b, l, slot->id);
                buf_addc(&b, '"');
        }
        buf_adds(&b, l->o.modern ? "}," META "}}" : "}}}");
        slot->open = true;
        slot->sent_ns = load_now();
        send(s, "tools/call", l->o.tool, &b);
}

static void start_phase(struct load *l)
{
        l->idle = 0;
        l->begin_ns = load_now();
        for (size_t i = 0; i < l->n_streams; i++) {
                struct stream *s = &l->streams[i];
                for (unsigned k = 0; k < s->n_slots; k++) {
                        l->slots[s->first_slot + k].done = 0;
                        call(s, &l->slots[s->first_slot + k]);
                }
        }
}

static void end_phase(struct load *l)
{
        l->end_ns = load_now();
        l->over = l->counting;
        l->counting = true;
        if (!l->over)
                start_phase(l);
}

static void next_call(struct stream *s, struct slot *slot)
{
        struct load *l = s->load;

        if (++slot->done < (l->counting ? l->o.calls : l->o.warmup))
                call(s, slot);
        else if (++l->idle == l->o.slots)
                end_phase(l);
}

static void send_text(struct stream *s, const char *method, const char *text)
{
        _cleanup_buf_ struct buf b = {0};

        buf_adds(&b, text);
        send(s, method, NULL, &b);
}

static void ready(struct stream *s)
{
        s->step = 3;
        if (++s->load->ready == s->load->n_streams)
                start_phase(s->load);
}

void load_begin(struct stream *s)
{
        if (s->load->o.modern) {
                ready(s);
                return;
        }
        s->step = 1;
        send_text(s, "initialize",
                  "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"" LEGACY
                  "\",\"capabilities\":{},\"clientInfo\":{\"name\":\"load\",\"version\":\"1\"}}}");
}

static void initialized(struct stream *s)
{
        s->step = 2;
        send_text(s, "notifications/initialized", "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
        if (!load_is_http(&s->load->o))
                ready(s);
}

/* The text of the first piece of content, as written. */
static struct mcp_slice text_of(const struct mcp_message *m)
{
        struct mcp_slice content = mcp_object_get(m->result, "content"), first = {0};
        size_t pos = 0;

        (void)!mcp_array_next(content, &pos, &first);
        return mcp_object_get(first, "text");
}

static void check_text(const struct load *l, const struct mcp_message *m, const struct slot *slot)
{
        struct mcp_slice text = text_of(m);
        static struct buf want;

        if (l->o.result) {
                if (text.n != l->o.result + 2)
                        load_die("call %llu: %zu bytes of text instead of %zu", (unsigned long long)slot->id, text.n, l->o.result);
                return;
        }
        want.len = 0;
        buf_addc(&want, '"');
        add_text(&want, l, slot->id);
        buf_addc(&want, '"');
        /* everything's echo puts a word in front. */
        if (text.n < want.len || memcmp(text.at + text.n - want.len + 1, want.data + 1, want.len - 1) != 0)
                load_die("call %llu was answered with another text: %.*s", (unsigned long long)slot->id, (int)MIN(text.n, (size_t)200),
                         text.at);
}

static void answer(struct stream *s, const struct mcp_message *m)
{
        struct load *l = s->load;
        uint64_t id = strtoull(m->id.at, NULL, 10), now = load_now();
        struct slot *slot = id > INITIALIZE_ID ? &l->slots[(id - INITIALIZE_ID - 1) % l->o.slots] : NULL;

        if (!slot || !slot->open || slot->id != id || slot < l->slots + s->first_slot || slot >= l->slots + s->first_slot + s->n_slots)
                load_die("an answer to %llu, which nobody asked, or asked elsewhere, or which was answered before", (unsigned long long)id);
        check_text(l, m, slot);
        slot->open = false;
        if (l->counting)
                l->took[l->n_took++] = (uint32_t)MIN(now - slot->sent_ns, (uint64_t)UINT32_MAX);
        if (!load_is_http(&l->o))
                next_call(s, slot);
}

void load_message(struct stream *s, const char *text, size_t n)
{
        _cleanup_err_ struct err *err = NULL;
        struct mcp_message m;

        if (mcp_message_scan(&m, text, n, &err) != 0) {
                if (!load_is_http(&s->load->o) && n > 0 && text[0] != '{')
                        return; /* servers talk while they start */
                load_die("no message: %s: %.*s", err_msg(err), (int)MIN(n, (size_t)200), text);
        }
        if (m.kind == MCP_ERROR)
                load_die("refused: %.*s", (int)MIN(m.error.n, (size_t)300), m.error.at);
        if (m.kind != MCP_RESULT)
                return;
        if (s->step == 1) {
                if (!load_is_http(&s->load->o))
                        initialized(s);
                return;
        }
        answer(s, &m);
}

void load_answered(struct stream *s)
{
        struct slot *slot = &s->load->slots[s->first_slot];

        if (s->step == 1)
                initialized(s);
        else if (s->step == 2)
                ready(s);
        else if (slot->open)
                load_die("HTTP %d without the answer to call %llu", s->status, (unsigned long long)slot->id);
        else
                next_call(s, slot);
}
