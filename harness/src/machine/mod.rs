//! The machine: QEMU, its process, its monitor, its files, and what of this host it needs.
//!
//! | file | what lives there |
//! |---|---|
//! | [`qemu`] | which QEMU, its command line, what it means when it does not start |
//! | [`process`], [`spawn`] | its process |
//! | [`qmp`] | its monitor |
//! | [`folder`], [`disk`] | a run's files; the disk that guests are shown |
//! | [`saved`] | machines that were saved after their boot |
//! | [`resident`] | how much memory the guest holds |
//! | [`doctor`] | what this host has and lacks |

mod container;
pub mod disk;
pub mod doctor;
pub mod folder;
pub mod process;
pub mod qemu;
pub mod qmp;
pub mod resident;
pub mod saved;
pub mod spawn;
