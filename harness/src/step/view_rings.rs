//! The rings: where each stands, its slots, its queue.

use super::moment::Moment;
use super::style::Theme;
use crate::trace::row::vcpu_of;
use mem_event::{Effect, Ring, RingPhase, RingView};
use ratatui::text::Line;

/// What the signs of slots mean.
pub const LEGEND: &str = "slots: . free  # out  r reserved  + put now  - freed now";

/// A line a ring, then its slots; `full` with counters, requests and queue. `*` is what this step changed.
#[must_use]
pub fn lines(moment: &Moment, width: u16, full: bool, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for ring in Ring::ALL {
        let view = &moment.after.rings[ring.index()];
        let changed = moment.before.as_ref().is_some_and(|before| before.rings[ring.index()] != *view);
        let sign = if changed { '*' } else { ' ' };
        let text = format!("{sign}{:<8}{}", ring.to_string(), phase(view));
        let bad = matches!(view.phase, RingPhase::Broken(_) | RingPhase::Lost);
        lines.push(match (bad, changed) {
            (true, _) => Line::styled(text, theme.bad()),
            (_, true) => Line::styled(text, theme.changed()),
            _ => Line::raw(text),
        });
        lines.extend(slots(moment, ring, view, width).into_iter().map(Line::raw));
        if full {
            lines.extend(details(view).into_iter().map(Line::raw));
        }
    }
    if full {
        lines.push(Line::raw(LEGEND));
    }
    lines
}

fn phase(view: &RingView) -> String {
    let mut text = match &view.phase {
        RingPhase::Absent => "absent".to_owned(),
        RingPhase::Live => format!("{} of {} free", view.free, view.slots),
        RingPhase::Draining => format!("draining, {} of {} free", view.free, view.slots),
        RingPhase::Lost => format!("LOST its consumer, {} out", view.outstanding.len()),
        RingPhase::Broken(_) => format!("BROKEN, {} out", view.outstanding.len()),
    };
    if !view.queue.is_empty() {
        text += &format!(", {} wait", view.queue.len());
    }
    text
}

/// A sign a slot, in lines of 32, 16 or 8, whichever fit.
fn slots(moment: &Moment, ring: Ring, view: &RingView, width: u16) -> Vec<String> {
    let Some(counters) = view.counters else { return Vec::new() };
    let count = view.slots.max(1);
    let mut signs = vec!['.'; count as usize];
    let mut set = |counter: u32, sign| signs[(counter % count) as usize] = sign;
    let out = counters.req_prod_pvt.wrapping_sub(counters.rsp_cons).min(count);
    (0..out).for_each(|at| set(counters.rsp_cons.wrapping_add(at), '#'));
    (0..view.granted.min(count - out)).for_each(|at| set(counters.req_prod_pvt.wrapping_add(at), 'r'));
    for effect in moment.step.iter().flatten().flat_map(|step| &step.effects.list) {
        match effect {
            Effect::Requested { ring: of, slot, .. } if *of == ring && moment.stop.is_none() => set(*slot, '+'),
            Effect::Answered { ring: of, slot, .. } if *of == ring && moment.stop.is_none() => set(*slot, '-'),
            _ => {}
        }
    }
    let row = [64, 32, 16, 8].into_iter().find(|row| row + 3 <= usize::from(width)).unwrap_or(8);
    signs.chunks(row).map(|signs| format!("  {}", signs.iter().collect::<String>())).collect()
}

fn details(view: &RingView) -> Vec<String> {
    let mut lines = Vec::new();
    if let RingPhase::Broken(why) = &view.phase {
        lines.push(format!("  {why}"));
    }
    if let Some(counters) = view.counters {
        let (put, taken) = (counters.req_prod_pvt, counters.rsp_cons);
        lines.push(format!("  {}, {put} requests put, {taken} answers taken, {} reserved", view.layout, view.granted));
    }
    if view.phase != RingPhase::Absent || !view.queue.is_empty() {
        lines.push(format!("  without a consumer: {}", view.policy));
    }
    for (number, request) in view.outstanding.iter().enumerate() {
        let who = vcpu_of(request).map_or_else(|| "foreign".to_owned(), |vcpu| format!("vcpu {vcpu}"));
        let what =
            request.frame().map_or_else(|| format!("{:#x}", request.event.subject()), |gfn| format!("gfn {gfn}"));
        let reason = request.event.reason();
        lines.push(format!(
            "  out {:<3} {reason} {who} {what} {} {}",
            number + 1,
            request.event.rights(),
            request.flags
        ));
    }
    if !view.queue.is_empty() {
        let queue: Vec<String> = view.queue.iter().map(|vcpu| format!("vcpu {vcpu}")).collect();
        lines.push(format!("  queue, oldest first: {}", queue.join(", ")));
    }
    lines
}
