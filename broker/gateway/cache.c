#include "broker/gateway/cache.h"

#include "common/file.h"
#include "common/json.h"
#include "common/log.h"

#define FORMAT_VERSION "1"
#define WRITE_US       1000000U /* many servers that come up at once are one write */
#define MAX_SERVERS    10000U
#define OVERHEAD       256U /* bytes around one server's tools */
#define HEAD           "{\"version\":" FORMAT_VERSION ",\"servers\":["

struct kept {
        char *server;
        char manifest[SHA256_HEX];
        char *tools; /* JSON array */
        size_t n;
};

struct tool_cache {
        sd_event *loop;
        char *path;
        struct kept *kept;
        size_t n, bytes;
        bool dirty, complained;
        sd_event_source *timer;
};

static void kept_deinit(struct kept *k)
{
        free(k->server);
        free(k->tools);
}

static struct kept *find(const struct tool_cache *c, const char *server)
{
        for (size_t i = 0; i < c->n; i++)
                if (str_eq(c->kept[i].server, server))
                        return &c->kept[i];
        return NULL;
}

static void take_out(struct tool_cache *c, struct kept *k)
{
        c->bytes -= k->n + OVERHEAD;
        kept_deinit(k);
        *k = c->kept[--c->n];
}

static bool add(struct tool_cache *c, const char *server, const char *manifest, struct mcp_slice tools)
{
        if (c->n >= MAX_SERVERS || c->bytes + tools.n + OVERHEAD > TOOL_CACHE_MAX || strlen(server) > 40 || !str_is_hex(manifest, 64))
                return false;
        c->kept = mem_realloc(c->kept, c->n + 1, sizeof(*c->kept));
        struct kept *k = &c->kept[c->n++];
        *k = (struct kept){.server = mem_strdup(server), .tools = mem_strndup(tools.at, tools.n), .n = tools.n};
        memcpy(k->manifest, manifest, sizeof(k->manifest));
        c->bytes += tools.n + OVERHEAD;
        return true;
}

/* -- the file ----------------------------------------------------------------------------------------------------------------- */

static void write_file(struct tool_cache *c)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_buf_ struct buf text = {0};

        c->dirty = false;
        buf_adds(&text, HEAD);
        for (size_t i = 0; i < c->n; i++) {
                buf_adds(&text, i ? ",\n{\"server\":" : "\n{\"server\":");
                mcp_add_string(&text, c->kept[i].server, strlen(c->kept[i].server));
                buf_addf(&text, ",\"manifest\":\"%s\",\"tools\":", c->kept[i].manifest);
                buf_add(&text, c->kept[i].tools, c->kept[i].n);
                buf_addc(&text, '}');
        }
        buf_adds(&text, "\n]}\n");
        bool failed = file_write_atomic(c->path, text.data, text.len, 0600, &err) < 0;
        if (failed && !c->complained)
                log_warning("what servers offer cannot be remembered: after a restart it is known when they are asked", "reason",
                            err_msg(err));
        c->complained = failed;
}

static int on_timer(sd_event_source *source, _unused_ uint64_t usec, void *user)
{
        sd_event_source_set_enabled(source, SD_EVENT_OFF);
        write_file(user);
        return 0;
}

static void write_soon(struct tool_cache *c)
{
        if (c->dirty)
                return;
        c->dirty = true;
        c->timer = sd_event_source_disable_unref(c->timer);
        if (sd_event_add_time_relative(c->loop, &c->timer, CLOCK_MONOTONIC, WRITE_US, 0, on_timer, c) < 0)
                write_file(c);
}

static int take_in(struct tool_cache *c, struct mcp_slice file)
{
        struct mcp_slice list = mcp_is_object(file) ? mcp_object_get(file, "servers") : (struct mcp_slice){0}, item;
        size_t pos = 0;
        int r;

        if (!mcp_is_array(list) || !mcp_is(mcp_object_get(file, "version"), FORMAT_VERSION))
                return -1;
        while ((r = mcp_array_next(list, &pos, &item)) == 1) {
                struct mcp_slice tools = mcp_is_object(item) ? mcp_object_get(item, "tools") : (struct mcp_slice){0};
                _cleanup_free_ char *server = mcp_is_array(tools) ? mcp_string(mcp_object_get(item, "server")) : NULL;
                _cleanup_free_ char *manifest = server ? mcp_string(mcp_object_get(item, "manifest")) : NULL;

                if (!manifest || find(c, server) || !add(c, server, manifest, tools))
                        return -1;
        }
        return r;
}

int tool_cache_parse(struct tool_cache *c, const char *text, size_t n, struct err **err)
{
        while (c->n)
                take_out(c, &c->kept[c->n - 1]);
        if (mcp_value_check(text, n, err) != 0)
                return -1;
        if (take_in(c, (struct mcp_slice){text, n}) == 0)
                return 0;
        while (c->n)
                take_out(c, &c->kept[c->n - 1]);
        return err_set(err, ERR_INVALID, "%s is not as it was written", c->path);
}

static void read_file(struct tool_cache *c)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *text = NULL;
        size_t n = 0;
        int r = file_read(&text, &n, c->path, TOOL_CACHE_MAX, FILE_TRUSTED, &err);

        if (r < 0 && err_code(err) == ERR_NOT_FOUND)
                return;
        if (r < 0 || tool_cache_parse(c, text, n, &err) < 0)
                log_warning("what servers offered before is not known", "reason", err_msg(err));
}

/* -- the rest ----------------------------------------------------------------------------------------------------------------- */

struct tool_cache *tool_cache_new(sd_event *loop, const char *path)
{
        struct tool_cache *c = NEW(struct tool_cache);

        c->loop = sd_event_ref(loop);
        c->path = mem_strdup(path);
        read_file(c);
        return c;
}

struct tool_cache *tool_cache_free(struct tool_cache *c)
{
        if (!c)
                return NULL;
        if (c->dirty)
                write_file(c);
        for (size_t i = 0; i < c->n; i++)
                kept_deinit(&c->kept[i]);
        sd_event_source_disable_unref(c->timer);
        sd_event_unref(c->loop);
        free(c->kept);
        free(c->path);
        free(c);
        return NULL;
}

void tool_cache_put(struct tool_cache *c, const char *server, const char *manifest, struct mcp_slice tools)
{
        struct kept *k = find(c, server);

        if (k && str_eq(k->manifest, manifest) && k->n == tools.n && memcmp(k->tools, tools.at, tools.n) == 0)
                return;
        if (k)
                take_out(c, k);
        if (add(c, server, manifest, tools) || k)
                write_soon(c);
}

struct mcp_slice tool_cache_get(const struct tool_cache *c, const char *server, const char *manifest)
{
        const struct kept *k = manifest ? find(c, server) : NULL;

        return k && str_eq(k->manifest, manifest) ? (struct mcp_slice){k->tools, k->n} : (struct mcp_slice){0};
}

void tool_cache_drop(struct tool_cache *c, const char *server)
{
        struct kept *k = find(c, server);

        if (!k)
                return;
        take_out(c, k);
        write_soon(c);
}
