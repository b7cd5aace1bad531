#!/usr/bin/env python3
"""A pager of one's own: it evicts frames when it is ordered to or when the guest may hold no more, and brings back what is touched.

    mem-event run page_in --paging-target 2M --consumer 'paging:flags32,sharing:flags32=python3 pager.py'

docs/pagers.md of mem-event tells a pager's life in this file's order.
"""

import collections
import errno
import os
import select
import socket
import sys
import tempfile

from mem_event import (
    DROP_PAGE, EVICT, EVICT_FAIL, INFO, LOAD, NOMINATE, PAGE, PAGE_FILE, RAM_PAGED, RAM_PAGING_IN, RAM_PAGING_OUT, RAM_RW,
    READ_FRAME, SET_BUDGET, SET_PAGE_FILE, TYPES, Connection, Ended, Refused, Ring, handed, say_ready,
)  # fmt: skip

CHUNK = 4096  # frames that one call tells of
HELD = 0x80  # of a frame's type: memory is behind it
FIRST = 0x100  # below one mebibyte are firmware and devices
BATCH = 16  # frames that are evicted at a time when the guest may hold no more
NO_LIMIT = 2**64 - 1


class Pager:
    def __init__(self, connection):
        self.connection = connection
        self.out = set()  # frames whose content is in the page file and nowhere else
        self.recent = collections.deque(maxlen=BATCH)  # frames that came in lately, and stay
        self.full = False  # the page file took no more
        self.take_over()
        self.hand = max(FIRST, self.frames // 2)  # where the scan goes on

    def take_over(self):
        """Takes what a pager before this one has left: its page file, its evicted frames, its nominated ones."""
        _, _, descriptors = self.connection.call(PAGE_FILE)
        file = os.fdopen(descriptors[0], "r+b", 0) if descriptors else tempfile.TemporaryFile(buffering=0)
        self.file = file  # a frame lies at its number times 4096
        types = self.types()
        self.frames = len(types)
        self.out = {gfn for gfn, kind in enumerate(types) if kind in (RAM_PAGED, RAM_PAGING_IN)}
        if self.out and not descriptors:
            sys.exit(f"{len(self.out)} frames are out, and the pager before this one handed no page file over")
        self.connection.call(SET_PAGE_FILE, give=[self.file.fileno()])
        for gfn, kind in enumerate(types):
            if kind & ~HELD == RAM_PAGING_OUT:
                self.finish_evicting(gfn)

    def types(self):
        """The type of each frame there is: one call for thousands."""
        types = b""
        while True:
            more = self.connection.call(TYPES, len(types))[1]
            if not more:
                return types
            types += more

    # Out.

    def evict(self, gfn):
        """Whether the frame went. It did not where the guest needs it, somebody has it mapped, or the file is full."""
        try:
            self.connection.call(NOMINATE, gfn)
        except Refused:
            return False
        return self.finish_evicting(gfn)

    def finish_evicting(self, gfn):
        """The frame is nominated: a touch from now on is reported, and makes `EVICT` fail. Its content is kept before it goes."""
        try:
            content = self.connection.call(READ_FRAME, gfn, 0, PAGE)[1]
            if os.pwrite(self.file.fileno(), content, gfn * PAGE) < PAGE:
                raise OSError(errno.ENOSPC, "it has no more room")
            self.connection.call(EVICT, gfn)
        except Refused:
            # Touched meanwhile: a request with EVICT_FAIL is on the ring. Or ballooned out: one with DROP_PAGE.
            return False
        except OSError as error:
            # It stays nominated. Its next touch says EVICT_FAIL, and the answer makes it an ordinary frame again.
            if not self.full:
                print(f"nothing more is evicted, the page file cannot be written: {error}", file=sys.stderr, flush=True)
            self.full = True
            return False
        self.out.add(gfn)
        return True

    def make_room(self, wanted):
        """Evicts so many frames, if once around there are as many. How many went."""
        gone, chunk, types = 0, None, b""
        for _ in range(self.frames):
            if gone == wanted or self.full:
                break
            gfn, self.hand = self.hand, self.hand + 1 if self.hand + 1 < self.frames else FIRST
            if gfn // CHUNK != chunk:
                # Asked before frames are nominated: most may have no memory behind them, and would be refused one by one.
                chunk = gfn // CHUNK
                types = self.connection.call(TYPES, chunk * CHUNK)[1]
            if types[gfn % CHUNK] == RAM_RW | HELD and gfn not in self.recent:
                gone += self.evict(gfn)
        if not gone:
            # The guest is not to wait for a frame that no eviction will give it.
            print("there is nothing to evict, so the target is given up", file=sys.stderr, flush=True)
            self.connection.call(SET_BUDGET, NO_LIMIT)
        return gone

    def hold_to(self, budget):
        """Holds the guest to so many frames: what it has above them goes now, and more whenever it touches others."""
        self.full = False
        self.connection.call(SET_BUDGET, budget)
        resident, gone = self.connection.call(INFO)[0][2], 0
        while resident > budget and (more := self.make_room(resident - budget)):
            gone += more
            resident = self.connection.call(INFO)[0][2]
        return gone

    # In.

    def load(self, gfn):
        """Brings a frame back. Where the budget has no room for it, others go first."""
        content = os.pread(self.file.fileno(), PAGE, gfn * PAGE)
        if len(content) < PAGE:
            sys.exit(f"frame {gfn:#x} is not in the page file, and its vCPU stays stopped")
        while True:
            try:
                self.connection.call(LOAD, gfn, payload=content)
                break
            except Refused as refused:
                if refused.number == errno.ENOENT:
                    break  # it is back already
                if refused.number != errno.ENOMEM:
                    raise
                self.make_room(BATCH)
        self.out.discard(gfn)
        self.recent.append(gfn)

    def serve(self, ring):
        """The paging ring: frames that are touched, and frames that are gone for good."""
        for at, request in ring.requests():
            flags, _, gfn, *_ = request
            if flags & DROP_PAGE:
                self.out.discard(gfn)
            elif not flags & EVICT_FAIL and gfn in self.out:
                self.load(gfn)
            # Else it is there: touched before it went (EVICT_FAIL), or brought back for another vCPU. The answer is all it needs.
            ring.answer(at, request)

    def relieve(self, ring):
        """The sharing ring: the guest touched a frame for the first time, and may hold no more."""
        for at, request in ring.requests():
            values = self.connection.call(INFO)[0]
            if values[2] >= values[4]:
                self.make_room(BATCH)
            ring.answer(at, request)

    def obey(self, orders):
        """What the toolstack orders: a target, or frames to evict; the reply is how many went."""
        order = orders.recv(256).decode()
        match order.split():
            case ["page-out", first, count]:
                gone = sum(map(self.evict, range(int(first), int(first) + int(count))))
            case ["target", frames]:
                gone = self.hold_to(int(frames))
            case []:
                raise Ended
            case _:
                gone = f"no such order: {order}"
        orders.send(str(gone).encode())


def main():
    connection, paging = Connection(), Ring("PAGING")
    sharing = Ring("SHARING") if "MEM_EVENT_RING_SHARING" in os.environ else None
    orders = socket.socket(fileno=int(handed("MEM_EVENT_ORDERS_FD")))
    try:
        pager = Pager(connection)
        say_ready()
        # Requests that a pager before this one left are on the ring without a signal.
        waited = [ring.signalled for ring in (paging, sharing) if ring] + [connection.socket, orders]
        ready = []
        while True:
            if connection.socket in ready:
                connection.hear()
            paging.clear()
            pager.serve(paging)
            if sharing:
                sharing.clear()
                pager.relieve(sharing)
            if orders in ready:
                pager.obey(orders)
            ready, _, _ = select.select(waited, [], [])
    except (Ended, ConnectionResetError, BrokenPipeError):
        pass


main()
