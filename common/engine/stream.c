#include "common/engine/stream.h"

#include <stdio.h>

static int end_line(struct lines *l, lines_fn line, void *user, struct err **err)
{
        _cleanup_buf_ struct buf part = l->part;
        bool too_long = l->too_long;

        l->part = (struct buf){0};
        l->too_long = false;
        if (too_long)
                return line(NULL, 0, user, err);
        if (part.len > 0 && part.data[part.len - 1] == '\r')
                part.data[--part.len] = '\0';
        return part.len > 0 ? line(part.data, part.len, user, err) : 0;
}

int lines_feed(struct lines *l, const char *data, size_t n, lines_fn line, void *user, struct err **err)
{
        while (n > 0) {
                const char *newline = memchr(data, '\n', n);
                size_t k = newline ? (size_t)(newline - data) : n;

                if (!l->too_long && k > l->max - l->part.len) {
                        l->too_long = true;
                        buf_deinit(&l->part);
                        l->part = (struct buf){0};
                }
                if (!l->too_long && k > 0)
                        buf_add(&l->part, data, k);
                data += k;
                n -= k;
                if (!newline)
                        break;
                data++;
                n--;
                if (end_line(l, line, user, err) < 0)
                        return -1;
        }
        return 0;
}

int lines_end(struct lines *l, lines_fn line, void *user, struct err **err)
{
        return end_line(l, line, user, err);
}

void lines_deinit(struct lines *l)
{
        buf_deinit(&l->part);
        *l = (struct lines){.max = l->max};
}

/* -- pull ------------------------------------------------------------------------------------------------------------------- */

static struct pull_layer *find_layer(struct pull_progress *p, const char *id)
{
        for (size_t i = 0; i < p->n_layers; i++)
                if (strncmp(p->layers[i].id, id, sizeof(p->layers[i].id) - 1) == 0)
                        return &p->layers[i];
        /* More layers than any image has are no reason to fail; they only do not count. */
        if (p->n_layers == PULL_LAYERS_MAX)
                return NULL;
        p->layers = mem_realloc(p->layers, p->n_layers + 1, sizeof(*p->layers));
        struct pull_layer *l = &p->layers[p->n_layers++];
        *l = (struct pull_layer){0};
        snprintf(l->id, sizeof(l->id), "%s", id);
        return l;
}

static uint64_t bytes(json_object *detail, const char *key)
{
        int64_t v = json_int(detail, key, 0);

        return v > 0 ? (uint64_t)v : 0;
}

static void take_progress(struct pull_progress *p, const char *id, const char *status, json_object *detail)
{
        uint64_t current = bytes(detail, "current"), total = bytes(detail, "total");
        struct pull_layer *l;

        /* Extraction counts from zero again; what was downloaded stays downloaded. */
        if (!id || !*id || !detail || !str_has_prefix(status, "Downloading"))
                return;
        l = find_layer(p, id);
        if (!l)
                return;
        l->total = MAX(l->total, total);
        l->current = MAX(l->current, current);
        p->current = p->total = 0;
        for (size_t i = 0; i < p->n_layers; i++) {
                /* Each is below 2^53 and there are at most 512: no overflow. */
                p->current += p->layers[i].current;
                p->total += p->layers[i].total;
        }
}

static void take_error(struct pull_progress *p, const char *text)
{
        static const char *const denied[] = {"unauthorized", "denied", "authentication required", "no basic auth", NULL};
        static const char *const missing[] = {"manifest unknown", "not found", "no matching manifest", "does not exist", NULL};

        mem_replace(&p->error, mem_strndup(text, strnlen(text, ENGINE_MESSAGE_MAX)));
        for (size_t i = 0; denied[i]; i++)
                p->denied = p->denied || strcasestr(p->error, denied[i]);
        for (size_t i = 0; missing[i]; i++)
                p->missing = p->missing || strcasestr(p->error, missing[i]);
}

void pull_progress_line(struct pull_progress *p, const char *line, size_t n)
{
        _cleanup_json_ json_object *o = NULL;
        const char *text, *status;

        if (!line || answer_json(&o, "pull", line, n, NULL) < 0 || !json_object_is_type(o, json_type_object)) {
                p->n_garbage++;
                return;
        }
        text = json_str(json_get(o, "errorDetail"), "message");
        if (!text)
                text = json_str(o, "error");
        if (!text && (json_get(o, "errorDetail") || json_get(o, "error")))
                text = "an error without a message";
        if (text && !p->error)
                take_error(p, text);
        status = json_str(o, "status");
        if (!status)
                return;
        snprintf(p->status, sizeof(p->status), "%s", status);
        take_progress(p, json_str(o, "id"), status, json_get(o, "progressDetail"));
}

void pull_progress_deinit(struct pull_progress *p)
{
        free(p->layers);
        free(p->error);
        *p = (struct pull_progress){0};
}
