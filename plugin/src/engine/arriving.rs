//! The content of a frame on which somebody stands, from the moment at which its pager has handed it over until the page goes back.
//!
//! Content and answer come together: then one system call makes the page, copies the content and lets those go that stand on it. The content
//! waits for that while the thread that took both holds the engine, and no longer: whatever else looks at memory, or
//! the end of the hold, has it written into the file first, as if it had come then.

use mem_event::{Effect, Gfn, PAGE_SIZE};

/// What is on its way.
#[derive(Debug)]
pub(crate) struct Arriving {
    gfn: Option<Gfn>,
    content: Box<[u8; PAGE_SIZE]>,
}

impl Default for Arriving {
    fn default() -> Arriving {
        Arriving { gfn: None, content: Box::new([0; PAGE_SIZE]) }
    }
}

impl Arriving {
    /// A frame's content is.
    pub fn sets_out(&mut self, gfn: Gfn, content: &[u8; PAGE_SIZE]) {
        self.content.copy_from_slice(content);
        self.gfn = Some(gfn);
    }

    /// Whether something is.
    pub fn is_any(&self) -> bool {
        self.gfn.is_some()
    }

    /// What is, if it is this frame's.
    pub fn of(&self, gfn: Gfn) -> Option<&[u8; PAGE_SIZE]> {
        self.gfn.is_some_and(|it| it == gfn).then_some(&*self.content)
    }

    /// It has arrived, or is about to by another way.
    pub fn take(&mut self) -> Option<(Gfn, &[u8; PAGE_SIZE])> {
        self.gfn.take().map(|gfn| (gfn, &*self.content))
    }
}

/// Whether an effect may look at memory, or change what is mapped.
pub(super) fn is_about_memory(effect: &Effect) -> bool {
    !matches!(
        effect,
        Effect::Requested { .. }
            | Effect::Answered { .. }
            | Effect::Lost { .. }
            | Effect::Notify(_)
            | Effect::SetRegisters { .. }
            | Effect::Switched(_)
            | Effect::NextInterrupt(_)
            | Effect::Inject { .. }
            | Effect::Wake(_)
            | Effect::RetryForeign
            | Effect::Map(_)
    )
}
