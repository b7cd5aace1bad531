//! The hypercalls' numbers (`xen.h`), and the commands of those that take no structure.

constants! {
    MEMORY_OP: u64 = 12, "__HYPERVISOR_memory_op";
    MULTICALL: u64 = 13, "__HYPERVISOR_multicall";
    XEN_VERSION: u64 = 17, "__HYPERVISOR_xen_version";
    HVM_OP: u64 = 34, "__HYPERVISOR_hvm_op";
    SYSCTL: u64 = 35, "__HYPERVISOR_sysctl";
    DOMCTL: u64 = 36, "__HYPERVISOR_domctl";
    DM_OP: u64 = 41, "__HYPERVISOR_dm_op";
    VERSION: u64 = 0, "XENVER_version";
    EXTRAVERSION: u64 = 1, "XENVER_extraversion";
    COMPILE_INFO: u64 = 2, "XENVER_compile_info";
    CAPABILITIES: u64 = 3, "XENVER_capabilities";
    CHANGESET: u64 = 4, "XENVER_changeset";
    PLATFORM: u64 = 5, "XENVER_platform_parameters";
    PAGESIZE: u64 = 7, "XENVER_pagesize";
    COMMANDLINE: u64 = 9, "XENVER_commandline";
}
