#include "broker/gateway/upstream_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sodium.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/mem.h"
#include "common/text.h"

#define MAX_AUTHORITIES (4U << 20)   /* bytes of the file; Debian's has 220 KiB */
#define MAX_CHAIN       (64U << 10)  /* bytes of all certificates that a server sends */
#define RECORD          (16U << 10)  /* what goes into one record */
#define TURN            (128U << 10) /* bytes that are read in one call, whatever comes of them */
#define MAX_HANDSHAKE   (256U << 10)
#define PIN             "sha256//"

/* -- certificate authorities ---------------------------------------------------------------------------------------------------- */

struct tls_authorities {
        char *path;
        struct timespec when; /* of the file that `store` is made of */
        ino_t inode;
        X509_STORE *store; /* NULL: not read yet */
        unsigned n_read;
};

struct tls_authorities *tls_authorities_new(const char *path)
{
        struct tls_authorities *a = NEW(struct tls_authorities);

        a->path = mem_strdup(path);
        return a;
}

struct tls_authorities *tls_authorities_free(struct tls_authorities *a)
{
        if (a) {
                X509_STORE_free(a->store);
                free(a->path);
                free(a);
        }
        return NULL;
}

/* Certificates up to the end of the file; one that cannot be read is an error, because what stands behind it would be missing. */
static int add_certificates(X509_STORE *store, BIO *text, const char *path, struct err **err)
{
        unsigned n = 0;
        X509 *x;

        ERR_clear_error();
        for (; (x = PEM_read_bio_X509(text, NULL, NULL, NULL)); n++) {
                int added = X509_STORE_add_cert(store, x);
                X509_free(x);
                if (!added)
                        break;
        }
        if (x || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
                return err_set(err, ERR_INVALID, "%s: certificate %u is broken (%s); install ca-certificates anew", path, n + 1,
                               ERR_reason_error_string(ERR_peek_last_error()));
        if (n == 0)
                return err_set(err, ERR_INVALID, "%s: there is no certificate in it; install ca-certificates, or name another file", path);
        return 0;
}

static int authorities_read(struct tls_authorities *a, const struct stat *st, struct err **err)
{
        _cleanup_free_ char *text = NULL;
        X509_STORE *store;
        BIO *bio;
        size_t n;
        int r;

        if (file_read(&text, &n, a->path, MAX_AUTHORITIES, FILE_TRUSTED, err) < 0)
                return -1;
        store = X509_STORE_new();
        bio = BIO_new_mem_buf(text, (int)n);
        r = store && bio ? add_certificates(store, bio, a->path, err) : err_set(err, ERR_INTERNAL, "no memory for certificates");
        BIO_free(bio);
        if (r < 0) {
                X509_STORE_free(store);
                return -1;
        }
        X509_STORE_free(a->store);
        a->store = store;
        a->n_read++;
        a->when = st->st_mtim;
        a->inode = st->st_ino;
        return 0;
}

static int authorities_current(struct tls_authorities *a, struct err **err)
{
        struct stat st;
        int r;

        if (stat(a->path, &st) < 0)
                r = err_sys(err, errno, "%s, which says whose certificates are good", a->path);
        else if (a->store && st.st_ino == a->inode && st.st_mtim.tv_sec == a->when.tv_sec && st.st_mtim.tv_nsec == a->when.tv_nsec)
                return 0;
        else
                r = authorities_read(a, &st, err);
        return r < 0 ? err_wrap(err, "gateway.ca_file") : 0;
}

/* -- whom to trust ---------------------------------------------------------------------------------------------------------------- */

struct tls_trust {
        SSL_CTX *context;
        struct tls_authorities *authorities; /* with pins: not asked */
        unsigned n_read;                     /* which ones the context has */
        char *host;
        char **pins;
        bool by_address;
};

struct tls {
        SSL *ssl;
        int fd;
        const struct tls_trust *trust;
        size_t turn;    /* bytes that may be read in this one still */
        size_t shaking; /* read in the handshake */
        char *pin;      /* of the key that was none of the pins */
        bool open, broken;
        bool hung_up; /* its socket has ended */
        bool ended;   /* behind what was read last: */
        int end;      /* 0: it was said; else an errno */
};

static char *pin_of(X509 *x)
{
        char base64[sodium_base64_ENCODED_LEN(crypto_hash_sha256_BYTES, sodium_base64_VARIANT_ORIGINAL)];
        unsigned char hash[crypto_hash_sha256_BYTES], *der = NULL;
        int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &der);

        if (n <= 0)
                return NULL;
        crypto_hash_sha256(hash, der, (unsigned long long)n);
        OPENSSL_free(der);
        return mem_printf(PIN "%s", sodium_bin2base64(base64, sizeof(base64), hash, sizeof(hash), sodium_base64_VARIANT_ORIGINAL));
}

