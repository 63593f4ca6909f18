/* Drift, judged on what a real Engine showed: nothing of it is drift, and every change to it is. */
#include "tests/unit/spec_fixture.h"

static char *drift_text(const struct fixture *f)
{
        _cleanup_strv_ char **reasons = spec_drift(f->spec, &f->host, f->inspect);

        return reasons ? strv_join(reasons, "\n") : NULL;
}

/* Puts value (handed over) at section.key, and back again after looking: the whole text of the reasons (owned), NULL = no drift. */
static char *drift_with(struct fixture *f, json_object *section, const char *key, json_object *value)
{
        json_object *before = json_object_get(json_get(section, key));
        bool there = json_object_object_get_ex(section, key, NULL);

        json_add(section, key, value);
        char *text = drift_text(f);
        if (there)
                json_add(section, key, before);
        else
                json_object_object_del(section, key);
        return text;
}

static void expect_drift(struct fixture *f, json_object *section, const char *key, json_object *value, const char *part)
{
        _cleanup_free_ char *shown = mem_strdup(value ? json_object_to_json_string(value) : "null"),
                            *text = drift_with(f, section, key, value);

        if (!text || !strstr(text, part))
                print_error("%s := %s\nexpected %s in: %s\n", key, shown, part, text ? text : "(no drift)");
        assert_non_null(text);
        assert_non_null(strstr(text, part));
}

static void expect_none(struct fixture *f, json_object *section, const char *key, json_object *value)
{
        _cleanup_free_ char *text = drift_with(f, section, key, value);

        if (text)
                print_error("%s: %s\n", key, text);
        assert_null(text);
}

static json_object *copy_of(json_object *v)
{
        json_object *copy = NULL;

        assert_int_equal(json_object_deep_copy(v, &copy, NULL), 0);
        return copy;
}

#define SPOILT_MAX 64
static size_t spoil(json_object *v, json_object **out);

/* One more, none, one fewer, and each one spoilt. */
static size_t spoil_array(json_object *v, json_object **out)
{
        size_t made = 0, n = json_object_array_length(v);

        out[made] = copy_of(v);
        json_object_array_add(out[made++], json_object_new_string("x"));
        if (n)
                out[made++] = json_object_new_array();
        if (n > 1) {
                out[made] = copy_of(v);
                assert_int_equal(json_object_array_del_idx(out[made++], n - 1, 1), 0);
        }
        for (size_t i = 0; i < n; i++) {
                json_object *sub[SPOILT_MAX];
                size_t k = spoil(json_object_array_get_idx(v, i), sub);

                for (size_t s = 0; s < k; s++) {
                        assert_true(made < SPOILT_MAX);
                        out[made] = copy_of(v);
                        json_object_array_put_idx(out[made++], i, sub[s]);
                }
        }
        return made;
}

static size_t spoil_object(json_object *v, json_object **out)
{
        size_t made = 0;

        out[made] = copy_of(v);
        json_add_str(out[made++], "bh-x", "y");
        json_object_object_foreach (v, key, member) {
                json_object *sub[SPOILT_MAX];
                size_t k = spoil(member, sub);

                for (size_t s = 0; s < k; s++) {
                        assert_true(made < SPOILT_MAX);
                        out[made] = copy_of(v);
                        json_add(out[made++], key, sub[s]);
                }
        }
        return made;
}

static size_t spoil_string(json_object *v, json_object **out)
{
        _cleanup_free_ char *longer = mem_printf("%sx", json_object_get_string(v));
        size_t made = 0;

        out[made++] = json_object_new_string(longer);
        if (json_object_get_string_len(v))
                out[made++] = json_object_new_string("");
        return made;
}

/* Every way to spoil a value that keeps it JSON. Owned values, at most SPOILT_MAX; how many. */
static size_t spoil(json_object *v, json_object **out)
{
        switch (json_object_get_type(v)) {
        case json_type_null:
                out[0] = json_object_new_int(7);
                out[1] = json_object_new_string("x");
                out[2] = fixture_value("[\"x\"]");
                return 3;
        case json_type_boolean:
                out[0] = json_object_new_boolean(!json_object_get_boolean(v));
                return 1;
        case json_type_int:
                out[0] = json_object_new_int64(json_object_get_int64(v) + 1);
                return 1;
        case json_type_string:
                return spoil_string(v, out);
        case json_type_array:
                return spoil_array(v, out);
        case json_type_object:
                return spoil_object(v, out);
        default:
                fail_msg("a value of an inspect that this test cannot spoil");
                return 0;
        }
}

