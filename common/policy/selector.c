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
        s->globs[s->n_globs++] = (struct glob){mem_strndup(text, (size_t)(colon - text)), mem_strdup(colon + 1), 0, 0};
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

bool selector_match(const struct selector *s, const char *server, const char *tool, unsigned action_bits)
{
        bool found = (s->actions & action_bits) != 0;

        for (size_t i = 0; i < s->n_globs; i++) {
                bool of_server = glob_match(s->globs[i].server, server), of_tool = glob_match(s->globs[i].tool, tool);

                found |= of_server & of_tool;
        }
        return found;
}

bool selector_reaches(const struct selector *s, const char *server)
{
        bool found = s->actions != 0;

        for (size_t i = 0; i < s->n_globs; i++)
                found |= glob_match(s->globs[i].server, server);
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
