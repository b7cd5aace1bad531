/*
 * A pager of one's own: it evicts frames when it is ordered to or when the guest may hold no more, and brings back what is touched.
 *
 *     cc -O2 -Wall -o pager pager.c
 *     mem-event run page_in --paging-target 2M --consumer paging:vm_event7,sharing:vm_event7=./pager
 *
 * docs/pagers.md of mem-event tells a pager's life in this file's order.
 */

#include "mem_event.h"

enum { CHUNK = 4096 };   /* frames that one call tells of */
enum { HELD = 0x80 };    /* of a frame's type: memory is behind it */
enum { FIRST = 0x100 };  /* below one mebibyte are firmware and devices */
enum { BATCH = 16 };     /* frames that are evicted at a time when the guest may hold no more */

static struct ring paging, sharing;
static bool has_sharing;
static int orders;

static int file;               /* the page file: a frame lies at its number times 4096 */
static uint64_t frames;        /* there are */
static bool *out;              /* of each frame: its content is in the page file and nowhere else */
static uint64_t recent[BATCH]; /* frames that came in lately, and stay */
static unsigned came;
static uint64_t hand;          /* where the scan goes on */
static bool full;              /* the page file took no more */

/* Out. */

/*
 * The frame is nominated: a touch from now on is reported, and makes EVICT fail. Its content is kept before it goes. Refused are frames
 * that were touched meanwhile (a request with EVICT_FAIL is on the ring) or ballooned out (one with DROP_PAGE).
 */
static bool finish_evicting(uint64_t gfn)
{
    if (try_call(READ_FRAME, gfn, 0, PAGE))
        return false;
    errno = ENOSPC; /* what a write that ends early does not say */
    if (pwrite(file, packet.payload, PAGE, (off_t)(gfn * PAGE)) != PAGE) {
        /* It stays nominated. Its next touch says EVICT_FAIL, and the answer makes it an ordinary frame again. */
        if (!full)
            fprintf(stderr, "nothing more is evicted, the page file cannot be written: %m\n");
        full = true;
        return false;
    }
    if (try_call(EVICT, gfn, 0, 0))
        return false;
    return out[gfn] = true;
}

/* Whether the frame went. It did not where the guest needs it, somebody has it mapped, or the file is full. */
static bool evict(uint64_t gfn)
{
    return gfn < frames && !try_call(NOMINATE, gfn, 0, 0) && finish_evicting(gfn);
}

static bool is_recent(uint64_t gfn)
{
    for (unsigned i = 0; i < BATCH; i++)
        if (recent[i] == gfn)
            return true;
    return false;
}

/* Evicts so many frames, if once around there are as many. How many went. */
static uint64_t make_room(uint64_t wanted)
{
    uint8_t types[CHUNK];
    uint64_t gone = 0, chunk = UINT64_MAX;

    for (uint64_t looked = 0; looked < frames && gone < wanted && !full; looked++) {
        uint64_t gfn = hand;

        hand = gfn + 1 < frames ? gfn + 1 : FIRST;
        if (gfn / CHUNK != chunk) {
            /* Asked before frames are nominated: most may have no memory behind them, and would be refused one by one. */
            chunk = gfn / CHUNK;
            call(TYPES, chunk * CHUNK, 0, 0);
            memcpy(types, packet.payload, CHUNK);
        }
        if (types[gfn % CHUNK] == (RAM_RW | HELD) && !is_recent(gfn))
            gone += evict(gfn);
    }
    if (!gone) {
        /* The guest is not to wait for a frame that no eviction will give it. */
        fprintf(stderr, "there is nothing to evict, so the target is given up\n");
        call(SET_BUDGET, UINT64_MAX, 0, 0);
    }
    return gone;
}

/* Holds the guest to so many frames: what it has above them goes now, and more whenever it touches others. */
static uint64_t hold_to(uint64_t budget)
{
    uint64_t all = 0, gone;

    full = false;
    call(SET_BUDGET, budget, 0, 0);
    while (call(INFO, 0, 0, 0), packet.argument[2] > budget) {
        gone = make_room(packet.argument[2] - budget);
        if (!gone)
            break;
        all += gone;
    }
    return all;
}

/* In. */

/* Brings a frame back. Where the budget has no room for it, others go first. */
static void load(uint64_t gfn)
{
    char content[PAGE];
    uint32_t error;

    if (pread(file, content, PAGE, (off_t)(gfn * PAGE)) != PAGE) {
        fprintf(stderr, "frame %#" PRIx64 " is not in the page file, and its vCPU stays stopped\n", gfn);
        exit(1);
    }
    for (;;) {
        memcpy(packet.payload, content, PAGE);
        error = exchange(LOAD, (uint64_t[5]){ gfn }, PAGE, -1, NULL);
        if (!error || error == ENOENT) /* it is back already */
            break;
        if (error != ENOMEM)
            refused();
        make_room(BATCH);
    }
    out[gfn] = false;
    recent[came++ % BATCH] = gfn;
}

