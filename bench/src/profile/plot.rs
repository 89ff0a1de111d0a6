//! The record as a picture: rates over block sizes, a panel for each profile and direction, both axes logarithmic. Long
//! batches are the dashed lines.

use std::fmt::Write as _;

use super::outcome::{Outcome, Row, Way};
use crate::report;

const PANEL: (f64, f64) = (420.0, 260.0);
const MARGIN: (f64, f64) = (70.0, 50.0);

const fn colour(way: Way) -> &'static str {
    match way {
        Way::Bare => "#999999",
        Way::Direct => "#1f77b4",
        Way::Staged => "#d62728",
        Way::Chosen => "#2ca02c",
    }
}

/// Draws all outcomes.
pub fn draw(outcomes: &[&Outcome], ways: &[Way]) -> String {
    let rows = outcomes.len().max(1);
    let (width, height) = (2.0 * (PANEL.0 + MARGIN.0) + 20.0, count(rows) * (PANEL.1 + MARGIN.1) + 60.0);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, way) in ways.iter().enumerate() {
        let x = MARGIN.0 + 90.0 * count(index);
        let _always = writeln!(
            text,
            "<line x1=\"{x}\" y1=\"16\" x2=\"{}\" y2=\"16\" stroke=\"{}\" stroke-width=\"3\"/><text x=\"{}\" \
             y=\"20\">{}</text>",
            x + 24.0,
            colour(*way),
            x + 30.0,
            way.name()
        );
    }
    for (line, outcome) in outcomes.iter().enumerate() {
        for (column, operation) in ["write", "read"].into_iter().enumerate() {
            let origin =
                (MARGIN.0 + count(column) * (PANEL.0 + MARGIN.0), 40.0 + count(line) * (PANEL.1 + MARGIN.1));
            let title = format!("{} {operation}, launches of a {}, GB/s", outcome.profile, outcome.launch);
            let rows: Vec<&Row> =
                outcome.rows.iter().filter(|row| row.key.what == operation && !row.key.is_layout).collect();
            panel(&mut text, origin, &title, &rows, ways);
        }
    }
    text.push_str("</svg>\n");
    text
}

fn panel(text: &mut String, origin: (f64, f64), title: &str, rows: &[&Row], ways: &[Way]) {
    let rates = rows.iter().flat_map(|row| ways.iter().filter_map(|way| row.rate(*way)));
    let (low, high) =
        rates.fold((f64::INFINITY, 0.0_f64), |(low, high), rate| (low.min(rate), high.max(rate)));
    if !(low.is_finite() && low > 0.0) {
        return;
    }
    let (bottom, top) = ((low.log10() * 4.0).floor() / 4.0, (high.log10() * 4.0).ceil() / 4.0);
    let (short, long): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| !row.key.is_long());
    let marks = if short.is_empty() { &long } else { &short };
    let place_of = |row: &Row| marks.iter().position(|mark| mark.key.block_bytes == row.key.block_bytes);
    let x = |index: usize| origin.0 + PANEL.0 * (count(index) + 0.5) / count(marks.len().max(1));
    let y = |rate: f64| origin.1 + PANEL.1 * (1.0 - (rate.log10() - bottom) / (top - bottom).max(0.25));
    let _always = writeln!(
        text,
        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#444\"/><text x=\"{}\" \
         y=\"{}\" font-weight=\"bold\">{title}</text>",
        origin.0,
        origin.1,
        PANEL.0,
        PANEL.1,
        origin.0 + 6.0,
        origin.1 + 16.0
    );
    let mut mark = bottom;
    while mark <= top + 1e-9 {
        let (rate, place) = (10_f64.powf(mark), y(10_f64.powf(mark)));
        let _always = writeln!(
            text,
            "<line x1=\"{}\" y1=\"{place:.1}\" x2=\"{}\" y2=\"{place:.1}\" stroke=\"#ddd\"/><text x=\"{}\" \
             y=\"{:.1}\" text-anchor=\"end\">{rate:.1}</text>",
            origin.0,
            origin.0 + PANEL.0,
            origin.0 - 4.0,
            place + 4.0
        );
        mark += 0.25;
    }
    for (index, row) in marks.iter().enumerate() {
        let _always = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(index),
            origin.1 + PANEL.1 + 16.0,
            report::size(row.key.block_bytes)
        );
    }
    for (way, (rows, dashes)) in
        ways.iter().flat_map(|way| [(way, (&short, "")), (way, (&long, " stroke-dasharray=\"5 4\""))])
    {
        let points: Vec<(f64, f64)> =
            rows.iter().filter_map(|row| Some((x(place_of(row)?), y(row.rate(*way)?)))).collect();
        if points.is_empty() {
            continue;
        }
        let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _always = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"{dashes}/>",
            line.join(" "),
            colour(*way)
        );
        for (x, y) in points {
            let _always =
                writeln!(text, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{}\"/>", colour(*way));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few panels and block sizes")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Key;
    use super::*;

    #[test]
    fn every_rate_is_a_point() {
        let key = |what: &str| Key { what: what.into(), block_bytes: 16384, blocks: 4, is_layout: false };
        let mut rows = vec![Row::new(key("write"), None), Row::new(key("read"), None)];
        for row in &mut rows {
            row.set(Way::Bare, 1.5);
            row.set(Way::Direct, 1.4);
        }
        let outcome = Outcome { profile: "a2-hccs", launch: "device", slowdown: 40, rows };
        let picture = draw(&[&outcome], &[Way::Bare, Way::Direct]);
        assert_eq!(picture.matches("<circle").count(), 4, "{picture}");
        assert!(
            picture.contains("a2-hccs read, launches of a device, GB/s") && picture.ends_with("</svg>\n")
        );
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
    }
}
