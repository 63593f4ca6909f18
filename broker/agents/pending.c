#include "broker/agents/pending.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>

#include "common/file.h"
#include "common/text.h"

#define MAX_FILE (16U << 20)

struct item {
        char id[PENDING_ID_MAX];
        char *agent, *run, *server, *tool, *manifest, *arguments, *hash, *by;
        enum pending_state state;
        bool once;
        uint64_t asked_ms, expires_ms;
};

struct pending {
        char *path;
        struct item items[PENDING_MAX];
        size_t n;
};

static const char *const states[] = {[PENDING_WAITS] = "waits", [PENDING_APPROVED] = "approved", [PENDING_REJECTED] = "rejected"};

/* -- items --------------------------------------------------------------------------------------------------------------------- */
static void item_deinit(struct item *i)
{
        char **const texts[] = {&i->agent, &i->run, &i->server, &i->tool, &i->manifest, &i->arguments, &i->hash, &i->by};

        for (size_t k = 0; k < ELEMENTSOF(texts); k++)
                free(*texts[k]);
        *i = (struct item){0};
}

static void item_remove(struct pending *p, size_t at)
{
        item_deinit(&p->items[at]);
        p->n--;
        memmove(&p->items[at], &p->items[at + 1], (p->n - at) * sizeof(struct item));
}

static void forget_old(struct pending *p, uint64_t now_ms)
{
        for (size_t i = p->n; i-- > 0;)
                if (p->items[i].expires_ms <= now_ms)
                        item_remove(p, i);
}

static bool is_about(const struct item *i, const struct pending_call *c)
{
        return str_eq(i->agent, c->agent) && str_eq(i->server, c->server) && str_eq(i->tool, c->tool) && str_eq(i->manifest, c->manifest) &&
               str_eq(i->hash, c->hash);
}

static struct item *by_id(struct pending *p, const char *id)
{
        for (size_t i = 0; i < p->n; i++)
                if (str_eq(p->items[i].id, id))
                        return &p->items[i];
        return NULL;
}

static void show(struct pending_view *view, const struct item *i)
{
        *view = (struct pending_view){.state = i->state, .expires_ms = i->expires_ms};
        memcpy(view->id, i->id, sizeof(view->id));
}

/* -- the file ------------------------------------------------------------------------------------------------------------------ */
static json_object *item_to_json(const struct item *i)
{
        json_object *o = json_object_new_object();
        char text[TEXT_TIME_MAX];

        json_add_str(o, "id", i->id);
        json_add_str(o, "state", states[i->state]);
        json_add_str(o, "agent", i->agent);
        json_add_str(o, "run", i->run);
        json_add_str(o, "server", i->server);
        json_add_str(o, "tool", i->tool);
        json_add_str(o, "manifest_sha256", i->manifest);
        json_add_str(o, "arguments", i->arguments);
        json_add_str(o, "arguments_sha256", i->hash);
        json_add_str(o, "asked_at", text_format_time(text, (time_t)(i->asked_ms / 1000)));
        json_add_str(o, "expires_at", text_format_time(text, (time_t)(i->expires_ms / 1000)));
        if (i->state == PENDING_APPROVED)
                json_add_bool(o, "once", i->once);
        json_add_str(o, "by", i->by);
        return o;
}

