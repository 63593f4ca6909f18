/*
 * Logging: one call, a level, a message and key=value pairs, to standard error with journald's "<N>" prefixes
 * (plain text on a terminal). Used by daemons and helpers; the CLI prints instead.
 * Never pass a secret: a secret must not reach a formatter. Foreign text in values is escaped here.
 */
#pragma once

#include "common/err.h"
#include "common/macro.h"

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

/* Messages above this level are dropped. Default LOG_LEVEL_INFO. */
void log_set_level(enum log_level max);

/* log_write(LOG_LEVEL_INFO, "started", "server", name, "id", id, NULL): pairs of const char *, ended by NULL. A NULL value ends the list
 * too. */
void log_write(enum log_level level, const char *message, ...) __attribute__((sentinel));
#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__, NULL)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__, NULL)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__, NULL)
#define log_debug(...)   log_write(LOG_LEVEL_DEBUG, __VA_ARGS__, NULL)
