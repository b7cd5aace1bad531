/* Asks Xen's devices for what comes, from a number on: calls that are right but for a few fields, and pointers that lead nowhere. Then it asks once in order. */

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096UL
#define PAGES 16UL
#define OF(array) ((array)[below(sizeof(array) / sizeof(*(array)))])

static uint64_t state;
static unsigned char *arena, *closed, *constant;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static uint64_t below(uint64_t limit)
{
    return next() % limit;
}

/* A pointer into memory that may be written, or that leads nowhere. None leads to what the program itself lives of. */
static uint64_t pointer(void)
{
    switch (below(8)) {
    case 0: return 0;
    case 1: return (uint64_t)closed + below(PAGE);
    case 2: return (uint64_t)constant + below(2 * PAGE);
    case 3: return (uint64_t)arena + PAGES * PAGE - below(64);
    case 4: return ~below(1UL << 48);
    default: return (uint64_t)arena + 8 * below(PAGES * PAGE / 8);
    }
}

static uint64_t word(void)
{
    static const uint64_t odd[] = { 0xff, 0x100, 0xa0, 0x3fff, 0x4000, 0xfeff8, 0xfeff9, 0xfeffa, 0x7ff0, 0x7ff4, 0xffff, 1UL << 20, 1UL << 31, 1UL << 40, ~0UL };

    switch (below(5)) {
    case 0: return OF(odd);
    case 1: return pointer();
    case 2: return next();
    default: return below(8);
    }
}

static void put(unsigned char *at, uint64_t value, size_t bytes)
{
    memcpy(at, &value, bytes);
}

/* The arguments: some words are odd, most are small numbers. */
static void fill(unsigned char *at, size_t bytes)
{
    for (size_t field = 0; field < bytes; field += 4)
        put(at + field, below(3) ? below(4) : word(), 4);
    for (int times = below(4); times > 0; times--)
        put(at + 8 * below(bytes / 8), word(), 8);
}

static long hypercall(int privcmd, uint64_t op, uint64_t first, uint64_t second)
{
    uint64_t call[6] = { op, first, second, word(), word(), word() };

    return ioctl(privcmd, 0x305000, call);
}

static void domctl(unsigned char *at)
{
    static const uint32_t commands[] = { 3, 4, 4, 5, 11, 13, 14, 33, 54, 55, 56, 56, 57, 59, 61, 64, 77, 77, 84 };

    put(at, OF(commands), 4);
    put(at + 4, below(16) ? 0x15 + 2 * below(2) : word(), 4);
    put(at + 8, below(16) ? 1 : word(), 2);
}

static void call(int privcmd, int evtchn)
{
    static const uint64_t memory[] = { 1, 2, 6, 14, 14, 20, 21, 21, 22, 22, 24, 27 };
    static const uint64_t hvm[] = { 0, 1, 1, 14, 25, 25 };
    static const unsigned long requests[] = { 0x84501, 0x44502, 0x44503, 0x44504, 0x44505, 0x44506 };
    unsigned char *at = arena + 8 * below(PAGES * PAGE / 8 - 64);

    fill(at, 256);
    switch (below(10)) {
    case 0: case 1: case 2:
        domctl(at);
        hypercall(privcmd, 36, below(32) ? (uint64_t)at : pointer(), word());
        break;
    case 3: case 4:
        hypercall(privcmd, 12, OF(memory), below(32) ? (uint64_t)at : pointer());
        break;
    case 5:
        hypercall(privcmd, 34, OF(hvm), below(32) ? (uint64_t)at : pointer());
        break;
    case 6:
        put(at, below(8), 4);
        hypercall(privcmd, below(2) ? 17 : 35, below(2) ? (uint64_t)at : below(10), pointer());
        break;
    case 7: {
        uint64_t calls[2][8] = { { 17, 0, 0 }, { 12, 0, 2, (uint64_t)at } };

        memcpy(at + 64, calls, sizeof(calls));
        hypercall(privcmd, 13, (uint64_t)at + 64, below(4));
        break;
    }
    case 8: {
        /* Pages for frames, which are mapped, touched where that is right, and given back in part or as a whole. */
        unsigned char *pages = mmap(NULL, 8 * PAGE, PROT_READ | (below(2) ? PROT_WRITE : 0), MAP_SHARED, privcmd, 0);
        uint64_t frames[8];
        int errors[8] = { 0 };
        struct { uint32_t count; uint16_t domain; uint16_t none; uint64_t address, frames, errors; } batch = { 8, 1, 0, (uint64_t)pages, (uint64_t)frames, (uint64_t)errors };

        if (pages == MAP_FAILED)
            break;
        for (int frame = 0; frame < 8; frame++)
            frames[frame] = below(3) ? 0x1000 + below(16) : word();
        if (!below(4))
            batch.address += PAGE * below(12);
        if (!below(8))
            batch.frames = pointer();
        if (!below(8))
            batch.errors = pointer();
        ioctl(privcmd, 0x205004, &batch);
        munmap(pages + PAGE * below(4), PAGE * (1 + below(4)));
        munmap(pages, 8 * PAGE);
        break;
    }
    default: {
        struct { uint16_t domain, count; uint32_t none; uint64_t buffers; } buffers = { below(8) ? 1 : word(), below(4), 0, below(8) ? (uint64_t)at + 64 : pointer() };

        put(at + 64, below(4) ? (uint64_t)at + 128 : pointer(), 8);
        put(at + 72, below(2) ? 32 : word(), 8);
        ioctl(privcmd, below(2) ? 0x105005 : next() & 0x3fffff, &buffers);
        ioctl(evtchn, OF(requests), below(2) ? (uint64_t)at : pointer());
        break;
    }
    }
}

int main(int argc, char **argv)
{
    int privcmd = open("/dev/xen/privcmd", O_RDWR), evtchn = open("/dev/xen/evtchn", O_RDWR | O_NONBLOCK);
    unsigned char info[144] = { 0 };
    long calls;

    if (argc != 3 || privcmd < 0 || evtchn < 0)
        return 2;
    state = strtoull(argv[1], NULL, 0) * 0x9e3779b97f4a7c15 + 1;
    arena = mmap(NULL, (PAGES + 3) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    closed = arena + PAGES * PAGE;
    constant = closed + PAGE;
    if (arena == MAP_FAILED || mprotect(closed, PAGE, PROT_NONE) || mprotect(constant, 2 * PAGE, PROT_READ))
        return 2;
    for (calls = atol(argv[2]); calls > 0; calls--)
        call(privcmd, evtchn);
    put(info, 5, 4);
    put(info + 4, 0x15, 4);
    put(info + 8, 1, 2);
    printf("domain 1 is %s\n", hypercall(privcmd, 36, (uint64_t)info, 0) ? strerror(errno) : "there");
    return 0;
}
