#include "broker/agents/gate.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>

#include "common/file.h"
#include "common/identity/identity.h"
#include "common/log.h"

#define CACHE_SLOTS  1024U
#define HASH_BYTES   16U
#define KEEP_SECONDS 60 /* between two writes of the time */
#define LOG_SECONDS  1  /* between two log lines about tokens that do not count: whoever sends them does not fill the log */
#define EMPTY_FILE   "{\"version\": 1, \"keys\": [], \"agents\": {}}"

/* A token that counted. Signatures take longer to verify than all else that a call costs. */
struct cached {
        unsigned char hash[HASH_BYTES];
        struct principal *who; /* NULL: an empty slot */
};

struct gate {
        char *file, *audience, *time_path;
        char *trouble;
        struct identities *identities;
        time_t floor, kept, logged;
        unsigned char key[crypto_generichash_KEYBYTES];
        struct cached cache[CACHE_SLOTS];
};

/* -- time ---------------------------------------------------------------------------------------------------------------------- */
static int read_time(struct gate *g, struct err **err)
{
        _cleanup_free_ char *text = NULL;
        _cleanup_err_ struct err *why = NULL;
        char *end = NULL;
        size_t n = 0;

        if (file_read(&text, &n, g->time_path, 64, FILE_TRUSTED, &why) < 0)
                return err_code(why) == ERR_NOT_FOUND ? 0 : err_move(err, TAKE_PTR(why));
        long long seconds = strtoll(text, &end, 10);
        if (end == text || seconds < 0 || (*end && *end != '\n'))
                return err_set(err, ERR_INVALID, "%s does not hold a time: if nothing set this host's clock back, remove it", g->time_path);
        g->floor = g->kept = (time_t)seconds;
        return 0;
}

static void keep_time(struct gate *g)
{
        _cleanup_err_ struct err *err = NULL;
        char text[32];
        int n = snprintf(text, sizeof(text), "%lld\n", (long long)g->floor);

        g->kept = g->floor;
        if (file_write_atomic(g->time_path, text, (size_t)n, 0600, &err) < 0)
                log_error("the time could not be kept: after a restart, a clock that was set back is believed", "why", err_msg(err));
}

time_t gate_now(struct gate *g)
{
        time_t now = time(NULL);

        if (now > g->floor)
                g->floor = now;
        if (g->floor - g->kept >= KEEP_SECONDS)
                keep_time(g);
        return g->floor;
}

/* -- the file ------------------------------------------------------------------------------------------------------------------ */
static void forget_all(struct gate *g)
{
        for (size_t i = 0; i < CACHE_SLOTS; i++)
                principal_unref(TAKE_PTR(g->cache[i].who));
}

int gate_reload(struct gate *g, struct err **err)
{
        struct identities *fresh = NULL;
        _cleanup_err_ struct err *why = NULL;

        if (identities_load(&fresh, g->file, &why) < 0) {
                /* Where none ever was, nobody expects one. */
                if (err_code(why) != ERR_NOT_FOUND || (g->identities && g->identities->n_agents))
                        mem_replace(&g->trouble, mem_printf("agents: those before count on: %s", err_msg(why)));
                return err_move(err, TAKE_PTR(why));
        }
        mem_replace(&g->trouble, NULL);
        identities_free(g->identities);
        g->identities = fresh;
        forget_all(g);
        return 0;
}

int gate_new(struct gate **ret, const char *agents_file, const char *audience, const char *state, struct err **err)
{
        _cleanup_(gate_freep) struct gate *g = NEW(struct gate);
        _cleanup_err_ struct err *why = NULL;

        g->file = mem_strdup(agents_file);
        g->audience = mem_strdup(audience);
        g->time_path = mem_printf("%s/time", state);
        randombytes_buf(g->key, sizeof(g->key));
        if (read_time(g, err) < 0)
                return -1;
        if (gate_reload(g, &why) < 0) {
                if (err_code(why) != ERR_NOT_FOUND)
                        log_error("no agent is let in until this is mended", "why", err_msg(why));
                if (g->trouble)
                        mem_replace(&g->trouble, mem_printf("agents: none is let in until this is mended: %s", err_msg(why)));
                if (identities_parse(&g->identities, EMPTY_FILE, strlen(EMPTY_FILE), "none", err) < 0)
                        return -1;
        }
        *ret = TAKE_PTR(g);
        return 0;
}

const char *gate_trouble(const struct gate *g)
{
        return g->trouble;
}

struct gate *gate_free(struct gate *g)
{
        if (!g)
                return NULL;
        if (g->floor > g->kept)
                keep_time(g);
        forget_all(g);
        identities_free(g->identities);
        free(g->file);
        free(g->audience);
        free(g->time_path);
        free(g->trouble);
        free(g);
        return NULL;
}

/* -- tokens -------------------------------------------------------------------------------------------------------------------- */
static void complain(struct gate *g, time_t now, const char *why)
{
        if (now - g->logged < LOG_SECONDS)
                return;
        g->logged = now;
        log_warning("a token that does not count was shown", "why", why);
}

static struct principal *verify(struct gate *g, const char *credential, size_t n, time_t now)
{
        _cleanup_token_ struct token t = {0};
        _cleanup_err_ struct err *err = NULL;

        if (token_verify(&t, g->identities, g->audience, credential, n, now, &err) == 0) {
                for (size_t i = 0; i < g->identities->n_keys; i++) {
                        const struct identity_key *key = &g->identities->keys[i];

                        /* Nothing is good for longer than the key that signed it. */
                        if (key->ends_at && str_eq(key->id, t.key))
                                t.expires_at = MIN(t.expires_at, key->ends_at);
                }
                return principal_new(t.agent, t.run, t.issued_at, t.expires_at);
        }
        complain(g, now, err_msg(err));
        return NULL;
}

struct principal *gate_identify(struct gate *g, const char *credential, size_t n)
{
        unsigned char hash[HASH_BYTES];
        time_t now = gate_now(g);
        struct cached *slot;
        uint16_t place;

        if (!credential || n > TOKEN_MAX)
                return NULL;
        crypto_generichash(hash, sizeof(hash), (const unsigned char *)credential, n, g->key, sizeof(g->key));
        memcpy(&place, hash, sizeof(place));
        slot = &g->cache[place % CACHE_SLOTS];
        if (slot->who && sodium_memcmp(slot->hash, hash, sizeof(hash)) == 0 && gate_still_counts(g, slot->who))
                return principal_ref(slot->who);
        struct principal *who = verify(g, credential, n, now);
        if (who) {
                principal_unref(slot->who);
                slot->who = principal_ref(who);
                memcpy(slot->hash, hash, sizeof(hash));
        }
        return who;
}

bool gate_has_revoked(const struct gate *g, const struct principal *p)
{
        const struct identity_agent *agent = identities_find(g->identities, p->agent);

        return !agent || p->issued_at < agent->not_before;
}

bool gate_still_counts(struct gate *g, const struct principal *p)
{
        return !gate_has_revoked(g, p) && p->expires_at > gate_now(g);
}
