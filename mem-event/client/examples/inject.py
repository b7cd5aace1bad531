#!/usr/bin/env python3
"""A page fault is injected where a watched page is touched, as by a consumer that has the guest bring a page in; and what the vCPU gets next is
asked for, which tells that it is this fault and nothing before it.

    mem-event run injected --watch WATCHED=w --consumer 'access:flags32=python3 inject.py 0xdead1231000'

The number is the linear address that the guest finds in CR2.
"""

import sys

from mem_event import DISABLED, EVENT_INTERRUPT, INJECT, MONITOR, SET_ACCESS, SYNC, VIOLATION, Connection, Ring, attend, say_ready

ALL = 7  # an access type
PAGE_FAULT, EXCEPTION, WRITTEN = 14, 3, 2  # a vector, its type (X86_EVENTTYPE_HW_EXCEPTION), its error code


def serve(connection, ring, address):
    for at, request in ring.requests():
        _, vcpu, gfn, _, gla, _, _, reason = request
        if reason == VIOLATION:
            print(f"page fault for vCPU {vcpu}", flush=True)
            connection.insist(SET_ACCESS, gfn, 1, ALL)
            connection.call(INJECT, vcpu, PAGE_FAULT, EXCEPTION, WRITTEN, address)
            # The layout of vm_event asks for the next one in its answer (GET_NEXT_INTERRUPT); here all are told, until one was.
            connection.call(MONITOR, EVENT_INTERRUPT, SYNC)
        else:
            vector, error, kind = gfn, gla & 0xFFFFFFFF, gla >> 40
            print(f"vCPU {vcpu} gets vector {vector}, type {kind}, error code {error:#x}", flush=True)
            connection.call(MONITOR, EVENT_INTERRUPT, DISABLED)
        ring.answer(at, request)


def main():
    connection, ring = Connection(), Ring("ACCESS")
    say_ready()
    address = int(sys.argv[1], 0)
    attend(connection, ring, lambda *whose: serve(*whose, address))


main()
