/*
 * A tool on Xen's libraries that does one thing many times, and says how many microseconds each took: `maps COUNT FRAME` maps a frame of the
 * guest's memory and unmaps it, `events COUNT FIRST LAST` answers accesses to closed frames and changes no right.
 */

#include "ring.h"
#include <time.h>
#include <xenforeignmemory.h>

static double micros(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static void maps(uint32_t domain, unsigned long count, xen_pfn_t frame)
{
    xenforeignmemory_handle *memory = xenforeignmemory_open(NULL, 0);
    double begun = 0;
    unsigned long done;

    /* The first makes the connection. */
    for (done = 0; done <= count; done++) {
        int error = 0;
        void *page = xenforeignmemory_map(memory, domain, PROT_READ, 1, &frame, &error);

        if (!page || error || xenforeignmemory_unmap(memory, page, 1))
            fail("the frame cannot be mapped");
        if (done == 0)
            begun = micros();
    }
    printf("%f\n", (micros() - begun) / count);
}

static void events(uint32_t domain, unsigned long count, uint64_t first, uint64_t last)
{
    xc_interface *xen = xc_interface_open(NULL, NULL, 0);
    struct ring ring = { .channel = xenevtchn_open(NULL, 0) };
    unsigned long served = 0;
    double begun = 0;
    uint32_t port;
    void *page = xc_monitor_enable(xen, domain, &port);

    if (!page)
        fail("the monitor ring cannot be enabled");
    begin_ring(&ring, domain, page, port);
    if (xc_set_mem_access(xen, domain, XENMEM_access_n, first, last - first + 1))
        fail("the frames cannot be closed");
    printf("ready\n");
    while (served <= count) {
        vm_event_request_t request;

        wait_for_request(&ring);
        while (next_request(&ring, &request)) {
            vm_event_response_t response = {
                .version = VM_EVENT_INTERFACE_VERSION,
                .vcpu_id = request.vcpu_id,
                .flags = request.flags & VM_EVENT_FLAG_VCPU_PAUSED,
                .reason = request.reason,
                .u.mem_access = request.u.mem_access,
            };

            if (served++ == 0)
                begun = micros();
            if (served == count + 1 && xc_set_mem_access(xen, domain, XENMEM_access_rwx, first, last - first + 1))
                fail("the frames cannot be opened");
            put_response(&ring, &response);
            xenevtchn_notify(ring.channel, ring.port);
        }
    }
    printf("%f\n", (micros() - begun) / count);
    end_ring(&ring);
    xc_monitor_disable(xen, domain);
}

int main(int argc, char **argv)
{
    begin_program();
    if (argc == 4 && !strcmp(argv[1], "maps"))
        maps(1, strtoul(argv[2], NULL, 0), strtoull(argv[3], NULL, 0));
    else if (argc == 5 && !strcmp(argv[1], "events"))
        events(1, strtoul(argv[2], NULL, 0), strtoull(argv[3], NULL, 0), strtoull(argv[4], NULL, 0));
    else
        return 2;
    return 0;
}
