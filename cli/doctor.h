/*
 * The checks of `bulkhead doctor` that need no daemon: host, kernel, programs, permissions. Each adds one line of what it found and, where
 * something is wrong, what to do.
 */
#pragma once

#include "cli/cli.h"

struct doctor {
        struct cli *c;
        const struct conf *conf; /* NULL when it could not be loaded */
        json_object *checks;     /* [{"name", "ok", "level": "ok"|"warning"|"error", "detail", "remedy"}] */
};
enum doctor_level { DOCTOR_OK, DOCTOR_WARNING, DOCTOR_ERROR };
void doctor_add(struct doctor *d, const char *name, enum doctor_level level, const char *detail, const char *remedy);

void doctor_check_files(struct doctor *d); /* configuration, allowed_signers, registry, keys, approvals repository */
void doctor_check_host(struct doctor *d);  /* users, programs, kernel, Engine's socket */
