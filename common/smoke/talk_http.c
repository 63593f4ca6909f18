#include <curl/curl.h>
#include <errno.h>

#include "common/mcp/sse.h"
#include "common/smoke/talk.h"
#include "common/text.h"

#define MAX_STREAMS 16U
#define MAX_SESSION 256U

/*
 * HTTP: one POST per message, answers as JSON or as an event stream; for the older SSE transport one GET that stays and POSTs to the
 * endpoint it names. libcurl speaks HTTP over descriptors that the parent connected. No redirects, no proxy, no other scheme, no
 * compression: what is counted is what came.
 */
struct stream {
        struct talk_http *http;
        CURL *easy;
        struct curl_slist *headers;
        char *body;        /* sent */
        struct buf answer; /* when it is JSON */
        struct sse_reader sse;
        bool is_events, is_get, wants_answer, answered;
        struct stream *next;
};

struct message {
        char *text;
        size_t n;
        long status; /* of the HTTP answer that carried it, when it was one of 400 and above */
        struct message *next;
};

struct talk_http {
        const struct talk_config *config;
        int fd, output_fd;
        struct talk_stdio *output; /* NULL = unknown, or ended */
        CURLM *multi;
        struct stream *streams;
        size_t n_streams;
        struct message *first, **last;
        size_t total;
        char *session;               /* Mcp-Session-Id the server gave */
        char *endpoint;              /* SSE: path to POST to */
        char *origin;                /* "http://10.0.0.2:8080" */
        struct curl_slist *resolved; /* TLS: "HOST:PORT:ADDRESS", so that nobody is asked */
        char curl_error[CURL_ERROR_SIZE];
        char *pin; /* of the key that the server has */
        bool ever_connected, refused;
        bool rejected; /* a request ended without a message */
        long status;
        uint64_t until; /* of the current wait, for connections asked for meanwhile */
        struct err *broken;
};

static void push(struct talk_http *t, const char *text, size_t n, long status)
{
        struct message *m = NEW(struct message);

        m->text = mem_strndup(text, n);
        m->n = n;
        m->status = status >= 400 ? status : 0;
        *t->last = m;
        t->last = &m->next;
}

static struct stream *stream_free(struct stream *s)
{
        if (s->easy) {
                curl_multi_remove_handle(s->http->multi, s->easy);
                curl_easy_cleanup(s->easy);
        }
        curl_slist_free_all(s->headers);
        free(s->body);
        buf_deinit(&s->answer);
        sse_reader_deinit(&s->sse);
        free(s);
        return NULL;
}

static int fail(struct talk_http *t, struct err *why)
{
        if (t->broken)
                err_free(why);
        else
                t->broken = why;
        return -1;
}

static int never_listened(const struct talk_http *t, struct err **err)
{
        return err_set(err, ERR_TIMEOUT, "the server did not listen on port %u in time", t->config->port);
}

/* -- what libcurl calls ---------------------------------------------------------------------------------------------------- */

static curl_socket_t on_open(void *user, _unused_ curlsocktype purpose, _unused_ struct curl_sockaddr *address)
{
        struct talk_http *t = user;
        struct err *err = NULL;
        int fd = -1, r = talk_connection_get(&fd, t->fd, t->until, &err);

        t->refused = r == 1;
        if (r < 0 && err_code(err) == ERR_TIMEOUT && !t->ever_connected) {
                err = err_free(err);
                never_listened(t, &err);
        }
        if (r < 0)
                fail(t, err);
        if (r != 0)
                return CURL_SOCKET_BAD;
        t->ever_connected = true;
        return fd;
}

static int on_socket(_unused_ void *user, _unused_ curl_socket_t fd, _unused_ curlsocktype purpose)
{
        return CURL_SOCKOPT_ALREADY_CONNECTED;
}

static int count(struct talk_http *t, size_t n)
{
        struct err *err = NULL;

        t->total += n;
        if (t->total <= t->config->max_bytes)
                return 0;
        err_set(&err, ERR_LIMIT, "the server wrote more than the %zu bytes a smoke test may read", t->config->max_bytes);
        return fail(t, err);
}

