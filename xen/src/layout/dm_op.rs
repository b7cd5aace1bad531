//! `struct xen_dm_op`: a device model's calls, of which the tools use one.

structure! {
    "struct xen_dm_op", 32 bytes;
    OP: u32 = 0, "op";
    VCPU: u32 = 8, "u.inject_event.vcpuid";
    VECTOR: u8 = 12, "u.inject_event.vector";
}

constants! {
    INJECT_EVENT: u32 = 13, "XEN_DMOP_inject_event";
}
