/* Datagrams of the benchmarks: sent as fast as the machine can, counted where they arrive, or sent
 * a thousand times a second and timed there and back.
 *
 *   meter blast ADDRESS PORT SECONDS SIZE[,SIZE…]   sends, sizes by turns; prints how many it sent
 *   meter sink  ADDRESS PORT SECONDS                prints: datagrams and bytes that arrived while
 *                                                   SECONDS passed, and all datagrams before and
 * after meter echo  ADDRESS PORT                        sends back what comes, until it is ended
 *   meter rtt   ADDRESS PORT SECONDS                prints: how many it sent, then each time in ns
 *
 * sink and echo print "ready" once they hear. Plain sendmmsg and recvmmsg: no segmentation offload,
 * so that every system gets single packets.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH         32
#define SIZE_MAX_     65507
#define SIZES_MAX     64
#define SECOND_NS     UINT64_C(1000000000)
#define WARM_NS       (SECOND_NS / 5) /* from the first arrival until counting begins */
#define SILENCE_NS    (SECOND_NS / 2) /* after which the sink takes the sender for done */
#define PATIENCE_NS   (5 * SECOND_NS) /* for the first datagram */
#define RTT_PERIOD_NS (SECOND_NS / 1000)
#define RTT_SIZE      64
#define RTT_LATE_NS   (SECOND_NS / 2) /* how long the last echoes are waited for */
#define SOCKET_BUFFER (4 << 20)

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(EXIT_FAILURE);
}

static int open_socket(const char *address, const char *port, int is_receiver) {
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, address, &place.sin_addr) != 1) {
        errno = EINVAL;
        fail(address);
    }
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    int size = SOCKET_BUFFER;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0) {
        fail("socket");
    }
    int failed = is_receiver ? bind(fd, (struct sockaddr *)&place, sizeof(place))
                             : connect(fd, (struct sockaddr *)&place, sizeof(place));
    if (failed) {
        fail(address);
    }
    return fd;
}

static void say_ready(void) {
    puts("ready");
    fflush(stdout);
}

static size_t parse_sizes(char *text, size_t sizes[SIZES_MAX]) {
    size_t count = 0;
    for (char *word = strtok(text, ","); word != NULL && count < SIZES_MAX;
         word = strtok(NULL, ",")) {
        sizes[count] = (size_t)atoi(word);
        if (sizes[count] == 0 || sizes[count] > SIZE_MAX_) {
            errno = EINVAL;
            fail(word);
        }
        count++;
    }
    return count;
}

static void blast(int fd, double seconds, const size_t *sizes, size_t size_count) {
    static uint8_t payload[SIZE_MAX_];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH];
    memset(messages, 0, sizeof(messages));
    uint64_t sent = 0;
    size_t turn = 0;
    uint64_t end = now_ns() + (uint64_t)(seconds * (double)SECOND_NS);
    while (now_ns() < end) {
        for (size_t i = 0; i < BATCH; i++, turn++) {
            parts[i] = (struct iovec){payload, sizes[turn % size_count]};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
        }
        int done = sendmmsg(fd, messages, BATCH, 0);
        if (done > 0) {
            sent += (uint64_t)done;
        } else if (errno != ENOBUFS && errno != ECONNREFUSED && errno != EINTR) {
            fail("sendmmsg");
        }
    }
    printf("%llu\n", (unsigned long long)sent);
}

struct tally {
    uint64_t datagrams;
    uint64_t bytes;
    uint64_t all;
    uint64_t from; /* when counting begins, once anything came */
    uint64_t to;
};

static void count(struct tally *tally, const struct mmsghdr *messages, unsigned received,
                  double seconds) {
    uint64_t now = now_ns();
    if (tally->all == 0) {
        tally->from = now + WARM_NS;
        tally->to = tally->from + (uint64_t)(seconds * (double)SECOND_NS);
    }
    tally->all += received;
    if (now >= tally->from && now < tally->to) {
        tally->datagrams += received;
        for (unsigned i = 0; i < received; i++) {
            tally->bytes += messages[i].msg_len;
        }
    }
}

