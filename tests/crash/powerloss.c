/* A power cut for one process, as a library to be preloaded.
 *
 * kill -9 cannot show durability: what was written stays in the page cache. This library writes down, for every write
 * below POWERLOSS_DIR, what stood there before and what was written, and when a file was made durable. Afterwards the
 * test takes back what was not (power.rs).
 *
 * The record goes to POWERLOSS_LOG, with one write() for each entry. Entries, in the machine's byte order:
 *
 *   uint32 kind, uint32 file, int64 offset, int64 size of the file before, uint32 old bytes, uint32 new bytes,
 *   old bytes, new bytes
 *
 * kind 0 names a file (its path as new bytes), 1 is a write, 2 a change of size (offset is the new size, old bytes are
 * those cut off), 3 the beginning of an fsync, 4 its good end, 5 a file that was created.
 *
 * Not followed: mmap (SQLite's -shm, which the test removes), rename and unlink.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST_FDS 4096

struct entry {
    uint32_t kind, file;
    int64_t offset, size;
    uint32_t old_len, new_len;
};

static int log_fd = -1;
static char folder[4096];
static size_t folder_len;
/* The file behind each descriptor, 0 for none. Files are numbered as they are opened. */
static uint32_t files[MOST_FDS];
static uint32_t last_file;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pread)(int, void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_fallocate)(int, int, off_t, off_t);

static void set_up(void) __attribute__((constructor));

static void set_up(void) {
    real_open = dlsym(RTLD_NEXT, "open64");
    real_openat = dlsym(RTLD_NEXT, "openat64");
    real_close = dlsym(RTLD_NEXT, "close");
    real_write = dlsym(RTLD_NEXT, "write");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_pread = dlsym(RTLD_NEXT, "pread64");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_fallocate = dlsym(RTLD_NEXT, "fallocate64");
    const char *path = getenv("POWERLOSS_LOG"), *below = getenv("POWERLOSS_DIR");
    if (!path || !below || strlen(below) >= sizeof folder) return;
    strcpy(folder, below);
    folder_len = strlen(folder);
    log_fd = real_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* One entry, with one write: a process that is killed leaves whole entries and perhaps a part of the last. */
static void note(uint32_t kind, uint32_t file, int64_t offset, int64_t size, const void *old, size_t old_len,
                 const void *new, size_t new_len) {
    struct entry entry = {kind, file, offset, size, (uint32_t)old_len, (uint32_t)new_len};
    struct iovec parts[3] = {{&entry, sizeof entry}, {(void *)old, old_len}, {(void *)new, new_len}};
    if (real_writev(log_fd, parts, 3) < 0) abort();
}

static uint32_t file_of(int fd) { return log_fd >= 0 && fd >= 0 && fd < MOST_FDS ? files[fd] : 0; }

static int64_t size_of(int fd) {
    struct stat stat;
    return fstat(fd, &stat) == 0 ? stat.st_size : 0;
}

static void opened(int fd, int existed) {
    if (log_fd < 0 || fd < 0 || fd >= MOST_FDS) return;
    struct stat stat;
    char link[64], whole[4096];
    if (fstat(fd, &stat) != 0 || !S_ISREG(stat.st_mode)) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, whole, sizeof whole - 1);
    if (len <= 0 || (size_t)len < folder_len || memcmp(whole, folder, folder_len) != 0) return;
    pthread_mutex_lock(&lock);
    uint32_t file = ++last_file;
    files[fd] = file;
    note(0, file, 0, 0, NULL, 0, whole, (size_t)len);
    if (!existed) note(5, file, 0, 0, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
}

static int opens(int (*open_it)(const char *, int, mode_t), const char *path, int flags, mode_t mode) {
    int existed = log_fd < 0 || access(path, F_OK) == 0;
    int fd = open_it(path, flags, mode);
    int error = errno;
    opened(fd, existed);
    errno = error;
    return fd;
}

static int plain_open(const char *path, int flags, mode_t mode) { return real_open(path, flags, mode); }

#define MODE(flags)                                                                                                    \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode = (mode_t)va_arg(more, int);                                                                              \
        va_end(more);                                                                                                  \
    }

