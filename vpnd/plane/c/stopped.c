#include "stopped.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#define STAT_ROOM 256 /* number, name and state are its beginning */

int process_open_self(struct process *process) {
    process->was_stopped = false;
    process->pid_fd = -1;
    process->stat_fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    if (process->stat_fd >= 0) {
        process->pid_fd = pidfd_open(getpid(), 0);
    }
    return process->pid_fd < 0 ? -errno : 0;
}

/* The name stands in brackets, and may have any in it. */
static char state_of(int stat_fd) {
    char text[STAT_ROOM + 1];
    if (stat_fd < 0 || lseek(stat_fd, 0, SEEK_SET) != 0) {
        return '\0';
    }
    ssize_t size = read(stat_fd, text, STAT_ROOM);
    text[size > 0 ? size : 0] = '\0';
    const char *end = strrchr(text, ')');
    return end != NULL && end[1] == ' ' ? end[2] : '\0';
}

bool process_stays_stopped(struct process *process) {
    bool was_stopped = process->was_stopped;
    process->was_stopped = state_of(process->stat_fd) == 'T';
    return was_stopped && process->was_stopped;
}

bool process_end(struct process *process) {
    if (process->pid_fd < 0) {
        return false;
    }
    (void)pidfd_send_signal(process->pid_fd, SIGKILL, NULL, 0);
    close(process->pid_fd);
    process->pid_fd = -1;
    return true;
}
