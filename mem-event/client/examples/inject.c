/*
 * A page fault is injected where a watched page is touched, as by a consumer that has the guest bring a page in; and what the vCPU gets next is asked
 * for, which tells that it is this fault and nothing before it.
 *
 *     cc -O2 -Wall -o inject inject.c
 *     mem-event run injected --watch WATCHED=w --consumer 'access:vm_event7=./inject 0xdead1231000'
 *
 * The number is the linear address that the guest finds in CR2.
 */

#include "mem_event.h"

enum { ALL = 7 }; /* an access type */
enum { PAGE_FAULT = 14, EXCEPTION = 3 /* X86_EVENTTYPE_HW_EXCEPTION */, WRITTEN = 2 /* its error code */ };

static void fault(struct ring *ring, const vm_event_request_t *request, uint64_t address)
{
    printf("page fault for vCPU %u\n", request->vcpu_id);
    call(SET_ACCESS, request->u.mem_access.gfn, 1, ALL);
    if (exchange(INJECT, (uint64_t[5]){ request->vcpu_id, PAGE_FAULT, EXCEPTION, WRITTEN, address }, 0, -1, NULL))
        refused();
    begin_answer(ring, request)->flags |= VM_EVENT_FLAG_GET_NEXT_INTERRUPT;
    send_answer(ring);
}

static void serve(struct ring *ring, uint64_t address)
{
    vm_event_request_t request;

    while (take(ring, &request)) {
        const struct vm_event_interrupt_x86 *next = &request.u.interrupt.x86;

        if (request.reason == VM_EVENT_REASON_MEM_ACCESS) {
            fault(ring, &request, address);
        } else {
            printf("vCPU %u gets vector %u, type %u, error code %#x, CR2 %#lx\n", request.vcpu_id, next->vector, next->type, next->error_code,
                   (unsigned long)next->cr2);
            answer(ring, &request);
        }
        fflush(stdout);
    }
}

int main(int count, char **arguments)
{
    struct ring ring;

    if (count != 2) {
        fprintf(stderr, "inject ADDRESS\n");
        return 1;
    }
    take_connection();
    attach(&ring, "MEM_EVENT_RING_ACCESS");
    say_ready();
    for (;;) {
        clear(&ring);
        serve(&ring, strtoull(arguments[1], NULL, 0));
        wait_for_signal(&ring);
    }
}
