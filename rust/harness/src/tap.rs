// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads and writes results in TAP 13.

use std::fmt::Write as _;

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
    /// With the reason.
    Skipped(String),
}

/// One test's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestResult {
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    /// Lines that explain it.
    pub(crate) notes: Vec<String>,
}

impl TestResult {
    /// A result that is decided by `reasons`: none means passed.
    pub(crate) fn from_reasons(name: impl Into<String>, reasons: Vec<String>) -> Self {
        let verdict = if reasons.is_empty() {
            Verdict::Passed
        } else {
            Verdict::Failed
        };
        Self {
            name: name.into(),
            verdict,
            notes: reasons,
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.verdict == Verdict::Failed
    }
}

/// A report of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Report {
    pub(crate) results: Vec<TestResult>,
    /// Results that the plan promises.
    pub(crate) planned: Option<usize>,
    /// `Bail out!`, with its reason.
    pub(crate) bailed_out: Option<String>,
    /// Comments that belong to no result.
    pub(crate) comments: Vec<String>,
}

impl Report {
    /// Reads TAP. Lines that are not TAP are ignored, as the format demands.
    pub(crate) fn parse(text: &str) -> Self {
        let mut report = Self::default();
        for line in text.lines().map(str::trim_end) {
            if let Some(rest) = line.strip_prefix("not ok") {
                report.results.push(result(rest, Verdict::Failed));
            } else if let Some(rest) = line.strip_prefix("ok") {
                report.results.push(result(rest, Verdict::Passed));
            } else if let Some(count) = line.strip_prefix("1..") {
                let count = count.split_whitespace().next().unwrap_or_default();
                report.planned = count.parse().ok();
            } else if let Some(reason) = line.strip_prefix("Bail out!") {
                report.bailed_out = Some(reason.trim().into());
            } else if let Some(comment) = line.trim_start().strip_prefix('#') {
                report.comment(comment.trim());
            }
        }
        report
    }

    fn comment(&mut self, text: &str) {
        match self.results.last_mut() {
            Some(result) => result.notes.push(text.into()),
            None => self.comments.push(text.into()),
        }
    }

    /// What is wrong with the report itself: no plan, results missing, bailed out.
    pub(crate) fn defects(&self) -> Vec<String> {
        let mut defects = Vec::new();
        if let Some(reason) = &self.bailed_out {
            defects.push(format!("bailed out: {reason}"));
        }
        match self.planned {
            None => defects.push("ended before it said how many tests there are".into()),
            Some(planned) if planned != self.results.len() => defects.push(format!(
                "{planned} results were planned and {} came",
                self.results.len()
            )),
            Some(_) => {}
        }
        defects
    }
}

fn result(rest: &str, plain: Verdict) -> TestResult {
    let rest = rest
        .trim_start()
        .trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.trim_start().trim_start_matches('-').trim();
    let (name, directive) = match rest.split_once(" # ") {
        Some((name, directive)) => (name.trim(), directive.trim()),
        None => (rest, ""),
    };
    let skipped = directive
        .get(..4)
        .is_some_and(|word| word.eq_ignore_ascii_case("skip"));
    let verdict = match plain {
        Verdict::Passed if skipped => Verdict::Skipped(directive[4..].trim().into()),
        verdict => verdict,
    };
    TestResult {
        name: name.into(),
        verdict,
        notes: Vec::new(),
    }
}

/// Writes results as TAP 13.
pub(crate) fn render(results: &[TestResult]) -> String {
    let mut text = String::from("TAP version 13\n");
    for (index, result) in results.iter().enumerate() {
        let number = index + 1;
        // A `#` in a name would begin a directive.
        let name = result.name.replace('#', "No.");
        // Writing into a string does not fail.
        let _ = match &result.verdict {
            Verdict::Passed => writeln!(text, "ok {number} - {name}"),
            Verdict::Failed => writeln!(text, "not ok {number} - {name}"),
            Verdict::Skipped(reason) => writeln!(text, "ok {number} - {name} # SKIP {reason}"),
        };
        for note in &result.notes {
            let _ = writeln!(text, "# {note}");
        }
    }
    let _ = writeln!(text, "1..{}", results.len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_others_write() {
        let report = Report::parse(
            "TAP version 13\n# kernel 7.3\nok 1 - first\nnot ok 2 second\n# left: 1\n\
             ok 3 - third # SKIP no device\nok\nnoise\n1..4\n",
        );
        assert_eq!(report.comments, ["kernel 7.3"]);
        assert_eq!(report.defects(), Vec::<String>::new());
        let verdicts: Vec<_> = report.results.iter().map(|r| r.verdict.clone()).collect();
        assert_eq!(
            verdicts,
            [
                Verdict::Passed,
                Verdict::Failed,
                Verdict::Skipped("no device".into()),
                Verdict::Passed
            ]
        );
        assert_eq!(report.results[1].name, "second");
        assert_eq!(report.results[1].notes, ["left: 1"]);
    }

    #[test]
    fn a_report_that_breaks_off_is_defective() {
        assert!(!Report::parse("ok 1 - a\n").defects().is_empty());
        assert!(!Report::parse("ok 1 - a\n1..2\n").defects().is_empty());
        assert!(!Report::parse("1..0\nBail out! no kernel\n")
            .defects()
            .is_empty());
        assert!(!Report::parse("").defects().is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            tests in proptest::collection::vec(
                ("[a-z][a-z ,:0-9-]{0,30}[a-z]", 0..3, proptest::collection::vec("[a-z]{1,9}", 0..3)),
                0..20,
            )
        ) {
            let results: Vec<_> = tests
                .into_iter()
                .map(|(name, kind, notes)| TestResult {
                    name,
                    verdict: match kind {
                        0 => Verdict::Passed,
                        1 => Verdict::Failed,
                        _ => Verdict::Skipped("a reason".into()),
                    },
                    notes,
                })
                .collect();
            let report = Report::parse(&render(&results));
            prop_assert!(report.defects().is_empty());
            prop_assert_eq!(report.results, results);
        }

        #[test]
        fn any_text_is_read(text in "\\PC*") {
            let _ = Report::parse(&text);
        }
    }
}
