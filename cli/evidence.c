#include "cli/records.h"
#include "common/link/facts.h"

#define MAX_EVIDENCE (10U << 20)
#define MAX_TESTS    99

static char *evidence_path(const char *server, const char *id, unsigned n)
{
        return n == 1 ? mem_printf("%s/%s.smoke.json", server, id) : mem_printf("%s/%s.smoke-%u.json", server, id, n);
}

static int parse(struct evidence *e, const char *text, size_t n, struct err **err)
{
        const struct json_limits limits = {.max_bytes = MAX_EVIDENCE, .max_depth = 16};

        if (json_parse(&e->json, text, n, e->path, &limits, err) < 0)
                return -1;
        if (json_int(e->json, "version", 0) != 1)
                return err_set(err, ERR_INVALID, "%s: not smoke evidence of version 1", e->path);
        if ((json_get(e->json, "image") && link_facts_from_json(&e->image, json_get(e->json, "image"), err) < 0) ||
            smoke_result_from_json(&e->smoke, json_get(e->json, "smoke"), err) < 0)
                return err_wrap(err, "%s", e->path);
        return 0;
}

/* The text of the newest test; 1 when there is none. n: its number. */
static int newest(const struct conf *conf, const char *server, const char *id, char **ret, size_t *len, unsigned *n, struct err **err)
{
        for (*n = 0; *n < MAX_TESTS; (*n)++) {
                _cleanup_free_ char *path = evidence_path(server, id, *n + 1), *text = NULL;
                _cleanup_err_ struct err *why = NULL;

                if (repo_read(conf, path, MAX_EVIDENCE, &text, len, &why) < 0) {
                        if (err_code(why) != ERR_NOT_FOUND)
                                return err_move(err, TAKE_PTR(why));
                        break;
                }
                mem_replace(ret, TAKE_PTR(text));
        }
        return *n == 0;
}

int evidence_read(const struct conf *conf, const char *server, const char *id, struct evidence **ret, struct err **err)
{
        _cleanup_(evidence_freep) struct evidence *e = NEW(struct evidence);
        _cleanup_free_ char *text = NULL;
        size_t len = 0;
        unsigned n;
        int r = newest(conf, server, id, &text, &len, &n, err);

        if (r != 0)
                return r;
        e->path = evidence_path(server, id, n);
        if (parse(e, text, strlen(text), err) < 0)
                return -1;
        *ret = TAKE_PTR(e);
        return 0;
}

int evidence_write(const struct conf *conf, const char *server, const char *id, json_object *image, json_object *smoke, const char *author,
                   struct err **err)
{
        _cleanup_json_ json_object *o = json_object_new_object();
        _cleanup_free_ char *last = NULL;
        size_t len;
        unsigned n;

        if (newest(conf, server, id, &last, &len, &n, err) < 0)
                return -1;
        json_add_int(o, "version", 1);
        json_add_str(o, "proposal", id);
        if (image)
                json_add(o, "image", json_object_get(image));
        json_add(o, "smoke", json_object_get(smoke));
        const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE);
        _cleanup_free_ char *path = evidence_path(server, id, n + 1);
        _cleanup_free_ char *message = mem_printf("Smoke test of %s: %s", server, id);
        const struct repo_file file = {.path = path, .data = text, .len = strlen(text)};
        return repo_commit(conf, &file, 1, author, message, NULL, err);
}

struct evidence *evidence_free(struct evidence *e)
{
        if (!e)
                return NULL;
        json_object_put(e->json);
        image_facts_free(e->image);
        smoke_result_free(e->smoke);
        free(e->path);
        free(e);
        return NULL;
}
