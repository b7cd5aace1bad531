#!/usr/bin/env python3
"""A hidden breakpoint, as DRAKVUF makes them: a vCPU that executes the instruction comes to the breakpoint, and one that reads it finds the
instruction. In a view the frame shows a copy of itself, at a frame beyond RAM, which holds the breakpoint and may only be executed. Who meets
it, or reads there, does that one instruction in view 0, where everything is as it is.

    mem-event run hidden --consumer 'access:flags32=python3 hidden.py 0x400000'

The number is the instruction's guest-physical address.
"""

import sys

from mem_event import (
    CHANGE_GFN, CREATE_VIEW, EVENT_INT3, EVENT_SINGLE_STEP, MONITOR, PAGE, POPULATE, READ_FRAME, SET_BREAKPOINT, SET_VIEW_ACCESS, SET_VIEWS,
    SINGLE_STEP, SWITCH_VCPU_VIEW, SWITCH_VIEW, SYNC, WRITE_FRAME, Connection, Ring, attend, say_ready,
)

EXECUTE, ALL = 4, 7  # access types
COPY = 1 << 24  # a frame beyond any RAM
BREAKPOINT, STEP = 5, 6  # reasons


def hide(connection, address):
    gfn, offset = divmod(address, PAGE)
    connection.call(POPULATE, COPY)
    _, content, _ = connection.call(READ_FRAME, gfn, 0, PAGE)
    connection.call(WRITE_FRAME, COPY, payload=content)
    connection.call(SET_BREAKPOINT, COPY, offset)
    connection.call(SET_VIEWS, 1)
    view = connection.value(CREATE_VIEW, ALL)
    connection.call(CHANGE_GFN, view, gfn, COPY)
    connection.call(SET_VIEW_ACCESS, view, gfn, 1, EXECUTE)
    connection.call(MONITOR, EVENT_INT3, SYNC)
    connection.call(MONITOR, EVENT_SINGLE_STEP, SYNC)
    connection.call(SWITCH_VIEW, view)
    return view


def serve(connection, ring, view):
    for at, request in ring.requests():
        vcpu, reason = request[1], request[-1]
        # The layout of vm_event says both in its answer; here they are calls.
        if reason == STEP:
            connection.call(SWITCH_VCPU_VIEW, vcpu, view)
            connection.call(SINGLE_STEP, vcpu, 0)
        else:
            print(f"{'breakpoint' if reason == BREAKPOINT else 'read'} of vCPU {vcpu}", flush=True)
            connection.call(SWITCH_VCPU_VIEW, vcpu, 0)
            connection.call(SINGLE_STEP, vcpu, 1)
        ring.answer(at, request)


def main():
    connection, ring = Connection(), Ring("ACCESS")
    view = hide(connection, int(sys.argv[1], 0))
    say_ready()
    attend(connection, ring, lambda *whose: serve(*whose, view))


main()
