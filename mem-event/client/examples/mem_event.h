/*
 * A consumer's side of mem_event: the control socket, a ring, what is handed over at the start. The slots are those of the layout
 * vm_event7, by Xen's public headers (Debian: libxen-dev); the socket's bytes are described in mem-event's docs/protocol.md. No library
 * is needed. Include this before anything else; copy it, or what you need of it.
 */
#ifndef MEM_EVENT_H
#define MEM_EVENT_H

#define _GNU_SOURCE
#define __XEN_TOOLS__ 1

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define xen_mb() __sync_synchronize()
#define xen_rmb() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define xen_wmb() __atomic_thread_fence(__ATOMIC_RELEASE)

#if !__has_include(<xen/vm_event.h>)
#error "Xen's public headers are not installed; on Debian: apt install libxen-dev"
#endif
#include <xen/xen.h>
#include <xen/io/ring.h>
#include <xen/vm_event.h>

#define PAGE 4096

/* What must not fail, failed. */
static inline void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* Our domain is gone, and with it the reason to be. */
static inline void ended(void)
{
    exit(0);
}

/* What `mem-event run --consumer` says of what it hands over. */
static inline const char *handed(const char *variable)
{
    const char *text = getenv(variable);

    if (!text) {
        fprintf(stderr, "%s is not set; start this with mem-event run GUEST --consumer, and the rings it takes\n", variable);
        exit(1);
    }
    return text;
}

/* The control socket. The connection that is handed over has said Hello, and holds the rings. */

enum { CALL = 1, REPLY = 2 };
enum { INFO = 2, READ_FRAME = 5, WRITE_FRAME = 6, LOAD = 7, TYPES = 9, SET_PAGE_FILE = 10, PAGE_FILE = 11 };
enum { REGISTERS = 70, SET_REGISTERS, PAUSE, UNPAUSE, TRANSLATE, READ_LINEAR, WRITE_LINEAR, SET_BREAKPOINT, CLEAR_BREAKPOINT, BREAKPOINTS };
enum { SET_ACCESS = 20, GET_ACCESS = 21, NOMINATE = 24, EVICT = 25, SET_BUDGET = 28 };
/* Views; an answer that switches to one wants the layout of vm_event. */
enum { SET_VIEWS = 39, CREATE_VIEW, DESTROY_VIEW, SET_VIEW_ACCESS, GET_VIEW_ACCESS, SET_VIEW_DEFAULT, SWITCH_VIEW, SWITCH_VCPU_VIEW, GET_VCPU_VIEW, CHANGE_GFN, POPULATE };
/* CPU events, and how they are reported. */
enum { MONITOR = 29, SINGLE_STEP = 30, INJECT = 35, EVENT_INT3 = 4, EVENT_SINGLE_STEP = 5, SYNC = 2 };
enum { RAM_RW = 0, RAM_PAGING_OUT = 9, RAM_PAGED = 10, RAM_PAGING_IN = 11 }; /* types of frames */

static int connection;

/* The packet of the call that is made; then that of its reply. */
static struct packet {
    char magic[4];
    uint16_t kind, operation;
    uint32_t sequence, error;
    uint64_t argument[5]; /* of a reply: its values */
    uint32_t length, zero;
    char payload[PAGE];
} packet;

enum { HEADER = offsetof(struct packet, payload) };

/*
 * A call with so many bytes of packet.payload, and with a descriptor, unless `give` is -1. The reply is in `packet`, its descriptor in
 * *taken, or -1. Returns 0, or the error's number.
 */
