/*
 * From an approved entry and image facts to the exact container: the hardened create body, its hash, and the judgement whether what the
 * Engine shows (full inspect) still is that container. Pure functions of values. Used by controller and CLI.
 * Engine facts: docs on POST /containers/create of the Engine API.
 */
#pragma once

#include "common/json.h"
#include "common/registry/registry.h"

/* Labels on Engine objects: public names (docs/formats.md). */
#define LABEL_PREFIX   "io.bulkhead."
#define LABEL_OWNER    LABEL_PREFIX "owner" /* audience of the host */
#define LABEL_SERVER   LABEL_PREFIX "server"
#define LABEL_SCOPE    LABEL_PREFIX "scope"    /* the set of secrets an instance has */
#define LABEL_SPEC     LABEL_PREFIX "spec"     /* "v1:" + hex */
#define LABEL_APPROVAL LABEL_PREFIX "approval" /* id of the record */
#define LABEL_ROLE     LABEL_PREFIX "role"     /* one of the two */
#define LABEL_INSTANCE LABEL_PREFIX "instance" /* which one of a server that has an instance for every session; absent: it has one only */
#define ROLE_SERVER    "server"
#define ROLE_SMOKE     "smoke"

/* What is known of an image: from an inspect, and bound by the approval record's `source`. */
struct image_facts {
        char *reference;       /* name without digest: "127.0.0.1:5000/mcp/everything:1.0" (tag optional) */
        char *digest;          /* registry manifest (or index) digest, "sha256:…" */
        char *platform;        /* "linux/amd64" */
        char *platform_digest; /* digest of the platform's manifest; equals digest for a single-platform image; NULL where the Engine cannot
                                  tell */
        char *image_id;        /* the Engine's image id, "sha256:…" */
        char **volumes;        /* VOLUME paths, sorted: they become tmpfs and are part of the spec */
        /* Facts for vetting, not bound one by one (image_id binds them): */
        char *user;
        char **exposed_ports;
        char **entrypoint, **cmd;
        uint64_t size;
        size_t n_layers;
        /* What a container takes over from its image: spec_drift() judges by them when it gets the facts of the image on this host. */
        char **env; /* "NAME=value" */
        char *working_dir;
        char *stop_signal;
};
struct image_facts *image_facts_free(struct image_facts *f);
DEFINE_FREEP(struct image_facts *, image_facts_free)
/* From GET /images/{name}/json. Refuses an image that carries labels of ours ("io.bulkhead.…") or is not the asked digest. */
_must_check_ int image_facts_from_inspect(struct image_facts **ret, json_object *inspect, const char *image, struct err **err);
/*
 * What the Engine itself cannot tell of an image pulled by digest: from GET /distribution/{name}/json, sets platform_digest when the digest
 * is one platform's manifest. Leaves it NULL for an index. Refuses an answer about another digest.
 */
_must_check_ int image_facts_add_distribution(struct image_facts *f, json_object *distribution, struct err **err);
/*
 * Do the facts match what a record bound? Names the first field that does not, with both values. A platform digest that either side does
 * not know is not compared: image_id binds the content.
 */
_must_check_ int image_facts_compare(const struct image_facts *approved, const struct image_facts *seen, struct err **err);

#define SPEC_VERSION "v1" /* what spec_build() builds */

struct spec {
        /* Create body without anything the host assigns: no network, DNS, labels, address. The seccomp profile stands in it as
         * "seccomp=sha256:…", for size; spec_create_body() puts the text there. */
        json_object *body;         /* NULL for an external server, which has no container */
        json_object *canonical;    /* what is hashed: body, secrets' names, egress, transport, image digests; of an external one its URL */
        char hash[3 + SHA256_HEX]; /* "v1:" + hex: the .spec label */
        const char *hex;           /* hash + 3: spec_sha256 of a record */
};
/* image: NULL for an external server, and only there. */
_must_check_ int spec_build(struct spec **ret, const struct registry_entry *entry, const struct image_facts *image, struct err **err);
/* By the builder of a certain version ("v1"): what an older Bulkhead started keeps its hash and need not be recreated. ERR_NOT_FOUND: no
 * such builder. */
_must_check_ int spec_build_version(struct spec **ret, const char *version, const struct registry_entry *entry,
                                    const struct image_facts *image, struct err **err);
struct spec *spec_free(struct spec *s);
DEFINE_FREEP(struct spec *, spec_free)

/* What the host assigns to one instance. */
struct spec_host {
        const char *network;                         /* name of its network */
        const char *address;                         /* its own IPv4 address in it */
        const char *dns;                             /* the network's gateway */
        const char *owner, *approval, *scope, *role; /* label values; role "server" | "smoke" */
        const char *server;
        const char *instance;   /* label value, and part of its name; NULL = the only one */
        char *const *extra_env; /* "NAME=value": secrets or, in a smoke test, placeholders; NULL = none */

        /* For spec_drift() only; all may be left zero. */
        const struct image_facts
                *image; /* of the approved image as it is on this host: then the variables, working directory … it brings are judged too */
        const char *default_runtime; /* the Engine's (GET /info, DefaultRuntime); NULL = runc or crun by any of their names */
        bool no_swap_limit;          /* GET /info says SwapLimit false: then the Engine stores MemorySwap as -1 */
};
/* Body for POST /containers/create (owned). In the role of a smoke test empty memory stands in the place of the host's directories. */
json_object *spec_create_body(const struct spec *spec, const struct spec_host *host);
/*
 * Judges a full GET /containers/{id}/json against the spec and the host's assignment. Returns a list (owned) of reasons, each "field: is X,
 * approved Y"; NULL = no drift. A HostConfig or Config field we do not know that has a non-default value is drift. host->extra_env values
 * are not judged, only the names. host->approval NULL: that label is not judged, so that a renewed approval of the same spec needs no new
 * container. Foreign text in the reasons is escaped and cut.
 */
char **spec_drift(const struct spec *spec, const struct spec_host *host, json_object *inspect);
/*
 * "server-1a2b3c4d": container name; the network's is "bh-" + the same; the bridge's "bh" + 8 hex of owner, server, spec and role. In place
 * of the role, the number of one of several instances: "server-1a2b3c4d-2". Owned.
 */
char *spec_container_name(const char *server, const struct spec *spec, const char *role);
char *spec_network_name(const char *server, const struct spec *spec, const char *role);
void spec_bridge_name(char out[16], const char *owner, const char *server, const struct spec *spec, const char *role);

/* One instance's private network: a bridge with a /29. Internal when nothing may leave it. */
struct spec_network {
        const char *name, *bridge, *subnet, *gateway;
        bool internal;
        const char *owner, *server, *spec /* hash with version */, *role, *instance /* or NULL */; /* labels */
};
/* Body for POST /networks/create (owned). */
json_object *spec_network_body(const struct spec_network *n);

/* Our seccomp profile as JSON text (borrowed, static) and its SHA-256. */
const char *spec_seccomp_profile(void);
const char *spec_seccomp_sha256(void);
