//! Who waits for what, in words.

use crate::guest::symbols::Symbols;
use mem_event::message::{DeviceReport, Stays, VcpuReport, VcpuState};
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
        VcpuState::Paused => "the end of the domain's pause",
    };
    let mut text = format!("waits {:.1} s for {what}", f64::from(report.waited) / 1000.0);
    if let Some(ring) = report.ring {
        text += &format!(" on the {ring} ring");
        if let Some(gfn) = report.frame {
            text += &format!(" about frame {}", named(gfn, symbols));
        }
        text += &format!(", from {}", whose(ring));
    }
    if let Some(stays) = report.stays {
        text += &format!("; until then QEMU's requests to all vCPUs wait too: it {}", stays_because(stays));
    }
    Some(text)
}

fn stays_because(stays: Stays) -> &'static str {
    match stays {
        Stays::InNoAccess => "is in the midst of no instruction's own access",
        Stays::Written => "is in the midst of an instruction that may have written already",
        Stays::Device => "is in the midst of an instruction that uses a device",
        Stays::Tables => "is in the midst of an instruction that changes segments or tasks",
        Stays::Held => "holds what others of QEMU's threads may need",
    }
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
