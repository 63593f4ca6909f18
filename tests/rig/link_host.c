/*
 * link_host: the controller's end of the link, for tests of the broker without an Engine. Runs servers as plain processes, hands their
 * streams over as the controller does with attach streams, and does what it is told on standard input. See usage().
 *
 * Says what happens on standard output, a JSON object a line: {"event":"ready"}, {"event":"connected"}, {"event":"closed","why":…},
 * {"event":"up","name":…,"instance":…,"pid":…}, {"event":"exited","name":…,"pid":…},
 * {"event":"asked","kind":"start"|"stop"|"renew","name":…}, {"event":"differs","name":…,"what":…}, {"event":"call","text":…},
 * {"event":"done","why":…}. What is about one of the instances that a stdio server with "per_session" has for every session carries its
 * "serial" too.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "common/file.h"
#include "common/json.h"
#include "common/link/channel.h"
#include "common/log.h"
#include "common/manifest.h"
#include "tests/rig/link_server.h"

#define RESTART_MS 100U
#define KNOCK_MS   20U

struct host;

struct hosted {
        struct host *host;
        struct channel_entry entry;
        char **command;    /* NULL: an HTTP server that somebody else runs */
        char *refuse;      /* why it is not started, when set */
        unsigned delay_ms; /* before each start */
        unsigned cap;      /* instances of it at once */
        unsigned serial;   /* it is one of those; 0: a server itself */
        bool lists;        /* it is no session's, and counts for nobody */
        pid_t pid;
        sd_event_source *child, *timer;
};

struct host {
        sd_event *loop;
        struct channel *link;
        struct hosted *servers[256];
        size_t n;
        struct buf in;
};

static void say_of(const char *event, const char *name, unsigned serial, const char *key, const char *value, int64_t pid)
{
        _cleanup_json_ json_object *o = json_object_new_object();

        json_add_str(o, "event", event);
        json_add_str(o, "name", name);
        if (key)
                json_add_str(o, key, value);
        if (pid > 0)
                json_add_int(o, "pid", pid);
        if (serial > 0)
                json_add_int(o, "serial", serial);
        puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
        fflush(stdout);
}

static void say(const char *event, const char *key, const char *value)
{
        say_of(event, NULL, 0, key, value, 0);
}

static bool is_stdio(const struct hosted *s)
{
        return s->entry.transport == TRANSPORT_STDIO;
}

static bool is_on_demand(const struct hosted *s)
{
        return s->entry.lifecycle == LIFECYCLE_ON_DEMAND;
}

/* -- what the broker is told --------------------------------------------------------------------------------------------------------- */
static void tell(struct hosted *s, enum channel_kind kind, int fd)
{
        struct channel_message m = {.kind = kind, .serial = s->serial, .entry = s->entry, .why = s->refuse};

        if (s->host->link)
                channel_send(s->host->link, &m, fd);
        else if (fd >= 0)
                close(fd);
}

static void tell_readiness(struct hosted *s, enum server_readiness readiness)
{
        s->entry.readiness = readiness;
        if (!s->serial)
                tell(s, CHANNEL_SERVER, -1);
}

static void new_instance(struct hosted *s)
{
        unsigned char id[6];
        char hex[13];

        randombytes_buf(id, sizeof(id));
        hex_encode(hex, id, sizeof(id));
        mem_replace(&s->entry.instance, mem_strdup(hex));
}

static void is_up(struct hosted *s, int fd)
{
        say_of("up", s->entry.name, s->serial, "instance", s->entry.instance, s->pid);
        tell_readiness(s, READINESS_UP);
        if (fd >= 0)
                tell(s, CHANNEL_STREAM, fd);
}

/* -- a server's life ------------------------------------------------------------------------------------------------------------------ */
static void start_later(struct hosted *s, unsigned ms, sd_event_time_handler_t then)
{
        s->timer = sd_event_source_disable_unref(s->timer);
        if (sd_event_add_time_relative(s->host->loop, &s->timer, CLOCK_MONOTONIC, (uint64_t)ms * 1000, 0, then, s) < 0)
                abort();
}

static int on_start(sd_event_source *source, uint64_t usec, void *user);
static void forget(struct hosted *s);

static int on_exit_of(sd_event_source *source, const siginfo_t *info, void *user)
{
        struct hosted *s = user;

        (void)source;
        say_of("exited", s->entry.name, s->serial, NULL, NULL, info->si_pid);
        s->child = sd_event_source_disable_unref(s->child);
        s->pid = 0;
        if (s->serial) {
                forget(s);
                return 0;
        }
        mem_replace(&s->entry.instance, NULL);
        tell_readiness(s, is_on_demand(s) ? READINESS_ASLEEP : READINESS_COMING);
        if (!is_on_demand(s))
                start_later(s, RESTART_MS + s->delay_ms, on_start);
        return 0;
}

