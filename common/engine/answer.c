#include <ctype.h>

#include "common/engine/internal.h"

static enum err_code status_code(int status)
{
        if (status == 404)
                return ERR_NOT_FOUND;
        if (status == 409)
                return ERR_CONFLICT;
        if (status == 401 || status == 403)
                return ERR_DENIED;
        if (status == 408)
                return ERR_TIMEOUT;
        if (status >= 500 || status == 429)
                return ERR_UNAVAILABLE;
        return ERR_INVALID;
}

/* The Engine's own words about an error: {"message":…}, else the first line of whatever came. */
static char *error_message(const char *data, size_t n)
{
        _cleanup_json_ json_object *o = NULL;
        const char *message = NULL;
        size_t len;

        if (n > 0 && answer_json(&o, "error", data, n, NULL) == 0)
                message = json_str(o, "message");
        if (!message) {
                message = n > 0 ? data : "";
                n = strcspn(message, "\r\n");
        } else
                n = strlen(message);
        len = MIN(n, (size_t)ENGINE_MESSAGE_MAX);
        /* Never cut inside a UTF-8 sequence. */
        while (len < n && len > 0 && ((unsigned char)message[len] & 0xc0) == 0x80)
                len--;
        while (len > 0 && isspace((unsigned char)message[len - 1]))
                len--;
        return len > 0 ? mem_strndup(message, len) : mem_strdup("no message");
}

bool answer_says(const struct err *err, const char *const *parts)
{
        if (!err)
                return false;
        for (; *parts; parts++)
                if (strcasestr(err_msg(err), *parts))
                        return true;
        return false;
}

/*
 * Conflicts that some versions do not call 409: 20.10 says 403 to a pool overlap and Podman 4 says 500 to names in use
 * (https://github.com/moby/moby/blob/v20.10.24/libnetwork/ipam, https://github.com/containers/podman/blob/v4.3.1/pkg/api/handlers/compat).
 */
static const char *const conflicts[] = {"overlaps with other one", "is already in use", "already exists", "already used on the host", NULL};

static int status_error(int status, const char *what, const char *data, size_t n, struct err **err)
{
        _cleanup_free_ char *message = error_message(data, n);
        enum err_code code = status_code(status);

        if (code == ERR_DENIED || code == ERR_UNAVAILABLE)
                for (size_t i = 0; conflicts[i]; i++)
                        if (strcasestr(message, conflicts[i]))
                                code = ERR_CONFLICT;
        return err_set(err, code, "%s: the Engine says: %s (HTTP %d)", what, message, status);
}

int answer_parse(json_object **body, int status, const char *what, const char *data, size_t n, struct err **err)
{
        *body = NULL;
        if (status == 304)
                return 0;
        if (status < 200 || status > 299)
                return status_error(status, what, data, n, err);
        if (n == 0)
                return 0;
        return answer_json(body, what, data, n, err);
}

#define SAFE_DIGITS 15 /* any integer of so many digits is below 2^53 */

/* Copies text, with long integers in quotes. Only values are touched: a digit outside a string is always part of a number. */
static void quote_long_integers(struct buf *out, const char *p, size_t n)
{
        size_t done = 0;
        bool in_string = false;

        for (size_t i = 0; i < n;) {
                size_t begin = i, end;

                if (in_string) {
                        i += p[i] == '\\' && i + 1 < n ? 2 : 1;
                        in_string = p[i - 1] != '"' || p[begin] == '\\';
                        continue;
                }
                if (!isdigit((unsigned char)p[i]) && p[i] != '-') {
                        in_string = p[i++] == '"';
                        continue;
                }
                bool whole = true;
                for (end = i + 1; end < n && p[end] && strchr("0123456789+-.eE", p[end]); end++)
                        whole = whole && isdigit((unsigned char)p[end]);
                i = end;
                if (!whole || end - begin <= SAFE_DIGITS)
                        continue;
                buf_add(out, p + done, begin - done);
                buf_addc(out, '"');
                buf_add(out, p + begin, end - begin);
                buf_addc(out, '"');
                done = end;
        }
        buf_add(out, p + done, n - done);
}

static bool has_long_integer(const char *p, size_t n)
{
        size_t run = 0;

        for (size_t i = 0; i < n; i++) {
                run = isdigit((unsigned char)p[i]) ? run + 1 : 0;
                if (run > SAFE_DIGITS)
                        return true;
        }
        return false;
}

int answer_json(json_object **ret, const char *what, const char *data, size_t n, struct err **err)
{
        _cleanup_buf_ struct buf quoted = {0};
        struct json_limits limits = {.max_depth = 64};
        _cleanup_free_ char *name = mem_printf("%s: the Engine's answer", what);

        *ret = NULL;
        /* Most answers have none outside strings, but hashes look like some: the copy is only made when it may be needed. */
        if (has_long_integer(data, n)) {
                quote_long_integers(&quoted, data, n);
                data = quoted.data;
                n = quoted.len;
        }
        limits.max_bytes = n;
        return json_parse(ret, data, n, name, &limits, err);
}
