#include "common/policy/pattern.h"

extern "C" {
#include "common/err.h"
}

#include <re2/re2.h>
#include <re2/set.h>

#include <string>
#include <vector>

struct pattern {
        re2::RE2 re;
        pattern(const char *expression, const re2::RE2::Options &options) : re(expression, options)
        {
        }
};

struct pattern_set {
        re2::RE2::Set set;
        mutable std::vector<int> found; /* kept for its memory */
        explicit pattern_set(const re2::RE2::Options &options) : set(options, re2::RE2::UNANCHORED)
        {
        }
};

/* For programs and their automata: enough for sensible expressions, and a bound for the others. */
static const int64_t memory_one = 256 << 10, memory_set = 8 << 20;

static re2::RE2::Options options_for(unsigned flags, int64_t memory)
{
        re2::RE2::Options options;

        options.set_encoding(re2::RE2::Options::EncodingUTF8);
        options.set_case_sensitive(!(flags & PATTERN_FOLD));
        options.set_log_errors(false);
        options.set_never_capture(true);
        options.set_max_mem(memory);
        return options;
}

extern "C" int pattern_new(struct pattern **ret, const char *expression, unsigned flags, struct err **err)
{
        struct pattern *p = new struct pattern(expression, options_for(flags, memory_one));

        if (!p->re.ok()) {
                err_set(err, ERR_INVALID, "not a regular expression that can be matched in linear time: %.200s", p->re.error().c_str());
                delete p;
                return -1;
        }
        *ret = p;
        return 0;
}

extern "C" struct pattern *pattern_free(struct pattern *p)
{
        delete p;
        return nullptr;
}

extern "C" bool pattern_search(const struct pattern *p, const char *text, size_t n)
{
        return re2::RE2::PartialMatch(re2::StringPiece(text, n), p->re);
}

extern "C" int pattern_set_new(struct pattern_set **ret, const char *const *expressions, size_t n, struct err **err)
{
        struct pattern_set *s = new struct pattern_set(options_for(PATTERN_FOLD, memory_set));
        std::string why;

        for (size_t i = 0; i < n; i++) {
                if (s->set.Add(expressions[i], &why) < 0) {
                        err_set(err, ERR_INVALID, "not a regular expression that can be matched in linear time: %.200s", why.c_str());
                        delete s;
                        return -1;
                }
        }
        if (!s->set.Compile()) {
                err_set(err, ERR_INVALID, "these expressions together need more than %lld MiB; make them simpler", (long long)(memory_set >> 20));
                delete s;
                return -1;
        }
        s->found.reserve(n);
        *ret = s;
        return 0;
}

extern "C" struct pattern_set *pattern_set_free(struct pattern_set *s)
{
        delete s;
        return nullptr;
}

extern "C" int pattern_set_search(const struct pattern_set *s, const char *text, size_t n, uint64_t *hits)
{
        re2::RE2::Set::ErrorInfo info;

        *hits = 0;
        /* Whether any is there is cheaper to learn than which, and nearly always none is. */
        if (!s->set.Match(re2::StringPiece(text, n), nullptr, &info) || !s->set.Match(re2::StringPiece(text, n), &s->found, &info))
                return info.kind == re2::RE2::Set::kNoError ? 0 : -1;
        for (int i : s->found)
                *hits |= UINT64_C(1) << i;
        return 0;
}
