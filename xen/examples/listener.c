/*
 * A listener on Xen's libraries: who writes to a range of frames is told, and goes on. SIGINT ends it.
 *
 *     cc -O2 -Wall -o listener listener.c -lxenctrl -lxenevtchn
 *     mem-event xen --domain 1=/tmp/guest.sock -- ./listener 1 0x100 16
 */

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

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

static void fail(const char *what)
{
    fprintf(stderr, "listener: %s: %s\n", what, strerror(errno));
    exit(1);
}

static xc_interface *xch;
static uint32_t domain;

/* The page opens, so the vCPU does its access when it goes on. */
static void open_page(uint64_t gfn)
{
    if (xc_set_mem_access(xch, domain, XENMEM_access_rwx, gfn, 1))
        fail("the page cannot be opened");
}

/* The answer names what it is for, and wakes the vCPU if it was stopped. */
static void answer(vm_event_back_ring_t *ring, const vm_event_request_t *request)
{
    vm_event_response_t response;

    memset(&response, 0, sizeof(response));
    response.version = VM_EVENT_INTERFACE_VERSION;
    response.vcpu_id = request->vcpu_id;
    response.flags = request->flags & VM_EVENT_FLAG_VCPU_PAUSED;
    response.reason = request->reason;
    response.u.mem_access = request->u.mem_access;
    memcpy(RING_GET_RESPONSE(ring, ring->rsp_prod_pvt), &response, sizeof(response));
    ring->rsp_prod_pvt++;
    RING_PUSH_RESPONSES(ring);
}

static void serve(vm_event_back_ring_t *ring, xenevtchn_handle *channel, evtchn_port_t port)
{
    vm_event_request_t request;

    while (RING_HAS_UNCONSUMED_REQUESTS(ring)) {
        memcpy(&request, RING_GET_REQUEST(ring, ring->req_cons), sizeof(request));
        ring->req_cons++;
        ring->sring->req_event = ring->req_cons + 1;
        open_page(request.u.mem_access.gfn);
        answer(ring, &request);
        xenevtchn_notify(channel, port);
        printf("vCPU %u writes at %#" PRIx64 "\n", request.vcpu_id, request.u.mem_access.gla);
    }
}

int main(int argc, char **argv)
{
    vm_event_back_ring_t ring;
    xenevtchn_handle *channel;
    uint64_t first;
    uint32_t count, remote;
    void *page;
    int port;

    if (argc != 4) {
        fprintf(stderr, "usage: listener DOMAIN FIRST COUNT\n");
        return 2;
    }
    domain = strtoul(argv[1], NULL, 0);
    first = strtoull(argv[2], NULL, 0);
    count = strtoul(argv[3], NULL, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGINT, stop);
    signal(SIGTERM, stop);

    xch = xc_interface_open(NULL, NULL, 0);
    channel = xenevtchn_open(NULL, 0);
    if (!xch || !channel)
        fail("there is no Xen");
    page = xc_monitor_enable(xch, domain, &remote);
    if (!page)
        fail("the monitor ring cannot be had");
    port = xenevtchn_bind_interdomain(channel, domain, remote);
    if (port < 0)
        fail("the event channel cannot be bound");
    SHARED_RING_INIT((vm_event_sring_t *)page);
    BACK_RING_INIT(&ring, (vm_event_sring_t *)page, XC_PAGE_SIZE);
    if (xc_set_mem_access(xch, domain, XENMEM_access_rx, first, count))
        fail("the frames cannot be watched");

    while (!stopped) {
        struct pollfd waited = { xenevtchn_fd(channel), POLLIN, 0 };

        if (poll(&waited, 1, 1000) > 0) {
            int pending = xenevtchn_pending(channel);

            if (pending >= 0)
                xenevtchn_unmask(channel, pending);
        }
        serve(&ring, channel, port);
    }

    /* What comes until the rights are back is answered, too. */
    if (xc_set_mem_access(xch, domain, XENMEM_access_rwx, first, count))
        fail("the frames cannot be let go");
    serve(&ring, channel, port);
    munmap(page, XC_PAGE_SIZE);
    if (xc_monitor_disable(xch, domain))
        fail("the monitor ring cannot be given back");
    xenevtchn_unbind(channel, port);
    xenevtchn_close(channel);
    xc_interface_close(xch);
    return 0;
}
