#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plane.h"

#define MAP_ROOM_MIN 64u

/* Indices are drawn by vpnd at random; the multiplication guards against a poor draw. */
static size_t place_of(const struct session_map *map, uint32_t local_index) {
    return (size_t)((uint64_t)local_index * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (map->room - 1);
}

struct session *session_find(const struct session_map *map, uint32_t local_index) {
    if (map->room == 0) {
        return NULL;
    }
    size_t place = place_of(map, local_index);
    while (map->slots[place] != NULL && map->slots[place]->local_index != local_index) {
        place = (place + 1) & (map->room - 1);
    }
    return map->slots[place];
}

static void map_put(struct session_map *map, struct session *session) {
    size_t place = place_of(map, session->local_index);
    while (map->slots[place] != NULL) {
        place = (place + 1) & (map->room - 1);
    }
    map->slots[place] = session;
    map->count++;
}

static int map_grow(struct session_map *map) {
    struct session_map larger = {.room = map->room == 0 ? MAP_ROOM_MIN : map->room * 2};
    larger.slots = calloc(larger.room, sizeof(struct session *));
    if (larger.slots == NULL) {
        return -ENOMEM;
    }
    for (size_t place = 0; place < map->room; place++) {
        if (map->slots[place] != NULL) {
            map_put(&larger, map->slots[place]);
        }
    }
    free(map->slots);
    *map = larger;
    return 0;
}

/* Takes it out and closes the gap, so that no search ends too early. */
static void map_remove(struct session_map *map, const struct session *session) {
    size_t place = place_of(map, session->local_index);
    while (map->slots[place] != session) {
        place = (place + 1) & (map->room - 1);
    }
    map->slots[place] = NULL;
    map->count--;
    for (size_t next = (place + 1) & (map->room - 1); map->slots[next] != NULL;
         next = (next + 1) & (map->room - 1)) {
        struct session *moved = map->slots[next];
        map->slots[next] = NULL;
        map->count--;
        map_put(map, moved);
    }
}

void session_map_close(struct session_map *map) {
    free(map->slots);
    *map = (struct session_map){0};
}

int session_new(struct plane *plane, struct peer *peer, struct session_record *record,
                struct session **out) {
    struct session_map *map = &plane->sessions;
    if (!plane->aead->offers(record->suite)) {
        return -EINVAL;
    }
    if ((map->count + 1) * 2 > map->room && map_grow(map) < 0) {
        return -ENOMEM;
    }
    struct session *session = calloc(1, sizeof(*session));
    if (session == NULL) {
        return -ENOMEM;
    }
    session->record = record;
    session->peer = peer;
    session->local_index = record->local_index;
    atomic_init(&session->ends_at_ns, record->ends_at_ns);
    atomic_init(&session->is_dead, false);
    int error = plane->aead->key_new(&session->seal_key, record->suite, record->send_key);
    if (error == 0) {
        error = plane->aead->key_new(&session->open_key, record->suite, record->receive_key);
    }
    if (error < 0) {
        plane->aead->key_free(session->seal_key);
        free(session);
        return error;
    }
    pthread_mutex_init(&session->receive_lock, NULL);
    __atomic_store_n(&record->used, 1, __ATOMIC_RELEASE);
    map_put(map, session);
    *out = session;
    return 0;
}

void session_leave(struct plane *plane, struct session *session) {
    map_remove(&plane->sessions, session);
    plane->aead->key_free(session->seal_key);
    plane->aead->key_free(session->open_key);
    pthread_mutex_destroy(&session->receive_lock);
    explicit_bzero(session, sizeof(*session));
    free(session);
}

void session_free(struct plane *plane, struct session *session) {
    struct session_record *record = session->record;
    session_leave(plane, session);
    memory_give_back(&plane->memory, record);
}

void session_set_end(struct session *session, uint64_t ends_at_ns) {
    session->record->ends_at_ns = ends_at_ns;
    atomic_store(&session->ends_at_ns, ends_at_ns);
}

bool session_is_alive(const struct session *session, uint64_t now_ns) {
    return !atomic_load(&session->is_dead) && now_ns < atomic_load(&session->ends_at_ns);
}

/* Puts one record's session back into its peer's slot; false if it deserves none. */
static bool restore_one(struct plane *plane, struct session_record *record, uint64_t now_ns) {
    struct peer *peer = peer_find(&plane->peers, record->peer);
    struct session *session;
    if (record->peer >= COUNTERS_PEER_MAX || record->local_index == 0 ||
        record->ends_at_ns <= now_ns ||
        session_find(&plane->sessions, record->local_index) != NULL ||
        (peer != NULL && memcmp(peer->public_key, record->public_key, 32) != 0)) {
        return false;
    }
    replay_resume(&record->window);
    if ((peer == NULL && peer_new(plane, record->peer, record->public_key, &peer) < 0) ||
        session_new(plane, peer, record, &session) < 0) {
        return false;
    }
    if (!peer_restore(peer, session)) {
        session_leave(plane, session);
        return false;
    }
    return true;
}

uint32_t sessions_restore(struct plane *plane, uint64_t now_ns) {
    struct memory *memory = &plane->memory;
    uint32_t restored = 0;
    for (uint32_t i = 0; i < memory->head->high_water; i++) {
        struct session_record *record = &memory->records[i];
        if (!record->used) {
            continue;
        }
        if (restore_one(plane, record, now_ns)) {
            restored++;
        } else {
            memory_give_back(memory, record);
        }
    }
    return restored;
}
