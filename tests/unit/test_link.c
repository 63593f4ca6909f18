/* The link: what each end does with requests, garbage, silence and departures. Server in a child process or in this loop; real sockets. */
#include "tests/unit/test.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "common/link/line.h"

struct fixture {
        char dir[64], path[96];
        sd_event *loop;
        struct link_server *server;
        struct link_conn *held; /* a request that was not answered yet */
        unsigned requests;
        struct link_peer peer;
};

static void on_request(struct link_conn *c, const struct link_peer *peer, json_object *request, void *user)
{
        struct fixture *f = user;
        const char *verb = json_str(request, "verb");

        f->requests++;
        f->peer = *peer;
        if (str_eq(verb, "hold")) {
                f->held = c;
        } else if (str_eq(verb, "progress")) {
                json_object *p = json_object_new_object();
                json_add_int(p, "step", 1);
                link_progress(c, p);
                link_answer(c, NULL);
        } else if (str_eq(verb, "fail")) {
                link_fail(c, 77, "operators only\nand nobody else");
        } else if (str_eq(verb, "large")) {
                _cleanup_free_ char *text = mem_alloc(LINK_MAX_LINE + 1);
                memset(text, 'x', LINK_MAX_LINE);
                link_answer(c, json_object_new_string(text));
        } else {
                json_object *answer = json_object_new_object();
                json_add_str(answer, "you-said", verb);
                json_add_int(answer, "uid", peer->uid);
                link_answer(c, answer);
        }
}

static int setup(void **state)
{
        struct fixture *f = NEW(struct fixture);
        struct err *err = NULL;

        strcpy(f->dir, "/tmp/bh-link-XXXXXX");
        assert_non_null(mkdtemp(f->dir));
        assert_int_equal(chmod(f->dir, 0755), 0);
        snprintf(f->path, sizeof(f->path), "%s/control.sock", f->dir);
        assert_true(sd_event_new(&f->loop) >= 0);
        assert_ok(link_server_new(&f->server, f->loop, f->path, -1, on_request, f, &err));
        *state = f;
        return 0;
}

static int teardown(void **state)
{
        struct fixture *f = *state;

        link_server_free(f->server);
        sd_event_unref(f->loop);
        assert_int_equal(rmdir(f->dir), 0); /* and so the socket file is gone */
        free(f);
        return 0;
}

static int dial(const struct fixture *f)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        strcpy(sa.sun_path, f->path);
        assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
        return fd;
}

static void say(int fd, const char *text)
{
        size_t n = strlen(text);
        assert_int_equal(send(fd, text, n, MSG_NOSIGNAL), n);
}

/* Turns the loop until it has had nothing to do for 50 ms. */
static void turn(struct fixture *f)
{
        while (sd_event_run(f->loop, 50000) > 0)
                ;
}

/* What the peer can read now. Owned. *eof: the server closed. */
static char *hear(int fd, bool *eof)
{
        struct buf b = {0};
        char chunk[65536];
        ssize_t n;

        while ((n = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT)) > 0)
                buf_add(&b, chunk, (size_t)n);
        if (eof)
                *eof = n == 0 || (n < 0 && errno == ECONNRESET);
        return buf_take(&b);
}

static void expect(struct fixture *f, int fd, const char *part, bool closed)
{
        bool eof;

        turn(f);
        _cleanup_free_ char *heard = hear(fd, &eof);
        if (!strstr(heard, part))
                print_error("expected \"%s\" in: %.300s\n", part, heard);
        assert_non_null(strstr(heard, part));
        assert_int_equal(eof, closed);
}

