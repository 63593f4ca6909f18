/*
 * The link between controller and broker: a unix socket of packets (SOCK_SEQPACKET), one JSON object and at most one descriptor each, small
 * and bounded. The controller tells which servers there are and hands over streams; the broker may ask for three things by name and for
 * nothing else. Both ends use this; each checks the other's uid (SO_PEERCRED).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/err.h"
#include "common/registry/registry.h"

#define CHANNEL_VERSION      6
#define CHANNEL_MAX_TEXT     (24U << 10)
#define CHANNEL_MAX_PACKET   (64U << 10)
#define CHANNEL_MAX_QUEUED   (4U << 20) /* bytes that wait for a peer that does not read; then it is closed */
#define CHANNEL_STALL_MS     30000U     /* and so is one that takes nothing for this long */
#define CHANNEL_MAX_TROUBLES 8U
#define CHANNEL_MAX_HEADERS  16U
#define CHANNEL_MAX_TLS_PINS 8U
#define CHANNEL_MAX_DIFFERS  32U /* items of one server that are named */
#define CHANNEL_INSTANCE_HEX 12U

enum channel_kind {
        /* controller -> broker */
        CHANNEL_HELLO,   /* first: version */
        CHANNEL_PINS,    /* name, pins: some of those that the next CHANNEL_SERVER has. Both ends: made and put together by the channel */
        CHANNEL_SERVER,  /* a server is there, or changed: entry */
        CHANNEL_GONE,    /* name is not a server any more, or may not be called any more */
        CHANNEL_SYNCED,  /* all there is was told */
        CHANNEL_STREAM,  /* name, instance, and the descriptor of a fresh attach stream, after its parsed 101; serial, of one of many */
        CHANNEL_REFUSED, /* name, why: what was asked for will not happen; serial, when it was asked for with one */
        CHANNEL_CALLS,   /* serial: which calls wait for a human? */
        CHANNEL_DECIDE,  /* serial, call, approve, valid_ms, by: what a human says about one */
        /* broker -> controller */
        CHANNEL_START,   /* name: somebody calls an on-demand server. serial: an instance for one session more, of a server that has them */
        CHANNEL_STOP,    /* name: nobody has called it for its idle time. serial: that instance's session is over */
        CHANNEL_RENEW,   /* name, instance: its stream is lost or its session is broken; a fresh instance is wanted */
        CHANNEL_CALL,    /* serial, text: one of them. JSON that the controller hands on unread */
        CHANNEL_DONE,    /* serial, why: that was all; or what went wrong */
        CHANNEL_STATE,   /* troubles: what people must know of the broker's own files; an empty list: nothing. Until it says otherwise */
        CHANNEL_DIFFERS, /* name, differs: what it offers otherwise than approved, and what is withheld therefore; an empty list: nothing */
};

enum server_readiness {
        READINESS_UP,     /* HTTP: connect to address; stdio: a stream comes, or has come */
        READINESS_ASLEEP, /* on demand, not running: ask for a start; so is always, or down, what has an instance for every session */
        READINESS_COMING, /* being started */
        READINESS_DOWN,   /* not to be had now; why says it */
};

/* What the broker knows of a server: nothing that lets it choose an image, a mount, a secret or a limit. */
struct channel_entry {
        char *name;
        enum transport transport;
        enum lifecycle lifecycle;
        enum server_readiness readiness;
        char *why;      /* READINESS_DOWN: for callers, escaped */
        char *instance; /* of the container that runs, 12 hex; another one is another session. NULL when none */
        char *address;  /* HTTP: dotted IPv4 */
        uint16_t port;
        char *path;
        char *tls_host;   /* HTTP over TLS: what its certificate is for; NULL = plain */
        char **tls_pins;  /* over TLS: "sha256//BASE64" of the public keys that are trusted; NULL = whose certificate is good */
        char **headers;   /* HTTP: "Name: value", sent with every request; NULL = none */
        char *prefix;     /* of its tools' names where several servers share an endpoint; NULL = "name__"; "" = none */
        bool per_session; /* a session of its own for every client, else one for all; a stdio server then has an instance for each */
        char *manifest;   /* SHA-256 of the approved one, 64 hex; NULL when the record has none */
        char **tools;     /* names that were approved, others are withheld (an empty list: all). NULL = not bound by the record */
        bool pinned;      /* the record binds what each item is: */
        char **pins;      /* of its approved manifest, sorted (common/manifest.h); NULL = none */
        char **actions;   /* "read TOOL": classes as the approved entry tells them; NULL = it tells none */
        uint64_t idle_ms;
        uint64_t expires_at; /* seconds since the epoch: then the approval ends, whoever is there to say so. 0 = it has no end */
};
void channel_entry_deinit(struct channel_entry *e);
void channel_entry_copy(struct channel_entry *ret, const struct channel_entry *e);
bool channel_entry_equal(const struct channel_entry *a, const struct channel_entry *b);
/* A stdio server that has an instance for every session. */
bool channel_entry_has_instances(const struct channel_entry *e);

