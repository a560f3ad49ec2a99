//! Doing what the protocol's machine asks for.

use coordinator_protocol::Committed;
use coordinator_protocol::coordinator::{CoordinatorOutput, WishId, WishOutcome};
use coordinator_protocol::members::SessionId;
use coordinator_protocol::node::{Greeting, NodeId, Order, Round, encode};
use coordinator_protocol::round::{Commit, Durable};

use super::{Coordinator, say};

impl Coordinator<'_> {
    /// Until nothing is left to be done.
    pub(super) fn put_out(&mut self) {
        loop {
            for (node, order) in self.launches.orders(self.machine.members()) {
                self.send_to(node, &order);
            }
            let Some(output) = self.machine.poll_output() else { return };
            self.put_out_one(output);
        }
    }

    fn put_out_one(&mut self, output: CoordinatorOutput) {
        match output {
            CoordinatorOutput::Greet(session, greeting) => self.greet(session, &greeting),
            CoordinatorOutput::Close(session) => {
                self.nodes.peer(session).into_iter().for_each(|peer| self.server.close(peer));
            }
            CoordinatorOutput::Send(session, order) => self.send(session, &order),
            CoordinatorOutput::Draft { round, generation, .. } => self.draft(round, generation),
            CoordinatorOutput::Commit(commit) => self.commit(commit),
            CoordinatorOutput::Discard(round) => self.commits.discard(round),
            CoordinatorOutput::Outcome(wish, outcome) => self.tell(wish, outcome),
            CoordinatorOutput::Lost(node) => self.lose(node),
        }
    }

    fn greet(&mut self, session: SessionId, greeting: &Greeting) {
        let Some(peer) = self.nodes.peer(session) else { return };
        let words = match greeting {
            Greeting::Welcome(_) => encode(greeting).map_err(|error| error.to_string()),
            Greeting::TurnedAway(reason) => {
                say(self.life, &format!("turned away: {reason}"));
                Err(reason.to_string())
            }
        };
        // One that is gone needs no answer.
        let _ = self.server.answer(peer, words);
        if let (Greeting::Welcome(_), Some(node)) = (greeting, self.machine.members().node_of(session)) {
            self.launches.note_join(node.0);
        }
    }

    pub(super) fn send_to(&self, node: u32, order: &Order) {
        let session = self.machine.members().all().get(&NodeId(node)).and_then(|it| it.session);
        session.into_iter().for_each(|session| self.send(session, order));
    }

    fn send(&self, session: SessionId, order: &Order) {
        if let (Some(peer), Ok(bytes)) = (self.nodes.peer(session), encode(order)) {
            // What does not arrive is said again after the next greeting.
            let _ = self.server.send(peer, &bytes);
        }
    }

    fn draft(&mut self, round: Round, generation: u64) {
        let made = self.commits.draft(round, generation);
        let now = self.begun.elapsed();
        self.machine.handle_drafted(now, round, made);
    }

    fn commit(&mut self, commit: Commit) {
        let hosts = |node: NodeId| self.nodes.host(node.0);
        let made = self.commits.commit(&commit, hosts);
        let now = self.begun.elapsed();
        match made {
            Ok(()) => {
                self.life.board.set_newest(commit.generation());
                self.machine.handle_durable(now, commit.made_durable());
            }
            Err(reason) => self.machine.handle_not_durable(now, commit.refused(reason)),
        }
    }

    fn tell(&mut self, wish: WishId, outcome: WishOutcome) {
        let Some(at) = self.asked.iter().position(|it| it.wish == wish) else { return };
        let asked = self.asked.swap_remove(at);
        match outcome {
            WishOutcome::Committed(durable) => asked.committed(self.what_it_cost(&durable)),
            WishOutcome::Failed { reason } if asked.is_by_the_clock() => {
                say(self.life, &format!("checkpoint by the clock: {reason}; the job runs on"));
            }
            WishOutcome::Failed { reason } => asked.failed(&reason),
        }
    }

    fn what_it_cost(&self, durable: &Durable) -> Committed {
        let commit = durable.commit();
        let sum = |of: fn(&coordinator_protocol::node::Receipt) -> u64| commit.receipts().values().map(of).sum();
        let (path, bytes_stored) = self.commits.newest();
        Committed {
            generation: commit.generation(),
            path,
            stall_ms: commit.cost().stall_us as f64 / 1e3,
            bytes_read: sum(|it| it.bytes_read),
            bytes_stored,
            files: sum(|it| it.files),
            processes: sum(|it| it.processes),
            threads: sum(|it| it.threads),
            ..Committed::default()
        }
    }

    /// The job has lost a part of itself.
    fn lose(&mut self, node: NodeId) {
        let host = self.nodes.host(node.0);
        say(self.life, &format!("{host} ({node}) is lost: nothing was heard of it for too long; the job ends"));
        self.life.board.lose_node();
        let _ = self.life.to_guardian.write(1);
    }
}
