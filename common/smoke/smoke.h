/*
 * The smoke test: one image, one spec, in quarantine (own internal network, no egress, no secrets, placeholders for declared secret names),
 * asked for everything it offers, and the canonical manifest of the answers.
 *
 * smoke_start() drives the Engine (network, container, attach) from the caller's loop and leaves every byte the server writes to the helper
 * program `bulkhead-smoke-talk`: fork + exec, no capability, no descriptor but the stream (stdio) or a socketpair through which it asks for
 * connections (HTTP). Used by the controller (before a first start, and for `bulkhead smoke`) and by `bulkhead smoke --ci`.
 */
#pragma once

#include <systemd/sd-event.h>

#include "common/conf.h"
#include "common/engine/engine.h"
#include "common/forge/record.h"
#include "common/spec/spec.h"

struct smoke_request {
        const struct registry_entry *entry; /* borrowed until done */
        const struct image_facts *image;    /* NULL for an external server */
        const struct spec *spec;
        const char *subnet; /* "10.213.0.8/29": the caller's, reserved until done; NULL for an external server */
        const char *owner;  /* owner label */
};

struct smoke_result {
        bool passed;
        char *why;      /* not passed: one sentence (foreign text inside it is already escaped) */
        char *protocol; /* "2025-11-25" */
        uint64_t duration_ms;
        char *manifest; /* canonical JSON: {"instructions","prompts","resourceTemplates","resources","tools"}, see talk_manifest.h; foreign
                           text, opaque to the controller */
        size_t manifest_len;
        char manifest_sha256[SHA256_HEX];
        char **tools;      /* names, sorted */
        char *stderr_tail; /* last 4 KiB of the server's stderr, escaped */
        time_t at;
};
struct smoke_result *smoke_result_free(struct smoke_result *r);
DEFINE_FREEP(struct smoke_result *, smoke_result_free)
json_object *smoke_result_to_json(const struct smoke_result *r); /* with the manifest as a string */
_must_check_ int smoke_result_from_json(struct smoke_result **ret, json_object *o, struct err **err);

struct smoke;
/*
 * An external server has no container: of all this the helper is left, which asks it for everything that it offers over connections to the
 * address in its entry. No Engine is needed then (engine may be NULL), and before_start is not called.
 *
 * Called once. result is handed over (a failed smoke test is a result, not an error). err (borrowed): the test could not be made, e.g.
 * ERR_NOT_FOUND no such image here (pull it first), ERR_CONFLICT somebody else holds the name or the Engine made another container than
 * asked, or what the Engine's client says. What was made is gone when this is called; what could not be removed in four rounds is said in
 * err. The struct smoke is freed: forget it.
 */
typedef void (*smoke_done_fn)(struct smoke_result *result, struct err *err, void *user);
/*
 * before_start (may be NULL) is called after the network exists and before the container is made, so that the owner can put firewall rules
 * in place; it must call smoke_continue() in the end, at once or later: nothing else ends that wait.
 */
typedef void (*smoke_ready_fn)(struct smoke *s, const char *bridge, const char *address, void *user);
/*
 * Nothing is called back before this has returned. entry, image and spec are borrowed until done; subnet and owner are copied. The loop
 * needs SIGCHLD to be blocked (sd_event_add_child()). Times: the server and the helper have smoke.timeout of the configuration, the Engine
 * 60 s on top of it. Objects an earlier test of the same spec left are removed first.
 */
_must_check_ int smoke_start(struct smoke **ret, sd_event *loop, struct engine *engine, const struct conf *conf,
                             const struct smoke_request *request, smoke_ready_fn before_start, smoke_done_fn done, void *user,
                             struct err **err);
/* err (borrowed) non-NULL: give up. A NULL smoke, and a call out of turn, do nothing. */
void smoke_continue(struct smoke *s, const struct err *err);
/* Abandons it, nothing is called back: container and network are left for the reconciler, which sees role "smoke" objects without a running
 * test as orphans. Keep the engine until its outstanding calls are answered, or a few bytes leak. */
struct smoke *smoke_cancel(struct smoke *s);
