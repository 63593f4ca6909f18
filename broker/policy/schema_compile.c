#include "broker/policy/schema_internal.h"
#include "common/text.h"

/*
 * From a tree of values to subschemas. A subschema is made once for each value, whoever refers to it, so that $ref may go round in circles.
 */
struct compile {
        struct schema *s;
        struct subschema *sub; /* being read */
        unsigned depth;        /* of subschemas in one another, also by $ref */
        struct err **err;
};

static const struct subschema *subschema_of(struct compile *c, const struct value *v);

static int fail(struct compile *c, const char *why)
{
        return err_set(c->err, ERR_INVALID, "%s", why);
}

/* -- values of keywords -------------------------------------------------------------------------------------------------------- */
typedef int (*keyword_fn)(struct compile *c, const struct value *v, void *field);

static int is_ignored(_unused_ struct compile *c, _unused_ const struct value *v, _unused_ void *field)
{
        return 0;
}

static int read_count(struct compile *c, const struct value *v, void *field)
{
        if (v->type != VALUE_INTEGER || v->number < 0)
                return fail(c, "is not a whole number from 0");
        *(uint32_t *)field = v->number >= UINT32_MAX ? UINT32_MAX : (uint32_t)v->number;
        return 0;
}

static int read_flag(struct compile *c, const struct value *v, void *field)
{
        if (v->type != VALUE_BOOLEAN)
                return fail(c, "is not true or false");
        *(bool *)field = v->truth;
        return 0;
}

static int read_bound(struct compile *c, const struct value *v, double *bound, bool *has)
{
        if (!(v->type & (VALUE_INTEGER | VALUE_NUMBER)))
                return fail(c, "is not a number");
        *bound = v->number;
        *has = true;
        return 0;
}

