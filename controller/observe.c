#include "controller/observe.h"

#include <malloc.h>
#include <stdio.h>
#include <time.h>

#include "common/address.h"
#include "common/link/channel.h"

#define LIST_MAX_BYTES     (64U << 20)
#define INSPECTS_IN_FLIGHT 8

/* What the last inspect of a container said. Nothing of the inspect itself is kept: it carries the whole seccomp profile. */
struct memory {
        char *id;
        char *state; /* summary it was inspected under */
        char *spec;  /* spec hash it was judged against */
        char **drift;
        char *address, *instance;
        time_t started_at;
        uint64_t age; /* number of the look that inspected it */
        bool seen;
};

struct observer {
        struct engine *engine;
        const struct conf *conf;
        struct images *images;
        struct memory *memory; /* sorted by id */
        size_t n_memory;
        uint64_t look;
        bool info_known; /* of this Engine, asked once a connection */
        bool no_swap_limit;
        char *default_runtime;

        /* the look in progress */
        struct observed *now;
        struct desired *desired;
        size_t *queue; /* indexes of containers to inspect */
        size_t n_queue, next, in_flight, lists, refresh;
        char **forgotten; /* ids that became stale during the look: the inspect may be from before */
        bool all_forgotten;
        struct err *err;
        observe_skip_fn skip;
        observe_done_fn done;
        void *user;
};

struct inspect {
        struct observer *o;
        size_t index;
        json_object *body; /* the container's, while its image is read */
};

static void container_deinit(struct observed_container *c)
{
        char *texts[] = {c->id, c->name, c->server, c->spec, c->approval, c->role, c->state, c->address, c->instance};

        for (size_t i = 0; i < ELEMENTSOF(texts); i++)
                free(texts[i]);
        strv_free(c->drift);
}

static void network_deinit(struct observed_network *n)
{
        char *texts[] = {n->id, n->name, n->server, n->spec, n->role, n->subnet, n->bridge};

        for (size_t i = 0; i < ELEMENTSOF(texts); i++)
                free(texts[i]);
}

struct observed *observed_free(struct observed *o)
{
        if (!o)
                return NULL;
        for (size_t i = 0; i < o->n_containers; i++)
                container_deinit(&o->containers[i]);
        for (size_t i = 0; i < o->n_networks; i++)
                network_deinit(&o->networks[i]);
        free(o->containers);
        free(o->networks);
        strv_free(o->subnets);
        free(o);
        return NULL;
}

static void memory_deinit(struct memory *m)
{
        free(m->id);
        free(m->state);
        free(m->spec);
        free(m->address);
        free(m->instance);
        strv_free(m->drift);
}

struct observer *observer_new(struct engine *engine, const struct conf *conf, struct images *images)
{
        struct observer *o = NEW(struct observer);

        o->engine = engine;
        o->conf = conf;
        o->images = images;
        return o;
}

struct observer *observer_free(struct observer *o)
{
        if (!o)
                return NULL;
        for (size_t i = 0; i < o->n_memory; i++)
                memory_deinit(&o->memory[i]);
        free(o->memory);
        free(o->default_runtime);
        observed_free(o->now);
        desired_unref(o->desired);
        free(o->queue);
        strv_free(o->forgotten);
        err_free(o->err);
        free(o);
        return NULL;
}

static struct memory *recall(struct observer *o, const char *id)
{
        size_t low = 0, high = o->n_memory;

