//! Taking numbers and JSON out of bytes, with an error that says where.

use serde::de::DeserializeOwned;

use crate::FormatError;

/// A place in a file's bytes.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    file: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the beginning of `bytes`, all of `file`.
    pub fn new(file: &'a str, bytes: &'a [u8]) -> Self {
        Self { file, bytes, at: 0 }
    }

    /// How far it is.
    pub fn offset(&self) -> u64 {
        self.at as u64
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize, field: &str) -> Result<&'a [u8], FormatError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..length).ok_or_else(|| self.error(field, "the file ends in it"))?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], FormatError> {
        let taken = self.bytes(N, field)?;
        Ok(std::array::from_fn(|at| taken[at]))
    }

    /// Little-endian.
    pub fn u32(&mut self, field: &str) -> Result<u32, FormatError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// Little-endian.
    pub fn u64(&mut self, field: &str) -> Result<u64, FormatError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// Little-endian.
    pub fn u128(&mut self, field: &str) -> Result<u128, FormatError> {
        self.array(field).map(u128::from_le_bytes)
    }

    /// [`FormatError::Field`] at this place.
    pub fn error(&self, field: impl Into<String>, reason: impl Into<String>) -> FormatError {
        field_error(self.file, self.offset(), field, reason)
    }
}

/// [`FormatError::Field`].
pub fn field_error(file: &str, offset: u64, field: impl Into<String>, reason: impl Into<String>) -> FormatError {
    FormatError::Field { file: file.into(), offset, field: field.into(), reason: reason.into() }
}

/// Number of something, at most `limit`.
pub fn at_most(file: &str, field: &'static str, is: u64, limit: usize) -> Result<usize, FormatError> {
    if is > limit as u64 {
        return Err(FormatError::Limit { file: file.into(), field, is, limit: limit as u64 });
    }
    Ok(is as usize)
}

/// JSON that begins at `offset` of the file.
pub fn json<T: DeserializeOwned>(file: &str, offset: u64, text: &[u8]) -> Result<T, FormatError> {
    let mut from = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut from).map_err(|error| {
        let inner = error.inner();
        let at = offset + offset_of(text, inner.line(), inner.column());
        field_error(file, at, error.path().to_string(), inner.to_string())
    })?;
    from.end().map_err(|error| field_error(file, offset, "end of the JSON", error.to_string()))?;
    Ok(value)
}

/// Where in a text a line and column is; both count from 1, and 0 is unknown.
fn offset_of(text: &[u8], line: usize, column: usize) -> u64 {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    (before + column.saturating_sub(1)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_field_is_named_with_its_place() {
        let error = json::<Vec<u8>>("f", 100, b"[1,\n 2,\n \"x\"]").unwrap_err();
        let FormatError::Field { offset, field, .. } = &error else { panic!("{error}") };
        assert_eq!(field, "[2]");
        assert!((108..=112).contains(offset), "{error}");
    }

    #[test]
    fn nothing_behind_the_end() {
        assert!(json::<u8>("f", 0, b"1 2").is_err());
        let mut cursor = Cursor::new("f", &[1, 0, 0, 0, 9]);
        assert_eq!(cursor.u32("a").unwrap(), 1);
        assert_eq!(cursor.u32("b").unwrap_err().to_string(), "f: at byte 4: b: the file ends in it");
    }
}
