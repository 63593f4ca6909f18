#include "tests/unit/fake_engine.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_VERSION                                                                                                                    \
        "{\"Version\":\"20.10.24\",\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\",\"Components\":[{\"Name\":\"Engine\"}]}"

struct connection {
        struct connection *next;
        struct fake_engine *engine;
        pthread_t thread;
        int fd;
};

struct fake_engine {
        char dir[64];
        char *path;
        int fd;
        fake_handler handler;
        void *user;
        pthread_t thread;
        pthread_mutex_t lock; /* for all below */
        struct connection *connections;
        char **log;
        char *version;
        unsigned n_requests, n_connections, accept_ms;
        bool down, stop;
};

void fake_send(struct fake_request *r, const void *data, size_t n)
{
        while (n > 0) {
                ssize_t k = send(r->fd, data, n, MSG_NOSIGNAL);
                if (k <= 0) {
                        r->close = true;
                        return;
                }
                data = (const char *)data + k;
                n -= (size_t)k;
        }
}

void fake_sends(struct fake_request *r, const char *text)
{
        fake_send(r, text, strlen(text));
}

void fake_reply(struct fake_request *r, const char *status, const char *json)
{
        _cleanup_free_ char *text = mem_printf("HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", status,
                                               json ? strlen(json) : 0, json ? json : "");

        fake_sends(r, text);
}