/* No more waiting for a start, no process, and nobody told. */
static void end_process(struct hosted *s)
{
        s->timer = sd_event_source_disable_unref(s->timer);
        if (s->pid <= 0)
                return;
        kill(-s->pid, SIGKILL);
        kill(s->pid, SIGKILL);
        s->child = sd_event_source_disable_unref(s->child);
        waitpid(s->pid, NULL, 0);
        s->pid = 0;
        mem_replace(&s->entry.instance, NULL);
}

static bool knock(const struct hosted *s)
{
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(s->entry.port)};
        _cleanup_fd_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        return inet_pton(AF_INET, s->entry.address, &a.sin_addr) == 1 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
}

static int on_knock(sd_event_source *source, uint64_t usec, void *user)
{
        struct hosted *s = user;

        (void)source, (void)usec;
        if (knock(s))
                is_up(s, -1);
        else
                start_later(s, KNOCK_MS, on_knock);
        return 0;
}

static int on_start(sd_event_source *source, uint64_t usec, void *user)
{
        struct hosted *s = user;
        _cleanup_err_ struct err *err = NULL;
        int stream = -1;

        (void)source, (void)usec;
        new_instance(s);
        if (!s->command) {
                is_up(s, -1);
                return 0;
        }
        if (link_server_start(&s->pid, is_stdio(s) ? &stream : NULL, s->command, &err) < 0 ||
            sd_event_add_child(s->host->loop, &s->child, s->pid, WEXITED, on_exit_of, s) < 0) {
                log_error("cannot start a server", "server", s->entry.name, "reason", err_msg(err));
                return -1;
        }
        if (is_stdio(s))
                is_up(s, stream);
        else
                start_later(s, 1, on_knock);
        return 0;
}

static void start(struct hosted *s)
{
        tell_readiness(s, READINESS_COMING);
        start_later(s, s->delay_ms, on_start);
}

/* -- the link ------------------------------------------------------------------------------------------------------------------------ */
static struct hosted *find(struct host *h, const char *name)
{
        for (size_t i = 0; i < h->n; i++)
                if (!h->servers[i]->serial && str_eq(h->servers[i]->entry.name, name))
                        return h->servers[i];
        return NULL;
}

static struct hosted *find_instance(struct host *h, const char *name, unsigned serial)
{
        for (size_t i = 0; i < h->n; i++)
                if (h->servers[i]->serial == serial && str_eq(h->servers[i]->entry.name, name))
                        return h->servers[i];
        return NULL;
}

static void refuse(struct hosted *s, unsigned serial, const char *why)
{
        struct channel_message m = {.kind = CHANNEL_REFUSED, .serial = serial, .entry = s->entry, .why = (char *)(uintptr_t)why};

        channel_send(s->host->link, &m, -1);
}

static void start_instance(struct hosted *of, unsigned serial, bool lists)
{
        struct host *h = of->host;
        struct hosted *s;
        unsigned n = 0;

        for (size_t i = 0; i < h->n; i++)
                n += h->servers[i]->serial && !h->servers[i]->lists && str_eq(h->servers[i]->entry.name, of->entry.name);
        if (of->refuse || (!lists && n >= of->cap) || h->n == ELEMENTSOF(h->servers)) {
                refuse(of, serial, of->refuse ? of->refuse : "too many sessions have an instance of it: try again later");
                return;
        }
        s = NEW(struct hosted);
        s->host = h;
        s->serial = serial;
        s->lists = lists;
        s->delay_ms = of->delay_ms;
        s->command = strv_dup(of->command);
        channel_entry_copy(&s->entry, &of->entry);
        h->servers[h->n++] = s;
        start(s);
}

static void on_instance(struct hosted *of, const struct channel_message *m)
{
        struct hosted *s = find_instance(of->host, m->entry.name, m->serial);

        if (m->kind == CHANNEL_START)
                start_instance(of, m->serial, m->lists);
        else if (s)
                forget(s);
}

