#include "cli/vet.h"

#include <ctype.h>
#include <strings.h>

#include "common/text.h"

#define MAX_FINDINGS 200
#define EXCERPT      60
#define LONG_TEXT    4000
#define BLOB         80
#define MAX_DEPTH    32

static const struct {
        const char *text; /* lower case */
        const char *signal;
} phrases[] = {
        {"ignore previous", "tells the model to ignore its instructions"},
        {"ignore all previous", "tells the model to ignore its instructions"},
        {"ignore the above", "tells the model to ignore its instructions"},
        {"disregard", "tells the model to ignore its instructions"},
        {"instead of following", "tells the model to ignore its instructions"},
        {"do not tell", "asks for secrecy"},
        {"don't tell", "asks for secrecy"},
        {"do not mention", "asks for secrecy"},
        {"don't mention", "asks for secrecy"},
        {"without telling", "asks for secrecy"},
        {"not visible to the user", "asks for secrecy"},
        {"<important", "text dressed up as markup for the model"},
        {"<system", "text dressed up as markup for the model"},
        {"<secret", "text dressed up as markup for the model"},
        {"[inst]", "text dressed up as markup for the model"},
        {"<|", "text dressed up as markup for the model"},
        {"system prompt", "speaks of the system prompt"},
        {"before using this tool", "gives orders that reach beyond the tool"},
        {"before calling this tool", "gives orders that reach beyond the tool"},
        {"before any other tool", "gives orders that reach beyond the tool"},
        {"always call", "gives orders that reach beyond the tool"},
        {"you must first", "gives orders that reach beyond the tool"},
        {".ssh/", "names files with secrets"},
        {"id_rsa", "names files with secrets"},
        {"/etc/passwd", "names files with secrets"},
        {".aws/", "names files with secrets"},
        {"mcp.json", "names files with secrets"},
        {"private key", "names secrets"},
        {"http://", "contains a link"},
        {"https://", "contains a link"},
        {"data:", "contains a data URL"},
};

static void add(json_object *list, const char *where, const char *signal, const char *at, size_t n)
{
        json_object *o;

        if (json_object_array_length(list) >= MAX_FINDINGS)
                return;
        o = json_object_new_object();
        json_add_str(o, "where", where);
        json_add_str(o, "signal", signal);
        /* Cut before a broken UTF-8 sequence: continuation bytes go with their first one. */
        n = MIN(n, (size_t)EXCERPT);
        while (n && ((unsigned char)at[n] & 0xc0) == 0x80)
                n--;
        _cleanup_free_ char *excerpt = mem_strndup(at, n);
        json_add_str(o, "excerpt", excerpt);
        json_object_array_add(list, o);
}

/* What text_escape() would escape, line ends, tabs and backslashes apart. */
static bool has_hidden(const char *s)
{
        _cleanup_free_ char *copy = mem_strdup(s);

        for (char *p = copy; *p; p++)
                if (strchr("\n\r\t\\", *p))
                        *p = ' ';
        _cleanup_free_ char *safe = text_escape(copy);
        return strchr(safe, '\\') != NULL;
}

static size_t blob_length(const char *s)
{
        return strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-");
}

static void vet_string(json_object *list, const char *where, const char *s)
{
        for (size_t i = 0; i < ELEMENTSOF(phrases); i++) {
                const char *at = strcasestr(s, phrases[i].text);
                if (at)
                        add(list, where, phrases[i].signal, at, strlen(at));
        }
        if (has_hidden(s))
                add(list, where, "hidden or direction-changing characters", s, strlen(s));
        if (strlen(s) > LONG_TEXT)
                add(list, where, "unusually long", s, strlen(s));
        for (const char *p = s; *p;) {
                size_t n = blob_length(p);
                if (n >= BLOB) {
                        add(list, where, "a long run of encoded-looking text", p, n);
                        break;
                }
                p += n ? n : 1;
        }
}

static void walk(json_object *list, const char *where, json_object *v, unsigned depth)
{
        if (depth > MAX_DEPTH)
                return;
        if (json_object_is_type(v, json_type_string)) {
                vet_string(list, where, json_object_get_string(v));
        } else if (json_object_is_type(v, json_type_array)) {
                for (size_t i = 0; i < json_object_array_length(v); i++) {
                        _cleanup_free_ char *inner = mem_printf("%s/%zu", where, i);
                        walk(list, inner, json_object_array_get_idx(v, i), depth + 1);
                }
        } else if (json_object_is_type(v, json_type_object)) {
                json_object_object_foreach (v, key, member) {
                        _cleanup_free_ char *inner = mem_printf("%s/%s", where, key);
                        /* A key reaches the model like any other text; "$schema" members hold links by their nature. */
                        vet_string(list, inner, key);
                        if (strcmp(key, "$schema") != 0)
                                walk(list, inner, member, depth + 1);
                }
        }
}

json_object *vet_manifest(json_object *manifest)
{
        json_object *list = json_object_new_array();

        walk(list, "", manifest, 0);
        return list;
}
