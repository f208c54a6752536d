#include "memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shared.h"

#define MEMORY_SIZE                                                                                \
    (sizeof(struct memory_head) + (size_t)MEMORY_SESSIONS * sizeof(struct session_record))
#define COUNTERS_SIZE                                                                              \
    (sizeof(struct counters_head) + (size_t)COUNTERS_PEER_MAX * sizeof(struct peer_counters))

/* Differs when a field moves, even if somebody forgot to raise MEMORY_LAYOUT. Of the places of
 * everything a later process relies on. */
static uint64_t layout_checksum(void) {
#define PLACE(field)                                                                               \
    offsetof(struct session_record, field), sizeof(((struct session_record *)0)->field)
    static const uint64_t places[] = {
        MEMORY_LAYOUT,        sizeof(struct session_record),
        MEMORY_SESSIONS,      PLACE(used),
        PLACE(peer),          PLACE(local_index),
        PLACE(remote_index),  PLACE(suite),
        PLACE(slot),          PLACE(is_initiator),
        PLACE(preferred),     PLACE(padding),
        PLACE(heard),         PLACE(features),
        PLACE(created_at_ns), PLACE(placed_at_ns),
        PLACE(ends_at_ns),    PLACE(send_counter),
        PLACE(sent_bytes),    PLACE(forged),
        PLACE(public_key),    PLACE(send_key),
        PLACE(receive_key),   PLACE(send_salt),
        PLACE(receive_salt),  PLACE(endpoint),
        PLACE(window),        REPLAY_WORDS,
    };
#undef PLACE
    return shared_sum(places, sizeof(places) / sizeof(places[0]));
}

static bool head_is_ours(const struct memory_head *head) {
    return head->magic == MEMORY_MAGIC && head->layout == MEMORY_LAYOUT &&
           head->layout_checksum == layout_checksum() &&
           head->record_size == sizeof(struct session_record) &&
           head->capacity == MEMORY_SESSIONS && head->high_water <= MEMORY_SESSIONS;
}

static void head_begin(struct memory_head *head, uint64_t now_ns) {
    head->born_at_ns = now_ns;
    head->layout = MEMORY_LAYOUT;
    head->layout_checksum = layout_checksum();
    head->record_size = sizeof(struct session_record);
    head->capacity = MEMORY_SESSIONS;
    head->high_water = 0;
    head->magic = MEMORY_MAGIC;
}

static bool remember_free(struct memory *memory, uint32_t number) {
    if (memory->free_count == memory->free_room) {
        uint32_t room = memory->free_room == 0 ? 256 : memory->free_room * 2;
        uint32_t *list = realloc(memory->free_list, room * sizeof(*list));
        if (list == NULL) {
            return false;
        }
        memory->free_list = list;
        memory->free_room = room;
    }
    memory->free_list[memory->free_count++] = number;
    return true;
}

/* What the former process was about to fill or to wipe when it ended is no fresh record yet. */
static void collect_free(struct memory *memory) {
    for (uint32_t number = 0; number < memory->head->high_water; number++) {
        struct session_record *record = &memory->records[number];
        if (!record->used) {
            explicit_bzero(record, sizeof(*record));
            if (!remember_free(memory, number)) {
                break; /* such a record is lost for use, nothing worse */
            }
        }
    }
}

int memory_open(struct memory *memory, int fd, uint64_t now_ns) {
    bool is_new = fd < 0;
    void *bytes;
    int result = is_new ? shared_new("vpnd-sessions", MEMORY_SIZE, &bytes)
                        : shared_take(fd, MEMORY_SIZE, &bytes);
    if (result < 0) {
        return result;
    }
    struct memory_head *head = bytes;
    if (is_new) {
        head_begin(head, now_ns);
    } else if (!head_is_ours(head)) {
        munmap(bytes, MEMORY_SIZE);
        return -EINVAL;
    }
    *memory = (struct memory){.fd = is_new ? result : fd, .head = head};
    memory->records = (struct session_record *)(void *)(head + 1);
    collect_free(memory);
    return 0;
}

struct session_record *memory_take(struct memory *memory) {
    if (memory->free_count > 0) {
        return &memory->records[memory->free_list[--memory->free_count]];
    }
    if (memory->head->high_water == MEMORY_SESSIONS) {
        return NULL;
    }
    return &memory->records[memory->head->high_water++];
}

void memory_give_back(struct memory *memory, struct session_record *record) {
    __atomic_store_n(&record->used, 0, __ATOMIC_RELEASE);
    explicit_bzero(record, sizeof(*record));
    (void)remember_free(memory, (uint32_t)(record - memory->records));
}

void memory_wipe(struct memory *memory) {
    explicit_bzero(memory->records, memory->head->high_water * sizeof(*memory->records));
}

void memory_close(struct memory *memory) {
    if (memory->head == NULL) {
        return;
    }
    munmap(memory->head, MEMORY_SIZE);
    close(memory->fd);
    free(memory->free_list);
    *memory = (struct memory){.fd = -1};
}

static bool counters_are_ours(const struct counters_head *head) {
    return head->magic == COUNTERS_MAGIC && head->layout == COUNTERS_LAYOUT &&
           head->peer_capacity == COUNTERS_PEER_MAX &&
           head->peer_stride == sizeof(struct peer_counters) &&
           head->drop_reasons == DROP_REASON_COUNT;
}

int counters_open(struct counters_head **counters, int fd, uint32_t workers,
                  uint64_t started_at_ns) {
    bool is_new = fd < 0;
    void *bytes;
    int result = is_new ? shared_new("vpnd-counters", COUNTERS_SIZE, &bytes)
                        : shared_take(fd, COUNTERS_SIZE, &bytes);
    if (result < 0) {
        return result;
    }
    struct counters_head *head = bytes;
    if (!is_new && !counters_are_ours(head)) {
        munmap(bytes, COUNTERS_SIZE);
        return -EINVAL;
    }
    head->layout = COUNTERS_LAYOUT;
    head->peer_capacity = COUNTERS_PEER_MAX;
    head->peer_stride = sizeof(struct peer_counters);
    head->drop_reasons = DROP_REASON_COUNT;
    head->workers = workers;
    head->started_at_ns = started_at_ns;
    head->handshakes_queued = 0;
    head->magic = COUNTERS_MAGIC;
    *counters = head;
    return is_new ? result : fd;
}

void counters_close(struct counters_head *counters, int fd) {
    munmap(counters, COUNTERS_SIZE);
    close(fd);
}
