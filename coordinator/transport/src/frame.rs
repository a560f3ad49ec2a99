//! Frames on a connection's one stream: length (4 bytes, little-endian, of what follows), kind (1), body.
//!
//! ```text
//! client                                   server
//! Open {session, begun, received, hello} →
//!                                        ← Opened {received}      or Unknown, and the client opens another
//! Data {number, item, bytes}, Ack {received} in both directions, until the connection ends
//! ```

use quinn::{ReadError, ReadExactError, RecvStream};
use thiserror::Error;

use crate::limits::{HELLO_BYTES_MAX, MESSAGE_BYTES_MAX};

/// Name of this protocol in TLS; another number is another protocol, and is refused in the handshake.
pub(crate) const ALPN: &[u8] = b"slackwater/1";
/// Bytes of a frame before the payload of [`Frame::Data`].
const DATA_HEAD: usize = 1 + 8 + 1;
/// Bytes of a frame before the hello of [`Frame::Open`].
const OPEN_HEAD: usize = 1 + 16 + 1 + 8;

const OPEN: u8 = 1;
const OPENED: u8 = 2;
const UNKNOWN: u8 = 3;
const DATA: u8 = 4;
const ACK: u8 = 5;

/// 128 random bits that the client chose.
pub(crate) type SessionId = [u8; 16];

/// What one side says to the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Frame {
    /// First frame of a connection.
    Open(Open),
    /// The session lives, and this many items of the client were received in it.
    Opened { received: u64 },
    /// There is no such session (any more).
    Unknown,
    /// An item of the session; numbers begin at 1 and leave none out.
    Data { number: u64, item: Item, bytes: Vec<u8> },
    /// All items up to this one were received.
    Ack { received: u64 },
}

/// The client's first frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Open {
    #[allow(missing_docs)]
    pub session: SessionId,
    /// The server has known this session: it must not make a new one of that name.
    pub begun: bool,
    /// Items of the server received in it so far.
    pub received: u64,
    /// For whoever decides whether this agent is welcome.
    pub hello: Vec<u8>,
}

/// What an item is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    /// Opaque bytes of the caller.
    Message,
    /// The server's first item, when the agent is welcome.
    Welcome,
    /// The server's only item, when it is not. Text.
    TurnedAway,
    /// Nothing follows.
    End,
}

impl Item {
    /// Nothing comes after it.
    pub(crate) const fn is_last(self) -> bool {
        matches!(self, Self::TurnedAway | Self::End)
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Message, Self::Welcome, Self::TurnedAway, Self::End].into_iter().find(|item| *item as u8 == byte)
    }
}

/// Why a frame was not understood.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(crate) enum FrameError {
    #[error("a frame of {0} bytes, more than {FRAME_BYTES_MAX}")]
    TooLong(usize),
    #[error("a frame of kind {0} with {1} bytes")]
    Malformed(u8, usize),
    #[error("item {got} where {expected} was next")]
    OutOfOrder { got: u64, expected: u64 },
    #[error("an acknowledgement of item {got}, sent were {sent}")]
    NeverSent { got: u64, sent: u64 },
    #[error("a frame that does not belong there")]
    Unexpected,
}

/// Why no frame came.
#[derive(Debug, Error)]
pub(crate) enum ReceiveError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Stream(#[from] ReadError),
    #[error("the stream ended")]
    Ended,
}

/// Longest frame, without its length.
pub(crate) const FRAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX + DATA_HEAD;
/// Longest first frame.
pub(crate) const OPEN_BYTES_MAX: usize = HELLO_BYTES_MAX + OPEN_HEAD;

