#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/policy/ledger_internal.h"
#include "common/file.h"

/* Both files are for this machine alone: numbers stand in them as in memory. */
#define MAGIC        "bulkhead counters 2\n"
#define MAGIC_SIZE   (sizeof(MAGIC) - 1)
#define MAX_SNAPSHOT (64U << 20)  /* more than LEDGER_MAX_AGENTS with all their windows */
#define GROWTH       (256U << 10) /* bytes by which the journal gets room on the disk */

/* Records begin at multiples of it, so that none lies in two sectors of the disk: each is there whole, or not at all. */
#define RECORD_ROOM 64U
_Static_assert(sizeof(struct record) <= RECORD_ROOM && LEDGER_JOURNAL_BYTES % GROWTH == 0 && GROWTH % RECORD_ROOM == 0, "records fit");

/* What a snapshot begins with, behind the magic, and each agent in it. A SHA-256 over all of it ends it. */
struct header {
        uint64_t generation, now_ms;
        uint32_t n_states, size_of_window;
};

struct saved_state {
        char name[LEDGER_MAX_NAME];
        uint32_t period, period_number;
        uint64_t calls, tokens, cost;
        uint32_t n_windows, unused;
};

static char *journal_path(const struct ledger *l, uint64_t generation)
{
        return mem_printf("%s/counters.%llu.journal", l->dir, (unsigned long long)generation);
}

/* Finds torn and foreign records; nobody who can write here needs to forge one. FNV-1a. */
static uint32_t record_check(const struct record *r, uint64_t generation)
{
        const unsigned char *p = (const unsigned char *)r + sizeof(r->check);
        uint64_t h = UINT64_C(0xcbf29ce484222325) ^ generation;

        for (size_t i = 0; i < sizeof(*r) - sizeof(r->check); i += 4) {
                uint32_t word;
                memcpy(&word, p + i, sizeof(word));
                h = (h ^ word) * UINT64_C(0x100000001b3);
        }
        return (uint32_t)(h ^ h >> 32);
}

/* -- writing ------------------------------------------------------------------------------------------------------------------- */
static void save_states(struct buf *b, const struct header *header, struct ledger_state *const *states)
{
        unsigned char sum[crypto_hash_sha256_BYTES];

        buf_add(b, MAGIC, MAGIC_SIZE);
        buf_add(b, header, sizeof(*header));
        for (uint32_t i = 0; i < header->n_states; i++) {
                const struct ledger_state *s = states[i];
                struct saved_state saved = {.period = s->period,
                                            .period_number = s->period_number,
                                            .calls = s->calls,
                                            .tokens = s->tokens,
                                            .cost = s->cost,
                                            .n_windows = s->n_windows};

                memcpy(saved.name, s->name, sizeof(saved.name));
                buf_add(b, &saved, sizeof(saved));
                buf_add(b, s->windows, s->n_windows * sizeof(struct window));
        }
        crypto_hash_sha256(sum, (const unsigned char *)b->data, b->len);
        buf_add(b, sum, sizeof(sum));
}

/* What is written into memory below has its place on the disk before, so that a full disk is an error here, and not a signal there. */
static int give_room(int fd, size_t at)
{
        static const char zeros[4096];

        if (fallocate(fd, 0, (off_t)at, GROWTH) == 0)
                return 0;
        if (errno != EOPNOTSUPP)
                return -1;
        for (size_t k = 0; k < GROWTH; k += sizeof(zeros))
                if (pwrite(fd, zeros, sizeof(zeros), (off_t)(at + k)) != (ssize_t)sizeof(zeros))
                        return -1;
        return 0;
}

void ledger_close_journal(struct ledger *l)
{
        if (l->records)
                munmap(l->records, LEDGER_JOURNAL_BYTES);
        if (l->journal >= 0)
                close(l->journal);
        l->records = NULL;
        l->journal = -1;
}

