//! What one side of a session remembers: which items the peer has not acknowledged yet, and how many of its own were
//! received. It outlives connections; no IO and no clock of its own.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::error::SendError;
use crate::frame::{Frame, FrameError, Item, encode_data};
use crate::limits::{ACK_BYTES, ACK_DELAY, MESSAGE_BYTES_MAX, MESSAGE_OVERHEAD_BYTES, OUTBOX_BYTES_MAX, WRITE_BYTES};

/// One side's numbers and its outbox.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Encoded items that were not acknowledged. The first has the number `acknowledged + 1`.
    outbox: VecDeque<Bytes>,
    outbox_bytes: usize,
    /// All of ours up to here have arrived.
    acknowledged: u64,
    /// All of ours up to here were handed to the present connection.
    written: u64,
    /// An item after which there is none is in the outbox, or was.
    ending: bool,
    /// All of theirs up to here were delivered.
    received: u64,
    /// What the peer was told about `received`.
    told: u64,
    /// Bytes delivered since then.
    untold_bytes: usize,
    /// When it is told at last.
    tell_at: Option<Instant>,
}

/// What the writer of a connection does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Write these.
    Write(Vec<Bytes>),
    /// Wait until something changes, or until then.
    Wait(Option<Instant>),
    /// The last item has arrived: hang up.
    Done,
}

impl Link {
    /// An item for the peer.
    pub(crate) fn push(&mut self, item: Item, bytes: &[u8]) -> Result<(), SendError> {
        let cost = bytes.len() + MESSAGE_OVERHEAD_BYTES;
        if self.ending {
            return Err(SendError::Over);
        }
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(SendError::TooLong { bytes: bytes.len() });
        }
        // An end always fits: there is one of it.
        if !item.is_last() && self.outbox_bytes + cost > OUTBOX_BYTES_MAX {
            return Err(SendError::Full { bytes: self.outbox_bytes });
        }
        let number = self.acknowledged + self.outbox.len() as u64 + 1;
        self.outbox.push_back(encode_data(number, item, bytes).into());
        self.outbox_bytes += cost;
        self.ending = item.is_last();
        Ok(())
    }

    /// What to write on the present connection.
    pub(crate) fn step(&mut self, now: Instant) -> Step {
        let mut frames = Vec::new();
        let mut bytes = 0;
        let from = usize::try_from(self.written - self.acknowledged).unwrap_or(usize::MAX);
        for frame in self.outbox.iter().skip(from) {
            if bytes >= WRITE_BYTES {
                break;
            }
            bytes += frame.len();
            frames.push(frame.clone());
        }
        self.written += frames.len() as u64;
        if self.told < self.received && (!frames.is_empty() || self.tell_at.is_some_and(|at| at <= now)) {
            frames.push(Frame::Ack { received: self.received }.encode().into());
            self.tell();
        }
        match frames.is_empty() {
            false => Step::Write(frames),
            true if self.ending && self.outbox.is_empty() => Step::Done,
            true => Step::Wait(self.tell_at),
        }
    }

    /// An item of the peer's was delivered. True: the writer should look.
    pub(crate) fn accept(&mut self, number: u64, item: Item, bytes: usize, now: Instant) -> Result<bool, FrameError> {
        let expected = self.received + 1;
        if number != expected {
            return Err(FrameError::OutOfOrder { got: number, expected });
        }
        self.received = number;
        self.untold_bytes += bytes + MESSAGE_OVERHEAD_BYTES;
        let first = self.tell_at.is_none();
        if item.is_last() || self.untold_bytes >= ACK_BYTES {
            self.tell_at = Some(now);
            return Ok(true);
        }
        self.tell_at.get_or_insert(now + ACK_DELAY);
        Ok(first)
    }

    /// The peer has received all of ours up to `received`. True: the outbox is empty now.
    pub(crate) fn acknowledge(&mut self, received: u64) -> Result<bool, FrameError> {
        if received < self.acknowledged || received > self.written {
            return Err(FrameError::NeverSent { got: received, sent: self.written });
        }
        self.forget(received);
        Ok(self.outbox.is_empty())
    }

    /// A new connection: the peer has received all of ours up to `received`, the rest is written again.
    pub(crate) fn rewind(&mut self, received: u64) -> Result<(), FrameError> {
        let sent = self.acknowledged + self.outbox.len() as u64;
        if received < self.acknowledged || received > sent {
            return Err(FrameError::NeverSent { got: received, sent });
        }
        self.forget(received);
        self.written = received;
        self.tell();
        Ok(())
    }

    /// Items of the peer's that were delivered, for the first frame of a connection.
    pub(crate) const fn received(&self) -> u64 {
        self.received
    }

    fn forget(&mut self, received: u64) {
        while self.acknowledged < received {
            let frame = self.outbox.pop_front().map_or(0, |frame| frame.len());
            self.outbox_bytes -= frame.saturating_sub(HEAD) + MESSAGE_OVERHEAD_BYTES;
            self.acknowledged += 1;
        }
    }

    const fn tell(&mut self) {
        self.told = self.received;
        self.untold_bytes = 0;
        self.tell_at = None;
    }
}

