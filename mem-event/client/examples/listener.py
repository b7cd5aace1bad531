#!/usr/bin/env python3
"""An access listener of one's own: a page gets the rights that were asked for besides those it has.

    mem-event run page_fault --consumer 'access:flags32=python3 listener.py'
"""

from mem_event import GET_ACCESS, SET_ACCESS, VIOLATION, Connection, Ring, attend, say_ready

RIGHTS = 0b111
# Read, write, execute of the p2m's access types: 0 to 7 are their own bits, then rx2rw and n2rwx.
RIGHTS_OF = [0, 1, 2, 3, 4, 5, 6, 7, 5, 0]


def serve(connection, ring):
    for at, request in ring.requests():
        _, vcpu, gfn, offset, _, _, rights, reason = request
        print(f"reason {reason} of vCPU {vcpu}, frame {gfn:#x}, offset {offset:#x}", flush=True)
        if reason == VIOLATION:
            has = RIGHTS_OF[connection.value(GET_ACCESS, gfn)]
            # In force before the answer is.
            wanted = SET_ACCESS, gfn, 1, has | rights & RIGHTS
            if not ring.hand_over(*wanted):
                connection.insist(*wanted)
        ring.answer(at, request)


def main():
    connection, ring = Connection(), Ring("ACCESS")
    say_ready()
    attend(connection, ring, serve)


main()
