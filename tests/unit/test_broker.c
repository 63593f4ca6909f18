/*
 * The controller's side of the link: what the broker is told, what it may ask for, and how a stream gets to it. Real sockets, a scripted
 * Engine, plans made by hand.
 */
#include "tests/unit/test_engine.h"

#include <errno.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "controller/catalogue.h"
#include "controller/controller.h"
#include "controller/egress/egress_private.h"

#define SPEC_A    "v1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define MANIFEST  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define CONTAINER "c000000000000000000000000000000000000000000000000000000000000001"

/* -- what is told, as a pure function ------------------------------------------------------------------------------------------ */

struct one {
        struct registry_entry entry;
        struct record record;
        struct desired_server server;
        struct plan_server plan;
        struct catalogue_facts facts;
};

static void one_init(struct one *w, enum transport transport, enum lifecycle lifecycle)
{
        *w = (struct one){.entry = {.name = (char *)"s", .enabled = true, .transport = transport, .lifecycle = lifecycle},
                          .record = {.id = (char *)"f-1"},
                          .plan = {.state = SERVER_RUNNING,
                                   .container = (char *)"s-aaaaaaaa",
                                   .id = (char *)CONTAINER,
                                   .address = (char *)"10.213.0.2",
                                   .instance = (char *)"0123456789ab"}};
        if (transport != TRANSPORT_STDIO) {
                w->entry.port = 3000;
                w->entry.path = (char *)"/mcp";
        }
        w->entry.idle_timeout_ms = 600000;
        w->server = (struct desired_server){.name = "s", .entry = &w->entry, .record = &w->record, .may_run = true, .may_stay = true};
        w->server.names = (struct instance_names){.container = (char *)"s-aaaaaaaa", .spec_hash = SPEC_A};
        w->facts = (struct catalogue_facts){.plan = &w->plan, .state = SERVER_RUNNING, .may_start = true};
}

/* "up 0123456789ab 10.213.0.2:3000/mcp", "down: why", "-" when it is not told. Owned. What is told can be read by the other side. */
static char *say(const struct one *w)
{
        _cleanup_(channel_message_deinit) struct channel_message back = {0};
        struct channel_message m = {.kind = CHANNEL_SERVER};
        static const char *const words[] = {"up", "asleep", "coming", "down"};
        _cleanup_buf_ struct buf text = {0};
        struct err *err = NULL;

        if (!catalogue_entry(&m.entry, &text, &w->server, &w->facts))
                return mem_strdup("-");
        _cleanup_free_ char *packet = channel_format(&m);
        assert_ok(channel_parse(&back, packet, strlen(packet), &err));
        const struct channel_entry *e = &back.entry;
        _cleanup_free_ char *place = e->address ? mem_printf(" %s:%u%s", e->address, e->port, e->path) : mem_strdup("");
        return mem_printf("%s%s%s%s%s%s", words[e->readiness], e->instance ? " " : "", e->instance ? e->instance : "", place,
                          e->why ? ": " : "", e->why ? e->why : "");
}

static void expect(const struct one *w, const char *want)
{
        _cleanup_free_ char *got = say(w);

        assert_string_equal(got, want);
}

static void test_tells_http(_unused_ void **state)
{
        struct one w;

        one_init(&w, TRANSPORT_STREAMABLE_HTTP, LIFECYCLE_ALWAYS_ON);
        expect(&w, "up 0123456789ab 10.213.0.2:3000/mcp");
        w.plan.address = NULL;
        expect(&w, "coming");
        w.plan.address = (char *)"10.213.0.2";
        w.plan.container = (char *)"s-bbbbbbbb"; /* of the spec before */
        expect(&w, "coming");
        w.facts.plan = NULL;
        expect(&w, "coming");
}

static void test_tells_stdio(_unused_ void **state)
{
        struct one w;

        one_init(&w, TRANSPORT_STDIO, LIFECYCLE_ALWAYS_ON);
        expect(&w, "coming"); /* it runs, and is started anew with a session */
        w.facts.session = "fedcba987654";
        expect(&w, "up fedcba987654");
        w.facts.session = NULL;
        w.facts.may_start = false;
        expect(&w, "down: it runs without a session, and nothing may be started now");
        w.facts.may_start = true;
        w.server.may_run = false; /* the approvals' tip is refused */
        expect(&w, "down: it runs without a session, and nothing may be started now");
        w.facts.session = "fedcba987654";
        expect(&w, "up fedcba987654");
}

