/* The plane socket's language and the layout of the shared counters.
 *
 * Owns every struct that leaves this process: requests, replies and events on the
 * AF_UNIX SOCK_SEQPACKET socket, and the counters that vpnd maps read-only. wire.py and
 * counters.py mirror this file; a test compares every size and offset. All integers are
 * little-endian, every struct is laid out without holes.
 *
 * A request is answered by one reply with its sequence and type | WIRE_REPLY; the header's
 * error is 0 or a wire_error, and a request answered by an error has changed nothing. One with
 * sequence 0 is answered only if there is something to tell: an error, or what was asked for; a
 * message may hold many such, one after the other, each with its header and none with descriptors.
 * Events come at any time, with sequence 0, and likewise many in a message.
 */
#ifndef VPND_WIRE_H
#define VPND_WIRE_H

#include <stddef.h>
#include <stdint.h>

#define WIRE_VERSION      1u
#define WIRE_MESSAGE_MAX  65536u /* bytes of one message, header included */
#define WIRE_DATAGRAM_MAX 1500u  /* bytes of a handshake or control message carried */
#define WIRE_REPLY        0x8000u
#define WIRE_EVENT        0x4000u
#define WIRE_FDS_MAX      64u
#define WIRE_SOCKETS_MAX  64u
#define WIRE_QUEUES_MAX   32u
#define WIRE_NAME_SIZE    16u  /* IFNAMSIZ */
#define WIRE_MACS_MAX     256u /* static MAC addresses of one peer */
#define WIRE_VLANS_SIZE   512u /* bytes of a set of VLANs, a bit for each number */

enum wire_type {
    WIRE_HELLO = 1,            /* hello_request -> hello_reply + counters memfd */
    WIRE_INVENTORY = 2,        /* empty -> inventory_reply */
    WIRE_LIST_PEERS = 3,       /* list_request -> list_reply + listed_peer[] */
    WIRE_LIST_SESSIONS = 4,    /* list_request -> list_reply + listed_session[] */
    WIRE_LIST_MACS = 5,        /* list_request -> list_reply + listed_mac[] */
    WIRE_SET_LINK = 6,         /* set_link_request + queues' fds */
    WIRE_SET_SOCKETS = 7,      /* set_sockets_request + UDP sockets' fds */
    WIRE_SET_PEER = 8,         /* set_peer_request + wire_network[] */
    WIRE_REMOVE_PEER = 9,      /* peer_request */
    WIRE_INSTALL_SESSION = 10, /* install_session_request */
    WIRE_RETIRE_SESSION = 11,  /* session_request */
    WIRE_SEND_DATAGRAM = 12,   /* send_datagram_request + bytes */
    WIRE_SEND_CONTROL = 13,    /* send_control_request + bytes */
    WIRE_SEND_KEEPALIVE = 14,  /* peer_request */
    WIRE_FLUSH_STAGED = 15,    /* peer_request */
    WIRE_SET_OPTIONS = 16,     /* set_options_request */
    WIRE_STOP = 17,            /* empty; answered, then the plane ends */
    WIRE_SET_GATE = 18,        /* set_gate_request */
    WIRE_SET_PEER_MTU = 19,    /* set_peer_mtu_request */
    WIRE_CLOSE_GATE = 20,      /* close_gate_request */
    WIRE_START_CAPTURE = 21,   /* start_capture_request + the ring's memfd */
    WIRE_STOP_CAPTURE = 22,    /* empty */
    WIRE_SET_PEER_FRAMES = 23, /* set_peer_frames_request + wire_mac[] */

    WIRE_EVENT_DATAGRAM = 0x4001,       /* datagram_event + bytes */
    WIRE_EVENT_CONTROL = 0x4002,        /* control_event + bytes */
    WIRE_EVENT_SESSION_WANTED = 0x4003, /* peer_event */
    WIRE_EVENT_SESSION_PLACED = 0x4004, /* session_event: current or previous by now */
    WIRE_EVENT_SESSION_ENDED = 0x4005,  /* session_event: gone by the plane's own limits */
    WIRE_EVENT_PEER_ROAMED = 0x4006,    /* roamed_event */
    WIRE_EVENT_LINK_FAILED = 0x4007,    /* failed_event: the link's descriptor is dead */
    WIRE_EVENT_SOCKET_FAILED = 0x4008,  /* failed_event */
};

