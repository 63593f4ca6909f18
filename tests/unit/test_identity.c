#include "tests/unit/test.h"

#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/identity/identity.h"

#define NOW  ((time_t)1800000000)
#define HOST "vps1.example.org"

struct fixture {
        struct identities *ids;
        uint8_t secret[IDENTITY_SECRET];
        char *token;
};

static char *make(const uint8_t secret[IDENTITY_SECRET], const char *agent, const char *audience, time_t issued, time_t expires)
{
        struct token t = {.agent = (char *)agent, .run = (char *)"run-1", .issued_at = issued, .expires_at = expires};
        struct err *err = NULL;
        char *text = NULL;

        assert_ok(token_sign(&text, &t, audience, secret, &err));
        return text;
}

static int set_up(void **state)
{
        struct fixture *f = NEW(struct fixture);

        f->ids = NEW(struct identities);
        identities_set_agent(f->ids, "openclaw", 0);
        identities_set_agent(f->ids, "another", 0);
        identities_new_key(f->ids, f->secret, NOW - 1000, 0);
        f->token = make(f->secret, "openclaw", HOST, NOW, NOW + 3600);
        *state = f;
        return 0;
}

static int tear_down(void **state)
{
        struct fixture *f = *state;

        identities_free(f->ids);
        free(f->token);
        free(f);
        return 0;
}

static int verify(const struct fixture *f, const char *text, time_t now, struct err **err)
{
        _cleanup_token_ struct token t = {0};

        return token_verify(&t, f->ids, HOST, text, strlen(text), now, err);
}

static void test_good(void **state)
{
        struct fixture *f = *state;
        _cleanup_token_ struct token t = {0};
        struct err *err = NULL;

        assert_ok(token_verify(&t, f->ids, HOST, f->token, strlen(f->token), NOW + 10, &err));
        assert_string_equal(t.agent, "openclaw");
        assert_string_equal(t.run, "run-1");
        assert_string_equal(t.key, f->ids->keys[0].id);
        assert_int_equal(t.expires_at, NOW + 3600);
}

static void test_time(void **state)
{
        struct fixture *f = *state;
        struct err *err = NULL;

        assert_fails(verify(f, f->token, NOW + 3600, &err), "expired");
        assert_ok(verify(f, f->token, NOW + 3599, &err));
        assert_fails(verify(f, f->token, NOW - TOKEN_CLOCK_SKEW - 1, &err), "future");
        assert_ok(verify(f, f->token, NOW - TOKEN_CLOCK_SKEW, &err));
}

static void test_audience_and_agent(void **state)
{
        struct fixture *f = *state;
        struct err *err = NULL;
        _cleanup_free_ char *elsewhere = make(f->secret, "openclaw", "vps2.example.org", NOW, NOW + 60);
        _cleanup_free_ char *unknown = make(f->secret, "stranger", HOST, NOW, NOW + 60);

        assert_fails(verify(f, elsewhere, NOW, &err), "another host");
        assert_fails(verify(f, unknown, NOW, &err), "no agent");
}

static void test_revoked(void **state)
{
        struct fixture *f = *state;
        struct err *err = NULL;
        _cleanup_free_ char *later = make(f->secret, "openclaw", HOST, NOW + 5, NOW + 60);
        _cleanup_free_ char *other = make(f->secret, "another", HOST, NOW, NOW + 60);

        identities_set_agent(f->ids, "openclaw", NOW + 5);
        assert_fails(verify(f, f->token, NOW + 6, &err), "revoked");
        assert_ok(verify(f, later, NOW + 6, &err));
        assert_ok(verify(f, other, NOW + 6, &err));
        assert_true(identities_remove_agent(f->ids, "openclaw"));
        assert_false(identities_remove_agent(f->ids, "openclaw"));
        assert_fails(verify(f, later, NOW + 6, &err), "no agent");
        assert_ok(verify(f, other, NOW + 6, &err));
}

static void test_rotated(void **state)
{
        struct fixture *f = *state;
        struct err *err = NULL;
        uint8_t next[IDENTITY_SECRET];

        identities_new_key(f->ids, next, NOW, NOW + 100);
        _cleanup_free_ char *fresh = make(next, "openclaw", HOST, NOW, NOW + 60);
        assert_int_equal(f->ids->n_keys, 2);
        assert_ok(verify(f, fresh, NOW, &err));
        assert_ok(verify(f, f->token, NOW + 99, &err));
        assert_fails(verify(f, f->token, NOW + 100, &err), "retired");
        /* At once: what was stolen does not count a second longer. */
        identities_new_key(f->ids, next, NOW, NOW);
        assert_fails(verify(f, fresh, NOW, &err), "none of ours");
        assert_int_equal(f->ids->n_keys, 1);
}