static void test_tells_states(_unused_ void **state)
{
        struct one w;

        one_init(&w, TRANSPORT_STREAMABLE_HTTP, LIFECYCLE_ALWAYS_ON);
        w.facts.state = SERVER_STARTING;
        expect(&w, "coming");
        w.facts.state = SERVER_WAITING;
        w.facts.retry_in_ms = 500;
        expect(&w, "coming");
        w.facts.retry_in_ms = 60000;
        w.facts.why = "start s: \x1b[2J broke";
        expect(&w, "down: start s: \\x1b[2J broke");
        w.facts.why = NULL;
        w.facts.state = SERVER_BLOCKED;
        expect(&w, "down: it is not to be had now");
        /* Not approved any more, or while nothing may start: nobody is to know of it. */
        w.server.may_run = false;
        expect(&w, "-");
        w.server.may_stay = false;
        w.facts.state = SERVER_RUNNING;
        expect(&w, "-");
}

static void test_tells_on_demand(_unused_ void **state)
{
        struct one w;

        one_init(&w, TRANSPORT_STDIO, LIFECYCLE_ON_DEMAND);
        w.facts.plan = NULL;
        expect(&w, "asleep");
        w.facts.plan = &w.plan;
        w.facts.state = SERVER_STOPPED;
        expect(&w, "asleep");
        w.facts.called = true;
        expect(&w, "coming");
        w.facts.state = SERVER_QUARANTINED;
        w.facts.why = "manifest-mismatch";
        expect(&w, "down: manifest-mismatch");
}

static void test_tells_long_things(_unused_ void **state)
{
        struct one w;
        _cleanup_buf_ struct buf long_why = {0};
        _cleanup_strv_ char **tools = NULL;

        one_init(&w, TRANSPORT_STREAMABLE_HTTP, LIFECYCLE_ALWAYS_ON);
        w.facts.state = SERVER_ERROR;
        buf_adds(&long_why, "x");
        for (unsigned i = 0; i < 1000; i++)
                buf_adds(&long_why, "\xc3\xa9");
        w.facts.why = long_why.data;
        _cleanup_free_ char *got = say(&w); /* cut between characters: it was parsed */
        assert_int_equal(strlen(got), strlen("down: ") + 999);

        /* A list that the link cannot carry withholds the server, not the list. */
        w.facts.state = SERVER_RUNNING;
        for (unsigned i = 0; i < 700; i++) {
                _cleanup_free_ char *tool = mem_printf("%0100u", i);
                tools = strv_append(tools, tool);
        }
        w.record.tools = tools;
        expect(&w, "down: its approval names more tools than the gateway takes (64 KiB of names)");
        for (size_t i = 300; i < 700; i++)
                free(TAKE_PTR(tools[i]));
        expect(&w, "up 0123456789ab 10.213.0.2:3000/mcp");
}

/* -- admission ------------------------------------------------------------------------------------------------------------------ */

static void test_bucket(_unused_ void **state)
{
        struct bucket b = {0};
        uint64_t now = 1000000;

        for (unsigned i = 0; i < demand_starts.burst; i++)
                assert_true(bucket_take(&b, &demand_starts, now));
        assert_false(bucket_take(&b, &demand_starts, now));
        assert_false(bucket_take(&b, &demand_starts, now + demand_starts.refill_ms - 1));
        assert_true(bucket_take(&b, &demand_starts, now + demand_starts.refill_ms));
        assert_false(bucket_take(&b, &demand_starts, now + demand_starts.refill_ms));
        /* Halves of the time add up, and no more than the burst is saved. */
        assert_false(bucket_take(&b, &demand_starts, now + demand_starts.refill_ms * 3 / 2));
        assert_true(bucket_take(&b, &demand_starts, now + demand_starts.refill_ms * 2));
        now += UINT64_C(1) << 40;
        for (unsigned i = 0; i < demand_starts.burst; i++)
                assert_true(bucket_take(&b, &demand_starts, now));
        assert_false(bucket_take(&b, &demand_starts, now));
}

static void test_admission(_unused_ void **state)
{
        struct admission a = {.instances = 3, .max_instances = 4, .memory = 700 << 20, .max_memory = 1000 << 20};
        _cleanup_free_ char *fits = admission_refuses(&a, 300 << 20), *large = admission_refuses(&a, 301 << 20),
                            *huge = admission_refuses(&a, UINT64_MAX);

        assert_null(fits);
        assert_non_null(strstr(large, "gateway.max_memory"));
        assert_non_null(huge);
        a.instances = 4;
        _cleanup_free_ char *many = admission_refuses(&a, 1);
        assert_non_null(strstr(many, "gateway.max_instances"));
        a = (struct admission){.max_instances = 4, .memory = 2000, .max_memory = 1000}; /* the always-on ones alone are over it */
        _cleanup_free_ char *over = admission_refuses(&a, 1);
        assert_non_null(over);
}

/* -- a controller and a broker --------------------------------------------------------------------------------------------------- */

enum { ECHO, LAZY, OTHER, WEB, SERVERS };
static const char *const names[SERVERS] = {"echo", "lazy", "other", "web"};

