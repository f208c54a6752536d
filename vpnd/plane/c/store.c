#include "store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "keep.h"
#include "plane.h"
#include "shared.h"
#include "stored.h"

#define STORE_MAGIC  0x73647076u /* "vpds" */
#define STORE_LAYOUT 2u
#define STARTS_MAX   3u  /* processes that may fail over what they took before it is thrown away */
#define ROSTER_SHARE 20u /* writing it takes at most this part of the main thread's time */

#define NAME_STORE    "store"
#define NAME_SESSIONS "sessions"
#define NAME_COUNTERS "counters"

struct memories {
    struct store_head head;
    struct roster rosters[2];
};

static struct roster *roster_at(struct store *store, uint32_t place) {
    return &((struct memories *)(void *)store->head)->rosters[place - 1];
}

/* ---- memories ---- */

static uint64_t layout_sum(void) {
#define PLACE(field) offsetof(struct stored_ports, field)
    const uint64_t places[] = {
        STORE_LAYOUT,     sizeof(struct memories), PLACE(link_type),      PLACE(queues),
        PLACE(mtu),       PLACE(padding_mtu),      PLACE(link_name),      PLACE(link_serial),
        PLACE(sockets),   PLACE(workers),          PLACE(sockets_serial), PLACE(mac_limit),
        PLACE(mac_age_s), PLACE(offloads),         PLACE(bound),          WIRE_SOCKETS_MAX,
        roster_layout(),
    };
#undef PLACE
    return shared_sum(places, sizeof(places) / sizeof(places[0]));
}

static bool head_is_ours(const struct store_head *head) {
    return head->magic == STORE_MAGIC && head->layout == STORE_LAYOUT &&
           head->layout_sum == layout_sum() && head->ports_place <= 2 && head->roster_place <= 2;
}

/* False: nothing that is stored can be trusted. */
static bool take_own(struct store *store) {
    void *bytes = NULL;
    int fd = stored_take(NAME_STORE);
    if (fd < 0) {
        return true;
    }
    int error = shared_take(fd, sizeof(struct memories), &bytes);
    struct store_head *head = bytes;
    bool is_ours = error == 0 && head_is_ours(head);
    if (is_ours && head->starts < STARTS_MAX) {
        store->fd = fd;
        store->head = head;
        return true;
    }
    if (error == 0) {
        munmap(bytes, sizeof(struct memories));
    }
    stored_discard(NAME_STORE, fd,
                   is_ours ? "no process got to work with it"
                           : stored_reason(error == 0 ? -EINVAL : error));
    return !is_ours && error != -EBUSY;
}

static int open_own(struct store *store) {
    void *bytes;
    if (store->head != NULL) {
        return 0;
    }
    int fd = shared_new("vpnd-store", sizeof(struct memories), &bytes);
    if (fd < 0) {
        return fd;
    }
    store->fd = fd;
    store->head = bytes;
    store->head->layout = STORE_LAYOUT;
    store->head->layout_sum = layout_sum();
    store->head->magic = STORE_MAGIC;
    keep_put(NAME_STORE, fd, false);
    return 0;
}

/* Out of the store at once where it is not to be trusted: a new one will have its name. */
static int take_memory(const char *name, bool may_take) {
    int fd = stored_take(name);
    if (fd >= 0 && !may_take) {
        close(fd);
        keep_drop(name);
        fd = -1;
    }
    return fd;
}

static int open_sessions(struct plane *plane, bool may_take, uint64_t now_ns) {
    int fd = take_memory(NAME_SESSIONS, may_take);
    if (fd >= 0) {
        int error = memory_open(&plane->memory, fd, now_ns);
        if (error == 0) {
            return 0;
        }
        stored_discard(NAME_SESSIONS, fd, stored_reason(error));
    }
    int error = memory_open(&plane->memory, -1, now_ns);
    if (error == 0) {
        keep_put(NAME_SESSIONS, plane->memory.fd, false);
    }
    return error;
}

static int open_counters(struct plane *plane, bool may_take) {
    int fd = take_memory(NAME_COUNTERS, may_take);
    if (fd >= 0) {
        int error = counters_open(&plane->counters, fd, DIRECTIONS, plane->started_at_ns);
        if (error >= 0) {
            plane->counters_fd = fd;
            return 0;
        }
        stored_discard(NAME_COUNTERS, fd, stored_reason(error));
    }
    int made = counters_open(&plane->counters, -1, DIRECTIONS, plane->started_at_ns);
    if (made < 0) {
        return made;
    }
    plane->counters_fd = made;
    keep_put(NAME_COUNTERS, made, false);
    return 0;
}

int store_open(struct plane *plane, uint64_t now_ns) {
    bool may_take = false;
    int error = 0;
    if (keep_is_there()) {
        may_take = take_own(&plane->store);
        error = open_own(&plane->store);
    }
    if (error == 0) {
        error = open_sessions(plane, may_take, now_ns);
    }
    if (error == 0) {
        /* Peers know sessions by the age of who holds them. */
        plane->started_at_ns = plane->memory.head->born_at_ns;
        error = open_counters(plane, may_take);
    }
    return error;
}