/* In the place of OpenSSL's own look at the chain: the handshake proves that the server has the key. */
static int check_pin(X509_STORE_CTX *store, _unused_ void *unused)
{
        SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
        struct tls *t = SSL_get_app_data(ssl);
        _cleanup_free_ char *pin = pin_of(X509_STORE_CTX_get0_cert(store));

        if (pin && strv_contains(t->trust->pins, pin))
                return 1;
        mem_replace(&t->pin, TAKE_PTR(pin));
        X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
        return 0;
}

/* Those of now: one that is trusted no more vouches for no new connection. */
static int ask_authorities(struct tls_trust *t, struct err **err)
{
        if (!t->authorities)
                return err_set(err, ERR_INVALID, "nobody says whose certificates are good (gateway.ca_file)");
        if (authorities_current(t->authorities, err) < 0)
                return -1;
        if (t->n_read != t->authorities->n_read)
                SSL_CTX_set1_cert_store(t->context, t->authorities->store);
        t->n_read = t->authorities->n_read;
        return 0;
}

static int make_context(struct tls_trust *t, struct err **err)
{
        static const unsigned char http[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};

        /* No file of its own: what it may do is said here. */
        if (!OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL) ||
            !(t->context = SSL_CTX_new(TLS_client_method())) || !SSL_CTX_set_min_proto_version(t->context, TLS1_2_VERSION) ||
            SSL_CTX_set_alpn_protos(t->context, http, sizeof(http)))
                return err_set(err, ERR_INTERNAL, "TLS does not start: %s", ERR_reason_error_string(ERR_peek_last_error()));
        SSL_CTX_set_options(t->context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
        SSL_CTX_set_mode(t->context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
        /* Messages of TLS' own are no data: a server that sends nothing else would be read from without end. */
        SSL_CTX_clear_mode(t->context, SSL_MODE_AUTO_RETRY);
        SSL_CTX_set_session_cache_mode(t->context, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_max_cert_list(t->context, MAX_CHAIN);
        SSL_CTX_set_verify(t->context, SSL_VERIFY_PEER, NULL);
        if (t->pins) {
                SSL_CTX_set_cert_verify_callback(t->context, check_pin, NULL);
                return 0;
        }
        return ask_authorities(t, err);
}

int tls_trust_new(struct tls_trust **ret, const char *host, char *const *pins, struct tls_authorities *a, struct err **err)
{
        struct tls_trust *t = NEW(struct tls_trust);
        struct in_addr address;

        t->host = mem_strdup(host);
        t->pins = strv_dup(pins);
        t->by_address = inet_pton(AF_INET, host, &address) == 1;
        t->authorities = a;
        if (make_context(t, err) < 0) {
                tls_trust_free(t);
                return -1;
        }
        *ret = t;
        return 0;
}

struct tls_trust *tls_trust_free(struct tls_trust *t)
{
        if (t) {
                SSL_CTX_free(t->context);
                free(t->host);
                strv_free(t->pins);
                free(t);
        }
        return NULL;
}

bool tls_trust_is(const struct tls_trust *t, const char *host, char *const *pins)
{
        return t ? str_eq(t->host, host) && strv_equal(t->pins, pins) : !host;
}

/* -- the socket ------------------------------------------------------------------------------------------------------------------- */
/*
 * OpenSSL reads for as long as there is something, and overlooks messages of which a server may send any number. So it is told that there
 * is nothing more now when a turn is over; epoll tells of the rest again.
 */
static int socket_read(BIO *b, char *bytes, int n)
{
        struct tls *t = BIO_get_data(b);
        ssize_t r;

        BIO_clear_retry_flags(b);
        if (t->turn == 0) {
                BIO_set_retry_read(b);
                return -1;
        }
        r = recv(t->fd, bytes, MIN((size_t)n, t->turn), MSG_DONTWAIT);
        if (r > 0) {
                t->turn -= (size_t)r;
                t->shaking += t->open ? 0 : (size_t)r;
        }
        t->hung_up = r == 0;
        if (r < 0 && (errno == EAGAIN || errno == EINTR))
                BIO_set_retry_read(b);
        return (int)r;
}

static int socket_write(BIO *b, const char *bytes, int n)
{
        const struct tls *t = BIO_get_data(b);
        ssize_t r = send(t->fd, bytes, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);

        BIO_clear_retry_flags(b);
        if (r < 0 && (errno == EAGAIN || errno == EINTR))
                BIO_set_retry_write(b);
        return (int)r;
}

static long socket_control(BIO *b, int what, _unused_ long n, _unused_ void *at)
{
        const struct tls *t = BIO_get_data(b);

        return what == BIO_CTRL_EOF ? t->hung_up : what == BIO_CTRL_FLUSH;
}

static BIO *socket_new(struct tls *t)
{
        static BIO_METHOD *method;
        BIO *b;

        if (!method &&
            !((method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket")) && BIO_meth_set_read(method, socket_read) &&
              BIO_meth_set_write(method, socket_write) && BIO_meth_set_ctrl(method, socket_control)))
                return NULL;
        b = BIO_new(method);
        if (b) {
                BIO_set_data(b, t);
                BIO_set_init(b, 1);
        }
        return b;
}

/* -- one connection --------------------------------------------------------------------------------------------------------------- */

static bool expect_host(SSL *ssl, const struct tls_trust *trust)
{
        X509_VERIFY_PARAM *p = SSL_get0_param(ssl);

        if (trust->by_address)
                return X509_VERIFY_PARAM_set1_ip_asc(p, trust->host);
        X509_VERIFY_PARAM_set_hostflags(p, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
        return SSL_set_tlsext_host_name(ssl, trust->host) && SSL_set1_host(ssl, trust->host);
}

int tls_new(struct tls **ret, struct tls_trust *trust, int fd, struct err **err)
{
        struct tls *t;
        BIO *b;

        if (!trust->pins && ask_authorities(trust, err) < 0)
                return -1;
        t = NEW(struct tls);
        t->fd = fd;
        t->trust = trust;
        t->ssl = SSL_new(trust->context);
        b = t->ssl ? socket_new(t) : NULL;
        if (b)
                SSL_set_bio(t->ssl, b, b);
        if (!b || !SSL_set_app_data(t->ssl, t) || !expect_host(t->ssl, trust)) {
                tls_free(t);
                return err_set(err, ERR_INTERNAL, "no memory for TLS");
        }
        SSL_set_connect_state(t->ssl);
        *ret = t;
        return 0;
}

struct tls *tls_free(struct tls *t)
{
        if (!t)
                return NULL;
        ERR_clear_error();
        if (t->open && !t->broken)
                (void)SSL_shutdown(t->ssl);
        SSL_free(t->ssl);
        free(t->pin);
        free(t);
        ERR_clear_error();
        return NULL;
}

static void why_not(const struct tls *t, struct err **err)
{
        long verified = SSL_get_verify_result(t->ssl);
        const char *reason = ERR_reason_error_string(ERR_peek_last_error());

        if (t->pin)
                err_set(err, ERR_DENIED, "TLS: the server's key is %s, which is none of its tls_pins", t->pin);
        else if (verified != X509_V_OK)
                err_set(err, ERR_DENIED, "TLS: the certificate is not good for %s: %s", t->trust->host,
                        X509_verify_cert_error_string(verified));
        else if (reason && ERR_GET_REASON(ERR_peek_last_error()) != SSL_R_UNEXPECTED_EOF_WHILE_READING)
                err_set(err, ERR_DENIED, "TLS: %s", reason);
        else
                err_set(err, ERR_UNAVAILABLE, "TLS: the server ended the connection in the handshake");
}

enum tls_step tls_handshake(struct tls *t, struct err **err)
{
        int r;

        ERR_clear_error();
        t->turn = TURN;
        r = SSL_do_handshake(t->ssl);
        if (r == 1) {
                t->open = true;
                return TLS_DONE;
        }
        if (t->shaking > MAX_HANDSHAKE) {
                t->broken = true;
                err_set(err, ERR_DENIED, "TLS: it sends more than %u bytes before it has proved who it is", MAX_HANDSHAKE);
                return TLS_FAILED;
        }
        switch (SSL_get_error(t->ssl, r)) {
        case SSL_ERROR_WANT_READ:
                return TLS_WANTS_IN;
        case SSL_ERROR_WANT_WRITE:
                return TLS_WANTS_OUT;
        default:
                t->broken = true;
                why_not(t, err);
                return TLS_FAILED;
        }
}

/* wanted: what the socket is asked for anyway. The other one is never waited for: only a server that changes keys while it reads nothing
 * brings that about. */
static ssize_t outcome(struct tls *t, int r, int wanted)
{
        int e = SSL_get_error(t->ssl, r);
        bool cut = ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;

        if (e == SSL_ERROR_ZERO_RETURN)
                return 0;
        if (e == wanted) {
                errno = EAGAIN;
                return -1;
        }
        t->broken = true;
        if (e != SSL_ERROR_SYSCALL || errno == 0)
                errno = cut || e == SSL_ERROR_SYSCALL ? ECONNRESET : EPROTO;
        return -1;
}

ssize_t tls_read(struct tls *t, void *bytes, size_t n)
{
        size_t have = 0, got;
        ssize_t last = 1;

        t->turn = TURN;
        /* A call gives one record at most. */
        while (have < n && last > 0 && !t->ended) {
                ERR_clear_error();
                errno = 0;
                int r = SSL_read_ex(t->ssl, (char *)bytes + have, n - have, &got);
                if (r > 0) {
                        have += got;
                        continue;
                }
                last = outcome(t, r, SSL_ERROR_WANT_READ);
                t->ended = last == 0 || errno != EAGAIN;
                t->end = last == 0 ? 0 : errno;
        }
        if (have > 0)
                return (ssize_t)have;
        errno = t->ended ? t->end : EAGAIN;
        return t->ended && t->end == 0 ? 0 : -1;
}

ssize_t tls_write(struct tls *t, const struct iovec *parts, size_t n_parts)
{
        char record[RECORD];
        size_t n = 0, taken = 0;

        /* One record for all of it, where it fits; what is tried again has to begin with the same bytes, and does. */
        for (size_t i = 0; i < n_parts && n < sizeof(record); i++) {
                size_t k = MIN(parts[i].iov_len, sizeof(record) - n);
                if (k > 0)
                        memcpy(record + n, parts[i].iov_base, k);
                n += k;
        }
        if (n == 0)
                return 0;
        ERR_clear_error();
        errno = 0;
        t->turn = TURN;
        int r = SSL_write_ex(t->ssl, record, n, &taken);
        return r > 0 ? (ssize_t)taken : outcome(t, r, SSL_ERROR_WANT_WRITE);
}

bool tls_pending(const struct tls *t)
{
        return SSL_pending(t->ssl) > 0 || t->ended;
}
