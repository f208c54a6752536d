/* The socket at a path on which vpnd finds the plane.
 *
 * Owns its making, before the sandbox closes. Knows nothing of who connects (connection.h).
 */
#ifndef VPND_LISTENER_H
#define VPND_LISTENER_H

#include <stdbool.h>
#include <sys/types.h>

/* Listens at the path, for our user alone. Takes the place of a socket that nobody serves any
 * more. 0 or -errno: -EADDRINUSE if somebody does, -EEXIST if it is no socket. */
int listener_open(const char *path, int *out);

/* The user who owns the socket's path. systemd may have given it to another one than we are, who
 * shall be let in. */
uid_t listener_owner(int fd);

/* Is it a unix socket of the kind vpnd hands to its child? */
bool is_control_socket(int fd);

#endif
