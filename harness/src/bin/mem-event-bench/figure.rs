//! A figure with its goal.

use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: &'static str,
    /// The value; smaller is better.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// It is to be at most this; nothing where it is only reported.
    pub goal: Option<f64>,
    /// What the value was made of.
    pub detail: String,
}

/// The figures as a table.
pub fn table(figures: &[Figure]) -> String {
    let mut text = format!("{:<31} {:>8} {:>8}  {:<6} {:<5} {}\n", "figure", "value", "goal", "unit", "", "detail");
    for Figure { name, value, unit, goal, detail } in figures {
        let (shown, verdict) = match goal {
            None => (String::new(), ""),
            Some(goal) => (format!("{goal:.3}"), if value <= goal { "ok" } else { "ABOVE" }),
        };
        text += &format!("{name:<31} {value:>8.3} {shown:>8}  {unit:<6} {verdict:<5} {detail}\n");
    }
    text
}

/// The median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