static void test_rotated_often(void **state)
{
        struct fixture *f = *state;
        struct err *err = NULL;
        uint8_t next[IDENTITY_SECRET];

        for (int i = 0; i < 40; i++)
                identities_new_key(f->ids, next, NOW, NOW + TOKEN_MAX_TTL);
        _cleanup_free_ char *fresh = make(next, "openclaw", HOST, NOW, NOW + 60);
        _cleanup_json_ json_object *o = identities_to_json(f->ids);
        _cleanup_free_ char *text = json_canonical(o);
        _cleanup_(identities_freep) struct identities *again = NULL;
        assert_ok(identities_parse(&again, text, strlen(text), "x", &err));
        assert_ok(verify(f, fresh, NOW, &err));
}

static void test_another_key(void **state)
{
        struct fixture *f = *state;
        struct err *err = NULL;
        uint8_t public_key[IDENTITY_PUBLIC], foreign[IDENTITY_SECRET];

        crypto_sign_keypair(public_key, foreign);
        _cleanup_free_ char *theirs = make(foreign, "openclaw", HOST, NOW, NOW + 60);
        assert_fails(verify(f, theirs, NOW, &err), "none of ours");
        /* Our key's name over their signature. */
        memcpy(theirs + 4, f->ids->keys[0].id, IDENTITY_KEY_ID - 1);
        assert_fails(verify(f, theirs, NOW, &err), "signature is wrong");
}

/* Every single character counts, and so does every length. */
static void test_altered(void **state)
{
        struct fixture *f = *state;
        size_t n = strlen(f->token);
        _cleanup_token_ struct token t = {0};

        for (size_t i = 0; i < n; i++) {
                _cleanup_free_ char *copy = mem_strdup(f->token);
                copy[i] = copy[i] == 'A' ? 'B' : 'A';
                assert_int_equal(token_verify(&t, f->ids, HOST, copy, n, NOW, NULL), -1);
                assert_int_equal(token_verify(&t, f->ids, HOST, f->token, i, NOW, NULL), -1);
        }
        _cleanup_free_ char *longer = mem_printf("%s=", f->token), *twice = mem_printf("%s%s", f->token, f->token);
        assert_int_equal(token_verify(&t, f->ids, HOST, longer, n + 1, NOW, NULL), -1);
        assert_int_equal(token_verify(&t, f->ids, HOST, twice, 2 * n, NOW, NULL), -1);
}

