#include <sodium.h>

#include "common/identity/identity.h"
#include "common/registry/registry.h"

#define PREFIX       "bh1."
#define CONTEXT      "bulkhead-agent-token@v1" /* and its NUL: no other signature of this key can be taken for a token */
#define PAYLOAD_MAX  512U
#define VARIANT      sodium_base64_VARIANT_URLSAFE_NO_PADDING
#define ENCODED(n)   (((n)*4 + 2) / 3)
#define SIGNATURE_64 ENCODED(crypto_sign_BYTES)

static const char run_set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

bool identity_name_valid(const char *name)
{
        return name && registry_name_valid(name);
}

static bool is_run(const char *s)
{
        return s && *s && strlen(s) <= 64 && str_in_charset(s, run_set);
}

void token_deinit(struct token *t)
{
        free(t->agent);
        free(t->run);
        *t = (struct token){0};
}

/* What is signed: the context, and "KEY.PAYLOAD" as it stands in the token. */
static void signed_text(struct buf *b, const char *body, size_t n)
{
        buf_add(b, CONTEXT, sizeof(CONTEXT));
        buf_add(b, body, n);
}

static char *payload_text(const struct token *t, const char *audience)
{
        _cleanup_json_ json_object *o = json_object_new_object();

        json_add_str(o, "agent", t->agent);
        json_add_str(o, "aud", audience);
        json_add_int(o, "exp", t->expires_at);
        json_add_int(o, "iat", t->issued_at);
        json_add_str(o, "run", t->run);
        return json_canonical(o);
}

int token_sign(char **ret, struct token *t, const char *audience, const uint8_t secret[IDENTITY_SECRET], struct err **err)
{
        char encoded[ENCODED(PAYLOAD_MAX) + 1], signature_text[SIGNATURE_64 + 1], hash[SHA256_HEX];
        uint8_t signature[crypto_sign_BYTES];
        _cleanup_buf_ struct buf text = {0};

        if (!identity_name_valid(t->agent))
                return err_set(err, ERR_INVALID, "an agent's name is [a-z0-9-]{1,40}");
        if (!is_run(t->run))
                return err_set(err, ERR_INVALID, "a run's id is [A-Za-z0-9._-]{1,64}");
        if (t->expires_at <= t->issued_at || t->expires_at - t->issued_at > TOKEN_MAX_TTL)
                return err_set(err, ERR_INVALID, "a token lives for 1 second to 24 hours");
        sha256_hex(hash, secret + IDENTITY_SECRET - IDENTITY_PUBLIC, IDENTITY_PUBLIC);
        memcpy(t->key, hash, IDENTITY_KEY_ID - 1);
        t->key[IDENTITY_KEY_ID - 1] = '\0';
        _cleanup_free_ char *payload = payload_text(t, audience);
        if (strlen(payload) > PAYLOAD_MAX)
                return err_set(err, ERR_LIMIT, "the token's content is longer than %u bytes", PAYLOAD_MAX);
        sodium_bin2base64(encoded, sizeof(encoded), (const unsigned char *)payload, strlen(payload), VARIANT);
        _cleanup_free_ char *body = mem_printf("%s.%s", t->key, encoded);
        signed_text(&text, body, strlen(body));
        crypto_sign_detached(signature, NULL, (const unsigned char *)text.data, text.len, secret);
        sodium_bin2base64(signature_text, sizeof(signature_text), signature, sizeof(signature), VARIANT);
        *ret = mem_printf(PREFIX "%s.%s", body, signature_text);
        return 0;
}

/* -- verifying ----------------------------------------------------------------------------------------------------------------- */

static const struct identity_key *find_key(const struct identities *ids, const char *id)
{
        for (size_t i = 0; i < ids->n_keys; i++)
                if (memcmp(ids->keys[i].id, id, IDENTITY_KEY_ID - 1) == 0)
                        return &ids->keys[i];
        return NULL;
}

static int read_payload(struct token *t, const char **audience, json_object *o, struct err **err)
{
        static const char *const keys[] = {"agent", "aud", "exp", "iat", "run"};
        size_t known = 0;

        for (size_t i = 0; i < ELEMENTSOF(keys); i++)
                known += json_object_is_type(o, json_type_object) && json_object_object_get_ex(o, keys[i], NULL);
        if (known != ELEMENTSOF(keys) || (size_t)json_object_object_length(o) != known)
                return err_set(err, ERR_INVALID, "the content has not the members of a token");
        *audience = json_str(o, "aud");
        t->agent = mem_strdup(json_str(o, "agent"));
        t->run = mem_strdup(json_str(o, "run"));
        t->issued_at = (time_t)json_int(o, "iat", 0);
        t->expires_at = (time_t)json_int(o, "exp", 0);
        if (!*audience || !identity_name_valid(t->agent) || !is_run(t->run) || t->issued_at <= 0 || t->expires_at <= 0)
                return err_set(err, ERR_INVALID, "a member of the content is not of its form");
        return 0;
}

