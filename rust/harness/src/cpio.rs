// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes initramfs archives: cpio in the "newc" format of the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst.

use std::io::{self, Write};

/// S_IFDIR | rwxr-xr-x.
const DIRECTORY: u32 = 0o040_755;
/// S_IFREG.
const REGULAR: u32 = 0o100_000;
/// S_IFCHR | rw-------.
const CHARACTER: u32 = 0o020_600;

/// An archive being written.
#[derive(Debug)]
pub(crate) struct Archive<W: Write> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, inode: 0 }
    }

    /// A directory. Parents come first.
    pub(crate) fn directory(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, DIRECTORY, &[], (0, 0))
    }

    /// A file with the permissions `mode` (0 to 0o7777).
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(path, REGULAR | mode, content, (0, 0))
    }

    /// A character device.
    pub(crate) fn character_device(
        &mut self,
        path: &str,
        major: u32,
        minor: u32,
    ) -> io::Result<()> {
        self.entry(path, CHARACTER, &[], (major, minor))
    }

    /// Writes the end mark and returns what was written into.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.inode = u32::MAX; // wraps to 0, as the end mark has it
        self.entry("TRAILER!!!", 0, &[], (0, 0))?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        content: &[u8],
        device: (u32, u32),
    ) -> io::Result<()> {
        self.inode = self.inode.wrapping_add(1);
        let name = path.trim_start_matches('/');
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::other(format!("{path} is too large for an initramfs")))?;
        let fields = [
            self.inode,
            mode,
            0, // uid
            0, // gid
            1, // links
            0, // time
            size,
            0, // major and minor of the file system
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0, // checksum, unused in this format
        ];
        let mut header = String::from("070701");
        for field in fields {
            header += &format!("{field:08x}");
        }
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(header.len() + name.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    /// Fills up to a multiple of 4.
    fn pad(&mut self, length: usize) -> io::Result<()> {
        let missing = length.next_multiple_of(4) - length;
        self.out.write_all(&[0; 3][..missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn sample() -> Vec<u8> {
        let mut archive = Archive::new(Vec::new());
        archive.directory("bin").unwrap();
        archive.file("/bin/a", 0o755, b"12345").unwrap();
        archive.character_device("console", 5, 1).unwrap();
        archive.finish().unwrap()
    }

    /// Reads an archive back, by the format's text and not by the code above.
    fn parse(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[6 + index * 8..14 + index * 8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[110 + name_size - 1], 0);
            let begin = (110 + name_size).next_multiple_of(4);
            let content = bytes[begin..begin + size].to_vec();
            if name == "TRAILER!!!" {
                return entries;
            }
            bytes = &bytes[(begin + size).next_multiple_of(4)..];
            entries.push((name, mode, content));
        }
    }

    #[test]
    fn entries_are_found_again() {
        let entries = parse(&sample());
        let names: Vec<_> = entries.iter().map(|entry| entry.0.as_str()).collect();
        assert_eq!(names, ["bin", "bin/a", "console"]);
        assert_eq!(entries[1].1, 0o100_755);
        assert_eq!(entries[1].2, b"12345");
    }

    #[test]
    fn busybox_reads_it() {
        let child = Command::new("busybox")
            .args(["cpio", "-t"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.expect("busybox is needed: run the tests in the toolbox");
        child.stdin.take().unwrap().write_all(&sample()).unwrap();
        let output = child.wait_with_output().unwrap();
        let listing = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            listing.lines().collect::<Vec<_>>(),
            ["bin", "bin/a", "console"]
        );
    }
}