static void test_answers(void **state)
{
        struct fixture *f = *state;
        _cleanup_fd_ int fd = dial(f);
        _cleanup_free_ char *uid = mem_printf("\"uid\":%u}}\n", (unsigned)getuid());

        say(fd, "{\"verb\":\"status\"}\n");
        expect(f, fd, uid, false);
        assert_int_equal(f->peer.pid, getpid());
        assert_int_equal(f->peer.gid, getgid());
        /* The same connection again. */
        say(fd, "{\"verb\":\"progress\"}\n");
        expect(f, fd, "{\"progress\":{\"step\":1}}\n{\"ok\":true,\"result\":null}\n", false);
        say(fd, "{\"verb\":\"fail\"}\n");
        expect(f, fd, "{\"ok\":false,\"error\":\"operators only\\nand nobody else\",\"exit\":77}\n", false);
}

static void test_two_requests_at_once(void **state)
{
        struct fixture *f = *state;
        _cleanup_fd_ int fd = dial(f);

        say(fd, "{\"verb\":\"hold\"}\n{\"verb\":\"second\"}\n");
        turn(f);
        /* The second waits until the first is answered; progress of the first does not let it in. */
        assert_int_equal(f->requests, 1);
        link_progress(f->held, json_object_new_object());
        expect(f, fd, "{\"progress\":{}}", false);
        assert_int_equal(f->requests, 1);
        link_answer(f->held, json_object_new_string("first"));
        expect(f, fd, "{\"ok\":true,\"result\":\"first\"}\n{\"ok\":true,\"result\":{\"you-said\":\"second\"", false);
        assert_int_equal(f->requests, 2);
}

static void test_line_in_pieces(void **state)
{
        struct fixture *f = *state;
        _cleanup_fd_ int fd = dial(f);

        for (const char *p = "{\"verb\":\"slow\"}\n"; *p; p++) {
                assert_int_equal(send(fd, p, 1, MSG_NOSIGNAL), 1);
                assert_int_equal(f->requests, 0);
                sd_event_run(f->loop, 1000);
        }
        expect(f, fd, "\"you-said\":\"slow\"", false);
}

static void test_garbage(void **state)
{
        static const struct {
                const char *line, *part;
        } cases[] = {
                {"hello\n", "request:1:"},
                {"\n", "request"},
                {"[]\n", "not a JSON object"},
                {"{}\n", "\\\"verb\\\" is missing"},
                {"{\"verb\":7}\n", "not a string"},
                {"{\"verb\":null}\n", "not a string"},
                {"{\"verb\":\"\"}\n", "letters a-z"},
                {"{\"verb\":\"../status\"}\n", "letters a-z"},
                {"{\"verb\":\"a\",\"verb\":\"b\"}\n", "request:1:"},
                {"{\"verb\":\"a\"} {\"verb\":\"b\"}\n", "request:1:"},
                {"{\"verb\":\"a\\u0000b\"}\n", "request:1:"},
                {"{\"verb\":\"\xff\"}\n", "request:1:"},
        };
        struct fixture *f = *state;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_fd_ int fd = dial(f);
                say(fd, cases[i].line);
                turn(f);
                bool eof;
                _cleanup_free_ char *heard = hear(fd, &eof);
                if (!strstr(heard, cases[i].part))
                        print_error("case %zu: %s\n", i, heard);
                assert_non_null(strstr(heard, cases[i].part));
                assert_non_null(strstr(heard, "\"exit\":64"));
                assert_true(eof);
        }
        assert_int_equal(f->requests, 0);
        assert_int_equal(link_server_connections(f->server), 0);
}

static void test_endless_line(void **state)
{
        struct fixture *f = *state;
        _cleanup_fd_ int fd = dial(f);
        char chunk[4096];
        size_t sent = 0;

        memset(chunk, 'a', sizeof(chunk));
        for (int i = 0; i < 4000 && sent < 8U << 20; i++) {
                ssize_t n = send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL);
                if (n < 0 && errno != EAGAIN)
                        break; /* refused and closed: what this is about */
                sent += n > 0 ? (size_t)n : 0;
                sd_event_run(f->loop, 0);
        }
        turn(f);
        assert_true(sent >= LINK_MAX_REQUEST && sent < 2 * LINK_MAX_REQUEST);
        assert_int_equal(link_server_connections(f->server), 0);
        assert_int_equal(f->requests, 0);
}

