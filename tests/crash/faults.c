/* A disk that fills up or breaks, a clock that jumps, and a death at a chosen moment, for one process, as a library to
 * be preloaded (faults.rs).
 *
 * FAULTS_CONTROL names a file of int64 numbers that the test writes while the process runs:
 *
 *   0 clock    seconds that the wall clock is off
 *   1 room     bytes by which files below FAULTS_DIR may grow together; -1: as many as they like
 *   2 what     sum of: 1 write, 2 ftruncate, 4 fallocate, 8 fsync and fdatasync, 16 read, 32 open for writing
 *   3 where    0: every file below FAULTS_DIR, 1: the database itself, 2: its log
 *   4 after    so many calls of that kind go well before one fails
 *   5 times    so many fail then; -1: all
 *   6 error    the errno
 *   7 failed   (told) calls that failed
 *   8 death    SIGKILL at this step; 0: never. Steps are writes below FAULTS_DIR, and sends with FAULTS_SENDS set
 *   9 steps    (told) steps so far
 *
 * A call of kind 8 that fails has not synced anything; all others that fail have done nothing. A write that meets the
 * end of the room is cut short first, as a kernel does it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MOST_FDS 4096
#define BLOCK 4096

enum { CLOCK, ROOM, WHAT, WHERE, AFTER, TIMES, ERROR, FAILED, DEATH, STEPS, NUMBERS };
enum { WRITE = 1, TRUNCATE = 2, ALLOCATE = 4, SYNC = 8, READ = 16, OPEN = 32 };
enum { NOT_OURS, OTHER, DATABASE, LOG };

static volatile int64_t *control;
static char folder[4096];
static size_t folder_len;
static int sends_count;
static unsigned char kinds[MOST_FDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_read)(int, void *, size_t);
static ssize_t (*real_pread)(int, void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_fallocate)(int, int, off_t, off_t);
static int (*real_unlink)(const char *);
static ssize_t (*real_send)(int, const void *, size_t, int);
static int (*real_clock_gettime)(clockid_t, struct timespec *);

static void set_up(void) __attribute__((constructor));

static void set_up(void) {
    real_open = dlsym(RTLD_NEXT, "open64");
    real_openat = dlsym(RTLD_NEXT, "openat64");
    real_close = dlsym(RTLD_NEXT, "close");
    real_write = dlsym(RTLD_NEXT, "write");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_read = dlsym(RTLD_NEXT, "read");
    real_pread = dlsym(RTLD_NEXT, "pread64");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_fallocate = dlsym(RTLD_NEXT, "fallocate64");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_send = dlsym(RTLD_NEXT, "send");
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("FAULTS_CONTROL"), *below = getenv("FAULTS_DIR");
    if (!path || !below || strlen(below) >= sizeof folder) return;
    strcpy(folder, below);
    folder_len = strlen(folder);
    sends_count = getenv("FAULTS_SENDS") != NULL;
    int fd = real_open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) abort();
    void *map = mmap(NULL, NUMBERS * sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) abort();
    real_close(fd);
    control = map;
}

static int kind_of(int fd) { return control && fd >= 0 && fd < MOST_FDS ? kinds[fd] : NOT_OURS; }

static int ends_with(const char *text, const char *end) {
    size_t len = strlen(text), end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* Under the lock: whether this call fails; errno is set. */
static int fails(int what, int kind) {
    if (!(control[WHAT] & what) || (control[WHERE] == 1 && kind != DATABASE) || (control[WHERE] == 2 && kind != LOG))
        return 0;
    if (control[AFTER] > 0) {
        control[AFTER]--;
        return 0;
    }
    if (control[TIMES] == 0) return 0;
    if (control[TIMES] > 0) control[TIMES]--;
    control[FAILED]++;
    errno = (int)control[ERROR];
    return 1;
}

static void step(void) {
    int64_t now = __atomic_add_fetch(&control[STEPS], 1, __ATOMIC_SEQ_CST);
    if (control[DEATH] && now >= control[DEATH]) kill(getpid(), SIGKILL);
}

static int64_t blocks(int64_t size) { return (size + BLOCK - 1) / BLOCK * BLOCK; }

static int64_t size_of(int fd) {
    struct stat stat;
    return fstat(fd, &stat) == 0 ? stat.st_size : 0;
}

/* Under the lock: how many of `len` bytes at `at` find room; 0 with errno when none do. */
static size_t fits(int fd, off_t at, size_t len) {
    if (control[ROOM] < 0) return len;
    int64_t has = blocks(size_of(fd)), most = has + control[ROOM] / BLOCK * BLOCK;
    if (at + (int64_t)len > most) {
        control[FAILED]++;
        if (at >= most) {
            errno = ENOSPC;
            return 0;
        }
        len = (size_t)(most - at);
    }
    int64_t grown = blocks(at + (int64_t)len) - has;
    if (grown > 0) control[ROOM] -= grown;
    return len;
}

static void opened(int fd) {
    struct stat stat;
    char link[64], whole[4096];
    if (!control || fd < 0 || fd >= MOST_FDS) return;
    kinds[fd] = NOT_OURS;
    if (fstat(fd, &stat) != 0 || !S_ISREG(stat.st_mode)) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, whole, sizeof whole - 1);
    if (len <= 0 || (size_t)len < folder_len || memcmp(whole, folder, folder_len) != 0) return;
    whole[len] = 0;
    kinds[fd] = ends_with(whole, ".db") ? DATABASE : ends_with(whole, ".db-wal") ? LOG : OTHER;
}

