#include "common/reader.h"

#include <ctype.h>
#include <stdio.h>

#include "common/text.h"

/* RFC 6901 pointer of a place, as common/json keeps them. */
static void add_pointer(struct buf *b, const struct place *at)
{
        if (!at)
                return;
        add_pointer(b, at->up);
        buf_addc(b, '/');
        if (!at->key) {
                buf_addf(b, "%zu", at->index);
                return;
        }
        for (const char *p = at->key; *p; p++) {
                if (*p == '~')
                        buf_adds(b, "~0");
                else if (*p == '/')
                        buf_adds(b, "~1");
                else
                        buf_addc(b, *p);
        }
}

/* The same for people: servers.github.egress[0].cidr */
static void add_dotted(struct buf *b, const struct place *at)
{
        if (!at)
                return;
        add_dotted(b, at->up);
        if (!at->key) {
                buf_addf(b, "[%zu]", at->index);
                return;
        }
        _cleanup_free_ char *key = text_escape(at->key);
        buf_addf(b, "%s%.100s", b->len ? "." : "", key);
}

char *reader_place_text(const struct place *at)
{
        _cleanup_buf_ struct buf dotted = {0};

        add_dotted(&dotted, at);
        return buf_take(&dotted);
}

static bool locate(const struct reader *r, const struct place *at, unsigned *line, unsigned *column)
{
        _cleanup_buf_ struct buf pointer = {0};

        if (!r->loc)
                return false;
        if (!at) { /* the document */
                *line = *column = 1;
                return true;
        }
        add_pointer(&pointer, at);
        return json_locate(r->loc, pointer.data, line, column);
}

void reader_spot(const struct reader *r, const struct place *at, unsigned *line, unsigned *column)
{
        if (!locate(r, at, line, column))
                *line = *column = 0;
}

unsigned reader_line(const struct reader *r, const struct place *at)
{
        unsigned line = 0, column = 0;

        reader_spot(r, at, &line, &column);
        return line;
}

int reader_wrap(const struct reader *r, const struct place *at, struct err **err)
{
        _cleanup_buf_ struct buf dotted = {0};
        unsigned line = 0, column = 0;

        if (!err)
                return -1;
        add_dotted(&dotted, at);
        if (dotted.len)
                err_wrap(err, "%s", dotted.data);
        if (locate(r, at, &line, &column))
                return err_wrap(err, "%s:%u:%u", r->name, line, column);
        return err_wrap(err, "%s", r->name);
}

int reader_fail(const struct reader *r, const struct place *at, struct err **err, const char *fmt, ...)
{
        va_list ap;
        char *message = NULL;

        va_start(ap, fmt);
        int n = vasprintf(&message, fmt, ap);
        va_end(ap);
        if (n < 0)
                abort();
        err_set(err, ERR_INVALID, "%s", message);
        free(message);
        return reader_wrap(r, at, err);
}

static const struct key *find_key(const struct key *keys, size_t n_keys, const char *name)
{
        for (size_t i = 0; i < n_keys; i++)
                if (strcmp(keys[i].name, name) == 0)
                        return &keys[i];
        return NULL;
}

static int unknown_key(const struct reader *r, const struct place *at, const struct key *keys, size_t n_keys, struct err **err)
{
        _cleanup_buf_ struct buf known = {0};

        for (size_t i = 0; i < n_keys; i++)
                if (!keys[i].refused)
                        buf_addf(&known, "%s%s", known.len ? ", " : "", keys[i].name);
        return reader_fail(r, at, err, "unknown key; remove it or correct its spelling (known here: %s)", known.data ? known.data : "none");
}

static const char *type_name(json_object *v)
{
        static const char *const names[] = {
                [json_type_null] = "null",       [json_type_boolean] = "a boolean", [json_type_double] = "a number",
                [json_type_int] = "a number",    [json_type_object] = "an object",  [json_type_array] = "an array",
                [json_type_string] = "a string",
        };

        return names[json_object_get_type(v)];
}

