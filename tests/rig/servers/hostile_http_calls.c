/* Servers that shake hands and list their one tool as they should, and misbehave when it is called. */
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/rig/servers/hostile_http.h"

#define OK      "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
#define EVENTS  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
#define CHUNKED "Transfer-Encoding: chunked\r\n"

/* -- strange, but right --------------------------------------------------------------------------------------------------------------- */

/* Every byte on its own. */
static void split(void)
{
        static char text[1 << 12];
        const char *result = result_of(id_of());
        int n = snprintf(text, sizeof(text), OK "Content-Length: %zu\r\n\r\n%s", strlen(result), result);

        for (int i = 0; i < n; i++) {
                put(&text[i], 1);
                sched_yield();
        }
}

/* Every byte in a chunk of its own, after all that may come before an answer. */
static void small_chunks(void)
{
        const char *result = result_of(id_of());

        puts_all("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" OK CHUNKED "\r\n");
        for (const char *p = result; *p; p++)
                putf("1;a=\"b\"\r\n%c\r\n", *p);
        puts_all("0;c\r\nX-Trailer: t\r\n\r\n");
}

/* Closes the connection behind the answer without a word of it. */
static void close_kept(void)
{
        answer();
        _exit(0);
}

/* One more answer right behind the right one, to what will be asked next: it is nobody's. */
static void two_answers(void)
{
        static const char body[] = "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"not yours\"}]}}";
        char next[1 << 8];
        const char *right = result_of(id_of());

        /* In one piece. One that comes in a piece of its own, while the next question is on its way, is as good an answer as any. */
        snprintf(next, sizeof(next), body, id_of() + 1);
        putf(OK "Content-Length: %zu\r\n\r\n%s" OK "Content-Length: %zu\r\n\r\n%s", strlen(right), right, strlen(next), next);
}

/* The same, but later, when the connection is idle. */
static void answer_later(void)
{
        answer();
        usleep(20000);
        respond("200 OK", "", "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"not yours\"}]}}");
}

static void in_version_1_0(void)
{
        const char *result = result_of(id_of());

        puts_all("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n");
        puts_all(result);
        _exit(0);
}

/* -- answers that are none ------------------------------------------------------------------------------------------------------------- */

static void wrong_id(void)
{
        respond("200 OK", "", result_of(id_of() + 1000));
}

static void old_id(void)
{
        respond("200 OK", "", result_of(id_of() - 1));
}

static void html(void)
{
        respond("200 OK", "", "<html>Welcome</html>");
}

static void error_page(void)
{
        respond("500 Internal Server Error", "", "<html>Oops</html>");
}

static void compressed(void)
{
        respond("200 OK", "Content-Encoding: gzip\r\n", "\x1f\x8b\x08\x01");
}

static void switch_protocols(void)
{
        puts_all("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n");
        answer();
}

static void two_lengths(void)
{
        const char *result = result_of(id_of());

        putf(OK "Content-Length: %zu\r\nContent-Length: 10\r\n\r\n%s", strlen(result), result);
}

static void smuggled(void)
{
        const char *result = result_of(id_of());

        putf(OK "Content-Length: %zu\r\n" CHUNKED "\r\n%zx\r\n%s\r\n0\r\n\r\n", strlen(result), strlen(result), result);
}

static void bare_lines(void)
{
        const char *result = result_of(id_of());

        putf("HTTP/1.1 200 OK\nContent-Length: %zu\n\n%s", strlen(result), result);
}

static void bad_chunks(void)
{
        puts_all(OK CHUNKED "\r\nnot a number\r\n");
        answer();
}

/* -- answers that do not come to an end ------------------------------------------------------------------------------------------------ */

static void half_head(void)
{
        puts_all("HTTP/1.1 200 OK\r\nContent-Ty");
        _exit(0);
}

static void half_chunk(void)
{
        puts_all(OK CHUNKED "\r\n100\r\n{\"jsonrpc\":");
        _exit(0);
}

static void half_sized(void)
{
        puts_all(OK "Content-Length: 1000\r\n\r\n{\"jsonrpc\":");
        _exit(0);
}

static void reset(void)
{
        struct linger now = {.l_onoff = 1};

        setsockopt(peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        _exit(0);
}

static void only_head(void)
{
        puts_all(OK "Content-Length: 100\r\n\r\n");
        stay();
}

static void drip(void)
{
        puts_all("HTTP/1.1 200 OK\r\nX: ");
        for (;;) {
                puts_all("x");
                usleep(100000);
        }
}

static void silence(void)
{
        stay();
}

/* A right answer, but for its 100 MB. */
static void huge(void)
{
        static char text[65536];
        const int n = 1600;
        size_t rest = strlen(result_of(id_of()));

        memset(text, ' ', sizeof(text));
        putf(OK "Content-Length: %zu\r\n\r\n", (size_t)n * sizeof(text) + rest);
        for (int i = 0; i < n; i++)
                put(text, sizeof(text));
        puts_all(result_of(id_of()));
}

static void endless_body(void)
{
        puts_all(OK "\r\n");
        put_for_ever(" ");
}

static void endless_chunk(void)
{
        puts_all(OK CHUNKED "\r\nffffffffffffffff\r\n");
        put_for_ever(" ");
}

static void endless_trailer(void)
{
        const char *result = result_of(id_of());

        putf(OK CHUNKED "\r\n%zx\r\n%s\r\n0\r\n", strlen(result), result);
        put_for_ever("X: y\r\n");
}

static void endless_event(void)
{
        puts_all(EVENTS "\r\ndata: ");
        put_for_ever("x");
}

static void event_flood(void)
{
        puts_all(EVENTS "\r\n");
        put_for_ever(
                "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"error\",\"data\":\"f\"}}\n\n");
}

static void empty_events(void)
{
        puts_all(EVENTS "\r\n");
        put_for_ever(": nothing\n\n");
}

const struct http_mode http_call_modes[] = {
        {"split", split},
        {"small-chunks", small_chunks},
        {"close-kept", close_kept},
        {"two-answers", two_answers},
        {"answer-later", answer_later},
        {"old-version", in_version_1_0},
        {"wrong-id", wrong_id},
        {"old-id", old_id},
        {"html", html},
        {"error-page", error_page},
        {"compressed", compressed},
        {"switch-protocols", switch_protocols},
        {"two-lengths", two_lengths},
        {"smuggled", smuggled},
        {"bare-lines", bare_lines},
        {"bad-chunks", bad_chunks},
        {"half-head", half_head},
        {"half-chunk", half_chunk},
        {"half-sized", half_sized},
        {"reset", reset},
        {"only-head", only_head},
        {"drip", drip},
        {"silence", silence},
        {"huge", huge},
        {"endless-body", endless_body},
        {"endless-chunk", endless_chunk},
        {"endless-trailer", endless_trailer},
        {"endless-event", endless_event},
        {"event-flood", event_flood},
        {"empty-events", empty_events},
};
const size_t n_http_call_modes = sizeof(http_call_modes) / sizeof(http_call_modes[0]);
