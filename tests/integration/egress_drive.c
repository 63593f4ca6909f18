/*
 * Drives controller/egress for tests: one JSON command per line on standard input, one JSON answer per line on standard output, in the
 * order in which they complete; foreign changes come as lines with "event". Used by tests/integration/egress_attempts.py and by benchmarks.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <time.h>

#include "common/file.h"
#include "common/log.h"
#include "controller/egress/egress.h"

struct drive {
        sd_event *loop;
        struct egress *egress;
        struct buf in;
};

struct call {
        struct drive *d;
        char *id;
        uint64_t since;
        unsigned *left; /* of a bulk */
};

static uint64_t now_us(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void print(json_object *o)
{
        puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
        fflush(stdout);
        json_object_put(o);
}

static void answer(struct call *c, json_object *o, const char *error)
{
        json_add_str(o, "id", c->id);
        json_add_int(o, "us", (int64_t)(now_us() - c->since));
        json_add_str(o, "error", error);
        print(o);
}

static void call_free(struct call *c)
{
        free(c->id);
        free(c);
}

static void on_done(struct err *err, void *user)
{
        struct call *c = user;

        if (!c->left || --*c->left == 0 || err) {
                answer(c, json_object_new_object(), err ? err_msg(err) : NULL);
                if (c->left && !*c->left)
                        free(c->left);
        }
        call_free(c);
}

static void on_show(json_object *show, struct err *err, void *user)
{
        struct call *c = user;
        json_object *o = json_object_new_object();

        if (show)
                json_add(o, "show", show);
        answer(c, o, err ? err_msg(err) : NULL);
        call_free(c);
}

static void on_changed(const char *what, bool repaired, _unused_ void *user)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "event", what);
        json_add_bool(o, "repaired", repaired);
        print(o);
}

static struct egress_rule *rules_read(json_object *array, size_t *n)
{
        *n = array ? json_object_array_length(array) : 0;
        struct egress_rule *rules = mem_alloc((*n + 1) * sizeof(*rules));

        for (size_t i = 0; i < *n; i++) {
                json_object *o = json_object_array_get_idx(array, i), *ports = json_get(o, "ports");

                rules[i].cidr = mem_strdup(json_str(o, "cidr"));
                rules[i].host = mem_strdup(json_str(o, "host"));
                rules[i].protocol = str_eq(json_str(o, "protocol"), "udp") ? PROTOCOL_UDP : PROTOCOL_TCP;
                rules[i].n_ports = ports ? json_object_array_length(ports) : 0;
                rules[i].ports = mem_alloc((rules[i].n_ports + 1) * sizeof(uint16_t));
                for (size_t k = 0; k < rules[i].n_ports; k++)
                        rules[i].ports[k] = (uint16_t)json_object_get_int(json_object_array_get_idx(ports, k));
        }
        return rules;
}

static void rules_release(struct egress_rule *rules, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                free(rules[i].cidr);
                free(rules[i].host);
                free(rules[i].ports);
        }
        free(rules);
}

static void do_set(struct call *c, json_object *o)
{
        struct egress_instance instance = {.smoke = json_flag(o, "smoke", false), .http_port = (uint16_t)json_int(o, "http_port", 0)};
        size_t n;
        struct egress_rule *rules = rules_read(json_get(o, "rules"), &n);

        snprintf(instance.bridge, sizeof(instance.bridge), "%s", json_str(o, "bridge"));
        snprintf(instance.address, sizeof(instance.address), "%s", json_str(o, "address"));
        instance.server = mem_strdup(json_str(o, "server"));
        instance.rules = rules;
        instance.n_rules = n;
        egress_set(c->d->egress, &instance, on_done, c);
        free(instance.server);
        rules_release(rules, n);
}