int open(const char *path, int flags, ...) {
    MODE(flags)
    return opens(plain_open, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags)
    return opens(plain_open, path, flags, mode);
}

static int opens_at(int at, const char *path, int flags, mode_t mode) {
    int existed = log_fd < 0 || faccessat(at, path, F_OK, 0) == 0;
    int fd = real_openat(at, path, flags, mode);
    int error = errno;
    opened(fd, existed);
    errno = error;
    return fd;
}

int openat(int at, const char *path, int flags, ...) {
    MODE(flags)
    return opens_at(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) {
    MODE(flags)
    return opens_at(at, path, flags, mode);
}

int close(int fd) {
    if (file_of(fd)) files[fd] = 0;
    return real_close(fd);
}

/* Before a write: what stands there now. */
static void replaced(int fd, uint32_t file, const void *data, size_t len, off_t at) {
    char *old = malloc(len ? len : 1);
    if (!old) abort();
    ssize_t had = real_pread(fd, old, len, at);
    note(1, file, at, size_of(fd), old, had > 0 ? (size_t)had : 0, data, len);
    free(old);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off_t at) {
    uint32_t file = file_of(fd);
    if (!file) return real_pwrite(fd, data, len, at);
    pthread_mutex_lock(&lock);
    replaced(fd, file, data, len, at);
    ssize_t done = real_pwrite(fd, data, len, at);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t at) { return pwrite64(fd, data, len, at); }

ssize_t write(int fd, const void *data, size_t len) {
    uint32_t file = file_of(fd);
    if (!file) return real_write(fd, data, len);
    pthread_mutex_lock(&lock);
    off_t at = (fcntl(fd, F_GETFL) & O_APPEND) ? size_of(fd) : lseek(fd, 0, SEEK_CUR);
    replaced(fd, file, data, len, at);
    ssize_t done = real_write(fd, data, len);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!file_of(fd)) return real_writev(fd, parts, count);
    ssize_t done = 0;
    for (int i = 0; i < count; i++) {
        ssize_t part = write(fd, parts[i].iov_base, parts[i].iov_len);
        if (part < 0) return done ? done : part;
        done += part;
        if ((size_t)part < parts[i].iov_len) break;
    }
    return done;
}

int ftruncate64(int fd, off_t to) {
    uint32_t file = file_of(fd);
    if (!file) return real_ftruncate(fd, to);
    pthread_mutex_lock(&lock);
    int64_t size = size_of(fd);
    size_t cut = size > to ? (size_t)(size - to) : 0;
    char *old = malloc(cut ? cut : 1);
    if (!old) abort();
    ssize_t had = cut ? real_pread(fd, old, cut, to) : 0;
    note(2, file, to, size, old, had > 0 ? (size_t)had : 0, NULL, 0);
    free(old);
    int done = real_ftruncate(fd, to);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

int ftruncate(int fd, off_t to) { return ftruncate64(fd, to); }

/* A file that grows ahead of its writes: a change of size. */
int fallocate64(int fd, int how, off_t at, off_t len) {
    uint32_t file = file_of(fd);
    if (file && how == 0) {
        pthread_mutex_lock(&lock);
        int64_t size = size_of(fd);
        if (at + len > size) note(2, file, at + len, size, NULL, 0, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return real_fallocate(fd, how, at, len);
}

int fallocate(int fd, int how, off_t at, off_t len) { return fallocate64(fd, how, at, len); }

int posix_fallocate64(int fd, off_t at, off_t len) { return fallocate64(fd, 0, at, len) == 0 ? 0 : errno; }

int posix_fallocate(int fd, off_t at, off_t len) { return posix_fallocate64(fd, at, len); }

static int synced(int (*sync_it)(int), int fd) {
    uint32_t file = file_of(fd);
    if (!file) return sync_it(fd);
    pthread_mutex_lock(&lock);
    note(3, file, 0, 0, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    int done = sync_it(fd);
    int error = errno;
    if (done == 0) {
        pthread_mutex_lock(&lock);
        note(4, file, 0, 0, NULL, 0, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return done;
}

int fsync(int fd) { return synced(real_fsync, fd); }

int fdatasync(int fd) { return synced(real_fdatasync, fd); }
