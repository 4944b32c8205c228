// SPDX-License-Identifier: MIT OR Apache-2.0
//! Documentation/bad-input.md: what happens with bad input, from the tests that check it.
//!
//! A test carries its rows as comments above it, `bad input: WHAT ONE GIVES => WHAT ONE GETS`. Where a
//! test is a table itself, as those of malformed devices and of command lines, its lines are the rows.
//! The command `bad-input` writes the document; a test compares; `summary` looks whether every test
//! that the document names was run.

use anyhow::{bail, Context, Result};
use regex::{Captures, Regex};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The document, below the root of the repository.
pub(crate) const DOCUMENT: &str = "Documentation/bad-input.md";

/// How the document begins.
const HEAD: &str = "\
<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->
<!-- Made by `make bad-input-doc` from the tests; do not edit. -->
# Bad input

What you give, what you get, and the test that proves it. Each row stands beside that test; this document is generated from
them, and a run of all tests fails if one of the tests named here was not run. What error numbers mean in general is in
[the header](../include/uapi/linux/ivshmem.h). Below the sentence on a command line its parser may add the values that an option takes, and a hint.
";

/// Tests of one subject.
struct Source {
    title: &'static str,
    /// The layer of `scripts/test` that runs them.
    layer: &'static str,
    files: &'static [&'static str],
}

const SOURCES: &[Source] = &[
    Source {
        title: "Making the environment",
        layer: "setup",
        files: &[
            "tests/setup/toolbox.sh",
            "tests/setup/kernel.sh",
            "tests/setup/debug-kernel.sh",
        ],
    },
    Source {
        title: "Devices that the driver refuses",
        layer: "guest",
        files: &["tests/guest/src/suites/malformed.rs"],
    },
    Source {
        title: "Devices and peers that go wrong while they work",
        layer: "guest",
        files: &[
            "tests/guest/src/suites/faults.rs",
            "tests/guest/src/suites/vanish.rs",
            "tests/guest/src/suites/storms.rs",
        ],
    },
    Source {
        title: "Reading and writing the region",
        layer: "guest",
        files: &[
            "tests/guest/src/suites/region.rs",
            "tests/guest/src/suites/nowait.rs",
            "tests/guest/src/suites/buffers.rs",
        ],
    },
    Source {
        title: "Mappings",
        layer: "guest",
        files: &["tests/guest/src/suites/mapping.rs"],
    },
    Source {
        title: "Calls of ioctl(2)",
        layer: "guest",
        files: &[
            "tests/guest/src/suites/ioctl.rs",
            "tests/guest/src/suites/state.rs",
            "tests/guest/src/suites/events.rs",
            "tests/guest/src/suites/subscription.rs",
            "tests/guest/src/suites/modes.rs",
            "tests/guest/src/suites/vectors.rs",
        ],
    },
    Source {
        title: "Channels",
        layer: "guest",
        files: &[
            "tests/guest/src/suites/channels/messages.rs",
            "tests/guest/src/suites/channels/nowait.rs",
            "tests/guest/src/suites/channels/confirm.rs",
            "tests/guest/src/suites/channels/sessions.rs",
            "tests/guest/src/suites/channels/rules.rs",
            "tests/guest/src/suites/channels/sharing.rs",
            "tests/guest/src/suites/channels/broken.rs",
            "tests/guest/src/suites/channels/removal.rs",
            "tests/guest/src/suites/peers/soft.rs",
            "tests/guest/src/suites/peers/attack.rs",
            "tests/guest/src/suites/samples.rs",
        ],
    },
    Source {
        title: "Rights",
        layer: "guest",
        files: &[
            "tests/guest/src/suites/sharing.rs",
            "tests/guest/src/suites/node.rs",
            "tests/guest/src/suites/visibility.rs",
        ],
    },
    Source {
        title: "Devices and modules that go",
        layer: "guest",
        files: &[
            "tests/guest/src/suites/removal.rs",
            "tests/guest/src/suites/load.rs",
            "tests/guest/src/suites/module.rs",
        ],
    },
    Source {
        title: "Cells and programs that die",
        layer: "guest",
        files: &["rust/harness/src/failures.rs"],
    },
    Source {
        title: "The device model's command line and commands",
        layer: "device",
        files: &[
            "rust/device/tests/command.rs",
            "rust/device/tests/disturb.rs",
        ],
    },
];

/// What happens with one bad input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) give: String,
    pub(crate) get: String,
    /// The test's name, or a part of it by which it is known.
    pub(crate) test: String,
    /// The layer that runs the test.
    pub(crate) layer: &'static str,
}