impl Frame {
    /// As it goes over the wire, with its length.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Open(open) => {
                let begun = [u8::from(open.begun)];
                whole(&[&[OPEN], &open.session, &begun, &open.received.to_le_bytes(), &open.hello])
            }
            Self::Opened { received } => whole(&[&[OPENED], &received.to_le_bytes()]),
            Self::Unknown => whole(&[&[UNKNOWN]]),
            Self::Data { number, item, bytes } => encode_data(*number, *item, bytes),
            Self::Ack { received } => whole(&[&[ACK], &received.to_le_bytes()]),
        }
    }

    /// Of a frame without its length.
    pub(crate) fn decode(mut frame: Vec<u8>) -> Result<Self, FrameError> {
        let kind = frame.first().copied().unwrap_or(0);
        let malformed = FrameError::Malformed(kind, frame.len());
        match (kind, frame.len()) {
            (OPEN, OPEN_HEAD..) if frame[17] <= 1 => {
                let mut session = SessionId::default();
                session.copy_from_slice(&frame[1..17]);
                let (begun, received) = (frame[17] == 1, number_at(&frame, 18));
                frame.drain(..OPEN_HEAD);
                Ok(Self::Open(Open { session, begun, received, hello: frame }))
            }
            (OPENED, 9) => Ok(Self::Opened { received: number_at(&frame, 1) }),
            (UNKNOWN, 1) => Ok(Self::Unknown),
            (DATA, DATA_HEAD..) => {
                let (number, item) = (number_at(&frame, 1), Item::from_byte(frame[9]).ok_or(malformed)?);
                frame.drain(..DATA_HEAD);
                Ok(Self::Data { number, item, bytes: frame })
            }
            (ACK, 9) => Ok(Self::Ack { received: number_at(&frame, 1) }),
            _ => Err(malformed),
        }
    }
}

/// [`Frame::Data`] of borrowed bytes.
pub(crate) fn encode_data(number: u64, item: Item, bytes: &[u8]) -> Vec<u8> {
    whole(&[&[DATA], &number.to_le_bytes(), &[item as u8], bytes])
}

/// The next frame. Memory is taken as bytes come, not as the length says.
pub(crate) async fn receive(stream: &mut RecvStream, bytes_max: usize) -> Result<Frame, ReceiveError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.map_err(|cause| match cause {
        ReadExactError::FinishedEarly(_) => ReceiveError::Ended,
        ReadExactError::ReadError(cause) => ReceiveError::Stream(cause),
    })?;
    let length = u32::from_le_bytes(length) as usize;
    if length > bytes_max {
        return Err(FrameError::TooLong(length).into());
    }
    let mut frame = Vec::new();
    while frame.len() < length {
        let chunk = stream.read_chunk(length - frame.len(), true).await?.ok_or(ReceiveError::Ended)?;
        frame.extend_from_slice(&chunk.bytes);
    }
    Ok(Frame::decode(frame)?)
}

fn whole(parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut frame = Vec::with_capacity(4 + length);
    frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    frame
}

fn number_at(frame: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&frame[at..at + 8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let open = Open { session: [7; 16], begun: true, received: 3, hello: b"node 4".to_vec() };
        let data = |item| Frame::Data { number: u64::MAX, item, bytes: vec![1, 2, 3] };
        vec![
            Frame::Open(open.clone()),
            Frame::Open(Open { begun: false, hello: Vec::new(), ..open }),
            Frame::Opened { received: 5 },
            Frame::Unknown,
            data(Item::Message),
            data(Item::Welcome),
            data(Item::TurnedAway),
            Frame::Data { number: 1, item: Item::End, bytes: Vec::new() },
            Frame::Ack { received: 9 },
        ]
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for frame in frames() {
            let bytes = frame.encode();
            let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
            assert_eq!(length, bytes.len() - 4);
            assert_eq!(Frame::decode(bytes[4..].to_vec()), Ok(frame));
        }
    }

    #[test]
    fn a_frame_cut_short_or_with_another_kind_is_an_error_and_never_a_panic() {
        for frame in frames() {
            let bytes = frame.encode();
            for length in 0..bytes.len() - 4 {
                let mut cut = bytes[4..4 + length].to_vec();
                let _ = Frame::decode(cut.clone());
                if let Some(kind) = cut.first_mut() {
                    *kind = 99;
                    assert_eq!(Frame::decode(cut), Err(FrameError::Malformed(99, length)));
                }
            }
        }
        assert_eq!(Frame::decode(Vec::new()), Err(FrameError::Malformed(0, 0)));
        assert_eq!(Frame::decode(vec![ACK, 0]), Err(FrameError::Malformed(ACK, 2)));
        assert_eq!(Frame::decode([&[DATA][..], &[0; 8], &[77]].concat()), Err(FrameError::Malformed(DATA, 10)));
        assert_eq!(
            Frame::decode([&[OPEN][..], &[0; 16], &[2], &[0; 8]].concat()),
            Err(FrameError::Malformed(OPEN, 26))
        );
    }
}
