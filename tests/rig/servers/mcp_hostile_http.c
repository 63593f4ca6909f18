/*
 * mcp_hostile_http PORT MODE: an MCP server over HTTP that misbehaves in one way. Standard C and libc only; it scans requests for what it
 * needs instead of parsing them. Modes: see the tables at the end, here and in hostile_http_calls.c.
 */
#include "tests/rig/servers/hostile_http.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define LONGEST_S 60 /* for one connection */

char request[1 << 17];
int peer;
unsigned n_requests;
static size_t n_read, n_taken; /* bytes in request, and of the last one */

/* -- requests ------------------------------------------------------------------------------------------------------------------------- */

static size_t size_of_request(void)
{
        const char *end = strstr(request, "\r\n\r\n"), *length = strcasestr(request, "\r\ncontent-length:");

        if (!end)
                return SIZE_MAX;
        return (size_t)(end - request) + 4 + (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
}

void read_request(void)
{
        memmove(request, request + n_taken, n_read - n_taken);
        n_read -= n_taken;
        request[n_read] = '\0';
        while ((n_taken = size_of_request()) > n_read) {
                ssize_t n = n_read < sizeof(request) - 1 ? recv(peer, request + n_read, sizeof(request) - 1 - n_read, 0) : 0;
                if (n <= 0)
                        _exit(0);
                n_read += (size_t)n;
                request[n_read] = '\0';
        }
        n_requests++;
}

bool is(const char *method)
{
        char text[64];

        snprintf(text, sizeof(text), "\"method\":\"%s\"", method);
        return strstr(request, text) != NULL;
}

long id_of(void)
{
        const char *p = strstr(request, "\"id\":");

        return p ? strtol(p + 5, NULL, 10) : -1;
}

/* -- answers -------------------------------------------------------------------------------------------------------------------------- */

void put(const char *bytes, size_t n)
{
        while (n > 0) {
                ssize_t k = send(peer, bytes, n, MSG_NOSIGNAL);
                if (k <= 0)
                        _exit(0);
                bytes += k;
                n -= (size_t)k;
        }
}

void puts_all(const char *text)
{
        put(text, strlen(text));
}

void putf(const char *format, ...)
{
        static char text[1 << 17];
        va_list ap;

        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        puts_all(text);
}

void put_for_ever(const char *text)
{
        static char many[1 << 16];
        size_t n = strlen(text), k = 0;

        while (k + n <= sizeof(many)) {
                memcpy(many + k, text, n);
                k += n;
        }
        for (;;)
                put(many, k);
}

void respond(const char *status, const char *fields, const char *body)
{
        putf("HTTP/1.1 %s\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n%s", status, fields, strlen(body), body);
}

const char *result_of(long id)
{
        static char text[1 << 17];
        const char *key = strstr(request, "\"text\":"), *from = key ? strchr(key + 7, '"') : NULL,
                   *to = from ? strchr(from + 1, '"') : NULL;

        snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"%.*s\"}]}}",
                 id, to ? (int)(to - from - 1) : 0, to ? from + 1 : "");
        return text;
}

void answer(void)
{
        respond("200 OK", "", result_of(id_of()));
}

void stay(void)
{
        for (;;)
                pause();
}

/* -- a decent server ------------------------------------------------------------------------------------------------------------------ */

static void decent(void)
{
        char text[512];

        if (strncmp(request, "POST ", 5) != 0) {
                respond("405 Method Not Allowed", "", "");
        } else if (is("server/discover")) {
                respond("404 Not Found", "", "");
        } else if (is("initialize")) {
                snprintf(text, sizeof(text),
                         "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},"
                         "\"serverInfo\":{\"name\":\"h\",\"version\":\"1\"}}}",
                         id_of());
                respond("200 OK", "Mcp-Session-Id: hostile\r\n", text);
        } else if (is("tools/list")) {
                snprintf(text, sizeof(text),
                         "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"tools\":[{\"name\":\"a\",\"inputSchema\":{\"type\":\"object\"}}]}}",
                         id_of());
                respond("200 OK", "", text);
        } else if (is("tools/call")) {
                answer();
        } else {
                respond("202 Accepted", "", "");
        }
}

