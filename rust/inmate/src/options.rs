// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line: words `name=value`, separated by spaces. A value can be
//! put in double quotes, in which `\"` and `\\` stand for a quote and a
//! backslash.

use core::fmt;

/// Longest greeting in bytes.
pub const MAX_GREETING: usize = 256;
/// What follows the greeting in the output section, as in the classic demo.
const GREETING_END: &[u8] = b"\n\0";

/// What the inmate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The classic demo.
    Demo,
    /// Sends back what it receives in a channel.
    ChannelEcho,
}

/// The options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `mode=`: `demo` or `channel-echo`.
    pub mode: Mode,
    /// `greeting=`: the text for the own output section.
    pub greeting: Greeting,
    /// `target=`: the peer to ring, or to have a channel with, 0 to 65535.
    pub target: u32,
    /// `period=`: milliseconds between two doorbells, 1 to 3,600,000.
    pub period_ms: u32,
    /// `vector=`: the vector to ring on, 0 to 65535; `None` is the classic
    /// choice.
    pub vector: Option<u32>,
    /// `protocol=`: protocol type of the device to use.
    pub protocol: u16,
    /// `rounds=`: end after so many doorbells while the target was there, or so
    /// many sessions; 0 is no limit.
    pub rounds: u32,
    /// `timeout=`: fail after so many seconds, up to 86,400; 0 is no limit.
    pub timeout_s: u32,
}

impl Default for Options {
    fn default() -> Self {
        let mut greeting = Greeting::empty();
        for byte in b"Hi!" {
            greeting.push(*byte);
        }
        Self {
            mode: Mode::Demo,
            greeting,
            target: 0,
            period_ms: 1000,
            vector: None,
            protocol: 0,
            rounds: 0,
            timeout_s: 0,
        }
    }
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// Names the word that is unknown, out of range or not understood.
    pub fn parse(line: &str) -> Result<Self, OptionError<'_>> {
        let mut options = Self::default();
        let mut rest = line.trim_ascii_start();
        while !rest.is_empty() {
            let word;
            (word, rest) = split_word(rest)?;
            options.set(word)?;
        }
        Ok(options)
    }

    fn set<'a>(&mut self, word: &'a str) -> Result<(), OptionError<'a>> {
        let (name, value) = word.split_once('=').ok_or(OptionError::Unknown(word))?;
        match name {
            "greeting" => {
                self.greeting = Greeting::parse(value).ok_or(OptionError::Greeting(word))?
            }
            "mode" => {
                self.mode = match value {
                    "demo" => Mode::Demo,
                    "channel-echo" => Mode::ChannelEcho,
                    _ => return Err(OptionError::Mode(word)),
                }
            }
            "target" => self.target = number(word, value, 0, 65535)?,
            "period" => self.period_ms = number(word, value, 1, 3_600_000)?,
            "vector" => self.vector = Some(number(word, value, 0, 65535)?),
            "protocol" => self.protocol = number(word, value, 0, 0xffff)? as u16,
            "rounds" => self.rounds = number(word, value, 0, u32::MAX)?,
            "timeout" => self.timeout_s = number(word, value, 0, 86_400)?,
            _ => return Err(OptionError::Unknown(word)),
        }
        Ok(())
    }
}

/// The text that the inmate writes into its output section.
#[derive(Clone, PartialEq, Eq)]
pub struct Greeting {
    bytes: [u8; MAX_GREETING + GREETING_END.len()],
    length: usize,
}

impl Greeting {
    /// The text, a newline and a NUL: what goes into the output section.
    pub fn message(&self) -> &[u8] {
        &self.bytes[..self.length + GREETING_END.len()]
    }

    fn empty() -> Self {
        let mut bytes = [0; MAX_GREETING + GREETING_END.len()];
        bytes[..GREETING_END.len()].copy_from_slice(GREETING_END);
        Self { bytes, length: 0 }
    }

    /// Appends a byte; `false` if there is no room.
    fn push(&mut self, byte: u8) -> bool {
        if self.length == MAX_GREETING {
            return false;
        }
        self.bytes[self.length] = byte;
        self.length += 1;
        self.bytes[self.length..][..GREETING_END.len()].copy_from_slice(GREETING_END);
        true
    }

    /// Removes quotes; `None` if the text is too long.
    fn parse(value: &str) -> Option<Self> {
        let mut greeting = Self::empty();
        let mut quoted = false;
        let mut bytes = value.bytes();
        while let Some(byte) = bytes.next() {
            let literal = match byte {
                b'"' => {
                    quoted = !quoted;
                    continue;
                }
                b'\\' if quoted => bytes.next()?,
                other => other,
            };
            if !greeting.push(literal) {
                return None;
            }
        }
        Some(greeting)
    }
}

impl fmt::Debug for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.bytes[..self.length].escape_ascii())
    }
}