#define BOUND(name)                                                                                                                        \
        static int read_##name(struct compile *c, const struct value *v, _unused_ void *field)                                             \
        {                                                                                                                                  \
                return read_bound(c, v, &c->sub->name, &c->sub->has_##name);                                                               \
        }
BOUND(minimum)
BOUND(maximum)
BOUND(exclusive_minimum)
BOUND(exclusive_maximum)

static int read_multiple(struct compile *c, const struct value *v, _unused_ void *field)
{
        if (read_bound(c, v, &c->sub->multiple_of, &c->sub->has_multiple) < 0)
                return -1;
        return v->number > 0 ? 0 : fail(c, "is not above 0");
}

static int read_type(struct compile *c, const struct value *v, _unused_ void *field)
{
        static const struct {
                const char *name;
                unsigned types;
        } names[] = {
                {"null", VALUE_NULL},     {"boolean", VALUE_BOOLEAN}, {"integer", VALUE_INTEGER}, {"number", VALUE_INTEGER | VALUE_NUMBER},
                {"string", VALUE_STRING}, {"array", VALUE_ARRAY},     {"object", VALUE_OBJECT},
        };
        const struct value *word = v->type == VALUE_ARRAY ? value_child(&c->s->tree, v) : v;

        for (; word; word = v->type == VALUE_ARRAY ? value_next(&c->s->tree, word) : NULL) {
                unsigned known = 0;

                for (size_t i = 0; i < ELEMENTSOF(names); i++)
                        if (word->type == VALUE_STRING && value_is(word->text, names[i].name))
                                known = names[i].types;
                if (!known)
                        return fail(c, "is not the name of a type");
                c->sub->types |= known;
        }
        return c->sub->types ? 0 : fail(c, "names no type");
}

static int read_enum(struct compile *c, const struct value *v, void *field)
{
        *(const struct value **)field = v;
        return v->type == VALUE_ARRAY ? 0 : fail(c, "is not an array");
}

static int read_const(_unused_ struct compile *c, const struct value *v, void *field)
{
        *(const struct value **)field = v;
        return 0;
}

static int compile_pattern(struct compile *c, struct mcp_slice expression, struct pattern **ret)
{
        _cleanup_buf_ struct buf re2 = {0};

        if (ecma_translate(&re2, expression, c->err) < 0)
                return -1;
        return pattern_new(ret, re2.data, 0, c->err);
}

static int read_pattern(struct compile *c, const struct value *v, void *field)
{
        if (v->type != VALUE_STRING)
                return fail(c, "is not a string");
        return compile_pattern(c, v->text, field);
}

static int read_subschema(struct compile *c, const struct value *v, void *field)
{
        const struct subschema *made = subschema_of(c, v);

        *(const struct subschema **)field = made;
        return made ? 0 : -1;
}

static int read_list(struct compile *c, const struct value *v, void *field)
{
        struct schema_list *list = field;

        if (v->type != VALUE_ARRAY || v->count == 0)
                return fail(c, "is not an array of schemas");
        list->items = mem_alloc(v->count * sizeof(*list->items));
        for (const struct value *item = value_child(&c->s->tree, v); item; item = value_next(&c->s->tree, item))
                if (!(list->items[list->n++] = subschema_of(c, item)))
                        return -1;
        return 0;
}

/* Before 2020-12, an array here was what prefixItems is now. */
static int read_items(struct compile *c, const struct value *v, void *field)
{
        if (v->type != VALUE_ARRAY)
                return read_subschema(c, v, field);
        if (!c->s->old)
                return fail(c, "is an array, which draft 2020-12 writes as prefixItems");
        return v->count ? read_list(c, v, &c->sub->prefix) : 0;
}

/* Only of meaning beside the array form of items; it is then what items is now. */
static int read_additional_items(struct compile *c, const struct value *v, void *field)
{
        if (!c->s->old)
                return fail(c, "is not known in draft 2020-12");
        return c->sub->prefix.n ? read_subschema(c, v, field) : 0;
}

static int wrap_key(struct compile *c, struct mcp_slice key)
{
        _cleanup_free_ char *raw = mem_strndup(key.at, MIN(key.n, (size_t)80)), *shown = text_escape(raw);

        return err_wrap(c->err, "%s", shown);
}

static int compare_properties(const void *a, const void *b)
{
        const struct schema_property *x = a, *y = b;
        int order = memcmp(x->name.at, y->name.at, MIN(x->name.n, y->name.n));

        return order ? order : (x->name.n > y->name.n) - (x->name.n < y->name.n);
}

struct schema_property *subschema_property(const struct subschema *s, struct mcp_slice name)
{
        const struct schema_property wanted = {name, NULL, false};

        return s->n_properties ? bsearch(&wanted, s->properties, s->n_properties, sizeof(wanted), compare_properties) : NULL;
}

static void sort_properties(struct subschema *sub)
{
        if (sub->n_properties)
                qsort(sub->properties, sub->n_properties, sizeof(*sub->properties), compare_properties);
}

static int add_properties(struct compile *c, const struct value *properties)
{
        struct subschema *sub = c->sub;

        for (const struct value *v = value_child(&c->s->tree, properties); v; v = value_next(&c->s->tree, v)) {
                const struct subschema *made = subschema_of(c, v);

                if (!made)
                        return wrap_key(c, v->key);
                sub->properties[sub->n_properties++] = (struct schema_property){v->key, made, false};
        }
        sort_properties(sub);
        return 0;
}

/* Marks what is declared and adds what is not. */
static int add_required(struct compile *c, const struct value *required)
{
        struct subschema *sub = c->sub;
        struct subschema declared = {.properties = sub->properties, .n_properties = sub->n_properties};
        size_t kept = 0;

        for (const struct value *v = value_child(&c->s->tree, required); v; v = value_next(&c->s->tree, v)) {
                struct schema_property *p = v->type == VALUE_STRING ? subschema_property(&declared, v->text) : NULL;

                if (v->type != VALUE_STRING)
                        return fail(c, "required holds something else than names");
                if (p)
                        p->required = true;
                else
                        sub->properties[sub->n_properties++] = (struct schema_property){v->text, NULL, true};
        }
        sort_properties(sub);
        for (size_t i = 0; i < sub->n_properties; i++) /* a name that stands there twice */
                if (kept == 0 || !mcp_same(sub->properties[kept - 1].name, sub->properties[i].name))
                        sub->properties[kept++] = sub->properties[i];
        sub->n_properties = kept;
        for (size_t i = 0; i < kept; i++)
                sub->n_required += sub->properties[i].required;
        return 0;
}

/* Both at once: they fill the same sorted list. Either may be NULL. */
static int read_properties(struct compile *c, const struct value *properties, const struct value *required)
{
        size_t n = (properties ? properties->count : 0) + (required ? required->count : 0);

        if ((properties && properties->type != VALUE_OBJECT) || (required && required->type != VALUE_ARRAY))
                return fail(c, "properties is not an object, or required not an array");
        c->sub->properties = mem_alloc(n * sizeof(*c->sub->properties) + 1);
        if (properties && add_properties(c, properties) < 0)
                return -1;
        return required ? add_required(c, required) : 0;
}

static int read_pattern_properties(struct compile *c, const struct value *v, _unused_ void *field)
{
        struct subschema *sub = c->sub;

        if (v->type != VALUE_OBJECT)
                return fail(c, "is not an object");
        sub->patterns = mem_alloc(v->count * sizeof(*sub->patterns) + 1);
        for (const struct value *m = value_child(&c->s->tree, v); m; m = value_next(&c->s->tree, m)) {
                struct schema_pattern *p = &sub->patterns[sub->n_patterns++];

                if (compile_pattern(c, m->key, &p->pattern) < 0 || !(p->sub = subschema_of(c, m)))
                        return -1;
        }
        return 0;
}

static bool is_names(struct compile *c, const struct value *v)
{
        for (const struct value *n = value_child(&c->s->tree, v); n; n = value_next(&c->s->tree, n))
                if (n->type != VALUE_STRING)
                        return false;
        return v->type == VALUE_ARRAY;
}

static int read_dependents(struct compile *c, const struct value *v, bool schemas)
{
        struct subschema *sub = c->sub;

        if (v->type != VALUE_OBJECT)
                return fail(c, "is not an object");
        sub->dependents = mem_realloc(sub->dependents, sub->n_dependents + v->count + 1, sizeof(*sub->dependents));
        for (const struct value *m = value_child(&c->s->tree, v); m; m = value_next(&c->s->tree, m)) {
                struct schema_dependent d = {m->key, schemas ? NULL : m, NULL};

                if (!schemas && !is_names(c, m))
                        return fail(c, "holds something else than lists of names");
                if (schemas && !(d.sub = subschema_of(c, m)))
                        return -1;
                sub->dependents[sub->n_dependents++] = d;
        }
        return 0;
}

static int read_dependent_required(struct compile *c, const struct value *v, _unused_ void *field)
{
        return read_dependents(c, v, false);
}

static int read_dependent_schemas(struct compile *c, const struct value *v, _unused_ void *field)
{
        return read_dependents(c, v, true);
}

/* -- $ref ---------------------------------------------------------------------------------------------------------------------- */
/* One step of a JSON pointer in a URI fragment: "a~1b%25". Appends the name. */
static void decode_step(struct buf *out, const char *s, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                unsigned hex;
                char digits[3] = {0};

                if (s[i] == '%' && n - i > 2) {
                        memcpy(digits, s + i + 1, 2);
                        char *stop;
                        hex = (unsigned)strtoul(digits, &stop, 16);
                        if (stop == digits + 2) {
                                buf_addc(out, (char)hex);
                                i += 2;
                                continue;
                        }
                }
                buf_addc(out, s[i]);
        }
}

