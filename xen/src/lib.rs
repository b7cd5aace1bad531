//! Xen's interface to its tools, answered by a plugin's control socket: hypercalls, event channels, ring pages.
//!
//! A tool of Xen's calls the hypervisor through `/dev/xen/privcmd` and hears of events through `/dev/xen/evtchn`. `preload/` takes
//! these calls where the tool makes them, in its own process; this crate says what they mean. It touches the tool's memory only through
//! [`tool::Tool`], and the domain only through [`domain::Domain`], so that each hypercall is tested without a guest. Which calls
//! the tools make, and what is not there, is in `docs/xen.md`.
//!
//! | file | what lives there |
//! |---|---|
//! | [`errno`] | what a call is refused with |
//! | [`environment`] | which domains there are, and where |
//! | [`tool`], [`domain`] | the process that calls; the domain that it calls about |
//! | [`layout`] | Xen's structures as tables |
//! | [`version`] | which Xen the tools find themselves on |
//! | [`ring`] | a ring page of the tool's own |
//! | [`evtchn`] | event channels |
//! | [`guest`], [`hypervisor`] | what is kept of a domain, and of all |
//! | [`hypercall`] | the calls |
//! | [`connection`] | a domain behind a control socket |
//! | [`store`] | a xenstore for the domains |

pub mod connection;
pub mod domain;
pub mod environment;
pub mod errno;
pub mod evtchn;
pub mod guest;
pub mod hypercall;
pub mod hypervisor;
pub mod layout;
pub mod ring;
pub mod store;
pub mod tool;
pub mod unknown;
pub mod version;
