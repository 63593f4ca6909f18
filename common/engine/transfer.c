#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/engine/internal.h"

#define CONNECT_TRIES    50
#define CONNECT_RETRY_MS 20

/* -- curl's callbacks: they store, nothing else ------------------------------------------------------------------------------ */

static size_t on_header(char *data, size_t size, size_t n, void *user)
{
        struct engine_call *c = user;
        long status = 0;

        n *= size;
        c->header_bytes += n;
        if (c->header_bytes > ENGINE_HEADER_MAX) {
                c->over_limit = true;
                return 0;
        }
        if (n <= 2 && (data[0] == '\r' || data[0] == '\n')) {
                curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
                c->http_status = (int)status;
                c->opened = status >= 200 && status <= 299;
        }
        return n;
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
        struct engine_call *c = user;

        n *= size;
        if (n > c->max_answer || c->answer.len > c->max_answer - n) {
                c->over_limit = true;
                return 0;
        }
        buf_add(&c->answer, data, n);
        return n;
}

static curl_socket_t on_socket_open(void *user, _unused_ curlsocktype purpose, struct curl_sockaddr *address)
{
        struct engine *e = user;
        int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);

        if (fd < 0)
                return CURL_SOCKET_BAD;
        /* No connection was left, so this may be another Engine than the one we know: ask again before the next call. */
        if (e->n_sockets++ == 0 && !e->version_call)
                e->negotiated = false;
        return fd;
}

static int on_socket_close(void *user, curl_socket_t fd)
{
        struct engine *e = user;

        if (e->n_sockets > 0)
                e->n_sockets--;
        return close(fd);
}

/* -- starting and stopping --------------------------------------------------------------------------------------------------- */

static void add_header(struct engine_call *c, const char *line)
{
        struct curl_slist *list = curl_slist_append(c->headers, line);

        if (!list)
                abort();
        c->headers = list;
}

static void set_method(struct engine_call *c)
{
        add_header(c, "Expect:");
        if (str_eq(c->method, "GET")) {
                curl_easy_setopt(c->easy, CURLOPT_HTTPGET, 1L);
        } else {
                /*
                 * curl repeats a request by itself, POST included, when a kept connection dies before the first byte of the answer. The
                 * Engine may have done it by then, so whatever changes something gets a connection of its own.
                 */
                curl_easy_setopt(c->easy, CURLOPT_FRESH_CONNECT, 1L);
                curl_easy_setopt(c->easy, CURLOPT_POST, 1L);
                curl_easy_setopt(c->easy, CURLOPT_CUSTOMREQUEST, c->method);
                curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, c->body ? c->body : "");
                curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)(c->body ? strlen(c->body) : 0));
                add_header(c, c->body ? "Content-Type: application/json" : "Content-Type:");
        }
        curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, c->headers);
}

void transfer_start(struct engine_call *c)
{
        struct engine *e = c->engine;
        _cleanup_free_ char *url = NULL;

        c->state = CALL_RUNNING;
        if (!c->no_slot)
                e->n_running++;
        if (c->attach) {
                attach_start(c);
                return;
        }
        c->easy = curl_easy_init();
        if (!c->easy)
                abort();
        url = c->unversioned ? mem_printf("http://localhost%s", c->target) : mem_printf("http://localhost/v1.%u%s", e->minor, c->target);
        curl_easy_setopt(c->easy, CURLOPT_UNIX_SOCKET_PATH, e->socket_path);
        curl_easy_setopt(c->easy, CURLOPT_URL, url);
        curl_easy_setopt(c->easy, CURLOPT_PATH_AS_IS, 1L);
        curl_easy_setopt(c->easy, CURLOPT_PROXY, "");
        curl_easy_setopt(c->easy, CURLOPT_PROTOCOLS_STR, "http");
        curl_easy_setopt(c->easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
        curl_easy_setopt(c->easy, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(c->easy, CURLOPT_USERAGENT, "bulkhead");
        curl_easy_setopt(c->easy, CURLOPT_PRIVATE, c);
        curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, c->curl_error);
        curl_easy_setopt(c->easy, CURLOPT_HEADERFUNCTION, on_header);
        curl_easy_setopt(c->easy, CURLOPT_HEADERDATA, c);
        curl_easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, on_body);
        curl_easy_setopt(c->easy, CURLOPT_WRITEDATA, c);
        curl_easy_setopt(c->easy, CURLOPT_OPENSOCKETFUNCTION, on_socket_open);
        curl_easy_setopt(c->easy, CURLOPT_OPENSOCKETDATA, e);
        curl_easy_setopt(c->easy, CURLOPT_CLOSESOCKETFUNCTION, on_socket_close);
        curl_easy_setopt(c->easy, CURLOPT_CLOSESOCKETDATA, e);
        set_method(c);
        curl_loop_add(e->curl, c->easy);
}

void transfer_stop(struct engine_call *c)
{
        if (c->state == CALL_RUNNING && !c->no_slot)
                c->engine->n_running--;
        c->state = CALL_PAUSED;
        if (c->easy) {
                curl_loop_remove(c->engine->curl, c->easy);
                curl_easy_cleanup(c->easy);
                c->easy = NULL;
        }
        curl_slist_free_all(c->headers);
        c->headers = NULL;
        buf_deinit(&c->answer);
        c->answer = (struct buf){0};
        c->header_bytes = 0;
        c->http_status = 0;
        c->over_limit = c->opened = c->opened_told = false;
        c->curl_error[0] = '\0';
}