/* name, value, text */
#define WIRE_ERRORS(X)                                                                             \
    X(version_mismatch, 1, "the two programs speak different versions of the plane socket")        \
    X(no_hello, 2, "the first request of a connection is hello")                                   \
    X(unknown_request, 3, "there is no such request")                                              \
    X(bad_length, 4, "the message has the wrong length for its type")                              \
    X(bad_value, 5, "a field holds a value outside its range")                                     \
    X(bad_descriptors, 6, "the number or kind of descriptors passed is wrong")                     \
    X(no_such_peer, 7, "no peer has this number")                                                  \
    X(peer_exists, 8, "the number belongs to a peer with another public key")                      \
    X(no_such_session, 9, "no session has this index")                                             \
    X(session_exists, 10, "the index belongs to another session")                                  \
    X(no_session, 11, "the peer has no session to send on")                                        \
    X(no_endpoint, 12, "the peer has no endpoint and none was given")                              \
    X(no_socket, 13, "there is no socket for this address family")                                 \
    X(table_full, 14, "the table has no room for another entry")                                   \
    X(no_memory, 15, "memory ran out")                                                             \
    X(send_failed, 16, "the kernel refused to send")                                               \
    X(no_link, 17, "no link was set")                                                              \
    X(unsupported_suite, 18, "no AEAD back end offers this suite")

enum wire_error {
#define X(name, value, text) WIRE_ERROR_##name = value,
    WIRE_ERRORS(X)
#undef X
};

struct wire_header {
    uint16_t type; /* wire_type, with WIRE_REPLY in a reply */
    uint16_t zero;
    uint32_t sequence;
    uint32_t error;  /* wire_error in a reply, else 0 */
    uint32_t length; /* bytes after this header */
};

struct wire_endpoint {
    uint8_t family; /* 0: none, 4, 6 */
    uint8_t zero;
    uint16_t port;
    uint32_t scope;      /* interface index of an IPv6 link-local address, else 0 */
    uint8_t address[16]; /* network order; IPv4 in the first 4 bytes, the rest zero */
};

struct wire_network {
    uint8_t family; /* 4 or 6 */
    uint8_t prefix; /* bits */
    uint8_t zero[2];
    uint8_t address[16]; /* as in wire_endpoint; bits beyond the prefix are zero */
};

struct hello_request {
    uint32_t version; /* WIRE_VERSION */
    uint32_t zero;
};

struct hello_reply {
    uint32_t version;
    uint32_t counters_layout; /* COUNTERS_LAYOUT */
    uint64_t started_at_ns;   /* CLOCK_BOOTTIME */
    uint32_t peer_capacity;
    uint8_t has_aes; /* 1: AES and carry-less multiply in hardware */
    uint8_t zero[3];
    char aead[32];            /* back end in use, NUL padded: "ipsec-mb", "openssl" */
    char program_version[32]; /* NUL padded */
};

/* What the kernel may do for a run of packets in one step. */
enum wire_offload {
    OFFLOAD_UDP_GSO = 1,  /* one send carries datagrams of one size */
    OFFLOAD_UDP_GRO = 2,  /* one receive brings them */
    OFFLOAD_TUN_VNET = 4, /* the link gives and takes large frames and partial checksums */
};

#define OFFLOAD_ALL 7u

#define WIRE_OFFLOADS_COUNT 3u

enum wire_link_type { WIRE_LINK_NONE = 0, WIRE_LINK_TUN = 1, WIRE_LINK_TAP = 2 };

