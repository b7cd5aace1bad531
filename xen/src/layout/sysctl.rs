//! `struct xen_sysctl`: what a toolstack asks of the machine.

structure! {
    "struct xen_sysctl", 136 bytes;
    CMD: u32 = 0, "cmd";
    INTERFACE_VERSION: u32 = 4, "interface_version";
    FIRST_DOMAIN: u16 = 8, "u.getdomaininfolist.first_domain";
    MAX_DOMAINS: u32 = 12, "u.getdomaininfolist.max_domains";
    BUFFER: u64 = 16, "u.getdomaininfolist.buffer";
    NUM_DOMAINS: u32 = 24, "u.getdomaininfolist.num_domains";
    THREADS_PER_CORE: u32 = 8, "u.physinfo.threads_per_core";
    CORES_PER_SOCKET: u32 = 12, "u.physinfo.cores_per_socket";
    NR_CPUS: u32 = 16, "u.physinfo.nr_cpus";
    MAX_CPU_ID: u32 = 20, "u.physinfo.max_cpu_id";
    NR_NODES: u32 = 24, "u.physinfo.nr_nodes";
    CPU_CAPABILITIES: u32 = 36, "u.physinfo.capabilities";
    TOTAL_PAGES: u64 = 48, "u.physinfo.total_pages";
    SCHEDULER: u32 = 8, "u.sched_id.sched_id";
}

constants! {
    PHYSINFO: u32 = 3, "XEN_SYSCTL_physinfo";
    PHYSCAP_HVM: u32 = 1, "XEN_SYSCTL_PHYSCAP_hvm";
    SCHED_ID: u32 = 4, "XEN_SYSCTL_sched_id";
    SCHEDULER_NULL: u32 = 9, "XEN_SCHEDULER_NULL";
    GETDOMAININFOLIST: u32 = 6, "XEN_SYSCTL_getdomaininfolist";
    VERSION: u32 = 0x15, "XEN_SYSCTL_INTERFACE_VERSION";
}