static void spoil_all(struct fixture *f, const char *section_name, const char *const *left_out)
{
        json_object *section = json_get(f->inspect, section_name);
        _cleanup_strv_ char **keys = NULL;

        json_object_object_foreach (section, name, ignored) {
                (void)ignored;
                bool skip = false;
                for (const char *const *l = left_out; *l; l++)
                        skip |= strcmp(*l, name) == 0;
                if (!skip)
                        keys = strv_append(keys, name);
        }
        for (char **key = keys; *key; key++) {
                json_object *spoilt[SPOILT_MAX];
                size_t n = spoil(json_get(section, *key), spoilt);
                _cleanup_free_ char *where = mem_printf("%s.%s", section_name, *key);
                for (size_t i = 0; i < n; i++)
                        expect_drift(f, section, *key, spoilt[i], where);
        }
}

/* -- no drift ------------------------------------------------------------------------------------------------------------- */

static void the_real_container_is_right(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture f;

        fixture_init(&f);
        _cleanup_free_ char *known = drift_text(&f);
        assert_null(known);
        f.host.image = NULL;
        _cleanup_free_ char *unknown = drift_text(&f);
        assert_null(unknown);
        f.host.approval = NULL;
        _cleanup_free_ char *unjudged = drift_text(&f);
        assert_null(unjudged);
}

static void harmless_differences_are_no_drift(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture f;
        static const char *const defaults[] = {"null", "false", "0", "\"\"", "[]", "{}"};

        fixture_init(&f);
        json_object *h = json_get(f.inspect, "HostConfig"), *c = json_get(f.inspect, "Config");
        for (size_t i = 0; i < ELEMENTSOF(defaults); i++) {
                expect_none(&f, h, "FieldOfTheFuture", fixture_value(defaults[i]));
                expect_none(&f, c, "FieldOfTheFuture", fixture_value(defaults[i]));
        }
        expect_none(&f, h, "Binds", NULL);
        expect_none(&f, h, "CapAdd", NULL);
        expect_none(&f, h, "OomKillDisable", NULL);
        expect_none(&f, h, "Runtime", json_object_new_string("crun"));
        expect_none(&f, h, "MaskedPaths", NULL);
        expect_none(&f, h, "Ulimits",
                    fixture_value("[{\"Name\":\"core\",\"Soft\":0,\"Hard\":0},{\"Name\":\"nofile\",\"Hard\":4096,\"Soft\":1024}]"));
        json_object *masked = NULL;
        json_object_deep_copy(json_get(h, "MaskedPaths"), &masked, NULL);
        json_object_array_add(masked, json_object_new_string("/proc/interrupts"));
        expect_none(&f, h, "MaskedPaths", masked);
        expect_none(&f, f.inspect, "AppArmorProfile", json_object_new_string("docker-default"));
        expect_none(&f, c, "Labels", ({
                json_object *l = NULL;
                json_object_deep_copy(json_get(c, "Labels"), &l, NULL);
                json_add_str(l, "maintainer", "somebody");
                l;
        }));
        f.host.no_swap_limit = true;
        expect_none(&f, h, "MemorySwap", json_object_new_int(-1));
        f.host.no_swap_limit = false;
        expect_drift(&f, h, "MemorySwap", json_object_new_int(-1), "HostConfig.MemorySwap: is -1, approved 268435456");
}

/* -- drift ---------------------------------------------------------------------------------------------------------------- */

