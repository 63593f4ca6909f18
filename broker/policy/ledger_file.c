#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <unistd.h>

#include "broker/policy/ledger_internal.h"
#include "common/file.h"

/* Both files are for this machine alone: numbers stand in them as in memory. */
#define MAGIC        "bulkhead counters 1\n"
#define MAGIC_SIZE   (sizeof(MAGIC) - 1)
#define MAX_SNAPSHOT (64U << 20) /* more than LEDGER_MAX_AGENTS with all their windows */

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

int ledger_write_snapshot(struct ledger *l, struct ledger_state *const *states, size_t n, struct err **err)
{
        const struct header header = {l->generation + 1, l->now_ms, (uint32_t)n, sizeof(struct window)};
        _cleanup_free_ char *path = mem_printf("%s/counters", l->dir), *journal = journal_path(l, header.generation),
                            *old_journal = journal_path(l, l->generation);
        _cleanup_buf_ struct buf b = {0};

        /* First the journal, so that no snapshot is ever without one; one of a try that failed is overwritten. */
        _cleanup_fd_ int fd = open(journal, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return err_sys(err, errno, "cannot make %s", journal);
        save_states(&b, &header, states);
        if (file_write_atomic(path, b.data, b.len, 0600, err) < 0)
                return err_wrap(err, "counters");
        if (l->journal >= 0)
                close(l->journal);
        unlink(old_journal);
        l->journal = TAKE_FD(fd);
        l->journal_size = 0;
        l->unsynced = false;
        l->generation = header.generation;
        return 0;
}

int ledger_append(struct ledger *l, struct record *r, struct err **err)
{
        ssize_t n;

        if (!l->dir)
                return 0;
        if (l->journal_size + (off_t)sizeof(*r) > LEDGER_JOURNAL_BYTES && ledger_write_snapshot(l, l->states, l->n_states, err) < 0)
                return -1;
        r->check = record_check(r, l->generation);
        do {
                n = pwrite(l->journal, r, sizeof(*r), l->journal_size);
        } while (n < 0 && errno == EINTR);
        /* What was written of a torn record is overwritten by the next one. */
        if (n != sizeof(*r))
                return err_sys(err, n < 0 ? errno : ENOSPC, "cannot write the journal of the counters in %s", l->dir);
        l->journal_size += n;
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

static bool all_zero(const char *p, size_t n)
{
        return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/*
 * A record that a kill or a full disk tore is the last one, and belongs to a call that was never let through. After a power failure the
 * file may end in zeros. Anything else is damage.
 */
static bool replay(struct ledger *l, const char *text, size_t n)
{
        struct record r;
        size_t at = 0;

        for (; at + sizeof(r) <= n; at += sizeof(r)) {
                memcpy(&r, text + at, sizeof(r));
                if (r.check != record_check(&r, l->generation) || r.agent >= l->n_states ||
                    (r.type != RECORD_TAKE && r.type != RECORD_SETTLE))
                        return all_zero(text + at, n - at) || at + sizeof(r) == n;
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
        if (file_read(&records, &n, journal, LEDGER_JOURNAL_BYTES + sizeof(struct record), FILE_TRUSTED, err) < 0)
                return err_wrap(err, "counters");
        return replay(l, records, n) ? 0 : damaged(l, "its journal", err);
}
