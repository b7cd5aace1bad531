/* Sets one register of a vCPU as tools on libxenctrl do: reads the domain's whole context, changes the vCPU's record, writes all of it back. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xenctrl.h>
#include <xen/hvm/save.h>

int main(int argc, char **argv)
{
    xc_interface *xen = xc_interface_open(NULL, NULL, 0);
    unsigned domain, vcpu;
    unsigned long long value;
    uint8_t *context, *at;
    int size;

    if (argc != 5 || !xen)
        return 2;
    domain = strtoul(argv[1], NULL, 0);
    vcpu = strtoul(argv[2], NULL, 0);
    value = strtoull(argv[4], NULL, 0);
    size = xc_domain_hvm_getcontext(xen, domain, NULL, 0);
    context = malloc(size);
    if (xc_domain_hvm_getcontext(xen, domain, context, size) < 0)
        return 2;
    for (at = context;; at += sizeof(struct hvm_save_descriptor) + ((struct hvm_save_descriptor *)at)->length) {
        struct hvm_save_descriptor *descriptor = (void *)at;
        struct hvm_hw_cpu *cpu = (void *)(descriptor + 1);

        if (descriptor->typecode == 0)
            break;
        if (descriptor->typecode != HVM_SAVE_CODE(CPU) || descriptor->instance != vcpu)
            continue;
        if (!strcmp(argv[3], "r9"))
            cpu->r9 = value;
        else
            cpu->tr_base = value;
    }
    if (xc_domain_hvm_setcontext(xen, domain, context, size))
        printf("%s\n", strerror(errno));
    else
        printf("set\n");
    return 0;
}
