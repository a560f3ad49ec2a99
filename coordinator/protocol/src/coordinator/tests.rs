//! Plain calls.

use super::*;
use crate::node::{NodeId, Order, Round, Standing};
use crate::round::Commit;

const NOW: Duration = Duration::from_secs(500);
const TIMEOUT: Duration = Duration::from_secs(30);

fn coordinator(committed: &[u64]) -> Coordinator {
    let job = Job { id: "j".into(), life: 0 };
    Coordinator::new(job, TIMEOUT, 1, committed.iter().copied().collect())
}

fn hello(node: u32, standing: Standing) -> Hello {
    let (job, host) = ("j".into(), format!("n{node}"));
    Hello { job, host, node: NodeId(node), guardian: 5, agent: 6, standing, ..Hello::default() }
}

fn outputs(coordinator: &mut Coordinator) -> Vec<CoordinatorOutput> {
    std::iter::from_fn(|| coordinator.poll_output()).collect()
}

fn standing(round: u64, generation: u64, stage: Stage) -> Standing {
    Standing { round: Round(round), generation, stage, ..Standing::default() }
}

/// What one node is told that comes back in a round of which this coordinator knows nothing.
fn told(stage: Stage, generation: u64) -> Option<Order> {
    let mut coordinator = coordinator(&[3, 4]);
    coordinator.handle_hello(NOW, SessionId(1), &hello(0, standing(9, generation, stage)));
    let mut orders = outputs(&mut coordinator).into_iter().filter_map(|it| match it {
        CoordinatorOutput::Send(_, order) => Some(order),
        _ => None,
    });
    orders.next_back()
}

#[test]
fn a_new_coordinator_believes_the_disk() {
    let round = Round(9);
    assert_eq!(told(Stage::Written, 4), Some(Order::Committed { round, generation: 4 }));
    assert!(matches!(told(Stage::Written, 5), Some(Order::Abort { .. })));
    assert!(matches!(told(Stage::Captured, 5), Some(Order::Abort { .. })));
    assert!(matches!(told(Stage::Freeing, 5), Some(Order::Abort { .. })));
    assert_eq!(told(Stage::Done, 4), None);
    assert_eq!(told(Stage::Out, 5), None);
}

#[test]
fn numbers_grow_over_lives_of_coordinators() {
    let mut coordinator = coordinator(&[3, 4]);
    coordinator.handle_hello(NOW, SessionId(1), &hello(0, standing(9, 5, Stage::Out)));
    let wish = coordinator.wish(NOW, Wish::default());
    let draft = outputs(&mut coordinator).pop();
    assert_eq!(draft, Some(CoordinatorOutput::Draft { wish, round: Round(10), generation: 5 }));
}

#[test]
fn no_round_begins_before_everybody_is_there_and_free() {
    let mut coordinator = coordinator(&[]);
    coordinator.expect(NOW, NodeId(1), "n1");
    coordinator.handle_hello(NOW, SessionId(1), &hello(0, standing(2, 1, Stage::Freeing)));
    let first = coordinator.wish(NOW, Wish::default());
    assert!(!outputs(&mut coordinator).iter().any(|it| matches!(it, CoordinatorOutput::Draft { .. })));
    coordinator.handle_hello(NOW, SessionId(2), &hello(1, Standing::default()));
    assert!(!outputs(&mut coordinator).iter().any(|it| matches!(it, CoordinatorOutput::Draft { .. })));
    coordinator.handle_report(NOW, SessionId(1), Report::Aborted { round: Round(2) });
    assert!(matches!(outputs(&mut coordinator)[..], [CoordinatorOutput::Draft { round: Round(3), .. }]));
    // The next has to wait, and is told why if it is too long.
    coordinator.handle_drafted(NOW, Round(3), Err("read-only file system".into()));
    let failed = WishOutcome::Failed { reason: "read-only file system".into() };
    assert_eq!(outputs(&mut coordinator), [CoordinatorOutput::Outcome(first, failed)]);
    coordinator.handle_broken(NOW, SessionId(2));
    let second = coordinator.wish(NOW, Wish::default());
    assert_eq!(coordinator.poll_timeout(), Some(NOW + TIMEOUT));
    coordinator.handle_timeout(NOW + TIMEOUT);
    let failed = WishOutcome::Failed { reason: "n1 (node 1) is lost".into() };
    let want = [CoordinatorOutput::Lost(NodeId(1)), CoordinatorOutput::Outcome(second, failed)];
    assert_eq!(outputs(&mut coordinator), want);
}

