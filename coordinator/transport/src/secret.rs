//! Files with keys in them: JSON, 0600, whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::KeysError;
use crate::keys::FORMAT;
use crate::limits::KEY_FILE_BYTES_MAX;

/// Bytes of a certificate or key; base64 in JSON.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Der(pub Vec<u8>);

impl Serialize for Der {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Der {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // What it is not is not said: it may be a key.
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map(Self).map_err(|_| D::Error::custom("a key or certificate that is not base64"))
    }
}

/// From a file that nobody else could read, or standard input for `-`.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, KeysError> {
    if path == Path::new("-") {
        return parse(path, &mut io::stdin().lock());
    }
    let cannot = |source| KeysError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(cannot)?;
    let about = file.metadata().map_err(cannot)?;
    if about.mode() & 0o077 != 0 {
        return Err(KeysError::Open { path: path.to_owned(), mode: about.mode() & 0o7777 });
    }
    parse(path, &mut BufReader::new(file))
}

/// Into a file beside it first, so that a coordinator that is killed here leaves the old one or the new one.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), KeysError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let written = fs::remove_file(&part).or_else(none_there).and_then(|()| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        file.write_all(line(value).as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)
    });
    written.map_err(|source| {
        let _ = fs::remove_file(&part);
        KeysError::Write { path: path.to_owned(), source }
    })
}

/// One line of JSON.
pub(crate) fn line<T: Serialize>(value: &T) -> String {
    // Maps with string keys and base64: there is nothing in them that JSON cannot say.
    serde_json::to_string(value).unwrap_or_default() + "\n"
}

/// The version of a file that was read.
pub(crate) fn check_format(path: &Path, format: u32) -> Result<(), KeysError> {
    if format == FORMAT {
        return Ok(());
    }
    Err(KeysError::Format { path: path.to_owned(), reason: format!("it has version {format}, this program {FORMAT}") })
}

/// The first JSON value: what follows it on standard input is not ours.
fn parse<T: DeserializeOwned>(path: &Path, from: &mut dyn Read) -> Result<T, KeysError> {
    let mut limited = from.take(KEY_FILE_BYTES_MAX);
    let first = serde_json::Deserializer::from_reader(&mut limited).into_iter::<T>().next();
    if limited.limit() == 0 {
        return Err(KeysError::TooLong { path: path.to_owned() });
    }
    let format = |reason| KeysError::Format { path: path.to_owned(), reason };
    match first {
        Some(Ok(value)) => Ok(value),
        Some(Err(cause)) if cause.is_io() => Err(KeysError::Read { path: path.to_owned(), source: cause.into() }),
        Some(Err(cause)) => Err(format(cause.to_string())),
        None => Err(format("it is empty".to_owned())),
    }
}

fn none_there(cause: io::Error) -> io::Result<()> {
    if cause.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(cause) }
}
