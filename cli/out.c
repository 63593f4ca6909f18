#include "cli/out.h"

#include <inttypes.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

#include "common/text.h"

#define PROGRESS_AFTER_MS 2000
#define LABEL_WIDTH       15

static const char *const sequences[] = {
        [STYLE_PLAIN] = "",       [STYLE_BOLD] = "\033[1m",   [STYLE_DIM] = "\033[2m",
        [STYLE_RED] = "\033[31m", [STYLE_GREEN] = "\033[32m", [STYLE_YELLOW] = "\033[33m",
};

void out_init(struct out *o, FILE *f, bool never)
{
        const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

        *o = (struct out){.f = f};
        o->color = !never && !(no_color && *no_color) && term && strcmp(term, "dumb") != 0 && isatty(fileno(f));
}

static void begin(struct out *o, enum style style)
{
        if (o->color && style != STYLE_PLAIN)
                fputs(sequences[style], o->f);
}

static void end(struct out *o, enum style style)
{
        if (o->color && style != STYLE_PLAIN)
                fputs("\033[0m", o->f);
}

void out_line(struct out *o, enum style style, const char *fmt, ...)
{
        va_list ap;

        begin(o, style);
        va_start(ap, fmt);
        vfprintf(o->f, fmt, ap);
        va_end(ap);
        end(o, style);
        fputc('\n', o->f);
}

void out_text(struct out *o, enum style style, const char *text)
{
        _cleanup_free_ char *safe = text_escape(text ? text : "-");

        begin(o, style);
        fputs(safe, o->f);
        end(o, style);
}

char *out_escape_again(const char *s)
{
        _cleanup_free_ char *bare = mem_strdup(s);

        for (char *p = bare; *p; p++)
                if (*p == '\\')
                        *p = '/';
        _cleanup_free_ char *escaped = text_escape(bare);
        return strcmp(escaped, bare) == 0 ? mem_strdup(s) : text_escape(s);
}

static void put_field(struct out *o, enum style style, const char *label, const char *safe)
{
        fprintf(o->f, "  %-*s ", LABEL_WIDTH, label);
        begin(o, style);
        fputs(safe, o->f);
        end(o, style);
        fputc('\n', o->f);
}

void out_field_again(struct out *o, enum style style, const char *label, const char *value)
{
        if (!value || !*value)
                return;
        _cleanup_free_ char *safe = out_escape_again(value);
        put_field(o, style, label, safe);
}

void out_field(struct out *o, enum style style, const char *label, const char *value)
{
        if (!value || !*value)
                return;
        _cleanup_free_ char *safe = text_escape(value);
        put_field(o, style, label, safe);
}

/* -- JSON for people ------------------------------------------------------------------------------------------------------- */
static void put_indent(struct out *o, unsigned indent)
{
        fprintf(o->f, "%*s", (int)indent, "");
}

static void put_string(struct out *o, unsigned indent, const char *s)
{
        /* Each line of the string stands behind our indentation, so that none of them can pass for one of ours. */
        if (!strchr(s, '\n')) {
                out_text(o, STYLE_PLAIN, *s ? s : "\"\"");
                fputc('\n', o->f);
                return;
        }
        fputs("|\n", o->f);
        for (const char *p = s;;) {
                size_t n = strcspn(p, "\n");
                _cleanup_free_ char *line = mem_strndup(p, n);
                put_indent(o, indent);
                fputs("| ", o->f);
                out_text(o, STYLE_PLAIN, line);
                fputc('\n', o->f);
                if (p[n] == '\0' || p[n + 1] == '\0')
                        return;
                p += n + 1;
        }
}

static bool is_compound(json_object *v)
{
        return (json_object_is_type(v, json_type_object) && json_object_object_length(v) > 0) ||
               (json_object_is_type(v, json_type_array) && json_object_array_length(v) > 0);
}

static void put_after_label(struct out *o, unsigned indent, json_object *v)
{
        if (is_compound(v)) {
                fputc('\n', o->f);
                out_value(o, indent + 2, v);
        } else if (json_object_is_type(v, json_type_string)) {
                fputc(' ', o->f);
                put_string(o, indent + 2, json_object_get_string(v));
        } else {
                fputc(' ', o->f);
                fputs(json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN), o->f);
                fputc('\n', o->f);
        }
}

