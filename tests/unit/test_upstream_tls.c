/* TLS towards external servers, against servers that do what they should not. Who is trusted: broker_tls.py. */
#include "tests/unit/test.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/gateway/upstream_tls.h"

#define PATIENCE_S 60U

static EVP_PKEY *key;
static X509 *certificate;
static char *pins[2];

/* -- the server ----------------------------------------------------------------------------------------------------------------- */

struct server {
        pid_t child;
        int fd; /* our end */
        struct tls_trust *trust;
        struct tls *tls;
};

static SSL *accept_on(int fd)
{
        SSL_CTX *context = SSL_CTX_new(TLS_server_method());

        SSL_CTX_use_certificate(context, certificate);
        SSL_CTX_use_PrivateKey(context, key);
        SSL_CTX_set_num_tickets(context, 0);
        SSL *ssl = SSL_new(context);
        SSL_set_fd(ssl, fd);
        if (SSL_accept(ssl) != 1)
                _exit(1);
        return ssl;
}

/* Runs until its socket ends, or for as long as anybody waits. */
static void begin(struct server *s, void (*serve)(int fd))
{
        _cleanup_err_ struct err *err = NULL;
        int ends[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        s->child = fork();
        if (s->child == 0) {
                close(ends[0]);
                alarm(PATIENCE_S);
                serve(ends[1]);
                _exit(0);
        }
        close(ends[1]);
        s->fd = ends[0];
        assert_int_equal(ioctl(s->fd, FIONBIO, &(int){1}), 0);
        assert_ok(tls_trust_new(&s->trust, "mcp.example", pins, NULL, &err));
        assert_ok(tls_new(&s->tls, s->trust, s->fd, &err));
}

static void end(struct server *s)
{
        tls_free(s->tls);
        tls_trust_free(s->trust);
        close(s->fd);
        kill(s->child, SIGKILL);
        waitpid(s->child, NULL, 0);
}

static void wait_for_bytes(const struct server *s)
{
        struct pollfd p = {.fd = s->fd, .events = POLLIN};

        assert_int_equal(poll(&p, 1, (int)PATIENCE_S * 1000), 1);
}

static enum tls_step shake(struct server *s, struct err **err)
{
        enum tls_step step;

        while ((step = tls_handshake(s->tls, err)) == TLS_WANTS_IN)
                wait_for_bytes(s);
        return step;
}

static void begin_talk(struct server *s, void (*serve)(int fd))
{
        _cleanup_err_ struct err *err = NULL;

        begin(s, serve);
        assert_int_equal(shake(s, &err), TLS_DONE);
}

/* What is read next, once there is something. */
static ssize_t next(struct server *s, void *bytes, size_t n)
{
        ssize_t r;

        while ((r = tls_read(s->tls, bytes, n)) < 0 && errno == EAGAIN)
                wait_for_bytes(s);
        return r;
}

/* -- servers -------------------------------------------------------------------------------------------------------------------- */

/* Ends as TLS wants it, and leaves the socket open. */
static void says_goodbye(int fd)
{
        SSL *ssl = accept_on(fd);

        SSL_write(ssl, "hello", 5);
        SSL_shutdown(ssl);
        pause();
}

static void hangs_up(int fd)
{
        SSL_write(accept_on(fd), "hello", 5);
}

static void loses_its_mind(int fd)
{
        SSL_write(accept_on(fd), "hello", 5);
        (void)!write(fd, "\x17\x03\x03\x00\x20this was never encrypted by any..", 37);
        pause();
}

/* Messages of TLS' own, as fast as they are taken. */
static void floods(int fd)
{
        SSL *ssl = accept_on(fd);

        while (SSL_new_session_ticket(ssl) == 1 && SSL_do_handshake(ssl) == 1)
                ;
}

static void speaks_http(int fd)
{
        (void)!write(fd, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", 47);
        pause();
}

/* Before anything is proved: a message that clients have to overlook, as fast as it is taken. */
static void floods_at_once(int fd)
{
        static char record[5 + 16384] = {0x16, 0x03, 0x03, 0x40, 0x00}; /* of HelloRequest, four zeros each */

        while (write(fd, record, sizeof(record)) > 0)
                ;
}

static void leaves(int fd)
{
        char hello[16];

        (void)!read(fd, hello, sizeof(hello));
}

static void reads_nothing(int fd)
{
        (void)accept_on(fd);
        pause();
}

/* -- tests ---------------------------------------------------------------------------------------------------------------------- */

static void ends_are_told_apart(_unused_ void **state)
{
        struct server s = {0};
        char bytes[64];

        begin_talk(&s, says_goodbye);
        assert_int_equal(next(&s, bytes, sizeof(bytes)), 5);
        assert_int_equal(next(&s, bytes, sizeof(bytes)), 0);
        assert_true(tls_pending(s.tls)); /* the socket would not say so */
        assert_int_equal(next(&s, bytes, sizeof(bytes)), 0);
        end(&s);
        begin_talk(&s, hangs_up);
        assert_int_equal(next(&s, bytes, sizeof(bytes)), 5);
        assert_int_equal(next(&s, bytes, sizeof(bytes)), -1);
        assert_int_equal(errno, ECONNRESET);
        end(&s);
        begin_talk(&s, loses_its_mind);
        assert_int_equal(next(&s, bytes, sizeof(bytes)), 5);
        assert_int_equal(next(&s, bytes, sizeof(bytes)), -1);
        assert_int_equal(errno, EPROTO);
        assert_int_equal(tls_write(s.tls, &(struct iovec){bytes, 5}, 1), -1);
        assert_int_not_equal(errno, EAGAIN);
        end(&s);
}

static void pieces_of_a_record(_unused_ void **state)
{
        struct server s = {0};
        char bytes[3] = "";

        begin_talk(&s, says_goodbye);
        assert_int_equal(next(&s, bytes, 3), 3);
        assert_true(tls_pending(s.tls));
        assert_int_equal(tls_read(s.tls, bytes, 3), 2);
        assert_memory_equal(bytes, "lo", 2);
        end(&s);
}

/* However much of that there is, others have their turn behind each of it. */
static void a_flood_keeps_nobody_waiting(_unused_ void **state)
{
        struct server s = {0};
        int before = 0, now = 0, after = 0;
        char bytes[64];

        begin_talk(&s, floods);
        do {
                before = now;
                usleep(100000);
                assert_int_equal(ioctl(s.fd, FIONREAD, &now), 0);
        } while (now != before || now < 10000); /* until its socket is full */
        for (int i = 0; i < 3; i++) {
                assert_int_equal(tls_read(s.tls, bytes, sizeof(bytes)), -1);
                assert_int_equal(errno, EAGAIN);
        }
        kill(s.child, SIGSTOP);
        assert_int_equal(ioctl(s.fd, FIONREAD, &after), 0);
        assert_true(after > now / 2);
        end(&s);
}

static void a_flood_is_no_handshake(_unused_ void **state)
{
        _cleanup_err_ struct err *err = NULL;
        struct server s = {0};

        begin(&s, floods_at_once);
        assert_int_equal(shake(&s, &err), TLS_FAILED);
        assert_int_equal(err_code(err), ERR_DENIED);
        assert_non_null(strstr(err_msg(err), "before it has proved who it is"));
        end(&s);
}

static void refuses_what_is_no_tls(_unused_ void **state)
{
        struct err *err = NULL;
        struct server s = {0};

        begin(&s, speaks_http);
        assert_int_equal(shake(&s, &err), TLS_FAILED);
        assert_int_equal(err_code(err), ERR_DENIED);
        assert_non_null(strstr(err_msg(err), "TLS: "));
        err = err_free(err);
        end(&s);
        begin(&s, leaves);
        assert_int_equal(shake(&s, &err), TLS_FAILED);
        assert_int_equal(err_code(err), ERR_UNAVAILABLE);
        err = err_free(err);
        end(&s);
}

/* What the socket does not take is asked for again, and nothing of it twice. */
static void writes_as_much_as_there_is_room(_unused_ void **state)
{
        struct server s = {0};
        static char many[100000];
        struct iovec parts[] = {{(char *)"head", 4}, {many, sizeof(many)}};
        size_t total = 0;
        ssize_t n;

        begin_talk(&s, reads_nothing);
        assert_int_equal(tls_write(s.tls, NULL, 0), 0);
        while ((n = tls_write(s.tls, parts, 2)) > 0) {
                assert_in_range(n, 1, 16384);
                total += (size_t)n;
        }
        assert_true(total > 16384);
        for (int i = 0; i < 3; i++) {
                assert_int_equal(tls_write(s.tls, parts, 2), -1);
                assert_int_equal(errno, EAGAIN);
        }
        end(&s);
}

static void make_identity(void)
{
        unsigned char hash[crypto_hash_sha256_BYTES], *der = NULL;
        char base64[64];
        int n;

        key = EVP_EC_gen("P-256");
        certificate = X509_new();
        X509_set_version(certificate, X509_VERSION_3);
        ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
        X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
        X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
        X509_set_pubkey(certificate, key);
        assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
        n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
        crypto_hash_sha256(hash, der, (unsigned long long)n);
        OPENSSL_free(der);
        pins[0] = mem_printf("sha256//%s", sodium_bin2base64(base64, sizeof(base64), hash, sizeof(hash), sodium_base64_VARIANT_ORIGINAL));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(ends_are_told_apart),          cmocka_unit_test(pieces_of_a_record),
                cmocka_unit_test(a_flood_keeps_nobody_waiting), cmocka_unit_test(refuses_what_is_no_tls),
                cmocka_unit_test(a_flood_is_no_handshake),      cmocka_unit_test(writes_as_much_as_there_is_room),
        };

        signal(SIGPIPE, SIG_IGN);
        make_identity();
        int failed = cmocka_run_group_tests(tests, NULL, NULL);
        X509_free(certificate);
        EVP_PKEY_free(key);
        free(pins[0]);
        return failed;
}
