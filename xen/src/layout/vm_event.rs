//! `vm_event_request_t`, as far as a request is judged on its way to the tool.

structure! {
    "vm_event_request_t", 400 bytes;
    VERSION: u32 = 0, "version";
    REASON: u32 = 8, "reason";
    CTRLREG_INDEX: u32 = 24, "u.write_ctrlreg.index";
    CTRLREG_NEW: u64 = 32, "u.write_ctrlreg.new_value";
    CTRLREG_OLD: u64 = 40, "u.write_ctrlreg.old_value";
    MSR: u64 = 24, "u.mov_to_msr.msr";
    MSR_NEW: u64 = 32, "u.mov_to_msr.new_value";
    MSR_OLD: u64 = 40, "u.mov_to_msr.old_value";
}

constants! {
    INTERFACE_VERSION: u32 = 7, "VM_EVENT_INTERFACE_VERSION";
    REASON_MEM_PAGING: u32 = 3, "VM_EVENT_REASON_MEM_PAGING";
    REASON_WRITE_CTRLREG: u32 = 4, "VM_EVENT_REASON_WRITE_CTRLREG";
    REASON_MOV_TO_MSR: u32 = 5, "VM_EVENT_REASON_MOV_TO_MSR";
    INDEX_CR0: u8 = 0, "VM_EVENT_X86_CR0";
    INDEX_CR3: u8 = 1, "VM_EVENT_X86_CR3";
    INDEX_CR4: u8 = 2, "VM_EVENT_X86_CR4";
    INDEX_XCR0: u8 = 3, "VM_EVENT_X86_XCR0";
}
