// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest asks for while it runs: a test inside it may want something done to its device
//! model or to its QEMU at a moment of its choice.
//!
//! The guest writes a line `?NUMBER SERVICE WORDS` among those of its report, and gets a line
//! `!NUMBER ok TEXT` or `!NUMBER error: SENTENCE` back on the same serial port. TAP ignores such
//! lines. The guest's side is `tests/guest/src/ask.rs`; a new service is a new arm in
//! [`Services::serve`].

use crate::channels::{Profiler, Schedule};
use anyhow::{bail, Context, Result};
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Longest answer: what the buffers of the guest's serial port take even if nobody reads.
const ANSWER_MAX: usize = 16_000;

/// How long a service may take, before patience.
const LIMIT: Duration = Duration::from_secs(60);

/// What a guest may ask.
#[derive(Debug, Default, Clone)]
pub(crate) struct Services {
    /// Control sockets of the device models, by the number of the link.
    pub(crate) models: BTreeMap<u32, PathBuf>,
    /// QEMU's monitor.
    pub(crate) qmp: Option<PathBuf>,
    /// When one of two guests is restarted.
    pub(crate) schedule: Option<Arc<Schedule>>,
    /// What counts the guest's instructions.
    pub(crate) profiler: Option<Profiler>,
    /// Factor for [`LIMIT`]; 0 is as good as 1.
    pub(crate) patience: u32,
}

impl Services {
    /// The answer to a line of the report, if it is a request.
    pub(crate) fn answer(&self, line: &str) -> Option<String> {
        let (number, words) = line.strip_prefix('?')?.split_once(' ')?;
        let answer = match self.serve(words) {
            Ok(text) if text.len() > ANSWER_MAX => {
                format!("error: an answer of {} bytes is too long", text.len())
            }
            Ok(text) => format!("ok {text}"),
            // One line, whatever is in it.
            Err(error) => format!("error: {error:#}").replace('\n', " "),
        };
        Some(format!("!{number} {answer}\n"))
    }

    fn serve(&self, words: &str) -> Result<String> {
        let (service, rest) = words.split_once(' ').unwrap_or((words, ""));
        match service {
            "model" => self.model(rest),
            "qmp" => self.qmp(rest),
            "next" => Ok(self.schedule()?.next()),
            "over" => Ok(if self.schedule()?.is_over() {
                "yes"
            } else {
                "no"
            }
            .into()),
            "profile" => self.profile(rest),
            _ => bail!(
                "there is no service `{service}`: the harness has `model`, `qmp`, `next`, `over` and `profile`"
            ),
        }
    }

    /// For `next` and `over`: what comes, and whether anything does.
    fn schedule(&self) -> Result<&Schedule> {
        self.schedule
            .as_deref()
            .context("nobody is to be restarted")
    }

    /// `STEP begin` or `STEP end`: keeps what the profiler has counted.
    fn profile(&self, words: &str) -> Result<String> {
        let profiler = self.profiler.as_ref();
        profiler
            .context("this guest has no profiler")?
            .keep(words)?;
        Ok(String::new())
    }

    /// `LINK COMMAND`: a command for the device model of a link.
    pub(crate) fn model(&self, words: &str) -> Result<String> {
        let (link, command) = words.split_once(' ').unwrap_or((words, ""));
        let socket = link.parse().ok().and_then(|link| self.models.get(&link));
        let socket = socket.with_context(|| format!("this guest has no link `{link}`"))?;
        let mut stream = self.connect(socket)?;
        stream.write_all(format!("{command}\n").as_bytes())?;
        let answer = line(&mut BufReader::new(stream))?;
        match answer.trim_end().split_once(' ') {
            Some(("ok", text)) => Ok(text.into()),
            Some(("error:", reason)) => bail!("{reason}"),
            _ if answer.trim_end() == "ok" => Ok(String::new()),
            _ => bail!("the device model said `{}`", answer.trim_end()),
        }
    }

