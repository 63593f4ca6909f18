/*
 * What was approved of what a server lists. The approved manifest binds every definition by its hash; the gateway compares whenever a list
 * comes by, never at a call. What differs does not exist for clients, and the controller is told, so that people hear of it.
 *
 * Tools are judged by the gateway's own last reading of their list (tools.c), the rest by what clients' lists showed.
 */
#include "broker/gateway/internal.h"
#include "common/log.h"
#include "common/manifest.h"
#include "common/text.h"

#define MAX_DIFFERENCES 1024U /* of one server that are remembered; beyond, nothing of its kind is let through */
#define MAX_LABEL       160U  /* bytes of a name that is shown */
#define MAX_SHOWN       400U  /* bytes of a definition that is logged */
#define TELL_MS         500U
#define LOG_MS          1000U /* between two lines about one server */

struct difference {
        char pin[MANIFEST_PIN]; /* of its key */
        enum manifest_part part;
        char *label; /* "tool NAME", escaped */
};

static const char *const words[] = {
        [MANIFEST_TOOLS] = "tool",
        [MANIFEST_PROMPTS] = "prompt",
        [MANIFEST_RESOURCES] = "resource",
        [MANIFEST_TEMPLATES] = "template",
        [MANIFEST_INSTRUCTIONS] = "instructions",
};

static int part_of(enum mcp_method list)
{
        for (unsigned i = 0; i < MANIFEST_LISTS; i++)
                if (str_eq(list_member(list), manifest_member((enum manifest_part)i)))
                        return (int)i;
        return -1;
}

/* -- what differs ---------------------------------------------------------------------------------------------------------------- */

static size_t place_of(const struct server *s, const char *pin, bool *found)
{
        size_t low = 0, high = s->n_differences;

        *found = false;
        while (low < high) {
                size_t mid = low + (high - low) / 2;
                int r = strcmp(s->differences[mid].pin, pin);

                if (r == 0) {
                        *found = true;
                        return mid;
                }
                if (r < 0)
                        low = mid + 1;
                else
                        high = mid;
        }
        return low;
}

static bool is_noted(const struct server *s, enum manifest_part part, const char *key)
{
        char pin[MANIFEST_PIN];
        bool found;

        if (!s->n_differences)
                return false;
        manifest_key_pin(pin, part, key);
        place_of(s, pin, &found);
        return found;
}

static int on_tell(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        struct gateway *g = user;

        for (size_t i = 0; i < g->n_servers; i++) {
                struct server *s = g->servers[i];
                const char *labels[CHANNEL_MAX_DIFFERS];
                size_t n = 0;

                if (!s->differs_untold || !g->link_up)
                        continue;
                s->differs_untold = false;
                while (n < s->n_differences && n < CHANNEL_MAX_DIFFERS) {
                        labels[n] = s->differences[n].label;
                        n++;
                }
                g->controller.differs(s->entry.name, labels, n, g->controller.user);
        }
        return 0;
}

static void tell_soon(struct server *s)
{
        if (s->differs_untold)
                return;
        s->differs_untold = true;
        timer_arm(&s->g->differs_timer, s->g->loop, TELL_MS, on_tell, s->g);
}

void pins_tell_all(struct gateway *g)
{
        for (size_t i = 0; i < g->n_servers; i++)
                if (g->servers[i]->n_differences) {
                        g->servers[i]->differs_untold = false;
                        tell_soon(g->servers[i]);
                }
}

/* s in full at most n bytes, not in the middle of a character. Owned. */
static char *cut(const char *s, size_t n)
{
        size_t len = strlen(s), at = MIN(len, n);

        while (at < len && at > 0 && ((unsigned char)s[at] & 0xc0) == 0x80)
                at--;
        return mem_strndup(s, at);
}

static void complain(struct server *s, const struct difference *d, struct mcp_slice item)
{
        _cleanup_free_ char *raw = mem_strndup(item.at, MIN(item.n, (size_t)MAX_SHOWN)), *safe = text_escape(raw);
        uint64_t now = now_ms(s->g->loop);

        if (s->differs_logged_ms && now - s->differs_logged_ms < LOG_MS)
                return;
        s->differs_logged_ms = now;
        log_warning("withheld: it differs from what was approved", "server", s->entry.name, "what", d->label, "now", safe, "to do",
                    "read what it says now; if it is meant so, smoke-test, approve and promote this version anew");
}

static void note(struct server *s, enum manifest_part part, const char *key, struct mcp_slice item)
{
        struct difference d = {.part = part};
        bool found;
        size_t at;

        manifest_key_pin(d.pin, part, key);
        at = place_of(s, d.pin, &found);
        if (found)
                return;
        if (s->n_differences >= MAX_DIFFERENCES) {
                s->differs_full = true;
                return;
        }
        _cleanup_free_ char *safe = text_escape(key), *shown = cut(safe, MAX_LABEL);
        d.label = mem_printf("%s%s%s", words[part], *shown ? " " : "", shown);
        s->differences = mem_realloc(s->differences, s->n_differences + 1, sizeof(d));
        memmove(&s->differences[at + 1], &s->differences[at], (s->n_differences - at) * sizeof(d));
        s->differences[at] = d;
        s->n_differences++;
        complain(s, &d, item);
        tell_soon(s);
}

