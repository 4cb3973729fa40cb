/* Remembers what a process writes to the files of a store and when it made them durable.

   Preloaded into a process. Before each write or truncation of a file whose path begins with LOSE_PREFIX (the shared
   memory beside it left out) a record goes to the journal LOSE_JOURNAL-<pid>: which file, where, what stood there,
   what comes there. After each fsync or fdatasync that succeeded, a record says so. From these `lost_writes.py` makes
   the files as a power failure could have left them. The writes themselves pass through at once: what was written and
   not yet made durable is what every reader sees until the power fails.

   LOSE_DIE_AT=n: kill the process and its group, instead of its n-th recorded call. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { WRITTEN = 1, CUT = 2, DURABLE = 3, DEATH = 4 };

struct head {
    uint32_t magic, kind, path, before, after, unused;
    uint64_t at, offset, size;
};

static int journal = -1;
static long calls, die_at;
static const char *prefix;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("LOSE_JOURNAL"), *death = getenv("LOSE_DIE_AT");
    char file[4096];
    prefix = getenv("LOSE_PREFIX");
    die_at = death ? atol(death) : 0;
    if (!name || !prefix) return;
    snprintf(file, sizeof file, "%s-%d", name, (int)getpid());
    journal = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* The path of a file of the store, or NULL. */
static const char *ours(int fd, char *path, size_t room) {
    char link[64];
    ssize_t length;
    if (journal < 0 || fd == journal) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, room - 1);
    if (length <= 0) return NULL;
    path[length] = 0;
    if (strncmp(path, prefix, strlen(prefix))) return NULL;
    return length > 4 && !strcmp(path + length - 4, "-shm") ? NULL : path;
}

static uint64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static void record(uint32_t kind, const char *path, uint64_t at, off_t offset, off_t size, const void *before,
                   size_t was, const void *after, size_t is) {
    struct head head = {0x4c4f5345, kind, (uint32_t)strlen(path), (uint32_t)was, (uint32_t)is, 0,
                        at,         (uint64_t)offset, (uint64_t)size};
    struct iovec parts[] = {{&head, sizeof head},
                            {(void *)path, head.path},
                            {(void *)before, was},
                            {(void *)after, is}};
    int dies = die_at && __sync_add_and_fetch(&calls, 1) >= die_at;
    if (dies) head.kind = DEATH;
    if (writev(journal, parts, 4) < 0) abort();
    if (dies) kill(0, SIGKILL);
}

/* What stands in a file at `offset`; the caller frees it. */
static char *standing(int fd, off_t offset, size_t length, size_t *was, off_t *size) {
    struct stat about;
    char *text = malloc(length ? length : 1);
    ssize_t got = fstat(fd, &about) || !text ? -1 : pread(fd, text, length, offset);
    *size = got < 0 ? 0 : about.st_size;
    *was = got < 0 ? 0 : (size_t)got;
    return text;
}

static void remember(int fd, const void *data, size_t length, off_t offset) {
    char path[4096];
    size_t was;
    off_t size;
    if (!ours(fd, path, sizeof path)) return;
    char *before = standing(fd, offset, length, &was, &size);
    record(WRITTEN, path, now(), offset, size, before, was, data, length);
    free(before);
}

static int cut(int fd, off_t to, int (*really)(int, off_t)) {
    char path[4096];
    struct stat about;
    size_t was;
    off_t size;
    if (ours(fd, path, sizeof path) && !fstat(fd, &about)) {
        char *before = standing(fd, to, about.st_size > to ? (size_t)(about.st_size - to) : 0, &was, &size);
        record(CUT, path, now(), to, size, before, was, "", 0);
        free(before);
    }
    return really(fd, to);
}

static int made_durable(int fd, int (*really)(int)) {
    char path[4096];
    uint64_t at = now();
    int result = really(fd);
    if (!result && ours(fd, path, sizeof path)) record(DURABLE, path, at, 0, 0, "", 0, "", 0);
    return result;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    remember(fd, data, length, offset);
    return REAL(pwrite)(fd, data, length, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    remember(fd, data, length, offset);
    return REAL(pwrite64)(fd, data, length, offset);
}

ssize_t write(int fd, const void *data, size_t length) {
    off_t offset = lseek(fd, 0, SEEK_CUR);
    if (offset >= 0) remember(fd, data, length, offset);
    return REAL(write)(fd, data, length);
}

int ftruncate(int fd, off_t to) { return cut(fd, to, REAL(ftruncate)); }
int ftruncate64(int fd, off64_t to) { return cut(fd, to, REAL(ftruncate64)); }
int fsync(int fd) { return made_durable(fd, REAL(fsync)); }
int fdatasync(int fd) { return made_durable(fd, REAL(fdatasync)); }