#[test]
fn wishes_have_a_limit() {
    let mut coordinator = coordinator(&[]);
    (0..WISHES_MAX).for_each(|_| _ = coordinator.wish(NOW, Wish::default()));
    assert_eq!(outputs(&mut coordinator).len(), 0);
    let id = coordinator.wish(NOW, Wish::default());
    let reason = "16 checkpoints are waiting already".to_owned();
    assert_eq!(outputs(&mut coordinator), [CoordinatorOutput::Outcome(id, WishOutcome::Failed { reason })]);
    coordinator.cancel(NOW, WishId(0), "Ctrl-C");
    let reason = "Ctrl-C".to_owned();
    assert_eq!(outputs(&mut coordinator), [CoordinatorOutput::Outcome(WishId(0), WishOutcome::Failed { reason })]);
}

#[test]
fn whoever_goes_after_a_checkpoint_with_kill_is_not_lost() {
    let mut coordinator = coordinator(&[]);
    coordinator.handle_hello(NOW, SessionId(1), &hello(0, Standing::default()));
    coordinator.wish(NOW, Wish { kill: true, ..Wish::default() });
    let round = Round(1);
    coordinator.handle_drafted(NOW, round, Ok("/ckpt".into()));
    let receipt = crate::node::Receipt::default();
    for report in [
        Report::Parked { round, edges: 0 },
        Report::Flushed { round },
        Report::Captured { round },
        Report::Written { round, receipt },
    ] {
        assert_eq!(coordinator.handle_report(NOW, SessionId(1), report), None);
    }
    let commit: Option<Commit> = outputs(&mut coordinator).into_iter().find_map(|it| match it {
        CoordinatorOutput::Commit(commit) => Some(commit),
        _ => None,
    });
    coordinator.handle_durable(NOW, commit.unwrap().made_durable());
    outputs(&mut coordinator);
    coordinator.handle_broken(NOW, SessionId(1));
    coordinator.handle_timeout(NOW + TIMEOUT);
    assert_eq!(outputs(&mut coordinator), []);
}

#[test]
fn strangers_are_told_why_and_others_are_carried_for() {
    let mut coordinator = coordinator(&[]);
    coordinator.handle_hello(NOW, SessionId(1), &Hello { job: "k".into(), ..hello(0, Standing::default()) });
    let got = outputs(&mut coordinator);
    assert!(matches!(
        got[..],
        [
            CoordinatorOutput::Greet(SessionId(1), Greeting::TurnedAway(TurnedAway::Job { .. })),
            CoordinatorOutput::Close(SessionId(1))
        ]
    ));
    assert_eq!(coordinator.handle_report(NOW, SessionId(1), Report::Ready), None);
    coordinator.handle_hello(NOW, SessionId(2), &hello(0, Standing::default()));
    coordinator.handle_hello(NOW, SessionId(3), &hello(1, Standing::default()));
    outputs(&mut coordinator);
    let flow = crate::node::Flow { from: "10.0.0.1:1".parse().unwrap(), to: "10.0.0.2:2".parse().unwrap() };
    let message = crate::node::Between::ReadOut { round: Round(1), flow };
    coordinator.handle_report(NOW, SessionId(2), Report::Relay { to: NodeId(1), message: message.clone() });
    let relayed = Order::Relayed { from: NodeId(0), message };
    assert_eq!(outputs(&mut coordinator), [CoordinatorOutput::Send(SessionId(3), relayed)]);
    let launched = Report::Launched { id: 3, pid: 4711 };
    let passed = coordinator.handle_report(NOW, SessionId(2), launched.clone());
    assert_eq!(passed, Some((NodeId(0), launched)));
}
