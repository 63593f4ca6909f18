/* The link between controller and broker: what a packet may say, and what the socket does with descriptors, strangers and silence. */
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/file.h"
#include "common/link/address.h"
#include "common/link/channel.h"
#include "common/manifest.h"

/* -- text --------------------------------------------------------------------------------------------------------------------- */

static int parse(struct channel_message *m, const char *text, struct err **err)
{
        return channel_parse(m, text, strlen(text), err);
}

static void refuse(const char *text, const char *part)
{
        struct channel_message m = {0};
        struct err *err = NULL;

        assert_fails(parse(&m, text, &err), part);
        assert_null(m.entry.name);
}

#define STDIO                                                                                                                              \
        "{\"kind\":\"server\",\"name\":\"a\",\"transport\":\"stdio\",\"lifecycle\":\"always-on\",\"per_session\":false,\"pinned\":false,"  \
        "\"idle_ms\":0,\"expires_at\":0"
#define HTTP                                                                                                                               \
        "{\"kind\":\"server\",\"name\":\"a\",\"transport\":\"sse\",\"lifecycle\":\"on-demand\",\"per_session\":true,\"pinned\":true,"      \
        "\"idle_ms\":5,\"expires_at\":0"

static void test_roundtrip(_unused_ void **state)
{
        char *tools[] = {"echo", "a \"quoted\" one", NULL}, *none[] = {NULL}, *actions[] = {"read echo", "exec a tool", NULL},
             *headers[] = {"X-Tenant: one", "X-B: a: b", NULL}, *pins[] = {"sha256//AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", NULL};
        struct channel_message m = {.kind = CHANNEL_SERVER,
                                    .entry = {.name = "web",
                                              .transport = TRANSPORT_STREAMABLE_HTTP,
                                              .lifecycle = LIFECYCLE_ON_DEMAND,
                                              .readiness = READINESS_UP,
                                              .instance = "0123456789ab",
                                              .address = "10.213.0.10",
                                              .port = 3000,
                                              .path = "/mcp",
                                              .tls_host = "mcp.example.com",
                                              .tls_pins = pins,
                                              .headers = headers,
                                              .prefix = "",
                                              .per_session = true,
                                              .tools = tools,
                                              .actions = actions,
                                              .idle_ms = 600000,
                                              .expires_at = 1893456000}};
        _cleanup_(channel_message_deinit) struct channel_message back = {0};
        _cleanup_(channel_entry_deinit) struct channel_entry copy = {0};
        struct err *err = NULL;

        _cleanup_free_ char *text = channel_format(&m);
        assert_ok(parse(&back, text, &err));
        assert_true(channel_entry_equal(&m.entry, &back.entry));
        channel_entry_copy(&copy, &back.entry);
        assert_true(channel_entry_equal(&m.entry, &copy));

        m.entry.headers = NULL;
        assert_false(channel_entry_equal(&m.entry, &copy));
        m.entry.headers = headers;
        m.entry.tls_pins = NULL;
        assert_false(channel_entry_equal(&m.entry, &copy));
        m.entry.tls_pins = pins;
        m.entry.tls_host = "mcp.example.org";
        assert_false(channel_entry_equal(&m.entry, &copy));
        m.entry.tls_host = "mcp.example.com";
        m.entry.actions = NULL;
        assert_false(channel_entry_equal(&m.entry, &copy));
        m.entry.actions = actions;

        /* No tool approved is not the same as none withheld, on the wire and in a copy. */
        m.entry.tools = none;
        assert_false(channel_entry_equal(&m.entry, &copy));
        _cleanup_free_ char *empty = channel_format(&m);
        channel_message_deinit(&back);
        assert_ok(parse(&back, empty, &err));
        assert_non_null(back.entry.tools);
        assert_null(back.entry.tools[0]);
        channel_entry_deinit(&copy);
        channel_entry_copy(&copy, &back.entry);
        assert_non_null(copy.tools);
        m.entry.tools = NULL;
        assert_false(channel_entry_equal(&m.entry, &copy));
}

