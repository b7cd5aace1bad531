/*
 * An access listener of one's own, with Xen's public headers for the ring and its slots: a page gets the rights that were
 * asked for besides those it has. The control socket's bytes are described in docs/protocol.md.
 *
 *     cc -O2 -Wall -o listener mem-event/client/examples/listener.c        (Debian: libxen-dev)
 *     mem-event run page_fault --consumer access:vm_event7=./listener
 */

#define _GNU_SOURCE
#define __XEN_TOOLS__ 1

#include <errno.h>
#include <poll.h>
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

#include <xen/xen.h>
#include <xen/io/ring.h>
#include <xen/vm_event.h>

#define PAGE 4096

/* One packet of the control socket. */
struct packet {
    char magic[4];
    uint16_t kind, operation;
    uint32_t sequence, error;
    uint64_t argument[5];
    uint32_t length, zero;
    char payload[PAGE];
};

enum { CALL = 1, REPLY = 2 };
enum { SET_ACCESS = 20, GET_ACCESS = 21 };
enum { HEADER = offsetof(struct packet, payload) };

/* What `mem-event run --consumer access:vm_event7=…` hands over. */
static int connection, ready;
static int page, signalled, signal_fd, layout, slots;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* Our domain is gone, and with it the reason to be. */
static void ended(void)
{
    exit(0);
}

static int number(const char *variable)
{
    const char *text = getenv(variable);

    if (!text) {
        fprintf(stderr, "%s is not set; start this with mem-event run --consumer\n", variable);
        exit(1);
    }
    return atoi(text);
}

/* A call and the first value of its reply. */
static uint64_t call(uint16_t operation, uint64_t a, uint64_t b, uint64_t c)
{
    static uint32_t sequence;
    struct packet packet = { .kind = CALL, .operation = operation, .sequence = ++sequence, .argument = { a, b, c } };
    ssize_t got;

    memcpy(packet.magic, "MEV1", 4);
    if (send(connection, &packet, HEADER, MSG_NOSIGNAL) < 0)
        errno == EPIPE || errno == ECONNRESET ? ended() : fail("send");
    do {
        got = recv(connection, &packet, sizeof(packet), 0);
        if (got == 0 || (got < 0 && errno == ECONNRESET))
            ended();
        if (got < 0)
            fail("recv");
    } while (packet.kind != REPLY || packet.sequence != sequence);
    if (packet.error) {
        fprintf(stderr, "operation %u: error %u, %.*s\n", operation, packet.error, (int)packet.length, packet.payload);
        exit(1);
    }
    return packet.argument[0];
}

/* Read, write, execute of the p2m's access types: 0 to 7 are their own bits, then rx2rw and n2rwx. */
static const uint8_t rights_of[] = { 0, 1, 2, 3, 4, 5, 6, 7, 5, 0 };

static void allow(const struct vm_event_mem_access *access)
{
    uint64_t has = rights_of[call(GET_ACCESS, access->gfn, 0, 0) % sizeof(rights_of)];

    call(SET_ACCESS, access->gfn, 1, has | (access->flags & 7));
}

static void serve(vm_event_back_ring_t *ring)
{
    int more;

    do {
        while (RING_HAS_UNCONSUMED_REQUESTS(ring)) {
            vm_event_request_t request;
            vm_event_response_t *response;

            /* Copied once: the page is shared. */
            memcpy(&request, RING_GET_REQUEST(ring, ring->req_cons), sizeof(request));
            ring->req_cons++;
            if (request.version != VM_EVENT_INTERFACE_VERSION) {
                fprintf(stderr, "version %u of vm_event\n", request.version);
                exit(1);
            }
            printf("reason %u of vCPU %u, frame %#lx\n", request.reason, request.vcpu_id,
                   (unsigned long)request.u.mem_access.gfn);
            if (request.reason == VM_EVENT_REASON_MEM_ACCESS)
                allow(&request.u.mem_access);
            response = RING_GET_RESPONSE(ring, ring->rsp_prod_pvt);
            memset(response, 0, sizeof(*response));
            response->version = VM_EVENT_INTERFACE_VERSION;
            response->vcpu_id = request.vcpu_id;
            response->reason = request.reason;
            response->flags = request.flags & VM_EVENT_FLAG_VCPU_PAUSED;
            response->u = request.u;
            ring->rsp_prod_pvt++;
            RING_PUSH_RESPONSES(ring);
            if (write(signal_fd, &(uint64_t){ 1 }, 8) < 0)
                fail("event channel");
        }
        RING_FINAL_CHECK_FOR_REQUESTS(ring, more);
    } while (more);
}

int main(void)
{
    vm_event_back_ring_t ring;
    vm_event_sring_t *shared;

    connection = number("MEM_EVENT_SOCKET_FD");
    ready = number("MEM_EVENT_READY_FD");
    number("MEM_EVENT_RING_ACCESS");
    if (sscanf(getenv("MEM_EVENT_RING_ACCESS"), "%d,%d,%d,%d,%d", &page, &signalled, &signal_fd, &layout, &slots) != 5 ||
        layout != 2) {
        fprintf(stderr, "this example reads slots of the layout vm_event7\n");
        return 1;
    }
    shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, page, 0);
    if (shared == MAP_FAILED)
        fail("ring page");
    /* Where a predecessor left off. The engine has initialised the page: SHARED_RING_INIT would hide a first request. */
    BACK_RING_ATTACH(&ring, shared, shared->rsp_prod, PAGE);
    if (slots)
        ring.nr_ents = slots;
    if (write(ready, "\n", 1) < 0)
        fail("ready");
    for (;;) {
        struct pollfd waited[] = { { signalled, POLLIN, 0 }, { connection, POLLIN, 0 } };
        uint64_t count;

        if (poll(waited, 2, -1) < 0)
            fail("poll");
        if (waited[1].revents)
            ended();
        if (read(signalled, &count, sizeof(count)) < 0 && errno != EAGAIN)
            fail("event channel");
        serve(&ring);
    }
}