static void on_message(struct channel *c, const struct channel_message *m, int fd, void *user)
{
        struct host *h = user;
        struct hosted *s = find(h, m->entry.name);
        static const char *const words[] = {[CHANNEL_START] = "start", [CHANNEL_STOP] = "stop", [CHANNEL_RENEW] = "renew"};

        (void)c, (void)fd;
        if (m->kind == CHANNEL_CALL || m->kind == CHANNEL_DONE) {
                say(m->kind == CHANNEL_CALL ? "call" : "done", m->kind == CHANNEL_CALL ? "text" : "why",
                    m->kind == CHANNEL_CALL ? m->text : m->why);
                return;
        }
        if (m->kind == CHANNEL_STATE) {
                _cleanup_free_ char *all = strv_join(m->troubles, "\n");

                say("state", "troubles", all);
                return;
        }
        if (m->kind == CHANNEL_DIFFERS) {
                _cleanup_free_ char *what = strv_join(m->differs, ", ");
                say_of("differs", m->entry.name, 0, "what", what, 0);
                return;
        }
        say_of("asked", m->entry.name, m->serial, "kind", words[m->kind], 0);
        if (!s)
                return;
        if (m->serial) {
                on_instance(s, m);
                return;
        }
        if (m->kind == CHANNEL_STOP) {
                end_process(s);
                tell_readiness(s, READINESS_ASLEEP);
        } else if (s->refuse) {
                tell(s, CHANNEL_REFUSED, -1);
        } else if (m->kind == CHANNEL_START && s->entry.readiness == READINESS_ASLEEP) {
                start(s);
        } else if (m->kind == CHANNEL_RENEW && str_eq(m->entry.instance, s->entry.instance)) {
                end_process(s);
                start(s);
        }
}

static void on_closed(struct channel *c, const struct err *why, void *user)
{
        struct host *h = user;

        (void)c;
        say("closed", "why", err_msg(why));
        h->link = channel_free(h->link);
}

/* A new broker: HTTP servers stay as they are, stdio servers begin anew, because their streams went with the old one. */
static void on_accepted(int fd, void *user)
{
        static const struct channel_events events = {.message = on_message, .closed = on_closed};
        const struct channel_message hello = {.kind = CHANNEL_HELLO, .version = CHANNEL_VERSION}, synced = {.kind = CHANNEL_SYNCED};
        struct host *h = user;
        _cleanup_err_ struct err *err = NULL;

        h->link = channel_free(h->link);
        if (channel_new(&h->link, h->loop, fd, false, &events, h, &err) < 0) {
                log_error("cannot use a connection to the link", "reason", err_msg(err));
                close(fd);
                return;
        }
        say("connected", NULL, NULL);
        for (size_t i = h->n; i-- > 0;)
                if (h->servers[i]->serial)
                        forget(h->servers[i]);
        channel_send(h->link, &hello, -1);
        for (size_t i = 0; i < h->n; i++) {
                struct hosted *s = h->servers[i];
                if (!is_stdio(s)) {
                        tell(s, CHANNEL_SERVER, -1);
                        continue;
                }
                end_process(s);
                if (is_on_demand(s))
                        tell_readiness(s, READINESS_ASLEEP);
                else
                        start(s);
        }
        channel_send(h->link, &synced, -1);
}

/* -- commands ------------------------------------------------------------------------------------------------------------------------ */
static struct hosted *hosted_free(struct hosted *s)
{
        end_process(s);
        channel_entry_deinit(&s->entry);
        strv_free(s->command);
        free(s->refuse);
        free(s);
        return NULL;
}
DEFINE_FREEP(struct hosted *, hosted_free)

static void set_default(json_object *o, const char *key, json_object *value)
{
        if (json_get(o, key))
                json_object_put(value);
        else
                json_add(o, key, value);
}

/* The approved manifest, members that are not there being empty. */
static int approved_parse(char ***ret, json_object *o, struct err **err)
{
        _cleanup_free_ char *text = NULL;

        if (!o)
                return 0;
        set_default(o, "instructions", json_object_new_string(""));
        for (unsigned i = 0; i < MANIFEST_LISTS; i++)
                set_default(o, manifest_member((enum manifest_part)i), json_object_new_array());
        text = json_canonical(o);
        return manifest_pins(ret, text, strlen(text), err);
}