static void every_field_of_host_config_is_judged(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture f;
        static const char *const left_out[] = {"MaskedPaths", "ReadonlyPaths", "ConsoleSize", NULL}; /* below */

        fixture_init(&f);
        spoil_all(&f, "HostConfig", left_out);
        json_object *h = json_get(f.inspect, "HostConfig");
        expect_drift(&f, h, "MaskedPaths", json_object_new_array(), "HostConfig.MaskedPaths: is without it, approved /proc/kcore");
        expect_drift(&f, h, "MaskedPaths", json_object_new_string("x"), "HostConfig.MaskedPaths");
        expect_drift(&f, h, "ReadonlyPaths", json_object_new_array(), "HostConfig.ReadonlyPaths: is without it, approved /proc/sys");
        expect_drift(&f, h, "ConsoleSize", fixture_value("[24,80]"), "HostConfig.ConsoleSize");
        expect_drift(&f, h, "ConsoleSize", json_object_new_int(1), "HostConfig.ConsoleSize");
        expect_drift(&f, h, "ReadonlyPaths", fixture_value("[\"/proc/bus\", 5]"), "HostConfig.ReadonlyPaths");
}

static void every_field_of_config_is_judged(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture f;
        static const char *const left_out[] = {"OnBuild", "Labels", "Env", NULL}; /* without effect; and below */

        fixture_init(&f);
        spoil_all(&f, "Config", left_out);
        json_object *c = json_get(f.inspect, "Config");
        expect_drift(&f, c, "MacAddress", json_object_new_string("02:42:ac:11:00:02"), "Config.MacAddress");
        expect_drift(&f, c, "NetworkDisabled", json_object_new_boolean(true), "Config.NetworkDisabled");
        expect_drift(&f, c, "Healthcheck", NULL, "Config.Healthcheck: is not set");
        expect_drift(&f, c, "StopSignal", json_object_new_string("SIGKILL"), "Config.StopSignal");
}

static void unknown_fields_are_drift(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture f;
        static const char *const values[] = {"true", "1", "-1", "0.5", "\"x\"", "[0]", "{\"a\":null}"};

        fixture_init(&f);
        json_object *h = json_get(f.inspect, "HostConfig");
        for (size_t i = 0; i < ELEMENTSOF(values); i++)
                expect_drift(&f, h, "FieldOfTheFuture", fixture_value(values[i]), "HostConfig.FieldOfTheFuture");
        expect_drift(&f, json_get(f.inspect, "Config"), "FieldOfTheFuture", json_object_new_int(1), "Config.FieldOfTheFuture");
}

static void missing_fields_are_drift(_unused_ void **state)
{
        static const char *const fields[] = {
                "ReadonlyRootfs", "CapDrop",       "SecurityOpt", "Memory",      "MemorySwap",   "NanoCpus",  "PidsLimit",
                "Ulimits",        "Tmpfs",         "ShmSize",     "IpcMode",     "CgroupnsMode", "Dns",       "Sysctls",
                "LogConfig",      "RestartPolicy", "Init",        "OomScoreAdj", "NetworkMode",  "DnsSearch", "Mounts"};

        for (size_t i = 0; i < ELEMENTSOF(fields); i++) {
                _cleanup_fixture_ struct fixture f;
                fixture_init(&f);
                json_object_object_del(json_get(f.inspect, "HostConfig"), fields[i]);
                _cleanup_free_ char *text = drift_text(&f);
                assert_non_null(text);
                assert_non_null(strstr(text, fields[i]));
        }
}

