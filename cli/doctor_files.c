#include <dirent.h>
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/doctor.h"
#include "cli/records.h"
#include "common/file.h"

static void check_conf(struct doctor *d)
{
        _cleanup_err_ struct err *err = NULL;

        if (cli_conf(d->c, &d->conf, &err) < 0)
                doctor_add(d, "configuration", DOCTOR_ERROR, err_msg(err), "mend the file, or let bulkhead init write a first one");
        else
                doctor_add(d, "configuration", DOCTOR_OK, d->c->conf_path, NULL);
}

static void check_signers(struct doctor *d)
{
        _cleanup_err_ struct err *err = NULL;

        if (!d->conf->signatures_required)
                doctor_add(d, "signatures", DOCTOR_WARNING, "approvals.signatures is none: whoever can commit a record can run code",
                           "set approvals.signatures: required");
        else if (allowed_signers_check(d->conf->allowed_signers, &err) < 0)
                doctor_add(d, "allowed signers", DOCTOR_ERROR, err_msg(err), "put the operators' public keys there; owner root, mode 0644");
        else
                doctor_add(d, "allowed signers", DOCTOR_OK, d->conf->allowed_signers, NULL);
}

static void check_registry(struct doctor *d)
{
        _cleanup_(registry_freep) struct registry *registry = NULL;
        _cleanup_err_ struct err *err = NULL;
        char detail[64];

        if (registry_load(&registry, d->conf->registry_path, d->conf, &err) < 0) {
                doctor_add(d, "registry", DOCTOR_ERROR, err_msg(err), "bulkhead validate names every error");
                return;
        }
        snprintf(detail, sizeof(detail), "%zu servers", registry->n_entries);
        doctor_add(d, "registry", DOCTOR_OK, detail, NULL);
}

static void check_approvals(struct doctor *d)
{
        _cleanup_(forge_view_freep) struct forge_view *view = NULL;
        _cleanup_err_ struct err *err = NULL;
        size_t refused = 0;
        char detail[96];

        if (access(d->conf->approvals_repository, F_OK) < 0) {
                doctor_add(d, "approvals", DOCTOR_WARNING, "the repository does not exist yet",
                           "bulkhead init makes it, and so does the first proposal");
                return;
        }
        if (records_read(d->c, &view, &err) < 0) {
                doctor_add(d, "approvals", DOCTOR_ERROR, err_msg(err), "mend the repository or its permissions");
                return;
        }
        for (size_t i = 0; i < view->n_items; i++)
                refused += view->items[i].refused != NULL;
        snprintf(detail, sizeof(detail), "%zu records, %zu of them refused", view->n_items, refused);
        doctor_add(d, "approvals",
                   view->refused ? DOCTOR_ERROR
                   : refused     ? DOCTOR_WARNING
                                 : DOCTOR_OK,
                   view->refused ? view->refused : detail, view->refused || refused ? "bulkhead validate names each" : NULL);
}

/* Private keys beside allowed_signers, where the quickstart puts the operator's: whoever can read one can approve. */
static void check_key(struct doctor *d, const char *dir, const char *name)
{
        _cleanup_free_ char *path = mem_printf("%s/%s", dir, name), *text = NULL, *detail = NULL;
        struct stat st;

        if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > 65536 || file_read(&text, NULL, path, 65536, FILE_ANY, NULL) < 0 ||
            !strstr(text, "PRIVATE KEY-----"))
                return;
        if (st.st_uid == 0 && (st.st_mode & 077) == 0) {
                doctor_add(d, "signing key", DOCTOR_OK, path, NULL);
                return;
        }
        detail = mem_printf("%s can be read by others than root (owner %u, mode %04o)", path, (unsigned)st.st_uid,
                            (unsigned)st.st_mode & 07777);
        doctor_add(d, "signing key", DOCTOR_ERROR, detail, "chown root and chmod 0600 it; if an agent could have read it, make a new key");
}

static void check_keys(struct doctor *d)
{
        _cleanup_free_ char *dir = mem_strdup(d->conf->allowed_signers);
        char *slash = strrchr(dir, '/');

        if (!slash || slash == dir)
                return;
        *slash = '\0';
        DIR *f = opendir(dir);
        for (struct dirent *e; f && (e = readdir(f));)
                check_key(d, dir, e->d_name);
        if (f)
                closedir(f);
}

/* Only its hash is here; without it the broker lets nobody in. */
static void check_gateway(struct doctor *d)
{
        const struct conf *conf = d->conf;
        _cleanup_err_ struct err *err = NULL;
        char hex[CONF_TOKEN_HEX];

        if (!getpwnam(conf->broker_user))
                return; /* said where users are looked at */
        if (!conf->gateway_auth)
                doctor_add(d, "gateway token", DOCTOR_WARNING, "gateway.auth is none: whoever reaches the port can call every tool",
                           "set gateway.auth: token");
        else if (access(conf->gateway_token, R_OK) < 0 && errno == EACCES)
                doctor_add(d, "gateway token", DOCTOR_OK, "its hash can be read by root and the broker only", NULL);
        else if (conf_gateway_token(hex, conf, &err) < 0)
                doctor_add(d, "gateway token", DOCTOR_ERROR, err_msg(err),
                           "make a token (openssl rand -hex 32), and put the output of `printf %s TOKEN | sha256sum | cut -c-64` there, "
                           "owner root");
        else
                doctor_add(d, "gateway token", DOCTOR_OK, conf->gateway_token, NULL);
}

void doctor_check_files(struct doctor *d)
{
        check_conf(d);
        if (!d->conf)
                return;
        check_signers(d);
        check_keys(d);
        check_registry(d);
        check_approvals(d);
        check_gateway(d);
}