static void test_kinds(_unused_ void **state)
{
        static const char *const good[] = {
                "{\"kind\":\"hello\",\"version\":1}",
                "{\"kind\":\"gone\",\"name\":\"a\"}",
                "{\"kind\":\"synced\"}",
                "{\"kind\":\"stream\",\"name\":\"a\",\"instance\":\"0123456789ab\"}",
                "{\"kind\":\"refused\",\"name\":\"a\",\"why\":\"no room\"}",
                "{\"kind\":\"start\",\"name\":\"a\"}",
                "{\"kind\":\"start\",\"name\":\"a\",\"serial\":4294967295,\"lists\":true}",
                "{\"kind\":\"stop\",\"name\":\"a\"}",
                "{\"kind\":\"stop\",\"name\":\"a\",\"serial\":1}",
                "{\"kind\":\"stream\",\"name\":\"a\",\"instance\":\"0123456789ab\",\"serial\":1}",
                "{\"kind\":\"renew\",\"name\":\"a\",\"instance\":\"0123456789ab\"}",
                "{\"kind\":\"calls\",\"serial\":1}",
                "{\"kind\":\"decide\",\"serial\":7,\"call\":\"c-0123456789abcdef\",\"approve\":true,\"valid_ms\":0,\"by\":\"alice\"}",
                "{\"kind\":\"call\",\"serial\":7,\"text\":\"{}\"}",
                "{\"kind\":\"done\",\"serial\":7,\"why\":\"no such call\"}",
                "{\"kind\":\"done\",\"serial\":7}",
                "{\"kind\":\"state\",\"troubles\":[]}",
                "{\"kind\":\"state\",\"troubles\":[\"the policy is not read\"]}",
                "{\"kind\":\"differs\",\"name\":\"a\",\"differs\":[]}",
                "{\"kind\":\"differs\",\"name\":\"a\",\"differs\":[\"tool x\"]}",
                "{\"kind\":\"pins\",\"name\":\"a\",\"pins\":[]}",
                STDIO ",\"readiness\":\"asleep\"}",
                STDIO ",\"readiness\":\"down\",\"down_why\":\"not approved\"}",
                HTTP ",\"readiness\":\"coming\",\"port\":80,\"path\":\"/mcp\"}",
        };

        for (size_t i = 0; i < ELEMENTSOF(good); i++) {
                _cleanup_(channel_message_deinit) struct channel_message m = {0}, again = {0};
                struct err *err = NULL;

                assert_ok(parse(&m, good[i], &err));
                _cleanup_free_ char *text = channel_format(&m);
                assert_ok(parse(&again, text, &err));
                assert_int_equal(m.kind, again.kind);
                assert_int_equal(m.serial, again.serial);
                assert_int_equal(m.lists, again.lists);
        }
}

