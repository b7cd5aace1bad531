//! `struct xen_domctl_getdomaininfo`: a domain's figures.

structure! {
    "struct xen_domctl_getdomaininfo", 112 bytes;
    DOMAIN: u16 = 0, "domain";
    FLAGS: u32 = 4, "flags";
    TOT_PAGES: u64 = 8, "tot_pages";
    MAX_PAGES: u64 = 16, "max_pages";
    PAGED_PAGES: u64 = 40, "paged_pages";
    ONLINE_VCPUS: u32 = 64, "nr_online_vcpus";
    MAX_VCPU_ID: u32 = 68, "max_vcpu_id";
    ADDRESS_BITS: u8 = 96, "gpaddr_bits";
}

constants! {
    HVM: u32 = 2, "XEN_DOMINF_hvm_guest";
    PAUSED: u32 = 8, "XEN_DOMINF_paused";
    RUNNING: u32 = 32, "XEN_DOMINF_running";
    HAP: u32 = 256, "XEN_DOMINF_hap";
}
