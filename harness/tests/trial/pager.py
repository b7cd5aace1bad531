"""A pager on the standard library alone. It evicts the frames that its arguments name, FIRST COUNT, once each and as soon as the guest
has them, and loads them when they are asked for. With a third argument it brings the neighbour's page back at the load with this number."""

import mmap
import os
import select
import socket
import struct
import sys

HEADER = struct.Struct("<IHHII5QII")
MAGIC = int.from_bytes(b"MEV1", "little")
READ_FRAME, LOAD, NOMINATE, EVICT = 5, 7, 24, 25
SLOT = struct.Struct("<II3QIHH")
first, count, wrong = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0
connection = socket.socket(fileno=int(os.environ["MEM_EVENT_SOCKET_FD"]))
page, signalled, signal, _, slots = map(int, os.environ["MEM_EVENT_RING_PAGING"].split(","))
memory = mmap.mmap(page, mmap.PAGESIZE)
index = memoryview(memory).cast("I")
sequence = 0


def call(operation, *arguments, payload=b""):
    global sequence
    sequence += 1
    padded = (arguments + (0,) * 5)[:5]
    connection.send(HEADER.pack(MAGIC, 1, operation, sequence, 0, *padded, len(payload), 0) + payload)
    packet = connection.recv(HEADER.size + 4096)
    if not packet:
        sys.exit(0)
    return HEADER.unpack_from(packet)[4], packet[HEADER.size :]


def must(operation, *arguments, payload=b""):
    error, content = call(operation, *arguments, payload=payload)
    if error:
        sys.exit(f"operation {operation}: error {error}, {content.decode()}")
    return content


def evict(waiting):
    """Evicts the frames that can be by now; those that cannot are left."""
    while waiting and not call(NOMINATE, waiting[0])[0]:
        gfn = waiting.pop(0)
        store[gfn] = must(READ_FRAME, gfn, 0, 4096)
        must(EVICT, gfn)


store, waiting = {}, list(range(first, first + count))
os.write(int(os.environ["MEM_EVENT_READY_FD"]), b"\n")
consumed, loads = index[2], 0
while True:
    ready, _, _ = select.select([signalled, connection], [], [], 0.001 if waiting else None)
    if connection in ready:
        break
    if signalled in ready:
        os.eventfd_read(signalled)
    evict(waiting)
    while index[0] != consumed:
        at = 64 + consumed % (slots or 64) * SLOT.size
        request = SLOT.unpack_from(memory, at)
        consumed += 1
        gfn = request[2]
        if gfn in store:
            loads += 1
            content = store[gfn + 1] if loads == wrong else store[gfn]
            must(LOAD, gfn, payload=content)
            del store[gfn]
        SLOT.pack_into(memory, at, *request)
        index[2] += 1
        os.eventfd_write(signal, 1)
