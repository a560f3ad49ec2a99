//! /proc/PID/maps and /proc/PID/smaps.

use std::collections::HashMap;

/// A text that is not what the kernel writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine(String);

impl std::fmt::Display for BadLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a line of /proc/PID/maps: {}", self.0)
    }
}

impl std::error::Error for BadLine {}

/// A line of maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Area {
    #[allow(missing_docs)]
    pub start: u64,
    #[allow(missing_docs)]
    pub end: u64,
    /// PROT_READ 1, PROT_WRITE 2, PROT_EXEC 4.
    pub protection: u32,
    #[allow(missing_docs)]
    pub shared: bool,
    /// Bytes.
    pub offset: u64,
    /// Major and minor number of the file's device.
    pub device: (u32, u32),
    #[allow(missing_docs)]
    pub inode: u64,
    /// Path or a name in brackets; empty for anonymous memory. Newlines are undone.
    pub path: Vec<u8>,
}

/// Parses a whole maps file.
///
/// # Errors
/// The first line that is none.
pub fn parse(text: &[u8]) -> Result<Vec<Area>, BadLine> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| area(line).ok_or_else(|| BadLine(String::from_utf8_lossy(line).into_owned()))).collect()
}

/// VmFlags by start address, from a whole smaps file; lines that are not understood are passed over.
pub fn flags(text: &[u8]) -> HashMap<u64, Vec<String>> {
    let (mut flags, mut start) = (HashMap::new(), 0);
    for line in text.split(|byte| *byte == b'\n') {
        if let Some(rest) = line.strip_prefix(b"VmFlags:") {
            let names = String::from_utf8_lossy(rest).split_whitespace().map(str::to_owned).collect();
            flags.insert(start, names);
        } else if let Some(area) = area(line) {
            start = area.start;
        }
    }
    flags
}

fn area(line: &[u8]) -> Option<Area> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut field = || std::str::from_utf8(fields.next()?).ok();
    let (start, end) = field()?.split_once('-')?;
    let bits = field()?.as_bytes();
    let offset = u64::from_str_radix(field()?, 16).ok()?;
    let (major, minor) = field()?.split_once(':')?;
    let inode = field()?.parse().ok()?;
    let bit = |at: usize, letter: u8, value: u32| if bits.get(at) == Some(&letter) { value } else { 0 };
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let path = fields.next().unwrap_or_default();
    let blanks = path.iter().take_while(|byte| **byte == b' ').count();
    Some(Area {
        start: hex(start)?,
        end: hex(end)?,
        protection: bit(0, b'r', 1) | bit(1, b'w', 2) | bit(2, b'x', 4),
        shared: bits.get(3) == Some(&b's'),
        offset,
        device: (hex(major)? as u32, hex(minor)? as u32),
        inode,
        path: unescape(&path[blanks..]),
    })
}

/// The kernel writes newlines as `\012`.
fn unescape(path: &[u8]) -> Vec<u8> {
    const NEWLINE: &[u8] = b"\\012";
    let (mut out, mut rest) = (Vec::with_capacity(path.len()), path);
    while let Some(first) = rest.first() {
        if rest.starts_with(NEWLINE) {
            out.push(b'\n');
            rest = &rest[NEWLINE.len()..];
        } else {
            out.push(*first);
            rest = &rest[1..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"7f0a00001000-7f0a00003000 r-xp 00002000 fe:01 1234                       /lib/a b.so\n";

    #[test]
    fn a_file_with_a_blank_in_its_name() {
        let area = parse(LINE).expect("a line").remove(0);
        assert_eq!((area.start, area.end, area.protection), (0x7f0a_0000_1000, 0x7f0a_0000_3000, 5));
        assert_eq!((area.offset, area.device, area.inode, area.shared), (0x2000, (0xfe, 1), 1234, false));
        assert_eq!(area.path, b"/lib/a b.so");
    }

    #[test]
    fn anonymous_memory_has_no_path() {
        let area = parse(b"1000-2000 rw-s 00000000 00:00 0 \n").expect("a line").remove(0);
        assert!(area.path.is_empty() && area.shared);
    }

    #[test]
    fn flags_belong_to_the_line_before_them() {
        let text = [LINE, b"Size: 8 kB\nVmFlags: rd ex mr dd \n"].concat();
        assert_eq!(flags(&text)[&0x7f0a_0000_1000], ["rd", "ex", "mr", "dd"]);
    }

    #[test]
    fn other_texts_are_refused() {
        assert!(parse(b"nonsense\n").is_err());
        assert!(parse(b"1000-2000 rw-s\n").is_err());
    }
}
