//! `struct xen_mem_paging_op`.

structure! {
    "struct xen_mem_paging_op", 24 bytes;
    OP: u8 = 0, "op";
    DOMAIN: u16 = 2, "domain";
    BUFFER: u64 = 8, "buffer";
    GFN: u64 = 16, "gfn";
}

constants! {
    NOMINATE: u8 = 0, "XENMEM_paging_op_nominate";
    EVICT: u8 = 1, "XENMEM_paging_op_evict";
    PREP: u8 = 2, "XENMEM_paging_op_prep";
}