    /// `COMMAND [ARGUMENTS]`, the arguments as JSON: a command for QEMU's monitor.
    fn qmp(&self, words: &str) -> Result<String> {
        let socket = self.qmp.as_ref().context("this guest has no monitor")?;
        let (command, arguments) = words.split_once(' ').unwrap_or((words, "{}"));
        let arguments: Value =
            serde_json::from_str(arguments).context("the arguments are no JSON")?;
        let stream = self.connect(socket)?;
        let mut lines = BufReader::new(&stream);
        // QEMU's greeting.
        line(&mut lines)?;
        execute(
            &stream,
            &mut lines,
            &json!({ "execute": "qmp_capabilities" }),
        )?;
        let request = json!({ "execute": command, "arguments": arguments });
        execute(&stream, &mut lines, &request)
    }

    fn connect(&self, socket: &Path) -> Result<UnixStream> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("nobody listens at {}", socket.display()))?;
        let limit = LIMIT * self.patience.max(1);
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(stream)
    }
}

fn line(stream: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        bail!("no answer");
    }
    Ok(line)
}

/// Lets QEMU carry out a command; what it returns.
fn execute(mut stream: &UnixStream, lines: &mut impl BufRead, request: &Value) -> Result<String> {
    stream.write_all(format!("{request}\n").as_bytes())?;
    loop {
        let answer: Value = serde_json::from_str(&line(lines)?)?;
        if let Some(error) = answer.get("error") {
            bail!("{}", error["desc"].as_str().unwrap_or_default());
        }
        // Events come in between.
        if let Some(value) = answer.get("return") {
            return Ok(value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn lines_that_are_no_requests_get_no_answer() {
        let services = Services::default();
        for line in ["ok 1 - x", "# comment", "1..3", "?5", ""] {
            assert_eq!(services.answer(line), None, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_an_error_in_one_line() {
        let services = Services::default();
        for (request, words) in [
            ("dance", "no service `dance`"),
            ("model 7 stop", "no link `7`"),
            ("model x", "no link `x`"),
            ("qmp stop", "no monitor"),
            ("next", "nobody"),
            ("over", "nobody"),
            ("profile x begin", "no profiler"),
        ] {
            let answer = services.answer(&format!("?4 {request}")).unwrap();
            assert!(answer.starts_with("!4 error: "), "{answer}");
            assert!(answer.contains(words), "{answer}");
            assert_eq!(answer.matches('\n').count(), 1, "{answer}");
        }
    }

    /// A socket at which somebody answers each line with the next of `answers`.
    fn server(greeting: &'static str, answers: &'static [&'static str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(greeting.as_bytes()).unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for answer in answers {
                lines.next().unwrap().unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        folder
    }

    #[test]
    fn the_device_model_s_words_come_back() {
        for (said, heard) in [
            ("ok\n", "!9 ok \n"),
            ("ok gone@0\n", "!9 ok gone@0\n"),
            ("error: no peer 9\n", "!9 error: no peer 9\n"),
        ] {
            let said: &'static [&'static str] = Box::leak(Box::new([said]));
            let folder = server("", said);
            let mut services = Services::default();
            services.models.insert(2, folder.path().join("socket"));
            assert_eq!(services.answer("?9 model 2 status").unwrap(), heard);
        }
    }

    #[test]
    fn qemu_s_events_are_passed_over() {
        let folder = server(
            "{\"QMP\": {}}\n",
            &[
                "{\"return\": {}}\n",
                "{\"event\": \"WAKEUP\"}\n{\"return\": {\"running\": true}}\n",
            ],
        );
        let services = Services {
            qmp: Some(folder.path().join("socket")),
            ..Services::default()
        };
        let answer = services.answer("?1 qmp query-status").unwrap();
        assert_eq!(answer, "!1 ok {\"running\":true}\n");
    }
}
