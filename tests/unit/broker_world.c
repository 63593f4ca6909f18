#include "tests/unit/broker_world.h"

#include <errno.h>
#include <pwd.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *const names[SERVERS] = {"echo", "lazy", "other", "web"};

static void play(struct fake_request *r)
{
        struct world *w = r->user;

        if (strstr(r->path, "/attach?")) {
                fake_sends(r, w->attach);
                if (strstr(w->attach, " 101 ")) {
                        ssize_t n = read(r->fd, w->got, sizeof(w->got) - 1);
                        w->got[n > 0 ? n : 0] = '\0';
                        fake_sends(r, "answer");
                }
                fake_close(r);
        } else if (strstr(r->path, "/start")) {
                w->starts++;
                fake_reply(r, "204 No Content", NULL);
        } else if (strstr(r->path, "/stop?")) {
                fake_reply(r, "304 Not Modified", NULL);
        } else {
                fake_reply(r, "404 Not Found", "{\"message\":\"no\"}");
        }
}

void set_plan_of(struct world *w, const char *name, enum server_state state)
{
        struct key *key = key_get(&w->c, name);

        plan_server_free(key->plan);
        key->plan = NEW(struct plan_server);
        *key->plan = (struct plan_server){.name = mem_strdup(name), .state = state};
        if (state == SERVER_RUNNING) {
                key->plan->container = mem_strdup("x-aaaaaaaa");
                key->plan->id = mem_strdup(CONTAINER);
                key->plan->address = mem_strdup("10.213.0.2");
                key->plan->instance = mem_strdup("0123456789ab");
        }
}

void set_plan(struct world *w, int i, enum server_state state)
{
        set_plan_of(w, names[i], state);
}

int world_setup(void **state)
{
        struct world *w = NEW(struct world);

        w->x = fixture_new(play, w);
        strcpy(w->dir, "/tmp/bh-broker-XXXXXX");
        assert_non_null(mkdtemp(w->dir));
        snprintf(w->path, sizeof(w->path), "%s/link.sock", w->dir);
        w->conf = (struct conf){.audience = (char *)"host",
                                .max_starts = 4,
                                .broker_user = mem_strdup(getpwuid(getuid())->pw_name),
                                .link_socket = w->path,
                                .gateway_start_timeout_ms = 60000,
                                .gateway_max_instances = 2,
                                .gateway_max_memory = 1000};
        w->broker = w->fd = -1;
        w->attach = UPGRADED;
        w->record = (struct record){.kind = RECORD_APPROVAL, .id = (char *)"f-1"};
        for (int i = 0; i < SERVERS; i++) {
                w->entries[i] =
                        (struct registry_entry){.name = (char *)names[i], .enabled = true, .memory = 100, .idle_timeout_ms = 600000};
                w->servers[i] = (struct desired_server){.name = names[i],
                                                        .server = names[i],
                                                        .entry = &w->entries[i],
                                                        .record = &w->record,
                                                        .may_run = true,
                                                        .may_stay = true};
                w->servers[i].names = (struct instance_names){.container = (char *)"x-aaaaaaaa", .bridge = "bh1", .spec_hash = SPEC_A};
        }
        w->entries[LAZY].lifecycle = w->entries[OTHER].lifecycle = LIFECYCLE_ON_DEMAND;
        w->entries[WEB].transport = TRANSPORT_STREAMABLE_HTTP;
        w->entries[WEB].port = 3000;
        w->entries[WEB].path = (char *)"/mcp";
        w->shared = (struct shared){.refs = 1, .value = &w->view};
        w->desired = (struct desired){.refs = 99, .servers = w->servers, .n = SERVERS, .view = &w->shared};
        snprintf(w->instance.bridge, sizeof(w->instance.bridge), "bh1");
        w->instance.in_force = true;
        w->instances[0] = &w->instance;
        w->egress = (struct egress){.sound = true, .instances = w->instances, .n_instances = 1};
        w->c = (struct controller){.conf = &w->conf,
                                   .loop = w->x.loop,
                                   .engine = w->x.engine,
                                   .desired = &w->desired,
                                   .egress = &w->egress,
                                   .egress_ok = true,
                                   .observed_once = true,
                                   .passes = 1};
        for (int i = 0; i < SERVERS; i++)
                set_plan(w, i, i == LAZY || i == OTHER ? SERVER_STOPPED : SERVER_RUNNING);
        w->conf.state_dir = w->dir;
        w->c.smoked = smoked_load(&w->conf);
        w->c.broker = broker_new(&w->c);
        *state = w;
        return 0;
}

