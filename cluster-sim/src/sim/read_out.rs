//! Deeds about streams that are read out: ledgers, and bytes that go back.

use coordinator_protocol::node::{ModelFile, NodeId, Receipt, Round};
use coordinator_protocol::round::{Deed, Done};

use super::disk::Part;
use super::event::AgentKey;
use super::node::Ledger;
use super::world::World;

impl World {
    pub(super) fn stream_deed_done(&mut self, key: AgentKey, round: Round, deed: Deed) {
        let node = key.node.0 as usize;
        let board = &mut self.nodes[node].board;
        match deed {
            Deed::Owe(_, flow, holder) => {
                board.outgoing.entry(flow).or_insert_with(|| Ledger::new(holder));
                self.done(key, round, Done::Owed(flow));
            }
            Deed::Keep(_, flow, offset, bytes) => {
                let Some(ledger) = board.outgoing.get_mut(&flow) else { return };
                if offset != ledger.bytes.len() as u64 {
                    let how = format!("{} keeps byte {offset} where {} belongs", key.node, ledger.bytes.len());
                    return self.broken("no byte lost or doubled", how);
                }
                ledger.bytes.extend(bytes);
                let upto = ledger.bytes.len() as u64;
                self.done(key, round, Done::Kept(flow, upto));
            }
            Deed::Settle(_, flow, total) => {
                let Some(ledger) = board.outgoing.get_mut(&flow) else { return };
                ledger.total = Some(total);
                self.done(key, round, Done::Settled(flow));
            }
            Deed::Delivered(_, flow) => {
                board.incoming.get_mut(&flow).into_iter().for_each(|ledger| ledger.delivered = true);
            }
            Deed::Fetch(_, flow, range) => {
                let Some(ledger) = board.incoming.get(&flow) else { return };
                if range.end > ledger.bytes.len() as u64 {
                    let how =
                        format!("{} is to send bytes up to {} and has {}", key.node, range.end, ledger.bytes.len());
                    return self.broken("no byte lost or doubled", how);
                }
                let bytes = ledger.bytes.range(range.start as usize..range.end as usize).copied().collect();
                self.done(key, round, Done::Fetched(flow, range.start, bytes));
            }
            Deed::ReadOut(_, flow, sender) => {
                self.outcome.read_out += u64::from(!board.incoming.contains_key(&flow));
                let ledger = board.incoming.entry(flow).or_insert_with(|| Ledger::new(sender));
                if ledger.total.is_some() {
                    return;
                }
                self.agent(key).into_iter().for_each(|agent| _ = agent.watch.reading.insert(flow));
                self.plan_look(key);
            }
            Deed::ReadRest(_, flow) => self.read_rest(key, round, flow),
            _ => {}
        }
    }

    fn read_rest(&mut self, key: AgentKey, round: Round, flow: coordinator_protocol::node::Flow) {
        let Some(number) = self.flows.get(&flow).copied() else { return };
        if !self.streams[number].queue.is_empty() {
            let how = format!("{} is told that a stream is empty which is not", key.node);
            return self.broken("no byte lost or doubled", how);
        }
        self.nodes[key.node.0 as usize].board.incoming.entry(flow).or_insert_with(|| {
            // The order to read it out is on its way behind this one.
            Ledger::new(self.streams[number].from)
        });
        while !self.streams[number].buffer.is_empty() {
            self.take_out(key.node, flow);
        }
        let Some(ledger) = self.nodes[key.node.0 as usize].board.incoming.get_mut(&flow) else { return };
        let total = ledger.bytes.len() as u64;
        ledger.total = Some(total);
        self.agent(key).into_iter().for_each(|agent| _ = agent.watch.reading.remove(&flow));
        self.done(key, round, Done::ReadAll(flow, total));
    }

    /// What was read out of streams whose senders are here goes back into them.
    pub(super) fn put_back(&mut self, node: NodeId) {
        for (flow, ledger) in self.nodes[node.0 as usize].board.outgoing.clone() {
            let Some(number) = self.flows.get(&flow).copied() else { continue };
            let stream = &mut self.streams[number];
            if ledger.total != Some(ledger.bytes.len() as u64) {
                let how = format!("{node} lets go and has {} of {:?} bytes", ledger.bytes.len(), ledger.total);
                return self.broken("no byte lost or doubled", how);
            }
            // A queue takes what it held before, and the buffer with it.
            stream.queue.extend(ledger.bytes);
        }
    }

    /// Writes a node's part and syncs it.
    pub(super) fn write_part(&mut self, key: AgentKey, round: Round) -> Done {
        let Some(image) = self.agent(key).and_then(|agent| agent.twin.clone()) else {
            return Done::Failed("its twins are gone".into());
        };
        let synced = self.disk.sync();
        let Some(folder) = self.disk.folders.get_mut(&round) else {
            return Done::Failed("cannot write: no such folder".into());
        };
        folder.parts.insert(key.node, Part { image, synced: synced.is_ok() });
        match synced {
            Ok(()) => {
                let model = ModelFile { name: format!("node-{}.model", key.node.0), ..ModelFile::default() };
                Done::Written(Receipt { model, processes: 1, ..Receipt::default() })
            }
            Err(reason) => Done::Failed(reason),
        }
    }
}