/// Bytes of an encoded item beside its payload.
const HEAD: usize = 4 + 1 + 8 + 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of them, and what has arrived at the second.
    #[derive(Default)]
    struct Pair {
        here: Link,
        there: Link,
        arrived: Vec<Vec<u8>>,
    }

    impl Pair {
        /// A connection on which so many frames of ours, then so many of theirs, get through.
        fn connect(&mut self, to_there: usize, to_here: usize, now: Instant) {
            let (here, there) = (self.here.received(), self.there.received());
            self.here.rewind(there).expect("it was sent");
            self.there.rewind(here).expect("it was sent");
            for frame in frames(&mut self.here, now).into_iter().take(to_there) {
                if let Frame::Data { number, item, bytes } = frame {
                    self.there.accept(number, item, bytes.len(), now).expect("the next one");
                    self.arrived.push(bytes);
                }
            }
            for frame in frames(&mut self.there, now + ACK_DELAY).into_iter().take(to_here) {
                if let Frame::Ack { received } = frame {
                    self.here.acknowledge(received).expect("it was sent");
                }
            }
        }
    }

    fn frames(link: &mut Link, now: Instant) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Step::Write(written) = link.step(now) {
            frames.extend(written.iter().map(|frame| Frame::decode(frame[4..].to_vec()).expect("a frame")));
        }
        frames
    }

    #[test]
    fn whatever_of_it_gets_through_each_item_arrives_once_and_in_order() {
        let now = Instant::now();
        for seed in 0..200_usize {
            let mut pair = Pair::default();
            for turn in 0..20_usize {
                for number in turn * 5..(turn + 1) * 5 {
                    pair.here.push(Item::Message, &number.to_le_bytes()).expect("room");
                }
                let chance = (seed + 1).wrapping_mul(2_654_435_761).wrapping_mul(turn + 1) >> 7;
                pair.connect(chance % 9, chance / 9 % 2, now);
            }
            pair.connect(usize::MAX, usize::MAX, now);
            let expected: Vec<Vec<u8>> = (0..100_usize).map(|number| number.to_le_bytes().to_vec()).collect();
            assert_eq!(pair.arrived, expected, "seed {seed}");
            assert_eq!((pair.here.outbox.len(), pair.here.outbox_bytes), (0, 0), "seed {seed}");
        }
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let mut link = Link::default();
        link.push(Item::Message, b"one").expect("room");
        assert_eq!(link.acknowledge(1), Err(FrameError::NeverSent { got: 1, sent: 0 }), "not written yet");
        assert_eq!(link.rewind(2), Err(FrameError::NeverSent { got: 2, sent: 1 }));
        let now = Instant::now();
        assert_eq!(link.accept(2, Item::Message, 0, now), Err(FrameError::OutOfOrder { got: 2, expected: 1 }));
        link.accept(1, Item::Message, 0, now).expect("the next one");
        assert_eq!(link.accept(1, Item::Message, 0, now), Err(FrameError::OutOfOrder { got: 1, expected: 2 }));
    }

    #[test]
    fn the_outbox_has_a_limit_but_an_end_fits_and_nothing_after_it() {
        let mut link = Link::default();
        let message = vec![0; MESSAGE_BYTES_MAX];
        (0..3).for_each(|_| link.push(Item::Message, &message).expect("room"));
        let bytes = 3 * (MESSAGE_BYTES_MAX + MESSAGE_OVERHEAD_BYTES);
        assert_eq!(link.push(Item::Message, &message), Err(SendError::Full { bytes }));
        link.push(Item::End, &[]).expect("an end always fits");
        assert_eq!(link.push(Item::End, &[]), Err(SendError::Over));
        assert_eq!(link.push(Item::Message, &[]), Err(SendError::Over));
    }

    #[test]
    fn an_acknowledgement_waits_for_company_but_not_for_long() {
        let (mut link, now) = (Link::default(), Instant::now());
        assert_eq!(link.step(now), Step::Wait(None));
        assert_eq!(link.accept(1, Item::Message, 10, now), Ok(true));
        assert_eq!(link.accept(2, Item::Message, 10, now), Ok(false), "the writer waits already");
        assert_eq!(link.step(now), Step::Wait(Some(now + ACK_DELAY)));
        link.push(Item::Message, b"company").expect("room");
        assert_eq!(frames(&mut link, now).last(), Some(&Frame::Ack { received: 2 }));
        link.accept(3, Item::Message, ACK_BYTES, now).expect("the next one");
        assert_eq!(frames(&mut link, now), [Frame::Ack { received: 3 }], "many bytes do not wait");
        link.accept(4, Item::End, 0, now).expect("the next one");
        assert_eq!(frames(&mut link, now), [Frame::Ack { received: 4 }], "nor does an end");
    }
}
