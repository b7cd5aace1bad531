//! What a connection did, in words for the sequence.

use super::monitored::switched;
use super::who::Who;
use crate::guest::symbols::Symbols;
use mem_event::{Control, CpuEventKind, Errno, Gfn, Gpa, PAGE_SIZE, VcpuId};

/// One thing that a connection did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// A control operation, and its refusal.
    Operation(Control, Option<Errno>),
    /// Bytes of a frame were overwritten, or that was refused.
    Write {
        /// The frame.
        gfn: Gfn,
        /// The first byte.
        offset: u16,
        /// How many.
        length: u32,
        /// The refusal.
        refused: Option<Errno>,
    },
    /// A frame was nominated and at once evicted.
    PageOut(Gfn),
    /// A frame was read.
    Read(Gfn),
    /// The connection's own words for what it did.
    Note(String),
}

/// What a note about the request of one vCPU begins with.
const ABOUT: &str = "vcpu ";

/// A note about the request of this vCPU, whichever answer is taken next.
#[must_use]
pub fn note_about(vcpu: VcpuId, text: &str) -> String {
    format!("{ABOUT}{vcpu}: {text}")
}

/// The vCPU about whose request a note is, if it says that, and the rest.
#[must_use]
pub fn subject_of_note(note: &str) -> (Option<VcpuId>, &str) {
    let parts = note.strip_prefix(ABOUT).and_then(|rest| rest.split_once(": "));
    match parts.and_then(|(vcpu, text)| Some((VcpuId(vcpu.parse().ok()?), text))) {
        Some((vcpu, text)) => (Some(vcpu), text),
        None => (None, note),
    }
}

impl Doing {
    /// The frame of a page-in that was done.
    #[must_use]
    pub fn loaded(&self) -> Option<Gfn> {
        match self {
            Doing::Operation(Control::Prep { gfn, buffer: true }, None) => Some(*gfn),
            _ => None,
        }
    }

    /// The frame that it is done to, where it is one.
    #[must_use]
    pub fn frame(&self) -> Option<Gfn> {
        match *self {
            Doing::Operation(Control::SetAccess { first, count: 1, .. }, _) => Some(first),
            Doing::Operation(
                Control::Prep { gfn, .. } | Control::Drop { gfn } | Control::GetAccess { gfn } | Control::Pin { gfn },
                _,
            ) => Some(gfn),
            Doing::Write { gfn, .. } | Doing::Read(gfn) => Some(gfn),
            _ => None,
        }
    }

    /// Whether it is a pager's work beside its answers: it is no part of one, whenever it is done.
    #[must_use]
    pub fn is_beside(&self) -> bool {
        matches!(self, Doing::Operation(Control::Nominate { .. } | Control::Evict { .. }, _))
    }

    /// Whether it is shown: not what only looks, what begins a ring, or a page-in that is tried again or was not needed.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        let looks = matches!(self, Doing::Read(_) | Doing::Operation(Control::GetAccess { .. }, _));
        let begins = matches!(self, Doing::Operation(Control::Enable { .. } | Control::Resume { .. }, None));
        let pages = matches!(
            self,
            Doing::Operation(
                Control::Prep { buffer: true, .. } | Control::Nominate { .. } | Control::Evict { .. },
                Some(_)
            )
        );
        !looks && !begins && !pages
    }

    /// Who made the event that it is done for, if it says that.
    #[must_use]
    pub fn who(&self) -> Option<Who> {
        if let Doing::Note(text) = self { Who::of_note(text) } else { None }
    }

    /// In words; `about` is the frame that needs no name, since the line names it.
    #[must_use]
    pub fn words(&self, about: Option<Gfn>, symbols: &Symbols) -> String {
        match self {
            Doing::Note(text) => self.who().map_or_else(|| text.clone(), |who| who.to_string()),
            Doing::PageOut(gfn) => format!("page out {}", name(*gfn, symbols)),
            Doing::Read(gfn) => format!("read {gfn}"),
            Doing::Operation(control, refused) => with(operation(control, about, symbols), *refused),
            Doing::Write { gfn, offset, length, refused } => {
                let gpa = Gpa(gfn.gpa().0 + u64::from(*offset));
                let place = symbols.name(gpa).unwrap_or_else(|| gpa.to_string());
                with(format!("write {length} bytes at {place}"), *refused)
            }
        }
    }

    /// In words for the `count`th time in a row: a pager does the same to many frames.
    #[must_use]
    pub fn words_of_many(&self, count: usize, symbols: &Symbols) -> String {
        match self.verb() {
            Some(verb) if count > 1 => format!("{verb} {count} frames"),
            _ => times(self.words(None, symbols), count),
        }
    }

    /// Whether it was refused: a consumer may try the same thousands of times.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Doing::Operation(_, Some(_)) | Doing::Write { refused: Some(_), .. })
    }

    /// What is done to many frames in a row, in one word.
    #[must_use]
    pub fn verb(&self) -> Option<&'static str> {
        match self {
            Doing::PageOut(_) => Some("page out"),
            Doing::Operation(Control::Nominate { .. }, None) => Some("nominate"),
            Doing::Operation(Control::Evict { .. }, None) => Some("evict"),
            Doing::Operation(Control::Prep { buffer: true, .. }, None) => Some("load"),
            Doing::Operation(Control::Pin { .. }, None) => Some("map"),
            Doing::Operation(Control::Unpin { .. }, None) => Some("unmap"),
            _ => None,
        }
    }
}

