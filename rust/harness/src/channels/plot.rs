// SPDX-License-Identifier: MIT OR Apache-2.0
//! The picture of Documentation/measurements.md: bars, each group as multiples of TCP's figure.

use super::bench::Figures;
use super::table::{ways, LONG, SHORT};
use anyhow::{Context, Result};
use std::fmt::Write as _;

/// Pixels: height of a bar with the gap behind it, where bars begin, their greatest length.
const BAR: u32 = 22;
const LEFT: u32 = 190;
const LENGTH: f64 = 480.0;
const WIDTH: u32 = 760;

/// Draws all groups.
pub(super) fn svg(figures: &Figures) -> Result<String> {
    let mut body = String::new();
    let mut y = 10;
    for (title, kind, size) in [
        (
            "64-byte messages per second (longer is better)",
            "stream",
            SHORT,
        ),
        (
            "4-KiB messages per second (longer is better)",
            "stream",
            LONG,
        ),
        (
            "median round trip of 64 bytes (shorter is better)",
            "trip",
            SHORT,
        ),
    ] {
        let mut bars = Vec::new();
        for (way, section, name) in ways() {
            let value = figures.get(way, section, kind, size);
            bars.push((name, value.with_context(|| format!("{way} has no {kind}"))?));
        }
        let base = figures.get("tcp", 0, kind, size).context("no TCP")?;
        y = group(&mut body, y, title, &bars, base);
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->\n\
         <rect width=\"{WIDTH}\" height=\"{y}\" fill=\"white\"/>\n{body}</svg>\n"
    ))
}

/// Draws a group from `y` on, and gives where the next begins.
fn group(body: &mut String, mut y: u32, title: &str, bars: &[(String, f64)], base: f64) -> u32 {
    let longest = bars.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    // Writing into a string does not fail.
    let _ = writeln!(
        body,
        "<text x=\"10\" y=\"{}\" font-weight=\"bold\">{title}, multiples of TCP</text>",
        y + 14
    );
    y += BAR + 2;
    for (name, value) in bars {
        let length = LENGTH * value / longest;
        let colour = if name.starts_with("channel") {
            "#1f6fb4"
        } else {
            "#a0a8b0"
        };
        let (below, end) = (y + 13, f64::from(LEFT) + length + 6.0);
        let _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{below}\" text-anchor=\"end\">{name}</text>\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"16\" fill=\"{colour}\"/>\
             <text x=\"{end:.1}\" y=\"{below}\">{:.2}</text>",
            LEFT - 8,
            value / base
        );
        y += BAR;
    }
    y + 14
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_figures() {
        let mut body = String::new();
        let bars = [("a".to_string(), 10.0), ("channel".to_string(), 5.0)];
        let y = group(&mut body, 0, "x", &bars, 5.0);
        assert_eq!(y, BAR + 2 + 2 * BAR + 14);
        assert!(body.contains("width=\"480.0\"") && body.contains("width=\"240.0\""));
        assert!(body.contains(">2.00<") && body.contains(">1.00<"), "{body}");
    }
}
