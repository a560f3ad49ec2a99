//! Streams that are read out: both ends of what [`crate::node::Between`] draws.

use std::time::Duration;

use super::{Deed, Deputy, Done};
use crate::node::{Between, Flow, NodeId, Report, Stage, StuckFlow};
use crate::round::streams::{Incoming, Outgoing, RESEND};

impl Deputy {
    pub(super) fn hear(&mut self, now: Duration, from: NodeId, message: Between) {
        let (round, flow) = message.about();
        if round != self.standing.round {
            return self.answer_stale(from, &message);
        }
        match message {
            Between::ReadOut { .. } => self.begin_reading(now, from, flow),
            Between::Bytes { offset, bytes, .. } => self.accept(from, flow, offset, bytes),
            Between::Kept { upto, .. } => self.was_kept(now, flow, upto),
            Between::Emptied { .. } => self.was_emptied(now, from, flow),
            Between::Total { bytes, .. } => self.has_total(from, flow, bytes),
            Between::Settled { .. } => self.was_settled(flow),
            Between::Recall { .. } => self.was_recalled(now, from, flow),
            Between::Untouched { .. } => self.was_untouched(now, from, flow),
        }
    }

    pub(super) fn stuck_flow(&mut self, stuck: StuckFlow) {
        self.streams.outgoing.entry(stuck.flow).or_insert(Outgoing::stuck());
        if self.stuck.insert(stuck.flow, stuck).is_none() {
            self.send(Report::Stuck { round: self.standing.round, flows: vec![stuck] });
        }
    }

    pub(super) fn holders(&mut self, flows: Vec<(Flow, NodeId)>) {
        for (flow, holder) in flows {
            let Some(outgoing) = self.streams.outgoing.get_mut(&flow) else { continue };
            if outgoing.holder.is_none() && !outgoing.emptied {
                outgoing.holder = Some(holder);
                self.deed(Deed::Owe(self.standing.round, flow, holder));
            }
        }
    }

    /// After an agent's death: its ledger says what was begun.
    pub(super) fn take_up_streams(&mut self, now: Duration) {
        let round = self.standing.round;
        let reading = self.streams.incoming.iter_mut().filter(|(_, it)| it.total.is_none());
        let reading: Vec<(Flow, NodeId)> = reading.map(|(flow, it)| (*flow, it.sender)).collect();
        reading.into_iter().for_each(|(flow, sender)| self.deed(Deed::ReadOut(round, flow, sender)));
        for outgoing in self.streams.outgoing.values_mut() {
            (outgoing.accepted, outgoing.emptied) = (outgoing.kept, false);
        }
        for incoming in self.streams.incoming.values_mut().filter(|it| !it.is_settled()) {
            (incoming.sent, incoming.kept, incoming.rest) = (0, 0, incoming.total.is_some());
        }
        self.recall(now);
        self.pump(now);
    }

    /// The round is called off: asks for the rest of what was begun.
    pub(super) fn recall(&mut self, now: Duration) {
        self.streams.outgoing.retain(|_, it| it.holder.is_some());
        // Whoever was watching them may have given up: that is why the round is called off, perhaps.
        let full: Vec<Flow> = self.unsettled().filter(|(_, it)| !it.emptied).map(|(flow, _)| flow).collect();
        if !full.is_empty() {
            self.deed(Deed::Watch(self.standing.round, full));
        }
        self.ask_again();
        self.schedule(now);
    }

    /// Says again what was not answered.
    pub(super) fn resend(&mut self, now: Duration) {
        self.streams.resend_at = None;
        self.ask_again();
        let round = self.standing.round;
        let mut totals = Vec::new();
        for (flow, incoming) in self.streams.incoming.iter_mut().filter(|(_, it)| !it.delivered) {
            incoming.sent = incoming.kept;
            totals.extend(incoming.total.map(|bytes| (incoming.sender, Between::Total { round, flow: *flow, bytes })));
        }
        totals.into_iter().for_each(|(sender, total)| self.tell(sender, total));
        self.pump(now);
        self.schedule(now);
    }