static void test_half_line_then_gone(void **state)
{
        struct fixture *f = *state;
        int fd = dial(f);

        say(fd, "{\"verb\":\"sta");
        turn(f);
        assert_int_equal(link_server_connections(f->server), 1);
        close(fd);
        turn(f);
        assert_int_equal(link_server_connections(f->server), 0);
        assert_int_equal(f->requests, 0);
}

static void test_half_closed_peer_gets_answer(void **state)
{
        struct fixture *f = *state;
        _cleanup_fd_ int fd = dial(f);

        say(fd, "{\"verb\":\"hold\"}\n");
        assert_int_equal(shutdown(fd, SHUT_WR), 0);
        turn(f);
        assert_true(link_alive(f->held));
        link_answer(f->held, json_object_new_string("late"));
        expect(f, fd, "\"late\"", true);
}

static void test_peer_leaves_before_answer(void **state)
{
        struct fixture *f = *state;
        int fd = dial(f);

        say(fd, "{\"verb\":\"hold\"}\n");
        turn(f);
        assert_true(link_alive(f->held));
        close(fd);
        turn(f);
        assert_false(link_alive(f->held));
        link_progress(f->held, json_object_new_object());
        link_answer(f->held, json_object_new_string("nobody hears this"));
        assert_int_equal(link_server_connections(f->server), 0);
}

static void test_server_freed_before_answer(void **state)
{
        struct fixture *f = *state;
        _cleanup_fd_ int fd = dial(f);

        say(fd, "{\"verb\":\"hold\"}\n");
        turn(f);
        f->server = link_server_free(f->server);
        assert_false(link_alive(f->held));
        link_fail(f->held, 1, "too late");
}

static void test_silent_peer_dropped(void **state)
{
        struct fixture *f = *state;

        link_server_set_deadline(f->server, 600);
        _cleanup_fd_ int silent = dial(f), dribbling = dial(f), waiting = dial(f);
        say(dribbling, "{");
        say(waiting, "{\"verb\":\"hold\"}\n");
        for (int i = 0; i < 6; i++) {
                (void)!send(dribbling, " ", 1, MSG_NOSIGNAL);
                turn(f);
                usleep(150000);
        }
        turn(f);
        bool eof;
        free(hear(silent, &eof));
        assert_true(eof);
        free(hear(dribbling, &eof));
        assert_true(eof);
        /* Waiting for us is not being silent. */
        assert_true(link_alive(f->held));
        link_answer(f->held, NULL);
        expect(f, waiting, "\"ok\":true", false);
}

