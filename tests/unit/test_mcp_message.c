#include "common/json.h"
#include "common/mcp/message.h"
#include "common/mcp/revision.h"
#include "tests/unit/test.h"

#define CALL "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":"

static int scan(struct mcp_message *m, const char *text, struct err **err)
{
        return mcp_message_scan(m, text, strlen(text), err);
}

#define assert_slice(slice, literal) assert_slice_at(slice, literal, __LINE__)
static void assert_slice_at(struct mcp_slice s, const char *literal, int line)
{
        if (!mcp_is(s, literal))
                print_error("line %d: \"%.*s\" instead of %s\n", line, (int)s.n, s.at ? s.at : "", literal);
        assert_true(mcp_is(s, literal));
}

static void assert_fault(const char *text, enum mcp_fault fault, const char *part)
{
        _cleanup_err_ struct err *err = NULL;
        struct mcp_message m;
        int r = scan(&m, text, &err);

        if (r != (int)fault || !strstr(err_msg(err), part))
                print_error("%.200s: %d %s\n", text, r, err_msg(err));
        assert_int_equal(r, fault);
        assert_non_null(strstr(err_msg(err), part));
}

static void request_is_taken_apart(_unused_ void **state)
{
        _cleanup_err_ struct err *err = NULL;
        static const char text[] =
                " {\"jsonrpc\": \"2.0\", \"params\" : {\"name\":\"echo\" , "
                "\"arguments\":{\"name\":[1,{\"uri\":2}]},\"_meta\":{\"progressToken\":"
                "\"t\",\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"x\":{\"progressToken\":5}}},\"id\":\"a\\u0062\","
                "\"method\":\"tools/call\"}\r\n";
        struct mcp_message m;

        assert_ok(scan(&m, text, &err));
        assert_int_equal(m.kind, MCP_REQUEST);
        assert_slice(m.id, "\"a\\u0062\"");
        assert_slice(m.method, "tools/call");
        assert_slice(m.name, "\"echo\"");
        assert_slice(m.arguments, "{\"name\":[1,{\"uri\":2}]}");
        assert_slice(m.progress_token, "\"t\"");
        assert_slice(m.meta_version, "\"2026-07-28\"");
        assert_false(mcp_has(m.uri));
        assert_null(m.misfit);
        assert_ptr_equal(m.text, text);
}

static void names_written_with_escapes_are_the_same_names(_unused_ void **state)
{
        _cleanup_err_ struct err *err = NULL;
        struct mcp_message m;

        assert_ok(scan(&m, CALL "{\"n\\u0061me\":\"x\"}}", &err));
        assert_slice(m.name, "\"x\"");
        assert_fault(CALL "{\"n\\u0061me\":\"x\",\"name\":\"y\"}}", MCP_FAULT_PARSE, "twice");
}

static void answers_are_told_apart(_unused_ void **state)
{
        _cleanup_err_ struct err *err = NULL;
        struct mcp_message m;

        assert_ok(scan(&m, "{\"id\":-3,\"result\":{\"resultType\":\"complete\",\"nextCursor\":\"c\",\"_meta\":{}},\"jsonrpc\":\"2.0\"}",
                       &err));
        assert_int_equal(m.kind, MCP_RESULT);
        assert_slice(m.id, "-3");
        assert_slice(m.next_cursor, "\"c\"");
        assert_slice(m.meta, "{}");
        assert_ok(scan(&m, "{\"id\":null,\"error\":{\"code\":-32700,\"message\":\"m\",\"data\":[]},\"jsonrpc\":\"2.0\"}", &err));
        assert_int_equal(m.kind, MCP_ERROR);
        assert_false(mcp_has(m.id));
        assert_int_equal(m.error_code, -32700);
        assert_slice(m.error_data, "[]");
        assert_ok(scan(&m, "{\"method\":\"notifications/progress\",\"params\":{\"progressToken\":4},\"jsonrpc\":\"2.0\"}", &err));
        assert_int_equal(m.kind, MCP_NOTIFICATION);
        assert_slice(m.progress_token, "4");
}

