/* Lets the n-th call that touches a file below a folder fail, for tests: LD_PRELOAD this, then call fault_arm(n, errno, folder).
   Counted are read, write, pwrite, fsync, rename, mkdir, and open for reading and for writing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int armed, wanted, code, seen, once;
static char folder[PATH_MAX], what[64], where[PATH_MAX];

void fault_arm(int n, int error, const char *below, int only_once) {
    wanted = n; code = error; seen = 0; once = only_once; what[0] = where[0] = 0;
    strncpy(folder, below, sizeof folder - 1);
    armed = 1;
}
int fault_disarm(void) { armed = 0; return seen; }
const char *fault_what(void) { return what; }
const char *fault_where(void) { return where; }

static int hits(const char *call, const char *path) {
    if (!armed || !path || strncmp(path, folder, strlen(folder))) return 0;
    int number = __sync_add_and_fetch(&seen, 1);
    if (number < wanted || (once && number > wanted)) return 0;
    if (number == wanted) { strncpy(what, call, sizeof what - 1); strncpy(where, path, sizeof where - 1); }
    errno = code;
    return 1;
}
static int hits_file(const char *call, int number) {
    char link[64], path[PATH_MAX];
    if (!armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", number);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return hits(call, path);
}
#define REAL(name) ({ static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name); real; })

ssize_t read(int n, void *b, size_t c) { return hits_file("read", n) ? -1 : REAL(read)(n, b, c); }
ssize_t write(int n, const void *b, size_t c) { return hits_file("write", n) ? -1 : REAL(write)(n, b, c); }
ssize_t pwrite(int n, const void *b, size_t c, off_t o) { return hits_file("pwrite", n) ? -1 : REAL(pwrite)(n, b, c, o); }
ssize_t pwrite64(int n, const void *b, size_t c, off64_t o) { return hits_file("pwrite", n) ? -1 : REAL(pwrite64)(n, b, c, o); }
int fsync(int n) { return hits_file("fsync", n) ? -1 : REAL(fsync)(n); }
int rename(const char *a, const char *b) { return hits("rename", b) ? -1 : REAL(rename)(a, b); }
int mkdir(const char *p, mode_t m) { return hits("mkdir", p) ? -1 : REAL(mkdir)(p, m); }
#define OPEN(name) \
    int name(const char *p, int f, ...) { \
        va_list list; va_start(list, f); mode_t m = va_arg(list, mode_t); va_end(list); \
        if (hits(f & (O_WRONLY | O_RDWR | O_CREAT) ? "open to write" : "open to read", p)) return -1; \
        return REAL(name)(p, f, m); \
    }
OPEN(open)
OPEN(open64)
