/* Maps a frame and unmaps it as often as there are frames in 256 MiB, then maps several at once, and unmaps the first half of these alone. */

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xenforeignmemory.h>

#define MOST 64

int main(int argc, char **argv)
{
    xenforeignmemory_handle *memory = xenforeignmemory_open(NULL, 0);
    xen_pfn_t frames[MOST];
    int errors[MOST], count, turn;
    unsigned domain;
    char *pages;

    if (argc != 4 || !memory)
        return 2;
    domain = strtoul(argv[1], NULL, 0);
    count = atoi(argv[3]);
    for (int at = 0; at < count; at++)
        frames[at] = strtoull(argv[2], NULL, 0) + at;
    for (turn = 0; turn < 65536; turn++) {
        pages = xenforeignmemory_map(memory, domain, PROT_READ, 1, frames, errors);
        if (!pages || errors[0] || xenforeignmemory_unmap(memory, pages, 1))
            return 1;
    }
    pages = xenforeignmemory_map(memory, domain, PROT_READ, count, frames, errors);
    if (!pages || munmap(pages, (size_t)count / 2 * 4096))
        return 1;
    printf("%d mapped\n", pages[(size_t)count / 2 * 4096] == 0);
    fflush(stdout);
    pause();
    return 0;
}