/* The SSE transport's first event names where to POST. */
static int take_endpoint(struct talk_http *t, const char *data, struct err **err)
{
        if (t->endpoint)
                return err_set(err, ERR_INVALID, "the server named a second endpoint");
        t->endpoint = sse_endpoint(data, t->origin, err);
        return t->endpoint ? 0 : -1;
}

static int on_event(const char *type, const char *data, size_t n, void *user, struct err **err)
{
        struct stream *s = user;

        if (s->is_get && str_eq(type, "endpoint"))
                return take_endpoint(s->http, data, err);
        /* An empty one only tells its id, for resumption. */
        if (!str_eq(type, "message") || n == 0)
                return 0;
        push(s->http, data, n, 0);
        s->answered = true;
        return 0;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *user)
{
        struct stream *s = user;
        struct err *err = NULL;

        n *= size;
        if (count(s->http, n) < 0)
                return 0;
        if (!s->is_events) {
                if (n > 0)
                        buf_add(&s->answer, bytes, n);
        } else if (sse_reader_feed(&s->sse, bytes, n, on_event, s, &err) < 0) {
                fail(s->http, err);
                return 0;
        }
        return n;
}

static bool header_is(const char *line, size_t n, const char *name, char value[], size_t size)
{
        size_t k = strlen(name);

        if (n <= k || strncasecmp(line, name, k) != 0 || line[k] != ':')
                return false;
        line += k + 1, n -= k + 1;
        while (n > 0 && (*line == ' ' || *line == '\t'))
                line++, n--;
        while (n > 0 && strchr(" \t\r\n", line[n - 1]))
                n--;
        n = MIN(n, size - 1);
        memcpy(value, line, n);
        value[n] = '\0';
        return true;
}

static int take_session(struct talk_http *t, const char *value)
{
        struct err *err = NULL;

        for (const char *p = value; *p; p++)
                if (*p < 0x21 || *p > 0x7e) {
                        err_set(&err, ERR_INVALID, "the server's Mcp-Session-Id is not visible ASCII");
                        return fail(t, err);
                }
        if (!t->session && *value)
                t->session = mem_strdup(value);
        return 0;
}

static size_t on_header(char *bytes, size_t size, size_t n, void *user)
{
        struct stream *s = user;
        char value[MAX_SESSION + 1];

        n *= size;
        if (count(s->http, n) < 0)
                return 0;
        if (header_is(bytes, n, "Content-Type", value, sizeof(value)))
                s->is_events = strncasecmp(value, "text/event-stream", 17) == 0;
        if (header_is(bytes, n, "Mcp-Session-Id", value, sizeof(value)) && take_session(s->http, value) < 0)
                return 0;
        return n;
}

/* -- requests -------------------------------------------------------------------------------------------------------------- */

static void add_header(struct stream *s, const char *name, const char *value)
{
        _cleanup_free_ char *line = mem_printf("%s: %s", name, value);

        s->headers = curl_slist_append(s->headers, line);
}

/* libcurl says in passing which key it saw: what somebody who pins one wants to know. */
static int on_remark(_unused_ CURL *easy, curl_infotype type, char *bytes, size_t n, void *user)
{
        static const char before[] = "public key hash: sha256//";
        struct talk_http *t = user;
        char *at = type == CURLINFO_TEXT ? memmem(bytes, n, before, sizeof(before) - 1) : NULL;

        if (!at)
                return 0;
        at += strlen("public key hash: ");
        n -= (size_t)(at - bytes);
        while (n > 0 && at[n - 1] <= ' ')
                n--;
        mem_replace(&t->pin, mem_strndup(at, n));
        return 0;
}

/* The same trust as the broker's (broker/gateway/upstream_tls.h): pins, or else authorities, which are read before files are out of reach.
 */
