/* Preloaded into a process: writes or syncs of the database's files fail with EIO while a file `write` or `sync` lies
 * in the folder FAILING_DISK; while a file `quota` lies there, writes of every file beside the database fail with
 * EDQUOT. Everything else goes to the system as it is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int fails(const char *what, const char *whose, int file) {
    char link[64], path[4096], flag[4096];
    const char *folder = getenv("FAILING_DISK");
    if (folder == NULL) return 0;
    snprintf(flag, sizeof flag, "%s/%s", folder, what);
    if (access(flag, F_OK) != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, whose) != NULL;
}

#define PASS_ON(type, name, what, parameters, arguments)                \
    type name parameters {                                              \
        static type(*next) parameters;                                  \
        if (next == NULL) next = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
        if (fails(what, "charsmith.db", file)) {                        \
            errno = EIO;                                                \
            return -1;                                                  \
        }                                                               \
        if (what[0] == 'w' && fails("quota", "/data/", file)) {         \
            errno = EDQUOT;                                             \
            return -1;                                                  \
        }                                                               \
        return next arguments;                                          \
    }

PASS_ON(ssize_t, write, "write", (int file, const void *data, size_t size), (file, data, size))
PASS_ON(ssize_t, pwrite, "write", (int file, const void *data, size_t size, off_t at), (file, data, size, at))
PASS_ON(ssize_t, pwrite64, "write", (int file, const void *data, size_t size, off64_t at), (file, data, size, at))
PASS_ON(int, fsync, "sync", (int file), (file))
PASS_ON(int, fdatasync, "sync", (int file), (file))