static int expect(const struct reader *r, const struct place *at, json_object *v, enum json_type type, const char *want, struct err **err)
{
        if (json_object_get_type(v) == type)
                return 0;
        return reader_fail(r, at, err, "is %s; write %s", type_name(v), want);
}

int read_object(const struct reader *r, const struct place *at, json_object *value, const struct key *keys, size_t n_keys, void *dst,
                struct err **err)
{
        if (expect(r, at, value, json_type_object, "an object, {…}", err) < 0)
                return -1;
        json_object_object_foreach (value, name, ignored) {
                const struct key *key = find_key(keys, n_keys, name);

                (void)ignored;
                if (!key)
                        return unknown_key(r, PLACE_KEY(at, name), keys, n_keys, err);
                if (key->refused)
                        return reader_fail(r, PLACE_KEY(at, name), err, "%s", key->refused);
        }
        for (size_t i = 0; i < n_keys; i++) {
                json_object *member;

                if (!json_object_object_get_ex(value, keys[i].name, &member)) {
                        if (keys[i].required)
                                return reader_fail(r, at, err, "the key \"%s\" is missing; add it", keys[i].name);
                        continue;
                }
                if (keys[i].parse(r, PLACE_KEY(at, keys[i].name), member, dst, err) < 0)
                        return -1;
        }
        return 0;
}

int read_string(const struct reader *r, const struct place *at, json_object *value, size_t max, const char **ret, struct err **err)
{
        if (expect(r, at, value, json_type_string, "a string", err) < 0)
                return -1;
        size_t n = (size_t)json_object_get_string_len(value);
        if (n == 0)
                return reader_fail(r, at, err, "is empty; write a value or leave the key out");
        if (n > max)
                return reader_fail(r, at, err, "is %zu bytes long; at most %zu are allowed", n, max);
        *ret = json_object_get_string(value);
        return 0;
}

int read_bool(const struct reader *r, const struct place *at, json_object *value, bool *ret, struct err **err)
{
        if (expect(r, at, value, json_type_boolean, "true or false", err) < 0)
                return -1;
        *ret = json_object_get_boolean(value);
        return 0;
}

int read_integer(const struct reader *r, const struct place *at, json_object *value, int64_t min, int64_t max, int64_t *ret,
                 struct err **err)
{
        if (json_object_get_type(value) == json_type_double)
                return reader_fail(r, at, err, "is not a whole number; write one from %lld to %lld", (long long)min, (long long)max);
        if (expect(r, at, value, json_type_int, "a whole number", err) < 0)
                return -1;
        *ret = json_object_get_int64(value);
        if (*ret < min || *ret > max)
                return reader_fail(r, at, err, "%lld is out of range; write a number from %lld to %lld", (long long)*ret, (long long)min,
                                   (long long)max);
        return 0;
}

int read_word(const struct reader *r, const struct place *at, json_object *value, const char *const *words, unsigned *ret, struct err **err)
{
        _cleanup_buf_ struct buf known = {0};
        const char *s = NULL;

        if (read_string(r, at, value, 64, &s, err) < 0)
                return -1;
        for (unsigned i = 0; words[i]; i++) {
                if (str_eq(words[i], s)) {
                        *ret = i;
                        return 0;
                }
                buf_addf(&known, "%s\"%s\"", i ? ", " : "", words[i]);
        }
        _cleanup_free_ char *shown = text_escape(s);
        return reader_fail(r, at, err, "\"%s\" is not known here; write one of %s", shown, known.data);
}

int read_size(const struct reader *r, const struct place *at, json_object *value, uint64_t min, uint64_t max, uint64_t *ret,
              struct err **err)
{
        const char *s = NULL;

