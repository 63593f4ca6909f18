/*
 * The registry file mcp.servers.json: what operators declare. Loader with file:line:column errors, and the typed entry.
 * Half-read files never get out of here: it is the whole file or an error. Used by controller and CLI.
 * Format: registry/mcp.servers.schema.json and docs/.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/conf.h"
#include "common/err.h"
#include "common/json.h"

#define REGISTRY_MAX_BYTES (4U << 20)

enum source_type { SOURCE_DOCKER_IMAGE, SOURCE_GIT_REPO, SOURCE_NPM_PACKAGE, SOURCE_PYPI_PACKAGE, SOURCE_URL };
enum transport { TRANSPORT_STDIO, TRANSPORT_STREAMABLE_HTTP, TRANSPORT_SSE };
enum lifecycle { LIFECYCLE_ALWAYS_ON, LIFECYCLE_ON_DEMAND };
enum sharing { SHARING_SHARED, SHARING_PER_SESSION };
enum protocol { PROTOCOL_ANY, PROTOCOL_TCP = 6, PROTOCOL_UDP = 17 };

struct egress_rule {
        char *host;             /* a DNS name, or NULL when cidr is set */
        char *cidr;             /* canonical "192.0.2.0/24"; NULL when host is set */
        enum protocol protocol; /* tcp by default */
        uint16_t *ports;        /* at least one for tcp and udp; ascending, no doubles */
        size_t n_ports;
};

struct mount {
        char *source; /* absolute, normalised, under a root of bulkhead.conf */
        char *target; /* absolute, normalised */
        bool writable;
};

struct env_var {
        char *name;
        char *value;
};

struct registry_entry {
        char *name;
        bool enabled;
        enum source_type source;
        char *image; /* "host/name@sha256:…" or "host/name:tag@sha256:…" for docker_image: always with a digest */
        enum transport transport;
        char *url;           /* of an external server, in one spelling; NULL for others */
        char *address;       /* of an external server, dotted IPv4 */
        char *tls_host;      /* of an external server by https: what its certificate is for, a name or an IPv4 address; NULL = plain http */
        char **tls_pins;     /* "sha256//BASE64" of public keys, sorted: these are trusted and no other; NULL = certificates are checked */
        uint16_t port;       /* HTTP transports */
        char *path;          /* HTTP transports, "/mcp" by default */
        char **entrypoint;   /* NULL = the image's */
        char **args;         /* NULL = the image's */
        struct env_var *env; /* sorted by name */
        size_t n_env;
        char **secrets; /* names, sorted */
        char **headers; /* HTTP: "Name: value", sorted, sent with every request; NULL = none */
        char **actions; /* "read TOOL": the classes of tools, as far as they are told; NULL = none is */
        struct egress_rule *egress;
        size_t n_egress;
        struct mount *mounts;
        size_t n_mounts;
        char *user;    /* "65532:65532" by default */
        char *runtime; /* NULL = the Engine's default */
        struct env_var *sysctls;
        size_t n_sysctls;
        uint64_t memory, nano_cpus, pids, tmpfs; /* bytes, 1e-9 cpu, count, bytes */
        enum lifecycle lifecycle;
        uint64_t idle_timeout_ms;
        char *prefix;                  /* of its tools' names where servers share an endpoint; "" = none; NULL = the name and "__" */
        enum sharing sharing;          /* one session with the server for all clients, or one each; HTTP servers: one each by default */
        json_object *smoke_call;       /* {"tool": …, "arguments": {…}} or NULL */
        json_object *json;             /* the entry as it was written */
        char entry_sha256[SHA256_HEX]; /* of the canonical entry without "enabled" and "description": neither is a new thing to approve */
        unsigned line;                 /* of its key in the file; 0 when it did not come from a file */
};

/* Where servers are looked for, as `bulkhead discover` does it. */
enum discovery { DISCOVERY_TOOLHIVE, DISCOVERY_REGISTRY, DISCOVERY_CURSOR, DISCOVERY_CACHE, DISCOVERY_SOURCES };
extern const char *const discovery_names[DISCOVERY_SOURCES + 1]; /* "toolhive_gateway"; ends with NULL */

/* A container of its own for every session of a client: what a stdio server needs to have a session for each. HTTP servers serve all by
 * one. */
static inline bool registry_entry_has_instances(const struct registry_entry *e)
{
        return e->transport == TRANSPORT_STDIO && e->sharing == SHARING_PER_SESSION;
}

struct registry {
        enum discovery order[DISCOVERY_SOURCES]; /* first to last */
        size_t n_order;
        char *path;
        struct registry_entry **entries; /* sorted by name */
        size_t n_entries;
        json_object *json;
};

_must_check_ int registry_load(struct registry **ret, const char *path, const struct conf *conf, struct err **err);
/* The same from memory; name is for messages. */
_must_check_ int registry_parse(struct registry **ret, const char *text, size_t n, const char *name, const struct conf *conf,
                                struct err **err);
/* One entry, e.g. the `entry:` of a proposal. where is for messages. json is borrowed (a reference is taken). */
_must_check_ int registry_entry_parse(struct registry_entry **ret, const char *name, json_object *json, const char *where,
                                      const struct conf *conf, struct err **err);
const struct registry_entry *registry_find(const struct registry *r, const char *name);
/* [a-z0-9-]{1,40} */
bool registry_name_valid(const char *name);
/* What stands before a server's tool names: [A-Za-z0-9_.-]{0,40}. No two servers of a file have the same. */
bool registry_prefix_valid(const char *prefix);
/* "sha256//" and 32 bytes in base64. */
bool registry_tls_pin_valid(const char *pin);
/* What a certificate is for: a host name in lower case (RFC 1035, 2.3.4), or a dotted IPv4 address. */
bool registry_tls_host_valid(const char *host);
/* "tcp 192.0.2.0/24:443,5432" for people and for records; owned. */
char *egress_rule_text(const struct egress_rule *rule);
/*
 * Writes the file anew with `entry` as servers.NAME (replaced or added; a NULL entry removes it), everything else kept, checked by a parse
 * before the atomic rename.
 */
_must_check_ int registry_write_entry(const char *path, const char *name, json_object *entry, const struct conf *conf, struct err **err);

struct registry *registry_free(struct registry *r);
struct registry_entry *registry_entry_free(struct registry_entry *e);
DEFINE_FREEP(struct registry *, registry_free)
DEFINE_FREEP(struct registry_entry *, registry_entry_free)
