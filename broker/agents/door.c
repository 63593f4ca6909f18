#include "broker/agents/door.h"

#include <errno.h>
#include <sys/inotify.h>

#include "broker/agents/internal.h"
#include "broker/http/front.h"
#include "common/file.h"
#include "common/log.h"

#define PATH_MCP      "/mcp"
#define PATH_METADATA "/.well-known/oauth-protected-resource"
#define EMPTY_POLICY  "{\"version\": \"1.0\"}"
#define SYNC_US       UINT64_C(1000000)
/* A file that went away or changed hands is one that is not good any more: people are told. */
#define WATCHED (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB)

/* -- the policy ---------------------------------------------------------------------------------------------------------------- */
static void bound_log(struct door *d)
{
        const struct policy *p = decider_policy(d->decider);

        decision_log_bound(d->log, policy_audit_max_bytes(p), policy_audit_files(p));
}

static int policy_reload(struct door *d, struct err **err)
{
        _cleanup_(policy_unrefp) struct policy *fresh = NULL;

        if (policy_load(&fresh, d->conf->policy_path, err) < 0 || decider_swap(d->decider, fresh, err) < 0)
                return -1;
        d->policy_was_read = true;
        bound_log(d);
        return 0;
}

/* Where no policy ever was, nobody expects one: agents may do nothing then, and that is in order. */
static void note_policy(struct door *d, const struct err *why)
{
        bool expected = why && (err_code(why) != ERR_NOT_FOUND || d->policy_was_read);

        mem_replace(&d->policy_trouble, expected ? mem_printf("%s: %s",
                                                              d->policy_was_read ? "the last good policy stays in force"
                                                                                 : "agents may do nothing until it is mended",
                                                              err_msg(why))
                                                 : NULL);
}

static void tell_troubles(const struct door *d)
{
        _cleanup_strv_ char **list = NULL;

        if (d->policy_trouble)
                list = strv_append(list, d->policy_trouble);
        if (gate_trouble(d->gate))
                list = strv_append(list, gate_trouble(d->gate));
        if (d->troubles_changed)
                d->troubles_changed(list, d->troubles_user);
}

void door_on_troubles(struct door *d, void (*changed)(char *const *troubles, void *user), void *user)
{
        d->troubles_changed = changed;
        d->troubles_user = user;
        tell_troubles(d);
}

/* A policy that is missing or bad at the start is the empty one: it allows nobody anything. */
static int policy_first(struct door *d, struct err **err)
{
        _cleanup_(policy_unrefp) struct policy *p = NULL;
        _cleanup_err_ struct err *why = NULL;

        if (policy_load(&p, d->conf->policy_path, &why) < 0) {
                d->policy_bad = true;
                log_warning("agents may do nothing until there is a policy", "why", err_msg(why));
                note_policy(d, why);
                if (policy_parse(&p, EMPTY_POLICY, strlen(EMPTY_POLICY), "none", err) < 0)
                        return -1;
        }
        if (decider_new(&d->decider, p, d->ledger, err) < 0)
                return -1;
        d->policy_was_read = !why;
        bound_log(d);
        return 0;
}

void door_reload(struct door *d)
{
        _cleanup_err_ struct err *agents = NULL, *policy = NULL;

        d->agents_bad = gate_reload(d->gate, &agents) < 0;
        if (d->agents_bad)
                log_error("agents could not be read again: those before count on", "why", err_msg(agents));
        else
                log_info("agents were read", "file", d->conf->agents_file);
        d->policy_bad = policy_reload(d, &policy) < 0;
        if (d->policy_bad)
                log_error("the policy could not be read again: the one before goes on", "why", err_msg(policy));
        else
                log_info("the policy was read", "file", d->conf->policy_path);
        note_policy(d, policy);
        tell_troubles(d);
        d->reloaded = true;
        gateway_review(d->gateway);
        d->reloaded = false;
}

/* -- watching ------------------------------------------------------------------------------------------------------------------ */
static bool is_name_of(const char *name, const char *path)
{
        const char *slash = strrchr(path, '/');

        return str_eq(name, slash + 1);
}

static int on_file(_unused_ sd_event_source *s, const struct inotify_event *event, void *user)
{
        struct door *d = user;

        if (event->len == 0 || is_name_of(event->name, d->conf->agents_file) || is_name_of(event->name, d->conf->policy_path))
                door_reload(d);
        return 0;
}

