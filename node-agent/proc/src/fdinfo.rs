//! `/proc/PID/fdinfo/N`, see proc_pid_fdinfo(5).

use thiserror::Error;

/// What fdinfo tells of one open file description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fdinfo {
    /// Offset of the description.
    pub position: u64,
    /// O_ACCMODE and status flags as open(2) knows them, without O_CLOEXEC.
    pub flags: u32,
    /// FD_CLOEXEC of the descriptor.
    pub close_on_exec: bool,
    /// What only some kinds of files have.
    pub extra: Extra,
}

/// The part of fdinfo that depends on the kind of file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Extra {
    /// Nothing more.
    #[default]
    None,
    /// eventfd(2).
    Eventfd {
        /// Counter.
        count: u64,
        /// EFD_SEMAPHORE.
        semaphore: bool,
    },
    /// timerfd_create(2).
    Timerfd {
        /// CLOCK_*.
        clock: i32,
        /// Expirations that nobody has read.
        ticks: u64,
        /// TFD_TIMER_*.
        settime_flags: u32,
        /// Nanoseconds until the next expiration, 0 = disarmed.
        value_ns: u64,
        /// Nanoseconds between expirations.
        interval_ns: u64,
    },
    /// signalfd(2).
    Signalfd {
        /// Kernel signal set.
        mask: u64,
    },
    /// epoll_create(2).
    Epoll(Vec<EpollTarget>),
    /// inotify_init(2).
    Inotify(Vec<InotifyWatch>),
    /// pidfd_open(2): the process in the pid namespace of this /proc, -1 when it has been reaped.
    Pidfd {
        #[allow(missing_docs)]
        pid: i32,
    },
}

/// A `tfd:` line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpollTarget {
    /// Number at registration; may mean something else by now.
    pub number: i32,
    /// EPOLL* bits.
    pub events: u32,
    /// epoll_data.
    pub data: u64,
    /// Inode of the watched file.
    pub inode: u64,
}

/// An `inotify` line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InotifyWatch {
    /// Watch descriptor.
    pub wd: i32,
    /// Inode watched.
    pub inode: u64,
    /// Its device in the kernel's own encoding (major << 20 | minor).
    pub device: u32,
    /// IN_* bits.
    pub mask: u32,
}

/// Why a text is not an fdinfo.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FdinfoError {
    /// A line that must be there is not.
    #[error("fdinfo has no line `{0}`")]
    Missing(&'static str),
    /// A value is no number of the expected base.
    #[error("fdinfo field `{field}` holds `{text}`, which is no number")]
    Number {
        #[allow(missing_docs)]
        field: &'static str,
        #[allow(missing_docs)]
        text: String,
    },
}

const O_CLOEXEC: u64 = 0o2000000;

/// Reads the text of one fdinfo file.
///
/// # Errors
/// When a line that the kernel always writes is missing or holds no number.
pub fn parse(text: &str) -> Result<Fdinfo, FdinfoError> {
    let mut info = Fdinfo::default();
    let flags = number(text, "flags", 8)?;
    info.position = number(text, "pos", 10)?;
    info.close_on_exec = flags & O_CLOEXEC != 0;
    info.flags = (flags & !O_CLOEXEC) as u32;
    info.extra = extra(text)?;
    Ok(info)
}

fn extra(text: &str) -> Result<Extra, FdinfoError> {
    if value(text, "eventfd-count").is_some() {
        return Ok(Extra::Eventfd {
            count: number(text, "eventfd-count", 16)?,
            semaphore: value(text, "eventfd-semaphore").is_some_and(|it| it != "0"),
        });
    }
    if value(text, "clockid").is_some() {
        return Ok(Extra::Timerfd {
            clock: number(text, "clockid", 10)? as i32,
            ticks: number(text, "ticks", 10)?,
            settime_flags: number(text, "settime flags", 8)? as u32,
            value_ns: pair_ns(text, "it_value")?,
            interval_ns: pair_ns(text, "it_interval")?,
        });
    }
    if value(text, "sigmask").is_some() {
        return Ok(Extra::Signalfd { mask: number(text, "sigmask", 16)? });
    }
    if let Some(pid) = value(text, "Pid") {
        let pid = pid.parse().map_err(|_| FdinfoError::Number { field: "Pid", text: pid.into() })?;
        return Ok(Extra::Pidfd { pid });
    }
    let targets =
        text.lines().filter(|line| line.starts_with("tfd:")).map(epoll_target).collect::<Result<Vec<_>, _>>()?;
    if !targets.is_empty() {
        return Ok(Extra::Epoll(targets));
    }
    let watches = text.lines().filter(|line| line.starts_with("inotify ")).map(watch).collect::<Result<Vec<_>, _>>()?;
    if !watches.is_empty() {
        return Ok(Extra::Inotify(watches));
    }
    Ok(Extra::None)
}