static void environment_is_judged(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture f;

        fixture_init(&f);
        json_object *c = json_get(f.inspect, "Config");
        expect_drift(&f, c, "Env", fixture_value("[\"LOG=debug\",\"TOKEN=abc\",\"FOO=bar\"]"), "Config.Env.LOG: is another value");
        expect_drift(&f, c, "Env", fixture_value("[\"TOKEN=abc\",\"FOO=bar\"]"), "Config.Env.LOG: is not set");
        expect_drift(&f, c, "Env", fixture_value("[\"LOG=info\",\"FOO=bar\"]"), "Config.Env.TOKEN: is not set");
        expect_drift(&f, c, "Env", fixture_value("[\"LOG=info\",\"LOG=info\",\"TOKEN=abc\",\"FOO=bar\"]"),
                     "Config.Env.LOG: is set more than once");
        expect_drift(&f, c, "Env", fixture_value("[\"LOG=info\",\"TOKEN=abc\",\"FOO=baz\"]"),
                     "Config.Env.FOO: is another value, approved the image's");
        expect_drift(&f, c, "Env", fixture_value("[\"LOG=info\",\"TOKEN=abc\"]"), "Config.Env.FOO: is not set");
        expect_drift(&f, c, "Env", fixture_value("[\"LOG=info\",\"TOKEN=abc\",\"FOO=bar\",\"LD_PRELOAD=/x\"]"),
                     "Config.Env.LD_PRELOAD: is set");
        expect_drift(&f, c, "Env", fixture_value("[\"LOGX=info\",\"TOKEN=abc\",\"FOO=bar\"]"), "Config.Env.LOG: is not set");
        expect_drift(&f, c, "Env", NULL, "Config.Env.LOG: is not set");
        expect_drift(&f, c, "Env", json_object_new_string("LOG=info"), "Config.Env: is not a list");
        expect_none(
                &f, c, "Env",
                fixture_value(
                        "[\"LOG=info\",\"TOKEN=abc\",\"FOO=bar\",\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"]"));
        json_object_object_del(c, "Env");
        _cleanup_free_ char *absent = drift_text(&f);
        assert_non_null(strstr(absent, "Config.Env.TOKEN: is not set"));
        /* A secret's value must never be in a reason. */
        json_add(c, "Env", fixture_value("[\"LOG=hunter2\",\"TOKEN=hunter2\",\"TOKEN=hunter2\",\"X=hunter2\"]"));
        _cleanup_free_ char *text = drift_text(&f);
        assert_null(strstr(text, "hunter2"));
        assert_null(strstr(text, "another-value"));
}

static void labels_are_judged(_unused_ void **state)
{
        static const char *const names[] = {"owner", "server", "scope", "spec", "approval", "role"};
        _cleanup_fixture_ struct fixture f;

        fixture_init(&f);
        json_object *l = json_path(f.inspect, "Config", "Labels", NULL);
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                _cleanup_free_ char *key = mem_printf("io.bulkhead.%s", names[i]);
                expect_drift(&f, l, key, json_object_new_string("x"), key);
                expect_drift(&f, l, key, NULL, key);
        }
        expect_drift(&f, l, "io.bulkhead.extra", json_object_new_string("x"), "Config.Labels.io.bulkhead.extra");
        f.host.approval = NULL;
        expect_none(&f, l, "io.bulkhead.approval", json_object_new_string("f-ffffffffffffffff"));
}

static void network_is_judged(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture f;

        fixture_init(&f);
        json_object *networks = json_path(f.inspect, "NetworkSettings", "Networks", NULL), *ours = json_get(networks, "bh-bb");
        expect_drift(&f, networks, "other", json_object_new_object(), "NetworkSettings.Networks: is other, approved bh-bb");
        expect_drift(&f, json_get(f.inspect, "NetworkSettings"), "Networks", json_object_new_object(),
                     "NetworkSettings.Networks: is none, approved bh-bb");
        expect_drift(&f, json_get(f.inspect, "NetworkSettings"), "Networks", fixture_value("{\"other\":{}}"),
                     "NetworkSettings.Networks: is without it");
        expect_drift(&f, ours, "IPAddress", json_object_new_string("10.213.0.11"), "is 10.213.0.11, approved 10.213.0.10");
        expect_none(&f, ours, "IPAddress", json_object_new_string(""));
        expect_drift(&f, ours, "IPAMConfig", NULL, "IPv4Address: is not set");
        expect_drift(&f, ours, "IPAMConfig", fixture_value("{\"IPv4Address\":\"10.213.0.11\"}"), "IPv4Address: is 10.213.0.11");
        expect_drift(&f, ours, "IPAMConfig", fixture_value("{\"IPv4Address\":\"10.213.0.10\",\"IPv6Address\":\"2001:db8::1\"}"),
                     "IPAMConfig");
        expect_drift(&f, ours, "GlobalIPv6Address", json_object_new_string("2001:db8::1"), "GlobalIPv6Address");
        expect_drift(&f, ours, "DriverOpts", fixture_value("{\"a\":\"b\"}"), "DriverOpts");
        expect_drift(&f, ours, "Links", fixture_value("[\"a\"]"), "Links");
}