/// All rows, by subject.
fn sections(root: &Path) -> Result<Vec<(&'static str, Vec<Row>)>> {
    let section = |source: &Source| {
        let mut rows = Vec::new();
        for file in source.files {
            let path = root.join(file);
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let found = rows_of(&text, source.layer).with_context(|| format!("in {file}"))?;
            rows.extend(found);
        }
        if rows.is_empty() {
            bail!("no test of \"{}\" carries a row", source.title);
        }
        Ok((source.title, rows))
    };
    SOURCES.iter().map(section).collect()
}

/// All rows.
pub(crate) fn rows(root: &Path) -> Result<Vec<Row>> {
    let sections = sections(root)?;
    Ok(sections.into_iter().flat_map(|(_, rows)| rows).collect())
}

/// The rows of a file, in its order.
fn rows_of(text: &str, layer: &'static str) -> Result<Vec<Row>> {
    let mut found = tagged(text)?;
    found.extend(faults(text));
    found.extend(command_lines(text)?);
    found.sort_by_key(|(place, ..)| *place);
    let row = |(_, give, get, test)| Row {
        give,
        get,
        test,
        layer,
    };
    Ok(found.into_iter().map(row).collect())
}

/// A row with its place in the file: what one gives, what one gets, the test.
type Found = (usize, String, String, String);

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern")
}

/// Rows in comments above a test.
fn tagged(text: &str) -> Result<Vec<Found>> {
    let tag = pattern(r"(?m)^\s*(?://|#) bad input: (.*) => (.*)$");
    // The name of a test of a guest or in shell; or the function of one that cargo runs.
    let name = pattern(r#"(?m)^\s*#\[test\]\s+fn (\w+)|^[^/#\n]*?"((?:[^"\\]|\\[\s\S])*)""#);
    // A name that is too long for a line goes on in the next.
    let broken = pattern(r"\\\n\s*");
    let row = |captures: Captures<'_>| {
        let whole = captures.get(0).context("a match")?;
        let below = name.captures(&text[whole.end()..]);
        let below = below.with_context(|| format!("no test below `{}`", whole.as_str().trim()))?;
        let test = below.get(1).or(below.get(2)).context("a name")?;
        let test = broken.replace_all(test.as_str(), "");
        let (give, get) = (captures[1].into(), captures[2].into());
        Ok((whole.start(), give, get, test.replace("\\\"", "\"")))
    };
    tag.captures_iter(text).map(row).collect()
}