/* Files are put in place by renaming: it is their directory that tells. */
static int watch(struct door *d, const char *path, struct err **err)
{
        _cleanup_free_ char *dir = mem_strndup(path, (size_t)(strrchr(path, '/') - path) + 1);
        int r = sd_event_add_inotify(d->loop, &d->watches[d->n_watches], dir, WATCHED, on_file, d);

        if (r == -ENOENT) {
                log_warning("not watched for changes, since it is not there: send SIGHUP when it is", "directory", dir);
                return 0;
        }
        if (r < 0)
                return err_sys(err, r, "watching %s", dir);
        d->n_watches++;
        return 0;
}

static bool same_directory(const char *a, const char *b)
{
        size_t n = (size_t)(strrchr(a, '/') - a), m = (size_t)(strrchr(b, '/') - b);

        return n == m && memcmp(a, b, n) == 0;
}

/* -- requests ------------------------------------------------------------------------------------------------------------------ */
static void *on_identify(const char *credential, size_t n, void *user)
{
        struct door *d = user;

        return gate_identify(d->gate, credential, n);
}

static void on_release(void *identity)
{
        principal_unref(identity);
}

static bool is_metadata(const char *path)
{
        return str_eq(path, PATH_METADATA) || str_eq(path, PATH_METADATA PATH_MCP);
}

static bool is_open(const char *path)
{
        return str_eq(path, "/healthz") || str_eq(path, "/readyz") || is_metadata(path);
}

/* Source: RFC 9728, section 3.2. There is no authorization server: whoever runs an agent gives it its token. */
static void answer_metadata(struct exchange *x)
{
        const char *host = exchange_header(x, "Host");
        _cleanup_free_ char *resource = mem_printf("http://%s" PATH_MCP, host);
        struct buf b = {0};

        buf_adds(&b, "{\"resource\":");
        mcp_add_string(&b, resource, strlen(resource));
        buf_adds(&b, ",\"resource_name\":\"Bulkhead\",\"bearer_methods_supported\":[\"header\"]}");
        exchange_answer(x, 200, "application/json", &b);
}

static void answer_error(struct exchange *x, unsigned status, const char *text)
{
        struct buf b = {0};

        buf_addf(&b, "{\"status\":\"%s\"}", text);
        exchange_answer(x, status, "application/json", &b);
}

static void answer_open(struct exchange *x)
{
        const char *method = exchange_method(x);

        if (!str_eq(method, "GET") && !str_eq(method, "HEAD")) {
                exchange_add_header(x, "Allow", "GET, HEAD");
                answer_error(x, 405, "only GET and HEAD");
        } else if (is_metadata(exchange_path(x))) {
                answer_metadata(x);
        } else {
                answer_error(x, 200, "ok");
        }
}

static void on_request(struct exchange *x, void *user)
{
        struct door *d = user;

        if (is_open(exchange_path(x)))
                answer_open(x);
        else if (str_eq(exchange_path(x), PATH_MCP))
                gateway_exchange(x, d->gateway);
        else if (!plain_exchange(d, x))
                answer_error(x, 404, "unknown");
}