/* ---- writing down ---- */

static uint64_t ports_sum(const struct stored_ports *ports) {
    _Static_assert(sizeof(*ports) % sizeof(uint64_t) == 0, "summed by words");
    return shared_sum((const uint64_t *)(const void *)ports + 1,
                      sizeof(*ports) / sizeof(uint64_t) - 1);
}

static void publish(struct store *store) {
    uint32_t place = store->head->ports_place == 1 ? 2 : 1;
    store->ports.sum = ports_sum(&store->ports);
    store->head->ports[place - 1] = store->ports;
    __atomic_store_n(&store->head->ports_place, place, __ATOMIC_RELEASE);
}

/* New descriptors are stored before they are spoken of, and old ones go after that. */
void store_link(struct plane *plane, bool has_new_queues) {
    struct store *store = &plane->store;
    struct stored_ports *ports = &store->ports;
    const struct link *link = &plane->link;
    struct stored_ports former = *ports;
    if (store->head == NULL) {
        return;
    }
    ports->link_type = link->type;
    ports->queues = link->queues;
    ports->mtu = link->mtu;
    ports->padding_mtu = link->padding_mtu;
    memcpy(ports->link_name, link->name, sizeof(ports->link_name));
    ports->link_serial += has_new_queues ? 1 : 0;
    for (unsigned i = 0; has_new_queues && i < link->queues; i++) {
        stored_put(KIND_QUEUE, ports->link_serial, i, link->fds[i], true);
    }
    publish(store);
    if (has_new_queues) {
        stored_drop_row(KIND_QUEUE, former.link_serial, former.queues);
    }
}

void store_sockets(struct plane *plane) {
    struct store *store = &plane->store;
    struct stored_ports *ports = &store->ports;
    const struct sockets *sockets = &plane->sockets;
    struct stored_ports former = *ports;
    if (store->head == NULL) {
        return;
    }
    ports->sockets = sockets->count;
    ports->workers = sockets->workers;
    ports->sockets_serial++;
    memset(ports->bound, 0, sizeof(ports->bound));
    for (unsigned i = 0; i < sockets->count; i++) {
        ports->bound[i] = sockets->list[i].bound;
        /* An ICMP error is no reason to drop it. */
        stored_put(KIND_SOCKET, ports->sockets_serial, i, sockets->list[i].fd, false);
    }
    publish(store);
    stored_drop_row(KIND_SOCKET, former.sockets_serial, former.sockets);
}

void store_options(struct plane *plane, const struct set_options_request *options) {
    struct store *store = &plane->store;
    if (store->head == NULL) {
        return;
    }
    store->ports.mac_limit = options->mac_limit;
    store->ports.mac_age_s = options->mac_age_s;
    store->ports.offloads = options->offloads;
    publish(store);
}

void store_peers_changed(struct plane *plane) {
    if (plane->store.head != NULL) {
        __atomic_store_n(&plane->store.head->roster_place, 0, __ATOMIC_RELEASE);
        plane->store.is_roster_due = true;
    }
}

void store_peers_moved(struct plane *plane) {
    plane->store.is_roster_due = plane->store.head != NULL;
}

static void write_roster(struct plane *plane) {
    struct store *store = &plane->store;
    uint64_t began_ns = thread_ns();
    uint32_t place = store->head->roster_place == 1 ? 2 : 1;
    bool fits = roster_write(plane, roster_at(store, place));
    __atomic_store_n(&store->head->roster_place, fits ? place : 0, __ATOMIC_RELEASE);
    store->is_roster_due = false;
    store->roster_at_ns = boottime_ns();
    store->roster_cost_ns = elapsed_ns(began_ns, thread_ns());
}

void store_tend(struct plane *plane, uint64_t now_ns) {
    struct store *store = &plane->store;
    if (store->is_roster_due &&
        elapsed_ns(store->roster_at_ns, now_ns) >= ROSTER_SHARE * store->roster_cost_ns) {
        write_roster(plane);
    }
}

/* ---- taking back ---- */

static bool ports_are_sound(const struct stored_ports *ports) {
    return ports->sum == ports_sum(ports) && ports->queues <= WIRE_QUEUES_MAX &&
           ports->sockets <= WIRE_SOCKETS_MAX &&
           (ports->sockets == 0 || (ports->workers > 0 && ports->workers <= WORKERS_MAX)) &&
           ports->offloads <= OFFLOAD_ALL;
}

static void take_options(struct plane *plane) {
    const struct stored_ports *ports = &plane->store.ports;
    if (ports->mac_limit != 0) {
        mac_table_set_limits(plane->macs, ports->mac_limit, ports->mac_age_s);
        atomic_store(&plane->offloads.wanted, ports->offloads);
    }
}

static void close_all(const int *fds, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        close(fds[i]);
    }
}

