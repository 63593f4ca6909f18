#include "cli/diff.h"

#define MAX_DEPTH 40

static void add(struct differences *d, const char *path, json_object *before, json_object *after)
{
        d->v = mem_realloc(d->v, d->n + 1, sizeof(*d->v));
        d->v[d->n++] = (struct difference){.path = mem_strdup(*path ? path : "/"), .before = before, .after = after};
}

static void compare(struct differences *d, const char *path, json_object *a, json_object *b, unsigned depth);

static void compare_objects(struct differences *d, const char *path, json_object *a, json_object *b, unsigned depth)
{
        json_object *other;

        json_object_object_foreach (a, key, member) {
                _cleanup_free_ char *inner = mem_printf("%s/%s", path, key);
                if (json_object_object_get_ex(b, key, &other))
                        compare(d, inner, member, other, depth + 1);
                else
                        add(d, inner, member, NULL);
        }
        json_object_object_foreach (b, new_key, new_member) {
                _cleanup_free_ char *inner = mem_printf("%s/%s", path, new_key);
                if (!json_object_object_get_ex(a, new_key, NULL))
                        add(d, inner, NULL, new_member);
        }
}

static void compare_arrays(struct differences *d, const char *path, json_object *a, json_object *b, unsigned depth)
{
        size_t n = json_object_array_length(a), m = json_object_array_length(b);

        for (size_t i = 0; i < MAX(n, m); i++) {
                _cleanup_free_ char *inner = mem_printf("%s/%zu", path, i);
                if (i >= m)
                        add(d, inner, json_object_array_get_idx(a, i), NULL);
                else if (i >= n)
                        add(d, inner, NULL, json_object_array_get_idx(b, i));
                else
                        compare(d, inner, json_object_array_get_idx(a, i), json_object_array_get_idx(b, i), depth + 1);
        }
}

static void compare(struct differences *d, const char *path, json_object *a, json_object *b, unsigned depth)
{
        if (json_object_equal(a, b))
                return;
        if (depth < MAX_DEPTH && json_object_is_type(a, json_type_object) && json_object_is_type(b, json_type_object))
                compare_objects(d, path, a, b, depth);
        else if (depth < MAX_DEPTH && json_object_is_type(a, json_type_array) && json_object_is_type(b, json_type_array))
                compare_arrays(d, path, a, b, depth);
        else
                add(d, path, a, b);
}

void diff_values(struct differences *ret, json_object *before, json_object *after)
{
        compare(ret, "", before, after, 0);
}

void differences_deinit(struct differences *d)
{
        for (size_t i = 0; i < d->n; i++)
                free(d->v[i].path);
        free(d->v);
        *d = (struct differences){0};
}

static void print_side(struct out *o, enum style style, const char *sign, const char *path, json_object *v)
{
        _cleanup_free_ char *line = mem_printf("  %s %s: %s", sign, path,
                                               json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));

        out_text(o, style, line);
        fputc('\n', o->f);
}

size_t diff_print(struct out *o, const struct differences *d)
{
        for (size_t i = 0; i < d->n; i++) {
                if (d->v[i].before)
                        print_side(o, STYLE_RED, "-", d->v[i].path, d->v[i].before);
                if (d->v[i].after)
                        print_side(o, STYLE_GREEN, "+", d->v[i].path, d->v[i].after);
        }
        return d->n;
}

static json_object *named(json_object *list)
{
        json_object *o = json_object_new_object();

        for (size_t i = 0; i < json_object_array_length(list); i++) {
                json_object *item = json_object_array_get_idx(list, i);
                const char *name = json_str(item, "name"), *uri = json_str(item, "uri");
                _cleanup_free_ char *number = mem_printf("%zu", i);
                json_add(o, name ? name : uri ? uri : number, json_object_get(item));
        }
        return o;
}

json_object *diff_by_name(json_object *manifest)
{
        json_object *o = json_object_new_object();

        if (!json_object_is_type(manifest, json_type_object))
                return o;
        json_object_object_foreach (manifest, key, value) {
                json_add(o, key, json_object_is_type(value, json_type_array) ? named(value) : json_object_get(value));
        }
        return o;
}
