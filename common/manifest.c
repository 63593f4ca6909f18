#include "common/manifest.h"

#include <sodium.h>

static const struct {
        const char *member, *key;
} parts[] = {
        [MANIFEST_TOOLS] = {"tools", "name"},
        [MANIFEST_PROMPTS] = {"prompts", "name"},
        [MANIFEST_RESOURCES] = {"resources", "uri"},
        [MANIFEST_TEMPLATES] = {"resourceTemplates", "uriTemplate"},
        [MANIFEST_INSTRUCTIONS] = {"instructions", NULL},
};

const char *manifest_member(enum manifest_part part)
{
        return parts[part].member;
}

const char *manifest_key(enum manifest_part list)
{
        return parts[list].key;
}

char *manifest_text(const char *instructions, json_object *const *lists)
{
        _cleanup_json_ json_object *o = json_object_new_object();

        json_add_str(o, parts[MANIFEST_INSTRUCTIONS].member, instructions ? instructions : "");
        for (unsigned i = 0; i < MANIFEST_LISTS; i++)
                json_add(o, parts[i].member, json_object_get(lists[i]));
        return json_canonical(o);
}

/* about: what kind of thing text is, so that no hash of one kind is good for another. */
static void hash(char out[MANIFEST_PIN], enum manifest_part part, char about, const char *text)
{
        unsigned char sum[crypto_hash_sha256_BYTES];
        crypto_hash_sha256_state s;

        crypto_hash_sha256_init(&s);
        crypto_hash_sha256_update(&s, (const unsigned char *)parts[part].member, strlen(parts[part].member));
        crypto_hash_sha256_update(&s, (const unsigned char *)&about, 1);
        crypto_hash_sha256_update(&s, (const unsigned char *)text, strlen(text));
        crypto_hash_sha256_final(&s, sum);
        sodium_bin2base64(out, MANIFEST_PIN, sum, sizeof(sum), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

void manifest_pin(char out[MANIFEST_PIN], enum manifest_part part, json_object *item)
{
        _cleanup_free_ char *text = json_canonical(item);

        hash(out, part, '=', text);
}

void manifest_key_pin(char out[MANIFEST_PIN], enum manifest_part list, const char *key)
{
        hash(out, list, '.', key);
}

static int order(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

bool manifest_has(char *const *pins, size_t n, const char *pin)
{
        return n && bsearch(&pin, pins, n, sizeof(*pins), order);
}

/* -- from a manifest to its pins ------------------------------------------------------------------------------------------------- */

struct pins {
        char **v;
        size_t n, room;
};

static void add(struct pins *p, const char *pin)
{
        if (p->n + 1 >= p->room) {
                p->room = p->room ? 2 * p->room : 64;
                p->v = mem_realloc(p->v, p->room, sizeof(*p->v));
        }
        p->v[p->n++] = mem_strdup(pin);
        p->v[p->n] = NULL;
}

static int add_item(struct pins *p, enum manifest_part list, json_object *item, struct err **err)
{
        const char *key = json_str(item, parts[list].key);
        char pin[MANIFEST_PIN];

        if (!key)
                return err_set(err, ERR_INVALID, "manifest: an item of \"%s\" has no \"%s\"", parts[list].member, parts[list].key);
        if (p->n + 2 > MANIFEST_MAX_PINS)
                return err_set(err, ERR_LIMIT, "manifest: more than %u items", MANIFEST_MAX_PINS / 2);
        manifest_pin(pin, list, item);
        add(p, pin);
        /* Tools are told by name already, and nobody asks for a template by its own. */
        if (list == MANIFEST_PROMPTS || list == MANIFEST_RESOURCES) {
                manifest_key_pin(pin, list, key);
                add(p, pin);
        }
        return 0;
}

static int add_list(struct pins *p, enum manifest_part list, json_object *items, struct err **err)
{
        if (!json_object_is_type(items, json_type_array))
                return err_set(err, ERR_INVALID, "manifest: \"%s\" is no list", parts[list].member);
        for (size_t i = 0; i < json_object_array_length(items); i++)
                if (add_item(p, list, json_object_array_get_idx(items, i), err) < 0)
                        return -1;
        return 0;
}

static void sort(struct pins *p)
{
        size_t kept = 1;

        qsort(p->v, p->n, sizeof(*p->v), order);
        for (size_t i = 1; i < p->n; i++) {
                if (str_eq(p->v[i], p->v[kept - 1]))
                        free(p->v[i]);
                else
                        p->v[kept++] = p->v[i];
        }
        p->v[kept] = NULL;
}

int manifest_pins(char ***ret, const char *text, size_t n, struct err **err)
{
        const struct json_limits limits = {.max_bytes = n + 1, .max_depth = MANIFEST_DEPTH + 4};
        _cleanup_json_ json_object *o = NULL;
        struct pins p = {0};
        char pin[MANIFEST_PIN];
        int r = 0;

        if (json_parse(&o, text, n, "manifest", &limits, err) < 0)
                return -1;
        json_object *instructions = json_get(o, parts[MANIFEST_INSTRUCTIONS].member);
        if (!json_object_is_type(instructions, json_type_string))
                return err_set(err, ERR_INVALID, "manifest: \"instructions\" is no text");
        manifest_pin(pin, MANIFEST_INSTRUCTIONS, instructions);
        add(&p, pin);
        for (unsigned i = 0; i < MANIFEST_LISTS && r == 0; i++)
                r = add_list(&p, (enum manifest_part)i, json_get(o, parts[i].member), err);
        if (r < 0) {
                strv_free(p.v);
                return -1;
        }
        sort(&p);
        *ret = p.v;
        return 0;
}
