//! The screen as a whole.
//!
//! ```text
//!  where one is
//! ── steps ──────────────────┬── rings ────────────
//!                            │
//! ── step ───────────────────┼── vCPUs ────────────
//!                            │── p2m ──────────────
//!  keys, a question, or what there is to be told
//! ```
//!
//! A wide terminal has three columns: the steps; the step, and below it the p2m; rings, and below them the vCPUs.

use super::app::{App, Panel};
use super::model::Model;
use super::style::Theme;
use super::{view_help, view_p2m, view_rings, view_step, view_steps, view_vcpus};
use crate::trace::row::duration;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Paragraph, Wrap};
use std::io::{Read, Seek};

/// Less than this is too little to show anything.
const LEAST: (u16, u16) = (40, 10);

/// From this width on there are three columns.
const WIDE: u16 = 130;

/// Draws everything.
pub fn draw<R: Read + Seek>(frame: &mut Frame<'_>, app: &mut App<R>, theme: Theme) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        frame.render_widget(Paragraph::new(format!("{}x{} at least", LEAST.0, LEAST.1)), area);
        return;
    }
    let rows = [Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)];
    let [head, body, foot] = Layout::vertical(rows).areas(area);
    frame.render_widget(Paragraph::new(place(&app.model)).style(theme.title()), head);
    match app.large {
        Some(panel) => large(frame, body, panel, app, theme),
        None => all(frame, body, app, theme),
    }
    frame.render_widget(bottom(app, foot.width, theme), foot);
}

/// Where one is, in one line.
fn place<R: Read + Seek>(model: &Model<R>) -> String {
    let mut text = format!("{}  step {} of {}", model.header().guest, model.at(), model.len());
    if let Ok(Some(step)) = &model.moment().step {
        text += &format!("  at {}", duration(step.time));
    }
    if let Some(gfn) = model.frame() {
        let name = model.symbols().name(gfn.gpa()).map(|name| format!(" {name}")).unwrap_or_default();
        text += &format!("  frame {gfn}{name}");
    }
    if let Some(vcpu) = model.vcpu() {
        text += &format!("  vcpu {vcpu}");
    }
    text
}

fn bottom<R: Read + Seek>(app: &App<R>, width: u16, theme: Theme) -> Paragraph<'static> {
    if let Some((question, text)) = &app.question {
        let prompt = question.prompt();
        // The end of a long answer is what is being typed.
        let room = usize::from(width).saturating_sub(prompt.len() + 1);
        let hidden = text.chars().count().saturating_sub(room);
        let shown: String = text.chars().skip(hidden).collect();
        return Paragraph::new(format!("{prompt}{shown}_"));
    }
    if let Some(hunt) = app.model.hunting() {
        return Paragraph::new(format!("looking for {}: step {} (Esc gives up)", hunt.goal, hunt.next));
    }
    if let Some(message) = app.model.message() {
        return Paragraph::new(message.to_owned()).style(theme.changed());
    }
    let keys = if app.large.is_some() {
        "Esc all panels  [ ] scroll  up/down step  1-5 panels  ? keys  q quit"
    } else {
        "up/down step  f/F frame  v/V vcpu  e/E request  / words  : go  ? keys  q quit"
    };
    Paragraph::new(keys).style(theme.dim())
}

/// Three columns.
fn wide<R: Read + Seek>(frame: &mut Frame<'_>, area: Rect, app: &mut App<R>, theme: Theme) {
    let columns = [Constraint::Percentage(40), Constraint::Percentage(32), Constraint::Min(1)];
    let [steps, middle, right] = Layout::horizontal(columns).areas(area);
    app.page = steps.height.saturating_sub(1);
    let lines = view_steps::lines(&mut app.model, app.page, theme);
    panel(frame, steps, "[1] steps", lines, 0, theme);

    let middle = beside(frame, middle, theme);
    let [step, p2m_area] = Layout::vertical([Constraint::Percentage(45), Constraint::Min(1)]).areas(middle);
    panel(frame, step, "[2] step", view_step::lines(&app.model, theme), 0, theme);
    let lines = view_p2m::lines(&app.model, p2m_area.height.saturating_sub(1), theme);
    panel(frame, p2m_area, "[5] p2m", lines, 0, theme);

    let right = beside(frame, right, theme);
    let rings = view_rings::lines(app.model.moment(), right.width, true, theme);
    let wanted = u16::try_from(rings.len() + 1).unwrap_or(u16::MAX).min(right.height / 2);
    let [rings_area, vcpus_area] = Layout::vertical([Constraint::Length(wanted), Constraint::Min(1)]).areas(right);
    panel(frame, rings_area, "[3] rings", rings, 0, theme);
    let lines = view_vcpus::lines(&app.model, vcpus_area.height.saturating_sub(1), theme);
    panel(frame, vcpus_area, "[4] vcpus", lines, 0, theme);
}

