/*
 * What clients keep for us and bring back: cursors of lists, and states of modern servers. Sealed, so that nobody reads or makes one, and
 * good for the principal alone that got it, and for what it was given for. Hands out text, keeps nothing.
 */
#include "broker/gateway/internal.h"

#define SEAL_BYTES (crypto_secretbox_NONCEBYTES + crypto_secretbox_MACBYTES)
#define VARIANT    sodium_base64_VARIANT_URLSAFE_NO_PADDING

static void add_part(crypto_generichash_state *h, const char *s, size_t n)
{
        uint64_t length = n;

        crypto_generichash_update(h, (const unsigned char *)&length, sizeof(length));
        if (n)
                crypto_generichash_update(h, (const unsigned char *)s, n);
}

static void seal_key(const struct call *c, enum seal_kind kind, unsigned char key[crypto_secretbox_KEYBYTES])
{
        const char *name = guard_name(c->g, c->who);
        unsigned char about[3] = {(unsigned char)kind, (unsigned char)c->method, c->who != NULL};
        crypto_generichash_state h;

        crypto_generichash_init(&h, c->g->key, sizeof(c->g->key), crypto_secretbox_KEYBYTES);
        crypto_generichash_update(&h, about, sizeof(about));
        add_part(&h, name, strlen(name));
        if (kind == SEAL_STATE) {
                add_part(&h, c->m.name.at, c->m.name.n);
                add_part(&h, c->m.uri.at, c->m.uri.n);
        }
        crypto_generichash_final(&h, key, crypto_secretbox_KEYBYTES);
}

char *seal_make(const struct call *c, enum seal_kind kind, const char *plain, size_t plain_n)
{
        unsigned char key[crypto_secretbox_KEYBYTES];
        size_t sealed_n = plain_n + SEAL_BYTES, n = sodium_base64_encoded_len(sealed_n, VARIANT);
        _cleanup_free_ unsigned char *sealed = mem_alloc(sealed_n);
        _cleanup_free_ char *text = mem_alloc(n);

        seal_key(c, kind, key);
        randombytes_buf(sealed, crypto_secretbox_NONCEBYTES);
        crypto_secretbox_easy(sealed + crypto_secretbox_NONCEBYTES, (const unsigned char *)plain, plain_n, sealed, key);
        sodium_bin2base64(text, n, sealed, sealed_n, VARIANT);
        return mem_printf("\"%s\"", text);
}

char *seal_open(const struct call *c, enum seal_kind kind, struct mcp_slice s)
{
        unsigned char key[crypto_secretbox_KEYBYTES];
        _cleanup_free_ unsigned char *sealed = NULL;
        char *plain;
        size_t n;

        if (!mcp_is_string(s))
                return NULL;
        sealed = mem_alloc(s.n);
        if (sodium_base642bin(sealed, s.n, s.at + 1, s.n - 2, NULL, &n, NULL, VARIANT) < 0 || n <= SEAL_BYTES)
                return NULL;
        plain = mem_alloc(n - SEAL_BYTES + 1);
        seal_key(c, kind, key);
        if (crypto_secretbox_open_easy((unsigned char *)plain, sealed + crypto_secretbox_NONCEBYTES, n - crypto_secretbox_NONCEBYTES,
                                       sealed, key) == 0)
                return plain;
        free(plain);
        return NULL;
}

/* -- states of modern servers --------------------------------------------------------------------------------------------------- */
bool state_seal(struct buf *out, const struct call *c, struct mcp_slice result)
{
        struct mcp_slice state = c->who ? mcp_object_get(result, "requestState") : (struct mcp_slice){0};
        _cleanup_free_ char *sealed = NULL;

        if (!mcp_has(state))
                return false;
        sealed = seal_make(c, SEAL_STATE, state.at, state.n);
        mcp_object_set(out, result, "requestState", mcp_slice_of(sealed));
        return true;
}

bool state_open(struct call *c)
{
        _cleanup_free_ char *state = NULL;
        struct buf text = {0};
        struct mcp_edit edit;
        struct mcp_message m;

        if (!c->who || c->era != MCP_ERA_MODERN || !mcp_has(c->m.request_state))
                return true;
        if (!(state = seal_open(c, SEAL_STATE, c->m.request_state)))
                return false;
        edit = (struct mcp_edit){.old = c->m.request_state, .by = mcp_slice_of(state)};
        mcp_edit_add(&text, (struct mcp_slice){c->m.text, c->m.n}, &edit, 1);
        if (mcp_message_scan(&m, text.data, text.len, NULL)) {
                buf_deinit(&text);
                return false;
        }
        buf_deinit(&c->text);
        c->text = text;
        c->m = m;
        return true;
}
