// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tables of Documentation/measurements.md: ratios within one run, and which aims they meet.

use super::bench::{Figures, SECTIONS};
use anyhow::{Context, Result};
use std::fmt::Write as _;

/// Short and long messages, in bytes.
pub(super) const SHORT: u64 = 64;
pub(super) const LONG: u64 = 4096;

/// What is measured, as the report names it, with the name for people.
pub(super) fn ways() -> Vec<(&'static str, u64, String)> {
    let mut ways = Vec::new();
    for (way, name) in [("channel", "channel"), ("ring", "ring in user space")] {
        for section in SECTIONS {
            ways.push((way, section, format!("{name}, {}", kib(section))));
        }
    }
    ways.push(("tcp", 0, "TCP over virtio-net".into()));
    ways.push(("serial", 0, "virtio-serial".into()));
    ways
}

/// A section's size in words.
fn kib(section: u64) -> String {
    match section / 1024 {
        size if size % 1024 == 0 => format!("{} MiB", size / 1024),
        size => format!("{size} KiB"),
    }
}

/// Something that was to be reached.
#[derive(Debug)]
pub(super) struct Aim {
    what: String,
    figure: f64,
    bound: f64,
    /// The figure is to be as large at least, or as small at most.
    at_least: bool,
}

impl Aim {
    fn is_met(&self) -> bool {
        if self.at_least {
            self.figure >= self.bound
        } else {
            self.figure <= self.bound
        }
    }

    fn wanted(&self) -> String {
        let words = if self.at_least { "at least" } else { "at most" };
        format!("{words} {}", self.bound)
    }

    fn word(&self) -> &'static str {
        if self.is_met() {
            "met"
        } else {
            "missed"
        }
    }

    /// The aim and whether it is met, in one line.
    pub(super) fn sentence(&self) -> String {
        let (what, figure, wanted) = (&self.what, self.figure, self.wanted());
        format!("{what}: {figure:.2} ({wanted}: {})", self.word())
    }
}

/// All aims for which there are figures.
pub(super) fn aims(figures: &Figures) -> Vec<Aim> {
    let mut aims = Vec::new();
    for section in SECTIONS {
        let place = kib(section);
        for (peer, name) in [("tcp", "TCP"), ("serial", "virtio-serial")] {
            let own = figures.get("channel", section, "stream", SHORT);
            let other = figures.get(peer, 0, "stream", SHORT);
            aims.extend(own.zip(other).map(|(own, other)| Aim {
                what: format!("64-byte messages, sections of {place}, channel to {name}"),
                figure: own / other,
                bound: 5.0,
                at_least: true,
            }));
        }
        let own = figures.get("channel", section, "stream", LONG);
        let copy = figures.get("memcpy", 0, "copy", LONG);
        aims.extend(own.zip(copy).map(|(own, copy)| Aim {
            what: format!("4-KiB messages, sections of {place}, channel to memcpy"),
            figure: own / copy,
            bound: 0.5,
            at_least: true,
        }));
        let own = figures.get("channel", section, "trip", SHORT);
        let floor = figures.get("pingpong", 0, "trip", 0);
        aims.extend(own.zip(floor).map(|(own, floor)| Aim {
            what: format!("median round trip, sections of {place}, channel to in-kernel ping-pong"),
            figure: own / floor,
            bound: 2.0,
            at_least: false,
        }));
    }
    aims
}

