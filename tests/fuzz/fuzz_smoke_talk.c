/*
 * What an untrusted server writes, through every reader of it: the first byte chooses. 'm' one message, 's' an event stream (in two cuts),
 * 'p' a page of each list and the manifest of it, 'f' framed standard output with lines and messages.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "common/mcp/sse.h"
#include "common/smoke/talk.h"
#include "common/smoke/talk_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void message(const char *text, size_t n)
{
        _cleanup_talk_message_ struct talk_message m = {.id = -1};

        if (talk_message_parse(&m, text, n, NULL) != 0)
                return;
        /* What was let through has what its kind promises. */
        if ((m.kind == TALK_RESULT && !m.result) || (m.kind == TALK_ERROR && !m.error) ||
            (m.kind == TALK_REQUEST && (!m.method || !m.id_json)))
                abort();
}

static int event(_unused_ const char *type, const char *data, size_t n, _unused_ void *user, _unused_ struct err **err)
{
        if (data[n] != '\0')
                abort();
        message(data, n);
        return 0;
}

static void events(const char *text, size_t n)
{
        struct sse_reader s = {.max = 4096};

        if (sse_reader_feed(&s, text, n / 3, event, NULL, NULL) == 0 && sse_reader_feed(&s, text + n / 3, n - n / 3, event, NULL, NULL) < 0)
                n = 0;
        sse_reader_deinit(&s);
}

static void pages(const char *text, size_t n)
{
        _cleanup_json_ json_object *o = NULL;

        if (json_parse(&o, text, n, "page", NULL, NULL) < 0)
                return;
        for (unsigned i = 0; i < TALK_N_LISTS; i++) {
                struct talk_manifest m = {0};
                _cleanup_free_ char *manifest = NULL;
                _cleanup_strv_ char **tools = NULL;
                const char *cursor;

                talk_manifest_begin(&m, (enum talk_list)i);
                if (talk_manifest_page(&m, (enum talk_list)i, o, &cursor, NULL) == 0 && talk_manifest_text(&m, &manifest, NULL) == 0)
                        tools = talk_manifest_tools(&m);
                talk_manifest_deinit(&m);
        }
}

static void frames(const char *text, size_t n)
{
        struct talk_io io;
        struct talk_stdio *t;
        int pair[2], r = 0;

        if (n > 65536 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
                return;
        t = talk_stdio_new(pair[0], 32768, &io);
        if (send(pair[1], text, n, MSG_DONTWAIT) < 0)
                r = -1;
        close(pair[1]);
        while (r == 0) {
                _cleanup_free_ char *line = NULL;
                long status;
                size_t len = 0;
                r = io.receive(io.self, &line, &len, &status, talk_now_ms() + 1000, NULL);
                if (r == 0)
                        message(line, len);
        }
        talk_stdio_free(t);
        close(pair[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        /* A copy of its exact size: reading past the end shows. */
        _cleanup_free_ char *text = size > 1 ? mem_dup(data + 1, size - 1) : NULL;

        if (!text)
                return 0;
        if (data[0] == 'm')
                message(text, size - 1);
        else if (data[0] == 's')
                events(text, size - 1);
        else if (data[0] == 'p')
                pages(text, size - 1);
        else if (data[0] == 'f')
                frames(text, size - 1);
        return 0;
}