struct inventory_reply {
    uint8_t link_type;  /* wire_link_type */
    uint8_t link_works; /* 0: its descriptor answered EBADFD, the link was deleted */
    uint16_t queues;
    uint32_t mtu;
    char link_name[WIRE_NAME_SIZE];
    uint32_t peer_count;
    uint32_t session_count;
    uint32_t socket_count;
    uint32_t padding_mtu;                           /* padding makes no packet larger than this */
    uint32_t offloads;                              /* wire_offload, as set */
    uint32_t active_offloads;                       /* those that run */
    uint32_t link_offloads;                         /* TUN_F_*, as the kernel granted */
    uint32_t offload_errors[WIRE_OFFLOADS_COUNT];   /* errno by which the kernel refused, else 0; in
                                                       the order of wire_offload */
    struct wire_endpoint sockets[WIRE_SOCKETS_MAX]; /* as bound; port is the real one */
};

struct list_request {
    uint32_t cursor; /* 0 to begin, then next_cursor of the reply */
    uint32_t zero;
};

struct list_reply {
    uint32_t next_cursor; /* 0: this was the last page */
    uint32_t count;       /* entries that follow */
};

struct listed_peer {
    uint32_t peer;
    uint32_t network_count;
    uint8_t public_key[32];
    struct wire_endpoint endpoint; /* family 0: none known */
    uint32_t mtu;                  /* as set_peer_mtu_request has it */
    uint32_t zero;
};

enum session_slot { SLOT_UNCONFIRMED = 1, SLOT_CURRENT = 2, SLOT_PREVIOUS = 3 };

struct listed_session {
    uint32_t peer;
    uint32_t local_index;
    uint32_t remote_index;
    uint8_t suite; /* 1 AES-256-GCM, 2 ChaCha20-Poly1305 */
    uint8_t slot;  /* session_slot */
    uint8_t is_initiator;
    uint8_t preferred;
    uint64_t created_at_ns; /* CLOCK_BOOTTIME */
};

struct listed_mac {
    uint8_t mac[6];
    uint16_t vlan; /* 0: untagged; of a static one always 0, it holds in every VLAN */
    uint32_t peer;
    uint32_t is_static;
    uint64_t seen_at_ns; /* CLOCK_BOOTTIME; 0 of a static one */
};

struct set_link_request {
    uint8_t type;         /* wire_link_type, not NONE */
    uint8_t queues;       /* number of descriptors passed; 0: the present link, with another MTU */
    uint16_t padding_mtu; /* padding makes no packet larger than this; 0: than mtu */
    uint32_t mtu;         /* largest inner IP packet */
    char name[WIRE_NAME_SIZE];
};

struct set_sockets_request {
    uint32_t count;   /* number of descriptors passed; at most WIRE_SOCKETS_MAX */
    uint32_t workers; /* threads that receive, each from every workers-th socket; 0: one */
};

enum set_peer_flags {
    PEER_APPEND_NETWORKS = 1, /* add to the networks instead of replacing them */
    PEER_RENAME = 2,          /* an existing peer has this public key from now on */
};

/* Adds a peer or changes one. Sessions and counters of an existing peer stay. A network that
 * another peer holds moves to this one. An endpoint of family 0 leaves the known one alone. */
struct set_peer_request {
    uint32_t peer; /* below peer_capacity; the slot in the counters */
    uint32_t flags;
    uint8_t public_key[32];
    struct wire_endpoint endpoint; /* valid without a path challenge */
    uint32_t network_count;
    uint32_t zero;
};

struct peer_request {
    uint32_t peer;
    uint32_t zero;
};

/* How large an inner packet (behind the Ethernet header) the path to the peer carries. */
struct set_peer_mtu_request {
    uint32_t peer;
    uint32_t mtu; /* 0: the link's own */
};

struct wire_mac {
    uint8_t mac[6];
    uint8_t zero[2];
};

enum frames_flags {
    FRAMES_RELAYED = 1, /* to and from other peers that have this flag too */
    FRAMES_BY_VLAN = 2, /* only those of `vlans` pass */
};

/* What Ethernet frames a peer may send and get, whole each time. Until it is set: all of them, and
 * none from or to other peers. A MAC address that is another peer's moves to this one. */
struct set_peer_frames_request {
    uint32_t peer;
    uint32_t flags;       /* frames_flags */
    uint32_t storm_limit; /* of broadcasts, multicasts and frames to nobody known: so many each way
                             in a second; 0: any number */
    uint32_t mac_count;   /* the only sources that the peer may show, ascending; 0: any */
    uint8_t vlans[WIRE_VLANS_SIZE]; /* VLAN n: bit n % 8 of byte n / 8; 0: untagged */
};