static void test_refused_texts(_unused_ void **state)
{
        refuse("", "link message");
        refuse("[]", "not a JSON object");
        refuse("{}", "\"kind\"");
        refuse("{\"kind\":1}", "\"kind\"");
        refuse("{\"kind\":\"exec\",\"name\":\"a\"}", "\"kind\"");
        refuse("{\"kind\":\"hello\"}", "\"version\" is missing");
        refuse("{\"kind\":\"hello\",\"version\":\"1\"}", "\"version\"");
        refuse("{\"kind\":\"start\"}", "\"name\" is missing");
        refuse("{\"kind\":\"state\"}", "\"troubles\" is missing");
        refuse("{\"kind\":\"state\",\"troubles\":[\"a\\nb\"]}", "\"troubles\"");
        refuse("{\"kind\":\"state\",\"troubles\":[\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\"]}", "more than 8");
        refuse("{\"kind\":\"start\",\"name\":null}", "\"name\"");
        refuse("{\"kind\":\"start\",\"name\":\"../a\"}", "\"name\"");
        refuse("{\"kind\":\"start\",\"name\":\"a\",\"name\":\"b\"}", "name");
        /* What would let the broker choose. */
        refuse("{\"kind\":\"start\",\"name\":\"a\",\"image\":\"b\"}", "not known");
        refuse("{\"kind\":\"start\",\"name\":\"a\",\"tools\":[]}", "does not go with");
        refuse("{\"kind\":\"start\",\"name\":\"a\",\"instance\":\"0123456789ab\"}", "does not go with");
        refuse("{\"kind\":\"start\",\"name\":\"a.1\"}", "\"name\"");
        refuse("{\"kind\":\"start\",\"name\":\"a\",\"serial\":0}", "\"serial\"");
        refuse("{\"kind\":\"start\",\"name\":\"a\",\"serial\":4294967296}", "\"serial\"");
        refuse("{\"kind\":\"renew\",\"name\":\"a\",\"instance\":\"0123456789ab\",\"serial\":1}", "does not go with");
        refuse("{\"kind\":\"stop\",\"name\":\"a\",\"serial\":1,\"lists\":true}", "does not go with");
        refuse("{\"kind\":\"renew\",\"name\":\"a\"}", "\"instance\" is missing");
        refuse("{\"kind\":\"calls\"}", "\"serial\" is missing");
        refuse("{\"kind\":\"decide\",\"serial\":7,\"call\":\"f-0123456789abcdef\",\"approve\":true,\"valid_ms\":0,\"by\":\"a\"}",
               "\"call\"");
        refuse("{\"kind\":\"call\",\"serial\":7,\"text\":\"a\\nb\"}", "\"text\"");
        refuse("{\"kind\":\"renew\",\"name\":\"a\",\"instance\":\"0123456789AB\"}", "\"instance\"");
        refuse("{\"kind\":\"refused\",\"name\":\"a\",\"why\":\"a\\u001b[2J\"}", "\"why\"");
        refuse(STDIO "}", "\"readiness\" is missing");
        refuse(STDIO ",\"readiness\":\"up\"}", "\"instance\"");
        refuse(STDIO ",\"readiness\":\"down\"}", "down_why");
        refuse(STDIO ",\"readiness\":\"asleep\",\"down_why\":\"x\"}", "down_why");
        refuse(STDIO ",\"readiness\":\"asleep\",\"port\":80}", "HTTP server only");
        refuse(STDIO ",\"readiness\":\"asleep\",\"tools\":[1]}", "\"tools\"");
        refuse(STDIO ",\"readiness\":\"asleep\",\"tools\":\"echo\"}", "\"tools\"");
        refuse(STDIO ",\"readiness\":\"asleep\",\"actions\":[\"echo\"]}", "\"actions\"");
        refuse(STDIO ",\"readiness\":\"asleep\",\"actions\":[\" echo\"]}", "\"actions\"");
        refuse(STDIO ",\"readiness\":\"asleep\",\"prefix\":\"a b\"}", "\"prefix\"");
        refuse("{\"kind\":\"server\",\"name\":\"a\",\"transport\":\"stdio\",\"lifecycle\":\"on-demand\",\"per_session\":true,\"pinned\":"
               "false,"
               "\"idle_ms\":0,\"expires_at\":0,\"readiness\":\"up\",\"instance\":\"0123456789ab\"}",
               "is never \"up\" itself");
        refuse(HTTP ",\"readiness\":\"up\",\"instance\":\"0123456789ab\"}", "a place");
        refuse(HTTP ",\"readiness\":\"coming\",\"address\":\"localhost\"}", "\"address\"");
        refuse(HTTP ",\"readiness\":\"coming\",\"path\":\"mcp\"}", "\"path\"");
        refuse(HTTP ",\"readiness\":\"coming\",\"path\":\"/a b\"}", "\"path\"");
        refuse(HTTP ",\"readiness\":\"coming\",\"port\":0}", "\"port\"");
        refuse(HTTP ",\"readiness\":\"coming\",\"headers\":[\"X-A\"]}", "\"headers\"");
        refuse(HTTP ",\"readiness\":\"coming\",\"headers\":[\"X-A: b\\r\\nX-B: c\"]}", "\"headers\"");
        refuse(HTTP ",\"readiness\":\"coming\",\"tls_host\":\"a b\"}", "\"tls_host\"");
        refuse(HTTP ",\"readiness\":\"coming\",\"tls_host\":\"\"}", "\"tls_host\"");
        refuse(HTTP ",\"readiness\":\"coming\",\"tls_host\":\"a\",\"tls_pins\":[\"sha256//\"]}", "\"tls_pins\"");
        refuse(HTTP ",\"readiness\":\"coming\",\"tls_pins\":[\"sha256//AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"]}",
               "goes with an HTTP server");
        refuse(STDIO ",\"readiness\":\"asleep\",\"tls_host\":\"a\"}", "goes with an HTTP server");
}

