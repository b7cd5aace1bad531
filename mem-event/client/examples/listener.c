/*
 * An access listener of one's own: a page gets the rights that were asked for besides those it has.
 *
 *     cc -O2 -Wall -o listener listener.c
 *     mem-event run page_fault --consumer access:vm_event7=./listener
 */

#include "mem_event.h"

/* Read, write, execute of the p2m's access types: 0 to 7 are their own bits, then rx2rw and n2rwx. */
static const uint8_t rights_of[] = { 0, 1, 2, 3, 4, 5, 6, 7, 5, 0 };

/* The rights are in force before the answer is. */
static void allow(struct ring *ring, const struct vm_event_mem_access *access)
{
    uint64_t has = rights_of[call(GET_ACCESS, access->gfn, 0, 0) % sizeof(rights_of)];
    uint64_t wanted = has | (access->flags & 7);

    if (!hand_over(ring, SET_ACCESS, access->gfn, 1, wanted))
        call(SET_ACCESS, access->gfn, 1, wanted);
}

static void serve(struct ring *ring)
{
    vm_event_request_t request;

    while (take(ring, &request)) {
        printf("reason %u of vCPU %u, frame %#lx\n", request.reason, request.vcpu_id, (unsigned long)request.u.mem_access.gfn);
        fflush(stdout);
        if (request.reason == VM_EVENT_REASON_MEM_ACCESS)
            allow(ring, &request.u.mem_access);
        answer(ring, &request);
    }
}

int main(void)
{
    struct ring ring;

    take_connection();
    attach(&ring, "MEM_EVENT_RING_ACCESS");
    say_ready();
    for (;;) {
        clear(&ring);
        serve(&ring);
        wait_for_signal(&ring);
    }
}
