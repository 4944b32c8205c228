// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The table of costs in Documentation/channel-protocol.md.

use super::document::{document, rows};

/// A row of the table, for a link of `peers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) usual_loads: u32,
    pub(crate) loads: u32,
    pub(crate) stores: u32,
    pub(crate) barriers: u32,
}

impl Cost {
    /// The four cells behind the first two of `row`.
    fn of(row: &[&str], peers: u32) -> Self {
        let number = |cell: usize| {
            let value = |term: &str| match term.trim() {
                "n" => peers,
                term => term.parse().unwrap_or_else(|e| panic!("{row:?}: {e}")),
            };
            row[cell].split('+').map(value).sum()
        };
        Self {
            usual_loads: number(2),
            loads: number(3),
            stores: number(4),
            barriers: number(5),
        }
    }
}

/// What the document says that `call` costs on a link of `peers`.
pub(crate) fn cost(call: &str, peers: u32) -> Cost {
    let text = document("channel-protocol.md");
    let row = rows(&text, "Cost")
        .find(|row| row[0] == format!("`{call}`"))
        .unwrap_or_else(|| panic!("no cost of {call}"));
    Cost::of(&row, peers)
}

/// The calls that the table has.
pub(crate) fn calls() -> Vec<String> {
    let text = document("channel-protocol.md");
    let calls = rows(&text, "Cost").map(|row| row[0].trim_matches('`').to_owned());
    calls.collect()
}

/// What the document says of whole calls of a program: name, calls of the core, and cost, on a link of `peers`.
pub(crate) fn wholes(peers: u32) -> Vec<(String, Vec<String>, Cost)> {
    let text = document("channel-protocol.md");
    let whole = |row: Vec<&str>| {
        let parts = row[1]
            .split('+')
            .map(|part| part.trim().trim_matches('`').to_owned());
        (row[0].to_owned(), parts.collect(), Cost::of(&row, peers))
    };
    rows(&text, "Cost of whole calls").map(whole).collect()
}
