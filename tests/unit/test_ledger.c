#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/policy/ledger_internal.h"
#include "broker/policy/window.h"
#include "common/file.h"
#include "tests/unit/test.h"

#define NOW UINT64_C(1764111600000) /* 2025-11-25 23:00:00 UTC */

static const struct ledger_limit two_limits[] = {{1, 60000, 10}, {2, 1000, 3}};
static const struct ledger_agent alice = {"alice", two_limits, 2, LEDGER_DAY, UINT64_MAX, 100, UINT64_MAX};

static void make_dir(char dir[32])
{
        strcpy(dir, "/tmp/bulkhead-ledger-XXXXXX");
        assert_non_null(mkdtemp(dir));
}

static void remove_dir(const char *dir)
{
        DIR *d = opendir(dir);

        for (struct dirent *e; (e = readdir(d));)
                if (e->d_name[0] != '.')
                        unlinkat(dirfd(d), e->d_name, 0);
        closedir(d);
        rmdir(dir);
}

static size_t count_files(const char *dir)
{
        DIR *d = opendir(dir);
        size_t n = 0;

        for (struct dirent *e; (e = readdir(d));)
                n += e->d_name[0] != '.';
        closedir(d);
        return n;
}

static struct ledger *open_ledger(const char *dir, const struct ledger_agent *agents, size_t n)
{
        _cleanup_err_ struct err *err = NULL;
        struct ledger *l = NULL;

        assert_ok(ledger_open(&l, dir, &err));
        assert_ok(ledger_declare(l, agents, n, &err));
        return l;
}

static struct ledger_answer take(struct ledger *l, size_t agent, uint32_t limits, uint64_t now, uint64_t tokens, uint64_t cost,
                                 struct ledger_ticket *ticket)
{
        const struct ledger_ask ask = {agent, limits, now, tokens, cost};
        _cleanup_err_ struct err *err = NULL;
        struct ledger_ticket unused;
        struct ledger_answer answer;

        assert_ok(ledger_take(l, &ask, &answer, ticket ? ticket : &unused, &err));
        return answer;
}

static unsigned take_many(struct ledger *l, size_t agent, uint32_t limits, uint64_t now, unsigned tries)
{
        unsigned admitted = 0;

        while (tries-- > 0)
                admitted += take(l, agent, limits, now, 0, 0, NULL).outcome == LEDGER_ADMITTED;
        return admitted;
}

static void no_window_ever_holds_more(_unused_ void **state)
{
        struct window w = {.window_ms = 1000};
        uint64_t admitted[4000], n = 0, now = 77;
        const uint32_t max = 7;

        srand(1);
        for (int i = 0; i < 20000; i++) {
                now += (uint64_t)(rand() % 40);
                window_advance(&w, now);
                if (w.total >= max)
                        continue;
                window_add(&w);
                admitted[n % ELEMENTSOF(admitted)] = now;
                if (n >= max)
                        assert_true(now - admitted[(n - max) % ELEMENTSOF(admitted)] >= 1000);
                n++;
        }
        assert_true(n > 1000);
}

static void retry_after_is_the_first_time_that_works(_unused_ void **state)
{
        struct window w = {.window_ms = 60000};
        uint64_t now = 123456;

        for (int i = 0; i < 5; i++) {
                window_advance(&w, now);
                window_add(&w);
                now += 3000;
        }
        window_advance(&w, now);
        uint64_t wait = window_retry_after(&w, now, 5);
        assert_true(wait >= 60000 - 15000 && wait <= 60000 - 15000 + 60000 / 32 + 1);
        window_advance(&w, now + wait - 1);
        assert_int_equal(w.total, 5);
        window_advance(&w, now + wait);
        assert_true(w.total < 5);
        assert_int_equal(window_retry_after(&w, now + wait, 5), 0);
        assert_int_equal(window_retry_after(&w, now + wait, 0), 0);
}

static void every_limit_counts(_unused_ void **state)
{
        _cleanup_(ledger_freep) struct ledger *l = open_ledger(NULL, &alice, 1);
        struct ledger_answer a;

        assert_int_equal(take_many(l, 0, 3, NOW, 50), 3);
        a = take(l, 0, 3, NOW, 0, 0, NULL);
        assert_int_equal(a.outcome, LEDGER_RATE);
        assert_int_equal(a.limit, 1);
        assert_in_range(a.retry_after_ms, 1000, 1064);
        assert_int_equal(take_many(l, 0, 1, NOW, 50), 7);
        a = take(l, 0, 3, NOW, 0, 0, NULL); /* of both, the longer wait */
        assert_int_equal(a.limit, 0);
        assert_in_range(a.retry_after_ms, 60000 - 1875, 61875);
        /* a clock that is set back wins nothing */
        assert_int_equal(take_many(l, 0, 1, NOW - 3600000, 5), 0);
        assert_true(ledger_clock_behind(l, NOW - 5000) == 5000);
        assert_int_equal(take_many(l, 0, 3, NOW + 62000, 50), 3);
}