static inline uint32_t exchange(uint16_t operation, const uint64_t argument[5], uint32_t length, int give, int *taken)
{
    static uint32_t sequence;
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = { .header = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
    struct iovec bytes = { &packet, HEADER + length };
    struct msghdr message = { .msg_iov = &bytes, .msg_iovlen = 1 };
    ssize_t got;

    memcpy(packet.magic, "MEV1", 4);
    packet.kind = CALL;
    packet.operation = operation;
    packet.sequence = ++sequence;
    packet.error = packet.zero = 0;
    memcpy(packet.argument, argument, sizeof(packet.argument));
    packet.length = length;
    if (give >= 0) {
        memcpy(CMSG_DATA(&control.header), &give, sizeof(give));
        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
    }
    if (sendmsg(connection, &message, MSG_NOSIGNAL) < 0)
        errno == EPIPE || errno == ECONNRESET ? ended() : fail("the control socket");
    do {
        bytes.iov_len = sizeof(packet);
        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
        got = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
        if (got == 0 || (got < 0 && errno == ECONNRESET))
            ended();
        if (got < HEADER)
            fail("the control socket");
        /* Anything else is a notice, to which this connection has not subscribed. */
    } while (packet.kind != REPLY || packet.sequence != sequence);
    if (taken) {
        *taken = -1;
        if (CMSG_FIRSTHDR(&message))
            memcpy(taken, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(*taken));
    }
    return packet.error;
}

/* A call that may be refused: 0, or the error's number. */
static inline uint32_t try_call(uint16_t operation, uint64_t a, uint64_t b, uint64_t c)
{
    return exchange(operation, (uint64_t[5]){ a, b, c }, 0, -1, NULL);
}

/* The last call is refused, and that is the end. */
static inline void refused(void)
{
    fprintf(stderr, "operation %u is refused: %s, %.*s\n", packet.operation, strerror((int)packet.error), (int)packet.length,
            packet.payload);
    exit(1);
}

/*
 * A call that must not be refused; the first value of its reply. Where there is no memory for it it is made again: the p2m's own tables may
 * find none for a while.
 */
static inline uint64_t call(uint16_t operation, uint64_t a, uint64_t b, uint64_t c)
{
    while (try_call(operation, a, b, c)) {
        if (packet.error != ENOMEM)
            refused();
        usleep(1000);
    }
    return packet.argument[0];
}

/* The same with a fourth argument. */
static inline uint64_t call_with(uint16_t operation, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    if (exchange(operation, (uint64_t[5]){ a, b, c, d }, 0, -1, NULL))
        refused();
    return packet.argument[0];
}

/* A ring: Xen's macros on a page that is mapped, and two eventfds for the event channel. */

struct ring {
    vm_event_back_ring_t back;
    int signalled, signal;
    uint32_t handed_over;
};

/* Behind the page 64 places for calls that need no packet. */
struct place {
    uint16_t operation, length;
    uint32_t result; /* 0 until it was taken; then 1, or the error's number plus 1 */
    uint64_t argument[5];
    char payload[16];
};

/* Takes the ring of this variable. */
static inline void attach(struct ring *ring, const char *variable)
{
    int page, layout, slots;
    vm_event_sring_t *shared;

    if (sscanf(handed(variable), "%d,%d,%d,%d,%d", &page, &ring->signalled, &ring->signal, &layout, &slots) != 5 || layout != 2) {
        fprintf(stderr, "%s: this consumer reads slots of the layout vm_event7; name it behind the ring\n", variable);
        exit(1);
    }
    shared = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, page, 0);
    if (shared == MAP_FAILED)
        fail("the ring page");
    /* Where a predecessor left off. The engine has initialised the page: SHARED_RING_INIT would hide a first request. */
    BACK_RING_ATTACH(&ring->back, shared, shared->rsp_prod, PAGE);
    ring->handed_over = ((uint32_t *)shared)[4];
    if (slots)
        ring->back.nr_ents = slots;
    if (fcntl(ring->signalled, F_SETFL, O_NONBLOCK) < 0)
        fail("the event channel");
}

