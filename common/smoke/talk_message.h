/*
 * One JSON-RPC message as an untrusted MCP server sent it, checked. Pure functions of bytes: the first code that reads what a server wrote.
 * Used by the helper bulkhead-smoke-talk.
 *
 * Rules: JSON-RPC 2.0 and the MCP specification, "Messages" (basic/index), revisions 2024-11-05 to 2026-07-28.
 */
#pragma once

#include "common/json.h"
#include "common/manifest.h"

enum talk_kind { TALK_RESULT, TALK_ERROR, TALK_REQUEST, TALK_NOTIFICATION };

struct talk_message {
        enum talk_kind kind;
        int64_t id;           /* result, error: the id when it is an integer, else -1 (also when an error has none) */
        bool id_missing;      /* error without an id, or with null */
        json_object *id_json; /* request: string or integer, to be echoed. Borrowed from json, as everything below */
        const char *method;
        json_object *result;
        int64_t code;
        const char *error; /* foreign text, not escaped */
        json_object *data;
        json_object *json; /* owned */
};

#define TALK_MAX_DEPTH MANIFEST_DEPTH

/*
 * 0: *ret is a message (talk_message_deinit() frees it). 1: this is no message at all, e.g. a log line on standard output; *ret is
 * untouched. -1: it was meant as a message and breaks the rules; err says how, foreign text in it escaped.
 */
_must_check_ int talk_message_parse(struct talk_message *ret, const char *text, size_t n, struct err **err);
void talk_message_deinit(struct talk_message *m);
#define _cleanup_talk_message_ _cleanup_(talk_message_deinit)
