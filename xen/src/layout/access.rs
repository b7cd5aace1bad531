//! `struct xen_mem_access_op`.

structure! {
    "struct xen_mem_access_op", 32 bytes;
    OP: u8 = 0, "op";
    ACCESS: u8 = 1, "access";
    DOMID: u16 = 2, "domid";
    NR: u32 = 4, "nr";
    PFN: u64 = 8, "pfn";
    PFN_LIST: u64 = 16, "pfn_list";
    ACCESS_LIST: u64 = 24, "access_list";
}

constants! {
    SET: u8 = 0, "XENMEM_access_op_set_access";
    GET: u8 = 1, "XENMEM_access_op_get_access";
    SET_MULTI: u8 = 4, "XENMEM_access_op_set_access_multi";
}