fn epoll_target(line: &str) -> Result<EpollTarget, FdinfoError> {
    Ok(EpollTarget {
        number: inline(line, "tfd:", 10)? as i32,
        events: inline(line, "events:", 16)? as u32,
        data: inline(line, "data:", 16)?,
        inode: inline(line, "ino:", 16)?,
    })
}

fn watch(line: &str) -> Result<InotifyWatch, FdinfoError> {
    Ok(InotifyWatch {
        wd: inline(line, "wd:", 16)? as i32,
        inode: inline(line, "ino:", 16)?,
        device: inline(line, "sdev:", 16)? as u32,
        mask: inline(line, "mask:", 16)? as u32,
    })
}

/// `field: value` at the start of a line.
fn value<'a>(text: &'a str, field: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).map(str::trim)
}

fn number(text: &str, field: &'static str, base: u32) -> Result<u64, FdinfoError> {
    let text = value(text, field).ok_or(FdinfoError::Missing(field))?;
    u64::from_str_radix(text, base).map_err(|_| FdinfoError::Number { field, text: text.into() })
}

/// `field: (seconds, nanoseconds)` in nanoseconds.
fn pair_ns(text: &str, field: &'static str) -> Result<u64, FdinfoError> {
    let text = value(text, field).ok_or(FdinfoError::Missing(field))?;
    let wrong = || FdinfoError::Number { field, text: text.into() };
    let (seconds, ns) = text.trim_matches(['(', ')']).split_once(',').ok_or_else(wrong)?;
    let seconds: u64 = seconds.trim().parse().map_err(|_| wrong())?;
    let ns: u64 = ns.trim().parse().map_err(|_| wrong())?;
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(ns))
}

/// `key value` or `key:value` somewhere in a line of several.
fn inline(line: &str, key: &'static str, base: u32) -> Result<u64, FdinfoError> {
    let start = line
        .match_indices(key)
        .find(|(at, _)| *at == 0 || line.as_bytes()[at - 1] == b' ')
        .ok_or(FdinfoError::Missing(key))?
        .0;
    let text = line[start + key.len()..].split_whitespace().next().unwrap_or_default();
    u64::from_str_radix(text, base).map_err(|_| FdinfoError::Number { field: key, text: text.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_file() {
        let info = parse("pos:\t12\nflags:\t02100002\nmnt_id:\t29\nino:\t4\nlock:\t1: POSIX\n").unwrap();
        assert_eq!((info.position, info.flags, info.close_on_exec), (12, 0o100002, true));
        assert_eq!(info.extra, Extra::None);
    }

    #[test]
    fn kinds() {
        let head = "pos:\t0\nflags:\t04002\nmnt_id:\t17\nino:\t1038\n";
        let extra = |tail: &str| parse(&format!("{head}{tail}")).unwrap().extra;
        assert_eq!(
            extra("eventfd-count:               2a\neventfd-id: 7\neventfd-semaphore: 1\n"),
            Extra::Eventfd { count: 42, semaphore: true }
        );
        assert_eq!(
            extra("clockid: 1\nticks: 3\nsettime flags: 01\nit_value: (1, 5)\nit_interval: (0, 7)\n"),
            Extra::Timerfd { clock: 1, ticks: 3, settime_flags: 1, value_ns: 1_000_000_005, interval_ns: 7 }
        );
        assert_eq!(extra("sigmask:\t0000000000000200\n"), Extra::Signalfd { mask: 0x200 });
        assert_eq!(
            extra("tfd:       14 events:       19 data:                e  pos:0 ino:e92e sdev:9\n"),
            Extra::Epoll(vec![EpollTarget { number: 14, events: 0x19, data: 14, inode: 0xe92e }])
        );
        assert_eq!(
            extra("inotify wd:1 ino:b5 sdev:800001 mask:800afce ignored_mask:0 fhandle-bytes:8\n"),
            Extra::Inotify(vec![InotifyWatch { wd: 1, inode: 0xb5, device: 0x800001, mask: 0x800_afce }])
        );
        assert_eq!(extra("Pid:\t-1\nNSpid:\t-1\n"), Extra::Pidfd { pid: -1 });
    }

    #[test]
    fn foreign_text_is_an_error() {
        assert_eq!(parse("pos: 1\n"), Err(FdinfoError::Missing("flags")));
        assert!(matches!(parse("pos: x\nflags: 0\n"), Err(FdinfoError::Number { field: "pos", .. })));
        assert!(parse("pos:\t0\nflags:\t00\ntfd:").is_err());
    }
}
