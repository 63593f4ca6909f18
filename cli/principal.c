/* Which principal of allowed_signers has a key: it must stand in the record before the record can be signed. */
#include <ctype.h>

#include "cli/records.h"
#include "common/file.h"
#include "common/spawn.h"

#define SSH_KEYGEN "/usr/bin/ssh-keygen"
#define MAX_KEY    (64U << 10)

/* "ssh-ed25519 AAAA… comment" -> "ssh-ed25519 AAAA…" */
static char *key_words(const char *line)
{
        size_t type = strcspn(line, " \t\r\n"), gap = strspn(line + type, " \t");
        size_t blob = strcspn(line + type + gap, " \t\r\n");

        return blob ? mem_printf("%.*s %.*s", (int)type, line, (int)blob, line + type + gap) : NULL;
}

static int public_key(const char *key, char **ret, struct err **err)
{
        _cleanup_free_ char *path = str_has_suffix(key, ".pub") ? mem_strdup(key) : mem_printf("%s.pub", key);
        _cleanup_free_ char *text = NULL;

        if (access(key, F_OK) < 0)
                return err_set(err, ERR_NOT_FOUND, "no key file %s", key);
        if (file_read(&text, NULL, path, MAX_KEY, FILE_ANY, NULL) < 0) {
                const char *argv[] = {SSH_KEYGEN, "-y", "-f", key, NULL};
                const struct spawn_options o = {.argv = argv};
                _cleanup_(spawn_result_deinit) struct spawn_result result = {0};

                if (spawn_run(&result, &o, err) < 0 || spawn_result_check(&result, "ssh-keygen -y", err) < 0)
                        return err_wrap(err, "reading the public half of %s (or put it into %s)", key, path);
                text = buf_take(&result.out);
        }
        *ret = key_words(text);
        return *ret ? 0 : err_set(err, ERR_INVALID, "%s is not a public key", path);
}

/* Does a line of allowed_signers carry these words? They stand behind the principals and perhaps options. */
static bool line_has_key(const char *line, const char *words)
{
        size_t n = strlen(words);
        const char *at = strstr(line, words);

        return at && at > line && (at[-1] == ' ' || at[-1] == '\t') && (at[n] == '\0' || isspace((unsigned char)at[n]));
}

static int find_line(const char *path, char *text, const char *words, char **ret, struct err **err)
{
        char *save = NULL;

        for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                line += strspn(line, " \t");
                if (*line == '#' || !line_has_key(line, words))
                        continue;
                _cleanup_free_ char *who = mem_strndup(line, strcspn(line, " \t"));
                if (strpbrk(who, ",*?!\""))
                        return err_set(err, ERR_INVALID, "%s gives this key to \"%s\": say with --as who you are", path, who);
                *ret = TAKE_PTR(who);
                return 0;
        }
        return err_set(err, ERR_DENIED,
                       "this key is not in %s: if its owner may approve here, let root add this line: NAME namespaces=\"%s\" %s", path,
                       RECORD_NAMESPACE, words);
}

int records_principal(const struct conf *conf, const char *key, char **ret, struct err **err)
{
        _cleanup_free_ char *words = NULL, *signers = NULL;

        if (public_key(key, &words, err) < 0)
                return -1;
        if (file_read(&signers, NULL, conf->allowed_signers, 1U << 20, FILE_TRUSTED, err) < 0)
                return -1;
        return find_line(conf->allowed_signers, signers, words, ret, err);
}
