/* Memory that outlives a function: the sessions' memfd and the shared counters.
 *
 * Owns the layout of session_record, which a later process maps again after this one is gone, and
 * the counters' memfd. Knows nothing of what a session means.
 */
#ifndef VPND_MEMORY_H
#define VPND_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replay.h"
#include "wire.h"

#define MEMORY_MAGIC    0x6d647076u /* "vpdm" */
#define MEMORY_LAYOUT   2u
#define MEMORY_SESSIONS (COUNTERS_PEER_MAX * 4u)

/* One session. Fields up to `window` belong to whom session.h says. */
struct session_record {
    uint32_t used; /* set last when taken, cleared first when given back */
    uint32_t peer;
    uint32_t local_index;
    uint32_t remote_index;
    uint8_t suite;
    uint8_t slot; /* session_slot */
    uint8_t is_initiator;
    uint8_t preferred;
    uint8_t padding; /* padding_mode */
    uint8_t heard;   /* something authentic arrived on it */
    uint8_t zero[2];
    uint32_t features;
    uint32_t zero2;
    uint64_t created_at_ns;
    uint64_t placed_at_ns;  /* when it became current or previous */
    uint64_t ends_at_ns;    /* no sending or receiving from then on */
    uint64_t send_counter;  /* the next one; advanced before a message is sealed under it */
    uint64_t sent_bytes;    /* of plaintext */
    uint64_t forged;        /* messages that did not authenticate */
    uint8_t public_key[32]; /* the peer's */
    uint8_t send_key[32];
    uint8_t receive_key[32];
    uint8_t send_salt[4];
    uint8_t receive_salt[4];
    struct wire_endpoint endpoint; /* responder: where the response went */
    uint8_t zero3[32];
    struct replay_window window;
};

_Static_assert(sizeof(struct session_record) == 2304, "session_record");
_Static_assert(offsetof(struct session_record, window) == 240, "session_record.window");

struct memory_head {
    uint32_t magic;
    uint32_t layout;
    uint64_t layout_checksum;
    uint32_t record_size;
    uint32_t capacity;
    uint32_t high_water; /* records from here on were never used */
    uint32_t zero;
    uint64_t born_at_ns; /* CLOCK_BOOTTIME; no session is older */
    uint8_t zero2[4056];
};

_Static_assert(sizeof(struct memory_head) == 4096, "memory_head");

/* Owned by the main thread. */
struct memory {
    int fd;
    struct memory_head *head;
    struct session_record *records;
    uint32_t *free_list; /* record numbers below high_water that are free */
    uint32_t free_count;
    uint32_t free_room;
};

/* Maps the sessions' memory: a new one, or with fd >= 0 the one of a former process, which it
 * owns from then on. 0; -EINVAL for another layout; -EBUSY while another process uses it. On
 * an error fd stays open and the caller's. */
int memory_open(struct memory *memory, int fd, uint64_t now_ns);

/* A zeroed record, not yet marked `used`; NULL when the memory is full. */
struct session_record *memory_take(struct memory *memory);

/* Wipes the record. */
void memory_give_back(struct memory *memory, struct session_record *record);

/* Wipes every record. */
void memory_wipe(struct memory *memory);
void memory_close(struct memory *memory);

/* Maps the shared counters: new ones, zero but for the head, or with fd >= 0 those of a former
 * process. Their descriptor, or -errno as memory_open has it. */
int counters_open(struct counters_head **counters, int fd, uint32_t workers,
                  uint64_t started_at_ns);
void counters_close(struct counters_head *counters, int fd);

#endif