static void set_tls(struct stream *s)
{
        const struct talk_config *c = s->http->config;
        struct curl_blob authorities = {.data = c->authorities, .len = c->n_authorities, .flags = CURL_BLOB_NOCOPY};
        _cleanup_free_ char *pins = c->tls_pins ? strv_join(c->tls_pins, ";") : NULL;

        curl_easy_setopt(s->easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
        curl_easy_setopt(s->easy, CURLOPT_RESOLVE, s->http->resolved);
        curl_easy_setopt(s->easy, CURLOPT_ERRORBUFFER, s->http->curl_error);
        curl_easy_setopt(s->easy, CURLOPT_CAINFO, NULL);
        curl_easy_setopt(s->easy, CURLOPT_CAPATH, NULL);
        if (pins) {
                curl_easy_setopt(s->easy, CURLOPT_PINNEDPUBLICKEY, pins);
                curl_easy_setopt(s->easy, CURLOPT_SSL_VERIFYPEER, 0L);
                curl_easy_setopt(s->easy, CURLOPT_SSL_VERIFYHOST, 0L);
                curl_easy_setopt(s->easy, CURLOPT_VERBOSE, 1L);
                curl_easy_setopt(s->easy, CURLOPT_DEBUGFUNCTION, on_remark);
                curl_easy_setopt(s->easy, CURLOPT_DEBUGDATA, s->http);
        } else {
                curl_easy_setopt(s->easy, CURLOPT_CAINFO_BLOB, &authorities);
        }
}

static void set_common(struct stream *s, const char *path)
{
        const struct talk_config *c = s->http->config;
        _cleanup_free_ char *url = mem_printf("%s%s", s->http->origin, path);

        for (char *const *p = c->headers; p && *p; p++)
                s->headers = curl_slist_append(s->headers, *p);
        curl_easy_setopt(s->easy, CURLOPT_URL, url);
        curl_easy_setopt(s->easy, CURLOPT_PATH_AS_IS, 1L);
        curl_easy_setopt(s->easy, CURLOPT_PROTOCOLS_STR, c->tls_host ? "https" : "http");
        if (c->tls_host)
                set_tls(s);
        curl_easy_setopt(s->easy, CURLOPT_FOLLOWLOCATION, 0L);
        curl_easy_setopt(s->easy, CURLOPT_PROXY, "");
        curl_easy_setopt(s->easy, CURLOPT_NOPROXY, "*");
        curl_easy_setopt(s->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
        curl_easy_setopt(s->easy, CURLOPT_IPRESOLVE, (long)CURL_IPRESOLVE_V4);
        curl_easy_setopt(s->easy, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(s->easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
        curl_easy_setopt(s->easy, CURLOPT_OPENSOCKETDATA, s->http);
        curl_easy_setopt(s->easy, CURLOPT_SOCKOPTFUNCTION, on_socket);
        curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, on_body);
        curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, s);
        curl_easy_setopt(s->easy, CURLOPT_HEADERFUNCTION, on_header);
        curl_easy_setopt(s->easy, CURLOPT_HEADERDATA, s);
        curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, s->headers);
        curl_easy_setopt(s->easy, CURLOPT_PRIVATE, s);
        curl_easy_setopt(s->easy, CURLOPT_USERAGENT, "bulkhead-smoke/1");
}

static int begin(struct talk_http *t, struct stream *s, const char *path, struct err **err)
{
        if (t->n_streams >= MAX_STREAMS) {
                stream_free(s);
                return err_set(err, ERR_LIMIT, "more than %u HTTP requests at once", MAX_STREAMS);
        }
        s->easy = curl_easy_init();
        s->sse.max = t->config->max_bytes;
        set_common(s, path);
        if (s->body) {
                curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(s->body));
                curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, s->body);
        }
        s->next = t->streams;
        t->streams = s;
        t->n_streams++;
        curl_multi_add_handle(t->multi, s->easy);
        return 0;
}