static int judge(const struct token *t, const char *token_audience, const struct identities *ids, const struct identity_key *key,
                 const char *audience, time_t now, struct err **err)
{
        const struct identity_agent *agent = identities_find(ids, t->agent);

        if (key->ends_at && now >= key->ends_at)
                return err_set(err, ERR_DENIED, "its key %s was retired", key->id);
        if (!str_eq(token_audience, audience))
                return err_set(err, ERR_DENIED, "it is for another host");
        if (t->expires_at <= t->issued_at || t->expires_at - t->issued_at > TOKEN_MAX_TTL)
                return err_set(err, ERR_DENIED, "it lives longer than a token may");
        if (now >= t->expires_at)
                return err_set(err, ERR_DENIED, "it expired");
        if (t->issued_at > now + TOKEN_CLOCK_SKEW)
                return err_set(err, ERR_DENIED, "it is from the future");
        if (!agent)
                return err_set(err, ERR_DENIED, "there is no agent %s", t->agent);
        if (t->issued_at < agent->not_before)
                return err_set(err, ERR_DENIED, "tokens of %s from then are revoked", t->agent);
        return 0;
}

/* The three parts behind the prefix, by length and dots alone. */
struct parts {
        const char *key, *payload, *signature;
        size_t payload_n;
};

static int split(struct parts *p, const char *text, size_t n)
{
        size_t head = strlen(PREFIX) + IDENTITY_KEY_ID; /* prefix, key and its dot */

        if (n > TOKEN_MAX || n < head + 2 + SIGNATURE_64 || memcmp(text, PREFIX, strlen(PREFIX)) != 0)
                return -1;
        p->key = text + strlen(PREFIX);
        p->payload = text + head;
        p->signature = text + n - SIGNATURE_64;
        p->payload_n = (size_t)(p->signature - 1 - p->payload);
        return p->payload[-1] == '.' && p->signature[-1] == '.' ? 0 : -1;
}

static int check_signature(const struct identity_key *key, const struct parts *p, struct err **err)
{
        uint8_t signature[crypto_sign_BYTES];
        _cleanup_buf_ struct buf text = {0};
        size_t n = 0;

        if (sodium_base642bin(signature, sizeof(signature), p->signature, SIGNATURE_64, NULL, &n, NULL, VARIANT) < 0 ||
            n != sizeof(signature))
                return err_set(err, ERR_INVALID, "its signature is not base64url");
        signed_text(&text, p->key, (size_t)(p->payload + p->payload_n - p->key));
        if (crypto_sign_verify_detached(signature, (const unsigned char *)text.data, text.len, key->public_key) != 0)
                return err_set(err, ERR_DENIED, "its signature is wrong");
        return 0;
}

int token_verify(struct token *ret, const struct identities *ids, const char *audience, const char *text, size_t n, time_t now,
                 struct err **err)
{
        uint8_t payload[PAYLOAD_MAX];
        _cleanup_token_ struct token t = {0};
        _cleanup_json_ json_object *o = NULL;
        const char *token_audience = NULL;
        struct parts p;
        size_t payload_n = 0;

        if (split(&p, text, n) < 0)
                return err_set(err, ERR_INVALID, "it is no token");
        const struct identity_key *key = find_key(ids, p.key);
        if (!key)
                return err_set(err, ERR_DENIED, "its key is none of ours");
        if (check_signature(key, &p, err) < 0)
                return -1;
        if (sodium_base642bin(payload, sizeof(payload), p.payload, p.payload_n, NULL, &payload_n, NULL, VARIANT) < 0)
                return err_set(err, ERR_INVALID, "its content is not base64url");
        memcpy(t.key, key->id, IDENTITY_KEY_ID);
        if (json_parse(&o, (const char *)payload, payload_n, "token", NULL, err) < 0 || read_payload(&t, &token_audience, o, err) < 0 ||
            judge(&t, token_audience, ids, key, audience, now, err) < 0)
                return -1;
        *ret = t;
        t = (struct token){0};
        return 0;
}
