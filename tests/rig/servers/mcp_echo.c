/*
 * mcp_echo: the rig's honest MCP server, stdio or streamable HTTP. See usage().
 */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/rig/servers/echo.h"

static int usage(void)
{
        fputs("usage: mcp_echo [--http PORT] [--era both|legacy|modern] [--variant TEXT] [--rug-env NAME] [--rug-at EPOCH]\n"
              "                [--probe HOST PORT MS] [--stderr TEXT]\n"
              "  --variant   puts TEXT into every description: another manifest\n"
              "  --rug-env   one more tool when NAME is set to anything but the smoke test's placeholder\n"
              "  --rug-at    one more tool from that time on\n"
              "  --probe     TCP, UDP and ICMP to HOST:PORT for MS milliseconds from the first instruction on\n",
              stderr);
        return 64;
}

static int serve_stdio(const struct echo_options *o)
{
        char *line = NULL;
        size_t size = 0;
        ssize_t n;

        while ((n = getline(&line, &size, stdin)) > 0) {
                int status;
                _cleanup_free_ char *answer = echo_answer(o, line, (size_t)n, &status);
                if (answer && (puts(answer) < 0 || fflush(stdout) != 0))
                        break;
        }
        free(line);
        return 0;
}

int main(int argc, char **argv)
{
        struct echo_options o = {.era = "both"};
        unsigned port = 0;

        signal(SIGPIPE, SIG_IGN);
        for (int i = 1; i < argc; i++) {
                int left = argc - i - 1;
                if (left >= 1 && str_eq(argv[i], "--http"))
                        port = (unsigned)strtoul(argv[++i], NULL, 10);
                else if (left >= 1 && str_eq(argv[i], "--era"))
                        o.era = argv[++i];
                else if (left >= 1 && str_eq(argv[i], "--variant"))
                        o.variant = argv[++i];
                else if (left >= 1 && str_eq(argv[i], "--rug-env"))
                        o.rug_env = argv[++i];
                else if (left >= 1 && str_eq(argv[i], "--rug-at"))
                        o.rug_at = strtol(argv[++i], NULL, 10);
                else if (left >= 1 && str_eq(argv[i], "--stderr"))
                        fprintf(stderr, "%s\n", argv[++i]);
                else if (left >= 3 && str_eq(argv[i], "--probe")) {
                        echo_probe_start(argv[i + 1], (unsigned)strtoul(argv[i + 2], NULL, 10), (unsigned)strtoul(argv[i + 3], NULL, 10));
                        i += 3;
                } else
                        return usage();
        }
        return port ? echo_serve_http(&o, port) : serve_stdio(&o);
}
