/*
 * The Engine's line streams: the first byte says where to split. Lines come out the same however they are split; none is over the bound;
 * each goes through the pull's reader, and as an answer of every kind through the answer's.
 */
#include <stdint.h>

#include "common/engine/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LINE_MAX_BYTES 512

struct seen {
        struct buf lines;
        struct pull_progress pull;
};

static int take(const char *line, size_t n, void *user, _unused_ struct err **err)
{
        struct seen *s = user;

        if (n > LINE_MAX_BYTES || (line && (n == 0 || line[n] != '\0')))
                abort();
        buf_addf(&s->lines, "%zu:", n);
        if (line)
                buf_add(&s->lines, line, n);
        pull_progress_line(&s->pull, line, n);
        if (s->pull.n_layers > PULL_LAYERS_MAX || (s->pull.error && strlen(s->pull.error) > ENGINE_MESSAGE_MAX))
                abort();
        return 0;
}

static void feed(struct seen *s, const char *data, size_t size, size_t step)
{
        struct lines lines = {.max = LINE_MAX_BYTES};
        int r = 0;

        for (size_t i = 0; i < size && r == 0; i += step)
                r = lines_feed(&lines, data + i, MIN(step, size - i), take, s, NULL);
        if (r < 0 || lines_end(&lines, take, s, NULL) < 0)
                abort();
        lines_deinit(&lines);
}

static void answers(const char *data, size_t size)
{
        static const int statuses[] = {200, 204, 304, 400, 403, 404, 409, 500};
        _cleanup_free_ char *text = mem_strndup(data, 0);

        /* NUL-terminated, as a buf is. */
        text = mem_realloc(text, size + 1, 1);
        memcpy(text, data, size);
        text[size] = '\0';
        for (size_t i = 0; i < ELEMENTSOF(statuses); i++) {
                _cleanup_err_ struct err *err = NULL;
                _cleanup_json_ json_object *body = NULL;
                int r = answer_parse(&body, statuses[i], "GET /x", text, size, &err);
                if ((r < 0) != (err != NULL) || (r < 0 && body))
                        abort();
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct seen one = {0}, two = {0};
        const char *text = (const char *)data + 1;

        if (size == 0)
                return 0;
        size--;
        feed(&one, text, size, size + 1);
        feed(&two, text, size, (size_t)data[0] + 1);
        if (one.lines.len != two.lines.len || (one.lines.len > 0 && memcmp(one.lines.data, two.lines.data, one.lines.len) != 0))
                abort();
        if (one.pull.current != two.pull.current || one.pull.total != two.pull.total || one.pull.n_garbage != two.pull.n_garbage)
                abort();
        answers(text, size);
        buf_deinit(&one.lines);
        buf_deinit(&two.lines);
        pull_progress_deinit(&one.pull);
        pull_progress_deinit(&two.pull);
        return 0;
}