struct session_request {
    uint32_t peer;
    uint32_t local_index;
};

/* Installing the same session twice is answered without a change. The plane places it: an
 * initiator's becomes current at once, a responder's waits unconfirmed; the collision rule
 * (protocol section 8) uses `preferred`. */
struct install_session_request {
    uint32_t peer;
    uint32_t local_index;
    uint32_t remote_index;
    uint8_t suite;
    uint8_t is_initiator;
    uint8_t preferred; /* 1: this session's initiator has the greater static key */
    uint8_t padding;   /* padding_mode agreed with the peer */
    uint32_t features; /* FEATURES agreed, protocol section 10 */
    uint32_t zero;
    struct wire_endpoint
        endpoint; /* initiator: the response's source, becomes the endpoint;
                     responder: where the response went, proven by the confirmation */
    uint8_t send_key[32];
    uint8_t send_salt[4];
    uint8_t receive_key[32];
    uint8_t receive_salt[4];
};

struct send_datagram_request {
    struct wire_endpoint to;
};

struct send_control_request {
    uint32_t peer;
    uint32_t local_index;    /* session to send on; 0: the current one */
    struct wire_endpoint to; /* family 0: the peer's endpoint */
};

enum padding_mode { PADDING_NONE = 0, PADDING_16 = 1, PADDING_BUCKET = 2, PADDING_FULL = 3 };

struct set_options_request {
    uint32_t mac_limit; /* learned MAC addresses per peer (TAP) */
    uint32_t mac_age_s; /* seconds until an unseen MAC address is forgotten */
    uint32_t offloads;  /* wire_offload: those that may run; OFFLOAD_ALL until it is set */
    uint32_t zero;
};

/* What the plane needs to answer initiations by cookies while too many wait for vpnd (protocol
 * sections 4 and 5.2). */
struct set_gate_request {
    uint8_t mac1_key[32];
    uint8_t cookie_key[32];
    uint8_t secret[32]; /* of cookies */
    uint8_t previous_secret[32];
    uint8_t previous_mac1_key[32]; /* of the key that is replaced, while it answers too */
    uint8_t previous_cookie_key[32];
    uint32_t secret_count; /* 0: no gate, everything goes up */
    uint32_t versions;     /* bit n: version n of the protocol is answered */
    uint32_t has_previous_key;
    uint32_t zero;
};

/* vpnd itself finds that handshakes cost too much. */
struct close_gate_request {
    uint32_t milliseconds; /* from now, during which initiations without a cookie get one */
    uint32_t zero;
};

/* Copies of packets go into the ring from now on; a capture that ran ends. The ring has room for a
 * capture_head and CAPTURE_SLOTS capture_slots, and F_SEAL_SHRINK. */
struct start_capture_request {
    uint32_t kinds; /* capture_kind */
    uint32_t peer;  /* the only one, or CAPTURE_EVERY_PEER */
};

struct datagram_event {
    uint64_t received_at_ns; /* CLOCK_BOOTTIME */
    uint32_t queue_depth;    /* handshake messages still waiting behind this one */
    uint32_t zero;
    struct wire_endpoint from;
};

struct control_event {
    uint64_t received_at_ns;
    uint32_t peer;
    uint32_t local_index;
    struct wire_endpoint from;
};

struct peer_event {
    uint32_t peer;
    uint32_t zero;
};

enum session_end {
    SESSION_END_NONE = 0,
    SESSION_END_AGE = 1,
    SESSION_END_MESSAGES = 2,
    SESSION_END_FORGED = 3,
    SESSION_END_REPLACED = 4
};

struct session_event {
    uint32_t peer;
    uint32_t local_index;
    uint8_t slot;   /* session_slot, in SESSION_PLACED */
    uint8_t reason; /* session_end, in SESSION_ENDED */
    uint16_t zero;
    uint32_t zero2;
};