/* -- whatever is asked ---------------------------------------------------------------------------------------------------------------- */

static void garbage(void)
{
        static char text[65536];

        for (unsigned i = 0;; i++) {
                text[i % sizeof(text)] = (char)((i * 2654435761U >> 13) & 0xff);
                if (i % sizeof(text) == sizeof(text) - 1)
                        put(text, sizeof(text));
        }
}

static void endless_header(void)
{
        puts_all("HTTP/1.1 200 OK\r\nX: ");
        put_for_ever("x");
}

static void header_bomb(void)
{
        puts_all("HTTP/1.1 200 OK\r\n");
        put_for_ever("X-Bomb: y\r\n");
}

static void continue_flood(void)
{
        put_for_ever("HTTP/1.1 100 Continue\r\n\r\n");
}

static void redirect(void)
{
        respond("307 Temporary Redirect", "Location: http://127.0.0.1:1/mcp\r\n", "");
}

static void hang_up(void)
{
        _exit(0);
}

static void session_bomb(void)
{
        if (is("initialize")) {
                static char id[60000];

                memset(id, 's', sizeof(id) - 1);
                putf("HTTP/1.1 200 OK\r\nMcp-Session-Id: %s\r\nContent-Length: 0\r\n\r\n", id);
        } else {
                decent();
        }
}

/* Everything is decent but the stream that a client may open. */
static void events(const char *once, const char *for_ever)
{
        if (strncmp(request, "GET ", 4) != 0) {
                decent();
                return;
        }
        puts_all("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        puts_all(once);
        if (for_ever)
                put_for_ever(for_ever);
        _exit(0);
}

static void get_flood(void)
{
        events("", "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n");
}

static void get_endless(void)
{
        events("data: ", "x");
}

/* Asks to be asked again at once. */
static void get_again(void)
{
        events("retry: 0\nid: 1\ndata:\n\n", NULL);
}

static const struct http_mode modes[] = {
        {"garbage", garbage},           {"endless-header", endless_header},
        {"header-bomb", header_bomb},   {"continue-flood", continue_flood},
        {"redirect", redirect},         {"hang-up", hang_up},
        {"session-bomb", session_bomb}, {"get-flood", get_flood},
        {"get-endless", get_endless},   {"get-again", get_again},
};

/* -- connections ---------------------------------------------------------------------------------------------------------------------- */

static void run_call_mode(void (*run)(void))
{
        for (;;) {
                read_request();
                if (is("tools/call"))
                        run();
                else
                        decent();
        }
}

static _Noreturn void serve(const char *mode)
{
        for (size_t i = 0; i < n_http_call_modes; i++)
                if (strcmp(http_call_modes[i].name, mode) == 0)
                        run_call_mode(http_call_modes[i].run);
        for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
                while (strcmp(modes[i].name, mode) == 0) {
                        read_request();
                        modes[i].run();
                }
        if (strcmp(mode, "never-read") == 0)
                stay();
        read_request(); /* never-answer */
        stay();
}

int main(int argc, char **argv)
{
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(argc == 3 ? atoi(argv[1]) : 0))};
        int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        signal(SIGCHLD, SIG_IGN);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (argc != 3 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 64) < 0) {
                perror("usage: mcp_hostile_http PORT MODE; listen");
                return 1;
        }
        if (strcmp(argv[2], "never-accept") == 0)
                stay();
        for (;;) {
                peer = accept(fd, NULL, NULL);
                if (peer >= 0 && fork() == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL);
                        alarm(LONGEST_S);
                        close(fd);
                        setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
                        serve(argv[2]);
                }
                close(peer);
        }
}