/* The paging ring: frames that are touched, and frames that are gone for good. */
static void serve(void)
{
    vm_event_request_t request;

    while (take(&paging, &request)) {
        const struct vm_event_paging *event = &request.u.mem_paging;

        if (event->gfn < frames) {
            if (event->flags & MEM_PAGING_DROP_PAGE)
                out[event->gfn] = false;
            else if (!(event->flags & MEM_PAGING_EVICT_FAIL) && out[event->gfn])
                load(event->gfn);
            /* Else it is there: touched before it went (EVICT_FAIL), or brought back for another vCPU. The answer is all it needs. */
        }
        answer(&paging, &request);
    }
}

/* The sharing ring: the guest touched a frame for the first time, and may hold no more. */
static void relieve(void)
{
    vm_event_request_t request;

    while (take(&sharing, &request)) {
        call(INFO, 0, 0, 0);
        if (packet.argument[2] >= packet.argument[4])
            make_room(BATCH);
        answer(&sharing, &request);
    }
}

/* What the toolstack orders, a target or frames to evict; the reply is how many went. */
static void obey(void)
{
    char order[256] = "", reply[300];
    uint64_t first, count, gone = 0;
    ssize_t length = recv(orders, order, sizeof(order) - 1, 0);

    if (length <= 0)
        ended();
    if (sscanf(order, "page-out %" SCNu64 " %" SCNu64, &first, &count) == 2) {
        for (uint64_t gfn = first; gfn < first + count; gfn++)
            gone += evict(gfn);
        snprintf(reply, sizeof(reply), "%" PRIu64, gone);
    } else if (sscanf(order, "target %" SCNu64, &count) == 1) {
        snprintf(reply, sizeof(reply), "%" PRIu64, hold_to(count));
    } else {
        snprintf(reply, sizeof(reply), "no such order: %s", order);
    }
    if (send(orders, reply, strlen(reply), MSG_NOSIGNAL) < 0)
        errno == EPIPE || errno == ECONNRESET ? ended() : fail("orders");
}

/* The start. */

/* Takes what a pager before this one has left: its page file, its evicted frames, its nominated ones. */
static void take_over(void)
{
    uint8_t *types = NULL;
    uint64_t lost = 0;

    if (exchange(PAGE_FILE, (uint64_t[5]){ 0 }, 0, -1, &file))
        refused();
    while (call(TYPES, frames, 0, 0), packet.length) {
        types = realloc(types, frames + packet.length);
        if (!types)
            fail("types");
        memcpy(types + frames, packet.payload, packet.length);
        frames += packet.length;
    }
    out = calloc(frames, sizeof(*out));
    if (!out)
        fail("frames");
    for (uint64_t gfn = 0; gfn < frames; gfn++)
        lost += out[gfn] = types[gfn] == RAM_PAGED || types[gfn] == RAM_PAGING_IN;
    if (file < 0) {
        FILE *temporary = tmpfile();

        if (!temporary)
            fail("the page file");
        if (lost) {
            fprintf(stderr, "%" PRIu64 " frames are out, and the pager before this one handed no page file over\n", lost);
            exit(1);
        }
        file = fileno(temporary);
    }
    if (exchange(SET_PAGE_FILE, (uint64_t[5]){ 0 }, 0, file, NULL))
        refused();
    for (uint64_t gfn = 0; gfn < frames; gfn++)
        if ((types[gfn] & ~HELD) == RAM_PAGING_OUT)
            finish_evicting(gfn);
    free(types);
    hand = frames / 2 < FIRST ? FIRST : frames / 2;
}

int main(void)
{
    take_connection();
    attach(&paging, "MEM_EVENT_RING_PAGING");
    orders = atoi(handed("MEM_EVENT_ORDERS_FD"));
    has_sharing = getenv("MEM_EVENT_RING_SHARING") != NULL;
    if (has_sharing)
        attach(&sharing, "MEM_EVENT_RING_SHARING");
    take_over();
    say_ready();
    for (;;) {
        /* A ring that was not handed over is -1, and left out. */
        struct pollfd waited[] = { { paging.signalled, POLLIN, 0 },
                                   { has_sharing ? sharing.signalled : -1, POLLIN, 0 },
                                   { orders, POLLIN, 0 },
                                   { connection, POLLIN, 0 } };

        /* Before the first wait: requests that a pager before this one left are on the ring without a signal. */
        clear(&paging);
        serve();
        if (has_sharing) {
            clear(&sharing);
            relieve();
        }
        wait_for(waited, 4);
        if (waited[2].revents)
            obey();
    }
}