enum roam_state {
    ROAM_PROBATION = 0,
    ROAM_VALIDATED = 1,
    ROAM_FAILED = 2 /* back to `endpoint` */
};

struct roamed_event {
    uint32_t peer;
    uint8_t state; /* roam_state */
    uint8_t zero[3];
    struct wire_endpoint endpoint;
};

struct failed_event {
    uint32_t error; /* errno */
    uint32_t zero;
};

/* ---- shared counters: one counters_head, then peer_capacity peer_counters ---- */

#define COUNTERS_MAGIC       0x63647076u /* "vpdc" */
#define COUNTERS_LAYOUT      1u
#define COUNTERS_WORKERS_MAX 64u
#define COUNTERS_DROPS_MAX   64u
#define COUNTERS_PEER_MAX    65536u

/* Names are exported unchanged: status, metrics and documents use them. name, text */
#define DROP_REASONS(X)                                                                            \
    X(rx_malformed, "datagram too short, of unknown type or with reserved bits set")               \
    X(data_noidx, "no session has the index it names")                                             \
    X(data_expired, "its session is older than 180 s or its counter too high")                     \
    X(data_replay, "its counter was seen before or is too old")                                    \
    X(data_auth, "it does not authenticate")                                                       \
    X(data_inner, "its plaintext is no packet, frame or control message of the protocol")          \
    X(data_source, "inner source address is not in the peer's networks")                           \
    X(hs_queue_full, "the queue of handshake messages was full")                                   \
    X(hs_no_daemon, "a handshake message came while no vpnd was connected")                        \
    X(control_rate, "more control messages than a peer may send")                                  \
    X(path_failed, "the peer's new address did not answer the path challenge")                     \
    X(path_budget, "more bytes than may go to an unproven address")                                \
    X(link_not_ip, "what came from the link is no IP packet")                                      \
    X(link_not_frame, "what came from the link is no Ethernet frame")                              \
    X(link_too_large, "the packet from the link is larger than the link's MTU")                    \
    X(link_offload, "the frame from the link asks for an offload that is not agreed")              \
    X(no_peer, "no peer has a network for this destination")                                       \
    X(no_endpoint, "the peer's endpoint is not known yet")                                         \
    X(staged_overflow, "too many packets waited for a session, the oldest went")                   \
    X(staged_flushed, "no session came in time for packets that waited")                           \
    X(session_limit, "the session reached its age or message limit")                               \
    X(no_socket, "there is no socket for the endpoint's address family")                           \
    X(send_error, "the kernel refused to send the datagram")                                       \
    X(send_full, "the socket's send buffer was full")                                              \
    X(link_write, "the kernel refused the packet on the link")                                     \
    X(mac_limit, "a peer showed more MAC addresses than it may")                                   \
    X(receive_truncated, "the datagram was larger than any the protocol has")                      \
    X(rx_mac1, "initiation by a caller that has another public key for us, or another knock")      \
    X(hs_cookie_sent, "initiation answered by a cookie, since we are under load")                  \
    X(hs_dup, "copy of an initiation that came before")                                            \
    X(hs_ratelimited, "more initiations from one source than allowed under load")                  \
    X(link_loop, "it is wrapped too often: tunnels are routed into each other or themselves")      \
    X(path_too_large, "the packet is larger than the path to the peer carries")                    \
    X(data_ecn, "marked by a congested router, and its inner packet cannot carry the mark")        \
    X(frame_source, "its source MAC address is not one that the peer may use")                     \
    X(frame_vlan, "the peer may not use its VLAN")                                                 \
    X(frame_storm, "more broadcasts, multicasts and frames to nobody known than allowed")          \
    X(frame_isolated, "it is for a peer that exchanges no frames with its sender")

enum drop_reason {
#define X(name, text) DROP_##name,
    DROP_REASONS(X)
#undef X
        DROP_REASON_COUNT
};