/// What was done so many times in a row.
#[must_use]
pub fn times(text: String, count: usize) -> String {
    if count > 1 { format!("{text}, {count} times") } else { text }
}

fn with(text: String, refused: Option<Errno>) -> String {
    refused.map_or(text.clone(), |errno| format!("{text}: {errno}"))
}

fn name(gfn: Gfn, symbols: &Symbols) -> String {
    symbols.name(gfn.gpa()).unwrap_or_else(|| gfn.to_string())
}

fn operation(control: &Control, about: Option<Gfn>, symbols: &Symbols) -> String {
    let name = |gfn| name(gfn, symbols);
    match *control {
        Control::SetAccess { first, count: 1, access } if about == Some(first) => format!("set {access}"),
        Control::SetAccess { first, count: 1, access } => format!("set {} {access}", name(first)),
        Control::SetAccess { first, count, access } => format!("set {count} frames from {} on {access}", name(first)),
        Control::SetDefaultAccess { access } => format!("set new frames {access}"),
        Control::SetAccessRequired { required: true } => "a listener is required".into(),
        Control::SetAccessRequired { required: false } => "no listener is required".into(),
        Control::SetNoConsumer { ring, policy } => format!("without a consumer of {ring}: {}", policy.name()),
        Control::SetFlow { ring, flow } => format!("flow of {ring}: {flow}"),
        Control::Nominate { gfn } => format!("nominate {}", name(gfn)),
        Control::Evict { gfn } => format!("evict {}", name(gfn)),
        Control::Prep { gfn, buffer: true } if about == Some(gfn) => "load".into(),
        Control::Prep { gfn, buffer: true } => format!("load {}", name(gfn)),
        Control::Prep { gfn, buffer: false } => format!("prep {}", name(gfn)),
        Control::Drop { gfn } => format!("balloon {}", name(gfn)),
        Control::SetBudget { frames: u64::MAX } => "no budget".into(),
        Control::SetBudget { frames } => format!("budget of {} KiB", frames.saturating_mul(PAGE_SIZE as u64 / 1024)),
        Control::Monitor { kind, mode, on_change_only } => switched(kind, None, mode, on_change_only),
        Control::MonitorMask { kind, ignored } => format!("monitor {kind} ignoring {ignored:#x}"),
        Control::MonitorMsr { msr, mode, on_change_only } => {
            switched(CpuEventKind::Msr, Some(msr), mode, on_change_only)
        }
        Control::SingleStep { vcpu, on } => format!("single step of vcpu {vcpu} {}", if on { "on" } else { "off" }),
        Control::Inject { vcpu, vector, .. } => format!("inject trap {vector} into vCPU {vcpu}"),
        Control::SetViews { on: true } => "the domain has views".into(),
        Control::SetViews { on: false } => "the domain has no views".into(),
        Control::CreateView { access } => format!("make a view, where frames are {access}"),
        Control::DestroyView { view } => format!("end view {view}"),
        Control::SetViewAccess { view, first, count: 1, access } => {
            format!("set {} {access} in view {view}", name(first))
        }
        Control::SetViewAccess { view, first, count, access } => {
            format!("set {count} frames from {} on {access} in view {view}", name(first))
        }
        Control::SetViewDefault { view, access } => format!("set all others in view {view} {access}"),
        Control::ChangeGfn { view, old, new: Gfn::INVALID } => format!("show {} as it is in view {view}", name(old)),
        Control::ChangeGfn { view, old, new } => format!("show {} at {} in view {view}", name(new), name(old)),
        Control::Populate { gfn } => format!("populate frame {gfn}"),
        Control::SwitchView { view } => format!("all vCPUs go by view {view}"),
        Control::SwitchVcpuView { vcpu, view } => format!("vCPU {vcpu} goes by view {view}"),
        Control::GetViewAccess { view, gfn } => format!("ask for the rights of {} in view {view}", name(gfn)),
        Control::GetVcpuView { vcpu } => format!("ask which view vCPU {vcpu} goes by"),
        Control::Pin { gfn } => format!("map {}", name(gfn)),
        Control::Unpin { gfn } => format!("unmap {}", name(gfn)),
        Control::NominateShare { gfn } => format!("nominate {} for sharing", name(gfn)),
        Control::Share { source, client, .. } => format!("share {} with {}", name(source), name(client)),
        Control::Disable { ring, drain } => format!("disable {ring}{}", if drain { ", draining" } else { "" }),
        Control::Enable { ring, .. } => format!("enable {ring}"),
        Control::Resume { ring } => format!("resume {ring}"),
        _ => control.name().to_owned(),
    }
}
