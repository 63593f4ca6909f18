/*
 * libcurl's multi interface inside an sd-event loop: its sockets and its one timer become event sources. Used by the Engine client.
 *
 * Rule that keeps it safe: curl's own callbacks only store bytes and flags. Whatever may run other people's code, or add and remove
 * transfers, runs in turn(), after curl has returned.
 */
#pragma once

#include <curl/curl.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/err.h"

struct curl_loop;

/* curl has worked: transfers may be over (curl_loop_next()) and bytes may have been stored. May free the loop. */
typedef void (*curl_loop_turn_fn)(void *user);

/* max_idle: connections that are kept, those in use counted. */
_must_check_ int curl_loop_new(struct curl_loop **ret, sd_event *loop, unsigned max_idle, curl_loop_turn_fn turn, void *user,
                               struct err **err);
/* All transfers must have been removed. */
struct curl_loop *curl_loop_free(struct curl_loop *l);
DEFINE_FREEP(struct curl_loop *, curl_loop_free)

/* Adds a transfer; it begins on the loop's next turn. */
void curl_loop_add(struct curl_loop *l, CURL *easy);
/*
 * Adds a transfer and begins it now: on a kept connection the request has gone out when this returns. turn() is not called from here, but
 * from the loop when a transfer is over already.
 */
void curl_loop_start(struct curl_loop *l, CURL *easy);
/* turn() is called on the loop's next turn. */
void curl_loop_kick(struct curl_loop *l);
/* Takes a transfer out; one that is not over loses its connection. Not from curl's callbacks. */
void curl_loop_remove(struct curl_loop *l, CURL *easy);
/* The next transfer that is over, with its outcome; false when there is none. It still has to be removed. */
bool curl_loop_next(struct curl_loop *l, CURL **easy, CURLcode *code);