struct counters_head {
    uint32_t magic;
    uint32_t layout;
    uint32_t peer_capacity;
    uint32_t peer_stride; /* sizeof(struct peer_counters) */
    uint32_t drop_reasons;
    uint32_t workers;
    uint64_t started_at_ns;
    uint64_t handshakes_queued;
    uint64_t rx_datagrams; /* from the sockets, of every kind */
    uint64_t tx_datagrams;
    uint64_t link_rx_packets;                  /* read from the link */
    uint64_t link_tx_packets;                  /* written to the link */
    uint64_t heartbeats[COUNTERS_WORKERS_MAX]; /* turns of each worker's loop */
    uint64_t drops[COUNTERS_DROPS_MAX];        /* by drop_reason, all peers and none */
};

/* Stamps are CLOCK_BOOTTIME in ns, 0 for never. Bytes are of inner packets. */
struct peer_counters {
    uint64_t rx_bytes;
    uint64_t rx_packets;
    uint64_t tx_bytes;
    uint64_t tx_packets;
    uint64_t last_sent_ns;                 /* anything authenticated */
    uint64_t last_received_ns;             /* anything authenticated */
    uint64_t last_data_sent_ns;            /* packets and frames only */
    uint64_t last_data_received_ns;        /* packets and frames only */
    uint64_t unanswered_sent_since_ns;     /* first data sent since the last receipt, else 0 */
    uint64_t unanswered_received_since_ns; /* first data received since the last sending, else 0 */
    uint64_t session_messages;             /* sent on the current session */
    uint64_t session_bytes;                /* sent on the current session */
    uint32_t current_index; /* local index of the current session, valid if has_current */
    uint32_t has_current;
    uint32_t staged;    /* packets that wait for a session */
    uint32_t gso_error; /* errno by which the path last refused UDP_SEGMENT, else 0 */
    uint32_t drops[COUNTERS_DROPS_MAX];
};

/* ---- the ring of a capture ---- */

#define CAPTURE_MAGIC      0x70647076u /* "vpdp" */
#define CAPTURE_LAYOUT     1u
#define CAPTURE_SLOTS      4096u
#define CAPTURE_BYTES      1968u /* of a packet that are kept at most */
#define CAPTURE_EVERY_PEER UINT32_MAX
#define CAPTURE_WRITING    UINT64_MAX
#define CAPTURE_ALL        7u

enum capture_kind { CAPTURE_INNER = 1, CAPTURE_OUTER = 2, CAPTURE_DROPS = 4 };

enum capture_way { CAPTURE_IN = 1, CAPTURE_OUT = 2 };

struct capture_head {
    uint32_t magic;
    uint32_t layout;
    uint32_t slots;
    uint32_t slot_size;
    uint64_t next; /* number of the packet that comes next, counted from 0 */
    uint64_t zero[5];
};

/* The packet with number n lies in slot n modulo slots. */
struct capture_slot {
    uint64_t number; /* n + 1; 0: never used; CAPTURE_WRITING: about to be filled */
    uint64_t at_ns;  /* CLOCK_BOOTTIME */
    uint32_t peer;   /* CAPTURE_EVERY_PEER: not known */
    uint32_t size;   /* of the packet */
    uint16_t kept;   /* bytes of it that are here */
    uint8_t is_outer;
    uint8_t way; /* capture_way */
    uint8_t is_dropped;
    uint8_t reason; /* drop_reason of a dropped one */
    uint16_t zero;
    struct wire_endpoint remote; /* of an outer one */
    struct wire_endpoint local;
    uint8_t
        bytes[CAPTURE_BYTES]; /* an IP packet or Ethernet frame; of an outer one what UDP carried */
};

_Static_assert(sizeof(struct capture_slot) == 2048, "capture_slot");
_Static_assert(sizeof(struct wire_header) == 16, "wire_header");
_Static_assert(sizeof(struct wire_endpoint) == 24, "wire_endpoint");
_Static_assert(sizeof(struct wire_network) == 20, "wire_network");
_Static_assert(sizeof(struct listed_session) == 24, "listed_session");
_Static_assert(sizeof(struct set_peer_frames_request) == 528, "set_peer_frames_request");
_Static_assert(sizeof(struct peer_counters) == 368, "peer_counters");
_Static_assert(sizeof(struct counters_head) == 72 + 8 * 128, "counters_head");

#endif
