#!/usr/bin/env python3
"""An access listener of one's own, on the standard library alone: a page gets the rights that were asked for besides those it
has. The bytes are described in docs/protocol.md; the slots are those of the layout flags32.

    mem-event run page_fault --consumer 'access:flags32=python3 mem-event/client/examples/listener.py'
"""

import mmap
import os
import select
import socket
import struct
import threading

HEADER = struct.Struct("<IHHII5QII")  # magic, kind, operation, sequence, error, five arguments, payload length, zero
MAGIC = int.from_bytes(b"MEV1", "little")
CALL, REPLY = 1, 2
SET_ACCESS, GET_ACCESS = 20, 21

SLOT = struct.Struct("<II3QIHH")  # flags, vcpu, gfn, offset, gla, p2mt, rights and gla_valid, reason
VIOLATION = 1
RIGHTS = 0b111
# Read, write, execute of the p2m's access types: 0 to 7 are their own bits, then rx2rw and n2rwx.
RIGHTS_OF = [0, 1, 2, 3, 4, 5, 6, 7, 5, 0]

REQ_PROD, REQ_EVENT, RSP_PROD = 0, 1, 2  # words of the ring page's header


class Ended(Exception):
    """The domain is gone."""


class Connection:
    """The control socket, which has said Hello."""

    def __init__(self):
        self.socket = socket.socket(fileno=int(os.environ["MEM_EVENT_SOCKET_FD"]))
        self.sequence = 0

    def call(self, operation, *arguments):
        self.sequence += 1
        padded = (arguments + (0,) * 5)[:5]
        try:
            self.socket.send(HEADER.pack(MAGIC, CALL, operation, self.sequence, 0, *padded, 0, 0))
            while True:
                packet = self.socket.recv(HEADER.size + 4096)
                if not packet:
                    raise Ended
                magic, kind, _, sequence, error, *values = HEADER.unpack_from(packet)
                assert magic == MAGIC
                if kind == REPLY and sequence == self.sequence:
                    break  # anything else is a notice, to which this connection has not subscribed
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Ended from error
        if error:
            raise OSError(error, packet[HEADER.size :].decode())
        return values[:5]


class Ring:
    """The consumer's half of a ring."""

    def __init__(self, name):
        page, self.signalled, self.signal, layout, slots = map(int, os.environ[f"MEM_EVENT_RING_{name}"].split(","))
        assert layout == 1, "this example reads slots of the layout flags32 only"
        self.slots = slots or 64
        self.page = mmap.mmap(page, mmap.PAGESIZE)
        # One store of four bytes an index: `struct` in its standard size would write byte after byte.
        self.index = memoryview(self.page).cast("I")
        self.consumed = self.index[RSP_PROD]  # where a predecessor left off
        self.lock = threading.Lock()

    def fence(self):
        with self.lock:  # a locked instruction: what was stored is visible before what is loaded next
            pass

    def requests(self):
        while True:
            while self.index[REQ_PROD] != self.consumed:
                at = 64 + self.consumed % self.slots * SLOT.size
                self.consumed = (self.consumed + 1) & 0xFFFFFFFF
                yield at, SLOT.unpack_from(self.page, at)
            # Signal me for the next one; and look once more, it may have come before that was seen.
            self.index[REQ_EVENT] = (self.consumed + 1) & 0xFFFFFFFF
            self.fence()
            if self.index[REQ_PROD] == self.consumed:
                return

    def answer(self, at, request):
        SLOT.pack_into(self.page, at, *request)
        self.index[RSP_PROD] = (self.index[RSP_PROD] + 1) & 0xFFFFFFFF
        os.eventfd_write(self.signal, 1)


def serve(connection, ring):
    while True:
        ready, _, _ = select.select([ring.signalled, connection.socket], [], [])
        if connection.socket in ready and not connection.socket.recv(HEADER.size + 4096):
            raise Ended
        if ring.signalled in ready:
            os.eventfd_read(ring.signalled)
        for at, request in ring.requests():
            _, vcpu, gfn, offset, _, _, rights, reason = request
            print(f"reason {reason} of vCPU {vcpu}, frame {gfn:#x}, offset {offset:#x}", flush=True)
            if reason == VIOLATION:
                has = RIGHTS_OF[connection.call(GET_ACCESS, gfn)[0]]
                connection.call(SET_ACCESS, gfn, 1, has | rights & RIGHTS)
            ring.answer(at, request)


def main():
    connection, ring = Connection(), Ring("ACCESS")
    os.write(int(os.environ["MEM_EVENT_READY_FD"]), b"\n")
    try:
        serve(connection, ring)
    except Ended:
        pass


main()