static void sink(int fd, double seconds) {
    static uint8_t buffers[BATCH][2048];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH];
    memset(messages, 0, sizeof(messages));
    for (size_t i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){buffers[i], sizeof(buffers[i])};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    struct timeval turn = {.tv_usec = 50000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &turn, sizeof(turn));
    struct tally tally = {0};
    uint64_t heard = now_ns();
    say_ready();
    for (;;) {
        int received = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);
        if (received > 0) {
            count(&tally, messages, (unsigned)received, seconds);
            heard = now_ns();
        } else if (now_ns() - heard > (tally.all == 0 ? PATIENCE_NS : SILENCE_NS)) {
            break;
        }
    }
    printf("%llu %llu %llu\n", (unsigned long long)tally.datagrams, (unsigned long long)tally.bytes,
           (unsigned long long)tally.all);
}

static void echo(int fd) {
    uint8_t buffer[2048];
    say_ready();
    for (;;) {
        struct sockaddr_in from;
        socklen_t from_size = sizeof(from);
        ssize_t size =
            recvfrom(fd, buffer, sizeof(buffer), 0, (struct sockaddr *)&from, &from_size);
        if (size >= 0) {
            (void)sendto(fd, buffer, (size_t)size, 0, (struct sockaddr *)&from, from_size);
        }
    }
}

static size_t read_echoes(int fd, uint64_t *times, size_t taken, size_t most) {
    uint8_t buffer[RTT_SIZE];
    ssize_t size;
    while ((size = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT)) >= 0) {
        uint64_t sent_at;
        memcpy(&sent_at, buffer, sizeof(sent_at));
        if (size == RTT_SIZE && taken < most) {
            times[taken++] = now_ns() - sent_at;
        }
    }
    return taken;
}

static void rtt(int fd, double seconds) {
    size_t wanted = (size_t)(seconds * (double)SECOND_NS / (double)RTT_PERIOD_NS);
    uint64_t *times = calloc(wanted + 1, sizeof(*times));
    if (times == NULL) {
        fail("calloc");
    }
    size_t sent = 0;
    size_t taken = 0;
    uint64_t next = now_ns();
    uint64_t end = next + wanted * RTT_PERIOD_NS + RTT_LATE_NS;
    while (now_ns() < end && (sent < wanted || taken < wanted)) {
        uint64_t now = now_ns();
        if (sent < wanted && now >= next) {
            uint8_t datagram[RTT_SIZE] = {0};
            memcpy(datagram, &now, sizeof(now));
            (void)send(fd, datagram, sizeof(datagram), 0);
            sent++;
            next += RTT_PERIOD_NS;
        }
        uint64_t until = sent < wanted ? next : end;
        now = now_ns();
        uint64_t wait = until > now ? until - now : 0;
        struct timespec pause = {(time_t)(wait / SECOND_NS), (long)(wait % SECOND_NS)};
        struct pollfd watched = {.fd = fd, .events = POLLIN};
        if (ppoll(&watched, 1, &pause, NULL) > 0) {
            taken = read_echoes(fd, times, taken, wanted);
        }
    }
    printf("%zu\n", sent);
    for (size_t i = 0; i < taken; i++) {
        printf("%llu\n", (unsigned long long)times[i]);
    }
    free(times);
}

int main(int argc, char **argv) {
    const char *mode = argc > 3 ? argv[1] : "";
    double seconds = argc > 4 ? atof(argv[4]) : 0.0;
    if (strcmp(mode, "blast") == 0 && argc == 6) {
        size_t sizes[SIZES_MAX];
        size_t size_count = parse_sizes(argv[5], sizes);
        blast(open_socket(argv[2], argv[3], 0), seconds, sizes, size_count);
    } else if (strcmp(mode, "sink") == 0 && argc == 5) {
        sink(open_socket(argv[2], argv[3], 1), seconds);
    } else if (strcmp(mode, "echo") == 0 && argc == 4) {
        echo(open_socket(argv[2], argv[3], 1));
    } else if (strcmp(mode, "rtt") == 0 && argc == 5) {
        rtt(open_socket(argv[2], argv[3], 0), seconds);
    } else {
        fputs("usage: meter blast|sink|echo|rtt ADDRESS PORT [SECONDS [SIZE,…]]\n", stderr);
        return 64;
    }
    return EXIT_SUCCESS;
}