/* A payload that our own key signed, but that is none: what an older or newer program might write. */
static char *sign_payload(const struct fixture *f, const char *payload)
{
        static const char context[] = "bulkhead-agent-token@v1";
        char encoded[2000], signature_text[200];
        uint8_t signature[crypto_sign_BYTES];
        _cleanup_buf_ struct buf text = {0};

        sodium_bin2base64(encoded, sizeof(encoded), (const unsigned char *)payload, strlen(payload),
                          sodium_base64_VARIANT_URLSAFE_NO_PADDING);
        _cleanup_free_ char *body = mem_printf("%s.%s", f->ids->keys[0].id, encoded);
        buf_add(&text, context, sizeof(context));
        buf_adds(&text, body);
        crypto_sign_detached(signature, NULL, (const unsigned char *)text.data, text.len, f->secret);
        sodium_bin2base64(signature_text, sizeof(signature_text), signature, sizeof(signature), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
        return mem_printf("bh1.%s.%s", body, signature_text);
}

static void test_payloads(void **state)
{
        struct fixture *f = *state;
        struct err *err = NULL;
        static const struct {
                const char *payload, *why;
        } cases[] = {
                {"{\"agent\":\"openclaw\",\"aud\":\"vps1.example.org\",\"exp\":1800000060,\"iat\":1800000000,\"run\":\"r\"}", NULL},
                {"{\"agent\":\"openclaw\",\"aud\":\"vps1.example.org\",\"exp\":1800000060,\"iat\":1800000000,\"run\":\"r\",\"alg\":"
                 "\"none\"}",
                 "members"},
                {"{\"agent\":\"openclaw\",\"aud\":\"vps1.example.org\",\"exp\":1800000060,\"iat\":1800000000}", "members"},
                {"{\"agent\":\"openclaw\",\"agent\":\"another\",\"aud\":\"vps1.example.org\",\"exp\":1800000060,\"iat\":1800000000,\"run\":"
                 "\"r\"}",
                 "twice"},
                {"{\"agent\":\"Open Claw\",\"aud\":\"vps1.example.org\",\"exp\":1800000060,\"iat\":1800000000,\"run\":\"r\"}", "form"},
                {"{\"agent\":\"openclaw\",\"aud\":\"vps1.example.org\",\"exp\":\"1800000060\",\"iat\":1800000000,\"run\":\"r\"}", "form"},
                {"{\"agent\":\"openclaw\",\"aud\":\"vps1.example.org\",\"exp\":1800000060,\"iat\":1800000000,\"run\":\"a b\"}", "form"},
                {"{\"agent\":\"openclaw\",\"aud\":\"vps1.example.org\",\"exp\":1900000060,\"iat\":1800000000,\"run\":\"r\"}", "longer"},
                {"{\"agent\":\"openclaw\",\"aud\":\"vps1.example.org\",\"exp\":1800000000,\"iat\":1800000060,\"run\":\"r\"}", "longer"},
                {"[]", "members"},
                {"", "token"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *text = sign_payload(f, cases[i].payload);
                if (cases[i].why)
                        assert_fails(verify(f, text, NOW, &err), cases[i].why);
                else
                        assert_ok(verify(f, text, NOW, &err));
        }
}

static void test_signing_refuses(void **state)
{
        struct fixture *f = *state;
        struct err *err = NULL;
        char *text = NULL;
        struct token t = {.agent = (char *)"../x", .run = (char *)"r", .issued_at = NOW, .expires_at = NOW + 1};

        assert_fails(token_sign(&text, &t, HOST, f->secret, &err), "agent's name");
        t.agent = (char *)"a";
        t.run = (char *)"";
        assert_fails(token_sign(&text, &t, HOST, f->secret, &err), "run's id");
        t.run = (char *)"r";
        t.expires_at = NOW + TOKEN_MAX_TTL + 1;
        assert_fails(token_sign(&text, &t, HOST, f->secret, &err), "24 hours");
}

static void test_file(_unused_ void **state)
{
        char dir[] = "/tmp/bulkhead-test-XXXXXX";
        _cleanup_(identities_freep) struct identities *i = NULL;
        struct err *err = NULL;
        static const char text[] = "{\"version\":1,\"keys\":[],\"agents\":{\"b\":{},\"a\":{\"not_before\":\"2026-11-20T10:00:00Z\"}}}";

        assert_non_null(mkdtemp(dir));
        _cleanup_free_ char *path = mem_printf("%s/agents.json", dir);
        assert_ok(file_write_atomic(path, text, strlen(text), 0644, &err));
        assert_ok(identities_load(&i, path, &err));
        assert_int_equal(identities_find(i, "a")->not_before, 1795168800);
        assert_int_equal(identities_find(i, "b")->not_before, 0);
        assert_null(identities_find(i, "c"));
        i = identities_free(i);
        assert_int_equal(chmod(path, 0666), 0);
        assert_int_equal(identities_load(&i, path, &err), -1);
        err = err_free(err);
        unlink(path);
        rmdir(dir);
}

static void test_bad_files(_unused_ void **state)
{
        struct err *err = NULL;
        static const struct {
                const char *text, *why;
        } cases[] = {
                {"{\"version\":2,\"keys\":[],\"agents\":{}}", "version"},
                {"{\"version\":1,\"keys\":{},\"agents\":{}}", "keys"},
                {"{\"version\":1,\"keys\":[],\"agents\":[]}", "agents"},
                {"{\"version\":1,\"keys\":[],\"agents\":{},\"more\":1}", "unknown key"},
                {"{\"version\":1,\"keys\":[{\"public\":\"00\"}],\"agents\":{}}", "public"},
                {"{\"version\":1,\"keys\":[{\"secret\":\"00\"}],\"agents\":{}}", "unknown key"},
                {"{\"version\":1,\"keys\":[],\"agents\":{\"A B\":{}}}", "name"},
                {"{\"version\":1,\"keys\":[],\"agents\":{\"a\":{\"not_before\":\"yesterday\"}}}", "time"},
                {"{\"version\":1,\"keys\":[],\"agents\":{\"a\":{},\"a\":{}}}", "twice"},
                {"[]", "object"},
                {"", ":"},
        };

        for (size_t n = 0; n < ELEMENTSOF(cases); n++) {
                struct identities *i = NULL;
                assert_fails(identities_parse(&i, cases[n].text, strlen(cases[n].text), "agents.json", &err), cases[n].why);
        }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        const struct CMUnitTest tests[] = {
                TEST(test_good),
                TEST(test_time),
                TEST(test_audience_and_agent),
                TEST(test_revoked),
                TEST(test_rotated),
                TEST(test_rotated_often),
                TEST(test_another_key),
                TEST(test_altered),
                TEST(test_payloads),
                TEST(test_signing_refuses),
                cmocka_unit_test(test_file),
                cmocka_unit_test(test_bad_files),
        };

        if (sodium_init() < 0)
                return 1;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
