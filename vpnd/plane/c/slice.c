#include "slice.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THIS_THREAD 0

/* struct sched_attr of sched_setattr(2) in its first version; C libraries before glibc 2.41 name
 * neither it nor the calls. */
struct attributes {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns;
    uint64_t deadline_ns;
    uint64_t period_ns;
};

void slice_ask(uint64_t ns) {
    struct attributes attributes = {0};
    if (syscall(SYS_sched_getattr, THIS_THREAD, &attributes, sizeof(attributes), 0) != 0 ||
        (attributes.policy != SCHED_OTHER && attributes.policy != SCHED_BATCH)) {
        return;
    }
    attributes.runtime_ns = ns;
    (void)syscall(SYS_sched_setattr, THIS_THREAD, &attributes, 0);
}
