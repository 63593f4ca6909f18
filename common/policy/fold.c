#include "common/policy/fold.h"

#include <unicase.h>
#include <unictype.h>
#include <uninorm.h>
#include <unistr.h>

#define IDEOGRAPHIC_FULL_STOP 0x3002 /* a dot in host names (UTS 46), which NFKC leaves alone */

static bool is_dropped(ucs4_t c)
{
        if (c == '\t' || c == '\n' || c == '\r')
                return false;
        return c < 0x20 || (c >= 0x7f && c <= 0x9f) || (c > 0x9f && uc_is_property_default_ignorable_code_point(c));
}

/* Stays as it is, and cannot be composed with what stands before it. */
static bool compute_inert(ucs4_t c)
{
        uint8_t bytes[6], folded[64];
        size_t n_folded = sizeof(folded);
        int n = u8_uctomb(bytes, c, sizeof(bytes));

        /* Marks compose with what is before them, whatever their class; so do the parts of Hangul syllables. */
        if (n < 0 || is_dropped(c) || c == IDEOGRAPHIC_FULL_STOP || (c >= 0x1100 && c <= 0x11ff) ||
            uc_is_general_category_withtable(c, UC_CATEGORY_MASK_M))
                return false;
        uint8_t *out = u8_casefold(bytes, (size_t)n, NULL, UNINORM_NFKC, folded, &n_folded);
        bool same = out && n_folded == (size_t)n && memcmp(out, bytes, (size_t)n) == 0;
        if (out != folded)
                free(out);
        return same;
}

static bool is_inert(ucs4_t c)
{
        static unsigned char known[0x10000 / 4]; /* two bits each: looked up, and what came out */

        if (c < 0x80)
                return c >= 0x20 && c != 0x7f;
        if (c > 0xffff) /* symbols and ideographs, without the compatibility ones */
                return (c >= 0x1f300 && c <= 0x1faff) || (c >= 0x20000 && c < 0x2f800);
        unsigned shift = c % 4 * 2, bits = (unsigned)known[c / 4] >> shift & 3U;
        if (bits == 0) {
                bits = compute_inert(c) ? 3 : 1;
                known[c / 4] = (unsigned char)(known[c / 4] | bits << shift);
        }
        return bits == 3;
}

static void add_kept(struct buf *out, const uint8_t *s, size_t n)
{
        for (size_t i = 0; i < n;) {
                ucs4_t c;
                int length = u8_mbtouc(&c, s + i, n - i);

                if (c == IDEOGRAPHIC_FULL_STOP)
                        buf_addc(out, '.');
                else if (!is_dropped(c))
                        buf_add(out, s + i, (size_t)length);
                i += (size_t)length;
        }
}

static bool fold_segment(struct buf *out, const uint8_t *s, size_t n, size_t *budget)
{
        uint8_t small[256];
        size_t n_folded = sizeof(small);

        if (n > *budget)
                return false;
        uint8_t *folded = u8_casefold(s, n, NULL, UNINORM_NFKC, small, &n_folded);
        if (!folded)
                abort();
        bool enough = MAX(n_folded, n) <= *budget;
        if (enough) {
                *budget -= MAX(n_folded, n);
                add_kept(out, folded, n_folded);
        }
        if (folded != small)
                free(folded);
        return enough;
}

/* Segments end where two inert characters meet: the first of them may compose with a mark behind it, the second with nothing before it. */
bool fold_text(struct buf *text, struct buf *work, size_t *budget)
{
        const uint8_t *s = (const uint8_t *)text->data;
        size_t n = text->len, last = 0, i = 0; /* last: where the inert character before i begins; i itself when there is none */
        struct buf swap;

        work->len = 0;
        buf_reserve(work, n + 1);
        while (i < n) {
                ucs4_t c;
                size_t length = (size_t)u8_mbtouc(&c, s + i, n - i);

                if (is_inert(c)) {
                        add_kept(work, s + last, i - last);
                        last = i;
                        i += length;
                        continue;
                }
                for (i += length; i < n; i += length) {
                        length = (size_t)u8_mbtouc(&c, s + i, n - i);
                        if (is_inert(c))
                                break;
                }
                if (!fold_segment(work, s + last, i - last, budget))
                        return false;
                last = i;
        }
        add_kept(work, s + last, n - last);
        for (size_t k = 0; k < work->len; k++)
                work->data[k] = (char)(work->data[k] >= 'A' && work->data[k] <= 'Z' ? work->data[k] | 0x20 : work->data[k]);
        swap = *text;
        *text = *work;
        *work = swap;
        return true;
}