static int refuses_to_open(const char *path, int flags) {
    if (!control || !(control[WHAT] & OPEN) || strncmp(path, folder, folder_len) != 0) return 0;
    if ((flags & O_ACCMODE) == O_RDONLY && !(flags & O_CREAT)) return 0;
    pthread_mutex_lock(&lock);
    int failed = fails(OPEN, OTHER);
    pthread_mutex_unlock(&lock);
    return failed;
}

#define MODE(flags)                                                                                                    \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode = (mode_t)va_arg(more, int);                                                                              \
        va_end(more);                                                                                                  \
    }

int open64(const char *path, int flags, ...) {
    MODE(flags)
    if (refuses_to_open(path, flags)) return -1;
    int fd = real_open(path, flags, mode), error = errno;
    opened(fd);
    errno = error;
    return fd;
}

int open(const char *path, int flags, ...) {
    MODE(flags)
    return open64(path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) {
    MODE(flags)
    if (refuses_to_open(path, flags)) return -1;
    int fd = real_openat(at, path, flags, mode), error = errno;
    opened(fd);
    errno = error;
    return fd;
}

int openat(int at, const char *path, int flags, ...) {
    MODE(flags)
    return openat64(at, path, flags, mode);
}

int close(int fd) {
    if (kind_of(fd)) kinds[fd] = NOT_OURS;
    return real_close(fd);
}

/* How much of a write may be done: 0 is none, with errno. */
static size_t allowed(int fd, int kind, size_t len, off_t at) {
    pthread_mutex_lock(&lock);
    step();
    size_t may = fails(WRITE, kind) ? 0 : fits(fd, at, len);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return may;
}

ssize_t pwrite64(int fd, const void *data, size_t len, off_t at) {
    int kind = kind_of(fd);
    if (!kind || !len) return real_pwrite(fd, data, len, at);
    size_t may = allowed(fd, kind, len, at);
    return may ? real_pwrite(fd, data, may, at) : -1;
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t at) { return pwrite64(fd, data, len, at); }

ssize_t write(int fd, const void *data, size_t len) {
    int kind = kind_of(fd);
    if (!kind || !len) return real_write(fd, data, len);
    off_t at = (fcntl(fd, F_GETFL) & O_APPEND) ? size_of(fd) : lseek(fd, 0, SEEK_CUR);
    size_t may = allowed(fd, kind, len, at);
    return may ? real_write(fd, data, may) : -1;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!kind_of(fd)) return real_writev(fd, parts, count);
    ssize_t done = 0;
    for (int i = 0; i < count; i++) {
        ssize_t part = write(fd, parts[i].iov_base, parts[i].iov_len);
        if (part < 0) return done ? done : part;
        done += part;
        if ((size_t)part < parts[i].iov_len) break;
    }
    return done;
}

static int fails_once(int what, int kind) {
    pthread_mutex_lock(&lock);
    int failed = fails(what, kind), error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return failed;
}

ssize_t read(int fd, void *into, size_t len) {
    int kind = kind_of(fd);
    return kind && fails_once(READ, kind) ? -1 : real_read(fd, into, len);
}

ssize_t pread64(int fd, void *into, size_t len, off_t at) {
    int kind = kind_of(fd);
    return kind && fails_once(READ, kind) ? -1 : real_pread(fd, into, len, at);
}

ssize_t pread(int fd, void *into, size_t len, off_t at) { return pread64(fd, into, len, at); }

static void gives_back(int64_t bytes) {
    pthread_mutex_lock(&lock);
    if (control[ROOM] >= 0 && bytes > 0) control[ROOM] += bytes;
    pthread_mutex_unlock(&lock);
}

int ftruncate64(int fd, off_t to) {
    int kind = kind_of(fd);
    if (!kind) return real_ftruncate(fd, to);
    if (fails_once(TRUNCATE, kind)) return -1;
    int64_t before = size_of(fd);
    int done = real_ftruncate(fd, to);
    if (done == 0) gives_back(blocks(before) - blocks(to));
    return done;
}

int ftruncate(int fd, off_t to) { return ftruncate64(fd, to); }

int unlink(const char *path) {
    struct stat stat;
    int ours = control && strncmp(path, folder, folder_len) == 0 && lstat(path, &stat) == 0 && S_ISREG(stat.st_mode);
    int done = real_unlink(path);
    if (done == 0 && ours) gives_back(blocks(stat.st_size));
    return done;
}

int fallocate64(int fd, int how, off_t at, off_t len) {
    int kind = kind_of(fd);
    if (kind) {
        pthread_mutex_lock(&lock);
        int refused = fails(ALLOCATE, kind) || (how == 0 && fits(fd, at, (size_t)len) < (size_t)len);
        pthread_mutex_unlock(&lock);
        if (refused) {
            errno = ENOSPC;
            return -1;
        }
    }
    return real_fallocate(fd, how, at, len);
}

int fallocate(int fd, int how, off_t at, off_t len) { return fallocate64(fd, how, at, len); }

int posix_fallocate64(int fd, off_t at, off_t len) { return fallocate64(fd, 0, at, len) == 0 ? 0 : errno; }

int posix_fallocate(int fd, off_t at, off_t len) { return posix_fallocate64(fd, at, len); }

int fsync(int fd) {
    int kind = kind_of(fd);
    return kind && fails_once(SYNC, kind) ? -1 : real_fsync(fd);
}

int fdatasync(int fd) {
    int kind = kind_of(fd);
    return kind && fails_once(SYNC, kind) ? -1 : real_fdatasync(fd);
}

ssize_t send(int fd, const void *data, size_t len, int flags) {
    if (control && sends_count) step();
    return real_send(fd, data, len, flags);
}

int clock_gettime(clockid_t which, struct timespec *now) {
    int done = real_clock_gettime(which, now);
    if (done == 0 && control && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
        now->tv_sec += control[CLOCK];
    return done;
}

time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}
