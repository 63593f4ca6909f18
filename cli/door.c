#include "cli/door.h"

#include <curl/curl.h>
#include <sodium.h>

#include "common/file.h"

#define DEFAULT_URL "http://127.0.0.1:8000"
#define MAX_TOKEN   1100U
#define MAX_ANSWER  (64U << 20)
#define CONNECT_MS  5000L

static int read_token(struct cli *c, const struct door_options *o, char **ret, struct err **err)
{
        const char *file = o->token_file ? o->token_file : getenv("BULKHEAD_TOKEN_FILE"), *value = getenv("BULKHEAD_TOKEN");
        size_t n = 0;

        if (file && !*file)
                file = NULL;
        if (file && file_read(ret, &n, file, MAX_TOKEN, FILE_ANY, err) < 0)
                return err_wrap(err, "the token");
        if (!file && (!value || !*value))
                return cli_usage(c, err, "no token: name its file with --token-file or BULKHEAD_TOKEN_FILE, or set BULKHEAD_TOKEN");
        if (!file)
                *ret = mem_strndup(value, MAX_TOKEN);
        (*ret)[strcspn(*ret, "\r\n")] = '\0';
        if (!str_in_charset(*ret, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") || !**ret)
                return err_set(err, ERR_INVALID, "%s holds no token", file ? file : "BULKHEAD_TOKEN");
        return 0;
}

static size_t on_data(char *data, size_t size, size_t n, void *user)
{
        struct buf *b = user;

        if (b->len + size * n > MAX_ANSWER)
                return 0;
        buf_add(b, data, size * n);
        return size * n;
}

/* The header is wiped, as far as we have it in hand. */
static struct curl_slist *make_headers(const char *token)
{
        _cleanup_free_ char *line = mem_printf("Authorization: Bearer %s", token);
        struct curl_slist *headers = curl_slist_append(NULL, line);

        sodium_memzero(line, strlen(line));
        return curl_slist_append(headers, "Content-Type: application/json");
}

/* No proxy, no redirect, no other protocol: a token goes to the one it is for. */
static CURLcode post(CURL *curl, const char *url, struct curl_slist *headers, const char *body, struct buf *answer, long *status)
{
        curl_easy_setopt(curl, CURLOPT_URL, url);
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)strlen(body));
        curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
        curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
        curl_easy_setopt(curl, CURLOPT_PROXY, "");
        curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
        curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
        curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
        curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
        CURLcode r = curl_easy_perform(curl);
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, status);
        return r;
}

int door_ask(struct cli *c, const struct door_options *o, const char *verb, json_object *body, json_object **answer, long *status,
             struct err **err)
{
        _cleanup_json_ json_object *owned = body;
        _cleanup_free_ char *url = mem_printf("%s/v1/%s", o->url ? o->url : DEFAULT_URL, verb), *token = NULL;
        const struct json_limits limits = {.max_bytes = MAX_ANSWER, .max_depth = 128};
        _cleanup_buf_ struct buf text = {0};

        if (read_token(c, o, &token, err) < 0)
                return -1;
        /* The libraries below take files to read, to write and to load code from out of the environment, which an agent may have made. */
        clearenv();
        CURL *curl = curl_easy_init();
        struct curl_slist *headers = make_headers(token);
        sodium_memzero(token, strlen(token));
        CURLcode r =
                curl ? post(curl, url, headers,
                            json_object_to_json_string_ext(owned, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE), &text, status)
                     : CURLE_FAILED_INIT;
        curl_slist_free_all(headers);
        curl_easy_cleanup(curl);
        if (r != CURLE_OK) {
                c->exit_code = CLI_UNREACHABLE;
                return err_set(err, ERR_UNAVAILABLE, "the broker cannot be asked at %s: %s", url, curl_easy_strerror(r));
        }
        if (*status == 401) {
                c->exit_code = CLI_DENIED;
                return err_set(err, ERR_DENIED,
                               "the broker does not take the token: it is wrong, over or revoked; ask for a new one (bulkhead token)");
        }
        if (json_parse(answer, text.data ? text.data : "", text.len, url, &limits, err) < 0)
                return -1;
        return json_object_is_type(*answer, json_type_object) ? 0 : err_set(err, ERR_INVALID, "%s answered with no JSON object", url);
}

int door_refused(struct cli *c, json_object *answer, struct err **err)
{
        const char *status = json_str(answer, "status"), *message = json_str(answer, "message"), *where = json_str(answer, "where");
        const char *id = json_str(answer, "id");
        int64_t wait_ms = json_int(answer, "retry_after_ms", 0);
        _cleanup_buf_ struct buf more = {0};

        if (str_eq(status, "approval_required"))
                c->exit_code = CLI_DIFFERENT;
        if (id)
                buf_addf(&more, " (%s)", id);
        if (wait_ms > 0)
                buf_addf(&more, " (try again in %lld s)", (long long)(wait_ms + 999) / 1000);
        return err_set(err, ERR_INVALID, "%s%s%s: %s%s", status ? status : "failed", where && *where ? " at " : "", where ? where : "",
                       message ? message : "the broker says no more", more.data ? more.data : "");
}
