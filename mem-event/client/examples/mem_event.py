"""A consumer's side of mem_event on the standard library alone: the control socket, a ring, what is handed over at the start. The bytes
are described in mem-event's docs/protocol.md; the slots are those of the layout flags32. Copy this file, or what you need of it.
"""

import errno
import mmap
import os
import select
import socket
import struct
import sys
import threading
import time

PAGE = 4096

HEADER = struct.Struct("<IHHII5QII")  # magic, kind, operation, sequence, error, five arguments, payload length, zero
MAGIC = int.from_bytes(b"MEV1", "little")
CALL, REPLY = 1, 2
INFO, READ_FRAME, WRITE_FRAME, LOAD, TYPES, SET_PAGE_FILE, PAGE_FILE = 2, 5, 6, 7, 9, 10, 11
REGISTERS, SET_REGISTERS, PAUSE, UNPAUSE, TRANSLATE, READ_LINEAR, WRITE_LINEAR = range(70, 77)
SET_BREAKPOINT, CLEAR_BREAKPOINT, BREAKPOINTS = range(77, 80)
SET_ACCESS, GET_ACCESS, NOMINATE, EVICT, SET_BUDGET = 20, 21, 24, 25, 28
# Views; an answer that switches to one wants the layout of vm_event.
SET_VIEWS, CREATE_VIEW, DESTROY_VIEW, SET_VIEW_ACCESS, GET_VIEW_ACCESS = range(39, 44)
SET_VIEW_DEFAULT, SWITCH_VIEW, SWITCH_VCPU_VIEW, GET_VCPU_VIEW = range(44, 48)
CHANGE_GFN, POPULATE = 48, 49
# CPU events, and how they are reported.
MONITOR, SINGLE_STEP, INJECT = 29, 30, 35
EVENT_INT3, EVENT_SINGLE_STEP, EVENT_INTERRUPT = 4, 5, 12
DISABLED, SYNC = 0, 2

SLOT = struct.Struct("<II3QIHH")  # flags, vcpu, gfn, offset, gla, p2mt, rights and gla_valid, reason
VCPU_PAUSED, DROP_PAGE, EVICT_FAIL, FOREIGN = 1, 2, 4, 8
VIOLATION = 1  # a reason
RAM_RW, RAM_PAGING_OUT, RAM_PAGED, RAM_PAGING_IN = 0, 9, 10, 11  # types of frames

REQ_PROD, REQ_EVENT, RSP_PROD, CALLS = 0, 1, 2, 4  # words of the ring page's header
PLACE = struct.Struct("<HHI5Q16s")  # behind the page: operation, bytes of payload, result, five arguments, payload


class Ended(Exception):
    """The domain is gone."""


class Refused(Exception):
    """A call is refused."""

    def __init__(self, operation, number, why):
        super().__init__(f"operation {operation} is refused: {errno.errorcode.get(number, number)}, {why}")
        self.number = number


def handed(variable):
    """What `mem-event run --consumer` says of what it hands over."""
    try:
        return os.environ[variable]
    except KeyError:
        sys.exit(f"{variable} is not set; start this with mem-event run GUEST --consumer, and the rings it takes")