static void drop(struct server *s, size_t at)
{
        free(s->differences[at].label);
        s->n_differences--;
        memmove(&s->differences[at], &s->differences[at + 1], (s->n_differences - at) * sizeof(*s->differences));
        tell_soon(s);
}

/* It is again what it was. */
static void clear(struct server *s, enum manifest_part part, const char *key)
{
        char pin[MANIFEST_PIN];
        bool found;
        size_t at;

        if (!s->n_differences)
                return;
        manifest_key_pin(pin, part, key);
        at = place_of(s, pin, &found);
        if (found)
                drop(s, at);
}

void pins_forget_tools(struct server *s)
{
        for (size_t i = s->n_differences; i-- > 0;)
                if (s->differences[i].part == MANIFEST_TOOLS)
                        drop(s, i);
}

void pins_forget(struct server *s)
{
        while (s->n_differences)
                drop(s, s->n_differences - 1);
        s->differs_full = false;
}

void pins_free(struct server *s)
{
        for (size_t i = 0; i < s->n_differences; i++)
                free(s->differences[i].label);
        free(s->differences);
        s->differences = NULL;
        s->n_differences = 0;
}

/* -- comparing ------------------------------------------------------------------------------------------------------------------- */

/* The definition is the approved one, to the last member. What cannot be read is not. */
static bool is_approved(const struct server *s, enum manifest_part part, struct mcp_slice item)
{
        const struct json_limits limits = {.max_bytes = item.n + 1, .max_depth = MANIFEST_DEPTH};
        _cleanup_json_ json_object *o = NULL;
        char pin[MANIFEST_PIN];

        if (json_parse(&o, item.at, item.n, "a definition", &limits, NULL) < 0)
                return false;
        manifest_pin(pin, part, o);
        return manifest_has(s->entry.pins, s->n_pins, pin);
}

static bool is_named(const struct server *s, enum manifest_part part, const char *key)
{
        char pin[MANIFEST_PIN];

        manifest_key_pin(pin, part, key);
        return manifest_has(s->entry.pins, s->n_pins, pin);
}

bool pins_tool(struct server *s, struct mcp_slice item)
{
        _cleanup_free_ char *name = NULL;

        if (!s->entry.pinned || is_approved(s, MANIFEST_TOOLS, item))
                return true;
        /* One of a name that was never approved is withheld for that. */
        name = mcp_string(mcp_object_get(item, "name"));
        if (name && server_has_tool(s, mcp_object_get(item, "name")))
                note(s, MANIFEST_TOOLS, name, item);
        return false;
}

static bool admit_tool(struct server *s, const char *name, struct mcp_slice item)
{
        if (is_approved(s, MANIFEST_TOOLS, item))
                return true;
        /* Told to this client only, or since the list was read: it is read again. */
        s->differs_anew |= !is_noted(s, MANIFEST_TOOLS, name) && strv_contains(s->entry.tools, name);
        return false;
}

bool pins_admit(struct server *s, enum mcp_method list, struct mcp_slice item)
{
        int part = s->entry.pinned ? part_of(list) : -1;
        _cleanup_free_ char *key = NULL;

        if (part < 0)
                return true;
        key = mcp_string(mcp_object_get(item, manifest_key((enum manifest_part)part)));
        if (!key)
                return false;
        if (part == MANIFEST_TOOLS)
                return admit_tool(s, key, item);
        if (is_approved(s, (enum manifest_part)part, item)) {
                clear(s, (enum manifest_part)part, key);
                return true;
        }
        /* Resources come and go while a server is used, as what its calls answer does: only those that were approved are held to it. */
        if (part == MANIFEST_RESOURCES && !is_named(s, MANIFEST_RESOURCES, key))
                return true;
        if (part != MANIFEST_PROMPTS || is_named(s, MANIFEST_PROMPTS, key))
                note(s, (enum manifest_part)part, key, item);
        return false;
}

void pins_listed(struct server *s)
{
        if (!s->differs_anew)
                return;
        s->differs_anew = false;
        tools_changed(s);
}

bool pins_instructions(struct server *s, struct mcp_slice text)
{
        if (!s->entry.pinned || !mcp_is_string(text) || text.n == 2 || is_approved(s, MANIFEST_INSTRUCTIONS, text)) {
                clear(s, MANIFEST_INSTRUCTIONS, "");
                return true;
        }
        note(s, MANIFEST_INSTRUCTIONS, "", text);
        return false;
}

bool pins_withhold(const struct server *s, const struct call *c)
{
        _cleanup_free_ char *key = NULL;
        enum policy_kind kind = guard_kind(c);
        bool prompt = kind == POLICY_PROMPT;
        struct mcp_slice target = guard_target(c);

        if (!s->entry.pinned || kind == POLICY_TOOL || !mcp_is_string(target))
                return false;
        key = mcp_string(target);
        if (!key || s->differs_full)
                return true;
        if (prompt)
                return !is_named(s, MANIFEST_PROMPTS, key) || is_noted(s, MANIFEST_PROMPTS, key);
        return is_noted(s, MANIFEST_RESOURCES, key) || is_noted(s, MANIFEST_TEMPLATES, key);
}
