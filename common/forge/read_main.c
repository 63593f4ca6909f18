/*
 * bulkhead-forge-read: git objects and signatures are parsed here, in a process without capabilities and sockets, so that the controller
 * need not. A request on standard input (JSON), a view or {"error", "code"} on standard output. Started by forge_read_start().
 */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "common/forge/confine.h"
#include "common/forge/view.h"

static int answer(json_object **ret, struct err **err)
{
        static const struct json_limits limits = {.max_bytes = FORGE_MAX_MESSAGE, .max_depth = 16};
        _cleanup_free_ char *text = NULL;
        _cleanup_json_ json_object *request = NULL;
        _cleanup_(conf_freep) struct conf *conf = NULL;
        _cleanup_(forge_state_freep) struct forge_state *state = NULL;
        _cleanup_(forge_view_freep) struct forge_view *view = NULL;
        time_t now;
        size_t n;

        if (fd_read_all(&text, &n, STDIN_FILENO, FORGE_MAX_MESSAGE, err) < 0 ||
            json_parse(&request, text, n, "request", &limits, err) < 0 || request_from_json(&conf, &state, &now, request, err) < 0 ||
            forge_read(&view, conf, state, now, err) < 0)
                return -1;
        *ret = view_to_json(view);
        return 0;
}

int main(void)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_json_ json_object *o = NULL;

        if (forge_confine(&err) < 0 || answer(&o, &err) < 0) {
                o = json_object_new_object();
                json_add_str(o, "error", err_msg(err));
                json_add_int(o, "code", err_code(err));
        }
        const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
        _cleanup_err_ struct err *lost = NULL;
        if (fd_write_all(STDOUT_FILENO, text, strlen(text), &lost) < 0) {
                fprintf(stderr, "%s\n", err_msg(lost));
                return 1;
        }
        return 0;
}
