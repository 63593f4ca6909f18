#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "broker/policy/schema_internal.h"
#include "broker/policy/spot.h"

struct check {
        const struct value_tree *t;
        struct schema_fault *fault; /* NULL while trying: anyOf, not, if … */
        uint32_t work;
        unsigned depth;
};

static bool apply(struct check *c, const struct subschema *s, const struct value *v, const struct spot *at);

_printf_(3, 4) static bool refuse(struct check *c, const struct spot *at, const char *fmt, ...)
{
        va_list ap;

        if (!c->fault)
                return false;
        spot_write(c->fault->where, sizeof(c->fault->where), at);
        va_start(ap, fmt);
        vsnprintf(c->fault->why, sizeof(c->fault->why), fmt, ap);
        va_end(ap);
        return false;
}

/* One step of work; false: there is none left. */
static bool spend(struct check *c)
{
        if (c->work > 0)
                c->work--;
        return c->work > 0;
}

/* An expression looks at every byte: 256 of them are a step. */
static bool spend_text(struct check *c, size_t n)
{
        c->work -= MIN(c->work, (uint32_t)MIN(n / 256, (size_t)SCHEMA_MAX_WORK));
        return spend(c);
}

/* Without a word about what does not fit. */
static bool fits(struct check *c, const struct subschema *s, const struct value *v, const struct spot *at)
{
        struct schema_fault *fault = c->fault;

        c->fault = NULL;
        bool result = apply(c, s, v, at);
        c->fault = fault;
        return result;
}

static const char *type_name(enum value_type type)
{
        switch (type) {
        case VALUE_NULL:
                return "null";
        case VALUE_BOOLEAN:
                return "a boolean";
        case VALUE_INTEGER:
        case VALUE_NUMBER:
                return "a number";
        case VALUE_STRING:
                return "a string";
        case VALUE_ARRAY:
                return "an array";
        case VALUE_OBJECT:
                return "an object";
        }
        return "a value";
}

/* -- by type ------------------------------------------------------------------------------------------------------------------- */
static bool check_number(struct check *c, const struct subschema *s, const struct value *v, const struct spot *at)
{
        if (s->has_minimum && v->number < s->minimum)
                return refuse(c, at, "is less than %.17g", s->minimum);
        if (s->has_maximum && v->number > s->maximum)
                return refuse(c, at, "is more than %.17g", s->maximum);
        if (s->has_exclusive_minimum && v->number <= s->exclusive_minimum)
                return refuse(c, at, "is not more than %.17g", s->exclusive_minimum);
        if (s->has_exclusive_maximum && v->number >= s->exclusive_maximum)
                return refuse(c, at, "is not less than %.17g", s->exclusive_maximum);
        if (s->has_multiple) {
                double quotient = v->number / s->multiple_of;

                if (!isfinite(quotient) || quotient != trunc(quotient))
                        return refuse(c, at, "is not a multiple of %.17g", s->multiple_of);
        }
        return true;
}

static bool check_string(struct check *c, const struct subschema *s, const struct value *v, const struct spot *at)
{
        if (v->count < s->min_length)
                return refuse(c, at, "is shorter than %u characters", s->min_length);
        if (v->count > s->max_length)
                return refuse(c, at, "is longer than %u characters", s->max_length);
        if (s->pattern && (!spend_text(c, v->text.n) || !pattern_search(s->pattern, v->text.at, v->text.n)))
                return refuse(c, at, "does not match the pattern of the tool's schema");
        return true;
}

static bool all_differ(struct check *c, const struct value *array)
{
        for (const struct value *a = value_child(c->t, array); a; a = value_next(c->t, a))
                for (const struct value *b = value_next(c->t, a); b; b = value_next(c->t, b))
                        if (value_equal(c->t, a, c->t, b, &c->work) || c->work == 0)
                                return false;
        return true;
}

static bool check_array(struct check *c, const struct subschema *s, const struct value *v, const struct spot *at)
{
        uint32_t contained = 0;
        size_t i = 0;

        if (v->count < s->min_items)
                return refuse(c, at, "has fewer than %u items", s->min_items);
        if (v->count > s->max_items)
                return refuse(c, at, "has more than %u items", s->max_items);
        for (const struct value *item = value_child(c->t, v); item; item = value_next(c->t, item), i++) {
                const struct subschema *sub = i < s->prefix.n ? s->prefix.items[i] : s->items;
                const struct spot here = {at, item, i};

                if (sub && !apply(c, sub, item, &here))
                        return false;
                contained += s->contains && fits(c, s->contains, item, &here);
        }
        if (s->contains && (contained < s->min_contains || contained > s->max_contains))
                return refuse(c, at, "has %u items of the kind that the schema counts", contained);
        if (s->unique && !all_differ(c, v))
                return refuse(c, at, "has two items that are the same");
        return true;
}

static const struct value *member(struct check *c, const struct value *object, struct mcp_slice name)
{
        for (const struct value *v = value_child(c->t, object); v && c->work > 0; v = value_next(c->t, v), spend(c))
                if (mcp_same(v->key, name))
                        return v;
        return NULL;
}

static bool missing(struct check *c, const struct spot *at, struct mcp_slice name)
{
        return refuse(c, at, "lacks the member \"%.*s\"", (int)MIN(name.n, (size_t)80), name.at);
}

static bool check_dependents(struct check *c, const struct subschema *s, const struct value *v, const struct spot *at)
{
        for (size_t i = 0; i < s->n_dependents; i++) {
                const struct schema_dependent *d = &s->dependents[i];

                if (!member(c, v, d->name))
                        continue;
                if (d->sub && !apply(c, d->sub, v, at))
                        return false;
                for (const struct value *n = d->required ? value_child(s->tree, d->required) : NULL; n; n = value_next(s->tree, n))
                        if (!member(c, v, n->text))
                                return missing(c, at, n->text);
        }
        return true;
}