struct channel_message {
        enum channel_kind kind;
        unsigned version;           /* CHANNEL_HELLO */
        struct channel_entry entry; /* CHANNEL_SERVER: all of it; others: name and instance only */
        char *why;                  /* CHANNEL_REFUSED; CHANNEL_DONE: NULL when all went well */
        /*
         * From 1. About calls: the broker answers with the number that it was asked with. About instances: the broker's own number for one,
         * never used twice on a link; 0 = none.
         */
        unsigned serial;
        bool lists;        /* CHANNEL_START: no session's: to look at what there is. One more than sessions may have */
        char *call;        /* "c-…" */
        bool approve;      /* CHANNEL_DECIDE */
        uint64_t valid_ms; /* CHANNEL_DECIDE: as often as is liked, for so long; 0: once */
        char *by;          /* CHANNEL_DECIDE: who says so */
        char *text;        /* CHANNEL_CALL; at most CHANNEL_MAX_TEXT bytes */
        char **troubles;   /* CHANNEL_STATE: sentences, escaped; at most CHANNEL_MAX_TROUBLES */
        char **differs;    /* CHANNEL_DIFFERS: "tool NAME" and so on, escaped; at most CHANNEL_MAX_DIFFERS */
};
void channel_message_deinit(struct channel_message *m);
/*
 * Pure: one packet's bytes, strictly. Unknown kinds, keys and wrong types are errors, and so is a server that is up without an instance, by
 * HTTP without a place, or down without a why: who gets a message need not look again.
 */
_must_check_ int channel_parse(struct channel_message *ret, const char *text, size_t n, struct err **err);
char *channel_format(const struct channel_message *m); /* owned */
/* Has the packet room for it, without its pins? What has not is not sent. */
bool channel_fits(const struct channel_message *m);

/* -- the socket, both ends --------------------------------------------------------------------------------------------------- */
struct channel;
struct channel_events {
        /* fd is owned by the callee (-1: none came). May free the channel. */
        void (*message)(struct channel *c, const struct channel_message *m, int fd, void *user);
        /* The peer left, broke the format or does not read. Once, from the loop, never from inside a call. The owner frees the channel. */
        void (*closed)(struct channel *c, const struct err *why, void *user);
        /* All that was sent has been taken by the kernel: there is room for more. May be NULL. */
        void (*drained)(struct channel *c, void *user);
};
/*
 * Takes a connected descriptor (owned, also after an error). from_controller: the peer is the controller; which kinds may come in.
 * A descriptor comes with CHANNEL_STREAM and with nothing else: a second one, one with another kind, or a stream without one is closed and
 * ends the channel.
 */
_must_check_ int channel_new(struct channel **ret, sd_event *loop, int fd, bool from_controller, const struct channel_events *events,
                             void *user, struct err **err);
struct channel *channel_free(struct channel *c);
DEFINE_FREEP(struct channel *, channel_free)
/* Queued, bounded (a peer that does not read is closed). fd (owned from here on) or -1. */
void channel_send(struct channel *c, const struct channel_message *m, int fd);
size_t channel_queued(const struct channel *c); /* bytes */
/* Is the peer still there? Knows before closed() was called. */
bool channel_alive(const struct channel *c);

/* Controller: binds path (mode 0666; who may is decided by uid) or takes a listening descriptor. accepted gets a connected descriptor of a
 * peer whose uid is `peer`, owned by the callee; others are closed and logged. */
struct channel_listener;
_must_check_ int channel_listen(struct channel_listener **ret, sd_event *loop, const char *path, int listen_fd, uid_t peer,
                                void (*accepted)(int fd, void *user), void *user, struct err **err);
struct channel_listener *channel_listener_free(struct channel_listener *l);
DEFINE_FREEP(struct channel_listener *, channel_listener_free)
/* Broker: connects; the listener's process must run as `peer` or as root. */
_must_check_ int channel_connect(int *ret_fd, const char *path, uid_t peer, struct err **err);