/* The next request, if one is here; else the engine is asked for a signal at the next one. */
static inline bool take(struct ring *ring, vm_event_request_t *request)
{
    int more = RING_HAS_UNCONSUMED_REQUESTS(&ring->back);

    if (!more)
        RING_FINAL_CHECK_FOR_REQUESTS(&ring->back, more);
    if (!more)
        return false;
    /* Copied once: the page is shared. */
    memcpy(request, RING_GET_REQUEST(&ring->back, ring->back.req_cons), sizeof(*request));
    ring->back.req_cons++;
    if (request->version != VM_EVENT_INTERFACE_VERSION) {
        fprintf(stderr, "version %u of vm_event\n", request->version);
        exit(1);
    }
    return true;
}

/* The answer to the oldest request without one: what it said is echoed, without its registers. It is sent by `send_answer`. */
static inline vm_event_response_t *begin_answer(struct ring *ring, const vm_event_request_t *request)
{
    vm_event_response_t *response = RING_GET_RESPONSE(&ring->back, ring->back.rsp_prod_pvt);

    memset(response, 0, sizeof(*response));
    response->version = VM_EVENT_INTERFACE_VERSION;
    response->vcpu_id = request->vcpu_id;
    response->reason = request->reason;
    response->flags = request->flags & (VM_EVENT_FLAG_VCPU_PAUSED | VM_EVENT_FLAG_FOREIGN);
    response->u = request->u;
    return response;
}

static inline void send_answer(struct ring *ring)
{
    ring->back.rsp_prod_pvt++;
    RING_PUSH_RESPONSES(&ring->back);
    if (write(ring->signal, &(uint64_t){ 1 }, 8) < 0)
        fail("the event channel");
}

/* Answers the oldest request without an answer. */
static inline void answer(struct ring *ring, const vm_event_request_t *request)
{
    begin_answer(ring, request);
    send_answer(ring);
}

/*
 * Hands a call over: it is done before the answer that is written next is taken. What is refused for want of memory is not done, and the access
 * that it was for makes its event again. False where all places are in use: then make the call on the connection.
 */
static inline bool hand_over(struct ring *ring, uint16_t operation, uint64_t a, uint64_t b, uint64_t c)
{
    uint32_t *header = (uint32_t *)ring->back.sring;
    struct place *place = (struct place *)((char *)ring->back.sring + PAGE) + ring->handed_over % 64;
    uint32_t result = __atomic_load_n(&place->result, __ATOMIC_ACQUIRE);

    if (!result)
        return false;
    if (result != 1 && result != ENOMEM + 1) {
        fprintf(stderr, "operation %u is refused: %s\n", place->operation, strerror((int)result - 1));
        exit(1);
    }
    *place = (struct place){ .operation = operation, .argument = { a, b, c } };
    __atomic_store_n(&header[4], ++ring->handed_over, __ATOMIC_RELEASE);
    return true;
}

/* Forgets the signals that came; call it before requests are taken. */
static inline void clear(struct ring *ring)
{
    uint64_t count;

    if (read(ring->signalled, &count, sizeof(count)) < 0 && errno != EAGAIN)
        fail("the event channel");
}

/* The start and the waiting. */

static inline void take_connection(void)
{
    connection = atoi(handed("MEM_EVENT_SOCKET_FD"));
}

/* The guest may start. */
static inline void say_ready(void)
{
    if (write(atoi(handed("MEM_EVENT_READY_FD")), "\n", 1) < 0)
        fail("ready");
}

/* Waits until one of these can be read; the last is to be the connection, on which only the end can come. */
static inline void wait_for(struct pollfd *waited, nfds_t count)
{
    while (poll(waited, count, -1) < 0)
        if (errno != EINTR)
            fail("poll");
    if (waited[count - 1].revents)
        ended();
}

/* Waits until a ring is signalled. */
static inline void wait_for_signal(const struct ring *ring)
{
    struct pollfd waited[] = { { ring->signalled, POLLIN, 0 }, { connection, POLLIN, 0 } };

    wait_for(waited, 2);
}

#endif