/* A member's name is a value of its own for propertyNames. */
static bool check_name(struct check *c, const struct subschema *names, const struct value *m, const struct spot *at)
{
        struct value name = {.type = VALUE_STRING, .text = m->key, .key = m->key};

        for (size_t i = 0; i < m->key.n; i++)
                name.count += ((unsigned char)m->key.at[i] & 0xc0) != 0x80;
        return fits(c, names, &name, at) || refuse(c, at, "has a name that is not allowed");
}

static bool check_member(struct check *c, const struct subschema *s, const struct value *m, const struct spot *at, uint32_t *required)
{
        const struct schema_property *p = subschema_property(s, m->key);
        bool known = p && p->sub;

        *required += p && p->required;
        if (s->names && !check_name(c, s->names, m, at))
                return false;
        if (known && !apply(c, p->sub, m, at))
                return false;
        for (size_t i = 0; i < s->n_patterns; i++) {
                if (!spend_text(c, m->key.n) || !pattern_search(s->patterns[i].pattern, m->key.at, m->key.n))
                        continue;
                known = true;
                if (!apply(c, s->patterns[i].sub, m, at))
                        return false;
        }
        if (known || !s->additional)
                return true;
        if (s->additional->never)
                return refuse(c, at, "is not an argument of this tool");
        return apply(c, s->additional, m, at);
}

static bool check_object(struct check *c, const struct subschema *s, const struct value *v, const struct spot *at)
{
        uint32_t required = 0;

        if (v->count < s->min_properties)
                return refuse(c, at, "has fewer than %u members", s->min_properties);
        if (v->count > s->max_properties)
                return refuse(c, at, "has more than %u members", s->max_properties);
        for (const struct value *m = value_child(c->t, v); m; m = value_next(c->t, m)) {
                const struct spot here = {at, m, 0};

                if (!check_member(c, s, m, &here, &required))
                        return false;
        }
        for (size_t i = 0; required < s->n_required && i < s->n_properties; i++)
                if (s->properties[i].required && !member(c, v, s->properties[i].name))
                        return missing(c, at, s->properties[i].name);
        return check_dependents(c, s, v, at);
}

/* -- of the same value --------------------------------------------------------------------------------------------------------- */
static bool check_combinations(struct check *c, const struct subschema *s, const struct value *v, const struct spot *at)
{
        size_t matching = 0;

        for (size_t i = 0; i < s->all.n; i++)
                if (!apply(c, s->all.items[i], v, at))
                        return false;
        for (size_t i = 0; i < s->any.n && !matching; i++)
                matching += fits(c, s->any.items[i], v, at);
        if (s->any.n && !matching)
                return refuse(c, at, "fits none of the forms that the schema offers");
        matching = 0;
        for (size_t i = 0; i < s->one.n; i++)
                matching += fits(c, s->one.items[i], v, at);
        if (s->one.n && matching != 1)
                return refuse(c, at, "fits %zu of the forms of which the schema wants one", matching);
        if (s->negated && fits(c, s->negated, v, at))
                return refuse(c, at, "is what the schema excludes");
        if (!s->condition)
                return true;
        const struct subschema *next = fits(c, s->condition, v, at) ? s->then : s->otherwise;
        return !next || apply(c, next, v, at);
}

static bool check_values(struct check *c, const struct subschema *s, const struct value *v, const struct spot *at)
{
        if (s->types && !(s->types & v->type))
                return refuse(c, at, "is %s, which is not the type wanted", type_name(v->type));
        if (s->constant && !value_equal(s->tree, s->constant, c->t, v, &c->work))
                return refuse(c, at, "is not the one value that is allowed");
        if (!s->enumeration)
                return true;
        for (const struct value *e = value_child(s->tree, s->enumeration); e; e = value_next(s->tree, e))
                if (value_equal(s->tree, e, c->t, v, &c->work))
                        return true;
        return refuse(c, at, "is none of the values that are allowed");
}

static bool check_type(struct check *c, const struct subschema *s, const struct value *v, const struct spot *at)
{
        switch (v->type) {
        case VALUE_INTEGER:
        case VALUE_NUMBER:
                return check_number(c, s, v, at);
        case VALUE_STRING:
                return check_string(c, s, v, at);
        case VALUE_ARRAY:
                return check_array(c, s, v, at);
        case VALUE_OBJECT:
                return check_object(c, s, v, at);
        case VALUE_NULL:
        case VALUE_BOOLEAN:
                break;
        }
        return true;
}

static bool apply(struct check *c, const struct subschema *s, const struct value *v, const struct spot *at)
{
        if (c->depth == SCHEMA_MAX_DEPTH || !spend(c)) {
                c->work = 0;
                return false;
        }
        c->depth++;
        bool result = s->never ? refuse(c, at, "is not allowed at all")
                               : check_values(c, s, v, at) && check_type(c, s, v, at) && (!s->ref || apply(c, s->ref, v, at)) &&
                                         check_combinations(c, s, v, at);
        c->depth--;
        return result;
}

int schema_check(const struct schema *s, const struct value_tree *t, struct schema_fault *fault)
{
        struct check c = {.t = t, .fault = fault, .work = SCHEMA_MAX_WORK};
        const struct spot root = {0};

        *fault = (struct schema_fault){0};
        bool result = apply(&c, s->root, t->nodes, &root);
        /* An exhausted check may have said yes by way of a "not". */
        if (c.work > 0)
                return result ? 0 : 1;
        snprintf(fault->why, sizeof(fault->why), "costs too much to check against the tool's schema");
        return 1;
}