static void what_is_no_message_is_invalid(_unused_ void **state)
{
        _cleanup_err_ struct err *err = NULL;
        struct mcp_message m;

        assert_fault("17", MCP_FAULT_INVALID, "not an object");
        assert_fault("[]", MCP_FAULT_BATCH, "batch");
        assert_fault("{\"id\":1,\"method\":\"ping\"}", MCP_FAULT_INVALID, "jsonrpc");
        assert_fault("{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}", MCP_FAULT_INVALID, "\"id\"");
        assert_fault("{\"jsonrpc\":\"2.0\",\"id\":1.0,\"method\":\"ping\"}", MCP_FAULT_INVALID, "\"id\"");
        assert_fault("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pi\\u006eg\"}", MCP_FAULT_INVALID, "\"method\"");
        assert_fault("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\"}", MCP_FAULT_INVALID, "\"method\"");
        assert_fault("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":[]}", MCP_FAULT_INVALID, "\"params\"");
        assert_fault("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"result\":{}}", MCP_FAULT_INVALID, "beside");
        assert_fault("{\"jsonrpc\":\"2.0\",\"id\":1}", MCP_FAULT_INVALID, "exactly one");
        assert_fault("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{},\"error\":{\"code\":1,\"message\":\"\"}}", MCP_FAULT_INVALID,
                     "exactly one");
        assert_fault("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":[]}", MCP_FAULT_INVALID, "\"result\"");
        assert_fault("{\"jsonrpc\":\"2.0\",\"result\":{}}", MCP_FAULT_INVALID, "without \"id\"");
        assert_fault("{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":1.5,\"message\":\"\"}}", MCP_FAULT_INVALID, "\"code\"");
        assert_fault("{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":1}}", MCP_FAULT_INVALID, "\"message\"");
        /* The answer to it can still say which request it was. */
        assert_int_equal(scan(&m, "{\"id\":12,\"method\":\"x\"}", &err), MCP_FAULT_INVALID);
        assert_slice(m.id, "12");
}

static void what_two_readers_could_read_differently_is_refused(_unused_ void **state)
{
        static const char *const bad[][2] = {
                {"", "ends"},
                {"{\"a\":1,\"\\u0061\":2}", "twice"},
                {"{\"\xc3\xa9\":1,\"\\u00E9\":2}", "twice"},
                {"[{\"x\":{\"a\":1,\"b\":2,\"a\":3}}]", "twice"},
                {"\"\\ud800\"", "surrogate"},
                {"\"\\udc00\"", "surrogate"},
                {"\"\\ud800\\u0041\"", "surrogate"},
                {"\"\\u0000\"", "NUL"},
                {"\"\\x\"", "escape"},
                {"\"\\u12g4\"", "hexadecimal"},
                {"\"\xff\"", "UTF-8"},
                {"\"\xc0\x80\"", "UTF-8"},
                {"\"\xed\xa0\x80\"", "UTF-8"},
                {"\"\xf4\x90\x80\x80\"", "UTF-8"},
                {"\"\xe2\x82\"", "UTF-8"},
                {"\"a\tb\"", "control"},
                {"\"abc", "not closed"},
                {"[1", "not closed"},
                {"[1,]", "JSON value"},
                {"{\"a\":1,}", "key"},
                {"{a:1}", "key"},
                {"{\"a\" 1}", "\":\""},
                {"[1 2]", "\",\""},
                {"[1}", "\",\""},
                {"01", "JSON value"},
                {"-", "JSON value"},
                {"+1", "JSON value"},
                {".5", "JSON value"},
                {"1.", "point"},
                {"1e", "exponent"},
                {"1e+", "exponent"},
                {"1e1000", "exponent"},
                {"1e309", "too large"},
                {"-0.1e310", "too large"},
                {"1234567890123456789.5e291", "too large"},
                {"9007199254740993", "2^53"},
                {"-9007199254740993", "2^53"},
                {"10000000000000000", "2^53"},
                {"nul", "JSON value"},
                {"NaN", "JSON value"},
                {"Infinity", "JSON value"},
                {"1 2", "behind"},
                {"\xef\xbb\xbf{}", "JSON value"},
        };
        static const char *const good[] = {"9007199254740992",
                                           "-0",
                                           "1e308",
                                           "1.5e-400",
                                           "0.0000001e308",
                                           "17976931348623157e292",
                                           " [ ] ",
                                           "\"\\ud83d\\ude00\xf0\x9f\x98\x80\\/\\b\"",
                                           "{\"\":1,\"a\":{\"a\":1},\"b\":{\"a\":1}}",
                                           "\t\r\n null\t"};

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_err_ struct err *err = NULL;
                int r = mcp_value_check(bad[i][0], strlen(bad[i][0]), &err);
                if (r != MCP_FAULT_PARSE || !strstr(err_msg(err), bad[i][1]))
                        print_error("%s: %d %s\n", bad[i][0], r, err_msg(err));
                assert_int_equal(r, MCP_FAULT_PARSE);
                assert_non_null(strstr(err_msg(err), bad[i][1]));
        }
        assert_int_equal(mcp_value_check("\"a\0b\"", 5, NULL), MCP_FAULT_PARSE);
        for (size_t i = 0; i < ELEMENTSOF(good); i++) {
                _cleanup_err_ struct err *err = NULL;
                assert_ok(-mcp_value_check(good[i], strlen(good[i]), &err));
        }
}