void fake_stream(struct fake_request *r)
{
        fake_sends(r, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
}

void fake_chunk(struct fake_request *r, const char *data)
{
        _cleanup_free_ char *text = mem_printf("%zx\r\n%s\r\n", strlen(data), data);

        fake_sends(r, text);
}

void fake_stream_end(struct fake_request *r)
{
        fake_sends(r, "0\r\n\r\n");
}

void fake_close(struct fake_request *r)
{
        r->close = true;
}

void fake_hang(struct fake_request *r)
{
        char c[256];

        while (recv(r->fd, c, sizeof(c), 0) > 0)
                ;
        r->close = true;
}

void fake_pause_ms(unsigned ms)
{
        struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

        nanosleep(&t, NULL);
}

/* -- connections ---------------------------------------------------------------------------------------------------------------- */

static bool read_request(int fd, struct buf *in, size_t *head_len, size_t *body_len)
{
        char piece[4096];

        for (;;) {
                char *end = in->len ? memmem(in->data, in->len, "\r\n\r\n", 4) : NULL;
                if (end) {
                        char *length = strcasestr(in->data, "\r\nContent-Length:");
                        *head_len = (size_t)(end - in->data) + 4;
                        *body_len = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
                        if (in->len >= *head_len + *body_len)
                                return true;
                }
                ssize_t n = recv(fd, piece, sizeof(piece), 0);
                if (n <= 0)
                        return false;
                buf_add(in, piece, (size_t)n);
        }
}

static void answer(struct fake_engine *f, struct fake_request *r)
{
        _cleanup_free_ char *line = mem_printf("%s %s", r->method, r->path), *version = NULL;

        pthread_mutex_lock(&f->lock);
        f->log = strv_append(f->log, line);
        if (str_eq(r->path, "/version") && *f->version)
                version = mem_strdup(f->version);
        else
                r->n = f->n_requests++;
        pthread_mutex_unlock(&f->lock);
        if (version)
                fake_reply(r, "200 OK", version);
        else
                f->handler(r);
}

static void *serve(void *user)
{
        struct connection *c = user;
        _cleanup_buf_ struct buf in = {0};
        struct fake_request r = {.engine = c->engine, .user = c->engine->user, .fd = c->fd};
        size_t head, body;

        while (!r.close && read_request(c->fd, &in, &head, &body)) {
                _cleanup_free_ char *text = mem_strndup(in.data, head), *content = mem_strndup(in.data + head, body);
                char *save = NULL;
                r.method = strtok_r(text, " ", &save);
                r.path = strtok_r(NULL, " ", &save);
                r.body = content;
                answer(c->engine, &r);
                buf_drop(&in, head + body);
        }
        shutdown(c->fd, SHUT_RDWR);
        return NULL;
}

static void *accept_all(void *user)
{
        struct fake_engine *f = user;
        int fd;

        while ((fd = accept4(f->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
                struct connection *c = NULL;
                pthread_mutex_lock(&f->lock);
                unsigned pause_ms = f->accept_ms;
                f->n_connections++;
                if (f->down || f->stop) {
                        close(fd);
                } else {
                        c = NEW(struct connection);
                        *c = (struct connection){.next = f->connections, .engine = f, .fd = fd};
                        f->connections = c;
                        if (pthread_create(&c->thread, NULL, serve, c) != 0)
                                abort();
                }
                pthread_mutex_unlock(&f->lock);
                fake_pause_ms(pause_ms);
        }
        return NULL;
}

static void end_connections(struct fake_engine *f)
{
        pthread_mutex_lock(&f->lock);
        for (struct connection *c = f->connections; c; c = c->next)
                shutdown(c->fd, SHUT_RDWR);
        pthread_mutex_unlock(&f->lock);
}

/* -- the server ----------------------------------------------------------------------------------------------------------------- */

struct fake_engine *fake_engine_new(fake_handler handler, void *user)
{
        struct fake_engine *f = NEW(struct fake_engine);
        struct sockaddr_un address = {.sun_family = AF_UNIX};

        snprintf(f->dir, sizeof(f->dir), "/tmp/fake-engine-XXXXXX");
        if (!mkdtemp(f->dir))
                abort();
        f->path = mem_printf("%s/docker.sock", f->dir);
        f->handler = handler;
        f->user = user;
        f->version = mem_strdup(DEFAULT_VERSION);
        pthread_mutex_init(&f->lock, NULL);
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", f->path);
        f->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (f->fd < 0 || bind(f->fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(f->fd, 64) < 0)
                abort();
        if (pthread_create(&f->thread, NULL, accept_all, f) != 0)
                abort();
        return f;
}

struct fake_engine *fake_engine_free(struct fake_engine *f)
{
        if (!f)
                return NULL;
        pthread_mutex_lock(&f->lock);
        f->stop = true;
        pthread_mutex_unlock(&f->lock);
        shutdown(f->fd, SHUT_RDWR);
        pthread_join(f->thread, NULL);
        end_connections(f);
        while (f->connections) {
                struct connection *c = f->connections;
                f->connections = c->next;
                pthread_join(c->thread, NULL);
                close(c->fd);
                free(c);
        }
        close(f->fd);
        unlink(f->path);
        rmdir(f->dir);
        pthread_mutex_destroy(&f->lock);
        strv_free(f->log);
        free(f->version);
        free(f->path);
        free(f);
        return NULL;
}

const char *fake_engine_path(const struct fake_engine *f)
{
        return f->path;
}

void fake_engine_set_version(struct fake_engine *f, const char *json)
{
        pthread_mutex_lock(&f->lock);
        mem_replace(&f->version, mem_strdup(json));
        pthread_mutex_unlock(&f->lock);
}

unsigned fake_engine_count(struct fake_engine *f, const char *text)
{
        unsigned n = 0;

        pthread_mutex_lock(&f->lock);
        for (char **line = f->log; line && *line; line++)
                n += strstr(*line, text) != NULL;
        pthread_mutex_unlock(&f->lock);
        return n;
}

unsigned fake_engine_connections(struct fake_engine *f)
{
        pthread_mutex_lock(&f->lock);
        unsigned n = f->n_connections;
        pthread_mutex_unlock(&f->lock);
        return n;
}

void fake_engine_down(struct fake_engine *f, bool down)
{
        pthread_mutex_lock(&f->lock);
        f->down = down;
        pthread_mutex_unlock(&f->lock);
        if (down)
                end_connections(f);
}

void fake_engine_busy(struct fake_engine *f, unsigned ms)
{
        pthread_mutex_lock(&f->lock);
        f->accept_ms = ms;
        pthread_mutex_unlock(&f->lock);
        if (listen(f->fd, 0) < 0)
                abort();
}
