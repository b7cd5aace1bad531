//! Figures as pictures: a line a policy, against what is varied.

use std::fmt::Write;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 442.0;
const TOP: f64 = 12.0;
const BASE: f64 = 206.0;
/// A scale is logarithmic from this ratio of its ends on.
const WIDE: f64 = 20.0;
/// Names below the axis at most.
const NAMES: usize = 8;

/// A policy's line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name, which is its class too.
    pub name: String,
    /// What it is at each place of the axis.
    pub values: Vec<f64>,
}

/// One picture.
#[derive(Clone, Debug)]
pub struct Chart<'a> {
    /// What it shows.
    pub title: &'a str,
    /// The places of the axis: where each lies, and its name.
    pub places: &'a [(f64, String)],
    /// What is below the axis.
    pub axis: &'a str,
    /// The lines.
    pub lines: Vec<Line>,
    /// A value in words.
    pub shown: fn(f64) -> String,
}

/// From values to places: straight, or by the logarithm.
#[derive(Clone, Copy, Debug)]
struct Scale {
    least: f64,
    most: f64,
    logarithmic: bool,
}

impl Scale {
    /// Of values; one for what is drawn upwards begins at 0 unless it is logarithmic.
    fn of(values: impl Iterator<Item = f64> + Clone, from_zero: bool) -> Scale {
        let most = values.clone().fold(0.0, f64::max);
        let least = values.fold(f64::INFINITY, f64::min).min(most);
        let logarithmic = least > 0.0 && most / least >= WIDE;
        let least = if from_zero && !logarithmic { 0.0 } else { least };
        Scale { least, most: if most > least { most } else { least + 1.0 }, logarithmic }
    }

    /// 0 for the least, 1 for the most.
    fn part(self, value: f64) -> f64 {
        if self.logarithmic {
            (value / self.least).ln() / (self.most / self.least).ln()
        } else {
            (value - self.least) / (self.most - self.least)
        }
    }

    /// Values at which a line is drawn.
    fn marks(self) -> Vec<f64> {
        if !self.logarithmic {
            let step = round((self.most - self.least) / 4.0);
            let marks = (0..=8).map(|number| self.least + step * f64::from(number));
            return marks.take_while(|mark| *mark <= self.most).collect();
        }
        let mut decades: Vec<f64> = Vec::new();
        let mut at = 10_f64.powf(self.least.log10().ceil());
        while at <= self.most * 1.000_001 {
            decades.push(at);
            at *= 10.0;
        }
        decades
    }
}

/// The next number that people count in: 1, 2, 5 and their tens.
fn round(number: f64) -> f64 {
    let ten = 10_f64.powf(number.log10().floor());
    [1.0, 2.0, 5.0].map(|part| part * ten).into_iter().find(|round| *round >= number * 0.999_999).unwrap_or(ten * 10.0)
}

impl Chart<'_> {
    /// The picture with its title.
    #[must_use]
    pub fn svg(&self) -> String {
        let across = Scale::of(self.places.iter().map(|(place, _)| *place), false);
        let upwards = Scale::of(self.lines.iter().flat_map(|line| line.values.iter().copied()), true);
        let x = |place: f64| LEFT + across.part(place) * (RIGHT - LEFT);
        let y = |value: f64| BASE - upwards.part(value) * (BASE - TOP);
        let mut svg = format!(
            "<figure><figcaption>{}{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} by {}\">\n",
            self.title,
            if upwards.logarithmic { " <span class=\"soft\">logarithmic</span>" } else { "" },
            self.title,
            self.axis
        );
        for mark in upwards.marks() {
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"small soft\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 5.0,
                y(mark) + 3.0,
                (self.shown)(mark),
                at = y(mark)
            );
        }
        let every = self.places.len().div_ceil(NAMES).max(1);
        for (at, (place, name)) in self.places.iter().enumerate() {
            if at % every == 0 || at + 1 == self.places.len() && at % every > every / 2 {
                let _ = writeln!(
                    svg,
                    "<text class=\"small\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
                    x(*place),
                    BASE + 14.0
                );
            }
        }
        let _ = writeln!(
            svg,
            "<text class=\"small soft\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            (LEFT + RIGHT) / 2.0,
            BASE + 29.0,
            self.axis
        );
        for line in &self.lines {
            svg += &self.line(line, &x, &y);
        }
        svg + "</svg></figure>\n"
    }

    fn line(&self, line: &Line, x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) -> String {
        let points: Vec<(f64, f64)> =
            self.places.iter().zip(&line.values).map(|((place, _), value)| (x(*place), y(*value))).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let mut svg = format!("<g class=\"{}\"><path d=\"M{}\"/>\n", line.name, path.join("L"));
        for ((x, y), ((_, name), value)) in points.iter().zip(self.places.iter().zip(&line.values)) {
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\"><title>{}, {} {name}: {}</title></circle>",
                line.name,
                self.axis,
                (self.shown)(*value)
            );
        }
        svg + "</g>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::{BASE, Chart, LEFT, Line, RIGHT, Scale, TOP, round};

    fn chart(places: &[(f64, String)], values: &[f64]) -> String {
        let lines = vec![Line { name: "queue".into(), values: values.to_vec() }];
        Chart { title: "t", places, axis: "vcpus", lines, shown: |value| value.to_string() }.svg()
    }

    #[test]
    fn the_first_place_is_left_the_last_right_and_the_most_on_top() {
        let places = [(1.0, "1".to_owned()), (2.0, "2".into()), (3.0, "3".into())];
        let svg = chart(&places, &[0.0, 5.0, 10.0]);
        let middle = f64::midpoint(LEFT, RIGHT);
        let path = format!("M{LEFT:.1} {BASE:.1}L{middle:.1} {:.1}L{RIGHT:.1} {TOP:.1}", f64::midpoint(BASE, TOP));
        assert!(svg.contains(&path), "{svg}");
        assert!(!svg.contains("logarithmic"));
    }

    #[test]
    fn what_spans_decades_is_drawn_by_its_logarithm() {
        let places = [(1.0, "1".to_owned()), (10.0, "10".into()), (100.0, "100".into())];
        let svg = chart(&places, &[1.0, 10.0, 100.0]);
        let middle = f64::midpoint(LEFT, RIGHT);
        assert!(
            svg.contains("logarithmic") && svg.contains(&format!("L{middle:.1} {:.1}", f64::midpoint(BASE, TOP))),
            "{svg}"
        );
    }

    #[test]
    fn marks_are_numbers_that_people_count_in() {
        assert_eq!([0.26, 0.2, 3.0, 113.2, 9.5].map(round), [0.5, 0.2, 5.0, 200.0, 10.0]);
        let marks = |most| Scale { least: 0.0, most, logarithmic: false }.marks();
        assert_eq!(marks(452.8), [0.0, 200.0, 400.0]);
        assert_eq!(marks(1.0), [0.0, 0.5, 1.0]);
    }

    #[test]
    fn one_place_and_nothing_at_all_are_drawn_too() {
        let svg = chart(&[(8.0, "8".to_owned())], &[0.0]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
