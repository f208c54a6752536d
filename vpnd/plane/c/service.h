/* What systemd is told and what it hands in.
 *
 * Owns the notify messages, the watchdog and the descriptors of socket activation and of the
 * descriptor store, all by libsystemd. Without a NOTIFY_SOCKET or LISTEN_FDS every function is
 * a harmless no.
 */
#ifndef VPND_SERVICE_H
#define VPND_SERVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* READY=1; a status line by service_status. */
void service_ready(void);

/* STATUS=: one human line. */
__attribute__((format(printf, 1, 2))) void service_status(const char *format, ...);

/* STOPPING=1 */
void service_stopping(void);

/* WATCHDOG=1 */
void service_watchdog(void);

/* How often service_watchdog is to be sent, in ns: three times while systemd waits for one. 0: no
 * watchdog. */
uint64_t service_watchdog_every_ns(void);

/* When it is sent next. */
struct watchdog {
    uint64_t every_ns;
    uint64_t was_due_at_ns;
};

/* Tells once each time. */
bool watchdog_comes_due(struct watchdog *watchdog, uint64_t now_ns);

/* The SOCK_SEQPACKET listening socket of socket activation, or -1. */
int service_listen_fd(void);

/* Takes one descriptor that was passed in under `name`, by a socket unit or by a former life of
 * this service that stored it; each is given out once. -1 when there are no more of that name. Ours
 * to close. */
int service_take(const char *name);

/* Puts a copy of the descriptor into the store. `poll`: let systemd drop it on POLLERR or POLLHUP
 * (a UDP socket raises POLLERR for a mere ICMP error: false for those). 0 or -errno; 0 too when
 * there is no service manager. */
int service_store(const char *name, int fd, bool poll);

/* Removes all descriptors of that name from the store. */
void service_unstore(const char *name);

/* Closes what was passed in and never taken, and removes it from the store. */
void service_drop_rest(void);

/* Is there a service manager to keep anything? */
bool service_is_managed(void);

#endif
