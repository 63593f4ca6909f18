#include "cli/junit.h"

#include <inttypes.h>

#include "common/text.h"

static void add_escaped(struct buf *b, const char *s)
{
        /* XML 1.0 has no way to write most control characters: text_escape() turns them into words first. */
        _cleanup_free_ char *safe = text_escape(s ? s : "");

        for (const char *p = safe; *p; p++) {
                switch (*p) {
                case '&':
                        buf_adds(b, "&amp;");
                        break;
                case '<':
                        buf_adds(b, "&lt;");
                        break;
                case '>':
                        buf_adds(b, "&gt;");
                        break;
                case '"':
                        buf_adds(b, "&quot;");
                        break;
                default:
                        buf_addc(b, *p);
                }
        }
}

static void add_case(struct buf *b, const struct junit_case *c)
{
        const char *kind = c->error ? "error" : "failure", *why = c->error ? c->error : c->failure;

        buf_adds(b, "  <testcase classname=\"bulkhead.smoke\" name=\"");
        add_escaped(b, c->server);
        buf_addf(b, "\" time=\"%" PRIu64 ".%03" PRIu64 "\">\n", c->duration_ms / 1000, c->duration_ms % 1000);
        if (why) {
                buf_addf(b, "    <%s message=\"", kind);
                add_escaped(b, why);
                buf_adds(b, "\"/>\n");
        }
        if (c->output && *c->output) {
                buf_adds(b, "    <system-err>");
                add_escaped(b, c->output);
                buf_adds(b, "</system-err>\n");
        }
        buf_adds(b, "  </testcase>\n");
}

char *junit_write(const struct junit_case *cases, size_t n)
{
        struct buf b = {0};
        size_t failures = 0, errors = 0;
        uint64_t ms = 0;

        for (size_t i = 0; i < n; i++) {
                errors += cases[i].error != NULL;
                failures += !cases[i].error && cases[i].failure;
                ms += cases[i].duration_ms;
        }
        buf_addf(&b,
                 "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"bulkhead smoke\" tests=\"%zu\" failures=\"%zu\" "
                 "errors=\"%zu\" "
                 "time=\"%" PRIu64 ".%03" PRIu64 "\">\n",
                 n, failures, errors, ms / 1000, ms % 1000);
        for (size_t i = 0; i < n; i++)
                add_case(&b, &cases[i]);
        buf_adds(&b, "</testsuite>\n");
        return buf_take(&b);
}
