/*
 * What a consumer on Xen's libraries does with its ring, whatever its events are: begin, wait, take, answer, end. Include it first.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xenctrl.h>
#include <xenevtchn.h>
#include <xen/vm_event.h>

struct ring {
    vm_event_back_ring_t back;
    void *page;
    xenevtchn_handle *channel;
    int port;
};

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
    exit(1);
}

/* SIGINT and SIGTERM end the program in order; what it says is to be read at once. */
static void begin_program(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGINT, stop);
    signal(SIGTERM, stop);
}

/* The ring is enabled: its page, and the port that Xen gave for it. */
static void begin_ring(struct ring *ring, uint32_t domain, void *page, uint32_t remote)
{
    ring->page = page;
    ring->port = xenevtchn_bind_interdomain(ring->channel, domain, remote);
    if (ring->port < 0)
        fail("the event channel cannot be bound");
    SHARED_RING_INIT((vm_event_sring_t *)page);
    BACK_RING_INIT(&ring->back, (vm_event_sring_t *)page, XC_PAGE_SIZE);
}

static void wait_for_request(struct ring *ring)
{
    struct pollfd waited = { xenevtchn_fd(ring->channel), POLLIN, 0 };

    if (poll(&waited, 1, 1000) > 0) {
        int pending = xenevtchn_pending(ring->channel);

        if (pending >= 0)
            xenevtchn_unmask(ring->channel, pending);
    }
}

/* Takes the next request, if there is one. */
static int next_request(struct ring *ring, vm_event_request_t *request)
{
    vm_event_back_ring_t *back = &ring->back;

    if (!RING_HAS_UNCONSUMED_REQUESTS(back))
        return 0;
    memcpy(request, RING_GET_REQUEST(back, back->req_cons), sizeof(*request));
    back->req_cons++;
    back->sring->req_event = back->req_cons + 1;
    return 1;
}

static void put_response(struct ring *ring, const vm_event_response_t *response)
{
    vm_event_back_ring_t *back = &ring->back;

    memcpy(RING_GET_RESPONSE(back, back->rsp_prod_pvt), response, sizeof(*response));
    back->rsp_prod_pvt++;
    RING_PUSH_RESPONSES(back);
}

/* Before the ring is disabled. */
static void end_ring(struct ring *ring)
{
    munmap(ring->page, XC_PAGE_SIZE);
    xenevtchn_unbind(ring->channel, ring->port);
    xenevtchn_close(ring->channel);
}