class Connection:
    """The control socket, which has said Hello and holds the rings."""

    def __init__(self):
        self.socket = socket.socket(fileno=int(handed("MEM_EVENT_SOCKET_FD")))
        self.sequence = 0

    def call(self, operation, *arguments, payload=b"", give=()):
        """The values of the reply, its payload, the descriptors that came with it. `give` are descriptors that go with the call."""
        self.sequence += 1
        padded = (arguments + (0,) * 5)[:5]
        packet = HEADER.pack(MAGIC, CALL, operation, self.sequence, 0, *padded, len(payload), 0) + payload
        try:
            socket.send_fds(self.socket, [packet], list(give))
            while True:
                reply, descriptors, _, _ = socket.recv_fds(self.socket, HEADER.size + PAGE, 3)
                if not reply:
                    raise Ended
                magic, kind, _, sequence, error, *values = HEADER.unpack_from(reply)
                assert magic == MAGIC
                if kind == REPLY and sequence == self.sequence:
                    break  # anything else is a notice, to which this connection has not subscribed
        except (BrokenPipeError, ConnectionResetError) as ended:
            raise Ended from ended
        if error:
            raise Refused(operation, error, reply[HEADER.size :].decode())
        return values[:5], reply[HEADER.size :], descriptors

    def insist(self, operation, *arguments):
        """A call that is made again while there is no memory for it: the p2m's own tables may find none for a while."""
        while True:
            try:
                return self.call(operation, *arguments)
            except Refused as refused:
                if refused.number != errno.ENOMEM:
                    raise
                time.sleep(0.001)

    def value(self, operation, *arguments):
        """The first value of the reply."""
        return self.call(operation, *arguments)[0][0]

    def hear(self):
        """Call this when the socket can be read and no reply is due: then it is the end."""
        try:
            if not self.socket.recv(HEADER.size + PAGE):
                raise Ended
        except ConnectionResetError as ended:
            raise Ended from ended


class Ring:
    """The consumer's half of a ring that was handed over."""

    def __init__(self, name):
        page, self.signalled, self.signal, layout, slots = map(int, handed(f"MEM_EVENT_RING_{name}").split(","))
        if layout != 1:
            sys.exit(f"this consumer reads slots of the layout flags32 only; hand over {name.lower()}:flags32")
        self.slots = slots or 64
        self.page = mmap.mmap(page, 2 * mmap.PAGESIZE)
        # One store of four bytes an index: `struct` in its standard size would write byte after byte.
        self.index = memoryview(self.page).cast("I")
        self.consumed = self.index[RSP_PROD]  # where a predecessor left off
        self.handed_over = self.index[CALLS]
        self.lock = threading.Lock()
        os.set_blocking(self.signalled, False)

    def fence(self):
        with self.lock:  # a locked instruction: what was stored is visible before what is loaded next
            pass

    def clear(self):
        """Forgets the signals that came; call it before the requests are taken."""
        try:
            os.eventfd_read(self.signalled)
        except BlockingIOError:
            pass

    def requests(self):
        """Each request that is here, with its place; then the engine is asked for a signal at the next one."""
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

    def hand_over(self, operation, *arguments):
        """A call that is done before the next answer is taken; False where all places are in use: then make it on the connection. What is
        refused for want of memory is not done, and the access that it was for makes its event again."""
        at = mmap.PAGESIZE + self.handed_over % 64 * PLACE.size
        before, _, result, *_ = PLACE.unpack_from(self.page, at)
        if result == 0:
            return False
        if result not in (1, errno.ENOMEM + 1):
            sys.exit(f"operation {before} is refused: {os.strerror(result - 1)}")
        padded = (arguments + (0,) * 5)[:5]
        PLACE.pack_into(self.page, at, operation, 0, 0, *padded, b"")
        self.handed_over = (self.handed_over + 1) & 0xFFFFFFFF
        self.fence()
        self.index[CALLS] = self.handed_over
        return True

    def answer(self, at, request):
        """Answers the oldest request without an answer: everything is echoed."""
        SLOT.pack_into(self.page, at, *request)
        self.index[RSP_PROD] = (self.index[RSP_PROD] + 1) & 0xFFFFFFFF
        os.eventfd_write(self.signal, 1)


def say_ready():
    """The guest may start."""
    os.write(int(handed("MEM_EVENT_READY_FD")), b"\n")


def attend(connection, ring, serve):
    """Has the requests of a ring served, whenever it is signalled, until the domain ends."""
    try:
        while True:
            ready, _, _ = select.select([ring.signalled, connection.socket], [], [])
            if connection.socket in ready:
                connection.hear()
            ring.clear()
            serve(connection, ring)
    except Ended:
        pass
