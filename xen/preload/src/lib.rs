//! The library that is preloaded into a tool of Xen's: it takes the C library's functions by which the tool would reach the
//! hypervisor, and answers what is Xen's by the crate `xen`. Everything else goes on to the C library, and without its
//! environment (`environment`) all of it does.
//!
//! | file | what lives there |
//! |---|---|
//! | `environment` | which domains there are, and where |
//! | `real` | the C library's own functions |
//! | `memory`, `mapping` | the tool's memory, which may be wrong; pages put into it |
//! | `descriptor` | which descriptors are whose |
//! | `region` | what the tool reserved for mappings |
//! | `layer` | the hypervisor of this process, under its lock |
//! | `device` | opened, asked, read, written, closed |
//! | `exports` | the functions that are taken |
//!
//! A descriptor that was not opened here costs one load. A signal's handler may open, read and write what is not Xen's at any time; one
//! that calls Xen while its thread is within a call of Xen would wait for itself. A child of the tool has the descriptors and connects
//! anew; rings stay with the parent.

mod descriptor;
mod device;
mod environment;
mod exports;
mod layer;
mod mapping;
mod memory;
mod real;
mod region;