static uint64_t now_ms(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Not at once, but after the deadline: how much later says only how busy the machine is. */
static void test_slow_reader_dropped(void **state)
{
        struct fixture *f = *state;

        link_server_set_deadline(f->server, 200);
        _cleanup_fd_ int fd = dial(f);
        uint64_t began = now_ms();
        say(fd, "{\"verb\":\"hold\"}\n");
        turn(f);
        _cleanup_free_ char *text = mem_alloc((4U << 20) + 1);
        memset(text, 'x', 4U << 20);
        link_answer(f->held, json_object_new_string(text));
        for (int i = 0; i < 2000 && link_server_connections(f->server) > 0; i++) {
                turn(f);
                usleep(5000);
        }
        assert_int_equal(link_server_connections(f->server), 0);
        assert_true(now_ms() - began >= 200);
}

static void test_progress_does_not_pile_up(void **state)
{
        struct fixture *f = *state;
        _cleanup_fd_ int fd = dial(f);
        _cleanup_free_ char *text = mem_alloc(65537);

        memset(text, 'p', 65536);
        say(fd, "{\"verb\":\"hold\"}\n");
        turn(f);
        for (int i = 0; i < 200; i++) {
                json_object *p = json_object_new_object();
                json_add_str(p, "text", text);
                link_progress(f->held, p);
        }
        link_answer(f->held, NULL);
        struct buf all = {0};
        for (int i = 0; i < 100; i++) {
                turn(f);
                _cleanup_free_ char *heard = hear(fd, NULL);
                if (*heard == '\0')
                        break;
                buf_adds(&all, heard);
        }
        /* 200 lines were offered, a few went; the answer always does. */
        assert_in_range(all.len, 65536, 10 * 65536);
        assert_non_null(strstr(all.data, "{\"ok\":true,\"result\":null}\n"));
        buf_deinit(&all);
}

static void test_answer_too_large(void **state)
{
        struct fixture *f = *state;
        _cleanup_fd_ int fd = dial(f);

        say(fd, "{\"verb\":\"large\"}\n");
        expect(f, fd, "longer than 8 MiB", false);
}

static void test_connection_limit(void **state)
{
        struct fixture *f = *state;
        int fds[LINK_MAX_CONNS];

        for (size_t i = 0; i < LINK_MAX_CONNS; i++) {
                fds[i] = dial(f);
                turn(f);
        }
        assert_int_equal(link_server_connections(f->server), LINK_MAX_CONNS);
        _cleanup_fd_ int more = dial(f);
        expect(f, more, "too many connections", true);
        close(fds[0]);
        turn(f);
        _cleanup_fd_ int again = dial(f);
        say(again, "{\"verb\":\"status\"}\n");
        expect(f, again, "\"ok\":true", false);
        for (size_t i = 1; i < LINK_MAX_CONNS; i++)
                close(fds[i]);
}

/* Runs as another user in a child: fills its share, then says what it was told. */
static int crowd(const struct fixture *f, gid_t group)
{
        int fds[LINK_MAX_CONNS_USER + 1];
        char told[256] = "";

        if (setgroups(1, &group) < 0 || setgid(65534) < 0 || setuid(65534) < 0)
                return 2;
        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                static const char request[] = "{\"verb\":\"status\"}\n";
                struct pollfd p = {.fd = fds[i] = dial(f), .events = POLLIN};
                /* The one too many may be refused and closed before it has said anything. */
                (void)!send(fds[i], request, sizeof(request) - 1, MSG_NOSIGNAL);
                if (poll(&p, 1, 3000) != 1 || recv(fds[i], told, sizeof(told) - 1, 0) <= 0)
                        return 3;
                if (!!strstr(told, "too many") != (i == LINK_MAX_CONNS_USER))
                        return 4;
                memset(told, 0, sizeof(told));
        }
        return 0;
}

static void test_one_user_cannot_take_all(void **state)
{
        struct fixture *f = *state;
        const gid_t group = 4711;
        int status = 0;

        if (geteuid() != 0) {
                print_message("needs root to be two users; not run\n");
                return;
        }
        pid_t pid = fork();
        if (pid == 0)
                _exit(crowd(f, group));
        while (waitpid(pid, &status, WNOHANG) == 0)
                sd_event_run(f->loop, 50000);
        assert_int_equal(status, 0);
        assert_int_equal(f->peer.uid, 65534);
}

static void on_group_request(struct link_conn *c, const struct link_peer *peer, _unused_ json_object *request, void *user)
{
        bool *seen = user;

        seen[0] = link_peer_in_group(peer, 4711);
        seen[1] = link_peer_in_group(peer, 65534);
        seen[2] = link_peer_in_group(peer, 4712);
        link_answer(c, NULL);
}

static int call_status(const char *path)
{
        _cleanup_json_ json_object *request = json_object_new_object(), *result = NULL;
        int code;

        json_add_str(request, "verb", "status");
        return link_call(path, request, 3, NULL, NULL, &result, &code, NULL) < 0 ? code : 0;
}

