//! `struct xen_hvm_param`, and the commands of `hvm_op`.

structure! {
    "struct xen_hvm_param", 16 bytes;
    DOMID: u16 = 0, "domid";
    INDEX: u32 = 4, "index";
    VALUE: u64 = 8, "value";
}

constants! {
    SET: u64 = 0, "HVMOP_set_param";
    GET: u64 = 1, "HVMOP_get_param";
    ALTP2M: u64 = 25, "HVMOP_altp2m";
    PAGING_RING_PFN: u32 = 27, "HVM_PARAM_PAGING_RING_PFN";
    MONITOR_RING_PFN: u32 = 28, "HVM_PARAM_MONITOR_RING_PFN";
    SHARING_RING_PFN: u32 = 29, "HVM_PARAM_SHARING_RING_PFN";
}
