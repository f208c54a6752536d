/* Moves the clocks of a process under test, while it runs and without its knowledge.
 *
 * Preloaded into a program; reads two shifts in ns, of CLOCK_BOOTTIME and of CLOCK_REALTIME, from
 * the file that SHIFTED_CLOCK names. The file is mapped at the start, so that a sandbox which
 * comes later does not matter. CLOCK_MONOTONIC stays, as it does while a machine sleeps.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S INT64_C(1000000000)

struct shifts {
    int64_t boottime_ns;
    int64_t realtime_ns;
};

static const volatile struct shifts *shifts;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    *(void **)&real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    const char *name = getenv("SHIFTED_CLOCK");
    int fd = name == NULL ? -1 : open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    void *mapped = mmap(NULL, sizeof(*shifts), PROT_READ, MAP_SHARED, fd, 0);
    shifts = mapped == MAP_FAILED ? NULL : mapped;
    close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = real_clock_gettime(clock, now);
    if (result != 0 || shifts == NULL || (clock != CLOCK_BOOTTIME && clock != CLOCK_REALTIME)) {
        return result;
    }
    int64_t shift = clock == CLOCK_BOOTTIME ? shifts->boottime_ns : shifts->realtime_ns;
    int64_t ns = now->tv_sec * NS_PER_S + now->tv_nsec + shift;
    now->tv_sec = ns / NS_PER_S;
    now->tv_nsec = ns % NS_PER_S;
    return 0;
}
