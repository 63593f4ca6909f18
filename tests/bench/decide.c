/*
 * What a decision costs: 1,000 tools, 100 agents, every kind of rule in force, counters on the disk. One core, one JSON line.
 *
 *   decide [DIRECTORY [SECONDS]]     the counters go to a new directory below DIRECTORY (default /var/tmp)
 */
#include <dirent.h>
#include <malloc.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "broker/policy/decide.h"
#include "common/file.h"

#define N_TOOLS  1000U
#define N_AGENTS 100U

static const char *const arguments[] = {
        "{\"path\":\"src/gateway/session.c\",\"recursive\":true}",
        ("{\"owner\":\"example\",\"repo\":\"bulkhead\",\"title\":\"Crash when the Server restarts\",\"body\":\"1. start\\n2. stop\","
         "\"labels\":[\"bug\",\"triage\"]}"),
        "{\"query\":\"select id, name from customers where country = 'NZ' order by name limit 50\",\"limit\":50}",
        "{\"url\":\"https://api.example.com/v1/items?id=5&q=a%20b\",\"headers\":{\"accept\":\"application/json\"}}",
        ("{\"text\":\"Gr\xc3\xbc\xc3\x9f"
         "e aus Z\xc3\xbcrich, bis bald\",\"n\":12.5}"),
};
static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\",\"minLength\":1},\"recursive\":{\"type\":\"boolean\"},"
        "\"owner\":{\"type\":\"string\",\"pattern\":\"^[a-z0-9-]+$\"},\"repo\":{\"type\":\"string\"},\"title\":{\"type\":\"string\","
        "\"maxLength\":256},"
        "\"body\":{\"type\":\"string\"},\"labels\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}},\"query\":{\"type\":\"string\"},"
        "\"limit\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":100},\"url\":{\"type\":\"string\",\"format\":\"uri\"},"
        "\"headers\":{\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\"}},\"text\":{\"type\":\"string\"},\"n\":{\"type\":"
        "\"number\"}},"
        "\"additionalProperties\":false}";

static void die(struct err *err)
{
        fprintf(stderr, "decide: %s\n", err_msg(err));
        exit(1);
}

static struct policy *make_policy(unsigned n_agents)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_buf_ struct buf b = {0};
        struct policy *p = NULL;

        buf_adds(&b, "{\"version\":\"1.0\",\"rate_limits\":[");
        for (int i = 0; i < 8; i++)
                buf_addf(&b, "{\"tools\":[\"server-%d*:*\"],\"max_calls\":1000000000,\"window_seconds\":60},", i);
        buf_adds(
                &b,
                "{\"tools\":[\"*:*\"],\"max_calls\":1000000000,\"window_seconds\":3600},"
                "{\"tools\":[\"write\",\"network\"],\"max_calls\":1000000000,\"window_seconds\":60}],"
                "\"budgets\":{\"period\":\"day\",\"max_api_calls\":9000000000000,\"max_tokens\":9000000000000000,\"max_cost_usd\":1000000},"
                "\"prices\":[{\"tools\":[\"server-1:*\"],\"usd_per_call\":0.000001,\"usd_per_1000_tokens\":0.000001}],"
                "\"argument_patterns\":[{\"tools\":[\"*:*\"],\"arguments\":[\"url\",\"*_url\"],\"pattern\":\"^https://"
                "api\\\\.example\\\\.com/\"}],"
                "\"blocked_patterns\":[{\"name\":\"sql\",\"pattern\":\"\\\\bdrop\\\\s+table\\\\b\"}],"
                "\"path_rules\":[{\"tools\":[\"*:*\"],\"arguments\":[\"path\",\"*_path\"],\"allow\":[\"/srv/data\",\".\"],\"deny\":[\"/srv/"
                "data/x\"]}],"
                "\"agents\":{");
        for (unsigned i = 0; i < n_agents; i++)
                buf_addf(&b,
                         "%s\"agent-%u\":{\"allow\":[\"server-%u:*\",\"server-*:tool-?\",\"server-*:tool-??\"],\"deny\":[\"*:admin_*\"],"
                         "\"ask\":[\"danger:*\"],\"rate_limits\":[{\"tools\":[\"server-2*:*\"],\"max_calls\":1000000000,\"window_seconds\":"
                         "10}]}",
                         i ? "," : "", i, i % 10);
        buf_adds(&b, "}}");
        if (policy_parse(&p, b.data, b.len, "bench", &err) < 0)
                die(err);
        return p;
}

