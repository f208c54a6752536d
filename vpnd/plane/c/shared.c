#include "shared.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

/* A process that ends lets go of one thing after the other, and whoever waits for it sees one go
 * before the others. A busy machine may hold it up in between. */
#define LOCK_PATIENCE_NS (NS_PER_SECOND / 2)
#define LOCK_PAUSE_NS    1000000

/* A lock of the process, not of the open file: the descriptor store hands the same open file to
 * the next process, and the two must exclude each other. */
static int lock_exclusively(int fd) {
    const struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    uint64_t began_ns = boottime_ns();
    int result = fcntl(fd, F_SETLK, &lock);
    while (result < 0 && (errno == EACCES || errno == EAGAIN)) {
        if (elapsed_ns(began_ns, boottime_ns()) > LOCK_PATIENCE_NS) {
            return -EBUSY;
        }
        nanosleep(&pause, NULL);
        result = fcntl(fd, F_SETLK, &lock);
    }
    return result < 0 ? -errno : 0;
}

int shared_take(int fd, size_t size, void **bytes) {
    struct stat status;
    if (fstat(fd, &status) < 0 || status.st_size != (off_t)size) {
        return -EINVAL;
    }
    int error = lock_exclusively(fd);
    if (error < 0) {
        return error;
    }
    void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) {
        return -errno;
    }
    madvise(mapped, size, MADV_DONTDUMP);
    *bytes = mapped;
    return 0;
}

int shared_new(const char *name, size_t size, void **bytes) {
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return -errno;
    }
    int error = 0;
    if (ftruncate(fd, (off_t)size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        error = -errno;
    } else {
        error = shared_take(fd, size, bytes);
    }
    if (error < 0) {
        close(fd);
        return error;
    }
    return fd;
}

uint64_t shared_sum(const uint64_t *words, size_t count) {
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < count; i++) {
        sum = (sum ^ words[i]) * UINT64_C(0x100000001b3);
    }
    return sum;
}
