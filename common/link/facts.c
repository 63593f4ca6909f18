#include "common/link/facts.h"

#define MAX_TEXT 4096
#define MAX_LIST 512

enum kind { TEXT, DIGEST, LIST };

static const struct {
        const char *key;
        enum kind kind;
        size_t offset;
} fields[] = {
        {"reference", TEXT, offsetof(struct image_facts, reference)},
        {"digest", DIGEST, offsetof(struct image_facts, digest)},
        {"platform", TEXT, offsetof(struct image_facts, platform)},
        {"platform_digest", DIGEST, offsetof(struct image_facts, platform_digest)},
        {"image_id", DIGEST, offsetof(struct image_facts, image_id)},
        {"volumes", LIST, offsetof(struct image_facts, volumes)},
        {"user", TEXT, offsetof(struct image_facts, user)},
        {"exposed_ports", LIST, offsetof(struct image_facts, exposed_ports)},
        {"entrypoint", LIST, offsetof(struct image_facts, entrypoint)},
        {"cmd", LIST, offsetof(struct image_facts, cmd)},
        {"env", LIST, offsetof(struct image_facts, env)},
        {"working_dir", TEXT, offsetof(struct image_facts, working_dir)},
        {"stop_signal", TEXT, offsetof(struct image_facts, stop_signal)},
};

json_object *link_facts_to_json(const struct image_facts *f)
{
        json_object *o = json_object_new_object();

        for (size_t i = 0; i < ELEMENTSOF(fields); i++) {
                const void *member = (const char *)f + fields[i].offset;
                if (fields[i].kind != LIST)
                        json_add_str(o, fields[i].key, *(char *const *)member);
                else if (*(char **const *)member)
                        json_add(o, fields[i].key, json_from_strv(*(char **const *)member));
        }
        json_add_int(o, "size", (int64_t)f->size);
        json_add_int(o, "layers", (int64_t)f->n_layers);
        return o;
}

static int read_list(char ***ret, json_object *v, const char *key, struct err **err)
{
        _cleanup_strv_ char **list = NULL;

        if (!json_to_strv(&list, v) || strv_len(list) > MAX_LIST)
                return err_set(err, ERR_INVALID, "image facts: \"%s\" is not a list of at most %d strings", key, MAX_LIST);
        for (char **s = list; s && *s; s++)
                if (strlen(*s) > MAX_TEXT)
                        return err_set(err, ERR_INVALID, "image facts: \"%s\" has a string over %d bytes", key, MAX_TEXT);
        *ret = TAKE_PTR(list);
        return 0;
}

static int read_text(char **ret, json_object *v, const char *key, bool digest, struct err **err)
{
        const char *s = json_object_get_string(v);

        if (!json_object_is_type(v, json_type_string) || strlen(s) > MAX_TEXT)
                return err_set(err, ERR_INVALID, "image facts: \"%s\" is not a string of at most %d bytes", key, MAX_TEXT);
        if (digest && !str_is_digest(s))
                return err_set(err, ERR_INVALID, "image facts: \"%s\" is not sha256: and 64 hex digits", key);
        *ret = mem_strdup(s);
        return 0;
}

int link_facts_from_json(struct image_facts **ret, json_object *o, struct err **err)
{
        _cleanup_(image_facts_freep) struct image_facts *f = NEW(struct image_facts);

        if (!json_object_is_type(o, json_type_object))
                return err_set(err, ERR_INVALID, "image facts: not an object");
        for (size_t i = 0; i < ELEMENTSOF(fields); i++) {
                json_object *v = json_get(o, fields[i].key);
                void *member = (char *)f + fields[i].offset;
                if (!v)
                        continue;
                int r = fields[i].kind == LIST ? read_list(member, v, fields[i].key, err)
                                               : read_text(member, v, fields[i].key, fields[i].kind == DIGEST, err);
                if (r < 0)
                        return -1;
        }
        int64_t size = json_int(o, "size", 0), layers = json_int(o, "layers", 0);
        if (!f->reference || !f->digest || size < 0 || layers < 0)
                return err_set(err, ERR_INVALID, "image facts: reference or digest is missing, or a size is negative");
        f->size = (uint64_t)size;
        f->n_layers = (size_t)layers;
        *ret = TAKE_PTR(f);
        return 0;
}