static void identity_and_mounts_are_judged(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture f;

        fixture_init(&f);
        expect_drift(&f, f.inspect, "Image", json_object_new_string(IMAGE_DIGEST), "Image: is " IMAGE_DIGEST ", approved " IMAGE_ID);
        expect_drift(&f, f.inspect, "Image", NULL, "Image: is not set");
        expect_drift(&f, f.inspect, "Name", json_object_new_string("/bb"), "Name: is /bb, approved bb-");
        expect_drift(&f, f.inspect, "AppArmorProfile", json_object_new_string("unconfined"), "AppArmorProfile");
        expect_drift(&f, f.inspect, "Mounts", json_object_new_array(), "Mounts");
        expect_drift(&f, f.inspect, "Mounts", NULL, "Mounts");
        json_object *mount = json_object_array_get_idx(json_get(f.inspect, "Mounts"), 0);
        expect_drift(&f, mount, "RW", json_object_new_boolean(true), "Mounts");
        expect_drift(&f, mount, "Source", json_object_new_string("/"), "Mounts");
        expect_drift(&f, mount, "Destination", json_object_new_string("/x"), "Mounts");
        expect_drift(&f, mount, "Propagation", json_object_new_string("rshared"), "Mounts");
        expect_drift(&f, mount, "Type", json_object_new_string("volume"), "Mounts");
        json_object *more = NULL;
        json_object_deep_copy(json_get(f.inspect, "Mounts"), &more, NULL);
        json_object_array_add(more, fixture_value("{\"Type\":\"tmpfs\",\"Destination\":\"/data\",\"RW\":true}"));
        expect_none(&f, f.inspect, "Mounts", json_object_get(more));
        json_object_array_add(more, fixture_value("{\"Type\":\"volume\",\"Name\":\"v\",\"Destination\":\"/data\",\"RW\":true}"));
        expect_drift(&f, f.inspect, "Mounts", more, "Mounts");
}

static void other_specs_are_drift(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture f;

        fixture_init(&f);
        spec_free(f.spec);
        f.spec = fixture_spec(ENTRY_HTTP, f.facts);
        _cleanup_free_ char *text = drift_text(&f);
        assert_non_null(strstr(text, "Config.OpenStdin: is true, approved false"));
        assert_non_null(strstr(text, "HostConfig.LogConfig"));
        assert_non_null(strstr(text, "io.bulkhead.spec"));
}

static void garbage_is_drift(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture f;
        static const char *const answers[] = {
                "null", "[]", "{}", "{\"HostConfig\":[],\"Config\":5,\"NetworkSettings\":\"x\",\"Mounts\":{}}",
                "{\"HostConfig\":{\"LogConfig\":5,\"Mounts\":7},\"Config\":{\"Labels\":[],\"Env\":{},\"Volumes\":[1]},\"Image\":5}"};

        fixture_init(&f);
        for (size_t i = 0; i < ELEMENTSOF(answers); i++) {
                _cleanup_json_ json_object *o = fixture_value(answers[i]);
                _cleanup_strv_ char **reasons = spec_drift(f.spec, &f.host, o);
                assert_non_null(reasons);
        }
        /* Foreign text does not reach a terminal, and a long value does not fill it. */
        json_object *h = json_get(f.inspect, "HostConfig");
        expect_drift(&f, h, "\x1b[31mX", json_object_new_string("\xe2\x80\xae"), "HostConfig.\\x1b[31mX: is \"\\u{202e}\"");
        _cleanup_free_ char *longer = mem_printf("%0*d", 5000, 1), *text = drift_with(&f, h, "IpcMode", json_object_new_string(longer));
        assert_true(strlen(text) < 400);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_real_container_is_right),
                cmocka_unit_test(harmless_differences_are_no_drift),
                cmocka_unit_test(every_field_of_host_config_is_judged),
                cmocka_unit_test(every_field_of_config_is_judged),
                cmocka_unit_test(unknown_fields_are_drift),
                cmocka_unit_test(missing_fields_are_drift),
                cmocka_unit_test(environment_is_judged),
                cmocka_unit_test(labels_are_judged),
                cmocka_unit_test(network_is_judged),
                cmocka_unit_test(identity_and_mounts_are_judged),
                cmocka_unit_test(other_specs_are_drift),
                cmocka_unit_test(garbage_is_drift),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
