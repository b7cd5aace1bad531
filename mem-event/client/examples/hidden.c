/*
 * A hidden breakpoint, as DRAKVUF makes them: a vCPU that executes the instruction comes to the breakpoint, and one that reads it finds
 * the instruction. In a view the frame shows a copy of itself, at a frame beyond RAM, which holds the breakpoint and may only be executed.
 * Who meets it, or reads there, does that one instruction in view 0, where everything is as it is.
 *
 *     cc -O2 -Wall -o hidden hidden.c
 *     mem-event run hidden --consumer 'access:vm_event7=./hidden 0x400000'
 *
 * The number is the instruction's guest-physical address.
 */

#include "mem_event.h"

enum { EXECUTE = 4, ALL = 7 }; /* access types */
enum { COPY = 1 << 24 }; /* a frame beyond any RAM */

static uint64_t view;

static void hide(uint64_t address)
{
    uint64_t gfn = address / PAGE, offset = address % PAGE;

    call(POPULATE, COPY, 0, 0);
    call(READ_FRAME, gfn, 0, PAGE);
    /* The frame's bytes are in the packet. */
    if (exchange(WRITE_FRAME, (uint64_t[5]){ COPY }, PAGE, -1, NULL))
        refused();
    call(SET_BREAKPOINT, COPY, offset, 0);
    call(SET_VIEWS, 1, 0, 0);
    view = call(CREATE_VIEW, ALL, 0, 0);
    call(CHANGE_GFN, view, gfn, COPY);
    call_with(SET_VIEW_ACCESS, view, gfn, 1, EXECUTE);
    call(MONITOR, EVENT_INT3, SYNC, 0);
    call(MONITOR, EVENT_SINGLE_STEP, SYNC, 0);
    call(SWITCH_VIEW, view, 0, 0);
}

/* One instruction in view 0, of whose end nobody is told. */
static void step_over(struct ring *ring, const vm_event_request_t *request)
{
    vm_event_response_t *response = begin_answer(ring, request);

    response->flags |= VM_EVENT_FLAG_ALTERNATE_P2M | VM_EVENT_FLAG_FAST_SINGLESTEP;
    response->altp2m_idx = 0;
    response->u.fast_singlestep.p2midx = (uint16_t)view;
    send_answer(ring);
}

static void serve(struct ring *ring)
{
    vm_event_request_t request;

    while (take(ring, &request)) {
        printf("%s of vCPU %u\n", request.reason == VM_EVENT_REASON_SOFTWARE_BREAKPOINT ? "breakpoint" : "read", request.vcpu_id);
        fflush(stdout);
        step_over(ring, &request);
    }
}

int main(int count, char **arguments)
{
    struct ring ring;

    if (count != 2) {
        fprintf(stderr, "hidden ADDRESS\n");
        return 1;
    }
    take_connection();
    attach(&ring, "MEM_EVENT_RING_ACCESS");
    hide(strtoull(arguments[1], NULL, 0));
    say_ready();
    for (;;) {
        clear(&ring);
        serve(&ring);
        wait_for_signal(&ring);
    }
}
