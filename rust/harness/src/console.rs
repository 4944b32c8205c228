// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a child prints: shown with a prefix, kept in a file, and remembered.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Longest line that is kept; the rest of it is dropped, as no kernel prints such lines.
const LONGEST: u64 = 64 * 1024;

/// A stream being read by a thread, line by line.
#[derive(Debug)]
pub(crate) struct Console {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Console {
    /// Reads `stream` to its end; copies it to the file `log`, and to the standard output with
    /// `prefix` in front of each line if there is one.
    pub(crate) fn follow(
        stream: impl Read + Send + 'static,
        log: &Path,
        prefix: Option<String>,
    ) -> Result<Self> {
        Self::follow_with(stream, log, prefix, |_| None)
    }

    /// As [`follow`](Self::follow), and tells `notice` of each line. What it returns is a line of ours that
    /// is kept behind that one.
    pub(crate) fn follow_with(
        stream: impl Read + Send + 'static,
        log: &Path,
        prefix: Option<String>,
        mut notice: impl FnMut(&str) -> Option<String> + Send + 'static,
    ) -> Result<Self> {
        let mut log =
            File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            while let Some(line) = next_line(&mut stream) {
                // The log is for people; the verdict comes from what is remembered.
                let _ = writeln!(log, "{line}");
                if let Some(prefix) = &prefix {
                    // Who reads along may have gone, as with `| head`.
                    let _ = writeln!(std::io::stdout(), "{prefix}{line}");
                }
                let note = notice(&line);
                if let Some(note) = &note {
                    let _ = writeln!(log, "{note}");
                }
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push(line);
                kept.extend(note);
            }
        });
        Ok(Self {
            lines,
            reader: Some(reader),
        })
    }

    /// All lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many lines so far contain `text`.
    pub(crate) fn count(&self, text: &str) -> usize {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line.contains(text)).count()
    }

    /// Waits for the end of the stream, to be called when the writer has ended.
    pub(crate) fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            // A panic of the reader would show as missing lines.
            let _ = reader.join();
        }
    }
}

/// The next line without its end, with control characters of terminals made visible.
fn next_line(stream: &mut impl BufRead) -> Option<String> {
    let mut bytes = Vec::new();
    let read = stream.take(LONGEST).read_until(b'\n', &mut bytes);
    match read {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(clean(&bytes)),
    }
}

/// A line as text: no line ends, no escape sequences that would move somebody's cursor.
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end_matches(['\r', '\n'])
        .chars()
        .filter(|&c| c != '\r')
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_clean_and_complete() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let stream: &[u8] = b"one\r\ntwo\x1b[2J\nlast \xff";
        let mut console = Console::follow(stream, log.path(), None).unwrap();
        console.finish();
        assert_eq!(console.lines(), ["one", "two\u{fffd}[2J", "last \u{fffd}"]);
        assert_eq!(console.count("o"), 2);
        assert_eq!(
            std::fs::read_to_string(log.path()).unwrap().lines().count(),
            3
        );
    }
}
