// SPDX-License-Identifier: MIT OR Apache-2.0
//! The closing line over all layers: `N passed, N failed, N skipped`.

use crate::bad_input::{self, Row};
use crate::tap::{Report, Verdict};
use anyhow::{bail, Context, Result};
use std::fmt;
use std::fs;
use std::path::Path;

/// The sum of several reports.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
}

impl Summary {
    /// Reads all `*.tap` of a directory. None at all is an error: a run without tests must not
    /// look like success. A test of `rows` that none of its layer's reports has is a failure.
    pub(crate) fn of_directory(directory: &Path, rows: &[Row]) -> Result<Self> {
        let shown = directory.display();
        let mut paths: Vec<_> = fs::read_dir(directory)
            .with_context(|| format!("cannot read the results in {shown}"))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        paths.retain(|path| path.extension().is_some_and(|end| end == "tap"));
        paths.sort();
        if paths.is_empty() {
            bail!("there are no results (*.tap) in {shown}: run the tests first");
        }
        let mut summary = Self::default();
        let mut reports = Vec::new();
        for path in paths {
            let text =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let layer = path.file_stem().unwrap_or_default().to_string_lossy();
            let report = Report::parse(&String::from_utf8_lossy(&text));
            summary.add(&layer, &report);
            reports.push((layer.into_owned(), report));
        }
        summary.add_not_run(rows, &reports);
        Ok(summary)
    }

    /// Adds the report of one layer. Its defects count as failures.
    pub(crate) fn add(&mut self, layer: &str, report: &Report) {
        for result in &report.results {
            let name = format!("{layer}: {}", result.name);
            match &result.verdict {
                Verdict::Passed => self.passed += 1,
                Verdict::Failed => self.failed.push(name),
                Verdict::Skipped(reason) => self.skipped.push(format!("{name} ({reason})")),
            }
        }
        let defects = report.defects();
        self.failed.extend(
            defects
                .into_iter()
                .map(|defect| format!("{layer}: the report {defect}")),
        );
    }

    /// Tests of `rows` that were to be run and were not, by layer. Guests run all of them with the stock
    /// kernel only: some need a PC, or a distribution's kernel.
    fn add_not_run(&mut self, rows: &[Row], reports: &[(String, Report)]) {
        for (file, report) in reports {
            let layer = match file.as_str() {
                "guest-stock" => "guest",
                other => other,
            };
            let results = report.results.iter();
            let names: Vec<&str> = results.map(|result| result.name.as_str()).collect();
            let missing = bad_input::not_run(rows, layer, &names).into_iter();
            let document = bad_input::DOCUMENT;
            self.failed.extend(
                missing.map(|test| format!("{file}: {document} names \"{test}\", not run")),
            );
        }
    }

    /// Whether nothing failed.
    pub(crate) fn is_good(&self) -> bool {
        self.failed.is_empty()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.failed {
            writeln!(f, "failed: {name}")?;
        }
        for name in &self.skipped {
            writeln!(f, "skipped: {name}")?;
        }
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failed.len(),
            self.skipped.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_names() {
        let mut summary = Summary::default();
        summary.add("a", &Report::parse("ok 1 - x\nnot ok 2 - y\n1..2\n"));
        summary.add("b", &Report::parse("ok 1 - z # SKIP why\n1..1\n"));
        assert_eq!(
            summary.to_string(),
            "failed: a: y\nskipped: b: z (why)\n1 passed, 1 failed, 1 skipped"
        );
        assert!(!summary.is_good());
    }

    #[test]
    fn a_report_that_breaks_off_fails() {
        let mut summary = Summary::default();
        summary.add("a", &Report::parse("ok 1 - x\n"));
        assert!(!summary.is_good());
    }

    #[test]
    fn no_results_are_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = Summary::of_directory(directory.path(), &[]).unwrap_err();
        assert!(error.to_string().contains("run the tests first"), "{error}");
        fs::write(directory.path().join("one.tap"), "ok 1 - x\n1..1\n").unwrap();
        let summary = Summary::of_directory(directory.path(), &[]).unwrap();
        assert_eq!(summary.to_string(), "1 passed, 0 failed, 0 skipped");
    }

    #[test]
    fn a_test_that_the_document_names_must_have_run() {
        let directory = tempfile::tempdir().unwrap();
        let row = |test: &str| Row {
            give: "x".into(),
            get: "y".into(),
            test: test.into(),
            layer: "guest",
        };
        let rows = [row("a is b"), row("c is d")];
        let report = "ok 1 - stock: region: a is b\n1..1\n";
        fs::write(directory.path().join("guest-arm64.tap"), report).unwrap();
        let summary = Summary::of_directory(directory.path(), &rows).unwrap();
        assert!(summary.is_good(), "{summary}");
        fs::write(directory.path().join("guest-stock.tap"), report).unwrap();
        let summary = Summary::of_directory(directory.path(), &rows).unwrap();
        assert!(!summary.is_good());
        assert!(summary.to_string().contains("c is d"), "{summary}");
    }
}
