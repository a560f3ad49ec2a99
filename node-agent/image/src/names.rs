//! Names of folders and files.

/// The file that names all others.
pub const MANIFEST: &str = "manifest";
const NODE: &str = "node-";
const MODEL: &str = ".model";
const DATA: &str = ".data-";
const COMMITTED: &str = "gen-";
const HIDDEN: &str = ".";
const UNFINISHED: &str = ".part";

/// `gen-000007`.
#[must_use]
pub fn committed(generation: u64) -> String {
    format!("{COMMITTED}{generation:06}")
}

/// `.gen-000007.part`.
#[must_use]
pub fn unfinished(generation: u64) -> String {
    format!("{HIDDEN}{}{UNFINISHED}", committed(generation))
}

/// `node-2.model`: model and page tables of a virtual node.
#[must_use]
pub fn model(node: u32) -> String {
    format!("{NODE}{node}{MODEL}")
}

/// `node-2.data-3`.
#[must_use]
pub fn data(node: u32, number: usize) -> String {
    format!("{NODE}{node}{DATA}{number}")
}

/// The virtual node of a model file's name; None for any other name.
#[must_use]
pub fn node_of_model(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(NODE)?.strip_suffix(MODEL)?;
    digits.parse().ok().filter(|node| model(*node) == name)
}

/// The number in a committed generation's name; None for any other name.
#[must_use]
pub fn generation_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(COMMITTED)?;
    // Written back it must be the same: `gen-7` and `gen-+00007` are somebody else's.
    digits.parse().ok().filter(|number| committed(*number) == name)
}

/// True for the name of what is being written, or was when somebody died.
#[must_use]
pub fn is_unfinished(name: &str) -> bool {
    let inner = name.strip_prefix(HIDDEN).and_then(|rest| rest.strip_suffix(UNFINISHED));
    inner.is_some_and(|inner| generation_of(inner).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(committed(7), "gen-000007");
        assert_eq!(unfinished(7), ".gen-000007.part");
        assert_eq!((model(2), data(2, 3)), ("node-2.model".into(), "node-2.data-3".into()));
        for node in [0, 7, u32::MAX] {
            assert_eq!(node_of_model(&model(node)), Some(node));
        }
        for name in ["node-.model", "node-07.model", "node-+7.model", "node-7.model.old", "node-7.data-0", "manifest"] {
            assert_eq!(node_of_model(name), None, "{name}");
        }
        for number in [0, 7, 999_999, 1_000_000, u64::MAX] {
            assert_eq!(generation_of(&committed(number)), Some(number));
            assert_eq!(generation_of(&unfinished(number)), None);
            assert!(is_unfinished(&unfinished(number)) && !is_unfinished(&committed(number)));
        }
        for name in ["gen-7", "gen-+00007", "gen-", "gen-0000007", "gen-000007.part", "gen-99999999999999999999999"] {
            assert_eq!(generation_of(name), None, "{name}");
        }
        for name in [".gen-.part", ".gen-7.part", "gen-000007.part", ".gen-000007", ".part"] {
            assert!(!is_unfinished(name), "{name}");
        }
    }
}
