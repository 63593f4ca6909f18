/*
 * mcp_conformance: the rig's full MCP server, stdio or streamable HTTP. See usage(), and conformance.h.
 */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/rig/servers/conformance.h"

static int usage(void)
{
        fputs("usage: mcp_conformance [--http PORT] [--era both|legacy|modern] [--part NofM [--prefixes P,P,…]] [--page N]\n"
              "  --http  on that port of all addresses, path /mcp; 0 takes a free one. The port is the first line of standard output\n"
              "  --part  offers every M-th tool, prompt and resource, so that M of them together offer everything\n"
              "  --prefixes  M prefixes: names are split by them instead, and part N's are without the N-th\n"
              "  --page  lists come in pages of N\n",
              stderr);
        return 64;
}

/* -- stdio: one line a message, a thread a request -------------------------------------------------------------------------------- */
static pthread_mutex_t output = PTHREAD_MUTEX_INITIALIZER;

static bool write_line(const char *text)
{
        bool written;

        pthread_mutex_lock(&output);
        written = puts(text) >= 0 && fflush(stdout) == 0;
        pthread_mutex_unlock(&output);
        return written;
}

static bool send_line(struct call *c, const char *text)
{
        (void)c;
        return write_line(text);
}

struct job {
        struct server *server;
        char *line;
        size_t n;
};

static void *run_job(void *arg)
{
        struct job *job = arg;
        struct call c = {.server = job->server, .send = send_line};
        struct listener l = {0};
        int status;
        _cleanup_free_ char *text = serve(&c, job->line, job->n, NULL, &status);

        if (text)
                write_line(text);
        free(job->line);
        free(job);
        l.session = c.session;
        /* What is announced goes to the one client there is. */
        if (c.opens)
                listen_until_end(&c, &l);
        return NULL;
}

static int serve_stdio(struct server *s)
{
        pthread_attr_t attributes;
        char *line = NULL;
        size_t size = 0;
        ssize_t n;

        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attributes, 512U << 10);
        while ((n = getline(&line, &size, stdin)) > 0) {
                struct job *job = NEW(struct job);
                pthread_t thread;

                *job = (struct job){.server = s, .line = mem_strndup(line, (size_t)n), .n = (size_t)n};
                if (pthread_create(&thread, &attributes, run_job, job) != 0)
                        return 1;
        }
        free(line);
        return 0;
}

/* -- options ---------------------------------------------------------------------------------------------------------------------- */
static bool parse_part(struct server *s, const char *text)
{
        char end;

        return sscanf(text, "%uof%u%c", &s->part, &s->parts, &end) == 2 && s->part > 0 && s->part <= s->parts;
}

static bool parse_era(struct server *s, const char *text)
{
        s->legacy = str_eq(text, "both") || str_eq(text, "legacy");
        s->modern = str_eq(text, "both") || str_eq(text, "modern");
        return s->legacy || s->modern;
}

static void parse_prefixes(struct server *s, const char *text)
{
        for (const char *end = text; end; text = end ? end + 1 : NULL) {
                _cleanup_free_ char *one = mem_strndup(text, strcspn(text, ","));

                s->prefixes = strv_append(s->prefixes, one);
                end = strchr(text, ',');
        }
}

int main(int argc, char **argv)
{
        static struct server s = {.legacy = true,
                                  .modern = true,
                                  .part = 1,
                                  .parts = 1,
                                  .lock = PTHREAD_MUTEX_INITIALIZER,
                                  .changed = PTHREAD_COND_INITIALIZER};
        const char *port = NULL;
        int i;

        signal(SIGPIPE, SIG_IGN);
        if (sodium_init() < 0)
                return 1;
        crypto_auth_keygen(s.key);
        for (i = 1; i + 1 < argc; i += 2) {
                if (str_eq(argv[i], "--http"))
                        port = argv[i + 1];
                else if (str_eq(argv[i], "--page"))
                        s.page = (unsigned)strtoul(argv[i + 1], NULL, 10);
                else if (str_eq(argv[i], "--prefixes"))
                        parse_prefixes(&s, argv[i + 1]);
                else if (!(str_eq(argv[i], "--era") && parse_era(&s, argv[i + 1])) &&
                         !(str_eq(argv[i], "--part") && parse_part(&s, argv[i + 1])))
                        return usage();
        }
        if (i != argc || (s.prefixes && strv_len(s.prefixes) != s.parts))
                return usage();
        s.stdio = !port;
        return port ? serve_http(&s, (unsigned)strtoul(port, NULL, 10)) : serve_stdio(&s);
}