/* -- the end ----------------------------------------------------------------------------------------------------------------- */

static int connect_error(struct engine_call *c, struct err **err)
{
        const char *path = c->engine->socket_path;
        long number = 0;

        curl_easy_getinfo(c->easy, CURLINFO_OS_ERRNO, &number);
        if (number == EACCES || number == EPERM)
                return err_set(err, ERR_DENIED,
                               "%s: no access to the Engine's socket %s: run as a member of its group (usually docker) or as root", c->what,
                               path);
        return err_set(err, ERR_UNAVAILABLE, "%s: no Engine at %s: %s (is it running? see systemctl status docker)", c->what, path,
                       number ? strerror((int)number) : "cannot connect");
}

static int transport_error(struct engine_call *c, CURLcode code, struct err **err)
{
        const char *text = c->curl_error[0] ? c->curl_error : curl_easy_strerror(code);

        if (c->over_limit && c->header_bytes > ENGINE_HEADER_MAX)
                return err_set(err, ERR_LIMIT, "%s: the header of the Engine's answer is over %u bytes", c->what, ENGINE_HEADER_MAX);
        if (c->over_limit)
                return err_set(err, ERR_LIMIT, "%s: the Engine's answer is over %zu bytes", c->what, c->max_answer);
        switch (code) {
        case CURLE_COULDNT_CONNECT:
                return connect_error(c, err);
        case CURLE_UNSUPPORTED_PROTOCOL:
        case CURLE_WEIRD_SERVER_REPLY:
        case CURLE_BAD_CONTENT_ENCODING:
                return err_set(err, ERR_INVALID, "%s: what answers at %s is not HTTP: %s", c->what, c->engine->socket_path, text);
        case CURLE_OUT_OF_MEMORY: /* curl's name for a header line over its bound */
                return err_set(err, ERR_LIMIT, "%s: the Engine's answer is over a bound: %s", c->what, text);
        default:
                if (strstr(text, "chunk"))
                        return err_set(err, ERR_INVALID, "%s: the Engine's answer is not HTTP: %s", c->what, text);
                return err_set(err, ERR_UNAVAILABLE, "%s: the Engine's answer was cut off: %s", c->what, text);
        }
}

/*
 * When the listening queue is full, connect() says EAGAIN, which curl takes for a connection under way that then fails without a reason.
 * Nothing was sent, so the same request goes again: the Engine is there, only busy.
 */
static bool connect_retry(struct engine_call *c)
{
        long number = 0;

        curl_easy_getinfo(c->easy, CURLINFO_OS_ERRNO, &number);
        if ((number != 0 && number != EAGAIN) || c->n_connects >= CONNECT_TRIES)
                return false;
        c->n_connects++;
        call_pause(c, CONNECT_RETRY_MS + (c->serial * 37 + c->n_connects * 17) % 41); /* not all at the same moment again */
        return true;
}

static bool version_refused(struct engine_call *c, int status, const struct err *err)
{
        static const char *const old_or_new[] = {"is too old", "is too new", NULL}, *const version[] = {"client version", NULL};

        return status == 400 && !c->unversioned && answer_says(err, version) && answer_says(err, old_or_new);
}

/* The Engine is not the one we asked for its version, or its minimum is above what we speak. Nothing was done: safe to repeat. */
static bool version_retry(struct engine_call *c)
{
        c->engine->negotiated = false;
        if (c->rejected)
                return false;
        c->rejected = true;
        call_pause(c, 0);
        return true;
}

bool transfer_deliver(struct engine_call *c)
{
        struct err *err = NULL;
        int r = 0;

        call_hold(c);
        if (c->opened && !c->opened_told) {
                c->opened_told = true;
                if (c->on_open)
                        c->on_open(c);
        }
        if (!c->dead && c->sink && c->opened && c->answer.len > 0) {
                struct buf taken = c->answer;

                c->answer = (struct buf){0};
                r = c->sink(c, taken.data, taken.len, &err);
                buf_deinit(&taken);
        }
        if (!call_release(c)) {
                err_free(err);
                return false;
        }
        if (r == 0)
                return true;
        call_finish(c, c->http_status, NULL, err);
        return false;
}

void transfer_done(struct engine_call *c, CURLcode code)
{
        struct err *err = NULL;
        json_object *body = NULL;
        int status = c->http_status;

        if (!transfer_deliver(c))
                return;
        if (code == CURLE_COULDNT_CONNECT && connect_retry(c))
                return;
        /* To curl, a header that ends in the middle is an answer. */
        if (code == CURLE_OK && status == 0)
                code = CURLE_GOT_NOTHING;
        if (code != CURLE_OK) {
                (void)transport_error(c, code, &err);
                /* Only an answer over its bound comes from the Engine that we know. */
                if (!c->over_limit)
                        c->engine->negotiated = false;
                call_finish(c, 0, NULL, err);
                return;
        }
        if (answer_parse(&body, status, c->what, c->answer.data, c->answer.len, &err) < 0 && version_refused(c, status, err)) {
                if (version_retry(c)) {
                        err_free(err);
                        return;
                }
                (void)err_wrap(&err, "the Engine refuses API version 1.%u (this program speaks 1.%d to 1.%d)", c->engine->minor,
                               ENGINE_API_FLOOR, ENGINE_API_NEWEST);
        }
        call_finish(c, status, body, err);
}