/* -- putting it together ------------------------------------------------------------------------------------------------------- */
static int on_sync(sd_event_source *s, _unused_ uint64_t at, void *user)
{
        struct door *d = user;
        _cleanup_err_ struct err *err = NULL;

        if (ledger_sync(d->ledger, &err) < 0)
                log_error("counters could not be written out", "why", err_msg(err));
        uint64_t now = 0;
        (void)sd_event_now(d->loop, CLOCK_MONOTONIC, &now);
        gateway_review(d->gateway);
        if (now / 1000 - d->denials_ms >= DENIALS_PERIOD_MS) {
                d->denials_ms = now / 1000;
                door_log_denials(d);
        }
        int r = sd_event_source_set_time_relative(s, SYNC_US);
        return r < 0 ? r : sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

static int on_later(_unused_ sd_event_source *s, _unused_ uint64_t at, void *user)
{
        struct door *d = user;
        _cleanup_err_ struct err *err = NULL;

        if (decision_log_flush(d->log, &err) < 0)
                log_error("the ends of calls are not logged yet", "why", err_msg(err));
        return 0;
}

static int open_state(struct door *d, struct err **err)
{
        const char *state = d->conf->broker_state;
        _cleanup_free_ char *counters = mem_printf("%s/counters", state);

        if (dir_make(counters, 0700, err) < 0 || gate_new(&d->gate, d->conf->agents_file, d->conf->audience, state, err) < 0 ||
            ledger_open(&d->ledger, counters, err) < 0 || decision_log_open(&d->log, state, err) < 0 ||
            pending_open(&d->pending, state, err) < 0)
                return err_wrap(err, "broker.state %s", state);
        return policy_first(d, err);
}

static int open_front(struct door *d, const struct conf_listen *listen, unsigned callers, struct err **err)
{
        const struct conf *c = d->conf;
        _cleanup_free_ char *own = mem_printf("%s:%u", listen->address, (unsigned)listen->port);
        _cleanup_strv_ char **hosts = strv_append(strv_dup(c->broker_hosts), own);
        const struct front_config config = {
                .name = "agents",
                .address = listen->address,
                .port = listen->port,
                .listen_fd = -1,
                .allowed_hosts = hosts,
                .authenticator = &d->authenticator,
                .limits = {.max_body = c->gateway_max_message,
                           .max_header = 8192,
                           .max_connections = callers,
                           .max_per_address = str_has_prefix(listen->address, "127.") ? callers : callers / 8 + 1,
                           .header_timeout_ms = 10000,
                           .idle_timeout_ms = 75000,
                           .heartbeat_ms = 15000,
                           .max_queued = MAX(4U << 20, c->gateway_max_message)},
        };

        if (front_new(&d->fronts[d->n_fronts], d->loop, &config, on_request, d, err) < 0)
                return err_wrap(err, "broker.listen");
        d->n_fronts++;
        return 0;
}

static int open_fronts(struct door *d, unsigned callers, struct err **err)
{
        const struct conf_listens *l = &d->conf->broker_listen;

        d->authenticator = (struct front_authenticator){
                .identify = on_identify, .release = on_release, .is_open = is_open, .metadata = PATH_METADATA PATH_MCP, .user = d};
        d->fronts = NEW_N(struct front *, l->n);
        for (size_t i = 0; i < l->n; i++)
                if (open_front(d, &l->items[i], MAX(callers / (unsigned)l->n, 1U), err) < 0)
                        return -1;
        return 0;
}

int door_new(struct door **ret, sd_event *loop, const struct conf *conf, struct gateway *gateway, unsigned callers, struct err **err)
{
        _cleanup_(door_freep) struct door *d = NEW(struct door);

        d->conf = conf;
        d->loop = sd_event_ref(loop);
        d->gateway = gateway;
        list_init(&d->plain);
        d->catalogue = catalogue_new();
        d->shown = shown_new();
        d->denials = denials_new();
        if (open_state(d, err) < 0 || watch(d, conf->policy_path, err) < 0)
                return -1;
        if (!same_directory(conf->policy_path, conf->agents_file) && watch(d, conf->agents_file, err) < 0)
                return -1;
        int r = sd_event_add_time_relative(loop, &d->sync, CLOCK_MONOTONIC, SYNC_US, SYNC_US / 10, on_sync, d);
        if (r >= 0)
                r = sd_event_add_time_relative(loop, &d->later, CLOCK_MONOTONIC, 0, 0, on_later, d);
        if (r < 0)
                return err_sys(err, r, "setting up a timer");
        guard_init(d);
        if (open_fronts(d, callers, err) < 0)
                return -1;
        *ret = TAKE_PTR(d);
        return 0;
}

void door_stop(struct door *d)
{
        plain_stop(d);
}

struct door *door_free(struct door *d)
{
        if (!d)
                return NULL;
        for (size_t i = 0; i < d->n_fronts; i++)
                front_free(d->fronts[i]);
        for (size_t i = 0; i < d->n_watches; i++)
                sd_event_source_disable_unref(d->watches[i]);
        sd_event_source_disable_unref(d->sync);
        sd_event_source_disable_unref(d->later);
        if (d->log)
                door_log_denials(d);
        denials_free(d->denials);
        decider_free(d->decider);
        ledger_free(d->ledger);
        decision_log_free(d->log);
        pending_free(d->pending);
        gate_free(d->gate);
        catalogue_free(d->catalogue);
        shown_free(d->shown);
        free(d->policy_trouble);
        sd_event_unref(d->loop);
        free(d->fronts);
        free(d);
        return NULL;
}

uint16_t door_port(const struct door *d)
{
        return front_port(d->fronts[0]);
}
