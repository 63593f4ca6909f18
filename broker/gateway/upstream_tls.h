/*
 * TLS towards external servers, as a client, over connected sockets that do not block. Whom to trust is told once for each server; every
 * connection has a session of its own. Used by upstream_http_connection.c and upstream_pool.c.
 *
 * TLS 1.2 and 1.3; no renegotiation, no compression. A certificate's revocation is not asked about. Source: RFC 8446, RFC 9525 (names).
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "common/err.h"

/* -- certificate authorities ---------------------------------------------------------------------------------------------------- */
/* Those of one PEM file, read when they are needed first, and again when the file is another one. */
struct tls_authorities;
struct tls_authorities *tls_authorities_new(const char *path); /* copied */
struct tls_authorities *tls_authorities_free(struct tls_authorities *a);

/* -- whom to trust ---------------------------------------------------------------------------------------------------------------- */
struct tls_trust;
/*
 * host: whose certificate is wanted, a name or an IPv4 address. pins: "sha256//BASE64" of public keys; then these are trusted, whatever
 * their certificates say, and no other. NULL: an authority has to vouch for the host; a is borrowed.
 */
_must_check_ int tls_trust_new(struct tls_trust **ret, const char *host, char *const *pins, struct tls_authorities *a, struct err **err);
struct tls_trust *tls_trust_free(struct tls_trust *t);
bool tls_trust_is(const struct tls_trust *t, const char *host, char *const *pins);

/* -- one connection --------------------------------------------------------------------------------------------------------------- */
enum tls_step { TLS_DONE, TLS_WANTS_IN, TLS_WANTS_OUT, TLS_FAILED };
struct tls;
/* fd: connected, stays the caller's, and open until tls_free(). trust is borrowed. Fails when nobody says whose certificates are good. */
_must_check_ int tls_new(struct tls **ret, struct tls_trust *trust, int fd, struct err **err);
struct tls *tls_free(struct tls *t); /* tells the other side, if the socket takes it at once */
/* Again and again until TLS_DONE. *err is set for TLS_FAILED: ERR_UNAVAILABLE when it may go better next time. */
enum tls_step tls_handshake(struct tls *t, struct err **err);
/* Like recv() and sendmsg() without waiting: 0 is an end that was said; -1 and EAGAIN: not now; ECONNRESET: an end without a word. */
ssize_t tls_read(struct tls *t, void *bytes, size_t n);
ssize_t tls_write(struct tls *t, const struct iovec *parts, size_t n_parts);
/* Has it something to read, or an end to tell, of which the socket will not say anything any more? */
bool tls_pending(const struct tls *t);
