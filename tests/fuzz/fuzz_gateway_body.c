/*
 * One HTTP request to a gateway with a server of each era: "METHOD path", header lines, an empty line, the body. "Mcp-Session-Id: S" and
 * "T" name a session of either endpoint. Whatever came, its exchange is answered once, or is a stream, and nothing is left of it.
 */
#include <stddef.h>
#include <stdint.h>

#include "tests/unit/gateway_fakes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CAPS "{\"tools\":{},\"prompts\":{},\"resources\":{\"subscribe\":true},\"completions\":{},\"logging\":{}}"
#define START                                                                                                                              \
        "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-03-26\",\"capabilities\":"         \
        "{\"elicitation\":{}}}}"
#define ASK "{\"jsonrpc\":\"2.0\",\"id\":\"ask\",\"method\":\"elicitation/create\",\"params\":{\"message\":\"m\"}}"

static char *session(struct world *w, const char *path)
{
        struct exchange *x = fake_exchange("POST", path, START, "Content-Type: application/json", "Accept: */*", NULL);

        gateway_exchange(x, w->g);
        return mem_printf("Mcp-Session-Id: %s", fake_header(x, "Mcp-Session-Id"));
}

/* A copy without NUL and line breaks, as the front would hand it on. */
static char *next_line(const char **at, const char *end)
{
        const char *start = *at, *lf = memchr(start, '\n', (size_t)(end - start));
        size_t n = (size_t)((lf ? lf : end) - start);

        *at = lf ? lf + 1 : end;
        return mem_strndup(start, n);
}

static struct exchange *request(const char *text, size_t n, const char *const sessions[2])
{
        const char *at = text, *end = text + n;
        char *first = next_line(&at, end), *space = strchr(first, ' '), *line;
        struct exchange *x;

        if (space)
                *space = '\0';
        x = fake_exchange(first, space ? space + 1 : "", NULL, NULL);
        free(first);
        while ((line = next_line(&at, end)) && *line && x->n_headers < ELEMENTSOF(x->headers)) {
                if (str_eq(line, "Mcp-Session-Id: S"))
                        mem_replace(&line, mem_strdup(sessions[0]));
                else if (str_eq(line, "Mcp-Session-Id: T"))
                        mem_replace(&line, mem_strdup(sessions[1]));
                if (strstr(line, ": "))
                        x->headers[x->n_headers++] = TAKE_PTR(line);
                free(line);
        }
        free(line);
        if (end > at)
                buf_add(&x->body, at, (size_t)(end - at));
        return x;
}

/* Servers answer what they were asked, each call something else. */
static void answer_all(void)
{
        static const char *const results[] = {"{\"resultType\":\"input_required\",\"requestState\":\"s\"}",
                                              "{\"tools\":[{\"name\":\"a\"}],\"nextCursor\":\"c\"}", "{}"};

        for (unsigned round = 0; round < 30; round++)
                for (size_t i = 0; i < n_fake_upstreams; i++) {
                        struct upstream_call *c = fake_call(fake_upstreams[i], NULL);

                        if (!c || str_eq(c->method, "subscriptions/listen"))
                                continue;
                        if (round == 0 && fake_upstreams[i]->era == MCP_ERA_LEGACY)
                                fake_request(fake_upstreams[i], NULL, ASK);
                        if (c->over)
                                continue;
                        if (round % 4 == 3)
                                fake_error(c, "{\"code\":-32002,\"message\":\"m\"}");
                        else
                                fake_result(c, results[round % 3]);
                }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct world *w = world_new();
        char *s, *t;
        struct exchange *x;

        world_server(w, "l", NULL, MCP_ERA_LEGACY, CAPS);
        world_server(w, "m", "", MCP_ERA_MODERN, CAPS);
        s = session(w, "/servers/l/mcp");
        t = session(w, "/mcp");
        x = request(size ? (const char *)data : "", size, (const char *const[]){s, t});
        gateway_exchange(x, w->g);
        answer_all();
        if (!x->over && !x->is_stream)
                abort();
        if (!x->over)
                fake_leave(x);
        free(s);
        free(t);
        world_free(w);
        return 0;
}
