#include "common/smoke/smoke_internal.h"
#include "common/text.h"

struct smoke_result *smoke_result_failed(char *why)
{
        struct smoke_result *r = NEW(struct smoke_result);

        r->why = why;
        return r;
}

struct smoke_result *smoke_result_free(struct smoke_result *r)
{
        if (!r)
                return NULL;
        free(r->why);
        free(r->protocol);
        free(r->manifest);
        strv_free(r->tools);
        free(r->stderr_tail);
        free(r);
        return NULL;
}

json_object *smoke_result_to_json(const struct smoke_result *r)
{
        json_object *o = json_object_new_object();
        char at[TEXT_TIME_MAX];

        json_add_bool(o, "passed", r->passed);
        json_add_str(o, "why", r->why);
        json_add_str(o, "protocol", r->protocol);
        json_add_int(o, "duration_ms", (int64_t)r->duration_ms);
        json_add_str(o, "at", text_format_time(at, r->at));
        json_add(o, "tools", json_from_strv(r->tools));
        json_add_str(o, "manifest_sha256", r->manifest ? r->manifest_sha256 : NULL);
        json_add_str(o, "manifest", r->manifest);
        json_add_str(o, "stderr_tail", r->stderr_tail);
        return o;
}

static int take_manifest(struct smoke_result *r, json_object *o, struct err **err)
{
        const char *claimed = json_str(o, "manifest_sha256");

        r->manifest = mem_strdup(json_str(o, "manifest"));
        if (!r->manifest)
                return r->passed ? err_set(err, ERR_INVALID, "smoke result: passed, but without \"manifest\"") : 0;
        r->manifest_len = strlen(r->manifest);
        sha256_hex(r->manifest_sha256, r->manifest, r->manifest_len);
        if (!str_eq(claimed, r->manifest_sha256))
                return err_set(err, ERR_INVALID, "smoke result: \"manifest_sha256\" is not the hash of \"manifest\"");
        return 0;
}

int smoke_result_from_json(struct smoke_result **ret, json_object *o, struct err **err)
{
        _cleanup_(smoke_result_freep) struct smoke_result *r = NEW(struct smoke_result);
        const char *at = json_str(o, "at");
        int64_t duration = json_int(o, "duration_ms", -1);

        if (!json_object_is_type(json_get(o, "passed"), json_type_boolean) || duration < 0 || !at)
                return err_set(err, ERR_INVALID, "smoke result: \"passed\", \"duration_ms\" or \"at\" is missing or not what it should be");
        r->passed = json_flag(o, "passed", false);
        r->duration_ms = (uint64_t)duration;
        r->why = mem_strdup(json_str(o, "why"));
        r->protocol = mem_strdup(json_str(o, "protocol"));
        r->stderr_tail = mem_strdup(json_str(o, "stderr_tail"));
        if (!json_to_strv(&r->tools, json_get(o, "tools")))
                return err_set(err, ERR_INVALID, "smoke result: \"tools\" is not a list of names");
        if (text_parse_time(&r->at, at, err) < 0 || take_manifest(r, o, err) < 0)
                return -1;
        if (r->passed ? !r->protocol : !r->why)
                return err_set(err, ERR_INVALID, "smoke result: \"%s\" is missing", r->passed ? "protocol" : "why");
        *ret = TAKE_PTR(r);
        return 0;
}
