#include "common/policy/selector.h"

#include <ctype.h>

#include "common/text.h"

static const char *const class_names[] = {"read", "write", "network", "credential", "exec", "unknown"};

const char *action_class_name(enum action_class action)
{
        return class_names[action];
}

int action_class_parse(const char *word)
{
        for (int i = 0; i < ACTION_CLASSES; i++)
                if (str_eq(class_names[i], word))
                        return i;
        return -1;
}

static bool same(char a, char b, bool fold)
{
        return a == b || (fold && tolower((unsigned char)a) == tolower((unsigned char)b));
}

/* Going back to the last star is enough, so the work is at most the product of both lengths, which are bounded. */
static bool match(const char *glob, const char *name, size_t n, bool fold)
{
        const char *star = NULL, *retry = NULL, *end = name + n;

        while (name < end) {
                if (*glob == '*') {
                        star = ++glob;
                        retry = name;
                } else if (*glob && (*glob == '?' || same(*glob, *name, fold))) {
                        glob++;
                        name++;
                } else if (star) {
                        glob = star;
                        name = ++retry;
                } else {
                        return false;
                }
        }
        while (*glob == '*')
                glob++;
        return *glob == '\0';
}

bool glob_match(const char *glob, const char *name)
{
        return match(glob, name, strlen(name), false);
}

bool glob_match_folded(const char *glob, const char *name, size_t n)
{
        return match(glob, name, n, true);
}

int selector_add(struct selector *s, const char *text, struct err **err)
{
        const char *colon = strchr(text, ':');
        int action = action_class_parse(text);

        if (action >= 0) {
                s->actions |= 1U << action;
                return 0;
        }
        if (!colon || colon == text || !colon[1]) {
                _cleanup_free_ char *shown = text_escape(text);
                return err_set(err, ERR_INVALID,
                               "\"%.100s\" is no action class (read, write, network, credential, exec) and no glob such as github:*",
                               shown);
        }
        s->globs = mem_realloc(s->globs, s->n_globs + 1, sizeof(*s->globs));
        s->globs[s->n_globs++] = (struct glob){.server = mem_strndup(text, (size_t)(colon - text)),
                                               .tool = mem_strdup(colon + 1),
                                               .server_head = MIN(strcspn(text, "*?"), (size_t)(colon - text)),
                                               .tool_head = strcspn(colon + 1, "*?")};
        return 0;
}

unsigned action_bits_restricting(enum action_class action)
{
        return action == ACTION_UNKNOWN ? (1U << ACTION_CLASSES) - 1 : 1U << action;
}

unsigned action_bits_granting(enum action_class action)
{
        return action == ACTION_UNKNOWN ? 0 : 1U << action;
}

/* Most globs are a name, or the beginning of one: what stands before the first wildcard is compared at once. */
static bool match_headed(const char *glob, size_t head, const char *name, size_t n)
{
        if (n < head || memcmp(glob, name, head) != 0)
                return false;
        glob += head;
        if (glob[0] == '*' && glob[1] == '\0')
                return true;
        return match(glob, name + head, n - head, false);
}

bool selector_match(const struct selector *s, const char *server, const char *tool, unsigned action_bits)
{
        bool found = (s->actions & action_bits) != 0;
        size_t n_server = strlen(server), n_tool = strlen(tool);

        for (size_t i = 0; i < s->n_globs; i++) {
                const struct glob *g = &s->globs[i];
                bool of_server = match_headed(g->server, g->server_head, server, n_server);
                bool of_tool = match_headed(g->tool, g->tool_head, tool, n_tool);

                found |= of_server & of_tool;
        }
        return found;
}

bool selector_reaches(const struct selector *s, const char *server)
{
        bool found = s->actions != 0;
        size_t n = strlen(server);

        for (size_t i = 0; i < s->n_globs; i++)
                found |= match_headed(s->globs[i].server, s->globs[i].server_head, server, n);
        return found;
}

void selector_deinit(struct selector *s)
{
        for (size_t i = 0; i < s->n_globs; i++) {
                free(s->globs[i].server);
                free(s->globs[i].tool);
        }
        free(s->globs);
        *s = (struct selector){0};
}
