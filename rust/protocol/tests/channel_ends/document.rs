// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Reads what documents say, so that tests can compare.

use std::path::Path;

/// The text of a file in Documentation.
pub(crate) fn document(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Documentation");
    std::fs::read_to_string(root.join(name)).expect("the document is there")
}

/// The text below a heading, up to the next heading of that depth.
pub(crate) fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("no section {heading}"));
    rest.split("\n## ").next().unwrap_or(rest)
}

/// The cells of the rows of the first table below a heading, without the table's head.
pub(crate) fn rows<'a>(text: &'a str, heading: &str) -> impl Iterator<Item = Vec<&'a str>> {
    let lines = section(text, heading).lines();
    let table = lines
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    table
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}
