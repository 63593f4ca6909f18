/*
 * mcp_hostile MODE: an MCP server that misbehaves in one way, for tests of everything that must survive it. Standard C and libc only; it
 * scans messages for what it needs instead of parsing them. Modes: see the tables at the end, here and in hostile_calls.c.
 */
#include "tests/rig/servers/hostile.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char line[1 << 16];

bool next(void)
{
        return fgets(line, sizeof(line), stdin) != NULL;
}

bool is(const char *method)
{
        char text[64];

        snprintf(text, sizeof(text), "\"method\":\"%s\"", method);
        return strstr(line, text) != NULL;
}

long id_of(void)
{
        const char *p = strstr(line, "\"id\":");

        return p ? strtol(p + 5, NULL, 10) : -1;
}

void say(long id, const char *kind, const char *body)
{
        printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"%s\":%s}\n", id, kind, body);
        fflush(stdout);
}

/* A decent handshake; true when `line` now is a request behind it. */
bool handshake(void)
{
        while (next()) {
                if (is("initialize"))
                        say(id_of(), "result",
                            "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"h\","
                            "\"version\":\"1\"}}");
                else if (is("server/discover"))
                        say(id_of(), "error", "{\"code\":-32601,\"message\":\"no such method\"}");
                else if (id_of() > 0)
                        return true;
        }
        return false;
}

int wait_for_end(void)
{
        while (next())
                ;
        return 0;
}

static int garbage(void)
{
        for (unsigned i = 0;; i++) {
                putchar((int)((i * 2654435761U >> 13) & 0xff));
                if (i % 97 == 0)
                        putchar('\n');
                if (ferror(stdout))
                        return 1;
        }
}

static int flood(void)
{
        for (;;)
                if (puts("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":\"flood\"}}") <
                    0)
                        return 1;
}

static int stderr_flood(void)
{
        static char text[65536];

        memset(text, 'e', sizeof(text));
        for (;;)
                if (write(STDERR_FILENO, text, sizeof(text)) < 0)
                        return 1;
}

static _Noreturn int never_answer(void)
{
        wait_for_end();
        for (;;)
                pause();
}

static _Noreturn int no_read(void)
{
        for (;;)
                pause();
}

static int exit_at_start(void)
{
        fputs("cannot start: out of luck\n", stderr);
        return 3;
}

static int long_line(void)
{
        static char text[65536];

        memset(text, 'x', sizeof(text));
        fputs("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"x\":\"", stdout);
        for (int i = 0; i < 1600; i++)
                if (fwrite(text, 1, sizeof(text), stdout) != sizeof(text))
                        return 1;
        puts("\"}}");
        return wait_for_end();
}

static int pages(bool loop)
{
        long n = 0;

        for (bool more = handshake(); more; more = next()) {
                char body[512];
                if (id_of() < 0)
                        continue;
                n++;
                snprintf(body, sizeof(body),
                         "{\"tools\":[{\"name\":\"t%ld\",\"inputSchema\":{\"type\":\"object\"}}],\"nextCursor\":\"c%ld\"}", n,
                         loop ? 1 : n);
                say(id_of(), "result", body);
        }
        return 0;
}

static int endless_pages(void)
{
        return pages(false);
}

static int cursor_loop(void)
{
        return pages(true);
}

static int wrong_ids(void)
{
        if (handshake())
                say(id_of() + 1000, "result", "{\"tools\":[" TOOL "]}");
        return wait_for_end();
}

static int duplicate_keys(void)
{
        if (handshake())
                say(id_of(), "result",
                    "{\"tools\":[{\"name\":\"a\",\"description\":\"good\",\"description\":\"evil\",\"inputSchema\":{\"type\":\"object\"}}]"
                    "}");
        return wait_for_end();
}

static int twice(void)
{
        if (handshake())
                say(id_of(), "result", "{\"tools\":[" TOOL "," TOOL "]}");
        return wait_for_end();
}