static const struct value *step_into(const struct value_tree *t, const struct value *v, const char *s, size_t n)
{
        _cleanup_buf_ struct buf decoded = {0}, name = {0};

        decode_step(&decoded, s, n);
        for (size_t i = 0; i < decoded.len; i++) {
                bool tilde = decoded.data[i] == '~' && i + 1 < decoded.len && (decoded.data[i + 1] == '0' || decoded.data[i + 1] == '1');
                buf_addc(&name, tilde ? (decoded.data[i + 1] == '0' ? '~' : '/') : decoded.data[i]);
                i += tilde;
        }
        struct mcp_slice wanted = {name.len ? name.data : "", name.len};
        size_t index = 0, number = v->type == VALUE_ARRAY && name.len && str_in_charset(name.data, "0123456789")
                                           ? strtoul(name.data, NULL, 10)
                                           : SIZE_MAX;
        for (const struct value *child = value_child(t, v); child; child = value_next(t, child), index++)
                if (v->type == VALUE_OBJECT ? mcp_same(child->key, wanted) : index == number)
                        return child;
        return NULL;
}

static int read_ref(struct compile *c, const struct value *v, void *field)
{
        const struct value *target = c->s->tree.nodes;

        if (v->type != VALUE_STRING || v->text.n == 0 || v->text.at[0] != '#' || (v->text.n > 1 && v->text.at[1] != '/'))
                return fail(c, "refers to another place than one in this schema by its path, such as #/$defs/name");
        const char *p = v->text.at + 1, *end = v->text.at + v->text.n;
        while (p < end && target) {
                const char *slash = memchr(p + 1, '/', (size_t)(end - p) - 1);

                slash = slash ? slash : end;
                target = step_into(&c->s->tree, target, p + 1, (size_t)(slash - p) - 1);
                p = slash;
        }
        return target ? read_subschema(c, target, field) : fail(c, "refers to a place that is not there");
}