/// What is wrong with the command line; the fields are the offending words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionError<'a> {
    /// No such option.
    Unknown(&'a str),
    /// A quote without its end.
    Quote(&'a str),
    /// There is no such mode.
    Mode(&'a str),
    /// The greeting is too long.
    Greeting(&'a str),
    /// Not a number, or one below or above the limits given.
    Number(&'a str, u32, u32),
}

impl fmt::Display for OptionError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unknown(word) => write!(
                f,
                "unknown option \"{word}\"; there are mode=, greeting=, target=, period=, vector=, protocol=, rounds= and timeout="
            ),
            Self::Mode(word) => {
                write!(f, "unknown \"{word}\"; there are mode=demo and mode=channel-echo")
            }
            Self::Quote(word) => write!(f, "the quote in {word} does not end"),
            Self::Greeting(_) => write!(f, "the greeting is longer than {MAX_GREETING} bytes"),
            Self::Number(word, least, most) => {
                write!(f, "option \"{word}\" must be a number from {least} to {most}")
            }
        }
    }
}

/// Splits off the first word; a space inside quotes does not end it.
fn split_word(line: &str) -> Result<(&str, &str), OptionError<'_>> {
    let mut quoted = false;
    let mut escaped = false;
    for (position, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte.is_ascii_whitespace() && !quoted => {
                return Ok((&line[..position], line[position..].trim_ascii_start()));
            }
            _ => {}
        }
    }
    if quoted {
        return Err(OptionError::Quote(line));
    }
    Ok((line, ""))
}

/// Reads a decimal number, or a hexadecimal one behind `0x`.
fn number<'a>(word: &'a str, value: &str, least: u32, most: u32) -> Result<u32, OptionError<'a>> {
    let (digits, radix) = match value.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (value, 10),
    };
    // from_str_radix takes a sign as well.
    u32::from_str_radix(digits, radix)
        .ok()
        .filter(|number| !digits.starts_with('+') && (least..=most).contains(number))
        .ok_or(OptionError::Number(word, least, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_line_is_the_classic_demo() {
        let options = Options::parse("  ").unwrap();
        assert_eq!(options, Options::default());
        assert_eq!(options.greeting.message(), b"Hi!\n\0");
        assert_eq!(
            (options.target, options.period_ms, options.vector),
            (0, 1000, None)
        );
    }

    #[test]
    fn reads_all_options() {
        let line =
            "greeting=Hello target=2 period=50 vector=0x3 protocol=0x4001 rounds=7 timeout=60";
        let options = Options::parse(line).unwrap();
        assert_eq!(options.greeting.message(), b"Hello\n\0");
        assert_eq!(
            (options.target, options.period_ms, options.vector),
            (2, 50, Some(3))
        );
        assert_eq!(
            (options.protocol, options.rounds, options.timeout_s),
            (0x4001, 7, 60)
        );
    }

    #[test]
    fn quotes_keep_spaces() {
        let greeting = |line| Options::parse(line).unwrap().greeting;
        assert_eq!(
            greeting("greeting=\"two words\" target=1").message(),
            b"two words\n\0"
        );
        assert_eq!(greeting("\t greeting=a\" \"b ").message(), b"a b\n\0");
        assert_eq!(
            greeting(r#"greeting="say \"hi\" \\""#).message(),
            b"say \"hi\" \\\n\0"
        );
        assert_eq!(greeting(r"greeting=a\b").message(), b"a\\b\n\0");
        assert_eq!(greeting("greeting=").message(), b"\n\0");
        assert_eq!(greeting("greeting=Grüße").message(), "Grüße\n\0".as_bytes());
    }

    #[test]
    fn a_greeting_has_a_limit() {
        let text = format!("greeting={}", "x".repeat(MAX_GREETING));
        assert_eq!(
            Options::parse(&text).unwrap().greeting.message().len(),
            MAX_GREETING + 2
        );
        let text = text + "x";
        assert_eq!(Options::parse(&text), Err(OptionError::Greeting(&text)));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(Options::parse("quiet"), Err(OptionError::Unknown("quiet")));
        assert_eq!(
            Options::parse("target=1 x=2"),
            Err(OptionError::Unknown("x=2"))
        );
        assert_eq!(
            Options::parse("mode=echo"),
            Err(OptionError::Mode("mode=echo"))
        );
        assert_eq!(
            Options::parse("mode=channel-echo").unwrap().mode,
            Mode::ChannelEcho
        );
        assert_eq!(
            Options::parse("greeting=\"a b"),
            Err(OptionError::Quote("greeting=\"a b"))
        );
    }

    #[test]
    fn refuses_numbers_out_of_range() {
        for word in [
            "target=65536",
            "target=-1",
            "target=+1",
            "target=",
            "target=1x",
            "target=0x",
        ] {
            assert_eq!(
                Options::parse(word),
                Err(OptionError::Number(word, 0, 65535))
            );
        }
        assert_eq!(
            Options::parse("period=0"),
            Err(OptionError::Number("period=0", 1, 3_600_000))
        );
        assert!(Options::parse("rounds=4294967296").is_err());
    }
}
