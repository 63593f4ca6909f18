#include "cli/identity_files.h"

#include <sodium.h>
#include <sys/stat.h>

int identity_files_load(struct identities **ret, const struct conf *conf, struct err **err)
{
        if (access(conf->agents_file, F_OK) < 0) {
                *ret = NEW(struct identities);
                return 0;
        }
        return identities_load(ret, conf->agents_file, err);
}

int identity_key_read(const struct conf *conf, uint8_t secret[IDENTITY_SECRET], struct err **err)
{
        char *text = NULL;
        size_t n = 0, got = 0;
        struct stat st;

        if (file_read(&text, &n, conf->agents_key, 256, FILE_TRUSTED, err) < 0)
                return err_wrap(err, "the key that signs tokens (agents.key; bulkhead agent add makes it)");
        int r = n >= 2 * (size_t)IDENTITY_SECRET &&
                                sodium_hex2bin(secret, IDENTITY_SECRET, text, 2 * (size_t)IDENTITY_SECRET, NULL, &got, NULL) == 0 &&
                                got == IDENTITY_SECRET
                        ? 0
                        : -1;
        sodium_memzero(text, n);
        free(text);
        if (r < 0)
                return err_set(err, ERR_INVALID, "%s holds no key: bulkhead agent rotate makes a new one", conf->agents_key);
        if (stat(conf->agents_key, &st) == 0 && st.st_mode & 077) {
                sodium_memzero(secret, IDENTITY_SECRET);
                return err_set(err, ERR_DENIED, "others may read %s: chmod 600 it, and then bulkhead agent rotate, because they may have",
                               conf->agents_key);
        }
        return 0;
}

int identity_key_write(const struct conf *conf, const uint8_t secret[IDENTITY_SECRET], struct err **err)
{
        char hex[2 * IDENTITY_SECRET + 2];

        hex_encode(hex, secret, IDENTITY_SECRET);
        hex[2 * IDENTITY_SECRET] = '\n';
        int r = file_write_atomic(conf->agents_key, hex, 2 * (size_t)IDENTITY_SECRET + 1, 0600, err);
        sodium_memzero(hex, sizeof(hex));
        return r;
}