static void budgets_are_exact_and_begin_anew(_unused_ void **state)
{
        static const struct ledger_agent a[] = {{"calls", NULL, 0, LEDGER_DAY, UINT64_MAX, 5, UINT64_MAX},
                                                {"tokens", NULL, 0, LEDGER_HOUR, 1000, UINT64_MAX, UINT64_MAX},
                                                {"cost", NULL, 0, LEDGER_MONTH, UINT64_MAX, UINT64_MAX, 250},
                                                {"ever", NULL, 0, LEDGER_FOREVER, UINT64_MAX, 1, UINT64_MAX}};
        _cleanup_(ledger_freep) struct ledger *l = open_ledger(NULL, a, 4);
        _cleanup_err_ struct err *err = NULL;
        struct ledger_ticket t;
        struct ledger_answer answer;

        assert_int_equal(take_many(l, 0, 0, NOW, 64), 5);
        answer = take(l, 0, 0, NOW, 0, 0, NULL);
        assert_int_equal(answer.outcome, LEDGER_CALLS);
        assert_int_equal(answer.retry_after_ms, 3600000); /* to midnight */
        assert_int_equal(take_many(l, 0, 0, NOW + 3600000, 64), 5);

        assert_int_equal(take(l, 1, 0, NOW + 3600000, 600, 0, &t).outcome, LEDGER_ADMITTED);
        assert_int_equal(take(l, 1, 0, NOW + 3600000, 600, 0, NULL).outcome, LEDGER_TOKENS);
        assert_ok(ledger_settle(l, &t, 100, 0, &err)); /* it used less than was reserved */
        assert_int_equal(take(l, 1, 0, NOW + 3600000, 600, 0, &t).outcome, LEDGER_ADMITTED);
        assert_ok(ledger_settle(l, &t, 5000, 0, &err)); /* and this one more */
        assert_int_equal(take(l, 1, 0, NOW + 3600000, 0, 0, NULL).outcome, LEDGER_TOKENS);
        /* a settlement of a period that is over changes nothing in the next */
        assert_int_equal(take(l, 1, 0, NOW + 7200000, 10, 0, &t).outcome, LEDGER_ADMITTED);
        assert_int_equal(take(l, 1, 0, NOW + 10800000, 20, 0, NULL).outcome, LEDGER_ADMITTED);
        assert_ok(ledger_settle(l, &t, 900, 0, &err));
        struct ledger_usage usage;
        ledger_usage(l, 1, NOW + 10800000, &usage);
        assert_true(usage.tokens == 20 && usage.calls == 1);

        assert_int_equal(take(l, 2, 0, NOW, 0, 200, NULL).outcome, LEDGER_ADMITTED);
        answer = take(l, 2, 0, NOW, 0, 51, NULL);
        assert_int_equal(answer.outcome, LEDGER_COST);
        assert_true(answer.retry_after_ms > 4 * 86400000ULL && answer.retry_after_ms < 6 * 86400000ULL);
        assert_int_equal(take(l, 2, 0, NOW, 0, 50, NULL).outcome, LEDGER_ADMITTED);
        assert_int_equal(take(l, 2, 0, NOW, 0, 0, NULL).outcome, LEDGER_ADMITTED); /* what is free stays free */

        assert_int_equal(take_many(l, 3, 0, NOW, 2), 1);
        answer = take(l, 3, 0, NOW + 400 * 86400000ULL, 0, 0, NULL);
        assert_int_equal(answer.outcome, LEDGER_CALLS);
        assert_int_equal(answer.retry_after_ms, 0);
}