        while (low < high) {
                size_t middle = (low + high) / 2;
                int c = strcmp(o->memory[middle].id, id);
                if (c == 0)
                        return &o->memory[middle];
                if (c < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return NULL;
}

static int compare_memory(const void *a, const void *b)
{
        return strcmp(((const struct memory *)a)->id, ((const struct memory *)b)->id);
}

#define FORGOTTEN_MAX 256 /* more in one look: then all of them */

void observer_forget(struct observer *o, const char *id)
{
        struct memory *m = id ? recall(o, id) : NULL;

        if (o->now && id && strv_len(o->forgotten) < FORGOTTEN_MAX && !strv_contains(o->forgotten, id))
                o->forgotten = strv_append(o->forgotten, id);
        else if (o->now && (!id || !strv_contains(o->forgotten, id)))
                o->all_forgotten = true;
        for (size_t i = 0; !id && i < o->n_memory; i++)
                mem_replace(&o->memory[i].state, NULL);
        if (!id)
                o->info_known = false;
        if (m)
                mem_replace(&m->state, NULL);
}

/* -- reading the lists -------------------------------------------------------------------------------------------------- */

static char *label(json_object *labels, const char *key)
{
        return mem_strdup(json_str(labels, key));
}

/* The server, or the place of one. */
static char *server_of(json_object *labels)
{
        const char *server = json_str(labels, LABEL_SERVER);

        return server ? desired_place_name(server, json_str(labels, LABEL_INSTANCE)) : NULL;
}

static bool is_current(const struct desired_server *s, const struct observed_container *c)
{
        return s && s->entry->source != SOURCE_URL && s->names.container && str_eq(c->role, ROLE_SERVER) &&
               str_eq(c->name, s->names.container) && str_eq(c->spec, s->names.spec_hash);
}

/* Does some desired server want this container name? Names end in "-" + 8 hex, and those of places in "-" + a number then. */
static bool name_is_wanted(const struct desired *d, const char *name)
{
        const char *dash = strrchr(name, '-'), *place = dash && strlen(dash + 1) < 8 ? dash + 1 : NULL;
        size_t n = place ? (size_t)(dash - name) : strlen(name);
        _cleanup_free_ char *server = n > 9 ? mem_strndup(name, n - 9) : NULL;
        _cleanup_free_ char *wanted = server ? desired_place_name(server, place) : NULL;
        const struct desired_server *s = wanted ? desired_find(d, wanted) : NULL;

        return s && str_eq(s->names.container, name);
}

/* NULL where the Engine gives none, as it does for a moment while a container is made or removed. */
static const char *first_name(json_object *item)
{
        json_object *names = json_get(item, "Names");

        if (!json_object_is_type(names, json_type_array))
                return NULL;
        return json_object_get_string(json_object_array_get_idx(names, 0));
}

static void read_container(struct observer *o, json_object *item)
{
        struct observed *now = o->now;
        json_object *labels = json_get(item, "Labels");
        const char *name = first_name(item), *state = json_str(item, "State");
        bool ours = str_eq(json_str(labels, LABEL_OWNER), o->conf->audience);

        if (!name)
                name = "";
        if (*name == '/')
                name++;
        if (!json_str(item, "Id") || (!ours && !name_is_wanted(o->desired, name)))
                return;
        struct observed_container *c = &now->containers[now->n_containers++];
        *c = (struct observed_container){.id = mem_strdup(json_str(item, "Id")),
                                         .name = mem_strdup(name),
                                         .state = mem_strdup(state ? state : "unknown"),
                                         .ours = ours};
        if (!ours)
                return;
        c->server = server_of(labels);
        c->spec = label(labels, LABEL_SPEC);
        c->approval = label(labels, LABEL_APPROVAL);
        c->role = label(labels, LABEL_ROLE);
        c->current = c->server && is_current(desired_find(o->desired, c->server), c);
}

static void read_network(struct observer *o, json_object *item)
{
        struct observed *now = o->now;
        json_object *labels = json_get(item, "Labels"), *config = json_path(item, "IPAM", "Config", NULL);

        for (size_t i = 0; config && json_object_is_type(config, json_type_array) && i < json_object_array_length(config); i++) {
                const char *subnet = json_str(json_object_array_get_idx(config, i), "Subnet");
                if (subnet)
                        now->subnets = strv_append(now->subnets, subnet);
        }
        if (!json_str(item, "Id") || !str_eq(json_str(labels, LABEL_OWNER), o->conf->audience))
                return;
        struct observed_network *n = &now->networks[now->n_networks++];
        *n = (struct observed_network){
                .id = mem_strdup(json_str(item, "Id")),
                .name = mem_strdup(json_str(item, "Name")),
                .server = server_of(labels),
                .spec = label(labels, LABEL_SPEC),
                .role = label(labels, LABEL_ROLE),
                .bridge = mem_strdup(json_str(json_get(item, "Options"), "com.docker.network.bridge.name")),
                .ours = true,
                .internal = json_flag(item, "Internal", false),
        };
        if (json_object_is_type(config, json_type_array) && json_object_array_length(config) == 1)
                n->subnet = mem_strdup(json_str(json_object_array_get_idx(config, 0), "Subnet"));
}

/* -- finishing ------------------------------------------------------------------------------------------------------------ */

/* Forgets containers that are gone. */
static void memory_sweep(struct observer *o)
{
        size_t kept = 0;

        for (size_t i = 0; i < o->n_memory; i++)
                o->memory[i].seen = false;
        for (size_t i = 0; i < o->now->n_containers; i++) {
                struct memory *m = recall(o, o->now->containers[i].id);
                if (m)
                        m->seen = true;
        }
        for (size_t i = 0; i < o->n_memory; i++) {
                if (o->memory[i].seen)
                        o->memory[kept++] = o->memory[i];
                else
                        memory_deinit(&o->memory[i]);
        }
        o->n_memory = kept;
}

static void finish(struct observer *o)
{
        struct observed *now = TAKE_PTR(o->now);
        struct err *err = TAKE_PTR(o->err);
        observe_done_fn done = o->done;

        o->desired = desired_unref(o->desired);
        free(TAKE_PTR(o->queue));
        o->done = NULL;
        if (err) {
                observed_free(now);
                now = NULL;
        } else {
                now->complete = true;
                /* The lists of a thousand containers take megabytes for a moment: give them back. */
                if (now->n_containers > 50)
                        malloc_trim(0);
        }
        done(now, err, o->user);
        err_free(err);
}

static void remember(struct observer *o, const struct observed_container *c)
{
        struct memory *m = recall(o, c->id);

        if (!m) {
                o->memory = mem_realloc(o->memory, o->n_memory + 1, sizeof(*o->memory));
                o->memory[o->n_memory] = (struct memory){.id = mem_strdup(c->id)};
                o->n_memory++;
                qsort(o->memory, o->n_memory, sizeof(*o->memory), compare_memory);
                m = recall(o, c->id);
        }
        bool stale = o->all_forgotten || strv_contains(o->forgotten, c->id);
        mem_replace(&m->state, stale ? NULL : mem_strdup(c->state));
        mem_replace(&m->spec, mem_strdup(c->spec));
        mem_replace(&m->address, mem_strdup(c->address));
        mem_replace(&m->instance, mem_strdup(c->instance));
        strv_free(m->drift);
        m->drift = strv_dup(c->drift);
        m->started_at = c->started_at;
        m->age = o->look;
}

/* -- inspects ------------------------------------------------------------------------------------------------------------- */

static time_t parse_started(const char *s)
{
        struct tm tm = {0};

        /* "2026-11-20T10:00:00.123456789Z"; year 1 when it never ran */
        return s && strptime(s, "%Y-%m-%dT%H:%M:%S", &tm) && tm.tm_year > 70 ? timegm(&tm) : 0;
}

static char *instance_of(const char *id, const char *started)
{
        _cleanup_free_ char *both = mem_printf("%s %s", id, started ? started : "");
        char hex[SHA256_HEX];

        sha256_hex(hex, both, strlen(both));
        return mem_strndup(hex, CHANNEL_INSTANCE_HEX);
}

static const struct observed_network *network_of(const struct observed *now, const char *name)
{
        for (size_t i = 0; i < now->n_networks; i++)
                if (str_eq(now->networks[i].name, name))
                        return &now->networks[i];
        return NULL;
}

/* Judges a current container's inspect. Its network must be the one we made: the address that was assigned is the second of its subnet. */
static char **judge(struct observer *o, const struct observed_container *c, json_object *inspect)
{
        const struct desired_server *s = desired_find(o->desired, c->server);
        const struct observed_network *n = network_of(o->now, s->names.network);
        _cleanup_(spec_freep) struct spec *spec = NULL;
        _cleanup_err_ struct err *err = NULL;
        char gateway[ADDRESS_MAX] = "", address[ADDRESS_MAX] = "";

        if (!n)
                return strv_append(NULL, "network: its own network is gone");
        if (spec_build(&spec, s->entry, s->record->image, &err) < 0)
                return strv_append(NULL, err_msg(err));
        address_of_gateway(gateway, n->subnet ? n->subnet : "");
        address_of_container(address, n->subnet ? n->subnet : "");
        struct spec_host host = {
                .network = s->names.network,
                .address = address,
                .dns = gateway,
                .owner = o->conf->audience,
                .approval = NULL, /* a renewed approval of the same spec is no reason to start anew */
                .scope = INSTANCE_SCOPE,
                .role = ROLE_SERVER,
                .server = s->server,
                .instance = desired_instance(s),
        };
        host.image = images_find(o->images, json_str(inspect, "Image"));
        observer_describe_engine(o, &host);
        return spec_drift(spec, &host, inspect);
}

static void inspect_more(struct observer *o);

static void take_inspect(struct observer *o, struct observed_container *c, json_object *body)
{
        const struct desired_server *wanted = desired_find(o->desired, c->server);
        json_object *endpoint = json_path(body, "NetworkSettings", "Networks", wanted->names.network, NULL);
        const char *state = json_str(json_get(body, "State"), "Status");

        /* The inspect is newer than the list. */
        mem_replace(&c->state, mem_strdup(state ? state : "unknown"));
        strv_free(c->drift);
        c->drift = judge(o, c, body);
        mem_replace(&c->address, mem_strdup(json_str(endpoint, "IPAddress")));
        mem_replace(&c->instance, instance_of(c->id, json_str(json_get(body, "State"), "StartedAt")));
        c->started_at = parse_started(json_str(json_get(body, "State"), "StartedAt"));
        c->inspected = true;
        remember(o, c);
}

static void inspect_done(struct inspect *call)
{
        struct observer *o = call->o;

        json_object_put(call->body);
        free(call);
        o->in_flight--;
        inspect_more(o);
}

static void inspect_failed(struct inspect *call, const struct err *err)
{
        if (!call->o->err)
                call->o->err = err_dup(err);
        inspect_done(call);
}

/* An image that is gone, or is not the approved one, judges itself: the container's image id is compared anyway. */
static void on_image(_unused_ int status, json_object *body, struct err *err, void *user)
{
        struct inspect *call = user;
        struct observer *o = call->o;
        struct observed_container *c = &o->now->containers[call->index];
        struct image_facts *facts = NULL;

        if (err && err_code(err) != ERR_NOT_FOUND) {
                inspect_failed(call, err);
                return;
        }
        if (!err && image_facts_from_inspect(&facts, body, desired_find(o->desired, c->server)->entry->image, NULL) == 0)
                images_add(o->images, facts);
        take_inspect(o, c, call->body);
        inspect_done(call);
}

static void on_inspect(_unused_ int status, json_object *body, struct err *err, void *user)
{
        struct inspect *call = user;
        struct observer *o = call->o;
        struct observed_container *c = &o->now->containers[call->index];
        const char *image = json_str(body, "Image");

        if (err && err_code(err) == ERR_NOT_FOUND) {
                mem_replace(&c->state, mem_strdup("removing"));
        } else if (err) {
                inspect_failed(call, err);
                return;
        } else if (image && !images_find(o->images, image)) {
                call->body = json_object_get(body);
                engine_image_inspect(o->engine, image, on_image, call);
                return;
        } else {
                take_inspect(o, c, body);
        }
        inspect_done(call);
}

static void inspect_more(struct observer *o)
{
        while (!o->err && o->next < o->n_queue && o->in_flight < INSPECTS_IN_FLIGHT) {
                struct inspect *call = NEW(struct inspect);

                *call = (struct inspect){.o = o, .index = o->queue[o->next++]};
                o->in_flight++;
                engine_container_inspect(o->engine, o->now->containers[call->index].id, on_inspect, call);
        }
        if (o->in_flight == 0)
                finish(o);
}

struct aged {
        size_t index;
        uint64_t age;
};

static int compare_age(const void *a, const void *b)
{
        const struct aged *x = a, *y = b;

        return x->age < y->age ? -1 : x->age > y->age;
}

/* Takes over what is remembered, and queues what must be looked at: unknown or changed ones, and `refresh` of the oldest. */
static void choose_inspects(struct observer *o, size_t refresh)
{
        _cleanup_free_ struct aged *known = NEW_N(struct aged, o->now->n_containers);
        size_t n_known = 0;

        o->queue = NEW_N(size_t, o->now->n_containers);
        o->n_queue = o->next = 0;
        for (size_t i = 0; i < o->now->n_containers; i++) {
                struct observed_container *c = &o->now->containers[i];
                const struct memory *m = recall(o, c->id);

                if (!c->current || o->skip(c->server, o->user))
                        continue;
                if (!m || !m->state || !str_eq(m->state, c->state) || !str_eq(m->spec, c->spec)) {
                        o->queue[o->n_queue++] = i;
                        continue;
                }
                c->inspected = true;
                c->drift = strv_dup(m->drift);
                c->address = mem_strdup(m->address);
                c->instance = mem_strdup(m->instance);
                c->started_at = m->started_at;
                known[n_known++] = (struct aged){.index = i, .age = m->age};
        }
        if (n_known)
                qsort(known, n_known, sizeof(*known), compare_age);
        for (size_t i = 0; i < MIN(refresh, n_known); i++)
                o->queue[o->n_queue++] = known[i].index;
}

static void lists_done(struct observer *o)
{
        if (--o->lists > 0)
                return;
        if (o->err) {
                finish(o);
                return;
        }
        memory_sweep(o);
        choose_inspects(o, o->refresh);
        inspect_more(o);
}

static void read_list(struct observer *o, json_object *body, struct err *err, const char *what, bool containers)
{
        if (err) {
                if (!o->err)
                        o->err = err_dup(err);
        } else if (!json_object_is_type(body, json_type_array)) {
                err_set(&o->err, ERR_INVALID, "the Engine's list of %s is not a list", what);
        } else {
                size_t n = json_object_array_length(body);

                if (containers)
                        o->now->containers = mem_alloc(n * sizeof(*o->now->containers));
                else
                        o->now->networks = mem_alloc(n * sizeof(*o->now->networks));
                for (size_t i = 0; i < n; i++)
                        (containers ? read_container : read_network)(o, json_object_array_get_idx(body, i));
        }
        lists_done(o);
}

static void on_containers(_unused_ int status, json_object *body, struct err *err, void *user)
{
        read_list(user, body, err, "containers", true);
}

static void on_networks(_unused_ int status, json_object *body, struct err *err, void *user)
{
        read_list(user, body, err, "networks", false);
}

static void on_info(_unused_ int status, json_object *body, struct err *err, void *user)
{
        struct observer *o = user;

        if (err) {
                if (!o->err)
                        o->err = err_dup(err);
        } else {
                mem_replace(&o->default_runtime, mem_strdup(json_str(body, "DefaultRuntime")));
                o->no_swap_limit = !json_flag(body, "SwapLimit", true);
                o->info_known = true;
        }
        lists_done(o);
}

void observer_describe_engine(const struct observer *o, struct spec_host *host)
{
        host->default_runtime = o->default_runtime;
        host->no_swap_limit = o->no_swap_limit;
}

void observer_look(struct observer *o, struct desired *desired, size_t refresh, observe_skip_fn skip, observe_done_fn done, void *user)
{
        static const struct engine_request containers = {
                .method = "GET", .path = "/containers/json", .query = "all=1", .max_answer = LIST_MAX_BYTES};
        static const struct engine_request info = {.method = "GET", .path = "/info"};
        static const struct engine_request networks = {.method = "GET", .path = "/networks", .max_answer = LIST_MAX_BYTES};

        o->look++;
        strv_free(TAKE_PTR(o->forgotten));
        o->all_forgotten = false;
        o->now = NEW(struct observed);
        o->desired = desired_ref(desired);
        o->skip = skip;
        o->done = done;
        o->user = user;
        o->refresh = refresh;
        o->in_flight = 0;
        o->lists = o->info_known ? 2 : 3;
        if (!o->info_known)
                engine_call_start(o->engine, NULL, &info, on_info, o);
        engine_call_start(o->engine, NULL, &containers, on_containers, o);
        engine_call_start(o->engine, NULL, &networks, on_networks, o);
}
