//! The guest that all targets use.

use crate::support::storm::Storm;
use crate::support::wait_for;
use std::os::unix::process::ExitStatusExt;

/// Inputs that one guest sees.
const LIFE: u32 = 2_000;

/// A live guest; the next one where it has ended.
pub struct Live {
    storm: Option<Storm>,
    inputs: u32,
}

impl Live {
    pub fn new() -> Live {
        Live { storm: None, inputs: 0 }
    }

    /// The guest, and whether it is new.
    pub fn storm(&mut self) -> (&mut Storm, bool) {
        let is_new = self.storm.is_none();
        (self.storm.get_or_insert_with(Storm::endless), is_new)
    }

    /// After an input: the service answers, or QEMU has come to its own end. False: the next input meets another guest.
    pub fn goes_on(&mut self) -> bool {
        let Some(mut storm) = self.storm.take() else { return false };
        self.inputs += 1;
        let answers = storm.toolstack.info().is_ok();
        if !answers {
            wait_for("QEMU's end", &storm.qemu);
            let status = storm.qemu.wait().unwrap();
            assert_eq!(status.signal(), None, "QEMU died: {}", storm.qemu.errors());
        }
        let said = storm.qemu.errors();
        assert!(!said.contains("panicked"), "{said}");
        if answers && !self.inputs.is_multiple_of(LIFE) {
            self.storm = Some(storm);
        }
        self.storm.is_some()
    }
}
