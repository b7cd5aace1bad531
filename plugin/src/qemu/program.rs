//! The program that opened the plugin: what it says of its version in its constants.

use super::capabilities;
use super::version::{self, Version};
use memchr::memmem;
use std::ffi::{c_int, c_void};

const BANNER: &[u8] = b"QEMU emulator version ";
/// A machine type has the version of the release that brought it.
const MACHINE: &[u8] = b"pc-q35-";

/// The API's number for this program. May be called while the plugin is being opened.
pub fn api_number() -> i32 {
    let mut said = Said::default();
    // SAFETY: the function is called with each object's description and the pointer, and returns before this call does.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut said).cast()) };
    version::number(said.banner, said.newest_machine, capabilities::has_set_pc())
}

#[derive(Default)]
struct Said {
    banner: Option<Version>,
    newest_machine: Option<Version>,
}

impl Said {
    fn read(&mut self, constants: &[u8]) {
        let after = |at: usize, prefix: &[u8]| Version::parse(&constants[at + prefix.len()..]);
        self.banner = self.banner.or_else(|| memmem::find_iter(constants, BANNER).find_map(|at| after(at, BANNER)));
        let newest = memmem::find_iter(constants, MACHINE).filter_map(|at| after(at, MACHINE)).max();
        self.newest_machine = self.newest_machine.max(newest);
    }
}

/// The first object is the program, also where a loader was told to start it; the others are not looked at.
unsafe extern "C" fn look(object: *mut libc::dl_phdr_info, _: usize, said: *mut c_void) -> c_int {
    // SAFETY: `api_number` handed in what it made, and the loader describes an object that stays loaded: its headers, and of each segment
    // that may be read and not be written, the bytes that were mapped from the file.
    unsafe {
        let (object, said) = (&*object, &mut *said.cast::<Said>());
        for header in std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) {
            let is_constant =
                header.p_type == libc::PT_LOAD && header.p_flags & (libc::PF_R | libc::PF_W) == libc::PF_R;
            let [begin, size] = [object.dlpi_addr + header.p_vaddr, header.p_filesz].map(usize::try_from);
            if let (true, Ok(begin), Ok(size)) = (is_constant, begin, size) {
                said.read(std::slice::from_raw_parts(std::ptr::with_exposed_provenance(begin), size));
            }
        }
    }
    1
}
