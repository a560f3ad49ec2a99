//! Columns for people, readable without colour; JSON goes through serde.

/// Prints rows below their heads, each column as wide as it must be.
pub fn print<const N: usize>(heads: [&str; N], rows: &[[String; N]]) {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).chain([heads[at].len()]).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in std::iter::once(heads.map(str::to_owned)).chain(rows.iter().cloned()) {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

/// `1.5 GiB`, `20 KiB`, `7 B`.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (number as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(
            [bytes(7), bytes(20 << 10), bytes(3 << 29), bytes(200 << 20)],
            ["7 B", "20.0 KiB", "1.5 GiB", "200 MiB"]
        );
    }
}