/// Rows that are the table of malformed devices.
fn faults(text: &str) -> Vec<Found> {
    let line = pattern(r#"(?m)^    \w+ "([\w-]+)" "([^"]+)" \[([^\]]+)\];$"#);
    let row = |captures: Captures<'_>| {
        let place = captures.get(0).map_or(0, |whole| whole.start());
        let words = pattern(r#""([^"]+)""#);
        let words = words.captures_iter(&captures[3]);
        let words: Vec<String> = words.map(|word| code(word[1].trim())).collect();
        let test = captures[2].to_string();
        let what = test.split(": ").next().unwrap_or_default();
        let give = format!("{what} (fault `{}` of the device model)", &captures[1]);
        let words = words.join(" and ");
        let get =
            format!("not bound; one line in the kernel's log names {words}; other devices work");
        (place, give, get, test)
    };
    line.captures_iter(text).map(row).collect()
}

/// Rows that are tables of command lines of the device model.
fn command_lines(text: &str) -> Result<Vec<Found>> {
    let entry = pattern(r#"\(\s*&?\[((?:"[^"]*"(?:, )?)+)\](?:\[\.\.\])?,\s*"([^"]+)",?\s*\)"#);
    let test = pattern(r"#\[test\]\s+fn (\w+)");
    let row = |captures: Captures<'_>| {
        let place = captures.get(0).context("a match")?.start();
        let tests = test.captures_iter(&text[..place]);
        let test = tests.last().context("a test around the table")?;
        let arguments = captures[1].replace("\"\"", "\"''\"").replace("\", \"", " ");
        let give = code(arguments.trim_matches('"'));
        let get = format!("status 2, one sentence with {}", code(&captures[2]));
        Ok((place, give, get, test[1].into()))
    };
    entry.captures_iter(text).map(row).collect()
}

/// `text` as Markdown shows it literally.
fn code(text: &str) -> String {
    if text.contains('`') {
        format!("`` {text} ``")
    } else {
        format!("`{text}`")
    }
}

/// The document's text.
pub(crate) fn render(root: &Path) -> Result<String> {
    let mut text = String::from(HEAD);
    for (title, rows) in sections(root)? {
        // Writing into a string does not fail.
        let _ = writeln!(text, "\n## {title}\n\n| you give | you get | proved by |");
        text.push_str("| --- | --- | --- |\n");
        for row in rows {
            let cells = [row.give, row.get, format!("{}: *{}*", row.layer, row.test)];
            let cells = cells.map(|cell| cell.replace('|', "\\|"));
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
    }
    Ok(text)
}

/// Writes the document.
pub(crate) fn write(root: &Path) -> Result<()> {
    let path = root.join(DOCUMENT);
    fs::write(&path, render(root)?).with_context(|| format!("cannot write {}", path.display()))
}

/// Tests of `rows` of the layer `layer` that are not among `names`.
pub(crate) fn not_run(rows: &[Row], layer: &str, names: &[&str]) -> Vec<String> {
    // As names stand in reports.
    let plain = |name: &str| name.replace('#', "No.");
    let missing = rows
        .iter()
        .filter(|row| row.layer == layer)
        .map(|row| plain(&row.test))
        .filter(|test| !names.iter().any(|name| name.contains(test.as_str())));
    let mut missing: Vec<String> = missing.collect();
    missing.dedup();
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
    }

    #[test]
    fn bad_input_document_says_what_the_tests_say() {
        let committed = fs::read_to_string(root().join(DOCUMENT)).unwrap();
        let current = render(root()).unwrap();
        assert!(committed == current, "run `make bad-input-doc`");
    }

    #[test]
    fn bad_input_rows_follow_names_over_lines() {
        let text = "    // bad input: a => b\n    Test::new(\n        \"one \\\n         \\\"two\\\"\",\n        three,\n";
        let rows = rows_of(text, "guest").unwrap();
        assert_eq!(rows[0].test, "one \"two\"");
        for row in super::rows(root()).unwrap() {
            assert!(!row.test.contains('\n'), "{}", row.test);
        }
    }

    /// Tests of guests that name an error without a row.
    #[test]
    fn bad_input_rows_are_complete() {
        let error = pattern(r"\bE[A-Z0-9]{3,}\b");
        let test = pattern(r#"Test::(?:new|two_peers)\(\s*"((?:[^"\\]|\\.)*)""#);
        let rows = rows(root()).unwrap();
        let files = SOURCES.iter().flat_map(|source| source.files);
        for file in files.filter(|file| file.contains("/suites/")) {
            let text = fs::read_to_string(root().join(file)).unwrap();
            for name in test.captures_iter(&text).map(|found| found[1].to_string()) {
                let mut errors = error.find_iter(&name).map(|found| found.as_str());
                let names_error = errors.any(|word| !word.starts_with("EPOLL"));
                let has_row = rows.iter().any(|row| row.test == name);
                assert!(!names_error || has_row, "{file}: \"{name}\" has no row");
            }
        }
    }

    #[test]
    fn rows_are_found_in_each_kind_of_test() {
        let text = r#"
    // bad input: a negative offset => EINVAL
    // bad input: a huge one => 0
    Test::new("it \"is\" so", it),
    odd "odd-size" "odd size: one line" ["size", " 0x1 "];
    # bad input: no network => one sentence
	tap_test "unreachable: one" unreachable
    #[test]
    fn bad_lines() {
        for (args, expected) in [(["--a", "1"], "not b"), (["--a", ""], "c")] {}
    }
"#;
        let rows = rows_of(text, "host").unwrap();
        let rows: Vec<[&str; 3]> = rows
            .iter()
            .map(|row| [row.give.as_str(), &row.get, &row.test])
            .collect();
        assert_eq!(rows[0], ["a negative offset", "EINVAL", "it \"is\" so"]);
        assert_eq!(rows[1], ["a huge one", "0", "it \"is\" so"]);
        assert!(rows[2][1].contains("`size` and `0x1`"), "{rows:?}");
        assert_eq!(rows[2][2], "odd size: one line");
        assert_eq!(rows[3][2], "unreachable: one");
        assert_eq!(rows[4][0], "`--a 1`");
        assert_eq!(
            rows[5],
            ["`--a ''`", "status 2, one sentence with `c`", "bad_lines"]
        );
        assert_eq!(rows.len(), 6);
        assert!(rows_of("// bad input: x => y\n", "host").is_err());
    }

    #[test]
    fn a_test_that_was_not_run_is_named() {
        let row = |test: &str| Row {
            give: String::new(),
            get: String::new(),
            test: test.into(),
            layer: "guest",
        };
        let rows = [row("a is b"), row("c is d")];
        let names = ["guest: region: a is b"];
        assert_eq!(not_run(&rows, "guest", &names), ["c is d"]);
        assert!(not_run(&rows, "setup", &names).is_empty());
    }
}