static void test_fits(_unused_ void **state)
{
        struct channel_message m = {.kind = CHANNEL_SERVER, .entry = {.name = "a"}};

        assert_true(channel_fits(&m));
        for (unsigned i = 0; i < 1000; i++) {
                _cleanup_free_ char *tool = mem_printf("%0100u", i);
                m.entry.tools = strv_append(m.entry.tools, tool);
        }
        assert_false(channel_fits(&m));
        strv_free(m.entry.tools);
}

/* -- two ends in one loop ----------------------------------------------------------------------------------------------------- */

struct end {
        struct channel *c;
        unsigned messages, drained, closed;
        enum channel_kind last;
        char name[64];
        int fd; /* the last that came */
        char *why;
        bool free_in_message;
        struct channel_entry entry; /* the last that came */
};

struct fixture {
        sd_event *loop;
        struct end broker;
        int raw; /* the controller's end, by hand */
};

static void on_message(_unused_ struct channel *c, const struct channel_message *m, int fd, void *user)
{
        struct end *e = user;

        e->messages++;
        e->last = m->kind;
        channel_entry_deinit(&e->entry);
        channel_entry_copy(&e->entry, &m->entry);
        snprintf(e->name, sizeof(e->name), "%s", m->entry.name ? m->entry.name : "");
        if (fd >= 0) {
                if (e->fd >= 0)
                        close(e->fd);
                e->fd = fd;
        }
        if (e->free_in_message)
                e->c = channel_free(e->c);
}

static void on_closed(struct channel *c, const struct err *why, void *user)
{
        struct end *e = user;

        assert_ptr_equal(c, e->c);
        e->closed++;
        mem_replace(&e->why, mem_strdup(err_msg(why)));
        e->c = channel_free(e->c);
}

static void on_drained(_unused_ struct channel *c, void *user)
{
        ((struct end *)user)->drained++;
}

static const struct channel_events events = {.message = on_message, .closed = on_closed, .drained = on_drained};

