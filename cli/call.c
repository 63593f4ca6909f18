#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/link/link.h"

int cli_conf(struct cli *c, const struct conf **ret, struct err **err)
{
        if (!c->conf && conf_load(&c->conf, c->conf_path, err) < 0)
                return -1;
        *ret = c->conf;
        return 0;
}

json_object *cli_request(const char *verb)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "verb", verb);
        return o;
}

/* {"server": …, "text": …, "current": N, "total": N}, or while servers are worked on {"busy": N, "servers": N}. */
static void on_progress(json_object *o, void *user)
{
        const char *server = json_str(o, "server"), *text = json_str(o, "text");
        int64_t current = json_int(o, "current", 0), total = json_int(o, "total", 0);
        json_object *all = json_get(o, "servers");
        _cleanup_free_ char *what = text || !all ? mem_printf("%s%s%s", server ? server : "", server ? ": " : "", text ? text : "working")
                                                 : mem_printf("working on %lld of %lld servers", (long long)json_int(o, "busy", 0),
                                                              (long long)json_object_get_int64(all));

        progress_show(user, what, current > 0 ? (uint64_t)current : 0, total > 0 ? (uint64_t)total : 0);
}

static const char *socket_path(struct cli *c, struct err **err)
{
        const struct conf *conf;

        if (c->socket_path)
                return c->socket_path;
        if (cli_conf(c, &conf, err) < 0) {
                err_wrap(err, "finding the control socket (or name it with --socket)");
                return NULL;
        }
        return conf->control_socket;
}

int cli_call(struct cli *c, json_object *request, unsigned timeout_s, json_object **result, struct err **err)
{
        const char *path = socket_path(c, err);
        struct progress progress;

        if (!path)
                return -1;
        progress_init(&progress, &c->errors);
        int r = link_call(path, request, timeout_s, on_progress, &progress, result, &c->exit_code, err);
        progress_end(&progress);
        if (r < 0)
                return -1;
        c->exit_code = 0;
        if (!*result)
                *result = json_object_new_object();
        return 0;
}

void cli_poke(struct cli *c)
{
        _cleanup_json_ json_object *request = cli_request("reload"), *result = NULL;
        const char *path = socket_path(c, NULL);
        int code;

        if (path)
                (void)!link_call(path, request, 10, NULL, NULL, &result, &code, NULL);
}

char *cli_user(void)
{
        const struct passwd *pw = getpwuid(getuid());

        return pw ? mem_strdup(pw->pw_name) : mem_printf("uid-%u", (unsigned)getuid());
}