static int save(const struct pending *p, struct err **err)
{
        _cleanup_json_ json_object *list = json_object_new_array();

        for (size_t i = 0; i < p->n; i++) {
                json_object *o = item_to_json(&p->items[i]);
                json_add_int(o, "expires_ms", (int64_t)p->items[i].expires_ms);
                json_add_int(o, "asked_ms", (int64_t)p->items[i].asked_ms);
                json_object_array_add(list, o);
        }
        const char *text = json_object_to_json_string_ext(list, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
        return file_write_atomic(p->path, text, strlen(text), 0600, err);
}

static int read_item(struct item *i, json_object *o, const char *path, struct err **err)
{
        const char *id = json_str(o, "id"), *state = json_str(o, "state");

        *i = (struct item){.agent = mem_strdup(json_str(o, "agent")),
                           .run = mem_strdup(json_str(o, "run")),
                           .server = mem_strdup(json_str(o, "server")),
                           .tool = mem_strdup(json_str(o, "tool")),
                           .manifest = mem_strdup(json_str(o, "manifest_sha256")),
                           .arguments = mem_strdup(json_str(o, "arguments")),
                           .hash = mem_strdup(json_str(o, "arguments_sha256")),
                           .by = mem_strdup(json_str(o, "by")),
                           .once = json_flag(o, "once", true),
                           .asked_ms = (uint64_t)json_int(o, "asked_ms", 0),
                           .expires_ms = (uint64_t)json_int(o, "expires_ms", 0)};
        for (unsigned s = 0; s < ELEMENTSOF(states); s++)
                if (str_eq(states[s], state))
                        i->state = (enum pending_state)s;
        if (!id || strlen(id) >= sizeof(i->id) || !i->agent || !i->server || !i->tool || !i->manifest || !i->hash)
                return err_set(err, ERR_INVALID, "%s: an item lacks what it is about", path);
        memcpy(i->id, id, strlen(id) + 1);
        return 0;
}

static int load(struct pending *p, struct err **err)
{
        const struct json_limits limits = {.max_bytes = MAX_FILE};
        _cleanup_json_ json_object *list = NULL;
        _cleanup_free_ char *text = NULL;
        _cleanup_err_ struct err *why = NULL;
        size_t n = 0;

        if (file_read(&text, &n, p->path, MAX_FILE, FILE_TRUSTED, &why) < 0)
                return err_code(why) == ERR_NOT_FOUND ? 0 : err_move(err, TAKE_PTR(why));
        if (json_parse(&list, text, n, p->path, &limits, err) < 0)
                return -1;
        if (!json_object_is_type(list, json_type_array) || json_object_array_length(list) > PENDING_MAX)
                return err_set(err, ERR_INVALID, "%s: is no list of at most %u calls", p->path, PENDING_MAX);
        for (size_t i = 0; i < json_object_array_length(list); i++) {
                p->n++;
                if (read_item(&p->items[i], json_object_array_get_idx(list, i), p->path, err) < 0)
                        return -1;
        }
        return 0;
}

int pending_open(struct pending **ret, const char *dir, struct err **err)
{
        _cleanup_(pending_freep) struct pending *p = NEW(struct pending);

        p->path = mem_printf("%s/pending.json", dir);
        if (load(p, err) < 0)
                return -1;
        *ret = TAKE_PTR(p);
        return 0;
}

struct pending *pending_free(struct pending *p)
{
        if (!p)
                return NULL;
        while (p->n)
                item_remove(p, p->n - 1);
        free(p->path);
        free(p);
        return NULL;
}

/* -- asking and deciding --------------------------------------------------------------------------------------------------------- */
bool pending_find(struct pending *p, const struct pending_call *call, uint64_t now_ms, struct pending_view *view)
{
        forget_old(p, now_ms);
        for (size_t i = 0; i < p->n; i++)
                if (is_about(&p->items[i], call)) {
                        show(view, &p->items[i]);
                        return true;
                }
        return false;
}

static int check_room(const struct pending *p, const struct pending_call *call, struct err **err)
{
        size_t mine = 0;

        for (size_t i = 0; i < p->n; i++)
                mine += str_eq(p->items[i].agent, call->agent);
        if (mine >= PENDING_MAX_AGENT || p->n >= PENDING_MAX)
                return err_set(err, ERR_LIMIT, "too many calls wait for a human already");
        if (strlen(call->arguments) > PENDING_SHOWN)
                return err_set(err, ERR_LIMIT, "the arguments are longer than a human is shown (%u bytes): such a call cannot be approved",
                               PENDING_SHOWN);
        return 0;
}

int pending_ask(struct pending *p, const struct pending_call *call, uint64_t now_ms, struct pending_view *view, struct err **err)
{
        unsigned char random[8];
        char hex[2 * sizeof(random) + 1];
        struct item *i;

        forget_old(p, now_ms);
        if (check_room(p, call, err) < 0)
                return -1;
        randombytes_buf(random, sizeof(random));
        hex_encode(hex, random, sizeof(random));
        i = &p->items[p->n++];
        *i = (struct item){.agent = mem_strdup(call->agent),
                           .run = mem_strdup(call->run),
                           .server = mem_strdup(call->server),
                           .tool = mem_strdup(call->tool),
                           .manifest = mem_strdup(call->manifest),
                           .arguments = mem_strdup(call->arguments),
                           .hash = mem_strdup(call->hash),
                           .once = true,
                           .asked_ms = now_ms,
                           .expires_ms = now_ms + PENDING_ASK_MS};
        snprintf(i->id, sizeof(i->id), "c-%s", hex);
        if (save(p, err) < 0) {
                item_remove(p, p->n - 1);
                return -1;
        }
        show(view, i);
        return 0;
}

int pending_use(struct pending *p, const char *id, struct err **err)
{
        struct item *i = by_id(p, id);

        if (!i || i->state != PENDING_APPROVED)
                return err_set(err, ERR_NOT_FOUND, "%s is no approval that counts", id);
        if (!i->once)
                return 0;
        item_remove(p, (size_t)(i - p->items));
        return save(p, err);
}

int pending_decide(struct pending *p, const char *id, bool approve, uint64_t valid_ms, const char *by, uint64_t now_ms, struct err **err)
{
        struct item *i, before;

        forget_old(p, now_ms);
        i = by_id(p, id);
        if (!i)
                return err_set(err, ERR_NOT_FOUND, "no call %s waits: it was used, or its time is over", id);
        if (valid_ms > PENDING_MAX_MS)
                return err_set(err, ERR_INVALID, "an approval of a call is good for 7 days at most");
        before = *i;
        i->state = approve ? PENDING_APPROVED : PENDING_REJECTED;
        i->once = valid_ms == 0;
        i->by = mem_strdup(by);
        if (approve)
                i->expires_ms = now_ms + (valid_ms ? valid_ms : PENDING_VALID_MS);
        if (save(p, err) < 0) {
                free(i->by);
                *i = before;
                return -1;
        }
        free(before.by);
        return 0;
}

size_t pending_waiting(struct pending *p, uint64_t now_ms)
{
        size_t n = 0;

        forget_old(p, now_ms);
        for (size_t i = 0; i < p->n; i++)
                n += p->items[i].state == PENDING_WAITS;
        return n;
}

json_object *pending_list(struct pending *p, const char *agent, uint64_t now_ms)
{
        json_object *list = json_object_new_array();

        forget_old(p, now_ms);
        for (size_t i = 0; i < p->n; i++)
                if (!agent || str_eq(p->items[i].agent, agent))
                        json_object_array_add(list, item_to_json(&p->items[i]));
        return list;
}