int world_teardown(void **state)
{
        struct world *w = *state;

        broker_free(w->c.broker);
        for (size_t i = 0; i < w->c.n_keys; i++)
                key_free(w->c.keys[i]);
        free(w->c.keys);
        fixture_deinit(&w->x);
        if (w->broker >= 0)
                close(w->broker);
        if (w->fd >= 0)
                close(w->fd);
        free(w->conf.broker_user);
        smoked_free(w->c.smoked);
        assert_int_equal(rmdir(w->dir), 0);
        free(w);
        return 0;
}

int dial(struct world *w)
{
        struct err *err = NULL;
        int fd = -1;

        assert_ok(channel_connect(&fd, w->path, getuid(), &err));
        return fd;
}

char *packet(struct world *w, int fd)
{
        static const char *const kinds[] = {"hello", "pins", "server", "gone", "synced", "stream", "refused"};
        static const char *const words[] = {"up", "asleep", "coming", "down"};
        _cleanup_(channel_message_deinit) struct channel_message m = {0};
        char text[4096], control[64];
        struct iovec iov = {text, sizeof(text)};
        struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
        struct err *err = NULL;
        ssize_t n = recvmsg(fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (n <= 0)
                return mem_strdup(n == 0 || errno == ECONNRESET ? "end" : "");
        assert_ok(channel_parse(&m, text, (size_t)n, &err));
        if (CMSG_FIRSTHDR(&h)) {
                assert_int_equal(m.kind, CHANNEL_STREAM);
                if (w->fd >= 0)
                        close(w->fd);
                memcpy(&w->fd, CMSG_DATA(CMSG_FIRSTHDR(&h)), sizeof(int));
        }
        const char *rest = m.kind == CHANNEL_SERVER ? words[m.entry.readiness] : m.kind == CHANNEL_REFUSED ? m.why : NULL;
        _cleanup_free_ char *serial = m.serial ? mem_printf("#%u", m.serial) : NULL;
        return mem_printf("%s%s%s%s%s%s", kinds[m.kind], m.entry.name ? " " : "", m.entry.name ? m.entry.name : "", serial ? serial : "",
                          rest ? " " : "", rest ? rest : "");
}

void hear(struct world *w, const char *want)
{
        _cleanup_buf_ struct buf all = {0};

        run_ms(&w->x, 50);
        buf_adds(&all, "");
        for (;;) {
                _cleanup_free_ char *p = packet(w, w->broker);
                if (*p)
                        buf_addf(&all, "%s%s", all.len ? ", " : "", p);
                if (!*p || str_eq(p, "end"))
                        break;
        }
        if (!strstr(all.data, want) || !*want)
                assert_string_equal(all.data, want);
}

void ask(struct world *w, const char *kind, const char *name)
{
        _cleanup_free_ char *text = mem_printf("{\"kind\":\"%s\",\"name\":\"%s\"}", kind, name);

        assert_int_equal(send(w->broker, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

void renew(struct world *w, const char *name, const char *instance)
{
        _cleanup_free_ char *text = mem_printf("{\"kind\":\"renew\",\"name\":\"%s\",\"instance\":\"%s\"}", name, instance);

        assert_int_equal(send(w->broker, text, strlen(text), MSG_NOSIGNAL), strlen(text));
        run_ms(&w->x, 50);
}

void begin_start_of(struct world *w, const char *name)
{
        struct key *key = key_get(&w->c, name);

        set_plan_of(w, name, SERVER_STARTING);
        key->plan->actions = NEW(struct action);
        key->plan->n_actions = 1;
        key->plan->actions[0] = (struct action){.kind = ACTION_START, .object = mem_strdup("o"), .id = mem_strdup(CONTAINER)};
        apply_begin(key);
        for (unsigned n = 0; n < 50 && key->busy; n++)
                run_ms(&w->x, 10);
        assert_false(key->busy);
}

void begin_start(struct world *w, int i)
{
        begin_start_of(w, names[i]);
}

void send_text(struct world *w, const char *text)
{
        assert_int_equal(send(w->broker, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}
