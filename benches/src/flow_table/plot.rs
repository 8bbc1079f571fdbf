//! Cost against size, as SVG: a panel for each kind of lookup and width of key, a line for each table.

use std::fmt::Write as _;

use super::case::{Case, Measure, short};
use super::{MAP, OURS, PEER};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 280.0;
/// Of a panel: left, right, above, below.
const MARGIN: (f64, f64, f64, f64) = (54.0, 12.0, 34.0, 40.0);
const HEADER: f64 = 64.0;

const LINES: [(&str, &str); 3] = [(OURS, "#0b6e4f"), (PEER, "#c0392b"), (MAP, "#6c6f7f")];
const COLUMNS: [(&str, Measure, Measure); 2] =
    [("hit", Measure::Hit, Measure::HitBusy), ("miss", Measure::Miss, Measure::MissBusy)];

/// The plot of all cases that were measured.
pub(crate) fn svg(cases: &[Case], machine: &str) -> String {
    let mut widths: Vec<usize> = cases.iter().map(|case| case.key_bytes).collect();
    widths.dedup();
    let (width, height) = (WIDTH * COLUMNS.len() as f64, HEADER + HEIGHT * widths.len() as f64);
    let mut page = String::new();
    let _ = writeln!(
        page,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    );
    text(&mut page, (12.0, 20.0), "start", "Cycles a lookup against flows in the table, 32 keys a batch");
    text(&mut page, (12.0, 37.0), "start", &format!("{machine}. Median and range; dashed: a busy writer elsewhere"));
    for (index, (name, colour)) in LINES.iter().enumerate() {
        let x = 12.0 + 110.0 * index as f64;
        let _ = writeln!(
            page,
            "<line x1=\"{x}\" y1=\"52\" x2=\"{}\" y2=\"52\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            x + 22.0
        );
        text(&mut page, (x + 28.0, 56.0), "start", name);
    }
    for (row, key_bytes) in widths.iter().enumerate() {
        let cases: Vec<&Case> = cases.iter().filter(|case| case.key_bytes == *key_bytes).collect();
        for (column, (name, idle, busy)) in COLUMNS.iter().enumerate() {
            let corner = (WIDTH * column as f64, HEADER + HEIGHT * row as f64);
            let title = format!("{key_bytes} B keys, {name}");
            Panel::new(&cases, &[*idle, *busy], corner).draw(&mut page, &title);
        }
    }
    page + "</svg>\n"
}

fn text(page: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(page, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

struct Panel<'a> {
    cases: &'a [&'a Case],
    measures: &'a [Measure],
    corner: (f64, f64),
    /// Cycles at the upper end.
    top: f64,
}

impl<'a> Panel<'a> {
    fn new(cases: &'a [&'a Case], measures: &'a [Measure], corner: (f64, f64)) -> Self {
        let medians = cases.iter().flat_map(|case| {
            measures.iter().flat_map(|measure| LINES.iter().filter_map(|(name, _)| case.summary(name, *measure)))
        });
        let highest = medians.map(|summary| summary.median).fold(10.0, f64::max);
        Self { cases, measures, corner, top: round_up(highest * 1.1) }
    }

    fn x(&self, index: usize) -> f64 {
        let room = WIDTH - MARGIN.0 - MARGIN.1;
        self.corner.0 + MARGIN.0 + room * (index as f64 + 0.5) / self.cases.len() as f64
    }

    fn y(&self, cycles: f64) -> f64 {
        let room = HEIGHT - MARGIN.2 - MARGIN.3;
        self.corner.1 + MARGIN.2 + room * (1.0 - cycles.min(self.top) / self.top)
    }

    fn draw(&self, page: &mut String, title: &str) {
        text(page, (self.corner.0 + WIDTH / 2.0, self.corner.1 + 22.0), "middle", title);
        let (left, right) = (self.corner.0 + MARGIN.0, self.corner.0 + WIDTH - MARGIN.1);
        for step in 0..=5 {
            let cycles = self.top * f64::from(step) / 5.0;
            let y = self.y(cycles);
            let _ = writeln!(
                page,
                "<line x1=\"{left:.1}\" y1=\"{y:.1}\" x2=\"{right:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>"
            );
            text(page, (left - 6.0, y + 4.0), "end", &format!("{cycles:.0}"));
        }
        for (index, case) in self.cases.iter().enumerate() {
            text(page, (self.x(index), self.corner.1 + HEIGHT - 16.0), "middle", &short(case.flows));
        }
        for (name, colour) in LINES {
            for (dashes, measure) in ["", " stroke-dasharray=\"5 4\""].into_iter().zip(self.measures) {
                self.line(page, name, *measure, &format!("stroke=\"{colour}\"{dashes}"));
            }
        }
    }

    fn line(&self, page: &mut String, table: &str, measure: Measure, stroke: &str) {
        let mut points = String::new();
        for (index, case) in self.cases.iter().enumerate() {
            let Some(of) = case.summary(table, measure) else { continue };
            let (x, y) = (self.x(index), self.y(of.median));
            let _ = write!(points, "{x:.1},{y:.1} ");
            let (low, high) = (self.y(of.min), self.y(of.max));
            let _ = writeln!(page, "<line x1=\"{x:.1}\" y1=\"{low:.1}\" x2=\"{x:.1}\" y2=\"{high:.1}\" {stroke}/>");
            let _ = writeln!(page, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"white\" {stroke}/>");
        }
        if !points.is_empty() {
            let _ = writeln!(
                page,
                "<polyline points=\"{}\" fill=\"none\" stroke-width=\"1.8\" {stroke}/>",
                points.trim_end()
            );
        }
    }
}

/// To a number whose fifths are round.
fn round_up(value: f64) -> f64 {
    let step = 10f64.powf(value.log10().floor()) / 2.0;
    (value / step).ceil() * step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow_table::case::Figures;

    #[test]
    fn every_table_that_was_measured_has_a_line() {
        let mut case = Case::new(16, 1024);
        case.add(OURS, Figures::from([(Measure::Hit, 10.0), (Measure::Miss, 5.0)]));
        case.add(PEER, Figures::from([(Measure::Hit, 30.0)]));
        let page = svg(&[case], "a <machine>");
        assert_eq!(page.matches("<polyline").count(), 3);
        assert!(page.contains("a &lt;machine>") && page.contains("16 B keys, miss") && page.ends_with("</svg>\n"));
    }

    #[test]
    fn scales_end_on_round_numbers() {
        assert_eq!([7.3, 26.0, 101.0, 330.0].map(round_up), [7.5, 30.0, 150.0, 350.0]);
    }
}