static void depth_ends(_unused_ void **state)
{
        char text[200];

        memset(text, '[', 100);
        memset(text + 100, ']', 100);
        assert_int_equal(mcp_value_check(text + 36, 128, NULL), 0);
        assert_int_equal(mcp_value_check(text + 35, 130, NULL), MCP_FAULT_LIMIT);
}

static void members_of_another_type_are_named(_unused_ void **state)
{
        _cleanup_err_ struct err *err = NULL;
        struct mcp_message m;

        assert_ok(scan(&m, CALL "{\"cursor\":5,\"name\":{}}}", &err));
        assert_string_equal(m.misfit, "cursor");
        assert_false(mcp_has(m.cursor) || mcp_has(m.name));
}

static struct buf many_keys(size_t n, const char *last)
{
        struct buf b = {0};

        buf_addc(&b, '{');
        for (size_t i = 0; i < n; i++)
                buf_addf(&b, "\"k%zu\":{},", i);
        buf_addf(&b, "\"%s\":{}}", last);
        return b;
}

static void large_objects_have_no_key_twice(_unused_ void **state)
{
        static const size_t sizes[] = {1, 15, 16, 17, 31, 32, 33, 1000, 100000};

        for (size_t i = 0; i < ELEMENTSOF(sizes); i++) {
                _cleanup_buf_ struct buf fine = many_keys(sizes[i], "k"), twice = many_keys(sizes[i], "k0"),
                                         escaped = many_keys(sizes[i], "\\u006b0");
                assert_int_equal(mcp_value_check(fine.data, fine.len, NULL), 0);
                assert_int_equal(mcp_value_check(twice.data, twice.len, NULL), MCP_FAULT_PARSE);
                assert_int_equal(mcp_value_check(escaped.data, escaped.len, NULL), MCP_FAULT_PARSE);
        }
        _cleanup_buf_ struct buf over = many_keys(1U << 20, "x");
        assert_int_equal(mcp_value_check(over.data, over.len, NULL), MCP_FAULT_LIMIT);
}

