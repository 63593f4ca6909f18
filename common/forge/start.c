#include <malloc.h>
#include <time.h>

#include "common/forge/view.h"
#include "common/spawn.h"

#define HELPER "bulkhead-forge-read"

struct start {
        forge_read_fn done;
        void *user;
        sd_event_source *owner;
};

/*
 * spawn_cancel() knows nothing of our struct start. A source that does nothing and belongs to the loop owns it, so that after a cancel it
 * goes with the loop at the latest.
 */
static int on_loop_exit(_unused_ sd_event_source *source, _unused_ void *user)
{
        return 0;
}

static int give_to_loop(struct start *s, sd_event *loop, struct err **err)
{
        int r = sd_event_add_exit(loop, &s->owner, on_loop_exit, s);

        if (r < 0)
                return err_sys(err, r, "cannot start " HELPER);
        sd_event_source_set_destroy_callback(s->owner, free);
        sd_event_source_set_floating(s->owner, 1);
        sd_event_source_unref(s->owner); /* the loop's reference stays */
        return 0;
}

static void take_from_loop(struct start *s)
{
        sd_event_source_set_floating(s->owner, 0); /* drops that reference: frees s */
}

static int parse_answer(struct forge_view **ret, const struct spawn_result *result, struct err **err)
{
        static const struct json_limits limits = {.max_bytes = FORGE_MAX_MESSAGE, .max_depth = 48};
        _cleanup_json_ json_object *o = NULL;

        if (spawn_result_check(result, HELPER, err) < 0 ||
            json_parse(&o, result->out.data ? result->out.data : "", result->out.len, HELPER, &limits, err) < 0)
                return -1;
        const char *failure = json_str(o, "error");
        if (failure) {
                int64_t code = json_int(o, "code", ERR_INTERNAL);
                return err_set(err, code >= ERR_INTERNAL && code <= ERR_SYSTEM ? (enum err_code)code : ERR_INTERNAL, "%s", failure);
        }
        return view_from_json(ret, o, err) < 0 ? err_wrap(err, HELPER) : 0;
}

static void on_done(struct spawn_result *result, struct err *failed, void *user)
{
        struct start s = *(struct start *)user;
        _cleanup_err_ struct err *err = NULL;
        struct forge_view *view = NULL;

        take_from_loop(user);
        if (failed) {
                s.done(NULL, failed, s.user);
                return;
        }
        if (parse_answer(&view, result, &err) < 0) {
                s.done(NULL, err, s.user);
                return;
        }
        /* The text and its values were many times the size of what stays. */
        buf_deinit(&result->out);
        result->out = (struct buf){0};
        malloc_trim(0);
        s.done(view, NULL, s.user);
}

int forge_read_start(struct spawn **ret, sd_event *loop, const struct conf *conf, const struct forge_state *state, forge_read_fn done,
                     void *user, struct err **err)
{
        _cleanup_free_ char *path = mem_printf("%s/" HELPER, conf->helper_dir);
        _cleanup_json_ json_object *request = request_to_json(conf, state, time(NULL));
        const char *text = json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN);
        const char *argv[] = {path, NULL};
        const struct spawn_options o = {
                .argv = argv,
                .input = text,
                .input_len = strlen(text),
                .max_output = FORGE_MAX_MESSAGE,
                .timeout_ms = 300000, /* the first read after a start verifies every signature; later ones only new records */
                .drop_caps = true,
                .max_address_space = 1U << 30,
                .max_cpu_seconds = 120,
        };
        struct start *s = NEW(struct start);

        *s = (struct start){.done = done, .user = user};
        if (give_to_loop(s, loop, err) < 0) {
                free(s);
                return -1;
        }
        if (spawn_start(ret, loop, &o, on_done, s, err) < 0) {
                take_from_loop(s);
                return -1;
        }
        return 0;
}
