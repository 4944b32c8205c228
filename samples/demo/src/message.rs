// SPDX-License-Identifier: MIT OR Apache-2.0
//! A text from another cell, made fit for a terminal.
//!
//! The peer may write anything at any time. So the bytes are a copy of bounded length, and what is
//! printed cannot contain control characters.

/// Bytes of a message that are looked at.
pub(crate) const LONGEST: usize = 512;

/// The text up to the first NUL, without the line end that the inmate puts behind it. `None` if
/// there is none.
pub(crate) fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0);
    let text = String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]);
    let text = text.trim_end_matches(['\r', '\n']);
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    (!text.is_empty()).then(|| text.chars().map(visible).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classic_message() {
        assert_eq!(text(b"Hi!\n\0garbage").as_deref(), Some("Hi!"));
    }

    #[test]
    fn no_message() {
        assert_eq!(text(b"\0Hi!"), None);
        assert_eq!(text(b"\n\0"), None);
        assert_eq!(text(b""), None);
    }

    #[test]
    fn hostile_messages_are_bounded_and_harmless() {
        assert_eq!(text(&[b'x'; LONGEST]).map(|text| text.len()), Some(LONGEST));
        let escape = text(b"\x1b[2Jgone\x07").expect("a text");
        assert!(!escape.chars().any(char::is_control), "{escape:?}");
        assert!(text(&[0xff, 0xfe, b'a']).expect("a text").ends_with('a'));
    }
}