    pub(super) fn handle_stream_done(&mut self, now: Duration, done: Done) {
        let round = self.standing.round;
        match done {
            Done::Owed(flow) => {
                let Some(outgoing) = self.streams.outgoing.get_mut(&flow) else { return };
                outgoing.owed = true;
                self.ask(flow);
                self.schedule(now);
            }
            Done::Emptied(flow) => {
                let Some(outgoing) = self.streams.outgoing.get_mut(&flow) else { return };
                outgoing.emptied = true;
                if let (true, Some(holder)) = (outgoing.owed, outgoing.holder) {
                    self.tell(holder, Between::Emptied { round, flow });
                }
                self.stuck.remove(&flow);
            }
            Done::Kept(flow, upto) => {
                let Some(outgoing) = self.streams.outgoing.get_mut(&flow) else { return };
                outgoing.kept = outgoing.kept.max(upto);
                if let Some(holder) = outgoing.holder {
                    self.tell(holder, Between::Kept { round, flow, upto });
                }
                self.try_settle(flow);
            }
            Done::Settled(flow) => {
                let Some(outgoing) = self.streams.outgoing.get_mut(&flow) else { return };
                outgoing.settled = true;
                let holder = outgoing.holder;
                holder.into_iter().for_each(|holder| self.tell(holder, Between::Settled { round, flow }));
                self.try_flushed();
                self.try_free();
            }
            Done::Read(flow, upto) => self.have_read(now, flow, upto, false),
            Done::ReadAll(flow, total) => self.have_read(now, flow, total, true),
            Done::Fetched(flow, offset, bytes) => {
                let Some(incoming) = self.streams.incoming.get(&flow) else { return };
                self.tell(incoming.sender, Between::Bytes { round, flow, offset, bytes });
            }
            _ => {}
        }
    }

