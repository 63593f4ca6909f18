/*
 * Main of a fuzz target in an ordinary build: runs every file of tests/fuzz/corpus/NAME/ (NAME = the program's, without "fuzz_") once.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *data = NULL;
        size_t n;

        if (file_read(&data, &n, path, 64U << 20, FILE_ANY, &err) < 0) {
                fprintf(stderr, "%s\n", err_msg(err));
                return -1;
        }
        LLVMFuzzerTestOneInput((const uint8_t *)data, n);
        return 0;
}

int main(_unused_ int argc, char **argv)
{
        const char *name = strrchr(argv[0], '/');
        const char *dash = strstr(name ? name : argv[0], "fuzz_");
        _cleanup_free_ char *dir = mem_printf("%s/fuzz/corpus/%s", TEST_DATA, dash ? dash + 5 : "");
        struct dirent **list;
        int failed = 0, n = scandir(dir, &list, NULL, alphasort), files = 0;

        if (n < 0) {
                fprintf(stderr, "no corpus %s\n", dir);
                return 1;
        }
        for (int i = 0; i < n; i++) {
                if (list[i]->d_name[0] != '.') {
                        _cleanup_free_ char *path = mem_printf("%s/%s", dir, list[i]->d_name);
                        failed |= replay(path) < 0;
                        files++;
                }
                free(list[i]);
        }
        free(list);
        printf("%d corpus files replayed\n", files);
        return failed || files == 0;
}