/* 64 calls under way at once: none may use what another has reserved. */
static void calls_at_the_same_time_share_nothing(_unused_ void **state)
{
        static const struct ledger_agent a = {"a", NULL, 0, LEDGER_DAY, 1000, UINT64_MAX, UINT64_MAX};
        _cleanup_(ledger_freep) struct ledger *l = open_ledger(NULL, &a, 1);
        _cleanup_err_ struct err *err = NULL;
        struct ledger_ticket tickets[64] = {0};
        uint64_t used = 0;
        unsigned under_way = 0;

        srand(2);
        for (int i = 0; i < 20000; i++) {
                size_t at = (size_t)rand() % 64;

                if (tickets[at].agent) {
                        uint64_t tokens = (uint64_t)rand() % 11; /* at most what was reserved */
                        assert_ok(ledger_settle(l, &tickets[at], tokens, 0, &err));
                        used += tokens;
                        under_way--;
                } else if (take(l, 0, 0, NOW, 10, 0, &tickets[at]).outcome == LEDGER_ADMITTED) {
                        under_way++;
                }
                assert_true(used + 10 * under_way <= 1000);
        }
        assert_true(used > 990);
}

static void counters_survive_a_restart_and_a_new_policy(_unused_ void **state)
{
        static const struct ledger_limit reordered[] = {{2, 1000, 3}, {3, 5000, 1}, {1, 60000, 12}};
        static const struct ledger_agent bob = {"bob", two_limits, 1, LEDGER_DAY, 50, 100, 70},
                                         later[] = {{"bob", two_limits, 1, LEDGER_DAY, 50, 100, 70},
                                                    {"alice", reordered, 3, LEDGER_DAY, UINT64_MAX, 100, UINT64_MAX}};
        _cleanup_err_ struct err *err = NULL;
        struct ledger_ticket ticket;
        struct ledger_usage usage;
        char dir[32];

        make_dir(dir);
        struct ledger *l = open_ledger(dir, &alice, 1);
        assert_int_equal(take_many(l, 0, 1, NOW, 10), 10);
        ledger_free(l);
        l = open_ledger(dir, later, 2);
        ledger_usage(l, 1, NOW, &usage);
        assert_true(usage.calls == 10 && usage.in_window[0] == 0 && usage.in_window[1] == 0 && usage.in_window[2] == 10);
        assert_int_equal(take_many(l, 1, 4, NOW, 10), 2);
        assert_int_equal(take(l, 0, 0, NOW, 30, 40, &ticket).outcome, LEDGER_ADMITTED);
        /* alice goes, and comes back, also over a restart: nothing is forgotten; bob's ticket is still good */
        assert_ok(ledger_declare(l, &bob, 1, &err));
        /* and so for a limit that is taken away and put back */
        static const struct ledger_agent lax[] = {{"bob", NULL, 0, LEDGER_DAY, 50, 100, 70},
                                                  {"alice", reordered, 1, LEDGER_DAY, 9, 100, 9}};
        assert_ok(ledger_declare(l, lax, 2, &err));
        assert_ok(ledger_declare(l, later, 2, &err));
        assert_int_equal(take_many(l, 1, 4, NOW, 10), 0);
        assert_ok(ledger_declare(l, &bob, 1, &err));
        assert_ok(ledger_settle(l, &ticket, 20, 0, &err));
        ledger_free(l);
        l = open_ledger(dir, &bob, 1);
        ledger_usage(l, 0, NOW, &usage);
        assert_true(usage.tokens == 20 && usage.cost == 0 && usage.calls == 1);
        ledger_free(l);
        l = open_ledger(dir, later, 2);
        assert_int_equal(take_many(l, 1, 4, NOW, 10), 0);
        assert_int_equal(count_files(dir), 2);
        ledger_free(l);
        remove_dir(dir);
}

#define RECORD 64 /* bytes that a record has in the journal */

/* What is counted after these bytes were written into the journal; -1: it is damaged. */
static int counted_after(const char *dir, const char *journal, const void *bytes, size_t n, off_t at)
{
        _cleanup_err_ struct err *err = NULL;
        struct ledger *l = NULL;
        int fd = open(journal, O_RDWR), calls = -1;

        assert_int_equal(pwrite(fd, bytes, n, at), n);
        close(fd);
        if (ledger_open(&l, dir, &err) == 0)
                calls = (int)l->states[0]->calls;
        else
                assert_non_null(strstr(err_msg(err), "damaged"));
        ledger_free(l);
        return calls;
}

