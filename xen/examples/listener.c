/*
 * A listener on Xen's libraries: who writes to a range of frames is told, and goes on. SIGINT ends it.
 *
 *     cc -O2 -Wall -o listener listener.c -lxenctrl -lxenevtchn
 *     mem-event xen --domain 1=/tmp/guest.sock -- ./listener 1 0x100 16
 */

#include "ring.h"

static xc_interface *xch;
static uint32_t domain;

/* The page opens, so the vCPU does its access when it goes on. */
static void open_page(uint64_t gfn)
{
    if (xc_set_mem_access(xch, domain, XENMEM_access_rwx, gfn, 1))
        fail("the page cannot be opened");
}

/* The answer names what it is for, and wakes the vCPU if it was stopped. */
static void answer(struct ring *ring, const vm_event_request_t *request)
{
    vm_event_response_t response;

    memset(&response, 0, sizeof(response));
    response.version = VM_EVENT_INTERFACE_VERSION;
    response.vcpu_id = request->vcpu_id;
    response.flags = request->flags & VM_EVENT_FLAG_VCPU_PAUSED;
    response.reason = request->reason;
    response.u.mem_access = request->u.mem_access;
    put_response(ring, &response);
}

static void serve(struct ring *ring)
{
    vm_event_request_t request;

    while (next_request(ring, &request)) {
        open_page(request.u.mem_access.gfn);
        answer(ring, &request);
        xenevtchn_notify(ring->channel, ring->port);
        printf("vCPU %u writes at %#" PRIx64 "\n", request.vcpu_id, request.u.mem_access.gla);
    }
}

int main(int argc, char **argv)
{
    struct ring ring;
    uint64_t first;
    uint32_t count, remote;
    void *page;

    if (argc != 4) {
        fprintf(stderr, "usage: listener DOMAIN FIRST COUNT\n");
        return 2;
    }
    domain = strtoul(argv[1], NULL, 0);
    first = strtoull(argv[2], NULL, 0);
    count = strtoul(argv[3], NULL, 0);
    begin_program();

    xch = xc_interface_open(NULL, NULL, 0);
    ring.channel = xenevtchn_open(NULL, 0);
    if (!xch || !ring.channel)
        fail("there is no Xen");
    page = xc_monitor_enable(xch, domain, &remote);
    if (!page)
        fail("the monitor ring cannot be had");
    begin_ring(&ring, domain, page, remote);
    if (xc_set_mem_access(xch, domain, XENMEM_access_rx, first, count))
        fail("the frames cannot be watched");

    while (!stopped) {
        wait_for_request(&ring);
        serve(&ring);
    }

    /* What comes until the rights are back is answered, too. */
    if (xc_set_mem_access(xch, domain, XENMEM_access_rwx, first, count))
        fail("the frames cannot be let go");
    serve(&ring);
    end_ring(&ring);
    if (xc_monitor_disable(xch, domain))
        fail("the monitor ring cannot be given back");
    xc_interface_close(xch);
    return 0;
}