static int http_send(void *self, const struct talk_outgoing *m, struct err **err)
{
        struct talk_http *t = self;
        struct stream *s = NEW(struct stream);

        s->http = t;
        s->body = json_canonical(m->message);
        s->wants_answer = m->request;
        add_header(s, "Content-Type", "application/json");
        add_header(s, "Accept", "application/json, text/event-stream");
        s->headers = curl_slist_append(s->headers, "Expect:");
        if (m->modern || m->protocol)
                add_header(s, "MCP-Protocol-Version", m->modern ? TALK_MODERN : m->protocol);
        if (m->modern && m->method)
                add_header(s, "Mcp-Method", m->method);
        if (m->modern && m->name)
                add_header(s, "Mcp-Name", m->name);
        for (char *const *p = m->modern ? m->params : NULL; p && *p; p++)
                s->headers = curl_slist_append(s->headers, *p);
        if (t->session && !m->modern)
                add_header(s, "Mcp-Session-Id", t->session);
        return begin(t, s, t->endpoint ? t->endpoint : t->config->path, err);
}

static int open_events(struct talk_http *t, struct err **err)
{
        struct stream *s = NEW(struct stream);

        s->http = t;
        s->is_get = true;
        add_header(s, "Accept", "text/event-stream");
        return begin(t, s, t->config->path, err);
}

/* -- answers --------------------------------------------------------------------------------------------------------------- */

static void unlink_stream(struct talk_http *t, struct stream *s)
{
        for (struct stream **p = &t->streams; *p; p = &(*p)->next)
                if (*p == s) {
                        *p = s->next;
                        t->n_streams--;
                        break;
                }
}

static char *why_not(const struct talk_http *t, CURLcode code)
{
        _cleanup_free_ char *pin = t->pin ? text_escape(t->pin) : NULL, *said = text_escape(t->curl_error);

        if (code == CURLE_SSL_PINNEDPUBKEYNOTMATCH && pin)
                return mem_printf("the server's key is %s, which is none of \"tls_pins\"", pin);
        return mem_strdup(*said && t->config->tls_host ? said : curl_easy_strerror(code));
}

static int ended_badly(struct talk_http *t, struct stream *s, CURLcode code)
{
        _cleanup_free_ char *why = why_not(t, code);
        struct err *err = NULL;

        /* A server that needs a moment before it listens: its first request is sent again, until the deadline. */
        if (t->refused && !t->ever_connected && !t->config->external) {
                curl_multi_remove_handle(t->multi, s->easy);
                curl_multi_add_handle(t->multi, s->easy);
                return 0;
        }
        if (t->broken)
                return -1;
        err_set(&err, ERR_UNAVAILABLE, "%s",
                !t->refused         ? why
                : t->ever_connected ? "the server no longer accepts connections"
                                    : "nobody accepts connections there");
        err_wrap(&err, "HTTP to the server");
        return fail(t, err);
}

static int ended(struct talk_http *t, struct stream *s)
{
        struct err *err = NULL;
        long status = 0;

        curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
        if (s->is_get) {
                err_set(&err, ERR_UNAVAILABLE, "the server's event stream ended (HTTP status %ld)", status);
                return fail(t, err);
        }
        /* An error page of a framework is no message, even when it is JSON. */
        if (!s->is_events && s->wants_answer && s->answer.len > 0 && memmem(s->answer.data, s->answer.len, "\"jsonrpc\"", 9)) {
                push(t, s->answer.data, s->answer.len, status);
                s->answered = true;
        }
        /* The SSE transport answers on the other stream; there a POST only says "accepted". */
        if (s->wants_answer && !s->answered && (!t->endpoint || status >= 400)) {
                t->rejected = true;
                t->status = status;
        } else if (!s->wants_answer && status >= 400) {
                err_set(&err, ERR_INVALID, "the server turned a notification or an answer down with HTTP status %ld", status);
                fail(t, err);
        }
        unlink_stream(t, s);
        stream_free(s);
        return t->broken ? -1 : 0;
}

/* A server that has ended, and one that writes without end, need not be waited for. */
static int drain(struct talk_http *t)
{
        struct err *err = NULL;
        int r = t->output ? talk_stdio_drain(t->output, &err) : 0;

        if (r < 0)
                return fail(t, err);
        if (r == 0)
                return 0;
        t->output = NULL;
        err_set(&err, ERR_UNAVAILABLE, "the server ended");
        return fail(t, err);
}