struct world {
        struct fixture x;
        char dir[64], path[96];
        struct conf conf;
        struct controller c;
        struct registry_entry entries[SERVERS];
        struct record record;
        struct desired_server servers[SERVERS];
        struct forge_view view;
        struct shared shared;
        struct desired desired;
        struct observed observed;
        struct instance instance, *instances[1];
        struct egress egress;
        const char *attach; /* what the Engine answers an attach with */
        char got[32];       /* what came to it on the stream after the 101 */
        unsigned starts;
        int broker; /* the other end */
        int fd;     /* the last that came over */
};

#define UPGRADED "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"

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

static void set_plan_of(struct world *w, const char *name, enum server_state state)
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

static void set_plan(struct world *w, int i, enum server_state state)
{
        set_plan_of(w, names[i], state);
}

static int setup(void **state)
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

static int teardown(void **state)
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

static int dial(struct world *w)
{
        struct err *err = NULL;
        int fd = -1;

        assert_ok(channel_connect(&fd, w->path, getuid(), &err));
        return fd;
}

/* One packet by hand, as "kind name rest"; "" = none, "end" = the controller closed. */
static char *packet(struct world *w, int fd)
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

/* All that comes, joined by ", ". */
static void hear(struct world *w, const char *want)
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

static void ask(struct world *w, const char *kind, const char *name)
{
        _cleanup_free_ char *text = mem_printf("{\"kind\":\"%s\",\"name\":\"%s\"}", kind, name);

        assert_int_equal(send(w->broker, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void renew(struct world *w, const char *name, const char *instance)
{
        _cleanup_free_ char *text = mem_printf("{\"kind\":\"renew\",\"name\":\"%s\",\"instance\":\"%s\"}", name, instance);

        assert_int_equal(send(w->broker, text, strlen(text), MSG_NOSIGNAL), strlen(text));
        run_ms(&w->x, 50);
}

#define ALL "hello, server echo coming, server lazy asleep, server other asleep, server web up, synced"

static void test_catalogue(void **state)
{
        struct world *w = *state;

        w->broker = dial(w);
        hear(w, ALL);
        /* What did not change is not told again. */
        broker_tell(&w->c, false);
        hear(w, "");
        set_plan(w, WEB, SERVER_STARTING);
        set_plan(w, LAZY, SERVER_RUNNING);
        broker_tell(&w->c, true); /* nobody has looked yet: only what may not be called is news */
        hear(w, "");
        broker_tell(&w->c, false);
        hear(w, "server lazy coming, server web coming");
        /* Revoked: at once. And what nothing declares. */
        w->servers[ECHO].may_run = w->servers[ECHO].may_stay = false;
        broker_tell(&w->c, true);
        hear(w, "gone echo");
        w->desired.n = SERVERS - 1;
        broker_tell(&w->c, true);
        hear(w, "gone web");
        w->desired.n = SERVERS;
        broker_tell(&w->c, false);
        hear(w, "server web coming");
}

/* Before the inputs are known nothing is told; an empty catalogue is something else. */
static void test_nothing_is_known_yet(void **state)
{
        struct world *w = *state;

        w->c.desired = NULL;
        w->broker = dial(w);
        hear(w, "hello");
        ask(w, "start", "lazy");
        hear(w, "refused lazy no server of that name may be called");
        w->c.desired = &w->desired;
        w->c.passes = 0; /* the Engine was looked at, and nothing was compared with it: what runs would be told as to come */
        broker_tell(&w->c, false);
        hear(w, "");
        w->c.passes = 1;
        broker_tell(&w->c, false);
        hear(w, "synced");
}

/* A large catalogue goes at the pace of who reads it, and all of it arrives. */
static void test_large_catalogue(void **state)
{
        struct world *w = *state;
        struct registry_entry *entries = NEW_N(struct registry_entry, 2000);
        struct desired_server *servers = NEW_N(struct desired_server, 2000);
        _cleanup_strv_ char **tools = NULL;
        unsigned told = 0, synced = 0;

        for (unsigned i = 0; i < 20; i++) {
                _cleanup_free_ char *tool = mem_printf("%0100u", i);
                tools = strv_append(tools, tool);
        }
        w->record.tools = tools;
        for (unsigned i = 0; i < 2000; i++) {
                entries[i] = w->entries[ECHO];
                servers[i] = w->servers[ECHO];
                servers[i].name = entries[i].name = mem_printf("s%04u", i);
                servers[i].entry = &entries[i];
        }
        w->desired.servers = servers;
        w->desired.n = 2000;
        w->broker = dial(w);
        for (unsigned idle = 0; idle < 3; idle++) {
                run_ms(&w->x, 1);
                for (;;) {
                        _cleanup_free_ char *p = packet(w, w->broker);
                        assert_string_not_equal(p, "end");
                        if (!*p)
                                break;
                        told += str_has_prefix(p, "server ");
                        synced += str_eq(p, "synced");
                        idle = 0;
                }
        }
        assert_int_equal(told, 2000);
        assert_int_equal(synced, 1);
        broker_free(TAKE_PTR(w->c.broker));
        for (unsigned i = 0; i < 2000; i++)
                free(entries[i].name);
        free(entries);
        free(servers);
}

static void test_calls(void **state)
{
        struct world *w = *state;
        struct key *lazy = key_get(&w->c, "lazy");

        w->broker = dial(w);
        hear(w, ALL);
        ask(w, "start", "lazy");
        hear(w, "");
        assert_true(lazy->demand.called);
        ask(w, "start", "lazy"); /* another caller */
        hear(w, "");
        assert_int_equal(lazy->demand.starts.used, 1);
        ask(w, "stop", "lazy");
        hear(w, "");
        assert_false(lazy->demand.called);
        /* What it may not. */
        ask(w, "start", "echo");
        hear(w, "refused echo it is no on-demand server");
        ask(w, "stop", "echo");
        hear(w, "refused echo it is no on-demand server");
        ask(w, "start", "nobody");
        hear(w, "refused nobody no server of that name");
        w->servers[OTHER].may_run = w->servers[OTHER].may_stay = false;
        ask(w, "start", "other");
        hear(w, "refused other no server of that name");
        assert_false(key_get(&w->c, "other")->demand.called);
        /* Not to be had: the caller is not left waiting. */
        set_plan(w, LAZY, SERVER_QUARANTINED);
        lazy->plan->why = mem_strdup("manifest-mismatch");
        ask(w, "start", "lazy");
        hear(w, "refused lazy manifest-mismatch");
}

/* What was approved of each item goes along, and without it nobody may call a server. */
static void test_pins_are_told(void **state)
{
        struct world *w = *state;
        _cleanup_free_ char *path = mem_printf("%s/smoked.json", w->dir);
        struct err *err = NULL;
        char **pins = NULL;

        w->record.manifest_sha256 = (char *)MANIFEST;
        w->broker = dial(w);
        hear(w, "hello, server echo coming, server lazy asleep, server other asleep, server web coming, synced");
        pins = strv_append(pins, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        assert_ok(smoked_remember(w->c.smoked, &w->conf, SPEC_A, MANIFEST, pins, &err));
        broker_tell(&w->c, false);
        hear(w, "pins echo, server echo coming, pins lazy, server lazy asleep, pins other, server other asleep, pins web, server web up");
        /* They survive a restart. */
        smoked_free(w->c.smoked);
        w->c.smoked = smoked_load(&w->conf);
        assert_string_equal(smoked_manifest(w->c.smoked, SPEC_A), MANIFEST);
        assert_int_equal(strv_len(smoked_pins(w->c.smoked, SPEC_A)), 1);
        broker_tell(&w->c, false);
        hear(w, "");
        assert_int_equal(unlink(path), 0);
}

/* What the broker withholds is for people to see, as long as it says so. */
static void test_differs(void **state)
{
        static const char some[] = "{\"kind\":\"differs\",\"name\":\"echo\",\"differs\":[\"tool a\",\"prompt b\"]}",
                          none[] = "{\"kind\":\"differs\",\"name\":\"echo\",\"differs\":[]}";
        struct world *w = *state;
        const struct key *echo = key_get(&w->c, "echo");

        w->broker = dial(w);
        hear(w, ALL);
        for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(send(w->broker, some, strlen(some), MSG_NOSIGNAL), strlen(some));
                run_ms(&w->x, 50);
                assert_int_equal(strv_len(echo->differs), 2);
                assert_string_equal(echo->differs[0], "tool a");
                if (i == 0)
                        assert_int_equal(send(w->broker, none, strlen(none), MSG_NOSIGNAL), strlen(none));
                else
                        close(TAKE_FD(w->broker));
                run_ms(&w->x, 50);
                assert_null(echo->differs);
        }
}

static int on_pass(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        ++*(unsigned *)user;
        return 0;
}

/* A broker that says the same again and again makes the controller look at the Engine once. */
static void test_flood_of_questions(void **state)
{
        struct world *w = *state;
        unsigned passes = 0;

        w->broker = dial(w);
        hear(w, ALL);
        assert_true(sd_event_add_time_relative(w->c.loop, &w->c.pass_timer, CLOCK_MONOTONIC, 0, 1, on_pass, &passes) >= 0);
        assert_true(sd_event_source_set_enabled(w->c.pass_timer, SD_EVENT_OFF) >= 0);
        for (unsigned i = 0; i < 100; i++) {
                ask(w, "start", "lazy");
                run_ms(&w->x, 1);
        }
        hear(w, "");
        assert_int_equal(passes, 1);
        for (unsigned i = 0; i < 100; i++) {
                ask(w, "stop", "lazy");
                run_ms(&w->x, 1);
        }
        hear(w, "");
        assert_int_equal(passes, 2);
        sd_event_source_disable_unref(w->c.pass_timer);
        w->c.pass_timer = NULL;
}

static void test_caps(void **state)
{
        struct world *w = *state;

        w->broker = dial(w);
        hear(w, ALL);
        w->conf.gateway_max_instances = 1;
        ask(w, "start", "lazy");
        ask(w, "start", "other");
        hear(w, "refused other 1 on-demand servers run already");
        w->conf.gateway_max_instances = 2;
        w->conf.gateway_max_memory = 399; /* echo, web and lazy have 100 each */
        ask(w, "start", "other");
        hear(w, "refused other there is no memory for it");
        w->conf.gateway_max_memory = 400;
        ask(w, "start", "other");
        hear(w, "");
        for (unsigned i = 0; i < demand_starts.burst; i++) {
                ask(w, "stop", "other");
                ask(w, "start", "other");
        }
        hear(w, "refused other it was started 10 times in a row");
        assert_false(key_get(&w->c, "other")->demand.called);
}

static void test_demand_ends(void **state)
{
        struct world *w = *state;
        struct key *lazy = key_get(&w->c, "lazy"), *other = key_get(&w->c, "other");
        struct observed_container runs = {
                .server = (char *)"lazy", .state = (char *)"running", .ours = true, .current = true, .id = (char *)CONTAINER};

        /* What ran when the controller came up is wanted, as long as a broker may still come back for it. */
        w->observed = (struct observed){.containers = &runs, .n_containers = 1};
        demand_review(&w->c, &w->observed);
        assert_true(lazy->demand.called);
        assert_false(other->demand.called);
        w->entries[LAZY].idle_timeout_ms = 0;
        demand_review(&w->c, &w->observed);
        assert_false(lazy->demand.called);
        demand_review(&w->c, &w->observed); /* what runs later is not wanted for that */
        assert_false(lazy->demand.called);
        /* With a broker it is the broker that says when. */
        w->broker = dial(w);
        hear(w, ALL);
        ask(w, "start", "lazy");
        hear(w, "");
        set_plan(w, LAZY, SERVER_RUNNING);
        lazy->demand.asked_ms = 0;
        demand_review(&w->c, &w->observed);
        assert_true(lazy->demand.called);
        /* It does not come up, and nobody asks again. */
        set_plan(w, LAZY, SERVER_WAITING);
        demand_review(&w->c, &w->observed);
        assert_true(lazy->demand.called);
        lazy->demand.asked_ms = controller_now_ms() - 60001;
        demand_review(&w->c, &w->observed);
        assert_false(lazy->demand.called);
        /* The approval ends. */
        ask(w, "start", "lazy");
        hear(w, "");
        w->servers[LAZY].may_run = w->servers[LAZY].may_stay = false;
        demand_review(&w->c, &w->observed);
        assert_false(lazy->demand.called);
}

/* -- streams --------------------------------------------------------------------------------------------------------------------- */

static void begin_start_of(struct world *w, const char *name)
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

static void begin_start(struct world *w, int i)
{
        begin_start_of(w, names[i]);
}

static void test_stream(void **state)
{
        struct world *w = *state;
        struct key *echo = key_get(&w->c, "echo");
        char text[32] = "";

        w->broker = dial(w);
        hear(w, ALL);
        begin_start(w, ECHO);
        hear(w, "stream echo");
        assert_true(w->fd >= 0);
        assert_int_equal(w->starts, 1);
        assert_string_equal(echo->session.container, CONTAINER);
        assert_int_equal(echo->session.fd, -1);
        /* It is the stream itself: nobody of ours reads or writes between. */
        assert_int_equal(write(w->fd, "question", 8), 8);
        for (unsigned i = 0; i < 100 && read(w->fd, text, sizeof(text) - 1) <= 0; i++)
                run_ms(&w->x, 10);
        assert_string_equal(text, "answer");
        assert_string_equal(w->got, "question");
        set_plan(w, ECHO, SERVER_RUNNING);
        broker_tell(&w->c, false);
        hear(w, "server echo up");
        /* HTTP servers have none. */
        begin_start(w, WEB);
        hear(w, "");
        assert_int_equal(w->starts, 2);
        assert_int_equal(fake_engine_count(w->x.fake, "/attach?"), 1);
}

static void test_no_stream_without_a_broker(void **state)
{
        struct world *w = *state;

        begin_start(w, ECHO);
        assert_int_equal(w->starts, 1);
        assert_int_equal(fake_engine_count(w->x.fake, "/attach?"), 0);
}

/* Not one byte may be lost with the head, and nothing but a 101 is a stream. */
static void test_bad_attach(void **state)
{
        struct world *w = *state;
        struct key *echo = key_get(&w->c, "echo");
        static const struct {
                const char *answer, *why;
        } cases[] = {
                {UPGRADED "early", "was not started yet"},
                {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "did not switch"},
                {"HTTP/1.1 409 Conflict\r\nContent-Length: 20\r\n\r\n{\"message\":\"paused\"}", "paused"},
        };

        w->broker = dial(w);
        hear(w, ALL);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                w->attach = cases[i].answer;
                begin_start(w, ECHO);
                if (!echo->error || !strstr(echo->error, cases[i].why))
                        print_error("expected \"%s\" in: %s\n", cases[i].why, echo->error ? echo->error : "-");
                assert_non_null(strstr(echo->error, cases[i].why));
                assert_int_equal(echo->session.fd, -1);
                hear(w, "");
        }
        assert_int_equal(w->starts, 0);
}

static void test_renew(void **state)
{
        struct world *w = *state;
        struct key *echo = key_get(&w->c, "echo");
        char instance[CHANNEL_INSTANCE_HEX + 1];

        w->broker = dial(w);
        hear(w, ALL);
        for (unsigned round = 1; round <= 4; round++) {
                begin_start(w, ECHO);
                hear(w, "stream echo");
                set_plan(w, ECHO, SERVER_RUNNING);
                renew(w, "echo", "ffffffffffff"); /* of a session that is history */
                assert_non_null(echo->session.container);
                strcpy(instance, echo->session.instance);
                renew(w, "echo", instance);
                assert_null(echo->session.container);
                assert_int_equal(echo->failures, round);
                /* The first at once, then later and later. */
                assert_int_equal(echo->retry_at_ms == 0, round == 1);
                renew(w, "echo", instance);
                assert_int_equal(echo->failures, round);
        }
        assert_int_equal(echo->restarts, 4);
        /* It ended, that was seen and counted, and only then the broker says so. */
        begin_start(w, ECHO);
        hear(w, "stream echo");
        key_count_end(echo);
        renew(w, "echo", echo->session.instance);
        assert_int_equal(echo->failures, 5);
        assert_null(echo->session.container);
}

/* An HTTP server that hangs: an end like any other, once for each run of it. */
static void test_renew_http(void **state)
{
        struct world *w = *state;
        struct key *web = key_get(&w->c, "web");

        w->broker = dial(w);
        hear(w, ALL);
        renew(w, "web", "ffffffffffff");
        assert_null(web->hung);
        for (unsigned i = 0; i < 3; i++)
                renew(w, "web", "0123456789ab");
        assert_string_equal(web->hung, "0123456789ab");
        assert_int_equal(web->failures, 1);
        assert_int_equal(web->restarts, 1);
        assert_int_equal(web->retry_at_ms, 0);
        strcpy(web->plan->instance, "0123456789ac"); /* it was started anew, and hangs again: later */
        web->exit_counted = false;
        renew(w, "web", "0123456789ac");
        assert_int_equal(web->failures, 2);
        assert_true(web->retry_at_ms > 0);
        /* What runs elsewhere is nobody's here to start. */
        w->entries[WEB].source = SOURCE_URL;
        strcpy(web->plan->instance, "0123456789ad");
        hear(w, "");
        renew(w, "web", "0123456789ad");
        hear(w, "refused web it runs elsewhere");
        assert_int_equal(web->failures, 2);
}

/* -- an instance for every session ------------------------------------------------------------------------------------------------ */

#define PLACES 3U

/* "lazy" has two places, and one for lists; in the order of names. */
static void have_places(struct world *w, struct desired_server servers[SERVERS + PLACES])
{
        static const char *const place[PLACES] = {"lazy.1", "lazy.2", "lazy.3"};

        servers[0] = w->servers[ECHO];
        servers[1] = w->servers[LAZY];
        for (unsigned i = 0; i < PLACES; i++) {
                servers[2 + i] = w->servers[LAZY];
                servers[2 + i].name = place[i];
                servers[2 + i].place = i + 1;
        }
        servers[2 + PLACES] = w->servers[OTHER];
        servers[3 + PLACES] = w->servers[WEB];
        w->entries[LAZY].sharing = SHARING_PER_SESSION;
        w->entries[LAZY].lifecycle = LIFECYCLE_ALWAYS_ON;
        w->desired.servers = servers;
        w->desired.n = SERVERS + PLACES;
        w->conf.gateway_max_server_instances = 2;
        w->conf.gateway_max_instances = 10;
        w->broker = dial(w);
        hear(w, ALL); /* and of the places nothing */
}

static void send_text(struct world *w, const char *text)
{
        assert_int_equal(send(w->broker, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void ask_for(struct world *w, const char *kind, const char *name, unsigned serial)
{
        _cleanup_free_ char *text = mem_printf("{\"kind\":\"%s\",\"name\":\"%s\",\"serial\":%u}", kind, name, serial);

        send_text(w, text);
}

static bool is_called(struct world *w, const char *name)
{
        const struct key *key = key_find(&w->c, name);

        return key && key->demand.called;
}

static void test_places(void **state)
{
        struct world *w = *state;
        struct desired_server servers[SERVERS + PLACES];

        have_places(w, servers);
        ask_for(w, "start", "lazy", 7);
        ask_for(w, "start", "lazy", 8);
        hear(w, "");
        assert_true(is_called(w, "lazy.1") && is_called(w, "lazy.2") && !is_called(w, "lazy"));
        ask_for(w, "start", "lazy", 9);
        hear(w, "refused lazy#9 2 sessions have an instance of it (gateway.max_server_instances)");
        ask_for(w, "start", "lazy", 8);
        hear(w, "refused lazy#8 it has an instance of that number");
        ask_for(w, "stop", "lazy", 9);
        hear(w, "");
        ask_for(w, "stop", "lazy", 7);
        hear(w, "");
        assert_true(!is_called(w, "lazy.1") && is_called(w, "lazy.2"));
        ask_for(w, "start", "lazy", 10);
        hear(w, "");
        assert_int_equal(key_get(&w->c, "lazy.1")->demand.serial, 10);
        /* To look at what there is takes none of them; and there is one only. */
        ask_for(w, "start", "lazy", 20);
        hear(w, "refused lazy#20 2 sessions");
        send_text(w, "{\"kind\":\"start\",\"name\":\"lazy\",\"serial\":21,\"lists\":true}");
        hear(w, "");
        assert_true(is_called(w, "lazy.3"));
        send_text(w, "{\"kind\":\"start\",\"name\":\"lazy\",\"serial\":22,\"lists\":true}");
        hear(w, "refused lazy#22 it has an instance for lists");
        ask_for(w, "stop", "lazy", 21);
        hear(w, "");
        assert_false(is_called(w, "lazy.3"));
        /* One for all, and one for a session, are not the same thing. */
        ask(w, "start", "lazy");
        hear(w, "refused lazy it has an instance for every session");
        ask_for(w, "start", "other", 11);
        hear(w, "refused other#11 it has one instance for all sessions");
        ask_for(w, "start", "nobody", 12);
        hear(w, "refused nobody#12 no server of that name");
        /* Memory counts each of them: echo, web, lazy.1 and lazy.2 have 100. */
        ask_for(w, "stop", "lazy", 10);
        w->conf.gateway_max_memory = 399;
        ask_for(w, "start", "lazy", 13);
        hear(w, "refused lazy#13 there is no memory for it");
        w->conf.gateway_max_memory = 400;
        ask_for(w, "start", "lazy", 14);
        hear(w, "");
        assert_int_equal(demand_admission(&w->c).instances, 2);
}

static void test_place_does_not_come(void **state)
{
        struct world *w = *state;
        struct desired_server servers[SERVERS + PLACES];

        have_places(w, servers);
        ask_for(w, "start", "lazy", 7);
        ask_for(w, "start", "lazy", 8);
        hear(w, "");
        set_plan_of(w, "lazy.1", SERVER_ERROR);
        key_get(&w->c, "lazy.1")->plan->why = mem_strdup("no\n\"disk\"");
        set_plan_of(w, "lazy.2", SERVER_STARTING);
        broker_tell(&w->c, false);
        hear(w, "refused lazy#7 no\\x0a\"disk\"");
        assert_true(!is_called(w, "lazy.1") && is_called(w, "lazy.2"));
}

static void test_place_stream(void **state)
{
        struct world *w = *state;
        struct desired_server servers[SERVERS + PLACES];
        struct key *key;

        have_places(w, servers);
        key = key_get(&w->c, "lazy.1");
        begin_start_of(w, "lazy.1"); /* nobody wants it (any more) */
        assert_int_equal(w->starts, 0);
        ask_for(w, "start", "lazy", 6);
        hear(w, "");
        assert_true(is_called(w, "lazy.2")); /* in the other one something is left to do */
        set_plan_of(w, "lazy.1", SERVER_STOPPED);
        ask_for(w, "start", "lazy", 7);
        hear(w, "");
        begin_start_of(w, "lazy.1");
        hear(w, "stream lazy#7");
        assert_string_equal(key->session.container, CONTAINER);
        ask_for(w, "stop", "lazy", 7);
        hear(w, "");
        assert_null(key->session.container);
}

static void test_place_ends(void **state)
{
        struct world *w = *state;
        struct desired_server servers[SERVERS + PLACES];
        struct observed_container runs = {
                .server = (char *)"lazy.1", .state = (char *)"running", .ours = true, .current = true, .id = (char *)CONTAINER};

        have_places(w, servers);
        w->observed = (struct observed){.containers = &runs, .n_containers = 1};
        demand_review(&w->c, &w->observed); /* of what ran before us nobody has the stream */
        assert_false(is_called(w, "lazy.1"));
        for (unsigned i = 0; i < 2; i++) {
                ask_for(w, "start", "lazy", 7 + i);
                hear(w, "");
                begin_start_of(w, "lazy.1");
                hear(w, "stream lazy");
                set_plan_of(w, "lazy.1", SERVER_RUNNING);
                runs.state = (char *)"exited";
                demand_review(&w->c, &w->observed); /* the look began before it started */
                assert_true(is_called(w, "lazy.1"));
                w->c.pass_began_us = controller_now_us() + 1;
                if (i == 0)
                        demand_review(&w->c, &w->observed);
                else
                        close(TAKE_FD(w->broker));
                run_ms(&w->x, 50);
                assert_false(is_called(w, "lazy.1"));
                assert_null(key_get(&w->c, "lazy.1")->session.container);
                w->c.pass_began_us = 0;
        }
        assert_int_equal(key_get(&w->c, "lazy.1")->failures, 0);
}

static void test_one_broker(void **state)
{
        struct world *w = *state;
        struct key *echo = key_get(&w->c, "echo");

        w->broker = dial(w);
        hear(w, ALL);
        int second = dial(w);
        run_ms(&w->x, 50);
        _cleanup_free_ char *nothing = packet(w, second);
        assert_string_equal(nothing, "end");
        close(second);
        assert_true(broker_linked(w->c.broker));
        begin_start(w, ECHO);
        hear(w, "stream echo");
        /* It dies: its streams are gone with it, which is no fault of the servers. The next one is told all anew. */
        close(w->broker);
        w->broker = dial(w);
        hear(w, ALL);
        assert_null(echo->session.container);
        assert_true(echo->exit_counted);
        assert_int_equal(echo->failures, 0);
        close(TAKE_FD(w->broker));
        run_ms(&w->x, 50);
        assert_false(broker_linked(w->c.broker));
        assert_true(broker_alone_since_ms(&w->c) > 0);
        /* One that breaks the format is none. */
        w->broker = dial(w);
        hear(w, ALL);
        assert_int_equal(send(w->broker, "{\"kind\":\"synced\"}", 17, MSG_NOSIGNAL), 17);
        hear(w, "end");
        assert_false(broker_linked(w->c.broker));
}

/* While a new version comes up, the one before goes on. */
static void test_rollout(void **state)
{
        struct world *w = *state;
        struct key *web = key_get(&w->c, "web");

        w->broker = dial(w);
        hear(w, ALL);
        set_plan(w, WEB, SERVER_STARTING);
        web->plan->older = mem_strdup(CONTAINER);
        broker_tell(&w->c, false);
        hear(w, "");
        web->plan->older[0] = 'f'; /* another one: the one that was told is gone */
        broker_tell(&w->c, false);
        hear(w, "server web coming");
}

static void test_no_place_to_listen(void **state)
{
        struct world *w = *state;
        char *user = w->conf.broker_user;

        broker_free(TAKE_PTR(w->c.broker));
        w->conf.broker_user = (char *)"nobody-of-that-name";
        w->c.broker = broker_new(&w->c);
        _cleanup_json_ json_object *nobody = broker_json(&w->c);
        assert_false(json_flag(nobody, "listening", true));
        assert_non_null(strstr(json_str(nobody, "error"), "network.broker_user"));
        broker_free(w->c.broker);
        w->conf.broker_user = user;
        w->conf.link_socket = (char *)"/nonexistent/link.sock";
        w->c.broker = broker_new(&w->c);
        _cleanup_json_ json_object *nowhere = broker_json(&w->c);
        assert_non_null(strstr(json_str(nowhere, "error"), "/nonexistent"));
        w->conf.link_socket = w->path;
        broker_listen(w->c.broker);
        _cleanup_json_ json_object *there = broker_json(&w->c);
        assert_true(json_flag(there, "listening", false));
        assert_null(json_str(there, "error"));
}

#define world_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_tells_http),
                cmocka_unit_test(test_tells_stdio),
                cmocka_unit_test(test_tells_states),
                cmocka_unit_test(test_tells_on_demand),
                cmocka_unit_test(test_tells_long_things),
                cmocka_unit_test(test_bucket),
                cmocka_unit_test(test_admission),
                world_test(test_catalogue),
                world_test(test_nothing_is_known_yet),
                world_test(test_large_catalogue),
                world_test(test_calls),
                world_test(test_pins_are_told),
                world_test(test_differs),
                world_test(test_flood_of_questions),
                world_test(test_caps),
                world_test(test_demand_ends),
                world_test(test_stream),
                world_test(test_no_stream_without_a_broker),
                world_test(test_bad_attach),
                world_test(test_renew),
                world_test(test_renew_http),
                world_test(test_places),
                world_test(test_place_does_not_come),
                world_test(test_place_stream),
                world_test(test_place_ends),
                world_test(test_one_broker),
                world_test(test_rollout),
                world_test(test_no_place_to_listen),
        };
        return cmocka_run_group_tests_name("broker", tests, NULL, NULL);
}
