// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tells what is going on: a spinner on a terminal, plain lines elsewhere.

use crate::spent::Since;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// A step that takes time.
#[derive(Debug)]
pub(crate) struct Step {
    what: String,
    begin: Since,
    spinner: Option<ProgressBar>,
}

impl Step {
    /// Begins a step. `quiet` says that something else is on the screen already.
    pub(crate) fn begin(what: impl Into<String>, quiet: bool) -> Self {
        let what = what.into();
        let spinner = (std::io::stderr().is_terminal() && !quiet).then(|| {
            let spinner = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                spinner.set_style(style);
            }
            spinner.set_message(what.clone());
            spinner.enable_steady_tick(Duration::from_millis(120));
            spinner
        });
        Self {
            what,
            begin: Since::now(),
            spinner,
        }
    }

    /// Ends it with a result in a few words.
    pub(crate) fn end(self, result: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        println!("{}: {result} ({})", self.what, self.begin.spent());
    }
}
