/*
 * scripted_engine CONF N SOCKET: answers like an Engine 20.10 on which N servers of world.h run exactly as approved, from memory, so that
 * what is measured is the controller. The shape of an inspect is a real one's (tests/unit/data), filled with what the controller itself
 * would have asked for; that the controller sees no drift in it is checked before the first answer. Whatever would change something is
 * counted and refused: GET /counts tells how many times.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/file.h"
#include "tests/bench/world.h"

#define TEMPLATE        "unit/data/inspect-20.10.json"
#define MAX_CONNECTIONS 64
#define MAX_REQUEST     (1U << 20)

struct connection {
        int fd;
        struct buf in;
};

struct engine {
        char **ids, **inspects;     /* by server */
        char **image_ids, **images; /* likewise: every server has an image of its own */
        unsigned n;
        char *containers, *networks; /* the lists */
        uint64_t gets, mutations, unknown;
        struct connection connections[MAX_CONNECTIONS];
        size_t n_connections;
};

/* -- what is shown ------------------------------------------------------------------------------------------------------ */

static json_object *copy_of(json_object *o)
{
        json_object *copy = NULL;

        if (json_object_deep_copy(o, &copy, NULL) < 0)
                abort();
        return copy;
}

static struct spec_host host_of(const struct world_server *s, const struct conf *conf)
{
        return (struct spec_host){.network = s->network,
                                  .address = s->address,
                                  .dns = s->gateway,
                                  .owner = conf->audience,
                                  .approval = "f-0123456789abcdef",
                                  .scope = "default",
                                  .role = "server",
                                  .server = s->name,
                                  .default_runtime = "runc"};
}

/* Members of `from` replace those of `to`; the names given are left alone. */
static void overlay(json_object *to, json_object *from, const char *const *but)
{
        json_object_object_foreach (from, key, value) {
                bool skip = false;

                for (const char *const *b = but; *b; b++)
                        skip |= strcmp(*b, key) == 0;
                if (!skip)
                        json_add(to, key, copy_of(value));
        }
}

static json_object *make_endpoints(const struct world_server *s, json_object *template)
{
        json_object *all = json_object_new_object(), *one = NULL, *ipam = json_object_new_object(), *aliases = json_object_new_array();
        _cleanup_free_ char *mac =
                mem_printf("02:42:%.2s:%.2s:%.2s:%.2s", s->network_id, s->network_id + 2, s->network_id + 4, s->network_id + 6);
        _cleanup_free_ char *short_id = mem_strndup(s->container_id, 12);

        json_object_object_foreach (json_path(template, "NetworkSettings", "Networks", NULL), name, endpoint) {
                (void)name;
                one = copy_of(endpoint);
        }
        json_add_str(ipam, "IPv4Address", s->address);
        json_add(one, "IPAMConfig", ipam);
        json_object_array_add(aliases, json_object_new_string(short_id));
        json_object_array_add(aliases, json_object_new_string(s->name));
        json_add(one, "Aliases", aliases);
        json_add_str(one, "NetworkID", s->network_id);
        json_add_str(one, "Gateway", s->gateway);
        json_add_str(one, "IPAddress", s->address);
        json_add_str(one, "MacAddress", mac);
        json_add(all, s->network, one);
        return all;
}

static json_object *make_inspect(const struct world_server *s, const struct conf *conf, json_object *template)
{
        static const char *const not_config[] = {"HostConfig", "NetworkingConfig", NULL}, *const none[] = {NULL};
        json_object *o = copy_of(template), *config = json_get(o, "Config");
        struct spec_host host = host_of(s, conf);
        _cleanup_json_ json_object *body = spec_create_body(s->spec, &host);
        _cleanup_free_ char *name = mem_printf("/%s", s->container);

        json_add_str(o, "Id", s->container_id);
        json_add_str(o, "Name", name);
        json_add_str(o, "Image", s->facts->image_id);
        json_add(o, "Mounts", json_object_new_array());
        json_object_object_del(config, "ExposedPorts");
        json_object_object_del(config, "Volumes");
        overlay(config, body, not_config);
        overlay(json_get(o, "HostConfig"), json_get(body, "HostConfig"), none);
        json_add(json_get(o, "NetworkSettings"), "Ports", json_object_new_object());
        json_add(json_get(o, "NetworkSettings"), "Networks", make_endpoints(s, template));
        return o;
}