/* An entry is the link's own message about a server, most of it optional, and what only we need. */
static int entry_parse(struct hosted *s, json_object *o, struct err **err)
{
        _cleanup_(channel_message_deinit) struct channel_message m = {0};
        _cleanup_strv_ char **pins = NULL;
        const char *text;

        if (json_get(o, "command") && !json_to_strv(&s->command, json_get(o, "command")))
                return err_set(err, ERR_INVALID, "\"command\" is no list of words");
        s->refuse = mem_strdup(json_str(o, "refuse"));
        if (approved_parse(&pins, json_get(o, "approved"), err) < 0)
                return -1;
        s->delay_ms = (unsigned)json_int(o, "delay_ms", 0);
        s->cap = (unsigned)json_int(o, "cap", 8);
        json_object_object_del(o, "cap");
        json_object_object_del(o, "command");
        json_object_object_del(o, "refuse");
        json_object_object_del(o, "approved");
        json_object_object_del(o, "delay_ms");
        set_default(o, "kind", json_object_new_string("server"));
        set_default(o, "transport", json_object_new_string("stdio"));
        set_default(o, "readiness", json_object_new_string("asleep"));
        if (json_flag(o, "per_session", false) && str_eq(json_str(o, "transport"), "stdio"))
                set_default(o, "lifecycle", json_object_new_string("on-demand"));
        set_default(o, "lifecycle", json_object_new_string("always-on"));
        set_default(o, "per_session", json_object_new_boolean(!str_eq(json_str(o, "transport"), "stdio")));
        set_default(o, "pinned", json_object_new_boolean(pins != NULL));
        set_default(o, "idle_ms", json_object_new_int64(600000));
        set_default(o, "expires_at", json_object_new_int64(0));
        if (!str_eq(json_str(o, "transport"), "stdio")) {
                set_default(o, "address", json_object_new_string("127.0.0.1"));
                set_default(o, "path", json_object_new_string("/mcp"));
        }
        text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
        if (channel_parse(&m, text, strlen(text), err) < 0)
                return -1;
        channel_entry_copy(&s->entry, &m.entry);
        s->entry.pins = TAKE_PTR(pins);
        return 0;
}

static void forget(struct hosted *s)
{
        struct host *h = s->host;

        for (size_t i = 0; i < h->n; i++)
                if (h->servers[i] == s) {
                        h->servers[i] = h->servers[--h->n];
                        break;
                }
        hosted_free(s);
}

/* A server, and the instances that it has. */
static void forget_all(struct host *h, const char *name)
{
        for (size_t i = h->n; i-- > 0;)
                if (str_eq(h->servers[i]->entry.name, name))
                        forget(h->servers[i]);
}

/* Adds a server, or puts this one in the place of one with its name. */
static int add(struct host *h, json_object *entry, struct err **err)
{
        _cleanup_(hosted_freep) struct hosted *s = NEW(struct hosted);

        s->host = h;
        if (entry_parse(s, entry, err) < 0)
                return -1;
        forget_all(h, s->entry.name);
        if (h->n == ELEMENTSOF(h->servers))
                return err_set(err, ERR_LIMIT, "more servers than link_host has room for");
        h->servers[h->n] = s;
        h->n++;
        if (!is_on_demand(s) && (h->link || !is_stdio(s)))
                start(s);
        else
                tell_readiness(s, READINESS_ASLEEP);
        (void)TAKE_PTR(s);
        return 0;
}

/* As the control socket's verbs do. */
static void ask_about_calls(struct host *h, json_object *o)
{
        const struct channel_message m = {.kind = json_get(o, "call") ? CHANNEL_DECIDE : CHANNEL_CALLS,
                                          .serial = 1,
                                          .call = (char *)(uintptr_t)json_str(o, "call"),
                                          .approve = json_flag(o, "approve", false),
                                          .valid_ms = (uint64_t)json_int(o, "valid_ms", 0),
                                          .by = (char *)(uintptr_t) "alice"};

        if (h->link)
                channel_send(h->link, &m, -1);
}

static int obey(struct host *h, json_object *o, struct err **err)
{
        unsigned serial = (unsigned)json_int(o, "serial", 0);
        struct hosted *s = serial ? find_instance(h, json_str(o, "name"), serial) : find(h, json_str(o, "name"));
        const char *what = json_str(o, "do");

        if (str_eq(what, "calls") || str_eq(what, "decide")) {
                ask_about_calls(h, o);
                return 0;
        }
        if (str_eq(what, "add"))
                return add(h, json_get(o, "entry"), err);
        if (str_eq(what, "close")) {
                h->link = channel_free(h->link);
                return 0;
        }
        if (!s)
                return err_set(err, ERR_NOT_FOUND, "no such server or command");
        if (str_eq(what, "remove")) {
                tell(s, CHANNEL_GONE, -1);
                forget_all(h, json_str(o, "name"));
        } else if (str_eq(what, "kill") && s->pid > 0) {
                kill(s->pid, SIGKILL);
        } else if (str_eq(what, "down")) {
                end_process(s);
                mem_replace(&s->entry.why, mem_strdup(json_str(o, "why")));
                tell_readiness(s, READINESS_DOWN);
        } else if (str_eq(what, "up")) {
                mem_replace(&s->entry.why, NULL);
                start(s);
        } else if (str_eq(what, "refuse")) {
                mem_replace(&s->refuse, mem_strdup(json_str(o, "why")));
        }
        return 0;
}

