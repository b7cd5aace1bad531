//! `struct xen_domctl`: what a toolstack asks of a domain.

structure! {
    "struct xen_domctl", 144 bytes;
    CMD: u32 = 0, "cmd";
    INTERFACE_VERSION: u32 = 4, "interface_version";
    DOMAIN: u16 = 8, "domain";
    DEBUG_OP: u32 = 16, "u.debug_op.op";
    DEBUG_VCPU: u32 = 20, "u.debug_op.vcpu";
    VM_EVENT_OP: u32 = 16, "u.vm_event_op.op";
    VM_EVENT_MODE: u32 = 20, "u.vm_event_op.mode";
    VM_EVENT_PORT: u32 = 24, "u.vm_event_op.u.enable.port";
    VM_EVENT_VERSION: u32 = 24, "u.vm_event_op.u.version";
    SHARING_OP: u8 = 16, "u.mem_sharing_op.op";
    SHARING_ENABLE: u8 = 17, "u.mem_sharing_op.u.enable";
    FRAMES: u64 = 16, "u.getpageframeinfo3.num";
    FRAMES_LIST: u64 = 24, "u.getpageframeinfo3.array";
    ACCESS_REQUIRED: u8 = 16, "u.access_required.access_required";
    MONITOR_OP: u32 = 16, "u.monitor_op.op";
    MONITOR_EVENT: u32 = 20, "u.monitor_op.event";
    CTRLREG_INDEX: u8 = 24, "u.monitor_op.u.mov_to_cr.index";
    CTRLREG_SYNC: u8 = 25, "u.monitor_op.u.mov_to_cr.sync";
    CTRLREG_ON_CHANGE_ONLY: u8 = 26, "u.monitor_op.u.mov_to_cr.onchangeonly";
    CTRLREG_BITMASK: u64 = 32, "u.monitor_op.u.mov_to_cr.bitmask";
    MSR: u32 = 24, "u.monitor_op.u.mov_to_msr.msr";
    GUEST_REQUEST_SYNC: u8 = 24, "u.monitor_op.u.guest_request.sync";
    GUEST_REQUEST_ALLOW_USERSPACE: u8 = 25, "u.monitor_op.u.guest_request.allow_userspace";
    MSR_ON_CHANGE_ONLY: u8 = 28, "u.monitor_op.u.mov_to_msr.onchangeonly";
    CONTEXT_SIZE: u32 = 16, "u.hvmcontext.size";
    CONTEXT_BUFFER: u64 = 24, "u.hvmcontext.buffer";
    RECORD_TYPE: u32 = 16, "u.hvmcontext_partial.type";
    RECORD_INSTANCE: u32 = 20, "u.hvmcontext_partial.instance";
    RECORD_BYTES: u64 = 24, "u.hvmcontext_partial.bufsz";
    RECORD_BUFFER: u64 = 32, "u.hvmcontext_partial.buffer";
}

constants! {
    PAUSEDOMAIN: u32 = 3, "XEN_DOMCTL_pausedomain";
    UNPAUSEDOMAIN: u32 = 4, "XEN_DOMCTL_unpausedomain";
    GETDOMAININFO: u32 = 5, "XEN_DOMCTL_getdomaininfo";
    MAX_MEM: u32 = 11, "XEN_DOMCTL_max_mem";
    GETHVMCONTEXT: u32 = 33, "XEN_DOMCTL_gethvmcontext";
    DEBUG: u32 = 54, "XEN_DOMCTL_debug_op";
    GETHVMCONTEXT_PARTIAL: u32 = 55, "XEN_DOMCTL_gethvmcontext_partial";
    VM_EVENT: u32 = 56, "XEN_DOMCTL_vm_event_op";
    MEM_SHARING: u32 = 57, "XEN_DOMCTL_mem_sharing_op";
    GETPAGEFRAMEINFO3: u32 = 61, "XEN_DOMCTL_getpageframeinfo3";
    SET_ACCESS_REQUIRED: u32 = 64, "XEN_DOMCTL_set_access_required";
    MONITOR: u32 = 77, "XEN_DOMCTL_monitor_op";
    SINGLE_STEP_OFF: u32 = 0, "XEN_DOMCTL_DEBUG_OP_SINGLE_STEP_OFF";
    SINGLE_STEP_ON: u32 = 1, "XEN_DOMCTL_DEBUG_OP_SINGLE_STEP_ON";
    NO_TABLE: u64 = 0, "XEN_DOMCTL_PFINFO_NOTAB";
    NO_FRAME: u64 = 0xf000_0000, "XEN_DOMCTL_PFINFO_XTAB";
    SHARING_CONTROL: u8 = 0, "XEN_DOMCTL_MEM_SHARING_CONTROL";
    RING_ENABLE: u32 = 0, "XEN_VM_EVENT_ENABLE";
    RING_DISABLE: u32 = 1, "XEN_VM_EVENT_DISABLE";
    RING_RESUME: u32 = 2, "XEN_VM_EVENT_RESUME";
    RING_GET_VERSION: u32 = 3, "XEN_VM_EVENT_GET_VERSION";
    MODE_PAGING: u32 = 1, "XEN_DOMCTL_VM_EVENT_OP_PAGING";
    MODE_MONITOR: u32 = 2, "XEN_DOMCTL_VM_EVENT_OP_MONITOR";
    MODE_SHARING: u32 = 3, "XEN_DOMCTL_VM_EVENT_OP_SHARING";
    MONITOR_ENABLE: u32 = 0, "XEN_DOMCTL_MONITOR_OP_ENABLE";
    MONITOR_DISABLE: u32 = 1, "XEN_DOMCTL_MONITOR_OP_DISABLE";
    MONITOR_CAPABILITIES: u32 = 2, "XEN_DOMCTL_MONITOR_OP_GET_CAPABILITIES";
    EVENT_WRITE_CTRLREG: u32 = 0, "XEN_DOMCTL_MONITOR_EVENT_WRITE_CTRLREG";
    EVENT_MOV_TO_MSR: u32 = 1, "XEN_DOMCTL_MONITOR_EVENT_MOV_TO_MSR";
    EVENT_SINGLESTEP: u32 = 2, "XEN_DOMCTL_MONITOR_EVENT_SINGLESTEP";
    EVENT_SOFTWARE_BREAKPOINT: u32 = 3, "XEN_DOMCTL_MONITOR_EVENT_SOFTWARE_BREAKPOINT";
    EVENT_GUEST_REQUEST: u32 = 4, "XEN_DOMCTL_MONITOR_EVENT_GUEST_REQUEST";
    EVENT_CPUID: u32 = 6, "XEN_DOMCTL_MONITOR_EVENT_CPUID";
    EVENT_DESCRIPTOR_ACCESS: u32 = 9, "XEN_DOMCTL_MONITOR_EVENT_DESC_ACCESS";
}