static void damage_is_an_error_and_a_torn_end_is_not(_unused_ void **state)
{
        static const char zeros[4096];
        _cleanup_err_ struct err *err = NULL;
        struct ledger *l, *none = NULL;
        struct ledger_usage usage;
        char dir[32];

        make_dir(dir);
        _cleanup_free_ char *journal = mem_printf("%s/counters.1.journal", dir), *snapshot = mem_printf("%s/counters", dir);
        l = open_ledger(dir, &alice, 1);
        assert_int_equal(take_many(l, 0, 1, NOW, 5), 5);
        ledger_free(l);
        assert_int_equal(counted_after(dir, journal, "", 0, 0), 5);
        /* A kill in the middle of the last one. */
        assert_int_equal(counted_after(dir, journal, zeros, 20, 4 * RECORD + 20), 4);
        assert_int_equal(counted_after(dir, journal, zeros, RECORD, 4 * RECORD), 4);
        /* What a power failure took from the middle: what is there counts. */
        assert_int_equal(counted_after(dir, journal, zeros, RECORD, RECORD), 3);
        assert_int_equal(counted_after(dir, journal, "x", 1, 2 * RECORD + 16), -1);
        assert_int_equal(counted_after(dir, journal, zeros, RECORD, 2 * RECORD), 2);
        /* The rest of the file may not be there at all. */
        assert_int_equal(truncate(journal, 4 * RECORD), 0);
        assert_int_equal(counted_after(dir, journal, "", 0, 0), 2);
        assert_int_equal(truncate(journal, 4 * RECORD - 10), 0);
        assert_int_equal(counted_after(dir, journal, "", 0, 0), 1);
        int fd = open(snapshot, O_RDWR);
        assert_true(pwrite(fd, "x", 1, 30) == 1);
        close(fd);
        assert_fails(ledger_open(&none, dir, &err), "counters is damaged");
        assert_int_equal(unlink(journal), 0);
        assert_int_equal(unlink(snapshot), 0);
        l = open_ledger(dir, &alice, 1);
        ledger_usage(l, 0, NOW, &usage);
        assert_true(usage.calls == 0);
        ledger_free(l);
        remove_dir(dir);
}

/* A disk that is full when the journal needs more room. */
static void what_cannot_be_written_is_not_admitted(_unused_ void **state)
{
        static const struct ledger_agent a = {"a", NULL, 0, LEDGER_DAY, UINT64_MAX, 5000, UINT64_MAX};
        const unsigned room = (256 << 10) / RECORD;
        _cleanup_err_ struct err *err = NULL;
        const struct ledger_ask ask = {0, 0, NOW, 0, 0};
        struct ledger_answer answer;
        struct ledger_ticket ticket;
        struct ledger_usage usage;
        char dir[32];

        make_dir(dir);
        _cleanup_(ledger_freep) struct ledger *l = open_ledger(dir, &a, 1);
        assert_int_equal(take_many(l, 0, 0, NOW, room), room);
        struct rlimit old, small = {(256 << 10) + 100, RLIM_INFINITY};
        getrlimit(RLIMIT_FSIZE, &old);
        small.rlim_max = old.rlim_max;
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &small);
        int r = ledger_take(l, &ask, &answer, &ticket, &err);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(r, -1);
        assert_non_null(strstr(err_msg(err), "cannot write the journal"));
        assert_int_equal(ticket.agent, 0);
        ledger_usage(l, 0, NOW, &usage);
        assert_true(usage.calls == room);
        assert_int_equal(take_many(l, 0, 0, NOW, 2000), 5000 - room);
        ledger_freep(&l);
        l = open_ledger(dir, &a, 1);
        assert_int_equal(take_many(l, 0, 0, NOW, 20), 0);
        remove_dir(dir);
}

static void two_processes_do_not_count_past_each_other(_unused_ void **state)
{
        _cleanup_err_ struct err *err = NULL;
        struct ledger *none = NULL;
        char dir[32];

        make_dir(dir);
        struct ledger *l = open_ledger(dir, &alice, 1);
        assert_fails(ledger_open(&none, dir, &err), "another process counts");
        ledger_free(l);
        ledger_free(open_ledger(dir, &alice, 1));
        remove_dir(dir);
        assert_fails(ledger_open(&none, dir, &err), "cannot open the directory");
}

static void journal_is_bounded(_unused_ void **state)
{
        static const struct ledger_agent a = {"a", NULL, 0, LEDGER_DAY, UINT64_MAX, UINT64_MAX, UINT64_MAX};
        const unsigned many = LEDGER_JOURNAL_BYTES / RECORD + 1000;
        struct ledger_usage usage;
        char dir[32];

        make_dir(dir);
        struct ledger *l = open_ledger(dir, &a, 1);
        assert_int_equal(take_many(l, 0, 0, NOW, many), many);
        ledger_free(l);
        assert_int_equal(count_files(dir), 2);
        _cleanup_free_ char *journal = mem_printf("%s/counters.2.journal", dir);
        struct stat st;
        assert_int_equal(stat(journal, &st), 0);
        assert_int_equal(st.st_size, 256 << 10);
        l = open_ledger(dir, &a, 1);
        ledger_usage(l, 0, NOW, &usage);
        assert_true(usage.calls == many);
        ledger_free(l);
        remove_dir(dir);
}

