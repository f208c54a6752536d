#include "lists.h"

#include <string.h>

#include "plane.h"

/* Well below a message's size: several fit into the socket's buffer. */
#define PAGE_BYTES        32768u
#define SESSIONS_PER_PEER (2u + UNCONFIRMED_MAX)

enum wire_error handle_inventory(struct request *request) {
    const struct plane *plane = request->plane;
    struct inventory_reply reply = {.link_type = plane->link.type,
                                    .link_works = atomic_load(&plane->link.works),
                                    .queues = (uint16_t)plane->link.queues,
                                    .peer_count = plane->peers.count,
                                    .session_count = (uint32_t)plane->sessions.count,
                                    .socket_count = plane->sockets.count,
                                    .offloads = atomic_load(&plane->offloads.wanted),
                                    .active_offloads = atomic_load(&plane->offloads.active),
                                    .link_offloads = atomic_load(&plane->offloads.link)};
    if (plane->link.type != WIRE_LINK_NONE) {
        reply.mtu = plane->link.mtu;
        reply.padding_mtu = plane->link.padding_mtu;
        memcpy(reply.link_name, plane->link.name, sizeof(reply.link_name));
    }
    for (unsigned i = 0; i < WIRE_OFFLOADS_COUNT; i++) {
        reply.offload_errors[i] = (uint32_t)atomic_load(&plane->offloads.errors[i]);
    }
    for (unsigned i = 0; i < plane->sockets.count; i++) {
        reply.sockets[i] = plane->sockets.list[i].bound;
    }
    memcpy(request->reply, &reply, sizeof(reply));
    request->reply_length = sizeof(reply);
    return 0;
}

/* A page under construction. */
struct page {
    struct request *request;
    struct list_reply head;
};

static enum wire_error page_begin(struct page *page, struct request *request, uint32_t *cursor) {
    struct list_request asked;
    memcpy(&asked, request->body, sizeof(asked));
    if (asked.zero != 0) {
        return WIRE_ERROR_bad_value;
    }
    *cursor = asked.cursor;
    *page = (struct page){.request = request};
    request->reply_length = sizeof(page->head);
    return 0;
}

static bool page_has_room(const struct page *page, size_t size) {
    return page->request->reply_length + size <= PAGE_BYTES;
}

static void page_add(struct page *page, const void *entry, size_t size) {
    memcpy(page->request->reply + page->request->reply_length, entry, size);
    page->request->reply_length += size;
    page->head.count++;
}

static enum wire_error page_end(struct page *page, uint32_t next_cursor) {
    page->head.next_cursor = next_cursor;
    memcpy(page->request->reply, &page->head, sizeof(page->head));
    return 0;
}

static void add_peer(struct page *page, const struct plane *plane, struct peer *peer) {
    struct listed_peer entry = {.peer = peer->number,
                                .network_count =
                                    (uint32_t)networks_count(plane->networks, peer->number),
                                .mtu = atomic_load(&peer->mtu)};
    memcpy(entry.public_key, peer->public_key, sizeof(entry.public_key));
    pthread_mutex_lock(&peer->lock);
    entry.endpoint = peer->path.now.to;
    pthread_mutex_unlock(&peer->lock);
    page_add(page, &entry, sizeof(entry));
}

static void add_session(struct page *page, const struct session *session) {
    if (session == NULL) {
        return;
    }
    const struct session_record *record = session->record;
    struct listed_session entry = {.peer = record->peer,
                                   .local_index = record->local_index,
                                   .remote_index = record->remote_index,
                                   .suite = record->suite,
                                   .slot = record->slot,
                                   .is_initiator = record->is_initiator,
                                   .preferred = record->preferred,
                                   .created_at_ns = record->created_at_ns};
    page_add(page, &entry, sizeof(entry));
}

static void add_sessions(struct page *page, struct peer *peer) {
    pthread_mutex_lock(&peer->lock);
    add_session(page, peer->current);
    add_session(page, peer->previous);
    for (unsigned i = 0; i < UNCONFIRMED_MAX; i++) {
        add_session(page, peer->unconfirmed[i]);
    }
    pthread_mutex_unlock(&peer->lock);
}

enum wire_error handle_list_peers(struct request *request) {
    const struct plane *plane = request->plane;
    struct page page;
    uint32_t cursor;
    enum wire_error error = page_begin(&page, request, &cursor);
    if (error != 0) {
        return error;
    }
    for (uint32_t number = cursor; number < COUNTERS_PEER_MAX; number++) {
        struct peer *peer = peer_find(&plane->peers, number);
        if (peer != NULL) {
            if (!page_has_room(&page, sizeof(struct listed_peer))) {
                return page_end(&page, number);
            }
            add_peer(&page, plane, peer);
        }
    }
    return page_end(&page, 0);
}

enum wire_error handle_list_sessions(struct request *request) {
    const struct plane *plane = request->plane;
    struct page page;
    uint32_t cursor;
    enum wire_error error = page_begin(&page, request, &cursor);
    if (error != 0) {
        return error;
    }
    for (uint32_t number = cursor; number < COUNTERS_PEER_MAX; number++) {
        struct peer *peer = peer_find(&plane->peers, number);
        if (peer != NULL) {
            if (!page_has_room(&page, SESSIONS_PER_PEER * sizeof(struct listed_session))) {
                return page_end(&page, number);
            }
            add_sessions(&page, peer);
        }
    }
    return page_end(&page, 0);
}

enum wire_error handle_list_macs(struct request *request) {
    struct listed_mac entries[256];
    struct page page;
    uint32_t cursor;
    enum wire_error error = page_begin(&page, request, &cursor);
    if (error != 0) {
        return error;
    }
    size_t count = mac_table_list(request->plane->macs, entries,
                                  sizeof(entries) / sizeof(entries[0]), &cursor);
    for (size_t i = 0; i < count; i++) {
        page_add(&page, &entries[i], sizeof(entries[i]));
    }
    return page_end(&page, cursor);
}
