#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/file.h"
#include "common/smoke/smoke_internal.h"
#include "common/text.h"

#define HELPER        "bulkhead-smoke-talk"
#define PROBE_MS      10000U
#define SETTLE_MS     250U
#define GRACE_MS      3000U /* the helper keeps to its own deadline; this is for one that does not */
#define ADDRESS_SPACE (384ULL << 20)
#define CPU_SECONDS   20U

static json_object *request_of(const struct smoke *s)
{
        static const char *const transports[] = {
                [TRANSPORT_STDIO] = "stdio", [TRANSPORT_STREAMABLE_HTTP] = "streamable-http", [TRANSPORT_SSE] = "sse"};
        const struct registry_entry *e = s->request.entry;
        json_object *o = json_object_new_object();

        json_add_str(o, "transport", transports[e->transport]);
        json_add_int(o, "timeout_ms", (int64_t)s->conf->smoke_timeout_ms);
        json_add_int(o, "probe_ms", (int64_t)MIN(s->conf->smoke_timeout_ms / 3, (uint64_t)PROBE_MS));
        json_add_int(o, "settle_ms", SETTLE_MS);
        json_add_int(o, "max_bytes", (int64_t)s->conf->smoke_max_output);
        if (e->transport != TRANSPORT_STDIO) {
                json_add_str(o, "address", s->address);
                json_add_bool(o, "output", s->stream >= 0);
                json_add_bool(o, "external", e->source == SOURCE_URL);
                json_add_int(o, "port", e->port);
                json_add_str(o, "path", e->path ? e->path : "/mcp");
                json_add_str(o, "tls_host", e->tls_host);
                if (e->tls_pins)
                        json_add(o, "tls_pins", json_from_strv(e->tls_pins));
                if (e->tls_host)
                        json_add_str(o, "ca_file", s->conf->ca_file);
                json_add(o, "headers", json_from_strv(e->headers));
        }
        if (e->smoke_call)
                json_add(o, "call", json_object_get(e->smoke_call));
        return o;
}

/* The helper may be in the server's hands by now: what it says is text, already escaped if it is honest, escaped here if it is not. */
static char *safe_text(const char *text)
{
        _cleanup_free_ char *escaped = text_escape(text);
        char *out = escaped;

        /* text_escape() doubles backslashes; undo only that. */
        for (const char *p = escaped; *p; p++) {
                *out++ = *p;
                if (p[0] == '\\' && p[1] == '\\')
                        p++;
        }
        *out = '\0';
        return mem_strndup(escaped, 16384);
}

static bool names_are_fine(char *const *names)
{
        for (; names && *names; names++)
                if (!**names || strlen(*names) > 128 ||
                    !str_in_charset(*names, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"))
                        return false;
        return true;
}

static int read_answer(struct smoke_result **ret, json_object *o, struct err **err)
{
        _cleanup_(smoke_result_freep) struct smoke_result *r = NEW(struct smoke_result);
        const char *protocol = json_str(o, "protocol"), *why = json_str(o, "why"), *tail = json_str(o, "stderr_tail");

        r->passed = json_flag(o, "passed", false);
        r->why = why ? safe_text(why) : NULL;
        r->stderr_tail = tail ? safe_text(tail) : NULL;
        r->manifest = mem_strdup(json_str(o, "manifest"));
        if (protocol && strlen(protocol) == 10 && str_in_charset(protocol, "0123456789-"))
                r->protocol = mem_strdup(protocol);
        if (!json_to_strv(&r->tools, json_get(o, "tools")) || !names_are_fine(r->tools) ||
            (r->passed ? !r->manifest || !r->protocol || r->why : !r->why || r->manifest))
                return err_set(err, ERR_INVALID, "the answer has not the form it should have");
        strv_sort(r->tools);
        if (r->manifest) {
                r->manifest_len = strlen(r->manifest);
                sha256_hex(r->manifest_sha256, r->manifest, r->manifest_len);
        }
        *ret = TAKE_PTR(r);
        return 0;
}

static struct smoke_result *judge(struct spawn_result *out, struct err *err)
{
        const struct json_limits limits = {.max_bytes = out ? out->out.len + 1 : 1, .max_depth = 4};
        _cleanup_err_ struct err *why = NULL;
        _cleanup_json_ json_object *o = NULL;
        struct smoke_result *r = NULL;
        _cleanup_free_ char *safe = NULL;

        if (!err && spawn_result_check(out, HELPER, &why) == 0 &&
            json_parse(&o, out->out.data ? out->out.data : "", out->out.len, HELPER, &limits, &why) == 0 && read_answer(&r, o, &why) == 0)
                return r;
        /* Whatever brought the helper down came from the server, as far as we know. */
        safe = text_escape(err_msg(err ? err : why));
        return smoke_result_failed(mem_printf("the program that speaks to the server came to no answer: %.500s", safe));
}

static void on_helper(struct spawn_result *out, struct err *err, void *user)
{
        struct smoke *s = user;

        s->helper = NULL;
        s->connector = smoke_connector_free(s->connector);
        smoke_finish(s, judge(out, err));
}

/* -- start ----------------------------------------------------------------------------------------------------------------------- */

static int start_helper(struct smoke *s, const int *fds, size_t n_fds, struct err **err)
{
        _cleanup_json_ json_object *request = request_of(s);
        _cleanup_free_ char *text = json_canonical(request),
                            *path = mem_printf("%s/" HELPER, s->conf->helper_dir ? s->conf->helper_dir : LIBEXECDIR);
        const char *argv[] = {path, NULL}, *env[] = {"LC_ALL=C.UTF-8", NULL};
        const struct spawn_options o = {
                .argv = argv,
                .env = env,
                .input = text,
                .input_len = strlen(text),
                /* the manifest as a string in JSON: every quote and backslash of it twice, and the tools' names again */
                .max_output = (size_t)s->conf->smoke_max_output * 4 + (128U << 10),
                .timeout_ms = s->conf->smoke_timeout_ms + GRACE_MS,
                .pass_fds = fds,
                .n_pass_fds = n_fds,
                .drop_caps = true,
                .max_address_space = ADDRESS_SPACE,
                .max_cpu_seconds = CPU_SECONDS};

        return spawn_start(&s->helper, s->loop, &o, on_helper, s, err);
}

static int start_talk(struct smoke *s, struct err **err)
{
        bool stdio = s->request.entry->transport == TRANSPORT_STDIO;
        _cleanup_fd_ int asks = -1;

        if (!stdio && smoke_connector_new(&s->connector, s->loop, s->address, s->request.entry->port, &asks, err) < 0)
                return -1;
        const int fds[] = {stdio ? s->stream : asks, s->stream};
        if (start_helper(s, fds, stdio || s->stream < 0 ? 1 : 2, err) < 0)
                return -1;
        /* Only the helper holds them now: the end of one is the end of the other. */
        fd_closep(&s->stream);
        s->stream = -1;
        return 0;
}

void smoke_talk(struct smoke *s)
{
        struct err *err = NULL;

        if (s->result)
                smoke_next(s);
        else if (start_talk(s, &err) < 0)
                smoke_fail(s, err);
}
