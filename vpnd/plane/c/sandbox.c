#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* The kernel takes these arguments as int and ignores what stands above 32 bits. */
#define ARGUMENT_IS(number, value) SCMP_CMP64(number, SCMP_CMP_MASKED_EQ, UINT32_MAX, value)

/* Every descriptor is passed in or stands before the filter does: nothing here opens a path,
 * makes a network socket or starts a program. */
static const int allowed[] = {
    /* packets and requests */
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg),
    SCMP_SYS(recvmmsg),
    SCMP_SYS(sendto),
    SCMP_SYS(sendmsg),
    SCMP_SYS(sendmmsg),
    SCMP_SYS(accept4),
    SCMP_SYS(close),
    SCMP_SYS(shutdown),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt),
    SCMP_SYS(fcntl),
    SCMP_SYS(fstat),
    SCMP_SYS(lseek),
    SCMP_SYS(dup),
    /* waiting */
    SCMP_SYS(epoll_create1),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_pwait2),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(pselect6),
    SCMP_SYS(eventfd2),
    SCMP_SYS(timerfd_create),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(timerfd_gettime),
    SCMP_SYS(signalfd4),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_getres),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(gettimeofday),
    /* memory; mmap and mprotect follow with their conditions */
    SCMP_SYS(memfd_create),
    SCMP_SYS(ftruncate),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(msync),
    SCMP_SYS(flock),
    /* threads; clone follows with its condition */
    SCMP_SYS(futex),
    SCMP_SYS(futex_time64),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(membarrier),
    SCMP_SYS(set_tid_address),
    /* signals and the end */
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigtimedwait),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    /* randomness for session and hash seeds; who we are, for the journal */
    SCMP_SYS(getrandom),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
};

/* What a queue of the link may be asked; TUNSETIFF, which attaches to a link, is not among it. */
static const unsigned long allowed_ioctls[] = {TUNGETIFF, TUNGETFEATURES, TUNGETVNETHDRSZ,
                                               TUNSETOFFLOAD};

/* Sanitizers look at files, map what they like and stop their own threads when the process
 * ends. Such a build is for tests alone. */
static const int allowed_to_sanitizers[] = {
    SCMP_SYS(open),       SCMP_SYS(openat),         SCMP_SYS(readlink),
    SCMP_SYS(readlinkat), SCMP_SYS(stat),           SCMP_SYS(access),
    SCMP_SYS(getdents64), SCMP_SYS(getdents),       SCMP_SYS(mmap),
    SCMP_SYS(mprotect),   SCMP_SYS(clone),          SCMP_SYS(prctl),
    SCMP_SYS(ptrace),     SCMP_SYS(wait4),          SCMP_SYS(getppid),
    SCMP_SYS(tgkill),     SCMP_SYS(kill),           SCMP_SYS(getrlimit),
    SCMP_SYS(setrlimit),  SCMP_SYS(prlimit64),      SCMP_SYS(sysinfo),
    SCMP_SYS(uname),      SCMP_SYS(getrusage),      SCMP_SYS(process_vm_readv),
    SCMP_SYS(newfstatat), SCMP_SYS(pipe2),          SCMP_SYS(ioctl),
    SCMP_SYS(arch_prctl), SCMP_SYS(sched_getparam), SCMP_SYS(sched_getscheduler),
    SCMP_SYS(pread64),    SCMP_SYS(personality),
};

/* Allows each call of the list; one that this architecture lacks is no error. */
static int allow_all(scmp_filter_ctx filter, const int *calls, size_t count) {
    for (size_t i = 0; i < count; i++) {
        int error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
        if (error != 0 && error != -EDOM && error != -EINVAL) {
            return error;
        }
    }
    return 0;
}

static int allow_if(scmp_filter_ctx filter, int call, struct scmp_arg_cmp condition) {
    return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1, condition);
}

static int allow_ioctls(scmp_filter_ctx filter) {
    for (size_t i = 0; i < COUNT_OF(allowed_ioctls); i++) {
        int error = allow_if(filter, SCMP_SYS(ioctl), ARGUMENT_IS(1, allowed_ioctls[i]));
        if (error != 0) {
            return error;
        }
    }
    return 0;
}

static int allow_with_conditions(scmp_filter_ctx filter) {
    const struct {
        int call;
        struct scmp_arg_cmp condition;
    } rules[] = {
        /* memory is never both ours to fill and to run */
        {SCMP_SYS(mmap), SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
        {SCMP_SYS(mmap2), SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
        {SCMP_SYS(mprotect), SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
        /* threads, no processes */
        {SCMP_SYS(clone), SCMP_A0_64(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD)},
        /* abort() of this process */
        {SCMP_SYS(tgkill), ARGUMENT_IS(0, (scmp_datum_t)getpid())},
        {SCMP_SYS(prctl), ARGUMENT_IS(0, PR_SET_NAME)},
        /* how this thread is scheduled */
        {SCMP_SYS(sched_getattr), ARGUMENT_IS(0, 0)},
        {SCMP_SYS(sched_setattr), ARGUMENT_IS(0, 0)},
        /* of a process whose descriptor was passed in (stopped.h) */
        {SCMP_SYS(pidfd_send_signal), ARGUMENT_IS(1, SIGKILL)},
        /* some C libraries write fstat this way */
        {SCMP_SYS(newfstatat), ARGUMENT_IS(3, AT_EMPTY_PATH)},
    };
    for (size_t i = 0; i < COUNT_OF(rules); i++) {
        int error = allow_if(filter, rules[i].call, rules[i].condition);
        if (error != 0) {
            return error;
        }
    }
    /* What libsystemd makes for each notify message. */
    int error =
        seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2, ARGUMENT_IS(0, AF_UNIX),
                         ARGUMENT_IS(1, SOCK_DGRAM | SOCK_CLOEXEC));
    if (error != 0) {
        return error;
    }
    /* Its flags stand in memory, where no filter sees them; told that it does not exist, the C
     * library takes clone. */
    return seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

static int install_filter(void) {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (filter == NULL) {
        return -ENOMEM;
    }
    int error = allow_all(filter, allowed, COUNT_OF(allowed));
    if (error == 0) {
        error = SANITIZED
                    ? allow_all(filter, allowed_to_sanitizers, COUNT_OF(allowed_to_sanitizers))
                    : 0;
    }
    if (error == 0) {
        error = allow_ioctls(filter);
    }
    if (error == 0) {
        error = allow_with_conditions(filter);
    }
    if (error == 0) {
        error = seccomp_load(filter);
    }
    seccomp_release(filter);
    return error;
}

static int drop_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
    /* The bounding set can be lowered only by who still has CAP_SETPCAP; without it the set is
     * beyond reach anyway once new privileges are off. */
    for (unsigned long capability = 0; capability <= CAP_LAST_CAP; capability++) {
        (void)prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    }
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return syscall(SYS_capset, &header, none) == 0 ? 0 : -errno;
}

/* No core dump and no debugger of the same user: memory holds the keys. */
static int hide_memory(void) {
    const struct rlimit no_core = {0, 0};
    if (setrlimit(RLIMIT_CORE, &no_core) != 0) {
        return -errno;
    }
    /* The leak checker looks at its own process as a debugger would. */
    if (!SANITIZED && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
        return -errno;
    }
    return 0;
}

int sandbox_enter(void) {
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return -errno;
    }
    int error = hide_memory();
    if (error == 0) {
        error = drop_capabilities();
    }
    return error != 0 ? error : install_filter();
}
