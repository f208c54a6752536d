/* A kernel that does not cut datagrams for one port, a clock that jumps, and a call that never
 * comes back, for a program under test and without its knowledge.
 *
 * Preloaded; reads what it shall do from the file that REFUSING_KERNEL names. The file is mapped
 * at the start, so that a sandbox which comes later does not matter.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S INT64_C(1000000000)

struct orders {
    int64_t error; /* of a message with UDP_SEGMENT; 0: they are taken */
    int64_t port;  /* to which they are refused */
    int64_t boottime_ns;
    int64_t refused;  /* so many were, written here */
    int64_t is_stuck; /* who receives a datagram does so for ever */
};

static volatile struct orders *orders;
static int (*real_sendmmsg)(int, struct mmsghdr *, unsigned, int);
static int (*real_recvmmsg)(int, struct mmsghdr *, unsigned, int, struct timespec *);
static int (*real_clock_gettime)(clockid_t, struct timespec *);

/* A sanitizer asks for the time before any constructor runs. */
static void find_real(void) {
    if (real_clock_gettime == NULL) {
        *(void **)&real_sendmmsg = dlsym(RTLD_NEXT, "sendmmsg");
        *(void **)&real_recvmmsg = dlsym(RTLD_NEXT, "recvmmsg");
        *(void **)&real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    }
}

__attribute__((constructor)) static void begin(void) {
    find_real();
    const char *name = getenv("REFUSING_KERNEL");
    int fd = name == NULL ? -1 : open(name, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    void *mapped = mmap(NULL, sizeof(*orders), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    orders = mapped == MAP_FAILED ? NULL : mapped;
    close(fd);
}

static int is_refused(struct msghdr *message) {
    in_port_t port;
    memcpy(&port, (const uint8_t *)message->msg_name + 2, sizeof(port)); /* of both families */
    if (orders == NULL || orders->error == 0 || ntohs(port) != orders->port) {
        return 0;
    }
    for (struct cmsghdr *item = CMSG_FIRSTHDR(message); item != NULL;
         item = CMSG_NXTHDR(message, item)) {
        if (item->cmsg_level == SOL_UDP && item->cmsg_type == UDP_SEGMENT) {
            return 1;
        }
    }
    return 0;
}

/* As the kernel: what stands before the refused one goes, and the error comes with the next call.
 */
int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    find_real();
    for (unsigned i = 0; i < count; i++) {
        if (is_refused(&messages[i].msg_hdr)) {
            if (i > 0) {
                return real_sendmmsg(fd, messages, i, flags);
            }
            orders->refused++;
            errno = (int)orders->error;
            return -1;
        }
    }
    return real_sendmmsg(fd, messages, count, flags);
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
             struct timespec *timeout) {
    const struct timespec moment = {.tv_nsec = 1000000};
    find_real();
    while (orders != NULL && orders->is_stuck) {
        nanosleep(&moment, NULL);
    }
    return real_recvmmsg(fd, messages, count, flags, timeout);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    find_real();
    int result = real_clock_gettime(clock, now);
    if (result != 0 || orders == NULL || clock != CLOCK_BOOTTIME) {
        return result;
    }
    int64_t ns = now->tv_sec * NS_PER_S + now->tv_nsec + orders->boottime_ns;
    now->tv_sec = ns / NS_PER_S;
    now->tv_nsec = ns % NS_PER_S;
    return 0;
}
