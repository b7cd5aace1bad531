//! The vCPUs: who runs, who waits, for what.

use super::model::Model;
use super::moment::Scene;
use super::style::Theme;
use crate::trace::row::reason;
use mem_event::{VcpuId, WaitReason};
use ratatui::text::Line;
use std::io::{Read, Seek};

/// So many lines, with the vCPU at hand (`>`) among them; `*` is what this step changed.
#[must_use]
pub fn lines<R: Read + Seek>(model: &Model<R>, rows: u16, theme: Theme) -> Vec<Line<'static>> {
    let (moment, rows) = (model.moment(), usize::from(rows));
    let count = moment.after.vcpus.len();
    let at = model.vcpu().map_or(0, |vcpu| vcpu.0 as usize);
    let first = at.saturating_sub(rows / 2).min(count.saturating_sub(rows));
    let shown = (first..count).take(rows);
    let line = |at: usize| {
        let id = VcpuId(u32::try_from(at).unwrap_or(u32::MAX));
        let before = moment.before.as_ref();
        let changed = before.is_some_and(|before| {
            let ahead = |scene| place(scene, id).map(|(number, _)| number);
            before.vcpus.get(at) != moment.after.vcpus.get(at) || ahead(before) != ahead(&moment.after)
        });
        let signs = (if changed { '*' } else { ' ' }, if model.vcpu() == Some(id) { '>' } else { ' ' });
        let text = format!("{}{}v{:<2} {}", signs.0, signs.1, at, state(model, &moment.after, id));
        if changed { Line::styled(text, theme.changed()) } else { Line::raw(text) }
    };
    shown.map(line).collect()
}

/// Where a vCPU stands in the queue that it waits in: its place and how many stand there.
fn place(scene: &Scene, vcpu: VcpuId) -> Option<(usize, usize)> {
    let queue = match scene.vcpus.get(vcpu.0 as usize)?.wait? {
        WaitReason::Slot(ring) | WaitReason::Consumer(ring) => &scene.rings[ring.index()].queue,
        WaitReason::Frame => &scene.frame_queue,
        WaitReason::Answer(_) => return None,
    };
    Some((queue.iter().position(|it| *it == vcpu)? + 1, queue.len()))
}

fn state<R: Read + Seek>(model: &Model<R>, scene: &Scene, vcpu: VcpuId) -> String {
    let Some(view) = scene.vcpus.get(vcpu.0 as usize) else { return String::new() };
    let mut text = view.wait.map_or_else(|| "runs".to_owned(), |why| format!("waits: {}", reason(why)));
    if let Some((number, of)) = place(scene, vcpu) {
        text += &format!(" ({number} of {of})");
    }
    if let Some(gfn) = view.stopped_on {
        text += &format!(" {gfn}");
        text += &model.symbols().name(gfn.gpa()).map(|name| format!(" {name}")).unwrap_or_default();
    }
    text += &view.slot.map(|ring| format!(", has a slot of {ring}")).unwrap_or_default();
    if view.frame {
        text += ", has a frame";
    }
    if view.single_step {
        text += ", stepped";
    }
    text
}
