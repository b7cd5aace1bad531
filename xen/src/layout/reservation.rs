//! `struct xen_memory_reservation`, and the commands of `memory_op`.

structure! {
    "struct xen_memory_reservation", 32 bytes;
    EXTENTS: u64 = 0, "extent_start";
    NR_EXTENTS: u64 = 8, "nr_extents";
    ORDER: u32 = 16, "extent_order";
    FLAGS: u32 = 20, "mem_flags";
    DOMID: u16 = 24, "domid";
}

constants! {
    DECREASE: u64 = 1, "XENMEM_decrease_reservation";
    POPULATE: u64 = 6, "XENMEM_populate_physmap";
    MAXIMUM_GPFN: u64 = 14, "XENMEM_maximum_gpfn";
    PAGING: u64 = 20, "XENMEM_paging_op";
    ACCESS: u64 = 21, "XENMEM_access_op";
    SHARING: u64 = 22, "XENMEM_sharing_op";
}