/*
 * A child admits as fast as it can, counts in shared memory what it would now send on, and is killed at a random moment, time and again.
 * In the end exactly the limit was admitted, less at most one call per kill: the one whose record was written, but which never went out.
 */
static void never_more_than_the_limit_across_kills(_unused_ void **state)
{
        static const struct ledger_limit limit = {1, 31 * 86400000ULL, 200000};
        static const struct ledger_agent a = {"a", &limit, 1, LEDGER_DAY, UINT64_MAX, 150000, UINT64_MAX};
        /* cppcheck-suppress invalidFunctionArg; no file is behind it */
        volatile unsigned *sent = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), *open = sent + 1;
        unsigned kills = 0;
        char dir[32];

        make_dir(dir);
        srand((unsigned)getpid());
        for (;;) {
                *open = 0;
                pid_t child = fork();
                int status;

                if (child == 0) {
                        struct ledger *l = open_ledger(dir, &a, 1);
                        *open = 1;
                        while (take(l, 0, 1, NOW, 0, 0, NULL).outcome == LEDGER_ADMITTED)
                                ++*sent;
                        _exit(0);
                }
                /* Now and then also while it reads what is there; but where that takes long, it would never come to anything else. */
                bool early = rand() % 4 == 0;
                for (unsigned i = 0; !early && !*open && i < 200000; i++)
                        usleep(100);
                usleep((useconds_t)(rand() % 15000));
                kill(child, SIGKILL);
                assert_int_equal(waitpid(child, &status, 0), child);
                if (WIFEXITED(status)) {
                        assert_int_equal(WEXITSTATUS(status), 0);
                        break;
                }
                assert_in_range(++kills, 1, 10000);
        }
        print_message("%u admitted, %u kills\n", *sent, kills);
        assert_true(*sent <= 150000 && *sent + kills >= 150000);
        munmap((void *)(uintptr_t)sent, 4096);
        remove_dir(dir);
}

/* The disk is waited for by nobody; that it failed is said the next time, and done again. */
static void synced_without_waiting(_unused_ void **state)
{
        char dir[32];
        struct ledger_ticket t = {0};
        struct err *err = NULL;
        int ends[2], journal;

        make_dir(dir);
        struct ledger *l = open_ledger(dir, &alice, 1);
        for (unsigned i = 0; i < 3; i++) {
                take(l, 0, 0, NOW, 1, 0, &t);
                assert_true(l->unsynced);
                assert_ok(ledger_sync(l, &err));
                assert_false(l->unsynced);
                for (unsigned k = 0; k < 5000 && l->syncing; k++) {
                        usleep(1000);
                        assert_ok(ledger_sync(l, &err));
                }
                assert_false(l->syncing);
        }
        take(l, 0, 0, NOW, 1, 0, &t);
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0); /* nothing that could be synced */
        journal = l->journal;
        l->journal = ends[1];
        assert_fails(ledger_sync(l, &err), "to the disk");
        assert_true(l->unsynced);
        l->journal = journal;
        assert_ok(ledger_sync(l, &err));
        ledger_free(l); /* with one under way */
        close(ends[0]);
        close(ends[1]);
        remove_dir(dir);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(no_window_ever_holds_more),
                cmocka_unit_test(retry_after_is_the_first_time_that_works),
                cmocka_unit_test(every_limit_counts),
                cmocka_unit_test(budgets_are_exact_and_begin_anew),
                cmocka_unit_test(calls_at_the_same_time_share_nothing),
                cmocka_unit_test(counters_survive_a_restart_and_a_new_policy),
                cmocka_unit_test(damage_is_an_error_and_a_torn_end_is_not),
                cmocka_unit_test(what_cannot_be_written_is_not_admitted),
                cmocka_unit_test(two_processes_do_not_count_past_each_other),
                cmocka_unit_test(journal_is_bounded),
                cmocka_unit_test(synced_without_waiting),
                cmocka_unit_test(never_more_than_the_limit_across_kills),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
