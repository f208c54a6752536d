#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEMORY_SIZE                                                                                \
    (sizeof(struct memory_head) + (size_t)MEMORY_SESSIONS * sizeof(struct session_record))
#define COUNTERS_SIZE                                                                              \
    (sizeof(struct counters_head) + (size_t)COUNTERS_PEER_MAX * sizeof(struct peer_counters))

/* Differs when a field moves, even if somebody forgot to raise MEMORY_LAYOUT. FNV-1a over the
 * places of everything a later process relies on. */
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
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        sum = (sum ^ places[i]) * UINT64_C(0x100000001b3);
    }
    return sum;
}

/* A lock of the process, not of the open file: the descriptor store hands the same open file to
 * the next process, and the two must exclude each other. */
static int lock_exclusively(int fd) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_SETLK, &lock) < 0) {
        return errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
    }
    return 0;
}

static int create(const char *name, size_t size) {
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return -errno;
    }
    if (ftruncate(fd, (off_t)size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

static bool head_is_ours(const struct memory_head *head) {
    return head->magic == MEMORY_MAGIC && head->layout == MEMORY_LAYOUT &&
           head->layout_checksum == layout_checksum() &&
           head->record_size == sizeof(struct session_record) &&
           head->capacity == MEMORY_SESSIONS && head->high_water <= MEMORY_SESSIONS;
}

static void head_begin(struct memory_head *head) {
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

int memory_open(struct memory *memory, int fd) {
    bool is_new = fd < 0;
    struct stat status;
    int error;
    if (is_new) {
        fd = create("vpnd-sessions", MEMORY_SIZE);
        if (fd < 0) {
            return fd;
        }
    } else if (fstat(fd, &status) < 0 || status.st_size != (off_t)MEMORY_SIZE) {
        return -EINVAL;
    }
    error = lock_exclusively(fd);
    if (error < 0) {
        goto refused;
    }
    void *bytes = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (bytes == MAP_FAILED) {
        error = -errno;
        goto refused;
    }
    madvise(bytes, MEMORY_SIZE, MADV_DONTDUMP);
    *memory = (struct memory){.fd = fd, .head = bytes};
    memory->records = (struct session_record *)(void *)((uint8_t *)bytes + sizeof(*memory->head));
    if (is_new) {
        head_begin(memory->head);
    } else if (!head_is_ours(memory->head)) {
        munmap(bytes, MEMORY_SIZE);
        return -EINVAL;
    }
    for (uint32_t number = 0; number < memory->head->high_water; number++) {
        if (!memory->records[number].used && !remember_free(memory, number)) {
            break; /* such a record is lost for use, nothing worse */
        }
    }
    return 0;
refused:
    if (is_new) {
        close(fd);
    }
    return error;
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

int counters_open(struct counters_head **counters, int *fd, uint32_t workers,
                  uint64_t started_at_ns) {
    int made = create("vpnd-counters", COUNTERS_SIZE);
    if (made < 0) {
        return made;
    }
    void *bytes = mmap(NULL, COUNTERS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, made, 0);
    if (bytes == MAP_FAILED) {
        int error = -errno;
        close(made);
        return error;
    }
    struct counters_head *head = bytes;
    head->layout = COUNTERS_LAYOUT;
    head->peer_capacity = COUNTERS_PEER_MAX;
    head->peer_stride = sizeof(struct peer_counters);
    head->drop_reasons = DROP_REASON_COUNT;
    head->workers = workers;
    head->started_at_ns = started_at_ns;
    head->magic = COUNTERS_MAGIC;
    *counters = head;
    *fd = made;
    return 0;
}

void counters_close(struct counters_head *counters, int fd) {
    munmap(counters, COUNTERS_SIZE);
    close(fd);
}
