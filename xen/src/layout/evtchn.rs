//! The requests of `/dev/xen/evtchn`.

constants! {
    BIND_VIRQ: u64 = 0x0004_4500, "IOCTL_EVTCHN_BIND_VIRQ";
    BIND_INTERDOMAIN: u64 = 0x0008_4501, "IOCTL_EVTCHN_BIND_INTERDOMAIN";
    BIND_UNBOUND_PORT: u64 = 0x0004_4502, "IOCTL_EVTCHN_BIND_UNBOUND_PORT";
    UNBIND: u64 = 0x0004_4503, "IOCTL_EVTCHN_UNBIND";
    NOTIFY: u64 = 0x0004_4504, "IOCTL_EVTCHN_NOTIFY";
    RESET: u64 = 0x0000_4505, "IOCTL_EVTCHN_RESET";
    RESTRICT_DOMID: u64 = 0x0002_4506, "IOCTL_EVTCHN_RESTRICT_DOMID";
}

/// The other end of a channel.
pub mod bind {
    structure! {
        "struct ioctl_evtchn_bind_interdomain", 8 bytes;
        REMOTE_DOMAIN: u32 = 0, "remote_domain";
        REMOTE_PORT: u32 = 4, "remote_port";
    }
}
