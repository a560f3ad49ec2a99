//! /proc/PID/limits.

/// Names in the order of RLIMIT_*.
const NAMES: [&str; 16] = [
    "Max cpu time",
    "Max file size",
    "Max data size",
    "Max stack size",
    "Max core file size",
    "Max resident set",
    "Max processes",
    "Max open files",
    "Max locked memory",
    "Max address space",
    "Max file locks",
    "Max pending signals",
    "Max msgqueue size",
    "Max nice priority",
    "Max realtime priority",
    "Max realtime timeout",
];

/// Soft and hard limit by RLIMIT_*; u64::MAX = unlimited or not told.
pub fn parse(text: &str) -> Vec<(u64, u64)> {
    let value = |text: Option<&str>| text.and_then(|it| it.parse().ok()).unwrap_or(u64::MAX);
    let limit = |name: &&str| {
        let mut values = text.lines().find_map(|line| line.strip_prefix(*name)).unwrap_or_default().split_whitespace();
        (value(values.next()), value(values.next()))
    };
    NAMES.iter().map(limit).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_and_unlimited() {
        let text = "Limit  Soft Limit Hard Limit Units\nMax cpu time    unlimited unlimited seconds\n\
                    Max open files            1024                 4096                 files\n";
        let limits = super::parse(text);
        assert_eq!((limits.len(), limits[0], limits[7]), (16, (u64::MAX, u64::MAX), (1024, 4096)));
    }
}
