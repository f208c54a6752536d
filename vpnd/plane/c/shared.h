/* Memory of a fixed size that has a descriptor, so that others can map it too and a later process
 * again.
 *
 * Owns its making, its mapping and the lock that keeps two processes from using one. Knows nothing
 * of what is in it.
 */
#ifndef VPND_SHARED_H
#define VPND_SHARED_H

#include <stddef.h>
#include <stdint.h>

/* New memory, zero and locked; *bytes is where it is mapped. A descriptor or -errno. */
int shared_new(const char *name, size_t size, void **bytes);

/* Maps the memory of a former process and locks it. 0; -EINVAL for another size; -EBUSY while
 * another process has it; -errno. The descriptor stays open and the caller's. */
int shared_take(int fd, size_t size, void **bytes);

/* A number that differs where one of the others does. FNV-1a, a word at a time. */
uint64_t shared_sum(const uint64_t *words, size_t count);

#endif
