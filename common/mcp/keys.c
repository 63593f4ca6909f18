#include <sodium.h>

#include "common/mcp/scan.h"

/* Up to here keys are compared one by one, which costs less than hashing them. */
#define FEW_KEYS 16

static struct mcp_slice key_text(const struct keys *k, struct key key)
{
        return (struct mcp_slice){k->text + key.at, key.shape & ~KEY_ESCAPED};
}

static bool same_key(const struct keys *k, struct key a, struct key b)
{
        if ((a.shape | b.shape) & KEY_ESCAPED)
                return string_same(key_text(k, a), key_text(k, b));
        return a.shape == b.shape && memcmp(k->text + a.at, k->text + b.at, a.shape) == 0;
}

/* Keyed, so that nobody outside can choose keys that collide. */
static uint32_t hash_key(struct keys *k, struct key key)
{
        static unsigned char secret[crypto_shorthash_KEYBYTES];
        static bool have_secret;
        struct mcp_slice text = key_text(k, key);
        unsigned char out[crypto_shorthash_BYTES];
        uint32_t hash;

        if (!have_secret) {
                randombytes_buf(secret, sizeof(secret));
                have_secret = true;
        }
        if (key.shape & KEY_ESCAPED) {
                k->scratch.len = 0;
                string_decode(&k->scratch, text.at, text.at + text.n);
                text = (struct mcp_slice){k->scratch.data, k->scratch.len};
        }
        crypto_shorthash(out, (const unsigned char *)text.at, text.n, secret);
        memcpy(&hash, out, sizeof(hash));
        return hash;
}

static void put_slot(struct key_set *set, uint64_t slot)
{
        size_t i = (size_t)(slot >> 32) & (set->cap - 1);

        while (set->slots[i])
                i = (i + 1) & (set->cap - 1);
        set->slots[i] = slot;
}

static void grow_table(struct keys *k, struct key_set *set)
{
        struct key_set old = *set;

        set->cap = old.cap ? 2 * old.cap : 4 * FEW_KEYS;
        set->slots = mem_alloc(set->cap * sizeof(*set->slots));
        for (size_t i = 0; i < old.cap; i++)
                if (old.slots[i])
                        put_slot(set, old.slots[i]);
        for (size_t i = 0; !old.slots && i < k->n - set->first; i++)
                put_slot(set, (uint64_t)hash_key(k, k->items[set->first + i]) << 32 | (i + 1));
        free(old.slots);
}

/* Is the key in the table? If not, it is put there as the next one. */
static bool find_or_put(struct keys *k, struct key_set *set, struct key key)
{
        size_t n = k->n - set->first;

        if (2 * (n + 1) > set->cap)
                grow_table(k, set);
        uint32_t hash = hash_key(k, key);
        size_t i = hash & (set->cap - 1);
        for (; set->slots[i]; i = (i + 1) & (set->cap - 1)) {
                size_t place = (size_t)(set->slots[i] & UINT32_MAX) - 1;
                if (set->slots[i] >> 32 == hash && same_key(k, k->items[set->first + place], key))
                        return true;
        }
        set->slots[i] = (uint64_t)hash << 32 | (n + 1);
        return false;
}

static void grow_keys(struct keys *k)
{
        struct key *old = k->items == k->few ? NULL : k->items;

        k->cap *= 2;
        k->items = mem_realloc(old, k->cap, sizeof(*k->items));
        if (!old)
                memcpy(k->items, k->few, sizeof(k->few));
}

enum key_outcome keys_add(struct keys *k, struct key_set *set, struct mcp_slice text, bool escaped)
{
        struct key key = {.at = (uint32_t)(text.at - k->text), .shape = (uint32_t)text.n | (escaped ? KEY_ESCAPED : 0)};

        if (k->n >= MCP_MAX_KEYS)
                return KEY_TOO_MANY;
        if (k->n - set->first >= FEW_KEYS) {
                if (find_or_put(k, set, key))
                        return KEY_TWICE;
        } else {
                for (size_t i = set->first; i < k->n; i++)
                        if (same_key(k, k->items[i], key))
                                return KEY_TWICE;
        }
        if (k->n == k->cap)
                grow_keys(k);
        k->items[k->n++] = key;
        return KEY_NEW;
}

void keys_init(struct keys *k, const char *text)
{
        k->text = text;
        k->items = k->few;
        k->n = 0;
        k->cap = ELEMENTSOF(k->few);
        k->scratch = (struct buf){0};
}

void keys_deinit(struct keys *k)
{
        if (k->items != k->few)
                free(k->items);
        buf_deinit(&k->scratch);
}

void key_set_deinit(struct key_set *set)
{
        free(set->slots);
        *set = (struct key_set){0};
}
