// SPDX-License-Identifier: MIT OR Apache-2.0
//! The closing line over all layers: `N passed, N failed, N skipped`.

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
    /// look like success.
    pub(crate) fn of_directory(directory: &Path) -> Result<Self> {
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
        for path in paths {
            let text =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let layer = path.file_stem().unwrap_or_default().to_string_lossy();
            summary.add(&layer, &Report::parse(&String::from_utf8_lossy(&text)));
        }
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
        let error = Summary::of_directory(directory.path()).unwrap_err();
        assert!(error.to_string().contains("run the tests first"), "{error}");
        fs::write(directory.path().join("one.tap"), "ok 1 - x\n1..1\n").unwrap();
        let summary = Summary::of_directory(directory.path()).unwrap();
        assert_eq!(summary.to_string(), "1 passed, 0 failed, 0 skipped");
    }
}
