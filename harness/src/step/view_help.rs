//! All keys, and what the trace's header says.

use super::model::Model;
use super::view_rings::LEGEND;
use crate::trace::about;
use ratatui::text::Line;
use std::io::{Read, Seek};

const KEYS: &[&str] = &[
    "up, left, k     one step back       f  F   next, previous step of this frame",
    "down, right, j  one step forward    v  V   next, previous step of this vCPU",
    "PgUp, PgDn      a screen of steps   e  E   next, previous request",
    "g, Home         the first step      d      the next step where the engine",
    "G, End          the last step              answers otherwise than recorded",
    ":  step, 50% or 1.5ms               p      another frame",
    "",
    "/  words            n  N  the same once more, forward and back",
    "c  condition        vcpu == 1 and (gfn >= 0x500 or not kind == kick)",
    "                    outcome ~ wait     effects ~ \"wake vcpu 2\"",
    "   of the fields    step time vcpu gfn offset rip ring kind rights",
    "                    outcome effects",
    "",
    "m  bookmark, or none   '  the next one   \"  the one before   b  all",
    "1-5  a panel large     [ ]  scroll it     Esc  all panels   i  the header",
    "q  quit                ^C  gives a search up, else quits",
    "",
    ">  at hand    *  changed by this step    m  bookmark    !  wrong",
    "p2m: frame, type, access type, vCPUs stopped on it, symbol",
];

/// All keys.
#[must_use]
pub fn keys() -> Vec<Line<'static>> {
    KEYS.iter().copied().chain([LEGEND]).map(Line::raw).collect()
}

/// What the trace's header says.
pub fn header<R: Read + Seek>(model: &mut Model<R>) -> Vec<Line<'static>> {
    let end = model.end().clone();
    let text = about(model.header(), &end) + &model.header().scenario;
    text.lines().map(|line| Line::raw(line.to_owned())).collect()
}
