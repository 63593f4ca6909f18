/*
 * The trust root, judged before ssh-keygen sees it. Format: "ALLOWED SIGNERS" in ssh-keygen(1). We accept less than ssh-keygen does: one
 * plain principal a line, and no key that signs for others.
 */
#include <ctype.h>
#include <sodium.h>
#include <strings.h>

#include "common/file.h"
#include "common/forge/repo.h"
#include "common/forge/sshsig.h"
#include "common/text.h"

#define MAX_KEYS 1000

static const char *const key_types[] = {
        "ssh-ed25519",         "sk-ssh-ed25519@openssh.com", "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",        "sk-ecdsa-sha2-nistp256@openssh.com",
};

struct line {
        const char *name;
        unsigned number;
        char **principals, **keys; /* of the lines so far, in step */
};

static void line_deinit(struct line *l)
{
        strv_free(l->principals);
        strv_free(l->keys);
}

static int fault(const struct line *l, struct err **err, const char *reason, const char *what)
{
        _cleanup_free_ char *safe = what ? text_escape(what) : NULL;

        return err_set(err, ERR_DENIED, "%s:%u: %s%s%s", l->name, l->number, reason, safe ? ": " : "", safe ? safe : "");
}

/* The next word: up to white space outside double quotes. NULL at the end. Owned. */
static char *next_word(const char **p)
{
        bool quoted = false;
        const char *start;

        *p += strspn(*p, " \t");
        for (start = *p; **p && (quoted || (**p != ' ' && **p != '\t')); (*p)++)
                if (**p == '"')
                        quoted = !quoted;
        return *p == start ? NULL : mem_strndup(start, (size_t)(*p - start));
}

static bool key_type_known(const char *s)
{
        for (size_t i = 0; i < ELEMENTSOF(key_types); i++)
                if (str_eq(s, key_types[i]))
                        return true;
        return false;
}

static int check_principal(const struct line *l, const char *s, struct err **err)
{
        if (strpbrk(s, "*?!"))
                return fault(l, err, "a principal with a wildcard lets a key sign for anybody; name one person", s);
        if (strchr(s, ','))
                return fault(l, err, "several principals on one line leave open who signed; write one line for each key", s);
        if (!str_in_charset(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@._+-"))
                return fault(l, err, "a principal may hold letters, digits and @ . _ + - only", s);
        return 0;
}

/* options: name or name="value", separated by commas outside quotes. */
static int check_options(const struct line *l, const char *s, struct err **err)
{
        if (strchr(s, '\\'))
                return fault(l, err, "a backslash in an option is read in more than one way", s);
        while (*s) {
                size_t n = strcspn(s, "=,");
                _cleanup_free_ char *option = mem_strndup(s, n);

                if (strcasecmp(option, "cert-authority") == 0)
                        return fault(l, err, "certificate authorities are not accepted; list each person's own key", NULL);
                if (strcasecmp(option, "namespaces") != 0 && strcasecmp(option, "valid-after") != 0 &&
                    strcasecmp(option, "valid-before") != 0)
                        return fault(l, err, "neither a key type nor an option that is accepted", option);
                s += n;
                if (*s != '=' || s[1] != '"' || !strchr(s + 2, '"'))
                        return fault(l, err, "option needs a value in double quotes", option);
                s = strchr(s + 2, '"') + 1;
                if (*s == ',')
                        s++;
                else if (*s)
                        return fault(l, err, "a comma must stand between options", option);
        }
        return 0;
}

/* The blob names its type too: they must agree, so that no RSA key passes under another name. */
static int check_blob(const struct line *l, const char *type, const char *base64, struct err **err)
{
        size_t max = base64 ? strlen(base64) : 0, n = 0, want = strlen(type);
        _cleanup_free_ unsigned char *blob = mem_alloc(max + 1);

        if (!base64 || sodium_base642bin(blob, max, base64, max, NULL, &n, NULL, sodium_base64_VARIANT_ORIGINAL) != 0)
                return fault(l, err, "the key is not base64; copy the .pub file's text anew", NULL);
        if (n < 4 + want || blob[0] || blob[1] || blob[2] || blob[3] != want || memcmp(blob + 4, type, want) != 0)
                return fault(l, err, "the key is not of the type that the line names", type);
        return 0;
}

static int check_line(struct line *l, const char *text, struct err **err)
{
        const char *p = text;
        _cleanup_free_ char *principal = next_word(&p);
        _cleanup_free_ char *word = next_word(&p);

        if (!principal || *principal == '#')
                return 0;
        if (check_principal(l, principal, err) < 0)
                return -1;
        if (!word)
                return fault(l, err, "no key after the principal", principal);
        if (!key_type_known(word) && !str_has_prefix(word, "ssh-") && !str_has_prefix(word, "ecdsa-") && !str_has_prefix(word, "sk-")) {
                if (check_options(l, word, err) < 0)
                        return -1;
                mem_replace(&word, next_word(&p));
                if (!word)
                        return fault(l, err, "no key after the options", principal);
        }
        if (str_eq(word, "ssh-rsa"))
                return fault(l, err, "ssh-rsa keys are not accepted; make an ed25519 key", NULL);
        if (!key_type_known(word))
                return fault(l, err, "key type is not accepted; make an ed25519 key", word);
        _cleanup_free_ char *base64 = next_word(&p);
        if (check_blob(l, word, base64, err) < 0)
                return -1;
        for (size_t i = 0; l->keys && l->keys[i]; i++)
                if (str_eq(l->keys[i], base64) && !str_eq(l->principals[i], principal))
                        return fault(l, err, "the same key stands for another person above; each needs a key of their own", principal);
        l->principals = strv_append(l->principals, principal);
        l->keys = strv_append(l->keys, base64);
        return strv_len(l->keys) > MAX_KEYS ? fault(l, err, "too many keys", NULL) : 0;
}

int allowed_signers_check_text(const char *text, size_t n, const char *name, struct err **err)
{
        _cleanup_(line_deinit) struct line l = {.name = name};
        const char *end = text + n;

        while (text < end) {
                const char *stop = memchr(text, '\n', (size_t)(end - text));
                _cleanup_free_ char *line = mem_strndup(text, (size_t)((stop ? stop : end) - text));

                l.number++;
                for (const char *c = text; c < (stop ? stop : end); c++)
                        if ((unsigned char)*c < 0x20 && *c != '\t')
                                return fault(&l, err, "holds a control character", NULL);
                if (check_line(&l, line, err) < 0)
                        return -1;
                text = stop ? stop + 1 : end;
        }
        return 0;
}

int allowed_signers_check(const char *path, struct err **err)
{
        _cleanup_free_ char *text = NULL;
        size_t n;

        if (file_read(&text, &n, path, ALLOWED_SIGNERS_MAX_BYTES, FILE_TRUSTED, err) < 0)
                return -1;
        return allowed_signers_check_text(text, n, path, err);
}