static int half_frame_die(void)
{
        if (handshake()) {
                printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"tools\":[", id_of());
                fflush(stdout);
        }
        return 4;
}

/* Nesting beyond any reader's bound. */
static int deep(void)
{
        if (handshake()) {
                printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"tools\":", id_of());
                for (int i = 0; i < 100000; i++)
                        putchar('[');
                putchar('\n');
                fflush(stdout);
        }
        return wait_for_end();
}

/* Much memory for few bytes. */
static int bomb(void)
{
        if (handshake()) {
                printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"tools\":[{}", id_of());
                for (int i = 0; i < 1300000; i++)
                        fputs(",{}", stdout);
                puts("]}}");
                fflush(stdout);
        }
        return wait_for_end();
}

/* Much time for few bytes, where keys are compared with each other. */
static int keys(void)
{
        if (handshake()) {
                printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"a\":0", id_of());
                for (int i = 0; i < 300000; i++)
                        printf(",\"k%x\":0", i);
                puts("}}");
                fflush(stdout);
        }
        return wait_for_end();
}

/* A terminal's control sequences, right-to-left marks and the like in names and errors. */
static int escapes(void)
{
        fputs("\033]0;owned\007\033[2J\xe2\x80\xae evil\n", stderr);
        if (handshake())
                say(id_of(), "error", "{\"code\":-32000,\"message\":\"\\u001b[2J\\u202e approved \\u0007\"}");
        return wait_for_end();
}

/* Says again and again that its list changed. */
static int restless(void)
{
        for (bool more = handshake(); more; more = next()) {
                if (id_of() < 0)
                        continue;
                say(id_of(), "result", "{\"tools\":[" TOOL "]}");
                puts("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}");
                fflush(stdout);
        }
        return 0;
}

/* Asks more than it answers: what a client must refuse politely, and then a decent answer. */
static int asks(void)
{
        static const char *const wants[] = {"ping", "roots/list", "sampling/createMessage", "elicitation/create"};
        long id;

        if (!handshake())
                return 1;
        id = id_of();
        for (unsigned i = 0; i < sizeof(wants) / sizeof(wants[0]); i++) {
                printf("{\"jsonrpc\":\"2.0\",\"id\":\"q%u\",\"method\":\"%s\",\"params\":{}}\n", i, wants[i]);
                fflush(stdout);
                if (!next() || !strstr(line, i == 0 ? "\"result\":{}" : "-32601"))
                        return 5;
        }
        say(id, "result", "{\"tools\":[" TOOL "]}");
        return wait_for_end();
}

static const struct mode modes[] = {
        {"garbage", garbage},
        {"flood", flood},
        {"stderr-flood", stderr_flood},
        {"never-answer", never_answer},
        {"no-read", no_read},
        {"exit-at-start", exit_at_start},
        {"long-line", long_line},
        {"endless-pages", endless_pages},
        {"cursor-loop", cursor_loop},
        {"wrong-ids", wrong_ids},
        {"duplicate-keys", duplicate_keys},
        {"twice", twice},
        {"half-frame-die", half_frame_die},
        {"deep", deep},
        {"escapes", escapes},
        {"restless", restless},
        {"asks", asks},
        {"bomb", bomb},
        {"keys", keys},
};

static const struct mode *find(const struct mode *table, size_t n, const char *name)
{
        for (size_t i = 0; i < n; i++)
                if (strcmp(name, table[i].name) == 0)
                        return &table[i];
        return NULL;
}

int main(int argc, char **argv)
{
        size_t n = sizeof(modes) / sizeof(modes[0]);
        const struct mode *m = argc == 2 ? find(modes, n, argv[1]) : NULL;

        if (!m && argc == 2)
                m = find(call_modes, n_call_modes, argv[1]);
        if (m)
                return m->run();
        fputs("usage: mcp_hostile MODE, one of:", stderr);
        for (size_t i = 0; i < n + n_call_modes; i++)
                fprintf(stderr, " %s", i < n ? modes[i].name : call_modes[i - n].name);
        fputs("\n", stderr);
        return 64;
}
