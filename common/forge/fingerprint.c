#include <errno.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/forge/forge.h"
#include "common/forge/git.h"

static void add_stat(struct buf *b, const char *path)
{
        struct stat st;

        if (!path || stat(path, &st) < 0)
                buf_adds(b, "none\n");
        else
                buf_addf(b, "%ju %ju %u %u %jd %jd.%ld %jd.%ld\n", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino, st.st_mode, st.st_uid,
                         (intmax_t)st.st_size, (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (intmax_t)st.st_ctim.tv_sec,
                         st.st_ctim.tv_nsec);
}

/* The text of a loose reference. A packed one is told by its file's stat: packing rewrites it. */
static int add_reference(struct buf *b, const char *dir, const struct conf *conf, struct err **err)
{
        _cleanup_free_ char *loose = mem_printf("%s/%s", dir, conf->approvals_ref), *packed = mem_printf("%s/packed-refs", dir),
                            *text = NULL;
        _cleanup_err_ struct err *why = NULL;
        size_t n = 0;

        if (file_read(&text, &n, loose, 4096, FILE_ANY, &why) == 0)
                buf_add(b, text, n);
        else if (err_code(why) != ERR_NOT_FOUND)
                return err_move(err, TAKE_PTR(why));
        add_stat(b, packed);
        return 0;
}

int forge_fingerprint(char out[SHA256_HEX], const struct conf *conf, struct err **err)
{
        static const char *const parts[] = {"", "/objects", "/refs", "/config"};
        _cleanup_buf_ struct buf b = {0};
        _cleanup_free_ char *dir = NULL;

        if (forge_directory(&dir, conf, err) < 0)
                return -1;
        buf_addf(&b, "%s\n%s\n%s\n%d\n", conf->audience, dir, conf->approvals_ref, conf->signatures_required);
        for (size_t i = 0; i < ELEMENTSOF(parts); i++) {
                _cleanup_free_ char *path = mem_printf("%s%s", dir, parts[i]);
                struct stat st;
                /* Owner and mode only: their times change with every object that is written. */
                if (stat(path, &st) == 0)
                        buf_addf(&b, "%ju %ju %u %u\n", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino, st.st_mode, st.st_uid);
        }
        if (add_reference(&b, dir, conf, err) < 0)
                return -1;
        add_stat(&b, conf->allowed_signers);
        add_stat(&b, conf->revoked_keys);
        sha256_hex(out, b.data, b.len);
        return 0;
}
