//! `struct xen_mem_sharing_op`.

structure! {
    "struct xen_mem_sharing_op", 48 bytes;
    OP: u8 = 0, "op";
    DOMAIN: u16 = 2, "domain";
    GFN: u64 = 8, "u.nominate.u.gfn";
    HANDLE: u64 = 16, "u.nominate.handle";
    SOURCE_GFN: u64 = 8, "u.share.source_gfn";
    SOURCE_HANDLE: u64 = 16, "u.share.source_handle";
    CLIENT_GFN: u64 = 24, "u.share.client_gfn";
    CLIENT_HANDLE: u64 = 32, "u.share.client_handle";
    CLIENT_DOMAIN: u16 = 40, "u.share.client_domain";
}

constants! {
    NOMINATE_GFN: u8 = 0, "XENMEM_sharing_op_nominate_gfn";
    SHARE: u8 = 2, "XENMEM_sharing_op_share";
}