static int setup(void **state)
{
        struct fixture *f = NEW(struct fixture);
        struct err *err = NULL;
        int pair[2];

        assert_true(sd_event_new(&f->loop) >= 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        f->broker.fd = -1;
        f->raw = pair[1];
        assert_ok(channel_new(&f->broker.c, f->loop, pair[0], true, &events, &f->broker, &err));
        *state = f;
        return 0;
}

static int teardown(void **state)
{
        struct fixture *f = *state;

        channel_free(f->broker.c);
        if (f->broker.fd >= 0)
                close(f->broker.fd);
        free(f->broker.why);
        channel_entry_deinit(&f->broker.entry);
        if (f->raw >= 0)
                close(f->raw);
        sd_event_unref(f->loop);
        free(f);
        return 0;
}

static void turn(struct fixture *f)
{
        while (sd_event_run(f->loop, 20000) > 0)
                ;
}

static unsigned open_fds(void)
{
        unsigned n = 0;

        for (int fd = 0; fd < 256; fd++)
                n += fcntl(fd, F_GETFD) >= 0;
        return n;
}

/* A packet by hand, with n descriptors of /dev/null. */
static void say(struct fixture *f, const char *text, size_t n)
{
        char control[CMSG_SPACE(8 * sizeof(int))] = {0};
        struct iovec iov = {(char *)text, strlen(text)};
        struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
        int fds[8] = {0};

        for (size_t i = 0; i < n; i++)
                fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (n) {
                h.msg_control = control;
                h.msg_controllen = CMSG_SPACE(n * sizeof(int));
                struct cmsghdr *m = CMSG_FIRSTHDR(&h);
                *m = (struct cmsghdr){.cmsg_len = CMSG_LEN(n * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
                memcpy(CMSG_DATA(m), fds, n * sizeof(int));
        }
        assert_int_equal(sendmsg(f->raw, &h, MSG_NOSIGNAL), strlen(text));
        for (size_t i = 0; i < n; i++)
                close(fds[i]);
}

#define STREAM "{\"kind\":\"stream\",\"name\":\"a\",\"instance\":\"0123456789ab\"}"

static void test_stream(void **state)
{
        struct fixture *f = *state;

        say(f, "{\"kind\":\"hello\",\"version\":1}", 0);
        say(f, STREAM, 1);
        turn(f);
        assert_int_equal(f->broker.messages, 2);
        assert_int_equal(f->broker.last, CHANNEL_STREAM);
        assert_string_equal(f->broker.name, "a");
        assert_true(f->broker.fd >= 0);
        assert_true(fcntl(f->broker.fd, F_GETFD) & FD_CLOEXEC);
        assert_int_equal(f->broker.closed, 0);
}

#define PIN_A            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define PIN_B            "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"
#define PINS(name, list) "{\"kind\":\"pins\",\"name\":\"" name "\",\"pins\":[" list "]}"

/* More than a packet holds, through a real socket, and as one entry again on the other side. */
static void test_pins(void **state)
{
        struct fixture *f = *state;
        struct end controller = {.fd = -1};
        struct channel_message m = {.kind = CHANNEL_SERVER, .entry = {.name = (char *)"a", .readiness = READINESS_ASLEEP, .pinned = true}};
        struct err *err = NULL;

        m.entry.pins = mem_alloc(3001 * sizeof(char *));
        for (unsigned i = 0; i < 3000; i++)
                m.entry.pins[i] = mem_printf("%043u", i);
        assert_ok(channel_new(&controller.c, f->loop, TAKE_FD(f->raw), false, &events, &controller, &err));
        channel_send(controller.c, &m, -1);
        turn(f);
        assert_int_equal(f->broker.closed, 0);
        assert_int_equal(f->broker.messages, 1);
        assert_true(channel_entry_equal(&f->broker.entry, &m.entry));
        strv_free(TAKE_PTR(m.entry.pins));
        channel_send(controller.c, &m, -1); /* none is no longer some */
        turn(f);
        assert_null(f->broker.entry.pins);
        assert_true(f->broker.entry.pinned);
        channel_free(controller.c);
}

static void expect_end(struct fixture *f, const char *part, unsigned fds_before)
{
        turn(f);
        assert_int_equal(f->broker.closed, 1);
        if (!strstr(f->broker.why, part))
                print_error("expected \"%s\" in: %s\n", part, f->broker.why);
        assert_non_null(strstr(f->broker.why, part));
        assert_int_equal(f->broker.fd, -1);
        assert_int_equal(open_fds(), fds_before - 1); /* the channel's own */
        turn(f);
        assert_int_equal(f->broker.closed, 1);
}

static void test_wrong_descriptors(void **state)
{
        static const struct {
                const char *text;
                size_t n;
                const char *part;
        } cases[] = {
                {STREAM, 2, "more than one descriptor"},
                {STREAM, 7, "more than one descriptor"},
                {STREAM, 0, "without a descriptor"},
                {"{\"kind\":\"synced\"}", 1, "with a message that has none"},
                {"no json", 1, "link message"},
                {"", 1, "link message"},
                {PINS("a", "\"" PIN_A "\""), 1, "with a message that has none"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                unsigned before = open_fds();
                say(*state, cases[i].text, cases[i].n);
                expect_end(*state, cases[i].part, before);
                teardown(state);
                setup(state);
        }
}

#define UNPINNED STDIO ",\"readiness\":\"asleep\"}"
#define B_SERVER                                                                                                                           \
        "{\"kind\":\"server\",\"name\":\"b\",\"transport\":\"stdio\",\"lifecycle\":\"always-on\",\"per_session\":false,\"pinned\":true,"   \
        "\"idle_ms\":0,\"expires_at\":0,"                                                                                                  \
        "\"readiness\":\"asleep\"}"

/* Pins go with the server that comes next, and with no other. */
static void test_wrong_pins(void **state)
{
        static const struct {
                const char *first, *then, *part;
        } cases[] = {
                {PINS("a", "\"" PIN_A "\""), "{\"kind\":\"synced\"}", "without their server"},
                {PINS("a", "\"" PIN_A "\""), B_SERVER, "without their server"},
                {PINS("a", "\"" PIN_A "\""), PINS("b", "\"" PIN_B "\""), "without their server"},
                {PINS("a", "\"" PIN_A "\""), UNPINNED, "not pinned"},
                {PINS("a", "\"" PIN_B "\""), PINS("a", "\"" PIN_A "\""), "not in order"},
                {PINS("a", "\"" PIN_A "\""), PINS("a", "\"" PIN_A "\""), "not in order"},
                {"{\"kind\":\"synced\"}", PINS("a", "\"short\""), "\"pins\""},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                unsigned before = open_fds();
                say(*state, cases[i].first, 0);
                say(*state, cases[i].then, 0);
                expect_end(*state, cases[i].part, before);
                teardown(state);
                setup(state);
        }
}

/* As many as a manifest may have, and not one more. */
static void test_too_many_pins(void **state)
{
        struct fixture *f = *state;
        unsigned before = open_fds();

        for (unsigned n = 0; n <= MANIFEST_MAX_PINS;) {
                _cleanup_buf_ struct buf b = {0};

                buf_adds(&b, "{\"kind\":\"pins\",\"name\":\"a\",\"pins\":[");
                for (unsigned i = 0; i < 1000 && (i == 0 || n < MANIFEST_MAX_PINS); i++)
                        buf_addf(&b, "%s\"%043u\"", i ? "," : "", n++);
                buf_adds(&b, "]}");
                say(f, b.data, 0);
                if (n <= MANIFEST_MAX_PINS) {
                        turn(f);
                        assert_int_equal(f->broker.closed, 0);
                }
        }
        expect_end(f, "too many of them", before);
}

static void test_wrong_packets(void **state)
{
        static const char *const texts[] = {"{\"kind\":\"start\",\"name\":\"a\"}", "{\"kind\":\"nothing\"}"};
        static const char *const parts[] = {"only the other side", "\"kind\""};

        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                unsigned before = open_fds();
                say(*state, texts[i], 0);
                expect_end(*state, parts[i], before);
                teardown(state);
                setup(state);
        }
        _cleanup_free_ char *longer = mem_alloc(CHANNEL_MAX_PACKET + 3);
        memset(longer, ' ', CHANNEL_MAX_PACKET + 2);
        unsigned before = open_fds();
        say(*state, longer, 0);
        expect_end(*state, "longer than 65536 bytes", before);
}

static void test_peer_leaves(void **state)
{
        struct fixture *f = *state;
        unsigned before = open_fds();

        say(f, "{\"kind\":\"gone\",\"name\":\"last\"}", 0);
        assert_true(channel_alive(f->broker.c));
        close(TAKE_FD(f->raw));
        assert_false(channel_alive(f->broker.c)); /* though what it said was not read yet */
        expect_end(f, "closed the link", before - 1);
        assert_string_equal(f->broker.name, "last");
}

/* A callback may free the channel, also with more to come. */
static void test_freed_in_message(void **state)
{
        struct fixture *f = *state;

        f->broker.free_in_message = true;
        for (unsigned i = 0; i < 5; i++)
                say(f, "{\"kind\":\"synced\"}", 0);
        turn(f);
        assert_int_equal(f->broker.messages, 1);
        assert_int_equal(f->broker.closed, 0);
}

/* -- sending ------------------------------------------------------------------------------------------------------------------- */

static void send_stream(struct channel *c, int fd)
{
        struct channel_message m = {.kind = CHANNEL_RENEW, .entry = {.name = "a", .instance = "0123456789ab"}};

        channel_send(c, &m, fd);
}

static void test_queue_drains(void **state)
{
        struct fixture *f = *state;
        char text[256];
        unsigned sent = 0, got = 0;

        while (channel_queued(f->broker.c) < 4096) {
                send_stream(f->broker.c, -1);
                assert_true(++sent < 100000);
        }
        assert_int_equal(f->broker.drained, 0);
        for (unsigned idle = 0; idle < 3; idle++) {
                while (recv(f->raw, text, sizeof(text), MSG_DONTWAIT) > 0) {
                        got++;
                        idle = 0;
                }
                sd_event_run(f->loop, 1000);
        }
        assert_int_equal(got, sent);
        assert_int_equal(channel_queued(f->broker.c), 0);
        assert_int_equal(f->broker.drained, 1);
        assert_int_equal(f->broker.closed, 0);
}

/* A peer that never reads costs a bounded amount, and its end closes the descriptors that waited. */
static void test_queue_is_bounded(void **state)
{
        struct fixture *f = *state;
        unsigned before = open_fds();
        char *tools[] = {NULL, NULL};
        struct channel_message m = {.kind = CHANNEL_SERVER, .entry = {.name = "a", .tools = tools}};
        _cleanup_free_ char *tool = mem_alloc(50001);

        tools[0] = memset(tool, 'x', 50000);
        for (unsigned i = 0; i < 20; i++)
                send_stream(f->broker.c, open("/dev/null", O_RDONLY | O_CLOEXEC));
        for (unsigned i = 0; i < 200 && f->broker.closed == 0; i++) {
                channel_send(f->broker.c, &m, i % 10 ? -1 : open("/dev/null", O_RDONLY | O_CLOEXEC));
                assert_true(channel_queued(f->broker.c) <= CHANNEL_MAX_QUEUED);
                assert_int_equal(f->broker.closed, 0); /* never from inside a call */
        }
        expect_end(f, "does not read", before);
}

static void test_too_long_is_not_sent(void **state)
{
        struct fixture *f = *state;
        char *tools[] = {NULL, NULL};
        struct channel_message m = {.kind = CHANNEL_SERVER, .entry = {.name = "a", .tools = tools}};
        _cleanup_free_ char *tool = mem_alloc(CHANNEL_MAX_PACKET + 1);
        unsigned before = open_fds();
        char byte;

        tools[0] = memset(tool, 'x', CHANNEL_MAX_PACKET);
        channel_send(f->broker.c, &m, open("/dev/null", O_RDONLY | O_CLOEXEC));
        turn(f);
        assert_int_equal(recv(f->raw, &byte, 1, MSG_DONTWAIT), -1);
        assert_int_equal(f->broker.closed, 0);
        assert_int_equal(open_fds(), before);
}

/* -- finding each other -------------------------------------------------------------------------------------------------------- */

struct place {
        char dir[64], path[96];
        sd_event *loop;
        int accepted;
};

static void on_accepted(int fd, void *user)
{
        struct place *p = user;

        if (p->accepted >= 0)
                close(p->accepted);
        p->accepted = fd;
}

static int place_setup(void **state)
{
        struct place *p = NEW(struct place);

        p->accepted = -1;
        strcpy(p->dir, "/tmp/bh-channel-XXXXXX");
        assert_non_null(mkdtemp(p->dir));
        assert_int_equal(chmod(p->dir, 0755), 0);
        snprintf(p->path, sizeof(p->path), "%s/link.sock", p->dir);
        assert_true(sd_event_new(&p->loop) >= 0);
        *state = p;
        return 0;
}

static int place_teardown(void **state)
{
        struct place *p = *state;

        if (p->accepted >= 0)
                close(p->accepted);
        sd_event_unref(p->loop);
        assert_int_equal(rmdir(p->dir), 0); /* and so the socket file is gone */
        free(p);
        return 0;
}

static void test_listen_and_connect(void **state)
{
        struct place *p = *state;
        struct channel_listener *l = NULL, *second = NULL;
        struct err *err = NULL;
        struct stat st;
        int fd = -1;

        assert_fails(channel_connect(&fd, p->path, getuid(), &err), "is bulkhead-controller running");
        assert_ok(channel_listen(&l, p->loop, p->path, -1, getuid(), on_accepted, p, &err));
        assert_int_equal(stat(p->path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0666);
        assert_fails(channel_listen(&second, p->loop, p->path, -1, getuid(), on_accepted, p, &err), "another process is listening");
        assert_ok(channel_connect(&fd, p->path, getuid(), &err));
        while (sd_event_run(p->loop, 20000) > 0)
                ;
        assert_true(p->accepted >= 0);
        assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), 1);
        close(fd);
        channel_listener_free(l);
}

static void test_other_users_do_not_get_in(void **state)
{
        struct place *p = *state;
        struct channel_listener *l = NULL;
        struct err *err = NULL;
        char byte;
        int fd = -1, status = -1;

        assert_ok(channel_listen(&l, p->loop, p->path, -1, getuid() + 1, on_accepted, p, &err));
        assert_ok(channel_connect(&fd, p->path, getuid(), &err));
        while (sd_event_run(p->loop, 20000) > 0)
                ;
        assert_int_equal(p->accepted, -1);
        assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
        close(fd);
        l = channel_listener_free(l);

        if (geteuid() != 0) {
                print_message("needs root to be another user; not run\n");
                return;
        }
        /* A listener that is neither the expected user nor root. */
        int listener = -1, ready[2];
        assert_int_equal(pipe(ready), 0);
        pid_t pid = fork();
        if (pid == 0) {
                struct sockaddr_un sa = {.sun_family = AF_UNIX};
                strcpy(sa.sun_path, p->path);
                listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
                if (bind(listener, (struct sockaddr *)&sa, sizeof(sa)) < 0 || setgroups(0, NULL) < 0 || setuid(65534) < 0 ||
                    listen(listener, 1) < 0)
                        _exit(1);
                (void)!write(ready[1], "x", 1);
                pause();
        }
        assert_int_equal(read(ready[0], &byte, 1), 1);
        assert_fails(channel_connect(&fd, p->path, 12345, &err), "neither the controller's user");
        assert_ok(channel_connect(&fd, p->path, 65534, &err));
        close(fd);
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        close(ready[0]);
        close(ready[1]);
        unlink(p->path);
}

#define pair_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_roundtrip),
                cmocka_unit_test(test_kinds),
                cmocka_unit_test(test_refused_texts),
                cmocka_unit_test(test_fits),
                pair_test(test_stream),
                pair_test(test_wrong_descriptors),
                pair_test(test_wrong_packets),
                pair_test(test_pins),
                pair_test(test_wrong_pins),
                pair_test(test_too_many_pins),
                pair_test(test_peer_leaves),
                pair_test(test_freed_in_message),
                pair_test(test_queue_drains),
                pair_test(test_queue_is_bounded),
                pair_test(test_too_long_is_not_sent),
                cmocka_unit_test_setup_teardown(test_listen_and_connect, place_setup, place_teardown),
                cmocka_unit_test_setup_teardown(test_other_users_do_not_get_in, place_setup, place_teardown),
        };

        signal(SIGPIPE, SIG_IGN);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