void out_value(struct out *o, unsigned indent, json_object *value)
{
        if (json_object_is_type(value, json_type_object)) {
                json_object_object_foreach (value, key, member) {
                        put_indent(o, indent);
                        out_text(o, STYLE_PLAIN, key);
                        fputc(':', o->f);
                        put_after_label(o, indent, member);
                }
        } else if (json_object_is_type(value, json_type_array)) {
                for (size_t i = 0; i < json_object_array_length(value); i++) {
                        put_indent(o, indent);
                        fputc('-', o->f);
                        put_after_label(o, indent, json_object_array_get_idx(value, i));
                }
        } else {
                put_indent(o, indent);
                put_after_label(o, indent, value);
        }
}

void out_json(struct out *o, json_object *value)
{
        fputs(json_object_to_json_string_ext(value, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE), o->f);
        fputc('\n', o->f);
}

/* -- tables ------------------------------------------------------------------------------------------------------------------ */
struct cell {
        char *text; /* escaped */
        enum style style;
};

struct table {
        size_t n_columns, n_cells;
        struct cell *cells; /* the first row is the headers */
        size_t *widths;
};

struct table *table_new(const char *const *headers, size_t n)
{
        struct table *t = NEW(struct table);

        t->n_columns = n;
        t->widths = mem_alloc(n * sizeof(size_t));
        for (size_t i = 0; i < n; i++)
                table_cell(t, STYLE_DIM, headers[i]);
        return t;
}

void table_cell(struct table *t, enum style style, const char *text)
{
        char *safe = out_escape_again(text && *text ? text : "-");
        size_t column = t->n_cells % t->n_columns;

        t->cells = mem_realloc(t->cells, t->n_cells + 1, sizeof(struct cell));
        t->cells[t->n_cells++] = (struct cell){.text = safe, .style = style};
        t->widths[column] = MAX(t->widths[column], text_width(safe));
}

size_t table_rows(const struct table *t)
{
        return t->n_cells / t->n_columns - 1;
}

void table_print(const struct table *t, struct out *o)
{
        for (size_t i = 0; i < t->n_cells; i++) {
                size_t column = i % t->n_columns;
                const struct cell *c = &t->cells[i];

                begin(o, c->style);
                fputs(c->text, o->f);
                end(o, c->style);
                if (column + 1 < t->n_columns)
                        put_indent(o, (unsigned)(t->widths[column] - text_width(c->text) + 2));
                else
                        fputc('\n', o->f);
        }
}

struct table *table_free(struct table *t)
{
        if (!t)
                return NULL;
        for (size_t i = 0; i < t->n_cells; i++)
                free(t->cells[i].text);
        free(t->cells);
        free(t->widths);
        free(t);
        return NULL;
}

/* -- progress ---------------------------------------------------------------------------------------------------------------- */
static uint64_t now_ms(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void progress_init(struct progress *p, struct out *o)
{
        *p = (struct progress){.o = o, .terminal = isatty(fileno(o->f)), .began_ms = now_ms()};
}

void progress_show(struct progress *p, const char *what, uint64_t current, uint64_t total)
{
        char a[32], b[32];

        if (!p->terminal || now_ms() - p->began_ms < PROGRESS_AFTER_MS)
                return;
        fputs("\r\033[K", p->o->f);
        out_text(p->o, STYLE_DIM, what);
        if (total)
                fprintf(p->o->f, "  %" PRIu64 "%%  %s of %s", MIN(current, total) * 100 / total, out_bytes(a, current),
                        out_bytes(b, total));
        else if (current)
                fprintf(p->o->f, "  %s", out_bytes(a, current));
        fflush(p->o->f);
        p->shown = true;
}

void progress_end(struct progress *p)
{
        if (p->shown) {
                fputs("\r\033[K", p->o->f);
                fflush(p->o->f);
        }
        p->shown = false;
}

const char *out_bytes(char buf[32], uint64_t bytes)
{
        static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
        double v = (double)bytes;
        size_t u = 0;

        for (; v >= 1000 && u + 1 < ELEMENTSOF(units); u++)
                v /= 1000;
        snprintf(buf, 32, u ? "%.1f %s" : "%.0f %s", v, units[u]);
        return buf;
}
