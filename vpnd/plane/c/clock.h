/* The clocks of the plane: one for all that happens, one for what work costs.
 *
 * CLOCK_BOOTTIME, so that time spent suspended ages sessions too. Never the wall clock:
 * nothing here may change because somebody set the date.
 */
#ifndef VPND_CLOCK_H
#define VPND_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_SECOND UINT64_C(1000000000)

static inline uint64_t boottime_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

/* The processor time that the calling thread has had so far. */
static inline uint64_t thread_ns(void) {
    struct timespec spent;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    return (uint64_t)spent.tv_sec * NS_PER_SECOND + (uint64_t)spent.tv_nsec;
}

/* Time from `then` to `now`; 0 if another thread's clock reading is the later one. */
static inline uint64_t elapsed_ns(uint64_t then, uint64_t now) {
    return now > then ? now - then : 0;
}

#endif
