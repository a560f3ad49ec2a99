//! Messages and deeds in few words, for logs.

use coordinator_protocol::node::{Between, Flow, Hello, Order, Report};
use coordinator_protocol::round::Deed;

pub(super) fn hello(hello: &Hello) -> String {
    let standing = &hello.standing;
    format!("Hello from agent {}: {}, {}", hello.agent, standing.round, standing.stage.deed())
}

pub(super) fn order(order: &Order) -> String {
    match order {
        Order::Park(park) => format!("Park {}", park.round),
        Order::Holders { round, flows } => {
            let flows: Vec<String> = flows.iter().map(|(it, node)| format!("{} at n{}", flow(it), node.0)).collect();
            format!("Holders {round}: {}", flows.join(", "))
        }
        Order::Outside { round, edges } => format!("Outside {round}: {} connections", edges.len()),
        Order::Capture { round, .. } => format!("Capture {round}"),
        Order::Resume { round } => format!("Resume {round}"),
        Order::Write { round } => format!("Write {round}"),
        Order::Committed { round, generation } => format!("Committed {round}: generation {generation}"),
        Order::Abort { round, reason } => format!("Abort {round}: {reason}"),
        Order::End { reason } => format!("End: {reason}"),
        other => format!("{other:?}"),
    }
}

pub(super) fn report(report: &Report) -> String {
    match report {
        Report::Parked { round, edges } => format!("Parked {round}, {edges} edges"),
        Report::Stuck { round, flows } => {
            let flows: Vec<String> =
                flows.iter().map(|it| format!("{} ({} bytes)", flow(&it.flow), it.unacknowledged)).collect();
            format!("Stuck {round}: {}", flows.join(", "))
        }
        Report::Flushed { round } => format!("Flushed {round}"),
        Report::Captured { round } => format!("Captured {round}"),
        Report::Resumed { round, stall_us } => format!("Resumed {round} after {stall_us} us"),
        Report::Progress { round, done, total, .. } => format!("Progress {round}: {done} of {total}"),
        Report::Written { round, .. } => format!("Written {round}"),
        Report::Settled { round } => format!("Settled {round}"),
        Report::Failed { round, reason } => format!("Failed {round}: {reason}"),
        Report::Aborted { round } => format!("Aborted {round}"),
        other => format!("{other:?}"),
    }
}

pub(super) fn between(message: &Between) -> String {
    let name = flow(&message.about().1);
    match message {
        Between::ReadOut { .. } => format!("ReadOut {name}"),
        Between::Bytes { offset, bytes, .. } => format!("Bytes {name}: {} from {offset}", bytes.len()),
        Between::Settled { .. } => format!("Settled {name}"),
        Between::Kept { upto, .. } => format!("Kept {name}: {upto}"),
        Between::Emptied { .. } => format!("Emptied {name}"),
        Between::Total { bytes, .. } => format!("Total {name}: {bytes}"),
        Between::Recall { .. } => format!("Recall {name}"),
        Between::Untouched { .. } => format!("Untouched {name}"),
    }
}

pub(super) fn deed(deed: &Deed) -> String {
    match deed {
        Deed::Park(_) => "parks".into(),
        Deed::Flush(_) => "watches its send queues".into(),
        Deed::Leave(_, edges) => format!("leaves {} connections alone", edges.len()),
        Deed::Owe(_, it, node) => format!("notes that {} is owed by n{}", flow(it), node.0),
        Deed::Watch(_, flows) => format!("watches {} send queues", flows.len()),
        Deed::ReadOut(_, it, _) => format!("reads {} out", flow(it)),
        Deed::ReadRest(_, it) => format!("reads the rest of {} out", flow(it)),
        Deed::Fetch(_, it, range) => format!("fetches {} to {} of {}", range.start, range.end, flow(it)),
        Deed::Keep(_, it, offset, bytes) => format!("keeps {} of {} from {offset}", bytes.len(), flow(it)),
        Deed::Settle(_, it, total) => format!("has all {total} of {}", flow(it)),
        Deed::Delivered(_, it) => format!("has delivered {}", flow(it)),
        Deed::Capture(..) => "captures".into(),
        Deed::Resume(_) => "lets everybody go".into(),
        Deed::Write(_) => "writes".into(),
        Deed::Free(_) => "frees everybody".into(),
        Deed::End(reason) => format!("is to end: {reason}"),
    }
}

fn flow(flow: &Flow) -> String {
    let node = |address: std::net::SocketAddr| match address.ip() {
        std::net::IpAddr::V4(ip) => u32::from(ip) & 0xffff,
        std::net::IpAddr::V6(_) => 0,
    };
    format!("n{}→n{}", node(flow.from), node(flow.to))
}