/* Every length and place within the blocks that are read at once. */
static void strings_end_where_they_end(_unused_ void **state)
{
        for (size_t n = 0; n < 70; n++) {
                for (size_t at = 0; at < n; at++) {
                        char text[80];

                        memset(text, 'x', sizeof(text));
                        text[0] = text[n + 1] = '"';
                        assert_int_equal(mcp_value_check(text, n + 2, NULL), 0);
                        text[at + 1] = '\x1f';
                        assert_int_equal(mcp_value_check(text, n + 2, NULL), MCP_FAULT_PARSE);
                        text[at + 1] = '\x80';
                        assert_int_equal(mcp_value_check(text, n + 2, NULL), MCP_FAULT_PARSE);
                        text[at + 1] = '\x7f';
                        assert_int_equal(mcp_value_check(text, n + 2, NULL), 0);
                        text[at + 1] = '"';
                        assert_int_equal(mcp_value_check(text, n + 2, NULL), MCP_FAULT_PARSE);
                }
        }
}

static void walking(_unused_ void **state)
{
        struct mcp_slice object = mcp_slice_of("{ \"a\" : [1, \"]}\\\"\" ,{}] ,\"b\\u0062\":\"x\" , \"c\":-1.5e3}"), key, value, item;
        struct mcp_slice array = mcp_object_get(object, "a");
        size_t pos = 0, n = 0;

        while (mcp_object_next(object, &pos, &key, &value))
                n++;
        assert_int_equal(n, 3);
        assert_slice(key, "c");
        assert_slice(value, "-1.5e3");
        assert_slice(mcp_object_get(object, "bb"), "\"x\"");
        assert_false(mcp_has(mcp_object_get(object, "b")));
        /* A name is no JSON text: its backslash is one. */
        assert_slice(mcp_object_get(mcp_slice_of("{\"a\\\\n\":1}"), "a\\n"), "1");
        assert_false(mcp_has(mcp_object_get(mcp_slice_of("{\"a\\n\":1}"), "a\\n")));
        pos = n = 0;
        while (mcp_array_next(array, &pos, &item))
                if (n++ == 1)
                        assert_slice(item, "\"]}\\\"\"");
        assert_int_equal(n, 3);
        pos = 0;
        assert_int_equal(mcp_object_next(mcp_slice_of("{ }"), &pos, &key, &value), 0);
        assert_int_equal(mcp_array_next(mcp_slice_of("[ ]"), &pos, &value), 0);
        assert_int_equal(mcp_array_next((struct mcp_slice){0}, &pos, &value), 0);
        assert_int_equal(mcp_batch_next(&item, " {}", 3, &pos), -1);
        assert_int_equal(mcp_batch_next(&item, " [7] ", 5, &pos), 1);
        assert_slice(item, "7");
        assert_int_equal(mcp_batch_next(&item, " [7] ", 5, &pos), 0);
}

static void strings_come_and_go(_unused_ void **state)
{
        _cleanup_free_ char *s = mcp_string(mcp_slice_of("\"a\\n\\u00e9\\ud83d\\ude00\\\\\xe2\x82\xac\"")),
                            *none = mcp_string(mcp_slice_of("5"));
        _cleanup_buf_ struct buf b = {0};
        static const char raw[] = "a\"b\\c\n\x01\x7f\xc3\xa9 long enough for more than one block of sixteen bytes";

        assert_string_equal(s, "a\n\xc3\xa9\xf0\x9f\x98\x80\\\xe2\x82\xac");
        assert_null(none);
        mcp_add_string(&b, raw, strlen(raw));
        assert_int_equal(mcp_value_check(b.data, b.len, NULL), 0);
        _cleanup_free_ char *back = mcp_string((struct mcp_slice){b.data, b.len});
        assert_string_equal(back, raw);
}

static void assert_set(const char *object, const char *name, const char *value, const char *want)
{
        _cleanup_buf_ struct buf b = {0};

        mcp_object_set(&b, mcp_slice_of(object), name, mcp_slice_of(value));
        assert_string_equal(b.data, want);
}