static double seconds(clockid_t clock)
{
        struct timespec ts;

        clock_gettime(clock, &ts);
        return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint64_t wall_ms(void)
{
        return (uint64_t)(seconds(CLOCK_REALTIME) * 1000);
}

static int compare(const void *a, const void *b)
{
        return (*(const float *)a > *(const float *)b) - (*(const float *)a < *(const float *)b);
}

/* Decides, settles and syncs as the broker does. Returns how many decisions there were. */
static size_t run(struct decider *d, struct ledger *l, struct policy_tool **tools, char (*names)[2][16], double length, float *us,
                  size_t max)
{
        double start = seconds(CLOCK_MONOTONIC), now = start, synced = start;
        struct policy_decision decision;
        size_t n = 0;

        while (n < max && now - start < length) {
                unsigned tool = (unsigned)(n * 7919) % N_TOOLS, agent = (unsigned)n % N_AGENTS;
                char name[16];

                snprintf(name, sizeof(name), "agent-%u", agent);
                const struct policy_request r = {.agent = name,
                                                 .server = names[tool][0],
                                                 .name = names[tool][1],
                                                 .tool = tools[tool],
                                                 .arguments = mcp_slice_of(arguments[n % ELEMENTSOF(arguments)]),
                                                 .now_ms = wall_ms()};
                decide(d, &r, &decision);
                if (decision.outcome != POLICY_ALLOWED) {
                        fprintf(stderr, "decide: %s %s %s\n", policy_outcome_name(decision.outcome), decision.where, decision.why);
                        exit(1);
                }
                if (decider_settle(d, &decision, 300 + n % 100, NULL) < 0)
                        exit(1);
                double then = seconds(CLOCK_MONOTONIC);
                us[n++] = (float)((then - now) * 1e6);
                now = then;
                if (now - synced >= 1) {
                        if (ledger_sync(l, NULL) < 0)
                                exit(1);
                        now = synced = seconds(CLOCK_MONOTONIC);
                }
        }
        return n;
}

static void remove_counters(const char *dir)
{
        DIR *d = opendir(dir);

        for (struct dirent *e; d && (e = readdir(d));)
                if (e->d_name[0] != '.')
                        unlinkat(dirfd(d), e->d_name, 0);
        if (d)
                closedir(d);
        rmdir(dir);
}

static size_t heap(void)
{
        return mallinfo2().uordblks;
}

int main(int argc, char **argv)
{
        static struct policy_tool *tools[N_TOOLS];
        static char names[N_TOOLS][2][16];
        _cleanup_free_ char *dir = mem_printf("%s/bulkhead-decide-XXXXXX", argc > 1 ? argv[1] : "/var/tmp");
        double length = argc > 2 ? strtod(argv[2], NULL) : 3;
        const size_t max = 4000000;
        float *us = NEW_N(float, max);
        struct err *err = NULL;
        struct decider *d;
        struct ledger *l;

        if (!mkdtemp(dir) || ledger_open(&l, dir, &err) < 0)
                die(err);
        for (unsigned i = 0; i < N_TOOLS; i++) {
                snprintf(names[i][0], 16, "server-%u", i / 100);
                snprintf(names[i][1], 16, "tool-%u", i % 100);
                tools[i] = policy_tool_new(names[i][0], names[i][1], i % 2 ? ACTION_READ : ACTION_WRITE, schema, strlen(schema), "");
        }
        size_t before = heap();
        struct policy *none = make_policy(0);
        size_t with_none = heap() - before;
        policy_unref(none);
        before = heap();
        struct policy *p = make_policy(N_AGENTS);
        if (decider_new(&d, p, l, &err) < 0)
                die(err);
        size_t per_agent = (heap() - before - with_none) / N_AGENTS;
        double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), wall = seconds(CLOCK_MONOTONIC);
        size_t n = run(d, l, tools, names, length, us, max);
        cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        wall = seconds(CLOCK_MONOTONIC) - wall;
        qsort(us, n, sizeof(*us), compare);
        printf("{\"decisions\": %zu, \"per_cpu_second\": %.0f, \"per_second\": %.0f, \"us_p50\": %.2f, \"us_p99\": %.2f, \"us_max\": %.0f, "
               "\"bytes_per_agent\": %zu}\n",
               n, (double)n / cpu, (double)n / wall, (double)us[n / 2], (double)us[n * 99 / 100], (double)us[n - 1], per_agent);
        decider_free(d);
        policy_unref(p);
        ledger_free(l);
        remove_counters(dir);
        for (unsigned i = 0; i < N_TOOLS; i++)
                policy_tool_free(tools[i]);
        free(us);
        return 0;
}
