/*
 * The mem_event protocol in C, as Xen 4.2 runs it (mem_event.c, p2m_mem_access_check), on Xen's own ring macros: what the
 * engine's speed is held against. Built and run by compare.rs only.
 *
 * One thread plays all parts, as the Rust side does: a vCPU's write to a watched frame looks the p2m up, claims under the
 * ring lock, pauses, puts under the ring lock and notifies; the consumer copies the request out, answers and notifies; the
 * engine gets the response under the ring lock, serves the wait queue, checks the vCPU and unpauses it.
 *
 * The compiler sees the whole program, as it does on the Rust side. The lock is Xen's ticket lock without contention.
 *
 * Reads numbers of events from standard input, one a line; prints the nanoseconds of processor time that they took.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define xen_mb()  __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define xen_rmb() __asm__ volatile ("" ::: "memory")
#define xen_wmb() __asm__ volatile ("" ::: "memory")
#define __XEN_INTERFACE_VERSION__ 0x00040700 /* the macros as they are since xen_wmb */
#include <xen/io/ring.h>

#define FRAMES (1u << 17)
#define VCPUS 8
#define VIOLATION 1
#define VCPU_PAUSED 1u
#define ACCESS_R 1u
#define ACCESS_W 2u
#define GLA_VALID 8u

typedef struct {
    uint32_t flags;
    uint32_t vcpu_id;
    uint64_t gfn;
    uint64_t offset;
    uint64_t gla;
    uint32_t p2mt;
    uint16_t bits;
    uint16_t reason;
} mem_event_t;

DEFINE_RING_TYPES(mem_event, mem_event_t, mem_event_t);

struct vcpu {
    int pause_count;
    int event_pause_count;
    int woken;
};

static struct domain {
    uint32_t lock;
    mem_event_front_ring_t front;
    uint8_t target_producers, foreign_producers;
    struct vcpu *wait_queue[VCPUS];
    unsigned int waiting;
    unsigned int kicks;
    struct vcpu vcpu[VCPUS];
} d;

static mem_event_back_ring_t back;
static struct { uint8_t type, access; uint16_t pad; } *p2m;

static inline void ring_lock(void)
{
    uint32_t ticket = __atomic_fetch_add(&d.lock, 1u << 16, __ATOMIC_ACQUIRE);

    while ( (uint16_t)ticket != (uint16_t)(ticket >> 16) )
        ticket = (ticket & 0xffff0000u) | (__atomic_load_n(&d.lock, __ATOMIC_ACQUIRE) & 0xffffu);
}

static inline void ring_unlock(void)
{
    uint16_t *head = (uint16_t *)&d.lock;

    __atomic_store_n(head, (uint16_t)(*head + 1), __ATOMIC_RELEASE);
}

static int available(void)
{
    return (int)RING_FREE_REQUESTS(&d.front) - d.target_producers - d.foreign_producers;
}

/* Returns 0 with a slot claimed, or 1 with the vCPU on the wait queue. */
static int claim_slot(struct vcpu *v)
{
    int full;

    ring_lock();
    full = available() <= 0;
    if ( full )
        d.wait_queue[d.waiting++] = v;
    else
        d.target_producers++;
    ring_unlock();
    return full;
}

static void vcpu_pause(struct vcpu *v)
{
    __atomic_fetch_add(&v->event_pause_count, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&v->pause_count, 1, __ATOMIC_SEQ_CST);
}

static void vcpu_unpause(struct vcpu *v)
{
    int old, new, prev = __atomic_load_n(&v->event_pause_count, __ATOMIC_RELAXED);

    do {
        old = prev;
        if ( old <= 0 )
            return;
        new = old - 1;
        prev = old;
    } while ( !__atomic_compare_exchange_n(&v->event_pause_count, &prev, new, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) );
    if ( __atomic_sub_fetch(&v->pause_count, 1, __ATOMIC_SEQ_CST) == 0 )
        v->woken = 1;
}

