#include "broker/agents/words.h"

#include <ctype.h>
#include <math.h>

#define K1          1.2
#define B           0.6
#define MAX_WORD    48U
#define IN_NAME     4.0F
#define IN_TEXT     1.0F
#define IN_KEYS     0.8F /* names of parameters */
#define IN_KEY_TEXT 0.3F /* what is said about them */

/* -- words --------------------------------------------------------------------------------------------------------------------- */
struct adding {
        struct words *words;
        size_t cap;
};

/* FNV-1a. Words that fall together are no worse than a bad hit. */
static uint32_t hash_of(const char *s, size_t n)
{
        uint32_t h = 2166136261U;

        for (size_t i = 0; i < n; i++)
                h = (h ^ (unsigned char)s[i]) * 16777619U;
        return h;
}

static bool ends(const char *word, size_t n, const char *suffix)
{
        size_t k = strlen(suffix);

        return n > k + 2 && memcmp(word + n - k, suffix, k) == 0;
}

/* English plurals and endings of verbs: both sides are cut alike, and that is all it is for. */
static size_t stem(char *word, size_t n)
{
        if (ends(word, n, "ies")) {
                word[n - 3] = 'y';
                n -= 2;
        } else if (ends(word, n, "sses") || ends(word, n, "xes") || ends(word, n, "ches") || ends(word, n, "shes")) {
                n -= 2;
        } else if (ends(word, n, "s") && word[n - 2] != 's' && word[n - 2] != 'u') {
                n--;
        }
        if (ends(word, n, "ing"))
                n -= 3;
        else if (ends(word, n, "ed"))
                n -= 2;
        if (n > 3 && word[n - 1] == word[n - 2] && !strchr("aeiouls", word[n - 1]))
                n--;
        if (n > 3 && word[n - 1] == 'e')
                n--;
        return n;
}

/* A few that say nothing about a tool. */
static bool is_noise(const char *w, size_t n)
{
        static const char *const noise[] = {"a",    "an",  "and",  "are", "as",   "at",  "be",   "by", "can", "for",
                                            "from", "i",   "in",   "is",  "it",   "me",  "my",   "of", "on",  "or",
                                            "that", "the", "this", "to",  "tool", "use", "with", "you"};

        for (size_t i = 0; i < ELEMENTSOF(noise); i++)
                if (strlen(noise[i]) == n && memcmp(noise[i], w, n) == 0)
                        return true;
        return false;
}

typedef void (*word_fn)(void *user, const char *word, size_t n);

static bool is_letter(unsigned char c)
{
        return isalnum(c) || c >= 0x80;
}

/* snake_case, kebab-case and camelCase come apart. */
static void split(const char *text, size_t n, word_fn found, void *user)
{
        char word[MAX_WORD];
        size_t len = 0;

        for (size_t i = 0; i <= n; i++) {
                unsigned char c = i < n ? (unsigned char)text[i] : ' ';
                bool hump = i > 0 && i < n && isupper(c) && (islower((unsigned char)text[i - 1]) || isdigit((unsigned char)text[i - 1]));

                if (len && (!is_letter(c) || hump)) {
                        if (!is_noise(word, len))
                                found(user, word, stem(word, len));
                        len = 0;
                }
                if (is_letter(c) && len < MAX_WORD)
                        word[len++] = (char)tolower(c);
        }
}

struct weighing {
        struct adding *to;
        float weight;
};

static void add_word(void *user, const char *word, size_t n)
{
        struct weighing *w = user;
        struct words *words = w->to->words;

        if (words->n >= 8 * WORDS_MAX_TOOL)
                return;
        if (words->n == w->to->cap) {
                w->to->cap = w->to->cap ? 2 * w->to->cap : 32;
                words->items = mem_realloc(words->items, w->to->cap, sizeof(struct word));
        }
        words->items[words->n++] = (struct word){hash_of(word, n), w->weight};
}

static void add_text(struct adding *to, const char *text, float weight)
{
        struct weighing w = {to, weight};

        split(text, strlen(text), add_word, &w);
}

static int by_hash(const void *a, const void *b)
{
        uint32_t x = ((const struct word *)a)->hash, y = ((const struct word *)b)->hash;

        return (x > y) - (x < y);
}

