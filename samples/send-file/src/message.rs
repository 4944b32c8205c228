// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages of a transfer: a letter, and what it is about.
//!
//! ```text
//! sender    B size digest name    here is a file
//! receiver  H offset              I have so much of it already
//! sender    D bytes ...           the rest
//! sender    E                     that was all; confirmed when it is stored
//! receiver  X text                I refuse, because ...
//! ```
//!
//! A refusal may come at any time. The receiver reads on, and stores nothing more, until the sender has
//! closed: if it closed first and began its next session, that would take the reason away.

/// SHA-256.
pub(crate) type Digest = [u8; 32];

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A file.
    Begin {
        /// Size in bytes.
        size: u64,
        /// Of the whole content.
        digest: Digest,
        /// Without folders.
        name: &'a str,
    },
    /// The receiver has so many bytes of it.
    Have(u64),
    /// The next bytes.
    Data(&'a [u8]),
    /// All was sent.
    End,
    /// The receiver does not want it.
    Refuse(&'a str),
}

impl<'a> Message<'a> {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Begin { size, digest, name } => {
                [b"B", &size.to_le_bytes()[..], digest, name.as_bytes()].concat()
            }
            Self::Have(offset) => [b"H", &offset.to_le_bytes()[..]].concat(),
            Self::Data(bytes) => [b"D", *bytes].concat(),
            Self::End => b"E".to_vec(),
            Self::Refuse(reason) => [b"X", reason.as_bytes()].concat(),
        }
    }

    /// None for what is no message.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (letter, rest) = bytes.split_first()?;
        Some(match letter {
            b'B' => {
                let (size, rest) = rest.split_first_chunk()?;
                let (digest, name) = rest.split_first_chunk()?;
                Self::Begin {
                    size: u64::from_le_bytes(*size),
                    digest: *digest,
                    name: std::str::from_utf8(name).ok().filter(|it| is_name(it))?,
                }
            }
            b'H' => Self::Have(u64::from_le_bytes(rest.try_into().ok()?)),
            b'D' => Self::Data(rest),
            b'E' if rest.is_empty() => Self::End,
            b'X' => Self::Refuse(std::str::from_utf8(rest).ok()?),
            _ => return None,
        })
    }
}

/// Whether a file may be called so: one that leads nowhere else, and is not hidden.
pub(crate) fn is_name(name: &str) -> bool {
    let bad = |c: char| c == '/' || c == '\\' || c.is_control();
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && !name.contains(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_parsed() {
        let begin = Message::Begin {
            size: 1 << 40,
            digest: [7; 32],
            name: "a file.txt",
        };
        for message in [
            begin,
            Message::Have(9),
            Message::Data(b"bytes"),
            Message::End,
            Message::Refuse("no room"),
        ] {
            assert_eq!(Message::parse(&message.bytes()).as_ref(), Some(&message));
        }
    }

    #[test]
    fn a_peer_cannot_name_other_folders() {
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/etc/passwd",
            ".hidden",
            "a\nb",
            "a\0",
        ] {
            let digest = [0; 32];
            let begin = Message::Begin {
                size: 1,
                digest,
                name,
            };
            assert_eq!(Message::parse(&begin.bytes()), None, "{name:?}");
        }
        for bytes in [&b""[..], b"B", b"Bshort", b"H1", b"Exy", b"?"] {
            assert_eq!(Message::parse(bytes), None, "{bytes:?}");
        }
    }
}
