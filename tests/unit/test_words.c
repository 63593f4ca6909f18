/* The search for tools: over what real servers say of theirs, with queries that people would write and the tool each is after. */
#include <time.h>

#include "broker/agents/words.h"
#include "common/file.h"
#include "common/json.h"
#include "tests/unit/test.h"

#define MAX_TOOLS 1000U

struct shelf {
        struct words words[MAX_TOOLS];
        const struct words *all[MAX_TOOLS];
        char *names[MAX_TOOLS];
        size_t n;
};

static json_object *data(const char *name)
{
        const char *top = getenv("top_srcdir");
        _cleanup_free_ char *path = mem_printf("%s/tests/unit/data/%s", top ? top : ".", name), *text = NULL;
        _cleanup_err_ struct err *err = NULL;
        json_object *o = NULL;
        size_t n;

        assert_ok(file_read(&text, &n, path, 1U << 20, FILE_ANY, &err));
        assert_ok(json_parse(&o, text, n, path, NULL, &err));
        return o;
}

static void add(struct shelf *s, const char *server, json_object *tool)
{
        const char *schema = json_object_to_json_string_ext(json_get(tool, "inputSchema"), JSON_C_TO_STRING_PLAIN);

        s->all[s->n] = &s->words[s->n];
        words_init(&s->words[s->n], server, json_str(tool, "name"), json_str(tool, "description"), mcp_slice_of(schema));
        s->names[s->n++] = mem_printf("%s:%s", server, json_str(tool, "name"));
}

static struct shelf *fill(void)
{
        struct shelf *s = NEW(struct shelf);
        _cleanup_json_ json_object *servers = data("tools_npm.json");

        json_object_object_foreach (servers, server, tools)
                for (size_t i = 0; i < json_object_array_length(tools); i++)
                        add(s, server, json_object_array_get_idx(tools, i));
        return s;
}

static void empty(struct shelf *s)
{
        for (size_t i = 0; i < s->n; i++) {
                words_deinit(&s->words[i]);
                free(s->names[i]);
        }
        free(s);
}

/* The right tool among the first three, for nine queries of ten. */
static void finds_what_is_meant(_unused_ void **state)
{
        struct shelf *s = fill();
        _cleanup_json_ json_object *queries = data("tool_queries.json");
        size_t n = json_object_array_length(queries), hits = 0, first = 0;

        for (size_t i = 0; i < n; i++) {
                json_object *pair = json_object_array_get_idx(queries, i);
                const char *query = json_object_get_string(json_object_array_get_idx(pair, 0));
                const char *want = json_object_get_string(json_object_array_get_idx(pair, 1));
                struct words_hit found[3];
                size_t k = words_search(found, 3, s->all, s->n, query);
                bool hit = false;

                for (size_t f = 0; f < k; f++)
                        hit |= str_eq(s->names[found[f].place], want);
                first += k > 0 && str_eq(s->names[found[0].place], want);
                if (!hit)
                        print_message("missed: \"%s\" should find %s, and found %s\n", query, want,
                                      k ? s->names[found[0].place] : "nothing");
                hits += hit;
        }
        print_message("%zu of %zu among the first three, %zu at the top\n", hits, n, first);
        assert_true(hits * 10 >= n * 9);
        empty(s);
}

static void is_bounded_and_stable(_unused_ void **state)
{
        struct shelf *s = fill();
        struct words_hit found[25], again[25];
        _cleanup_free_ char *many = mem_alloc(20001);

        for (size_t i = 0; i < 10000; i++)
                memcpy(many + 2 * i, "a ", 2);
        assert_int_equal(words_search(found, 3, s->all, s->n, ""), 0);
        assert_int_equal(words_search(found, 3, s->all, s->n, "zzzzqqq"), 0);
        assert_int_equal(words_search(found, 3, s->all, 0, "file"), 0);
        assert_int_equal(words_search(found, 0, s->all, s->n, "file"), 0);
        assert_int_equal(words_search(found, 3, s->all, s->n, many), 0);
        size_t n = words_search(found, 25, s->all, s->n, "\xff\xc3 file READ_file readFile");
        assert_in_range(n, 3, 25);
        assert_int_equal(words_search(again, 25, s->all, s->n, "\xff\xc3 file READ_file readFile"), n);
        for (size_t i = 0; i < n; i++) {
                assert_int_equal(found[i].place, again[i].place);
                assert_true(i == 0 || found[i - 1].score >= found[i].score);
        }
        empty(s);
}

static int by_time(const void *a, const void *b)
{
        double x = *(const double *)a, y = *(const double *)b;

        return (x > y) - (x < y);
}

static void thousand_tools(_unused_ void **state)
{
        struct shelf *s = fill();
        _cleanup_json_ json_object *servers = data("tools_npm.json");
        double took[200];

        while (s->n < MAX_TOOLS) {
                json_object *tools = json_get(servers, s->n % 2 ? "filesystem" : "memory");
                add(s, "copy", json_object_array_get_idx(tools, s->n % json_object_array_length(tools)));
        }
        for (size_t i = 0; i < ELEMENTSOF(took); i++) {
                struct words_hit found[25];
                struct timespec a, b;

                clock_gettime(CLOCK_MONOTONIC, &a);
                assert_int_equal(words_search(found, 25, s->all, s->n, "read the contents of a text file"), 25);
                clock_gettime(CLOCK_MONOTONIC, &b);
                took[i] = (double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3;
        }
        qsort(took, ELEMENTSOF(took), sizeof(double), by_time);
        print_message("1,000 tools: %.0f us median, %.0f us p99\n", took[100], took[197]);
        assert_true(took[100] < 5000); /* on any machine, also under a sanitizer */
        empty(s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(finds_what_is_meant),
                cmocka_unit_test(is_bounded_and_stable),
                cmocka_unit_test(thousand_tools),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
