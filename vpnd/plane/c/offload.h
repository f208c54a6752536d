/* Which offloads run, and why another does not.
 *
 * Owns what vpnd allows, what the kernel refused and what follows of both. The link and the
 * sockets ask here and tell their refusals; nobody has to remember them.
 */
#ifndef VPND_OFFLOAD_H
#define VPND_OFFLOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "wire.h"

/* Written by the main thread, but for a refusal, which may come from any. */
struct offloads {
    atomic_uint wanted; /* wire_offload */
    atomic_uint active;
    atomic_uint link; /* TUN_F_*, 0 while TUN_VNET does not run */
    atomic_int errors[WIRE_OFFLOADS_COUNT];
};

bool offload_runs(const struct offloads *offloads, enum wire_offload offload);

/* Is it wanted, whether or not the kernel plays along? */
bool offload_is_wanted(const struct offloads *offloads, enum wire_offload offload);

/* The kernel answered to the attempt: 0, or the errno by which it refused. Not for what was not
 * wanted. */
void offload_tried(struct offloads *offloads, enum wire_offload offload, int error);

/* It does not run and nothing was refused: there is no link or socket for it, or it is switched
 * off. */
void offload_clear(struct offloads *offloads, enum wire_offload offload);

#endif