int ledger_write_snapshot(struct ledger *l, struct ledger_state *const *states, size_t n, struct err **err)
{
        const struct header header = {l->generation + 1, l->now_ms, (uint32_t)n, sizeof(struct window)};
        _cleanup_free_ char *path = mem_printf("%s/counters", l->dir), *journal = journal_path(l, header.generation),
                            *old_journal = journal_path(l, l->generation);
        _cleanup_buf_ struct buf b = {0};

        /* First the journal, so that no snapshot is ever without one; one of a try that failed is overwritten. */
        _cleanup_fd_ int fd = open(journal, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0 || give_room(fd, 0) < 0)
                return err_sys(err, errno, "cannot make %s", journal);
        char *records = mmap(NULL, LEDGER_JOURNAL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (records == MAP_FAILED)
                return err_sys(err, errno, "cannot make %s", journal);
        save_states(&b, &header, states);
        if (file_write_atomic(path, b.data, b.len, 0600, err) < 0) {
                munmap(records, LEDGER_JOURNAL_BYTES);
                return err_wrap(err, "counters");
        }
        ledger_close_journal(l);
        unlink(old_journal);
        l->journal = TAKE_FD(fd);
        l->records = records;
        l->journal_size = 0;
        l->journal_room = GROWTH;
        l->unsynced = false;
        l->generation = header.generation;
        return 0;
}

/* For one record more. */
static int make_room(struct ledger *l, struct err **err)
{
        if (l->journal_size == LEDGER_JOURNAL_BYTES)
                return ledger_write_snapshot(l, l->states, l->n_states, err);
        if (l->journal_size < l->journal_room)
                return 0;
        if (give_room(l->journal, l->journal_room) < 0)
                return err_sys(err, errno, "cannot write the journal of the counters in %s", l->dir);
        l->journal_room += GROWTH;
        return 0;
}

int ledger_append(struct ledger *l, struct record *r, struct err **err)
{
        if (!l->dir)
                return 0;
        if (!l->records)
                return err_set(err, ERR_INTERNAL, "no agent has been declared to the counters in %s", l->dir);
        if (make_room(l, err) < 0)
                return -1;
        r->check = record_check(r, l->generation);
        memcpy(l->records + l->journal_size, r, sizeof(*r));
        l->journal_size += RECORD_ROOM;
        l->unsynced = true;
        return 0;
}

/* -- reading ------------------------------------------------------------------------------------------------------------------- */
static int damaged(const struct ledger *l, const char *file, struct err **err)
{
        return err_set(err, ERR_INVALID, "%s/%s is damaged: nobody knows what agents have used. Move %s/counters* away to begin at zero",
                       l->dir, file, l->dir);
}

struct cursor {
        const char *p, *end;
};

static bool read_bytes(struct cursor *c, void *dst, size_t n)
{
        if ((size_t)(c->end - c->p) < n)
                return false;
        memcpy(dst, c->p, n);
        c->p += n;
        return true;
}

static bool read_state(struct cursor *c, struct ledger_state **ret)
{
        struct saved_state saved;

        if (!read_bytes(c, &saved, sizeof(saved)) || saved.n_windows > LEDGER_MAX_WINDOWS || saved.period > LEDGER_FOREVER)
                return false;
        struct ledger_state *s = *ret = mem_alloc(sizeof(*s) + saved.n_windows * sizeof(struct window));
        memcpy(s->name, saved.name, sizeof(saved.name));
        s->period = (enum ledger_period)saved.period;
        s->period_number = saved.period_number;
        s->calls = saved.calls;
        s->tokens = saved.tokens;
        s->cost = saved.cost;
        s->n_windows = saved.n_windows;
        if (!read_bytes(c, s->windows, s->n_windows * sizeof(struct window)))
                return false;
        for (uint32_t i = 0; i < s->n_windows; i++)
                if (s->windows[i].window_ms == 0)
                        return false;
        return true;
}

static bool read_snapshot(struct ledger *l, const char *text, size_t n)
{
        unsigned char sum[crypto_hash_sha256_BYTES];
        struct header header;

        if (n < MAGIC_SIZE + sizeof(sum) || memcmp(text, MAGIC, MAGIC_SIZE) != 0)
                return false;
        struct cursor c = {text + MAGIC_SIZE, text + n - sizeof(sum)};
        crypto_hash_sha256(sum, (const unsigned char *)text, n - sizeof(sum));
        if (memcmp(sum, c.end, sizeof(sum)) != 0 || !read_bytes(&c, &header, sizeof(header)))
                return false;
        if (header.n_states > LEDGER_MAX_AGENTS || header.size_of_window != sizeof(struct window))
                return false;
        l->generation = header.generation;
        l->now_ms = header.now_ms;
        l->states = mem_alloc((header.n_states + 1) * sizeof(*l->states));
        for (uint32_t i = 0; i < header.n_states; i++)
                if (!read_state(&c, &l->states[l->n_states++]))
                        return false;
        return c.p == c.end;
}

/*
 * A record that a kill tore is the last one, and belongs to a call that was never let through. Room for records is zero until they are
 * written; after a power failure some of the last second may be so, in any order, and those that are there count. Anything else is damage.
 */
static bool replay(struct ledger *l, const char *text, size_t n)
{
        static const struct record none;
        struct record r;
        bool torn = false;

        for (size_t at = 0; at + RECORD_ROOM <= n; at += RECORD_ROOM) {
                memcpy(&r, text + at, sizeof(r));
                if (memcmp(&r, &none, sizeof(r)) == 0)
                        continue;
                if (torn)
                        return false;
                torn = r.check != record_check(&r, l->generation) || r.agent >= l->n_states ||
                       (r.type != RECORD_TAKE && r.type != RECORD_SETTLE);
                if (!torn)
                        ledger_apply(l, &r);
        }
        return true;
}

int ledger_read(struct ledger *l, struct err **err)
{
        _cleanup_free_ char *path = mem_printf("%s/counters", l->dir), *text = NULL, *journal = NULL, *records = NULL;
        size_t n = 0;

        if (access(path, F_OK) < 0 && errno == ENOENT)
                return 0;
        if (file_read(&text, &n, path, MAX_SNAPSHOT, FILE_TRUSTED, err) < 0)
                return err_wrap(err, "counters");
        if (!read_snapshot(l, text, n))
                return damaged(l, "counters", err);
        journal = journal_path(l, l->generation);
        if (file_read(&records, &n, journal, LEDGER_JOURNAL_BYTES, FILE_TRUSTED, err) < 0)
                return err_wrap(err, "counters");
        return replay(l, records, n) ? 0 : damaged(l, "its journal", err);
}