static void put_request(mem_event_t *req)
{
    ring_lock();
    if ( RING_FREE_REQUESTS(&d.front) == 0 )
        abort();
    memcpy(RING_GET_REQUEST(&d.front, d.front.req_prod_pvt), req, sizeof(*req));
    d.front.req_prod_pvt++;
    d.target_producers--;
    RING_PUSH_REQUESTS(&d.front);
    ring_unlock();
    d.kicks++;
}

static void wake(void)
{
    int free = available();

    while ( d.waiting && free-- > 0 )
        d.wait_queue[--d.waiting]->woken = 1;
}

static int get_response(mem_event_t *rsp)
{
    ring_lock();
    if ( !RING_HAS_UNCONSUMED_RESPONSES(&d.front) )
    {
        ring_unlock();
        return 0;
    }
    memcpy(rsp, RING_GET_RESPONSE(&d.front, d.front.rsp_cons), sizeof(*rsp));
    d.front.rsp_cons++;
    d.front.sring->rsp_event = d.front.rsp_cons + 1;
    wake();
    ring_unlock();
    return 1;
}

static int access_check(struct vcpu *v, uint32_t id, uint64_t gfn, uint32_t wanted)
{
    mem_event_t req;

    if ( gfn >= FRAMES || (p2m[gfn].access & wanted) == wanted )
        return 0;
    if ( claim_slot(v) )
        return 1;
    vcpu_pause(v);
    memset(&req, 0, sizeof(req));
    req.flags = VCPU_PAUSED;
    req.reason = VIOLATION;
    req.vcpu_id = id;
    req.gfn = gfn;
    req.offset = 0x123;
    req.gla = gfn << 12;
    req.bits = (uint16_t)(wanted | GLA_VALID);
    put_request(&req);
    return 1;
}

static void resume(void)
{
    mem_event_t rsp;

    while ( get_response(&rsp) )
    {
        if ( rsp.vcpu_id >= VCPUS )
            continue;
        if ( rsp.flags & VCPU_PAUSED )
            vcpu_unpause(&d.vcpu[rsp.vcpu_id]);
    }
}

static int consumer_take(mem_event_t *req)
{
    if ( !RING_HAS_UNCONSUMED_REQUESTS(&back) )
        return 0;
    memcpy(req, RING_GET_REQUEST(&back, back.req_cons), sizeof(*req));
    back.req_cons++;
    back.sring->req_event = back.req_cons + 1;
    return 1;
}

static void consumer_answer(const mem_event_t *rsp)
{
    memcpy(RING_GET_RESPONSE(&back, back.rsp_prod_pvt), rsp, sizeof(*rsp));
    back.rsp_prod_pvt++;
    RING_PUSH_RESPONSES(&back);
}

static uint64_t run(uint32_t events)
{
    struct timespec from, to;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    for ( uint32_t i = 0; i < events; i++ )
    {
        uint64_t gfn = (uint64_t)i * 0x9e3779b9u % (FRAMES / 2);
        uint32_t id = i % VCPUS;
        mem_event_t req;

        d.vcpu[id].woken = 0;
        if ( !access_check(&d.vcpu[id], id, gfn, ACCESS_W) || !consumer_take(&req) )
            abort();
        consumer_answer(&req);
        resume();
        if ( !d.vcpu[id].woken )
            abort();
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    return (uint64_t)((to.tv_sec - from.tv_sec) * 1000000000ll + (to.tv_nsec - from.tv_nsec));
}

int main(void)
{
    mem_event_sring_t *page = aligned_alloc(4096, 4096);
    unsigned int events;

    p2m = calloc(FRAMES, sizeof(*p2m));
    if ( !page || !p2m )
        return 1;
    for ( unsigned int gfn = 0; gfn < FRAMES; gfn++ )
        p2m[gfn].access = gfn < FRAMES / 2 ? ACCESS_R | 4 : 7;
    memset(page, 0, 4096);
    SHARED_RING_INIT(page);
    FRONT_RING_INIT(&d.front, page, 4096);
    BACK_RING_INIT(&back, page, 4096);
    if ( d.front.nr_ents != 64 )
        return 1;
    while ( scanf("%u", &events) == 1 )
    {
        printf("%llu\n", (unsigned long long)run(events));
        fflush(stdout);
    }
    return 0;
}
