/*
 * A pager on Xen's libraries: a range of frames goes to a file, and each comes back when it is touched. SIGINT brings all of them back.
 *
 *     cc -O2 -Wall -o pager pager.c -lxenctrl -lxenevtchn -lxenforeignmemory
 *     mem-event xen --domain 1=/tmp/guest.sock -- ./pager 1 0x100 16 /tmp/pages
 */

#include "ring.h"
#include <fcntl.h>
#include <unistd.h>
#include <xenforeignmemory.h>
#include <xen/hvm/params.h>

static xc_interface *xch;
static xenforeignmemory_handle *memory;
static uint32_t domain;
static uint64_t first, count;
static int file;
/* Which of the frames are in the file. */
static unsigned char *out;
static unsigned char content[XC_PAGE_SIZE] __attribute__((aligned(XC_PAGE_SIZE)));

static off_t place(uint64_t gfn)
{
    return (gfn - first) * XC_PAGE_SIZE;
}

/* A frame that is used by somebody, or touched meanwhile, stays. */
static int page_out(uint64_t gfn)
{
    xen_pfn_t frame = gfn;
    void *mapped;
    int error, written;

    if (xc_mem_paging_nominate(xch, domain, gfn))
        return 0;
    mapped = xenforeignmemory_map(memory, domain, PROT_READ, 1, &frame, &error);
    if (!mapped || error)
        fail("a nominated frame cannot be mapped");
    written = pwrite(file, mapped, XC_PAGE_SIZE, place(gfn)) == XC_PAGE_SIZE;
    xenforeignmemory_unmap(memory, mapped, 1);
    if (!written)
        fail("the file cannot be written");
    if (xc_mem_paging_evict(xch, domain, gfn))
        return 0;
    out[gfn - first] = 1;
    return 1;
}

static void page_in(uint64_t gfn)
{
    if (pread(file, content, XC_PAGE_SIZE, place(gfn)) != XC_PAGE_SIZE)
        fail("the file cannot be read");
    if (xc_mem_paging_load(xch, domain, gfn, content))
        fail("a frame cannot be loaded");
    out[gfn - first] = 0;
}

static void answer(struct ring *ring, const vm_event_request_t *request)
{
    vm_event_response_t response;

    memset(&response, 0, sizeof(response));
    response.version = VM_EVENT_INTERFACE_VERSION;
    response.vcpu_id = request->vcpu_id;
    response.flags = request->flags;
    response.reason = request->reason;
    response.u.mem_paging = request->u.mem_paging;
    put_response(ring, &response);
}

static void serve(struct ring *ring)
{
    vm_event_request_t request;

    while (next_request(ring, &request)) {
        uint64_t gfn = request.u.mem_paging.gfn;

        if (gfn - first >= count)
            fail("a frame that is none of this pager's is asked for");
        if (request.u.mem_paging.flags & MEM_PAGING_DROP_PAGE)
            out[gfn - first] = 0;
        else if (out[gfn - first])
            page_in(gfn);
        answer(ring, &request);
        xenevtchn_notify(ring->channel, ring->port);
        printf("frame %#" PRIx64 " is back\n", gfn);
    }
}

static void *ring_page(void)
{
    xen_pfn_t frame;
    uint64_t value;
    void *page;
    int error;

    if (xc_hvm_param_get(xch, domain, HVM_PARAM_PAGING_RING_PFN, &value))
        fail("there is no ring's frame");
    frame = value;
    page = xenforeignmemory_map(memory, domain, PROT_READ | PROT_WRITE, 1, &frame, &error);
    if (page && error) {
        /* Whoever had it before has taken it out of the domain. */
        xenforeignmemory_unmap(memory, page, 1);
        if (xc_domain_populate_physmap_exact(xch, domain, 1, 0, 0, &frame))
            fail("the ring's frame cannot be populated");
        page = xenforeignmemory_map(memory, domain, PROT_READ | PROT_WRITE, 1, &frame, &error);
    }
    if (!page || error)
        fail("the ring's page cannot be mapped");
    return page;
}

int main(int argc, char **argv)
{
    struct ring ring;
    uint64_t gfn, frames = 0;
    uint32_t remote;
    void *page;

    if (argc != 5) {
        fprintf(stderr, "usage: pager DOMAIN FIRST COUNT FILE\n");
        return 2;
    }
    domain = strtoul(argv[1], NULL, 0);
    first = strtoull(argv[2], NULL, 0);
    count = strtoull(argv[3], NULL, 0);
    file = open(argv[4], O_RDWR | O_CREAT | O_TRUNC, 0600);
    out = calloc(count, 1);
    if (file < 0 || !out)
        fail(argv[4]);
    begin_program();

    xch = xc_interface_open(NULL, NULL, 0);
    memory = xenforeignmemory_open(NULL, 0);
    ring.channel = xenevtchn_open(NULL, 0);
    if (!xch || !memory || !ring.channel)
        fail("there is no Xen");
    page = ring_page();
    if (xc_mem_paging_enable(xch, domain, &remote))
        fail("the paging ring cannot be had");
    begin_ring(&ring, domain, page, remote);

    for (gfn = first; gfn < first + count; gfn++)
        frames += page_out(gfn);
    printf("%" PRIu64 " frames are out\n", frames);

    while (!stopped) {
        wait_for_request(&ring);
        serve(&ring);
    }

    /* A frame that is asked for meanwhile is back when its request is answered. */
    for (gfn = first; gfn < first + count; gfn++)
        if (out[gfn - first])
            page_in(gfn);
    serve(&ring);
    end_ring(&ring);
    if (xc_mem_paging_disable(xch, domain))
        fail("the paging ring cannot be given back");
    xenforeignmemory_close(memory);
    xc_interface_close(xch);
    return 0;
}