/* NULL, or why not. */
static const char *take_sockets(struct plane *plane) {
    const struct stored_ports *ports = &plane->store.ports;
    struct udp_socket list[WIRE_SOCKETS_MAX];
    int fds[WIRE_SOCKETS_MAX];
    if (ports->sockets == 0) {
        return NULL;
    }
    if (!stored_take_row(KIND_SOCKET, ports->sockets_serial, ports->sockets, fds)) {
        return "one is missing";
    }
    bool is_same = sockets_check(fds, ports->sockets, list) == 0;
    for (unsigned i = 0; is_same && i < ports->sockets; i++) {
        is_same = endpoint_equal(&list[i].bound, &ports->bound[i]);
    }
    if (!is_same || crew_grow(&plane->inbound, ports->workers) < 0) {
        close_all(fds, ports->sockets);
        return is_same ? "no memory" : "they are not what was stored";
    }
    sockets_set(plane, list, ports->sockets, ports->workers);
    return NULL;
}

static const char *take_link(struct plane *plane) {
    const struct stored_ports *ports = &plane->store.ports;
    int fds[WIRE_QUEUES_MAX];
    struct set_link_request request = {.type = ports->link_type,
                                       .queues = (uint8_t)ports->queues,
                                       .padding_mtu = (uint16_t)ports->padding_mtu,
                                       .mtu = ports->mtu};
    if (ports->queues == 0) {
        return NULL;
    }
    memcpy(request.name, ports->link_name, sizeof(request.name));
    if (!stored_take_row(KIND_QUEUE, ports->link_serial, ports->queues, fds)) {
        return "a queue is missing";
    }
    bool is_sound = link_check(&plane->link, &request, fds, ports->queues) == 0;
    if (!is_sound || crew_grow(&plane->outbound, ports->queues) < 0) {
        close_all(fds, ports->queues);
        return is_sound ? "no memory" : "it was deleted or is another";
    }
    link_set(plane, &request, fds);
    return NULL;
}

static void take_ports(struct plane *plane) {
    struct store *store = &plane->store;
    uint32_t place = store->head->ports_place;
    if (place == 0) {
        return;
    }
    store->ports = store->head->ports[place - 1];
    if (!ports_are_sound(&store->ports)) {
        store->ports = (struct stored_ports){0};
        publish(store);
        stored_say_discarded("link and sockets", "their description is damaged");
        return;
    }
    take_options(plane);
    /* Sockets first: a queue looks for the worker that it shares with them. */
    const char *why = take_sockets(plane);
    if (why != NULL) {
        stored_say_discarded("sockets", why);
        stored_drop_row(KIND_SOCKET, store->ports.sockets_serial, store->ports.sockets);
        store->ports.sockets = 0;
    }
    why = take_link(plane);
    if (why != NULL) {
        stored_say_discarded("link", why);
        stored_drop_row(KIND_QUEUE, store->ports.link_serial, store->ports.queues);
        store->ports.queues = 0;
    }
    publish(store);
}

static void take_roster(struct plane *plane) {
    struct store *store = &plane->store;
    uint32_t place = store->head->roster_place;
    if (place == 0) {
        return;
    }
    const struct roster *roster = roster_at(store, place);
    int error = roster_is_sound(roster) ? roster_restore(plane, roster) : -EINVAL;
    if (error == 0) {
        return;
    }
    stored_say_discarded("peers", error == -EINVAL ? "their list is damaged" : strerror(-error));
    while (plane->peers.count > 0) {
        peer_free(plane, plane->peers.list[0]);
    }
    store_peers_changed(plane);
}

void store_take_back(struct plane *plane, uint64_t now_ns) {
    struct store *store = &plane->store;
    if (store->head == NULL) {
        return;
    }
    store->head->starts++;
    take_ports(plane);
    take_roster(plane);
    uint32_t sessions = sessions_restore(plane, now_ns);
    keep_drop_rest();
    if (plane->link.queues > 0 || plane->peers.count > 0) {
        fprintf(stderr, "vpnd-plane: took back %s, %u sockets, %u peers, %u sessions\n",
                plane->link.queues > 0 ? plane->link.name : "no link", plane->sockets.count,
                plane->peers.count, sessions);
    }
}

void store_settle(struct plane *plane) {
    if (plane->store.head != NULL) {
        plane->store.head->starts = 0;
    }
}

/* ---- the end ---- */

static void forget(struct plane *plane) {
    struct store *store = &plane->store;
    const struct stored_ports *ports = &store->ports;
    keep_forget();
    stored_drop_row(KIND_QUEUE, ports->link_serial, ports->queues);
    stored_drop_row(KIND_SOCKET, ports->sockets_serial, ports->sockets);
    keep_drop(NAME_STORE);
    keep_drop(NAME_SESSIONS);
    keep_drop(NAME_COUNTERS);
    if (store->head != NULL) {
        (void)madvise(store->head, sizeof(struct memories), MADV_REMOVE); /* it reads as zeros */
    }
}

void store_close(struct plane *plane, bool forgets) {
    struct store *store = &plane->store;
    if (forgets || store->head == NULL) {
        memory_wipe(&plane->memory);
        forget(plane);
    } else {
        write_roster(plane);
    }
    if (store->head != NULL) {
        munmap(store->head, sizeof(struct memories));
        close(store->fd);
        store->head = NULL;
    }
}
