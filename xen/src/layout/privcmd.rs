//! The requests of `/dev/xen/privcmd`.

constants! {
    HYPERCALL: u64 = 0x0030_5000, "IOCTL_PRIVCMD_HYPERCALL";
    MMAPBATCH_V2: u64 = 0x0020_5004, "IOCTL_PRIVCMD_MMAPBATCH_V2";
    DM_OP: u64 = 0x0010_5005, "IOCTL_PRIVCMD_DM_OP";
    RESTRICT: u64 = 0x0002_5006, "IOCTL_PRIVCMD_RESTRICT";
    UNIMPLEMENTED: u64 = 0x0000_50ff, "IOCTL_PRIVCMD_UNIMPLEMENTED";
}

/// A hypercall and its arguments.
pub mod call {
    structure! {
        "privcmd_hypercall_t", 48 bytes;
        OP: u64 = 0, "op";
        ARG0: u64 = 8, "arg[0]";
        ARG1: u64 = 16, "arg[1]";
        ARG2: u64 = 24, "arg[2]";
        ARG3: u64 = 32, "arg[3]";
        ARG4: u64 = 40, "arg[4]";
    }
}

/// Frames of a domain that are to be mapped in a row.
pub mod batch {
    structure! {
        "privcmd_mmapbatch_v2_t", 32 bytes;
        NUM: u32 = 0, "num";
        DOM: u16 = 4, "dom";
        ADDR: u64 = 8, "addr";
        FRAMES: u64 = 16, "arr";
        ERRORS: u64 = 24, "err";
    }
}

/// A device model's call: its buffers, of which the first is the call.
pub mod buffers {
    structure! {
        "privcmd_dm_op_t", 16 bytes;
        DOM: u16 = 0, "dom";
        NUM: u16 = 2, "num";
        BUFFERS: u64 = 8, "ubufs";
    }
}
