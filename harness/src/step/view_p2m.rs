//! The p2m around the frame at hand.

use super::model::Model;
use super::style::Theme;
use mem_event::P2mType;
use ratatui::text::Line;
use std::io::{Read, Seek};

/// So many lines with the frame at hand (`>`) in the middle; `*` is what this step changed. Each has the frame's number, its type,
/// its access type, `no memory` where none is behind it though its type has some, the vCPUs that are stopped on it, and its symbol.
#[must_use]
pub fn lines<R: Read + Seek>(model: &Model<R>, rows: u16, theme: Theme) -> Vec<Line<'static>> {
    let (moment, rows) = (model.moment(), usize::from(rows));
    let frames = &moment.after.frames;
    let mut lines = Vec::new();
    if moment.after.budget != u64::MAX || moment.after.paged > 0 {
        let limit = if moment.after.budget == u64::MAX { "no limit".into() } else { moment.after.budget.to_string() };
        lines.push(Line::raw(format!("  {} resident of {limit}, {} out", moment.after.resident, moment.after.paged)));
    }
    let rows = rows.saturating_sub(lines.len());
    let at = model.frame().and_then(|gfn| frames.iter().position(|it| it.gfn == gfn));
    let first = at.unwrap_or(0).saturating_sub(rows / 2).min(frames.len().saturating_sub(rows));
    for (at, frame) in frames.iter().enumerate().skip(first).take(rows) {
        let changed = moment.before.as_ref().is_some_and(|before| before.frames.get(at) != Some(frame));
        let signs = (if changed { '*' } else { ' ' }, if model.frame() == Some(frame.gfn) { '>' } else { ' ' });
        let mut text = format!(
            "{}{}{:<6} {:<12}",
            signs.0,
            signs.1,
            frame.gfn.to_string(),
            frame.kind.name().trim_start_matches("p2m_")
        );
        text += &format!(" {:<5}", frame.access.to_string());
        // Of the other types it is clear, or of no matter.
        let ordinary = matches!(frame.kind, P2mType::RamRw | P2mType::RamShared | P2mType::RamPagingOut);
        text += if ordinary && !frame.held { " no memory" } else { "" };
        for (vcpu, view) in moment.after.vcpus.iter().enumerate() {
            if view.stopped_on == Some(frame.gfn) {
                text += &format!(" v{vcpu}");
            }
        }
        text += &model.symbols().name(frame.gfn.gpa()).map(|name| format!(" {name}")).unwrap_or_default();
        lines.push(if changed { Line::styled(text, theme.changed()) } else { Line::raw(text) });
    }
    lines
}
