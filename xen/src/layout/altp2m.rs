//! `struct xen_hvm_altp2m_op`.

structure! {
    "struct xen_hvm_altp2m_op", 80 bytes;
    VERSION: u32 = 0, "version";
    CMD: u32 = 4, "cmd";
    DOMAIN: u16 = 8, "domain";
    STATE: u8 = 16, "u.domain_state.state";
    VIEW: u16 = 16, "u.view.view";
    DEFAULT_ACCESS: u16 = 18, "u.view.hvmmem_default_access";
    ACCESS_VIEW: u16 = 16, "u.mem_access.view";
    ACCESS: u16 = 18, "u.mem_access.access";
    GFN: u64 = 24, "u.mem_access.gfn";
    MULTI_VIEW: u16 = 16, "u.set_mem_access_multi.view";
    NR: u32 = 20, "u.set_mem_access_multi.nr";
    OPAQUE: u64 = 24, "u.set_mem_access_multi.opaque";
    PFN_LIST: u64 = 32, "u.set_mem_access_multi.pfn_list";
    ACCESS_LIST: u64 = 40, "u.set_mem_access_multi.access_list";
    CHANGE_VIEW: u16 = 16, "u.change_gfn.view";
    PAD1: u16 = 18, "u.change_gfn.pad1";
    PAD2: u32 = 20, "u.change_gfn.pad2";
    OLD_GFN: u64 = 24, "u.change_gfn.old_gfn";
    NEW_GFN: u64 = 32, "u.change_gfn.new_gfn";
    VCPU: u32 = 16, "u.get_vcpu_p2m_idx.vcpu_id";
    VCPU_VIEW: u16 = 20, "u.get_vcpu_p2m_idx.altp2m_idx";
}

constants! {
    INTERFACE_VERSION: u32 = 1, "HVMOP_ALTP2M_INTERFACE_VERSION";
    GET_DOMAIN_STATE: u32 = 1, "HVMOP_altp2m_get_domain_state";
    SET_DOMAIN_STATE: u32 = 2, "HVMOP_altp2m_set_domain_state";
    CREATE: u32 = 4, "HVMOP_altp2m_create_p2m";
    DESTROY: u32 = 5, "HVMOP_altp2m_destroy_p2m";
    SWITCH: u32 = 6, "HVMOP_altp2m_switch_p2m";
    SET_MEM_ACCESS: u32 = 7, "HVMOP_altp2m_set_mem_access";
    CHANGE_GFN: u32 = 8, "HVMOP_altp2m_change_gfn";
    SET_MEM_ACCESS_MULTI: u32 = 9, "HVMOP_altp2m_set_mem_access_multi";
    GET_MEM_ACCESS: u32 = 12, "HVMOP_altp2m_get_mem_access";
    GET_P2M_IDX: u32 = 14, "HVMOP_altp2m_get_p2m_idx";
    SET_VISIBILITY: u32 = 16, "HVMOP_altp2m_set_visibility";
}