/* The image that a container of this inspect would have come from: it brings what the entry does not name. */
static json_object *make_image(const struct world_server *s, json_object *inspect)
{
        json_object *o = json_object_new_object(), *config = json_object_new_object(), *digests = json_object_new_array();
        json_object *of_container = json_get(inspect, "Config");
        _cleanup_free_ char *colon = mem_strdup(s->facts->reference);
        char *tag = strrchr(colon, ':');

        if (tag && !strchr(tag, '/'))
                *tag = '\0';
        _cleanup_free_ char *digest = mem_printf("%s@%s", colon, s->facts->digest);
        json_object_array_add(digests, json_object_new_string(digest));
        json_add(config, "Entrypoint", json_object_get(json_get(of_container, "Entrypoint")));
        json_add_str(config, "WorkingDir", json_str(of_container, "WorkingDir"));
        json_add_str(o, "Id", s->facts->image_id);
        json_add(o, "RepoDigests", digests);
        json_add_str(o, "Os", "linux");
        json_add_str(o, "Architecture", "amd64");
        json_add(o, "Config", config);
        json_add_int(o, "Size", 100000000);
        return o;
}

static int check_no_drift(const struct world_server *s, const struct conf *conf, json_object *inspect, json_object *image, struct err **err)
{
        _cleanup_(image_facts_freep) struct image_facts *facts = NULL;
        struct spec_host host = host_of(s, conf);

        if (image_facts_from_inspect(&facts, image, s->entry->image, err) < 0)
                return -1;
        host.image = facts;
        _cleanup_strv_ char **drift = spec_drift(s->spec, &host, inspect);
        _cleanup_free_ char *list = drift ? strv_join(drift, "; ") : NULL;

        return drift ? err_set(err, ERR_INTERNAL, "%s would not be as approved: %s", s->name, list) : 0;
}

static json_object *make_list_item(const struct world_server *s, json_object *inspect)
{
        json_object *o = json_object_new_object(), *names = json_object_new_array(), *host = json_object_new_object(),
                    *settings = json_object_new_object();

        json_add_str(o, "Id", s->container_id);
        json_object_array_add(names, json_object_get(json_get(inspect, "Name")));
        json_add(o, "Names", names);
        json_add_str(o, "Image", s->entry->image);
        json_add_str(o, "ImageID", s->facts->image_id);
        json_add_str(o, "Command", "/sbin/docker-init -- /server --verbose --root /tmp");
        json_add_int(o, "Created", 1763886371);
        json_add(o, "Ports", json_object_new_array());
        json_add(o, "Labels", json_object_get(json_path(inspect, "Config", "Labels", NULL)));
        json_add_str(o, "State", "running");
        json_add_str(o, "Status", "Up 3 hours");
        json_add_str(host, "NetworkMode", s->network);
        json_add(o, "HostConfig", host);
        json_add(settings, "Networks", json_object_get(json_path(inspect, "NetworkSettings", "Networks", NULL)));
        json_add(o, "NetworkSettings", settings);
        json_add(o, "Mounts", json_object_new_array());
        return o;
}

/* What was asked for, and what an Engine puts beside it. */
static json_object *make_network(const struct world_server *s, const struct conf *conf)
{
        const struct spec_network n = {.name = s->network,
                                       .bridge = s->bridge,
                                       .subnet = s->subnet,
                                       .gateway = s->gateway,
                                       .internal = s->entry->n_egress == 0,
                                       .owner = conf->audience,
                                       .server = s->name,
                                       .spec = s->spec->hash,
                                       .role = "server"};
        json_object *o = spec_network_body(&n);

        json_object_object_del(o, "CheckDuplicate");
        json_add_str(o, "Id", s->network_id);
        json_add_str(o, "Created", "2026-11-23T09:46:11.415914019Z");
        json_add_str(o, "Scope", "local");
        json_add_bool(o, "Attachable", false);
        json_add_bool(o, "Ingress", false);
        json_add(o, "ConfigFrom", json_object_new_object());
        json_add_bool(o, "ConfigOnly", false);
        json_add(o, "Containers", json_object_new_object());
        return o;
}