    fn unsettled(&self) -> impl Iterator<Item = (Flow, Outgoing)> + '_ {
        self.streams.outgoing.iter().filter(|(_, it)| !it.is_settled()).map(|(flow, it)| (*flow, *it))
    }

    fn ask_again(&mut self) {
        let flows: Vec<Flow> = self.unsettled().map(|(flow, _)| flow).collect();
        flows.into_iter().for_each(|flow| self.ask(flow));
    }

    /// Tells the holder where this node stands with a stream of its own.
    fn ask(&mut self, flow: Flow) {
        let round = self.standing.round;
        let Some(outgoing) = self.streams.outgoing.get(&flow).copied() else { return };
        let Some(holder) = outgoing.holder.filter(|_| outgoing.owed) else { return };
        if self.standing.stage == Stage::Freeing {
            self.tell(holder, Between::Recall { round, flow });
        } else if outgoing.accepted == 0 && !outgoing.emptied {
            self.tell(holder, Between::ReadOut { round, flow });
        }
        if outgoing.accepted > 0 {
            self.tell(holder, Between::Kept { round, flow, upto: outgoing.kept });
        }
        if outgoing.emptied {
            self.tell(holder, Between::Emptied { round, flow });
        }
    }

    /// Of a round that this node is not in. Whoever asks for the rest of a stream would not ask if this node had begun it and
    /// not brought it to its end; whoever brings bytes would not have begun if this node had not asked, and this node would
    /// not be out of the round if it had not got them all.
    fn answer_stale(&mut self, from: NodeId, message: &Between) {
        let (round, flow) = message.about();
        match message {
            Between::ReadOut { .. } | Between::Recall { .. } | Between::Emptied { .. } => {
                self.tell(from, Between::Untouched { round, flow });
            }
            Between::Bytes { .. } | Between::Total { .. } => {
                self.tell(from, Between::Settled { round, flow });
            }
            Between::Kept { .. } | Between::Settled { .. } | Between::Untouched { .. } => {}
        }
    }

    fn begin_reading(&mut self, now: Duration, sender: NodeId, flow: Flow) {
        let round = self.standing.round;
        if self.streams.incoming.contains_key(&flow) {
            return;
        }
        let parked = matches!(self.standing.stage, Stage::Flushing | Stage::Flushed);
        if !parked {
            return self.tell(sender, Between::Untouched { round, flow });
        }
        self.streams.incoming.insert(flow, Incoming::begun(sender));
        self.deed(Deed::ReadOut(round, flow, sender));
        self.schedule(now);
    }

    fn accept(&mut self, holder: NodeId, flow: Flow, offset: u64, bytes: Vec<u8>) {
        let round = self.standing.round;
        let Some(outgoing) = self.streams.outgoing.get_mut(&flow) else {
            return self.tell(holder, Between::Settled { round, flow });
        };
        if outgoing.settled {
            self.tell(holder, Between::Settled { round, flow });
        } else if offset == outgoing.accepted {
            outgoing.accepted += bytes.len() as u64;
            self.deed(Deed::Keep(round, flow, offset, bytes));
        } else {
            let upto = outgoing.kept;
            self.tell(holder, Between::Kept { round, flow, upto });
        }
    }

    fn was_kept(&mut self, now: Duration, flow: Flow, upto: u64) {
        let Some(incoming) = self.streams.incoming.get_mut(&flow) else { return };
        let kept = incoming.kept;
        incoming.kept = kept.max(upto.min(incoming.read));
        incoming.sent = incoming.sent.max(incoming.kept);
        if incoming.kept > kept {
            // What gets on need not be said again.
            self.streams.resend_at = None;
        }
        self.pump(now);
    }

    fn was_settled(&mut self, flow: Flow) {
        let Some(incoming) = self.streams.incoming.get_mut(&flow).filter(|it| !it.delivered) else { return };
        incoming.delivered = true;
        self.deed(Deed::Delivered(self.standing.round, flow));
        self.try_free();
    }

    fn was_emptied(&mut self, now: Duration, sender: NodeId, flow: Flow) {
        let round = self.standing.round;
        // It implies that it is to be read out: the words may have overtaken each other.
        self.begin_reading(now, sender, flow);
        let Some(incoming) = self.streams.incoming.get_mut(&flow) else { return };
        match incoming.total {
            Some(bytes) => self.tell(sender, Between::Total { round, flow, bytes }),
            None if !incoming.rest => {
                incoming.rest = true;
                self.deed(Deed::ReadRest(round, flow));
            }
            None => {}
        }
    }

    fn has_total(&mut self, holder: NodeId, flow: Flow, bytes: u64) {
        let round = self.standing.round;
        match self.streams.outgoing.get_mut(&flow) {
            Some(outgoing) if !outgoing.settled => {
                outgoing.total = Some(bytes);
                self.try_settle(flow);
            }
            _ => self.tell(holder, Between::Settled { round, flow }),
        }
    }

    fn try_settle(&mut self, flow: Flow) {
        let Some(outgoing) = self.streams.outgoing.get(&flow) else { return };
        if let (Some(total), false) = (outgoing.total.filter(|total| *total == outgoing.kept), outgoing.settled) {
            self.deed(Deed::Settle(self.standing.round, flow, total));
        }
    }

    /// Also ends this node's part in the round, so that a `ReadOut` which was overtaken does not begin it any more.
    fn was_recalled(&mut self, now: Duration, sender: NodeId, flow: Flow) {
        let begun = self.streams.incoming.contains_key(&flow);
        if !begun {
            self.tell(sender, Between::Untouched { round: self.standing.round, flow });
        }
        if self.standing.stage < Stage::Capturing && self.standing.stage != Stage::Out {
            self.fail(now, format!("{sender} has called the round off"));
        } else if begun && self.streams.incoming[&flow].total.is_some() {
            let incoming = self.streams.incoming.get_mut(&flow);
            incoming.into_iter().for_each(|it| it.sent = it.kept);
            self.pump(now);
        }
    }

    fn was_untouched(&mut self, now: Duration, holder: NodeId, flow: Flow) {
        let Some(outgoing) = self.streams.outgoing.get_mut(&flow) else { return };
        if outgoing.settled || outgoing.accepted > 0 || outgoing.holder != Some(holder) {
            return;
        }
        outgoing.total = Some(0);
        self.try_settle(flow);
        self.fail(now, format!("{holder} could not read out the stream {} → {}", flow.from, flow.to));
    }

    fn have_read(&mut self, now: Duration, flow: Flow, upto: u64, all: bool) {
        let round = self.standing.round;
        let Some(incoming) = self.streams.incoming.get_mut(&flow) else { return };
        incoming.read = incoming.read.max(upto);
        if all {
            incoming.total = Some(upto);
            let sender = incoming.sender;
            self.tell(sender, Between::Total { round, flow, bytes: upto });
        }
        self.pump(now);
    }

    /// Asks for bytes of incoming streams that may go on their way.
    fn pump(&mut self, now: Duration) {
        let round = self.standing.round;
        let flows: Vec<Flow> = self.streams.incoming.keys().copied().collect();
        for flow in flows {
            while let Some(range) = self.streams.next_to_send(flow) {
                self.deed(Deed::Fetch(round, flow, range));
            }
        }
        self.schedule(now);
    }

    fn schedule(&mut self, now: Duration) {
        if self.streams.is_settled() {
            self.streams.resend_at = None;
        } else if self.streams.resend_at.is_none() {
            self.streams.resend_at = Some(now + RESEND);
        }
    }
}