static void settle(struct words *w)
{
        size_t kept = 0;

        if (w->n)
                qsort(w->items, w->n, sizeof(struct word), by_hash);
        for (size_t i = 0; i < w->n; i++) {
                w->length += w->items[i].weight;
                if (kept && w->items[kept - 1].hash == w->items[i].hash)
                        w->items[kept - 1].weight += w->items[i].weight;
                else
                        w->items[kept++] = w->items[i];
        }
        w->n = MIN(kept, (size_t)WORDS_MAX_TOOL);
}

void words_init(struct words *w, const char *server, const char *name, const char *description, struct mcp_slice schema)
{
        struct mcp_slice properties = mcp_is_object(schema) ? mcp_object_get(schema, "properties") : (struct mcp_slice){0}, key, value;
        struct adding to = {w, 0};
        size_t pos = 0;

        add_text(&to, server, IN_TEXT);
        add_text(&to, name, IN_NAME);
        if (description)
                add_text(&to, description, IN_TEXT);
        while (mcp_is_object(properties) && mcp_object_next(properties, &pos, &key, &value) == 1) {
                _cleanup_free_ char *plain = mem_strndup(key.at, key.n), *about = NULL;

                add_text(&to, plain, IN_KEYS);
                if (mcp_is_object(value) && (about = mcp_string(mcp_object_get(value, "description"))))
                        add_text(&to, about, IN_KEY_TEXT);
        }
        settle(w);
}

void words_deinit(struct words *w)
{
        free(w->items);
        *w = (struct words){0};
}

/* -- looking ------------------------------------------------------------------------------------------------------------------- */
struct query {
        uint32_t hashes[WORDS_MAX_QUERY];
        unsigned in_tools[WORDS_MAX_QUERY];
        double rarity[WORDS_MAX_QUERY];
        size_t n;
};

static void add_query(void *user, const char *word, size_t n)
{
        struct query *q = user;
        uint32_t hash = hash_of(word, n);

        for (size_t i = 0; i < q->n; i++)
                if (q->hashes[i] == hash)
                        return;
        if (q->n < WORDS_MAX_QUERY)
                q->hashes[q->n++] = hash;
}

static float weight_of(const struct words *w, uint32_t hash)
{
        size_t low = 0, high = w->n;

        while (low < high) {
                size_t mid = low + (high - low) / 2;

                if (w->items[mid].hash < hash)
                        low = mid + 1;
                else
                        high = mid;
        }
        return low < w->n && w->items[low].hash == hash ? w->items[low].weight : 0;
}

/* Keeps hits sorted; what is worse than the last of a full list falls out. */
static size_t insert(struct words_hit *hits, size_t n, size_t max, struct words_hit hit)
{
        size_t i = n;

        if (n == max && (max == 0 || hits[n - 1].score >= hit.score))
                return n;
        if (n == max)
                i--;
        for (; i > 0 && hits[i - 1].score < hit.score; i--)
                hits[i] = hits[i - 1];
        hits[i] = hit;
        return MIN(n + 1, max);
}

static double score_of(const struct query *q, const struct words *w, double average)
{
        double score = 0, norm = K1 * (1 - B + B * (double)w->length / average);

        for (size_t i = 0; i < q->n; i++) {
                double weight = (double)weight_of(w, q->hashes[i]);

                score += q->rarity[i] * weight * (K1 + 1) / (weight + norm);
        }
        return score;
}

size_t words_search(struct words_hit *hits, size_t max, const struct words *const *tools, size_t n, const char *query)
{
        struct query q = {0};
        double total = 0;
        size_t found = 0;

        split(query, strlen(query), add_query, &q);
        for (size_t t = 0; t < n; t++) {
                total += (double)tools[t]->length;
                for (size_t i = 0; i < q.n; i++)
                        q.in_tools[i] += weight_of(tools[t], q.hashes[i]) > 0;
        }
        for (size_t i = 0; i < q.n; i++)
                q.rarity[i] = log(1 + ((double)n - q.in_tools[i] + 0.5) / (q.in_tools[i] + 0.5));
        for (size_t t = 0; t < n && total > 0; t++) {
                double score = score_of(&q, tools[t], total / (double)n);

                if (score > 0)
                        found = insert(hits, found, max, (struct words_hit){t, score});
        }
        return found;
}
