//! `struct xen_sysctl`: what a toolstack asks of the machine.

structure! {
    "struct xen_sysctl", 136 bytes;
    CMD: u32 = 0, "cmd";
    INTERFACE_VERSION: u32 = 4, "interface_version";
    FIRST_DOMAIN: u16 = 8, "u.getdomaininfolist.first_domain";
    MAX_DOMAINS: u32 = 12, "u.getdomaininfolist.max_domains";
    BUFFER: u64 = 16, "u.getdomaininfolist.buffer";
    NUM_DOMAINS: u32 = 24, "u.getdomaininfolist.num_domains";
}

constants! {
    GETDOMAININFOLIST: u32 = 6, "XEN_SYSCTL_getdomaininfolist";
    VERSION: u32 = 0x15, "XEN_SYSCTL_INTERFACE_VERSION";
}