/* Only compiled where something refers to them: what nobody uses need not be understood. */
static int read_definitions(struct compile *c, const struct value *v, _unused_ void *field)
{
        return v->type == VALUE_OBJECT ? 0 : fail(c, "is not an object");
}

/* -- subschemas ---------------------------------------------------------------------------------------------------------------- */
#define FIELD(name) offsetof(struct subschema, name)
static const struct keyword {
        const char *name;
        keyword_fn read;
        size_t field;
} keywords[] = {
        {"type", read_type, 0},
        {"enum", read_enum, FIELD(enumeration)},
        {"const", read_const, FIELD(constant)},
        {"minimum", read_minimum, 0},
        {"maximum", read_maximum, 0},
        {"exclusiveMinimum", read_exclusive_minimum, 0},
        {"exclusiveMaximum", read_exclusive_maximum, 0},
        {"multipleOf", read_multiple, 0},
        {"minLength", read_count, FIELD(min_length)},
        {"maxLength", read_count, FIELD(max_length)},
        {"pattern", read_pattern, FIELD(pattern)},
        {"minProperties", read_count, FIELD(min_properties)},
        {"maxProperties", read_count, FIELD(max_properties)},
        {"properties", is_ignored, 0}, /* with required, below */
        {"required", is_ignored, 0},
        {"patternProperties", read_pattern_properties, 0},
        {"additionalProperties", read_subschema, FIELD(additional)},
        {"propertyNames", read_subschema, FIELD(names)},
        {"dependentRequired", read_dependent_required, 0},
        {"dependentSchemas", read_dependent_schemas, 0},
        {"prefixItems", read_list, FIELD(prefix)},
        {"items", read_items, FIELD(items)},
        {"additionalItems", read_additional_items, FIELD(items)},
        {"minItems", read_count, FIELD(min_items)},
        {"maxItems", read_count, FIELD(max_items)},
        {"uniqueItems", read_flag, FIELD(unique)},
        {"contains", read_subschema, FIELD(contains)},
        {"minContains", read_count, FIELD(min_contains)},
        {"maxContains", read_count, FIELD(max_contains)},
        {"allOf", read_list, FIELD(all)},
        {"anyOf", read_list, FIELD(any)},
        {"oneOf", read_list, FIELD(one)},
        {"not", read_subschema, FIELD(negated)},
        {"if", read_subschema, FIELD(condition)},
        {"then", read_subschema, FIELD(then)},
        {"else", read_subschema, FIELD(otherwise)},
        {"$ref", read_ref, FIELD(ref)},
        {"$defs", read_definitions, 0},
        {"definitions", read_definitions, 0},
};

static const char *const annotations[] = {
        "$schema",    "$id",      "$comment",  "title",  "description",     "default",          "examples",
        "deprecated", "readOnly", "writeOnly", "format", "contentEncoding", "contentMediaType", "contentSchema",
};

static bool is_annotation(struct mcp_slice key)
{
        for (size_t i = 0; i < ELEMENTSOF(annotations); i++)
                if (value_is(key, annotations[i]))
                        return true;
        return key.n > 2 && memcmp(key.at, "x-", 2) == 0;
}