static void test_peer_groups(void **state)
{
        struct fixture *f = *state;
        bool seen[3] = {false, false, true};
        struct err *err = NULL;
        int status = -1;
        gid_t groups[100];

        if (geteuid() != 0) {
                print_message("needs root to be another user; not run\n");
                return;
        }
        /* More groups than the first guess at their number. */
        for (size_t i = 0; i < ELEMENTSOF(groups); i++)
                groups[i] = (gid_t)(5000 + i);
        groups[99] = 4711;
        f->server = link_server_free(f->server);
        assert_ok(link_server_new(&f->server, f->loop, f->path, -1, on_group_request, seen, &err));
        pid_t pid = fork();
        if (pid == 0)
                _exit(setgroups(ELEMENTSOF(groups), groups) || setgid(65534) || setuid(65534) ? 2 : call_status(f->path));
        while (waitpid(pid, &status, WNOHANG) == 0)
                sd_event_run(f->loop, 50000);
        assert_int_equal(status, 0);
        assert_true(seen[0]);
        assert_true(seen[1]);
        assert_false(seen[2]);
}

/* -- where the socket goes -------------------------------------------------------------------------------------------------- */
static void test_bind(void **state)
{
        struct fixture *f = *state;
        struct link_server *second = NULL;
        struct err *err = NULL;
        struct stat st;

        assert_int_equal(stat(f->path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0666);
        assert_fails(link_server_new(&second, f->loop, f->path, -1, on_request, f, &err), "another process is listening");
        assert_int_equal(stat(f->path, &st), 0);
        turn(f);

        /* A stale socket file is replaced, another file is not. */
        _cleanup_free_ char *other = mem_printf("%s/other", f->dir);
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        strcpy(sa.sun_path, other);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
        close(fd);
        assert_ok(link_server_new(&second, f->loop, other, -1, on_request, f, &err));
        second = link_server_free(second);
        assert_ok(file_write_atomic(other, "x", 1, 0600, &err));
        assert_fails(link_server_new(&second, f->loop, other, -1, on_request, f, &err), "not a socket");
        assert_int_equal(unlink(other), 0);
        _cleanup_free_ char *longer = mem_printf("%s/%0200d", f->dir, 1);
        assert_fails(link_server_new(&second, f->loop, longer, -1, on_request, f, &err), "longer than");
}

/* -- client ------------------------------------------------------------------------------------------------------------------ */
static void count_progress(json_object *progress, void *user)
{
        *(int64_t *)user += json_int(progress, "step", 0);
}

/* Runs link_call() in a child against f's server; exits with the code it gave. */
static int call_in_child(struct fixture *f, const char *verb, int64_t want_steps)
{
        int status = -1;
        pid_t pid = fork();

        if (pid == 0) {
                _cleanup_json_ json_object *request = json_object_new_object(), *result = NULL;
                int64_t steps = 0;
                int code = 99;

                json_add_str(request, "verb", verb);
                int r = link_call(f->path, request, 3, count_progress, &steps, &result, &code, NULL);
                _exit(r < 0 ? code : steps == want_steps ? 0 : 98);
        }
        while (waitpid(pid, &status, WNOHANG) == 0)
                sd_event_run(f->loop, 50000);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_client(void **state)
{
        struct fixture *f = *state;

        assert_int_equal(call_in_child(f, "status", 0), 0);
        assert_int_equal(call_in_child(f, "progress", 1), 0);
        assert_int_equal(call_in_child(f, "fail", 0), 77);
        assert_int_equal(call_in_child(f, "large", 0), 1);
        assert_int_equal(call_in_child(f, "../", 0), 64);
}

static void test_client_unreachable(void **state)
{
        struct fixture *f = *state;
        _cleanup_json_ json_object *request = json_object_new_object(), *result = NULL;
        struct err *err = NULL;
        int code = 0;

        json_add_str(request, "verb", "status");
        assert_fails(link_call("/nonexistent/control.sock", request, 1, NULL, NULL, &result, &code, &err),
                     "is bulkhead-controller running");
        assert_int_equal(code, 69);
        /* Nobody turns the loop: the daemon hangs. */
        assert_fails(link_call(f->path, request, 1, NULL, NULL, &result, &code, &err), "does not answer");
        assert_int_equal(code, 69);
        turn(f);
        if (geteuid() == 0) {
                int status = -1;
                assert_int_equal(chmod(f->path, 0600), 0);
                pid_t pid = fork();
                if (pid == 0)
                        _exit(setgroups(0, NULL) || setuid(65534) ? 2 : call_status(f->path));
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_int_equal(WEXITSTATUS(status), 77);
        }
}

/* Feeds one canned answer to a client. Returns its exit code, -1 for success. */
static int canned(const char *answer, size_t n, const char *part)
{
        _cleanup_json_ json_object *request = json_object_new_object(), *result = NULL;
        _cleanup_err_ struct err *err = NULL;
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        int code = 0, listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        char dir[] = "/tmp/bh-link-XXXXXX";

        assert_non_null(mkdtemp(dir));
        snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/s", dir);
        assert_int_equal(bind(listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
        assert_int_equal(listen(listener, 1), 0);
        pid_t pid = fork();
        if (pid == 0) {
                char line[256];
                int fd = accept(listener, NULL, NULL);
                (void)!recv(fd, line, sizeof(line), 0);
                for (size_t sent = 0; sent < n;) {
                        ssize_t r = send(fd, answer + sent, n - sent, MSG_NOSIGNAL);
                        if (r <= 0)
                                break;
                        sent += (size_t)r;
                }
                _exit(0);
        }
        close(listener);
        json_add_str(request, "verb", "status");
        int r = link_call(sa.sun_path, request, 5, NULL, NULL, &result, &code, &err);
        waitpid(pid, NULL, 0);
        unlink(sa.sun_path);
        rmdir(dir);
        if (r == 0)
                return -1;
        if (!strstr(err_msg(err), part))
                print_error("expected \"%s\" in: %s\n", part, err_msg(err));
        assert_non_null(strstr(err_msg(err), part));
        return code;
}

static void test_client_bad_answers(_unused_ void **state)
{
        static const struct {
                const char *text, *part;
                int code;
        } cases[] = {
                {"", "closed the connection", 69},
                {"{\"ok\":true", "closed the connection", 69},
                {"hello\n", "makes no sense", 1},
                {"[1]\n", "not a JSON object", 1},
                {"{\"ok\":\"true\"}\n", "neither progress nor", 1},
                {"{\"ok\":false}\n", "without \"error\"", 1},
                {"{\"ok\":false,\"error\":\"no\",\"exit\":0}\n", "between 1 and 255", 1},
                {"{\"ok\":false,\"error\":\"no\",\"exit\":2}\n", "no", 2},
                {"{\"progress\":3}\n", "not an object", 1},
                {"{\"progress\":{}}\n", "closed the connection", 69},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                assert_int_equal(canned(cases[i].text, strlen(cases[i].text), cases[i].part), cases[i].code);
        assert_int_equal(canned("{\"ok\":true}\n", 12, ""), -1);
        _cleanup_free_ char *endless = mem_alloc((9U << 20) + 1);
        memset(endless, 'x', 9U << 20);
        assert_int_equal(canned(endless, 9U << 20, "longer than 8 MiB"), 69);
}

#define server_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                server_test(test_answers),
                server_test(test_two_requests_at_once),
                server_test(test_line_in_pieces),
                server_test(test_garbage),
                server_test(test_endless_line),
                server_test(test_half_line_then_gone),
                server_test(test_half_closed_peer_gets_answer),
                server_test(test_peer_leaves_before_answer),
                server_test(test_server_freed_before_answer),
                server_test(test_silent_peer_dropped),
                server_test(test_slow_reader_dropped),
                server_test(test_progress_does_not_pile_up),
                server_test(test_answer_too_large),
                server_test(test_connection_limit),
                server_test(test_one_user_cannot_take_all),
                server_test(test_peer_groups),
                server_test(test_bind),
                server_test(test_client),
                server_test(test_client_unreachable),
                cmocka_unit_test(test_client_bad_answers),
        };

        signal(SIGPIPE, SIG_IGN);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
