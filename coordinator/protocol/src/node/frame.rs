//! One frame: two bytes of version (little-endian), then the message in postcard. Its length is the transport's matter.
//!
//! postcard and not JSON, which `ckpt` is spoken to in: chunks of streams are bytes, and addresses come in tens of
//! thousands while a job stands still. The version is outside of it, so that it can be read in any other version.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Version of the messages between nodes. Any change of a message is a new version: postcard has no field names.
pub const PROTOCOL: u16 = 1;
/// Bytes of a frame with its version, at most: [`EDGES_PER_REPORT`] edges between IPv6 addresses fit twice.
pub const FRAME_BYTES_MAX: usize = 2 << 20;
/// Bytes of a stream in one message, at most: some milliseconds of a slow link, so that other messages get between.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;
/// Edges in one [`crate::node::Report::Edges`], at most.
pub const EDGES_PER_REPORT: usize = 16_384;
/// Bytes of a reason, at most. A refusal may list every descriptor in its way; people read the first hundreds.
pub const REASON_BYTES_MAX: usize = 64 << 10;

/// Why a frame was not made, or not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Nothing of a sane peer is that long.
    #[error("a frame of {bytes} bytes, at most {FRAME_BYTES_MAX} are taken")]
    TooLong {
        #[allow(missing_docs)]
        bytes: usize,
    },
    /// Not even a version.
    #[error("a frame of {bytes} bytes is too short to have a version")]
    TooShort {
        #[allow(missing_docs)]
        bytes: usize,
    },
    /// The peer is of another release.
    #[error(
        "the other side speaks version {theirs} between nodes, this one {PROTOCOL}: every node needs the same release"
    )]
    Version {
        #[allow(missing_docs)]
        theirs: u16,
    },
    /// Bad bytes.
    #[error("a frame that is not understood: {0}")]
    Syntax(#[from] postcard::Error),
    /// A message, and something behind it.
    #[error("a frame with {bytes} bytes behind its message")]
    Trailing {
        #[allow(missing_docs)]
        bytes: usize,
    },
}

/// A message as a frame.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let bytes = postcard::to_extend(message, PROTOCOL.to_le_bytes().to_vec())?;
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// The message in a frame.
///
/// # Errors
/// Another version, bad bytes, too many or too few of them.
pub fn decode<M: DeserializeOwned>(frame: &[u8]) -> Result<M, FrameError> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { bytes: frame.len() });
    }
    // The version first: what follows it may mean anything in another one.
    let Some((version, body)) = frame.split_first_chunk::<2>() else {
        return Err(FrameError::TooShort { bytes: frame.len() });
    };
    let theirs = u16::from_le_bytes(*version);
    if theirs != PROTOCOL {
        return Err(FrameError::Version { theirs });
    }
    let (message, rest) = postcard::take_from_bytes(body)?;
    if !rest.is_empty() {
        return Err(FrameError::Trailing { bytes: rest.len() });
    }
    Ok(message)
}

/// A reason that fits into a frame: what is too long is cut, and says so.
#[must_use]
pub fn shorten(mut reason: String) -> String {
    const CUT: &str = " … (cut)";
    if reason.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX - CUT.len()).rev().find(|end| reason.is_char_boundary(*end));
        reason.truncate(end.unwrap_or(0));
        reason.push_str(CUT);
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members::NODES_MAX;
    use crate::node::{Between, Edge, EdgeState, Flow, Hello, NodeId, Order, Outside, Park, Place, Report, Round};
    use crate::{Deadlines, Mode};

    fn order() -> Order {
        Order::Abort { round: Round(7), reason: "the disk of n2 is full".into() }
    }

    #[test]
    fn what_is_sent_is_received() {
        assert_eq!(decode::<Order>(&encode(&order()).unwrap()).unwrap(), order());
    }

    #[test]
    fn whatever_they_say_survives() {
        let (round, to) = (Round(u64::MAX), "[2001:db8::1]:65535".parse().unwrap());
        let flow = Flow { from: "10.0.0.1:1".parse().unwrap(), to };
        let (mode, outside, deadlines) = (Mode::Stop, Outside::Leave, Deadlines::USUAL);
        let park = Park { round, generation: 1, dir: "/ü".into(), mode, kill: true, outside, deadlines };
        let message = Between::Bytes { round, flow, offset: 1 << 40, bytes: vec![0; CHUNK_BYTES_MAX] };
        for order in [Order::Park(park), Order::Go, Order::Relayed { from: NodeId(7), message: message.clone() }] {
            assert_eq!(decode::<Order>(&encode(&order).unwrap()).unwrap(), order);
        }
        let report = Report::Relay { to: NodeId(3), message };
        assert_eq!(decode::<Report>(&encode(&report).unwrap()).unwrap(), report);
        let hello = Hello { host: "n".into(), ..Hello::default() };
        assert_eq!(decode::<Hello>(&encode(&hello).unwrap()).unwrap(), hello);
    }

    #[test]
    fn the_largest_messages_fit() {
        let end = "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap();
        let edge = Edge { local: end, remote: end, state: EdgeState::Orphan, pid: u32::MAX };
        let report = Report::Edges { round: Round(u64::MAX), edges: vec![edge; EDGES_PER_REPORT] };
        assert!(encode(&report).unwrap().len() <= FRAME_BYTES_MAX / 2);
        // Every node with a long name, one address of its own and two ports that were moved.
        let place = |node| {
            let new = "10.11.12.13:65535".parse().unwrap();
            Place { node: NodeId(node), host: "x".repeat(40), meeting: new, addresses: vec![(new, new); 3] }
        };
        assert!(encode(&Order::Begin { table: (0..NODES_MAX).map(place).collect() }).is_ok());
    }

    #[test]
    fn another_version_is_named() {
        let mut frame = encode(&order()).unwrap();
        frame[0] = 9;
        let error = decode::<Order>(&frame).unwrap_err();
        assert_eq!(error, FrameError::Version { theirs: 9 });
        assert!(error.to_string().contains("version 9"), "{error}");
    }

    #[test]
    fn bad_bytes_are_errors() {
        assert_eq!(decode::<Order>(&[]), Err(FrameError::TooShort { bytes: 0 }));
        assert!(matches!(decode::<Order>(&[1, 0, 255, 255]), Err(FrameError::Syntax(_))));
        let mut frame = encode(&order()).unwrap();
        frame.push(0);
        assert_eq!(decode::<Order>(&frame), Err(FrameError::Trailing { bytes: 1 }));
        frame.truncate(frame.len() - 2);
        assert!(matches!(decode::<Order>(&frame), Err(FrameError::Syntax(_))));
    }

    #[test]
    fn a_frame_has_a_limit() {
        let long = Report::Failed { round: Round(1), reason: "x".repeat(FRAME_BYTES_MAX) };
        assert!(matches!(encode(&long), Err(FrameError::TooLong { .. })));
        let bytes = FRAME_BYTES_MAX + 1;
        assert_eq!(decode::<Order>(&vec![0; bytes]), Err(FrameError::TooLong { bytes }));
    }

    #[test]
    fn a_reason_fits() {
        assert_eq!(shorten("short".into()), "short");
        let cut = shorten("é".repeat(REASON_BYTES_MAX));
        assert!(cut.len() <= REASON_BYTES_MAX && cut.ends_with("(cut)"));
    }
}