/* {"op": "bulk", "servers": 1000, "entries": 100}: one answer when all are in force. */
static void do_bulk(struct call *c, json_object *o)
{
        unsigned servers = (unsigned)json_int(o, "servers", 1), entries = (unsigned)json_int(o, "entries", 1);
        uint16_t port = 443;

        c->left = NEW(unsigned);
        *c->left = servers;
        for (unsigned s = 0; s < servers; s++) {
                struct egress_instance instance = {};
                struct egress_rule *rules = mem_alloc(entries * sizeof(*rules));
                struct call *one = mem_dup(c, sizeof(*c));
                unsigned at = (10U << 24 | 213U << 16) + s * 8 + 2;

                one->id = mem_strdup(c->id);
                for (unsigned k = 0; k < entries; k++)
                        rules[k] = (struct egress_rule){.cidr = mem_printf("198.%u.%u.0/24", 51 + k / 250, k % 250),
                                                        .protocol = PROTOCOL_TCP,
                                                        .ports = mem_dup(&port, sizeof(port)),
                                                        .n_ports = 1};
                snprintf(instance.bridge, sizeof(instance.bridge), "bh%08x", s);
                snprintf(instance.address, sizeof(instance.address), "10.213.%u.%u", at >> 8 & 255, at & 255);
                instance.server = mem_printf("server-%u", s);
                instance.rules = rules;
                instance.n_rules = entries;
                egress_set(c->d->egress, &instance, on_done, one);
                free(instance.server);
                rules_release(rules, entries);
        }
        call_free(c);
}

static void command(struct drive *d, json_object *o)
{
        const char *op = json_str(o, "op"), *bridge = json_str(o, "bridge");
        struct call *c = NEW(struct call);

        c->d = d;
        c->id = mem_strdup(json_str(o, "id"));
        c->since = now_us();
        if (str_eq(op, "load")) {
                egress_load(d->egress, on_done, c);
        } else if (str_eq(op, "verify")) {
                egress_verify(d->egress, on_done, c);
        } else if (str_eq(op, "set")) {
                do_set(c, o);
        } else if (str_eq(op, "bulk")) {
                do_bulk(c, o);
        } else if (str_eq(op, "remove")) {
                egress_remove(d->egress, bridge, on_done, c);
        } else if (str_eq(op, "show")) {
                egress_show(d->egress, json_str(o, "server"), on_show, c);
        } else if (str_eq(op, "keep")) {
                _cleanup_strv_ char **bridges = NULL;

                if (json_to_strv(&bridges, json_get(o, "bridges")))
                        egress_keep_only(d->egress, bridges, on_done, c);
        } else if (str_eq(op, "in_force")) {
                json_object *reply = json_object_new_object();

                json_add_bool(reply, "in_force", egress_in_force(d->egress, bridge));
                answer(c, reply, NULL);
                call_free(c);
        } else {
                answer(c, json_object_new_object(), "unknown op");
                call_free(c);
        }
}

static int on_input(_unused_ sd_event_source *source, int fd, _unused_ uint32_t events, void *user)
{
        struct drive *d = user;
        char data[65536];
        ssize_t n = read(fd, data, sizeof(data));
        char *end;

        if (n <= 0)
                return sd_event_exit(d->loop, 0);
        buf_add(&d->in, data, (size_t)n);
        while (d->in.len && (end = memchr(d->in.data, '\n', d->in.len))) {
                _cleanup_json_ json_object *o = NULL;
                _cleanup_err_ struct err *err = NULL;

                if (json_parse(&o, d->in.data, (size_t)(end - d->in.data), "command", NULL, &err) < 0)
                        log_error("bad command", "error", err_msg(err));
                else
                        command(d, o);
                buf_drop(&d->in, (size_t)(end - d->in.data) + 1);
        }
        return 0;
}

/* egress_drive [--guard] [BROKER_USER] */
int main(int argc, char **argv)
{
        struct conf conf = {.mark_bit = 0x00200000, .pool = (char *)"10.213.0.0/16"};
        _cleanup_err_ struct err *err = NULL;
        struct drive d = {};
        sigset_t blocked;

        if (argc > 1 && str_eq(argv[1], "--guard")) {
                _cleanup_free_ char *text = egress_guard_text(&conf, getuid(), 0, false);

                fputs(text, stdout);
                return 0;
        }
        conf.broker_user = argc > 1 ? argv[1] : NULL;
        sigemptyset(&blocked);
        sigaddset(&blocked, SIGCHLD);
        sigprocmask(SIG_BLOCK, &blocked, NULL);
        if (sd_event_default(&d.loop) < 0 || egress_new(&d.egress, d.loop, &conf, on_changed, &d, &err) < 0) {
                log_error("cannot start", "error", err_msg(err));
                return 1;
        }
        int r = sd_event_add_io(d.loop, NULL, STDIN_FILENO, EPOLLIN, on_input, &d);
        if (r >= 0)
                r = sd_event_loop(d.loop);
        egress_free(d.egress);
        sd_event_unref(d.loop);
        buf_deinit(&d.in);
        return r < 0;
}
