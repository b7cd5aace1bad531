//! `struct xen_hvm_altp2m_op`.

structure! {
    "struct xen_hvm_altp2m_op", 80 bytes;
    VERSION: u32 = 0, "version";
    CMD: u32 = 4, "cmd";
    DOMAIN: u16 = 8, "domain";
    STATE: u8 = 16, "u.domain_state.state";
}

constants! {
    INTERFACE_VERSION: u32 = 1, "HVMOP_ALTP2M_INTERFACE_VERSION";
    GET_DOMAIN_STATE: u32 = 1, "HVMOP_altp2m_get_domain_state";
}
