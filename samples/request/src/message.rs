// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests and answers as messages: a number, in answers a byte that says how it went, and text.

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// Repeated in the answer.
    pub(crate) number: u32,
    /// What is asked for.
    pub(crate) text: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Of the request.
    pub(crate) number: u32,
    /// The answer, or why there is none.
    pub(crate) result: Result<String, String>,
}

impl Request {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&self.number.to_le_bytes(), self.text.as_bytes()].concat()
    }

    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let (number, text) = message.split_first_chunk()?;
        Some(Self {
            number: u32::from_le_bytes(*number),
            text: printable(text),
        })
    }
}

impl Answer {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (failed, text) = match &self.result {
            Ok(text) => (0, text),
            Err(text) => (1, text),
        };
        [&self.number.to_le_bytes(), &[failed][..], text.as_bytes()].concat()
    }

    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let (number, rest) = message.split_first_chunk()?;
        let (failed, text) = rest.split_first()?;
        let text = printable(text);
        Some(Self {
            number: u32::from_le_bytes(*number),
            result: if *failed == 0 { Ok(text) } else { Err(text) },
        })
    }
}

/// The peer's text, made fit for a terminal: it may be anything.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_parsed() {
        let request = Request {
            number: 7,
            text: "echo ä".into(),
        };
        assert_eq!(Request::parse(&request.bytes()), Some(request));
        for result in [
            Ok("yes".to_string()),
            Err("no".to_string()),
            Ok(String::new()),
        ] {
            let answer = Answer { number: 9, result };
            assert_eq!(Answer::parse(&answer.bytes()), Some(answer));
        }
    }

    #[test]
    fn anything_may_come() {
        assert_eq!(Request::parse(b"abc"), None);
        assert_eq!(Answer::parse(b"abcd"), None);
        let request = Request::parse(b"\x01\0\0\0\x1b[2J\xff").expect("a request");
        assert!(!request.text.chars().any(char::is_control));
    }
}