static void members_are_set_and_removed(_unused_ void **state)
{
        assert_set("{\"a\":1, \"b\":2}", "b", "[3]", "{\"a\":1, \"b\":[3]}");
        assert_set("{\"\\u0061\":1}", "a", "2", "{\"\\u0061\":2}");
        assert_set("{\"a\":1 }", "c", "2", "{\"a\":1,\"c\":2 }");
        assert_set("{ }", "c", "2", "{\"c\":2 }");
        assert_set(NULL, "c", "2", "{\"c\":2}");
        assert_set(NULL, "c", NULL, "{}");
        assert_set("{\"a\":1, \"b\":2, \"c\":3}", "a", NULL, "{\"b\":2, \"c\":3}");
        assert_set("{\"a\":1, \"b\":2, \"c\":3}", "b", NULL, "{\"a\":1, \"c\":3}");
        assert_set("{\"a\":1, \"b\":2, \"c\":3}", "c", NULL, "{\"a\":1, \"b\":2}");
        assert_set("{ \"a\":1 }", "a", NULL, "{  }");
        assert_set("{\"a\":1}", "z", NULL, "{\"a\":1}");
}

static void edits_are_done_in_one_go(_unused_ void **state)
{
        struct mcp_slice text = mcp_slice_of("0123456789");
        struct mcp_edit edits[] = {{{text.at, 0}, mcp_slice_of("<")},
                                   {{text.at + 2, 3}, mcp_slice_of("x")},
                                   {{text.at + 5, 1}, {0}},
                                   {{text.at + 10, 0}, mcp_slice_of(">")}};
        _cleanup_buf_ struct buf b = {0};

        mcp_edit_add(&b, text, edits, ELEMENTSOF(edits));
        assert_string_equal(b.data, "<01x6789>");
}

static void revisions_and_methods(_unused_ void **state)
{
        assert_int_equal(mcp_revision_find(mcp_slice_of("2025-11-25")), MCP_2025_11_25);
        assert_int_equal(mcp_revision_find(mcp_slice_of("2025-11-26")), -1);
        for (int r = 0; r < MCP_N_REVISIONS; r++)
                assert_int_equal(mcp_revision_find(mcp_slice_of(mcp_revision_name((enum mcp_revision)r))), r);
        for (int m = 1; m < MCP_N_METHODS; m++)
                assert_int_equal(mcp_method_find(mcp_slice_of(mcp_method_name((enum mcp_method)m))), m);
        assert_int_equal(mcp_method_find(mcp_slice_of("tools/Call")), MCP_M_UNKNOWN);
        assert_true(mcp_method_in_era(MCP_M_PING, MCP_ERA_LEGACY));
        assert_false(mcp_method_in_era(MCP_M_PING, MCP_ERA_MODERN));
        assert_false(mcp_method_in_era(MCP_M_TOOLS_CALL, MCP_ERA_UNKNOWN));
        assert_true(mcp_method_is_cacheable(MCP_M_RESOURCES_READ) && mcp_method_may_ask(MCP_M_RESOURCES_READ));
        assert_string_equal(mcp_method_name_key(MCP_M_RESOURCES_READ), "uri");
        assert_null(mcp_method_name_key(MCP_M_TOOLS_LIST));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(request_is_taken_apart),
                cmocka_unit_test(names_written_with_escapes_are_the_same_names),
                cmocka_unit_test(answers_are_told_apart),
                cmocka_unit_test(what_is_no_message_is_invalid),
                cmocka_unit_test(what_two_readers_could_read_differently_is_refused),
                cmocka_unit_test(depth_ends),
                cmocka_unit_test(members_of_another_type_are_named),
                cmocka_unit_test(large_objects_have_no_key_twice),
                cmocka_unit_test(strings_end_where_they_end),
                cmocka_unit_test(walking),
                cmocka_unit_test(strings_come_and_go),
                cmocka_unit_test(members_are_set_and_removed),
                cmocka_unit_test(edits_are_done_in_one_go),
                cmocka_unit_test(revisions_and_methods),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
