/*
 * /etc/bulkhead/bulkhead.conf (YAML): what root decides about this host. Owned by root, not writable by others, else refused.
 * Read by the controller, the CLI and the helpers.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/mem.h"

#define CONF_DEFAULT_PATH "/etc/bulkhead/bulkhead.conf"

struct conf_listen {
        char *address; /* dotted IPv4 */
        uint16_t port;
};

struct conf_listens {
        struct conf_listen *items;
        size_t n;
};

struct conf {
        char *path;
        char *audience;             /* audience: who approvals are for; also the owner label. [A-Za-z0-9.-]{1,64}. Required. */
        char *registry_path;        /* registry: /etc/bulkhead/registry/mcp.servers.json */
        char *approvals_repository; /* approvals.repository: /var/lib/bulkhead/approvals.git */
        char *approvals_ref;        /* approvals.ref: refs/heads/main */
        bool signatures_required;   /* approvals.signatures: required | none (development only) */
        char *allowed_signers;      /* approvals.allowed_signers: /etc/bulkhead/allowed_signers */
        char *revoked_keys;         /* approvals.revoked_keys: KRL or key list for ssh-keygen -r; NULL = none */
        char *engine_socket;        /* engine.socket: /run/docker.sock */
        char *service_user;         /* controller.user: bulkhead */
        char *control_socket;       /* controller.socket: /run/bulkhead/control/control.sock */
        char *state_dir;            /* controller.state: /var/lib/bulkhead/state */
        unsigned max_starts;        /* controller.parallel_starts: 4 (1..16) */
        unsigned max_servers;       /* controller.max_servers: 1000 */
        uint64_t resync_ms;         /* controller.resync: 30s */
        char *operator_group;       /* control.operators: group that may use mutating verbs (bulkhead-operators) */
        char *reader_group;         /* control.readers: group that may read status (bulkhead-operators) */
        char *pool;                 /* network.pool: 10.213.0.0/16 */
        uint32_t mark_bit;          /* network.mark: a single bit, default 0x00200000 */
        char *broker_user;          /* network.broker_user: bulkhead-broker; may not exist */
        char **allowed_registries; /* images.registries: hosts images may be pulled from, e.g. [docker.io, 127.0.0.1:5000]. Default: none */
        uint64_t max_image_bytes;  /* images.max_size: 2g */
        char **mount_roots;        /* mounts.roots: host directories that servers' mounts must lie under. Default: none */
        char **runtimes;           /* runtimes: container runtimes an entry may name. Default: none (the Engine's own) */
        uint64_t smoke_timeout_ms; /* smoke.timeout: 60s */
        uint64_t smoke_max_output; /* smoke.max_output: 4m */
        char *helper_dir;          /* helpers: directory of our helper programs; default: libexec dir of the build */

        char *toolhive_url;                /* discovery.toolhive: http://…; what $TOOLHIVE_GATEWAY_URL overrides. Default: none */
        bool discovery_development;        /* discovery.mode: production | development: editors' files are looked at as well */
        char *agents_file;                 /* agents.file: /etc/bulkhead/agents.json: agents and public keys, for the broker */
        char *agents_key;                  /* agents.key: /etc/bulkhead/agents.key: signs tokens; root's alone */
        char *link_socket;                 /* link.socket: /run/bulkhead/link/link.sock */
        struct conf_listen gateway_listen; /* gateway.listen: 127.0.0.1:8080 */
        bool gateway_auth;                 /* gateway.auth: token | none (loopback only) */
        bool gateway_metrics_auth;         /* gateway.metrics: token | none (loopback only): may everybody on this host read /metrics? */
        char *gateway_token;               /* gateway.token: /etc/bulkhead/gateway.token.sha256; see conf_gateway_token() */
        char **gateway_hosts;              /* gateway.hosts: names a Host or Origin may have beside the loopback's. Default: none */
        struct conf_listens broker_listen; /* broker.listen: where agents call: one or up to 16; 127.0.0.1:8000 */
        char **broker_hosts;               /* broker.hosts: as gateway.hosts, for agents */
        char *broker_state;                /* broker.state: /var/lib/bulkhead/broker: counters, pending calls, the decision log */
        char *policy_path;                 /* policy: /etc/bulkhead/security_policy.json */
        char *ca_file;                     /* gateway.ca_file: /etc/ssl/certs/ca-certificates.crt, for external servers by https */
        uint64_t gateway_max_message;      /* gateway.max_message: 16m (64k..64m) */
        uint64_t gateway_call_timeout_ms;  /* gateway.call_timeout: 60s, without an answer or progress */
        uint64_t gateway_call_cap_ms;      /* gateway.call_cap: 1h, in all */
        uint64_t gateway_start_timeout_ms; /* gateway.start_timeout: 60s */
        uint64_t gateway_grace_ms;         /* gateway.controller_grace: 5m, then calls stop that nobody could revoke */
        unsigned gateway_max_sessions;     /* gateway.max_sessions: 10000 */
        unsigned gateway_max_instances;    /* gateway.max_instances: 64, on-demand servers that run at once */
        unsigned gateway_max_server_instances; /* gateway.max_server_instances: 8, of one server that has one for every session */
        unsigned gateway_busy_poll_us;         /* gateway.busy_poll_us: 100; 0: sleep at once */
        uint64_t gateway_max_memory;           /* gateway.max_memory: bytes, sum of the running servers' limits; 0 = 3/4 of the host's */
};

/* Reads and checks path. Unknown keys are errors. */
_must_check_ int conf_load(struct conf **ret, const char *path, struct err **err);
/*
 * Lower-case hex SHA-256 of the operator's token, out of the file gateway.token, which only root may write. It is all the broker needs: a
 * token that is never there cannot be read out of it. out: 65 bytes.
 */
#define CONF_TOKEN_HEX 65
_must_check_ int conf_gateway_token(char out[CONF_TOKEN_HEX], const struct conf *conf, struct err **err);
struct conf *conf_free(struct conf *c);
DEFINE_FREEP(struct conf *, conf_free)
