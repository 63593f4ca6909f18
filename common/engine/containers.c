#include "common/engine/internal.h"

#define LIST_MAX      (32U << 20) /* a thousand containers with their labels take 3 MiB */
#define POLL_FIRST_MS 20
#define POLL_MAX_MS   500

static char *label_query(const char *prefix, const char *label, const char *value)
{
        _cleanup_free_ char *pair = NULL, *filters = NULL;

        if (!label)
                return mem_strdup(prefix);
        pair = value ? mem_printf("%s=%s", label, value) : mem_strdup(label);
        filters = engine_filters("label", pair);
        return mem_printf("%s%sfilters=%s", prefix, *prefix ? "&" : "", filters);
}

static void list(struct engine *e, const char *path, const char *prefix, const char *label, const char *value, engine_done_fn done,
                 void *user)
{
        _cleanup_free_ char *query = label_query(prefix, label, value);

        engine_call_start(e, NULL, &(struct engine_request){.method = "GET", .path = path, .query = query, .max_answer = LIST_MAX}, done,
                          user);
}

void engine_container_list(struct engine *e, const char *label, const char *value, engine_done_fn done, void *user)
{
        list(e, "/containers/json", "all=1", label, value, done, user);
}

void engine_network_list(struct engine *e, const char *label, const char *value, engine_done_fn done, void *user)
{
        list(e, "/networks", "", label, value, done, user);
}

void engine_container_create(struct engine *e, const char *name, const char *platform, json_object *body, engine_done_fn done, void *user)
{
        _cleanup_free_ char *n = engine_escape(name), *p = platform ? engine_escape(platform) : NULL, *query = NULL;

        query = mem_printf("name=%s%s%s", n, p ? "&platform=" : "", p ? p : "");
        engine_call_start(
                e, NULL,
                &(struct engine_request){.method = "POST", .path = "/containers/create", .query = query, .body = body, .timeout_ms = 60000},
                done, user);
}

static char *container_path(const char *id, const char *verb)
{
        _cleanup_free_ char *escaped = engine_escape(id);

        return mem_printf("/containers/%s%s", escaped, verb);
}

void engine_container_inspect(struct engine *e, const char *id, engine_done_fn done, void *user)
{
        _cleanup_free_ char *path = container_path(id, "/json");

        engine_call_start(e, NULL, &(struct engine_request){.method = "GET", .path = path}, done, user);
}

void engine_container_start(struct engine *e, const char *id, engine_done_fn done, void *user)
{
        _cleanup_free_ char *path = container_path(id, "/start");

        engine_call_start(e, NULL, &(struct engine_request){.method = "POST", .path = path, .timeout_ms = 60000}, done, user);
}

void engine_container_stop(struct engine *e, const char *id, unsigned timeout_s, engine_done_fn done, void *user)
{
        _cleanup_free_ char *path = container_path(id, "/stop"), *query = mem_printf("t=%u", timeout_s);
        uint64_t timeout_ms = ENGINE_TIMEOUT_MS + (uint64_t)timeout_s * 1000;

        engine_call_start(e, NULL, &(struct engine_request){.method = "POST", .path = path, .query = query, .timeout_ms = timeout_ms}, done,
                          user);
}

/* -- remove ------------------------------------------------------------------------------------------------------------------- */

struct removal {
        char *path;      /* DELETE this */
        char *look_path; /* GET this to see whether it is gone */
        bool looking;
        uint64_t delay_ms;
};

static void removal_free(void *state)
{
        struct removal *r = state;

        free(r->path);
        free(r->look_path);
        free(r);
}

static bool removal_goes_on(struct engine_call *c, struct removal *r, bool look)
{
        r->looking = look;
        r->delay_ms = MIN(MAX(r->delay_ms * 2, (uint64_t)POLL_FIRST_MS), (uint64_t)POLL_MAX_MS);
        call_again(c, look ? "GET" : "DELETE", look ? r->look_path : r->path, look ? NULL : "force=1&v=1", NULL, r->delay_ms);
        return true;
}

/* "Removal already in progress" is somebody else's removal, or our own whose answer was lost: look until the container is gone. */
static bool container_removed(struct engine_call *c, int *status, json_object **body, struct err **err)
{
        static const char *const in_progress[] = {"already in progress", "is being removed", NULL};
        struct removal *r = c->context;

        if (*err && err_code(*err) == ERR_NOT_FOUND) {
                *err = err_free(*err);
                *status = 204;
                return false;
        }
        if (r->looking && !*err) {
                const char *now = json_str(json_path(*body, "State", NULL), "Status");
                /* Not "removing" any more, and still there: that removal failed, so it is ours to do again. */
                return removal_goes_on(c, r, str_eq(now, "removing"));
        }
        if (*err && err_code(*err) == ERR_CONFLICT && answer_says(*err, in_progress))
                return removal_goes_on(c, r, true);
        return false;
}

void engine_container_remove(struct engine *e, const char *id, engine_done_fn done, void *user)
{
        _cleanup_free_ char *path = container_path(id, "");
        struct removal *r = NEW(struct removal);
        struct engine_call *c = call_new(
                e, &(struct engine_request){.method = "DELETE", .path = path, .query = "force=1&v=1", .timeout_ms = 60000}, done, user);

        r->path = mem_strdup(path);
        r->look_path = container_path(id, "/json");
        c->step = container_removed;
        c->context = r;
        c->context_free = removal_free;
        call_enqueue(c);
}