        if (read_string(r, at, value, 32, &s, err) < 0)
                return -1;
        if (text_parse_size(ret, s, err) < 0)
                return reader_wrap(r, at, err);
        if (*ret < min || *ret > max)
                return reader_fail(r, at, err, "\"%s\" is out of range; write a size from %lluk to %llug", s, (unsigned long long)min >> 10,
                                   (unsigned long long)max >> 30);
        return 0;
}

int read_duration(const struct reader *r, const struct place *at, json_object *value, uint64_t min_ms, uint64_t max_ms, uint64_t *ret,
                  struct err **err)
{
        const char *s = NULL;

        if (read_string(r, at, value, 32, &s, err) < 0)
                return -1;
        if (text_parse_duration(ret, s, err) < 0)
                return reader_wrap(r, at, err);
        if (*ret < min_ms || *ret > max_ms)
                return reader_fail(r, at, err, "\"%s\" is out of range; write a duration from %llus to %llus", s,
                                   (unsigned long long)min_ms / 1000, (unsigned long long)max_ms / 1000);
        return 0;
}

int read_array(const struct reader *r, const struct place *at, json_object *value, size_t max_items, size_t *ret_n, struct err **err)
{
        if (expect(r, at, value, json_type_array, "an array, […]", err) < 0)
                return -1;
        *ret_n = json_object_array_length(value);
        if (*ret_n > max_items)
                return reader_fail(r, at, err, "has %zu items; at most %zu are allowed", *ret_n, max_items);
        return 0;
}

int read_strings(const struct reader *r, const struct place *at, json_object *value, size_t max_items, size_t max_each,
                 string_check_fn check, char ***ret, struct err **err)
{
        _cleanup_strv_ char **list = NULL;
        size_t n = 0;

        if (read_array(r, at, value, max_items, &n, err) < 0)
                return -1;
        if (n == 0)
                return reader_fail(r, at, err, "is empty; write at least one item or leave the key out");
        for (size_t i = 0; i < n; i++) {
                const char *s = NULL;
                json_object *item = json_object_array_get_idx(value, i);

                if (read_string(r, PLACE_ITEM(at, i), item, max_each, &s, err) < 0)
                        return -1;
                if (check && check(r, PLACE_ITEM(at, i), s, err) < 0)
                        return -1;
                list = strv_append(list, s);
        }
        *ret = TAKE_PTR(list);
        return 0;
}

/* C0, DEL and C1 (which UTF-8 writes as c2 80 .. c2 9f). */
static bool has_control(const char *s)
{
        for (const unsigned char *p = (const unsigned char *)s; *p; p++)
                if (*p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f))
                        return true;
        return false;
}

int read_clean(const struct reader *r, const struct place *at, json_object *value, struct err **err)
{
        static const char remedy[] = "control characters are not allowed; remove them";

        if (json_object_is_type(value, json_type_string))
                return has_control(json_object_get_string(value)) ? reader_fail(r, at, err, remedy) : 0;
        if (json_object_is_type(value, json_type_array)) {
                for (size_t i = 0; i < json_object_array_length(value); i++)
                        if (read_clean(r, PLACE_ITEM(at, i), json_object_array_get_idx(value, i), err) < 0)
                                return -1;
                return 0;
        }
        if (!json_object_is_type(value, json_type_object))
                return 0;
        json_object_object_foreach (value, key, member) {
                if (has_control(key))
                        return reader_fail(r, PLACE_KEY(at, key), err, remedy);
                if (read_clean(r, PLACE_KEY(at, key), member, err) < 0)
                        return -1;
        }
        return 0;
}

int check_variable_name(const struct reader *r, const struct place *at, const char *s, struct err **err)
{
        static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";

        if (s[0] && strlen(s) <= 128 && !isdigit((unsigned char)s[0]) && str_in_charset(s, set))
                return 0;
        _cleanup_free_ char *shown = text_escape(s);
        return reader_fail(r, at, err, "\"%.140s\" is not a name of a variable; use letters, digits and _, not a digit first, at most 128",
                           shown);
}
