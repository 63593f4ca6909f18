/* The table of servers that are worked on, and what failures do to one. */
#include "controller/controller.h"

#include <sys/random.h>

#include "common/log.h"

#define BACKOFF_FIRST_MS 250U
#define BACKOFF_MAX_MS   300000U

void key_free(struct key *key)
{
        plan_server_free(key->plan);
        desired_unref(key->desired);
        free(key->name);
        free(key->image_of);
        free(key->image_refused);
        free(key->tested_for);
        free(key->stopping);
        free(key->error);
        session_end(&key->session);
        strv_free(key->differs);
        free(key->hung);
        free(key);
}

static size_t key_position(const struct controller *c, const char *name, bool *found)
{
        size_t low = 0, high = c->n_keys;

        *found = false;
        while (low < high) {
                size_t middle = (low + high) / 2;
                int r = strcmp(c->keys[middle]->name, name);
                if (r == 0) {
                        *found = true;
                        return middle;
                }
                if (r < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

struct key *key_find(struct controller *c, const char *name)
{
        bool found;
        size_t i = key_position(c, name, &found);

        return found ? c->keys[i] : NULL;
}

struct key *key_get(struct controller *c, const char *name)
{
        bool found;
        size_t i = key_position(c, name, &found);

        if (found)
                return c->keys[i];
        struct key *key = NEW(struct key);
        key->c = c;
        key->name = mem_strdup(name);
        key->session.fd = -1;
        c->keys = mem_realloc(c->keys, c->n_keys + 1, sizeof(*c->keys));
        memmove(c->keys + i + 1, c->keys + i, (c->n_keys - i) * sizeof(*c->keys));
        c->keys[i] = key;
        c->n_keys++;
        return key;
}

/* Keys that nothing declares and of which nothing is left. */
void keys_sweep(struct controller *c)
{
        size_t kept = 0;

        for (size_t i = 0; i < c->n_keys; i++) {
                struct key *key = c->keys[i];
                bool idle = !key->busy && !key->stopping && (!key->plan || key->plan->n_actions == 0);

                if (idle && !desired_find(c->desired, key->name))
                        key_free(key);
                else
                        c->keys[kept++] = key;
        }
        c->n_keys = kept;
}

/* -- what is to be said of one ------------------------------------------------------------------------------------------ */

uint64_t key_retry_in_ms(const struct key *key)
{
        uint64_t now = controller_now_ms();

        return key->retry_at_ms > now ? key->retry_at_ms - now : 0;
}

enum server_state key_state(const struct key *key)
{
        if (!key || !key->plan)
                return SERVER_WAITING;
        if (key->busy || !key->error)
                return key->plan->n_actions && key_retry_in_ms(key) ? SERVER_WAITING : key->plan->state;
        if (key->plan->n_actions && key->smoke_failed)
                return SERVER_QUARANTINED;
        return key->plan->n_actions ? SERVER_WAITING : key->plan->state;
}

const char *key_why(const struct key *key)
{
        if (!key->plan)
                return NULL;
        return key->error && key->plan->n_actions && !key->busy ? key->error : key->plan->why;
}

/* -- failures --------------------------------------------------------------------------------------------------------------- */

/* Full jitter: anywhere between now and the doubled bound, so that many servers that failed together do not come back together. */
void key_backoff(struct key *key)
{
        uint64_t bound = BACKOFF_MAX_MS, r = 0;

        if (key->failures < 11)
                bound = MIN(bound, (uint64_t)BACKOFF_FIRST_MS << key->failures);
        if (getrandom(&r, sizeof(r), GRND_NONBLOCK) != (ssize_t)sizeof(r))
                r = bound / 2;
        key->failures++;
        key->failed_state = key->plan->state;
        key->up_since_ms = 0;
        key->retry_at_ms = controller_now_ms() + r % (bound + 1) + 1;
}

void key_count_end(struct key *key)
{
        /* The first end after a good time is put right at once; only one that comes again waits. */
        bool first = key->failures == 0;

        key->exit_counted = true;
        key->restarts++;
        key_backoff(key);
        key->failed_state = SERVER_STARTING;
        if (first)
                key->retry_at_ms = 0;
}
