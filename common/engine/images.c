#include "common/engine/stream.h"

char *engine_escape_reference(const char *reference)
{
        struct buf b = {0};

        for (; *reference; reference++)
                if (strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~/:@", *reference))
                        buf_addc(&b, *reference);
                else
                        buf_addf(&b, "%%%02X", (unsigned char)*reference);
        return buf_take(&b);
}

static char *image_path(const char *reference)
{
        _cleanup_free_ char *escaped = engine_escape_reference(reference);

        return mem_printf("/images/%s/json", escaped);
}

void engine_image_inspect(struct engine *e, const char *reference, engine_done_fn done, void *user)
{
        _cleanup_free_ char *path = image_path(reference);

        engine_call_start(e, NULL, &(struct engine_request){.method = "GET", .path = path}, done, user);
}

void engine_distribution_inspect(struct engine *e, const char *reference, engine_done_fn done, void *user)
{
        _cleanup_free_ char *escaped = engine_escape_reference(reference), *path = mem_printf("/distribution/%s/json", escaped);

        engine_call_start(e, NULL, &(struct engine_request){.method = "GET", .path = path}, done, user);
}

/* -- pull: POST /images/create, then GET /images/…/json, because only the second says that it is there --------------------------- */

#define PULL_LINE_MAX    (64U << 10)
#define PULL_GARBAGE_MAX 50

struct pull {
        char *reference;
        char *digest; /* "sha256:…", NULL when the reference has a tag instead */
        uint64_t max_bytes;
        engine_progress_fn progress;
        void *user;
        struct lines lines;
        struct pull_progress seen;
        bool inspecting;
        struct err *doubt; /* why it is not certain that the pull was done */
};

static void pull_free(void *state)
{
        struct pull *p = state;

        lines_deinit(&p->lines);
        pull_progress_deinit(&p->seen);
        err_free(p->doubt);
        free(p->reference);
        free(p->digest);
        free(p);
}

static int pull_line(const char *line, size_t n, void *user, _unused_ struct err **err)
{
        struct pull *p = user;

        pull_progress_line(&p->seen, line, n);
        return 0;
}

static int too_large(struct pull *p, uint64_t size, struct err **err)
{
        return err_set(err, ERR_LIMIT, "pulling %s: %llu bytes are over the limit of %llu", p->reference, (unsigned long long)size,
                       (unsigned long long)p->max_bytes);
}

static int pull_sink(struct engine_call *c, const char *data, size_t n, struct err **err)
{
        struct pull *p = c->context;
        uint64_t size;

        if (lines_feed(&p->lines, data, n, pull_line, p, err) < 0)
                return -1;
        if (p->seen.n_garbage > PULL_GARBAGE_MAX) {
                p->inspecting = true;
                return err_set(err, ERR_INVALID, "pulling %s: the Engine's report is not made of JSON messages", p->reference);
        }
        size = MAX(p->seen.current, p->seen.total);
        if (p->max_bytes && size > p->max_bytes) {
                p->inspecting = true; /* the error is final: closing the stream makes the Engine stop */
                return too_large(p, size, err);
        }
        if (p->progress)
                p->progress(p->seen.current, p->seen.total, p->seen.status, p->user);
        return 0;
}

static void pull_failed(struct pull *p, struct err **err)
{
        enum err_code code = p->seen.denied ? ERR_DENIED : p->seen.missing ? ERR_NOT_FOUND : ERR_UNAVAILABLE;

        (void)err_set(err, code, "pulling %s: the Engine says: %s", p->reference, p->seen.error);
}

static bool has_digest(json_object *image, const char *digest)
{
        json_object *list = json_get(image, "RepoDigests");

        if (str_eq(json_str(image, "Id"), digest))
                return true;
        if (!json_object_is_type(list, json_type_array))
                return false;
        for (size_t i = 0; i < json_object_array_length(list); i++) {
                const char *s = json_object_get_string(json_object_array_get_idx(list, i));
                const char *at = s ? strchr(s, '@') : NULL;
                if (at && str_eq(at + 1, digest))
                        return true;
        }
        return false;
}

static void check_image(struct pull *p, json_object *image, struct err **err)
{
        int64_t size = json_int(image, "Size", 0);

        if (p->digest && !has_digest(image, p->digest))
                (void)err_set(err, ERR_NOT_FOUND, "pulling %s: the Engine has an image under that name, but not that digest", p->reference);
        else if (p->max_bytes && size > 0 && (uint64_t)size > p->max_bytes)
                (void)too_large(p, (uint64_t)size, err);
}

static bool pull_inspected(struct pull *p, json_object *image, struct err **err)
{
        if (!*err) {
                check_image(p, image, err);
                return false;
        }
        /* Not there, and the stream had already raised a doubt: that tells more than "no such image". */
        if (err_code(*err) == ERR_NOT_FOUND && p->doubt) {
                err_free(*err);
                *err = TAKE_PTR(p->doubt);
        } else if (err_code(*err) == ERR_NOT_FOUND) {
                *err = err_free(*err);
                (void)err_set(err, ERR_UNAVAILABLE, "pulling %s: the Engine's report ended without an error, but the image is not there",
                              p->reference);
        }
        return false;
}

static bool pull_step(struct engine_call *c, int *status, json_object **body, struct err **err)
{
        struct pull *p = c->context;
        _cleanup_free_ char *path = NULL;

        if (p->inspecting)
                return pull_inspected(p, *body, err);
        if (lines_end(&p->lines, pull_line, p, NULL) < 0)
                return false;
        if (p->seen.error) { /* tells more than that the stream then broke off */
                *err = err_free(*err);
                pull_failed(p, err);
                return false;
        }
        /* An answer that says no is final. One that broke off says nothing: the Engine may have finished. */
        if (*err && *status != 0)
                return false;
        if (*err && err_code(*err) != ERR_UNAVAILABLE && err_code(*err) != ERR_INVALID)
                return false;
        if (*err) {
                (void)err_wrap(err, "pulling %s", p->reference);
                p->doubt = TAKE_PTR(*err);
        } else if (p->seen.n_garbage > 0)
                (void)err_set(&p->doubt, ERR_INVALID, "pulling %s: %u lines of the Engine's report were not JSON messages", p->reference,
                              p->seen.n_garbage);
        p->inspecting = true;
        c->sink = NULL;
        c->no_slot = false;
        path = image_path(p->reference);
        call_again(c, "GET", path, NULL, NULL, 0);
        return true;
}

/* "host/name@sha256:…" or "host/name:tag" -> query; the digest goes where docker's own client puts it. NULL: neither. */
static char *pull_query(const char *reference, const char *platform, char **digest)
{
        const char *at = strchr(reference, '@'), *slash = strrchr(reference, '/'), *colon = strrchr(slash ? slash : reference, ':');
        const char *cut = at ? at : colon;
        _cleanup_free_ char *name = NULL, *tag = NULL, *p = platform ? engine_escape(platform) : NULL;

        if (!cut || !cut[1] || cut == reference)
                return NULL;
        if (at && !str_is_digest(at + 1))
                return NULL;
        /* name:tag@digest: the tag decides nothing. */
        _cleanup_free_ char *plain = mem_strndup(reference, (size_t)(cut - reference));
        char *inner = strrchr(strrchr(plain, '/') ? strrchr(plain, '/') : plain, ':');
        if (at && inner)
                *inner = '\0';
        name = engine_escape(plain);
        tag = engine_escape(cut + 1);
        *digest = at ? mem_strdup(at + 1) : NULL;
        return mem_printf("fromImage=%s&tag=%s%s%s", name, tag, p ? "&platform=" : "", p ? p : "");
}

void engine_image_pull(struct engine *e, struct engine_call **ret, const char *reference, const char *platform, uint64_t max_bytes,
                       uint64_t timeout_ms, engine_progress_fn progress, engine_done_fn done, void *user)
{
        struct pull *p = NEW(struct pull);
        _cleanup_free_ char *query = pull_query(reference, platform, &p->digest);
        struct engine_request request = {.method = "POST", .path = "/images/create", .query = query, .timeout_ms = timeout_ms};
        struct engine_call *c = call_new(e, &request, done, user);
        struct err *err = NULL;

        p->reference = mem_strdup(reference);
        p->max_bytes = max_bytes;
        p->progress = progress;
        p->user = user;
        p->lines.max = PULL_LINE_MAX;
        c->no_slot = true;
        c->sink = pull_sink;
        c->step = pull_step;
        c->context = p;
        c->context_free = pull_free;
        call_enqueue(c);
        if (!query) {
                (void)err_set(&err, ERR_INVALID, "pulling %s: an image is pulled by name@sha256:digest (or name:tag)", reference);
                call_fail_later(c, err);
        }
        if (ret)
                *ret = c;
}