/// A column to the right of another one, without the line between them.
fn beside(frame: &mut Frame<'_>, area: Rect, theme: Theme) -> Rect {
    frame.render_widget(Block::new().borders(Borders::LEFT).border_style(theme.dim()), area);
    Rect { x: area.x + 1, width: area.width - 1, ..area }
}

fn all<R: Read + Seek>(frame: &mut Frame<'_>, area: Rect, app: &mut App<R>, theme: Theme) {
    if area.width >= WIDE {
        return wide(frame, area, app, theme);
    }
    let columns = [Constraint::Percentage(54), Constraint::Min(1)];
    let [left, right] = Layout::horizontal(columns).areas(area);
    let [steps, step] = Layout::vertical([Constraint::Percentage(55), Constraint::Min(1)]).areas(left);
    app.page = steps.height.saturating_sub(1);
    let lines = view_steps::lines(&mut app.model, app.page, theme);
    panel(frame, steps, "[1] steps", lines, 0, theme);
    panel(frame, step, "[2] step", view_step::lines(&app.model, theme), 0, theme);

    let right = beside(frame, right, theme);
    let rings = view_rings::lines(app.model.moment(), right.width, false, theme);
    let vcpus = app.model.moment().after.vcpus.len();
    let (first, second) = heights(right.height, rings.len(), vcpus);
    let rows = [Constraint::Length(first), Constraint::Length(second), Constraint::Min(1)];
    let [rings_area, vcpus_area, p2m_area] = Layout::vertical(rows).areas(right);
    panel(frame, rings_area, "[3] rings", rings, 0, theme);
    let lines = view_vcpus::lines(&app.model, vcpus_area.height.saturating_sub(1), theme);
    panel(frame, vcpus_area, "[4] vcpus", lines, 0, theme);
    let lines = view_p2m::lines(&app.model, p2m_area.height.saturating_sub(1), theme);
    panel(frame, p2m_area, "[5] p2m", lines, 0, theme);
}

/// Rows for rings and vCPUs with their titles; what is left is the p2m's, a quarter at least.
fn heights(height: u16, rings: usize, vcpus: usize) -> (u16, u16) {
    let wanted = |lines: usize| u16::try_from(lines + 1).unwrap_or(u16::MAX);
    let rings = wanted(rings).min(height / 2);
    let vcpus = wanted(vcpus).min((height - height / 4).saturating_sub(rings));
    (rings, vcpus)
}

fn large<R: Read + Seek>(frame: &mut Frame<'_>, area: Rect, which: Panel, app: &mut App<R>, theme: Theme) {
    let rows = area.height.saturating_sub(1);
    let model = &mut app.model;
    let (title, lines) = match which {
        Panel::Steps => {
            app.page = rows;
            ("[1] steps", view_steps::lines(model, rows, theme))
        }
        Panel::Step => ("[2] step", view_step::lines(model, theme)),
        Panel::Rings => ("[3] rings", view_rings::lines(model.moment(), area.width, true, theme)),
        Panel::Vcpus => ("[4] vcpus", view_vcpus::lines(model, rows, theme)),
        Panel::P2m => ("[5] p2m", view_p2m::lines(model, rows, theme)),
        Panel::Help => ("keys", view_help::keys()),
        Panel::Header => ("the trace", view_help::header(model)),
        Panel::Bookmarks => ("bookmarks", view_steps::bookmarks(model, theme)),
    };
    let most = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_sub(rows);
    app.scroll = app.scroll.min(most);
    let title = if most > 0 { format!("{title}, line {} on", app.scroll + 1) } else { title.to_owned() };
    panel(frame, area, &title, lines, app.scroll, theme);
}

fn panel(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'static>>, scroll: u16, theme: Theme) {
    // What a step is about is worth a second line; lists are not.
    let wrapped = title.starts_with("[2] step") || title == "the trace";
    let title = Line::styled(format!(" {title} "), theme.title());
    let block = Block::new().borders(Borders::TOP).border_style(theme.dim()).title(title);
    let text = Paragraph::new(lines).block(block).scroll((scroll, 0));
    frame.render_widget(if wrapped { text.wrap(Wrap { trim: false }) } else { text }, area);
}