static int step(struct talk_http *t, uint64_t until)
{
        int running, left;
        CURLMsg *m;

        if (drain(t) < 0)
                return -1;
        t->until = until;
        curl_multi_perform(t->multi, &running);
        while ((m = curl_multi_info_read(t->multi, &left))) {
                CURLcode code = m->data.result;
                char *p = NULL;
                if (m->msg != CURLMSG_DONE)
                        continue;
                curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &p);
                if ((code == CURLE_OK ? ended(t, (struct stream *)(void *)p) : ended_badly(t, (struct stream *)(void *)p, code)) < 0)
                        return -1;
        }
        return t->broken ? -1 : 0;
}

static int wait_some(struct talk_http *t, uint64_t until)
{
        struct curl_waitfd output = {.fd = t->output_fd, .events = CURL_WAIT_POLLIN};
        uint64_t now = talk_now_ms();

        if (now >= until)
                return 1;
        curl_multi_poll(t->multi, &output, t->output ? 1 : 0, (int)MIN(until - now, (uint64_t)1000), NULL);
        return 0;
}

static int http_receive(void *self, char **text, size_t *n, long *status, uint64_t until, struct err **err)
{
        struct talk_http *t = self;

        for (;;) {
                struct message *m = t->first;

                if (m) {
                        t->first = m->next;
                        if (!t->first)
                                t->last = &t->first;
                        *text = m->text;
                        *n = m->n;
                        *status = m->status;
                        free(m);
                        return 0;
                }
                if (t->rejected) {
                        t->rejected = false;
                        *status = t->status;
                        return 2;
                }
                if (step(t, until) < 0)
                        return err_move(err, TAKE_PTR(t->broken));
                if (!t->first && !t->rejected && wait_some(t, until) == 1)
                        return t->ever_connected ? 1 : never_listened(t, err);
        }
}

static int wait_endpoint(struct talk_http *t, struct err **err)
{
        uint64_t until = talk_now_ms() + t->config->timeout_ms;

        while (!t->endpoint) {
                if (step(t, until) < 0)
                        return err_move(err, TAKE_PTR(t->broken));
                if (!t->endpoint && wait_some(t, until) == 1)
                        return t->ever_connected ? err_set(err, ERR_TIMEOUT, "the server's event stream named no endpoint in time")
                                                 : never_listened(t, err);
        }
        return 0;
}

/* Where it is, as URLs have it. */
static void place(struct talk_http *t)
{
        const struct talk_config *c = t->config;
        _cleanup_free_ char *resolved = NULL;

        if (!c->tls_host) {
                t->origin = mem_printf("http://%s:%u", c->address, c->port);
                return;
        }
        t->origin = c->port == 443 ? mem_printf("https://%s", c->tls_host) : mem_printf("https://%s:%u", c->tls_host, c->port);
        resolved = mem_printf("%s:%u:%s", c->tls_host, c->port, c->address);
        t->resolved = curl_slist_append(NULL, resolved);
}

int talk_http_new(struct talk_http **ret, int fd, struct talk_stdio *output, int output_fd, const struct talk_config *config,
                  struct talk_io *io, struct err **err)
{
        struct talk_http *t = NEW(struct talk_http);

        t->fd = fd;
        t->config = config;
        t->output = output;
        t->output_fd = output_fd;
        t->last = &t->first;
        place(t);
        t->multi = curl_multi_init();
        curl_multi_setopt(t->multi, CURLMOPT_MAXCONNECTS, 4L);
        *io = (struct talk_io){http_send, http_receive, t};
        *ret = t;
        if (config->transport != TALK_SSE)
                return 0;
        return open_events(t, err) < 0 ? -1 : wait_endpoint(t, err);
}

struct talk_http *talk_http_free(struct talk_http *t)
{
        while (t->streams) {
                struct stream *s = t->streams;
                t->streams = s->next;
                stream_free(s);
        }
        while (t->first) {
                struct message *m = t->first;
                t->first = m->next;
                free(m->text);
                free(m);
        }
        curl_multi_cleanup(t->multi);
        err_free(t->broken);
        free(t->session);
        free(t->endpoint);
        free(t->origin);
        free(t->pin);
        curl_slist_free_all(t->resolved);
        free(t);
        return NULL;
}
