/*
 * Finding tools by words: BM25 over name, description and parameters, with the words of names weighing most. What is looked through is
 * given by the caller, who knows what may be seen: even how rare a word is, is counted among those alone. Pure; used by the catalogue.
 *
 * Source: S. Robertson, H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), 3.1 and 3.5 (weighted fields).
 */
#pragma once

#include "common/mcp/message.h"

#define WORDS_MAX_QUERY 32U   /* words of a query that count */
#define WORDS_MAX_TOOL  2048U /* different words of one tool */

/* The words of one tool. Zero-initialised. */
struct words {
        struct word {
                uint32_t hash;
                float weight; /* how often, by where it stood */
        } * items;            /* sorted by hash */
        size_t n;
        float length;
};
void words_init(struct words *w, const char *server, const char *name, const char *description, struct mcp_slice schema);
void words_deinit(struct words *w);

struct words_hit {
        size_t place; /* in the array that was looked through */
        double score;
};
/*
 * The best of n tools, best first; at most `max`, only those that have a word of the query; equal ones in the order of the array. Returns
 * how many. query is UTF-8 text.
 */
size_t words_search(struct words_hit *hits, size_t max, const struct words *const *tools, size_t n, const char *query);