static void obey_line(struct host *h, const char *line, size_t n)
{
        _cleanup_json_ json_object *o = NULL;
        _cleanup_err_ struct err *err = NULL;

        if (json_parse(&o, line, n, "command", NULL, &err) < 0 || obey(h, o, &err) < 0)
                log_error("link_host: a command failed", "reason", err_msg(err));
}

static int on_stdin(sd_event_source *source, int fd, uint32_t revents, void *user)
{
        struct host *h = user;
        char bytes[4096];
        ssize_t n = read(fd, bytes, sizeof(bytes));
        char *end;

        (void)source, (void)revents;
        if (n <= 0)
                return sd_event_exit(h->loop, 0);
        buf_add(&h->in, bytes, (size_t)n);
        while (h->in.len && (end = memchr(h->in.data, '\n', h->in.len))) {
                obey_line(h, h->in.data, (size_t)(end - h->in.data));
                buf_drop(&h->in, (size_t)(end - h->in.data) + 1);
        }
        return 0;
}

/* -- main ---------------------------------------------------------------------------------------------------------------------------- */
static int usage(void)
{
        fputs("usage: link_host --socket PATH --broker-uid UID [--entry JSON]…\n"
              "An entry: {\"name\":…,\"transport\":\"stdio\"|\"streamable-http\"|\"sse\",\"command\":[…],\"port\":…,…}, the other members "
              "as in the\n"
              "link's message \"server\"; also \"approved\", the manifest that its items are held to, \"delay_ms\" before each start, and "
              "\"refuse\": why it is never started when asked for, and \"cap\": how many\ninstances it may have at once, 8 when nothing is "
              "said.\n"
              "Commands, one a line: {\"do\":\"add\",\"entry\":…}, "
              "{\"do\":\"remove\"|\"kill\"|\"down\"|\"up\"|\"refuse\",\"name\":…,\"serial\":…,\"why\":…},\n"
              "{\"do\":\"calls\"}, {\"do\":\"decide\",\"call\":…,\"approve\":…,\"valid_ms\":…}, {\"do\":\"close\"} (the link). Ends, with "
              "all servers, at the end of standard input.\n",
              stderr);
        return 64;
}

static int run(struct host *h, const char *path, uid_t peer, char **entries, struct err **err)
{
        _cleanup_(channel_listener_freep) struct channel_listener *listener = NULL;
        int r;

        if (channel_listen(&listener, h->loop, path, -1, peer, on_accepted, h, err) < 0)
                return -1;
        for (size_t i = 0; i < strv_len(entries); i++) {
                _cleanup_json_ json_object *o = NULL;
                if (json_parse(&o, entries[i], strlen(entries[i]), "--entry", NULL, err) < 0 || add(h, o, err) < 0)
                        return -1;
        }
        r = sd_event_add_io(h->loop, NULL, STDIN_FILENO, EPOLLIN, on_stdin, h);
        if (r < 0)
                return err_sys(err, r, "watching standard input");
        say("ready", NULL, NULL);
        r = sd_event_loop(h->loop);
        h->link = channel_free(h->link);
        return r < 0 ? err_sys(err, r, "the loop ended") : 0;
}

int main(int argc, char **argv)
{
        struct host h = {0};
        const char *path = NULL, *uid = NULL;
        _cleanup_strv_ char **entries = NULL;
        _cleanup_err_ struct err *err = NULL;
        sigset_t child;
        int r, i;

        for (i = 1; i + 1 < argc; i += 2)
                if (str_eq(argv[i], "--socket"))
                        path = argv[i + 1];
                else if (str_eq(argv[i], "--broker-uid"))
                        uid = argv[i + 1];
                else if (str_eq(argv[i], "--entry"))
                        entries = strv_append(entries, argv[i + 1]);
                else
                        return usage();
        if (i != argc || !path || !uid)
                return usage();
        sigemptyset(&child);
        sigaddset(&child, SIGCHLD);
        sigprocmask(SIG_BLOCK, &child, NULL);
        signal(SIGPIPE, SIG_IGN);
        if (sodium_init() < 0 || sd_event_new(&h.loop) < 0)
                return 1;
        r = run(&h, path, (uid_t)strtoul(uid, NULL, 10), entries, &err);
        if (r < 0)
                log_error("link_host ended", "reason", err_msg(err));
        while (h.n > 0)
                forget(h.servers[0]);
        buf_deinit(&h.in);
        sd_event_unref(h.loop);
        return r < 0 ? 1 : 0;
}
