#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/text.h"

static enum log_level max_level = LOG_LEVEL_INFO;

void log_set_level(enum log_level max)
{
        max_level = max;
}

/* In quotes where it holds what ends a value; quotes of its own must not end it, or it could go on as another key. */
static void add_value(struct buf *line, const char *value)
{
        _cleanup_free_ char *safe = text_escape(value);

        if (*safe && !strpbrk(safe, " \"=")) {
                buf_adds(line, safe);
                return;
        }
        buf_addc(line, '"');
        for (const char *p = safe; *p; p++) {
                if (*p == '"')
                        buf_addc(line, '\\');
                buf_addc(line, *p);
        }
        buf_addc(line, '"');
}

void log_write(enum log_level level, const char *message, ...)
{
        _cleanup_buf_ struct buf line = {0};
        va_list ap;

        if (level > max_level)
                return;
        if (!isatty(STDERR_FILENO))
                buf_addf(&line, "<%d>", (int)level);
        buf_adds(&line, message);

        va_start(ap, message);
        for (const char *key; (key = va_arg(ap, const char *));) {
                const char *value = va_arg(ap, const char *);
                if (!value)
                        break;
                buf_addf(&line, " %s=", key);
                add_value(&line, value);
        }
        va_end(ap);
        buf_addc(&line, '\n');
        /* One write, so that lines of several processes do not mix; nowhere to report a failure of the log itself. */
        (void)!write(STDERR_FILENO, line.data, line.len);
}
