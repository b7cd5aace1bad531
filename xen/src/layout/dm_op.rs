//! `struct xen_dm_op`: a device model's calls, of which the tools use one.

structure! {
    "struct xen_dm_op", 32 bytes;
    OP: u32 = 0, "op";
    VCPU: u32 = 8, "u.inject_event.vcpuid";
    VECTOR: u8 = 12, "u.inject_event.vector";
    TYPE: u8 = 13, "u.inject_event.type";
    ERROR: u32 = 16, "u.inject_event.error_code";
    CR2: u64 = 24, "u.inject_event.cr2";
}

constants! {
    INJECT_EVENT: u32 = 13, "XEN_DMOP_inject_event";
}