/// All that the run writes into the document. `command` repeats it, on the kernel `kernel`.
pub(super) fn markdown(
    figures: &Figures,
    aims: &[Aim],
    command: &str,
    kernel: &str,
) -> Result<String> {
    let get = |way: &str, section, kind: &str, size| {
        let value = figures.get(way, section, kind, size);
        value.with_context(|| format!("{way} has no {kind} of {size} bytes"))
    };
    let base = [
        get("tcp", 0, "stream", SHORT)?,
        get("tcp", 0, "stream", LONG)?,
        get("tcp", 0, "trip", SHORT)?,
    ];
    let floor = figures.get("pingpong", 0, "trip", 0);
    let mut text = format!("`{command}`, on {kernel}, under TCG:\n\n");
    text += "| way, section | 64-byte messages | 4-KiB messages | round trip of 64 bytes | to ping-pong | not placed, to ping-pong |\n";
    text += "| --- | ---: | ---: | ---: | ---: | ---: |\n";
    for (way, section, name) in ways() {
        let trip = get(way, section, "trip", SHORT)?;
        let to_floor = |trip| floor.map_or("".into(), |floor| format!("{:.2}", trip / floor));
        let anywhere = get(way, section, "anywhere", SHORT)?;
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "| {name} | {:.2} | {:.2} | {:.2} | {} | {} |",
            get(way, section, "stream", SHORT)? / base[0],
            get(way, section, "stream", LONG)? / base[1],
            trip / base[2],
            to_floor(trip),
            to_floor(anywhere),
        );
    }
    let copy = get("memcpy", 0, "copy", LONG)?;
    let _ = writeln!(
        text,
        "| memcpy in the guest | | {:.2} | | | |",
        copy / base[1]
    );
    let null = get("null", 0, "call", SHORT)?;
    let _ = writeln!(
        text,
        "| write to /dev/null | {:.2} | | | | |",
        null / base[0]
    );
    if let Some(floor) = floor {
        let trip = floor / base[2];
        let _ = writeln!(
            text,
            "| in-kernel ping-pong | | | {trip:.2} | 1.00 | 1.00 |"
        );
    }
    let _ = writeln!(
        text,
        "\nAll but the last two columns are multiples of TCP's figures in the same run: messages per second (more is \
         better), median round trips (less is better).\n"
    );
    text += &accesses(figures)?;
    text += "| aim | wanted | this run | |\n| --- | --- | ---: | --- |\n";
    for aim in aims {
        let (what, wanted) = (&aim.what, aim.wanted());
        let _ = writeln!(
            text,
            "| {what} | {wanted} | {:.2} | {} |",
            aim.figure,
            aim.word()
        );
    }
    text += "\n![The same as a picture](measurements.svg)\n";
    Ok(text)
}

/// What messages cost of registers.
fn accesses(figures: &Figures) -> Result<String> {
    let mut text = String::from(
        "Register accesses of both guests, counted by the device model, for each message or round trip: on a hypervisor as many \
         exits.\n\n| way, section | 64-byte messages | 4-KiB messages | round trip of 64 bytes |\n| --- | ---: | ---: | ---: |\n",
    );
    for (way, section, name) in ways() {
        if section == 0 {
            continue;
        }
        let get = |kind: &str, size| {
            let each = figures.accesses(way, section, kind, size);
            each.with_context(|| format!("{way} has no count of a {kind} of {size} bytes"))
        };
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "| {name} | {:.4} | {:.4} | {:.2} |",
            get("stream", SHORT)?,
            get("stream", LONG)?,
            get("trip", SHORT)?,
        );
    }
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aims_are_ratios() {
        let report = "# bench channel 1048576 stream 64 600\n# bench tcp 0 stream 64 100\n\
                      # bench serial 0 stream 64 200\n# bench channel 1048576 trip 64 30\n\
                      # bench pingpong 0 trip 0 10\n";
        let aims = aims(&Figures::read(report));
        let met: Vec<bool> = aims.iter().map(Aim::is_met).collect();
        assert_eq!(met, [true, false, false]);
        assert!(aims[0].sentence().ends_with("6.00 (at least 5: met)"));
        assert!(aims[2].sentence().ends_with("3.00 (at most 2: missed)"));
    }

    #[test]
    fn a_missing_figure_is_an_error() {
        assert!(markdown(&Figures::default(), &[], "make bench", "x").is_err());
    }

    #[test]
    fn sizes_in_words() {
        assert_eq!(SECTIONS.map(kib), ["1 MiB", "8 KiB"]);
    }
}
