//! Who waits for what, in words.

use crate::guest::symbols::Symbols;
use mem_event::message::{DeviceReport, VcpuReport, VcpuState};
use mem_event::{Gfn, Gpa, Ring};

/// What a vCPU waits for, for how long, and for whom; `whose` says who serves a ring. `None` for one that goes on.
#[must_use]
pub fn vcpu(report: &VcpuReport, whose: impl Fn(Ring) -> String, symbols: &Symbols) -> Option<String> {
    let what = match report.state {
        VcpuState::Running => return None,
        VcpuState::Answer => "an answer",
        VcpuState::Slot => "a slot",
        VcpuState::Consumer => "a consumer",
        VcpuState::Frame => "a frame within the budget",
        VcpuState::Checkpoint => "its release from a checkpoint",
    };
    let mut text = format!("waits {:.1} s for {what}", f64::from(report.waited) / 1000.0);
    if let Some(ring) = report.ring {
        text += &format!(" on the {ring} ring");
        if let Some(gfn) = report.frame {
            text += &format!(" about frame {}", named(gfn, symbols));
        }
        text += &format!(", from {}", whose(ring));
    }
    Some(text)
}

/// What a device waits for, and for how long.
#[must_use]
pub fn device(DeviceReport { gfn, waited }: &DeviceReport, symbols: &Symbols) -> String {
    format!("a device waits {:.1} s for frame {}", f64::from(*waited) / 1000.0, named(*gfn, symbols))
}

/// A frame, with the name of what lies there.
fn named(gfn: Gfn, symbols: &Symbols) -> String {
    let name = symbols.name(Gpa(gfn.0 << 12)).map(|name| format!(" ({name})")).unwrap_or_default();
    format!("{gfn}{name}")
}