static char *text_of(json_object *o)
{
        return mem_strdup(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
}

static int read_template(json_object **ret, struct err **err)
{
        _cleanup_free_ char *text = NULL, *path = mem_printf("%s/%s", TEST_DATA, TEMPLATE);
        size_t n;

        if (file_read(&text, &n, path, 1U << 20, FILE_ANY, err) < 0)
                return -1;
        return json_parse(ret, text, n, path, NULL, err);
}

static int engine_fill(struct engine *e, const struct conf *conf, unsigned n, struct err **err)
{
        _cleanup_json_ json_object *template = NULL, *containers = json_object_new_array(), *networks = json_object_new_array();

        if (read_template(&template, err) < 0)
                return -1;
        e->ids = NEW_N(char *, n);
        e->inspects = NEW_N(char *, n);
        e->image_ids = NEW_N(char *, n);
        e->images = NEW_N(char *, n);
        for (; e->n < n; e->n++) {
                _cleanup_world_server_ struct world_server s;
                if (world_server_init(&s, conf, e->n, NULL, err) < 0)
                        return -1;
                _cleanup_json_ json_object *inspect = make_inspect(&s, conf, template);
                _cleanup_json_ json_object *image = make_image(&s, inspect);
                if (check_no_drift(&s, conf, inspect, image, err) < 0)
                        return -1;
                e->image_ids[e->n] = mem_strdup(s.facts->image_id);
                e->images[e->n] = text_of(image);
                e->ids[e->n] = mem_strdup(s.container_id);
                e->inspects[e->n] = text_of(inspect);
                json_object_array_add(containers, make_list_item(&s, inspect));
                json_object_array_add(networks, make_network(&s, conf));
        }
        e->containers = text_of(containers);
        e->networks = text_of(networks);
        return 0;
}

/* -- answers ------------------------------------------------------------------------------------------------------------ */

static bool send_all(int fd, const char *data, size_t n)
{
        while (n > 0) {
                ssize_t k = send(fd, data, n, MSG_NOSIGNAL);
                if (k <= 0)
                        return false;
                data += k;
                n -= (size_t)k;
        }
        return true;
}

static bool reply(int fd, const char *status, const char *body)
{
        _cleanup_free_ char *head = mem_printf(
                "HTTP/1.1 %s\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", status, strlen(body));

        return send_all(fd, head, strlen(head)) && send_all(fd, body, strlen(body));
}

static const char *inspect_of(const struct engine *e, const char *path)
{
        static const char before[] = "/containers/", after[] = "/json";

        if (!str_has_prefix(path, before) || strlen(path) != strlen(before) + 64 + strlen(after) || !str_has_suffix(path, after))
                return NULL;
        for (unsigned i = 0; i < e->n; i++)
                if (strncmp(path + strlen(before), e->ids[i], 64) == 0)
                        return e->inspects[i];
        return NULL;
}

static const char *image_of(const struct engine *e, const char *path)
{
        static const char before[] = "/images/", after[] = "/json";

        if (!str_has_prefix(path, before) || !str_has_suffix(path, after))
                return NULL;
        for (unsigned i = 0; i < e->n; i++)
                if (strlen(path) == strlen(before) + strlen(e->image_ids[i]) + strlen(after) &&
                    strncmp(path + strlen(before), e->image_ids[i], strlen(e->image_ids[i])) == 0)
                        return e->images[i];
        return NULL;
}

static bool reply_get(struct engine *e, int fd, const char *path)
{
        static const char version[] = "{\"Version\":\"20.10.24\",\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\",\"Os\":\"linux\","
                                      "\"Arch\":\"amd64\",\"Components\":[{\"Name\":\"Engine\",\"Version\":\"20.10.24\"}]}";
        const char *inspect = inspect_of(e, path) ? inspect_of(e, path) : image_of(e, path);

        e->gets++;
        if (inspect)
                return reply(fd, "200 OK", inspect);
        if (str_eq(path, "/containers/json"))
                return reply(fd, "200 OK", e->containers);
        if (str_eq(path, "/networks"))
                return reply(fd, "200 OK", e->networks);
        if (str_eq(path, "/version"))
                return reply(fd, "200 OK", version);
        if (str_eq(path, "/info"))
                return reply(fd, "200 OK", "{\"DefaultRuntime\":\"runc\",\"SwapLimit\":true,\"ServerVersion\":\"20.10.24\"}");
        if (str_eq(path, "/_ping"))
                return reply(fd, "200 OK", "\"OK\"");
        if (str_eq(path, "/events")) { /* nothing ever happens */
                static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
                return send_all(fd, head, strlen(head));
        }
        if (str_eq(path, "/counts")) {
                _cleanup_free_ char *text = mem_printf("{\"gets\":%llu,\"mutations\":%llu,\"unknown\":%llu}", (unsigned long long)e->gets,
                                                       (unsigned long long)e->mutations, (unsigned long long)e->unknown);
                return reply(fd, "200 OK", text);
        }
        e->unknown++;
        fprintf(stderr, "scripted_engine: not known: GET %s\n", path);
        return reply(fd, "404 Not Found", "{\"message\":\"no such thing\"}");
}

/* "GET /v1.41/networks?x HTTP/1.1": method and path without version and query, cut out of the line. */
static bool reply_request(struct engine *e, int fd, char *line)
{
        char *path = strchr(line, ' '), *save = NULL;

        if (!path)
                return false;
        *path++ = '\0';
        path = strtok_r(path, " ?", &save);
        if (!path)
                return false;
        if (str_has_prefix(path, "/v1.")) {
                path = strchr(path + 1, '/');
                if (!path)
                        return false;
        }
        if (str_eq(line, "GET"))
                return reply_get(e, fd, path);
        e->mutations++;
        fprintf(stderr, "scripted_engine: refused: %s %s\n", line, path);
        return reply(fd, "500 Internal Server Error", "{\"message\":\"nothing may be changed here\"}");
}

/* -- connections -------------------------------------------------------------------------------------------------------- */

/* Answers every whole request that has come. */
static bool serve(struct engine *e, struct connection *c)
{
        for (;;) {
                char *end = c->in.len ? memmem(c->in.data, c->in.len, "\r\n\r\n", 4) : NULL;
                if (!end)
                        return c->in.len < MAX_REQUEST;
                size_t head = (size_t)(end - c->in.data) + 4;
                const char *length = strcasestr(c->in.data, "\r\nContent-Length:");
                size_t body = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
                if (body > MAX_REQUEST)
                        return false;
                if (c->in.len < head + body)
                        return true;
                _cleanup_free_ char *line = mem_strndup(c->in.data, strcspn(c->in.data, "\r"));
                buf_drop(&c->in, head + body);
                if (!reply_request(e, c->fd, line))
                        return false;
        }
}

static bool on_readable(struct engine *e, struct connection *c)
{
        char piece[16384];
        ssize_t n = recv(c->fd, piece, sizeof(piece), 0);

        if (n <= 0)
                return false;
        buf_add(&c->in, piece, (size_t)n);
        return serve(e, c);
}

static void accept_one(struct engine *e, int listener)
{
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        const struct timeval limit = {.tv_sec = 30};

        if (fd < 0)
                return;
        if (e->n_connections == MAX_CONNECTIONS || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0) {
                close(fd);
                return;
        }
        e->connections[e->n_connections++] = (struct connection){.fd = fd};
}

static void drop(struct engine *e, size_t i)
{
        close(e->connections[i].fd);
        buf_deinit(&e->connections[i].in);
        e->connections[i] = e->connections[--e->n_connections];
}

static int run(struct engine *e, int listener, struct err **err)
{
        for (;;) {
                struct pollfd fds[MAX_CONNECTIONS + 1] = {{.fd = listener, .events = POLLIN}};
                size_t n = e->n_connections;

                for (size_t i = 0; i < n; i++)
                        fds[i + 1] = (struct pollfd){.fd = e->connections[i].fd, .events = POLLIN};
                if (poll(fds, n + 1, -1) < 0)
                        return errno == EINTR ? 0 : err_sys(err, errno, "cannot wait for requests");
                for (size_t i = n; i-- > 0;)
                        if (fds[i + 1].revents && !on_readable(e, &e->connections[i]))
                                drop(e, i);
                if (fds[0].revents)
                        accept_one(e, listener);
        }
}

static int listen_at(const char *path, struct err **err)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (strlen(path) >= sizeof(address.sun_path))
                return err_set(err, ERR_INVALID, "the socket's path %s is too long", path);
        strcpy(address.sun_path, path);
        /* Anybody in this test's world may speak to it. */
        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || chmod(path, 0666) < 0 || listen(fd, 16) < 0)
                return err_sys(err, errno, "cannot listen on %s", path);
        return fd;
}

int main(int argc, char **argv)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_(conf_freep) struct conf *conf = NULL;
        struct engine e = {0};
        unsigned n = argc == 4 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
        int listener = -1;

        if (n < 1 || n > WORLD_MAX || sodium_init() < 0) {
                fprintf(stderr, "usage: scripted_engine CONF N SOCKET   (N up to %u)\n", WORLD_MAX);
                return 64;
        }
        if (conf_load(&conf, argv[1], &err) == 0 && engine_fill(&e, conf, n, &err) == 0)
                listener = listen_at(argv[3], &err);
        if (listener < 0 || (puts("ready") < 0) || fflush(stdout) != 0 || run(&e, listener, &err) < 0) {
                fprintf(stderr, "scripted_engine: %s\n", err_msg(err));
                return 1;
        }
        return 0;
}
