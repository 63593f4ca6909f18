/*
 * bulkhead-smoke-talk: speaks MCP to one untrusted server and prints what it learned as one line of canonical JSON.
 *
 * Started by smoke_helper.c with an empty environment and nothing but: standard input (the request), standard output (the answer), standard
 * error, and descriptor 3 (the attach stream; for HTTP where connections are asked for, and the attach stream is 4). Confines itself before
 * it reads a byte of the server's. Exit: 0 an answer was printed (also when the server failed the test), 1 it could not run, 64 usage.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/file.h"
#include "common/smoke/talk.h"
#include "common/text.h"

#define STREAM_FD   3
#define OUTPUT_FD   4 /* HTTP only: the attach stream, of which the tail of standard error is kept */
#define MAX_REQUEST (1U << 20)

static void add_tail(json_object *o, const struct talk_stdio *stdio)
{
        _cleanup_free_ char *tail = NULL, *safe = NULL;
        size_t n;

        if (!stdio)
                return;
        tail = talk_stdio_stderr(stdio, &n);
        for (size_t i = 0; i < n; i++)
                if (tail[i] == '\0')
                        tail[i] = ' ';
        safe = text_escape(tail);
        json_add_str(o, "stderr_tail", safe);
}

static int print_result(const struct talk_result *r, const struct talk_stdio *stdio, struct err **err)
{
        _cleanup_json_ json_object *o = json_object_new_object();
        _cleanup_free_ char *text = NULL;

        json_add_bool(o, "passed", r->passed);
        json_add_str(o, "why", r->why);
        json_add_str(o, "protocol", r->protocol);
        json_add_str(o, "manifest", r->manifest);
        json_add(o, "tools", json_from_strv(r->tools));
        add_tail(o, stdio);
        text = json_canonical(o);
        return fd_write_all(STDOUT_FILENO, text, strlen(text), err);
}

static int talk(const struct talk_config *config, struct err **err)
{
        _cleanup_(talk_stdio_freep) struct talk_stdio *stdio = NULL;
        _cleanup_(talk_http_freep) struct talk_http *http = NULL;
        _cleanup_(talk_result_deinit) struct talk_result result = {0};
        _cleanup_err_ struct err *failed = NULL;
        struct talk_io io;

        if (talk_confine(err) < 0)
                return -1;
        if (config->transport == TALK_STDIO || config->output)
                stdio = talk_stdio_new(config->transport == TALK_STDIO ? STREAM_FD : OUTPUT_FD, config->max_bytes, &io);
        if (config->transport != TALK_STDIO && talk_http_new(&http, STREAM_FD, stdio, OUTPUT_FD, config, &io, &failed) < 0)
                result.why = mem_strdup(err_msg(failed));
        if (!failed)
                talk_run(&result, config, &io);
        return print_result(&result, stdio, err);
}

static int run(struct err **err)
{
        _cleanup_(talk_config_deinit) struct talk_config config = {0};
        _cleanup_free_ char *request = NULL;
        size_t n;

        /* Everything that wants files, threads or descriptors of its own happens before the door shuts. */
        if (fd_read_all(&request, &n, STDIN_FILENO, MAX_REQUEST, err) < 0 || talk_config_parse(&config, request, n, err) < 0)
                return -1;
        if (curl_global_init(config.tls_host ? CURL_GLOBAL_SSL : CURL_GLOBAL_NOTHING) != 0)
                return err_set(err, ERR_INTERNAL, "libcurl does not start");
        return talk(&config, err);
}

static int self_check(void)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_fd_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        if (talk_confine(&err) < 0) {
                dprintf(STDERR_FILENO, "%s\n", err_msg(err));
                return 1;
        }
        return talk_confine_check(fd) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
        _cleanup_err_ struct err *err = NULL;
        int code = 0;

        if (argc == 2 && str_eq(argv[1], "--self-check"))
                _exit(self_check());
        if (argc != 1) {
                dprintf(STDERR_FILENO, "usage: bulkhead-smoke-talk < request; not for people: use bulkhead smoke\n");
                return 64;
        }
        if (run(&err) < 0) {
                dprintf(STDERR_FILENO, "bulkhead-smoke-talk: %s\n", err_msg(err));
                code = 1;
        }
        /* No exit handlers: they belong to a process that may still open things. */
        _exit(code);
}