/* In the table's order, not the schema's: additionalItems needs to know items. */
static int read_keywords(struct compile *c, const struct value *v)
{
        const struct value_tree *t = &c->s->tree;
        struct subschema *sub = c->sub;
        const struct value *found[ELEMENTSOF(keywords)] = {0}, *properties = NULL, *required = NULL;

        for (const struct value *m = value_child(t, v); m; m = value_next(t, m)) {
                size_t i = 0;

                while (i < ELEMENTSOF(keywords) && !value_is(m->key, keywords[i].name))
                        i++;
                if (i < ELEMENTSOF(keywords))
                        found[i] = m;
                else if (!is_annotation(m->key))
                        return fail(c, "is a keyword that is not understood here"), wrap_key(c, m->key);
                if (value_is(m->key, "properties"))
                        properties = m;
                if (value_is(m->key, "required"))
                        required = m;
        }
        for (size_t i = 0; i < ELEMENTSOF(keywords); i++) {
                /* A subschema that is read on the way has its own c->sub. */
                if (found[i] && keywords[i].read(c, found[i], (char *)sub + keywords[i].field) < 0)
                        return wrap_key(c, found[i]->key);
        }
        return properties || required ? read_properties(c, properties, required) : 0;
}

static struct subschema *new_subschema(struct schema *s, const struct value *v)
{
        struct subschema *sub = NEW(struct subschema);

        sub->max_length = sub->max_properties = sub->max_items = sub->max_contains = UINT32_MAX;
        sub->min_contains = 1;
        sub->tree = &s->tree;
        if (s->n == s->cap) {
                s->cap = s->cap ? 2 * s->cap : 16;
                s->nodes = mem_realloc(s->nodes, s->cap, sizeof(*s->nodes));
        }
        s->nodes[s->n++] = sub;
        s->of_value[v - s->tree.nodes] = (uint32_t)s->n;
        return sub;
}

static const struct subschema *subschema_of(struct compile *c, const struct value *v)
{
        struct schema *s = c->s;
        struct subschema *outer = c->sub;
        int result = 0;

        if (s->of_value[v - s->tree.nodes])
                return s->nodes[s->of_value[v - s->tree.nodes] - 1];
        if (v->type != VALUE_BOOLEAN && v->type != VALUE_OBJECT) {
                fail(c, "is no schema");
                return NULL;
        }
        if (s->n == SCHEMA_MAX_NODES || c->depth == SCHEMA_MAX_DEPTH) {
                fail(c, "the schema has too many parts, or too many in one another");
                return NULL;
        }
        c->sub = new_subschema(s, v);
        const struct subschema *made = c->sub;
        c->depth++;
        if (v->type == VALUE_BOOLEAN)
                c->sub->never = !v->truth;
        else
                result = read_keywords(c, v);
        c->depth--;
        c->sub = outer;
        return result < 0 ? NULL : made;
}

/* http://json-schema.org/draft-07/schema# and its elders; without $schema MCP means 2020-12. */
static bool is_old(const struct schema *s)
{
        const struct value *v = value_get(&s->tree, s->tree.nodes, "$schema");

        return v && v->type == VALUE_STRING && memmem(v->text.at, v->text.n, "json-schema.org/draft-0", 23);
}

int schema_new(struct schema **ret, const char *text, size_t n, struct err **err)
{
        _cleanup_(schema_freep) struct schema *s = NEW(struct schema);
        struct compile c = {s, NULL, 0, err};

        if (n > SCHEMA_MAX_BYTES)
                return err_set(err, ERR_LIMIT, "the schema is longer than %u bytes", SCHEMA_MAX_BYTES);
        if (mcp_value_check(text, n, err) != 0)
                return err_wrap(err, "the schema");
        s->text = mem_strndup(text, n);
        if (value_parse(&s->tree, (struct mcp_slice){s->text, n}, err) < 0)
                return -1;
        s->of_value = mem_alloc(s->tree.n * sizeof(*s->of_value));
        s->old = is_old(s);
        if (!(s->root = subschema_of(&c, s->tree.nodes)))
                return -1;
        *ret = TAKE_PTR(s);
        return 0;
}

static void subschema_free(struct subschema *s)
{
        for (size_t i = 0; i < s->n_patterns; i++)
                pattern_free(s->patterns[i].pattern);
        pattern_free(s->pattern);
        free(s->patterns);
        free(s->properties);
        free(s->dependents);
        free(s->prefix.items);
        free(s->all.items);
        free(s->any.items);
        free(s->one.items);
        free(s);
}

struct schema *schema_free(struct schema *s)
{
        if (!s)
                return NULL;
        for (size_t i = 0; i < s->n; i++)
                subschema_free(s->nodes[i]);
        free(s->nodes);
        free(s->of_value);
        value_tree_deinit(&s->tree);
        free(s->text);
        free(s);
        return NULL;
}
