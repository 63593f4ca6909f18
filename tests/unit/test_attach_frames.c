#include "common/engine/engine.h"
#include "tests/unit/test.h"

struct taken {
        struct buf out[3];
        unsigned n_chunks;
};

static void take(int stream, const void *data, size_t n, void *user)
{
        struct taken *t = user;

        assert_true(stream == 1 || stream == 2);
        assert_true(n > 0);
        buf_add(&t->out[stream], data, n);
        t->n_chunks++;
}

static void taken_deinit(struct taken *t)
{
        for (size_t i = 0; i < ELEMENTSOF(t->out); i++)
                buf_deinit(&t->out[i]);
}

static void add_frame(struct buf *b, int stream, const char *data, size_t n)
{
        unsigned char h[8] = {(unsigned char)stream, 0, 0, 0, (unsigned char)(n >> 24), (unsigned char)(n >> 16), (unsigned char)(n >> 8),
                              (unsigned char)n};

        buf_add(b, h, sizeof(h));
        buf_add(b, data, n);
}

static struct buf three_frames(void)
{
        struct buf b = {0};

        add_frame(&b, 1, "out 1\n", 6);
        add_frame(&b, 2, "", 0);
        add_frame(&b, 2, "error\n", 6);
        add_frame(&b, 1, "out\0\377\n", 6);
        return b;
}

static void check(const struct taken *t)
{
        assert_int_equal(t->out[1].len, 12);
        assert_memory_equal(t->out[1].data, "out 1\nout\0\377\n", 12);
        assert_int_equal(t->out[2].len, 6);
        assert_memory_equal(t->out[2].data, "error\n", 6);
}

static void test_whole(_unused_ void **state)
{
        _cleanup_buf_ struct buf b = three_frames();
        _cleanup_(taken_deinit) struct taken t = {0};
        struct attach_frames f = {0};
        struct err *err = NULL;

        assert_ok(attach_frames_feed(&f, b.data, b.len, take, &t, &err));
        check(&t);
        assert_int_equal(t.n_chunks, 3);
}

static void test_every_split(_unused_ void **state)
{
        _cleanup_buf_ struct buf b = three_frames();
        struct err *err = NULL;

        for (size_t i = 0; i <= b.len; i++)
                for (size_t j = i; j <= b.len; j++) {
                        _cleanup_(taken_deinit) struct taken t = {0};
                        struct attach_frames f = {0};
                        assert_ok(attach_frames_feed(&f, b.data, i, take, &t, &err));
                        assert_ok(attach_frames_feed(&f, b.data + i, j - i, take, &t, &err));
                        assert_ok(attach_frames_feed(&f, b.data + j, b.len - j, take, &t, &err));
                        check(&t);
                }
}

static void test_byte_by_byte(_unused_ void **state)
{
        _cleanup_buf_ struct buf b = three_frames();
        _cleanup_(taken_deinit) struct taken t = {0};
        struct attach_frames f = {0};
        struct err *err = NULL;

        for (size_t i = 0; i < b.len; i++)
                assert_ok(attach_frames_feed(&f, b.data + i, 1, take, &t, &err));
        check(&t);
}

static void test_refused(_unused_ void **state)
{
        static const unsigned char bad[][8] = {{0, 0, 0, 0, 0, 0, 0, 1}, {3, 0, 0, 0, 0, 0, 0, 1},
                                               {1, 1, 0, 0, 0, 0, 0, 1}, {1, 0, 1, 0, 0, 0, 0, 1},
                                               {1, 0, 0, 1, 0, 0, 0, 1}, {'H', 'T', 'T', 'P', '/', '1', '.', '1'}};
        _cleanup_(taken_deinit) struct taken t = {0};
        struct err *err = NULL;

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                struct attach_frames f = {0};
                assert_fails(attach_frames_feed(&f, bad[i], 8, take, &t, &err), "not the beginning of a frame");
        }
        assert_int_equal(t.n_chunks, 0);
}

static void test_length(_unused_ void **state)
{
        static const unsigned char just[8] = {1, 0, 0, 0, 1, 0, 0, 0}, over[8] = {1, 0, 0, 0, 1, 0, 0, 1},
                                   huge[8] = {2, 0, 0, 0, 255, 255, 255, 255};
        _cleanup_(taken_deinit) struct taken t = {0};
        struct attach_frames f = {0};
        struct err *err = NULL;

        assert_ok(attach_frames_feed(&f, just, 8, take, &t, &err));
        f = (struct attach_frames){0};
        assert_fails(attach_frames_feed(&f, over, 8, take, &t, &err), "over the limit");
        f = (struct attach_frames){0};
        assert_fails(attach_frames_feed(&f, huge, 8, take, &t, &err), "4294967295");
        f = (struct attach_frames){.max_frame = 100};
        assert_fails(attach_frames_feed(&f, "\1\0\0\0\0\0\0\145", 8, take, &t, &err), "101 bytes");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_whole),   cmocka_unit_test(test_every_split), cmocka_unit_test(test_byte_by_byte),
                cmocka_unit_test(test_refused), cmocka_unit_test(test_length),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
