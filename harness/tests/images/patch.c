/* Writes a byte into a frame as introspection tools plant a breakpoint: maps it, writes, and unmaps it. */

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <xenforeignmemory.h>

int main(int argc, char **argv)
{
    xenforeignmemory_handle *memory = xenforeignmemory_open(NULL, 0);
    xen_pfn_t frame;
    int error = 0;
    char *page;

    if (argc != 5 || !memory)
        return 2;
    frame = strtoull(argv[2], NULL, 0);
    page = xenforeignmemory_map(memory, strtoul(argv[1], NULL, 0), PROT_READ | PROT_WRITE, 1, &frame, &error);
    if (!page || error)
        return 1;
    page[strtoul(argv[3], NULL, 0)] = argv[4][0];
    return xenforeignmemory_unmap(memory, page, 1) || xenforeignmemory_close(memory);
}
