//! Connections to other nodes: both ends are the same connection, and what cannot be is refused.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use node_agent_image::FormatError;
use node_agent_image::contents::Contents;
use node_agent_image::limits::NODES_MAX;
use node_agent_image::model::{FileKind, NodeModel, OpenFile, Remote, Socket};
use node_agent_image::node::{decode, encode};
use proptest::prelude::*;

fn address() -> impl Strategy<Value = SocketAddr> {
    let v4 = (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port)));
    let v6 = (any::<[u16; 8]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port)));
    prop_oneof![v4, v6]
}

fn socket(remote: Remote) -> Socket {
    Socket {
        family: 2,
        kind: 1,
        protocol: 6,
        local: vec![2; 16],
        remote: vec![3; 16],
        peer_node: Some(remote),
        ..Socket::default()
    }
}

fn model(node: u32, sockets: Vec<Socket>) -> NodeModel {
    let file = |it| OpenFile { kind: FileKind::Socket(Box::new(it)), ..OpenFile::default() };
    NodeModel { node, files: sockets.into_iter().map(file).collect(), ..NodeModel::default() }
}

fn again(model: &NodeModel) -> Result<NodeModel, FormatError> {
    decode("f", &encode("f", model, &Contents::default()).unwrap()).map(|it| it.0)
}

proptest! {
    #[test]
    fn two_ends_are_one_connection(here in address(), there in address(), nodes in (0..9_u32, 0..9_u32)) {
        prop_assume!(nodes.0 != nodes.1 && here != there);
        let mine = Remote::new(nodes.1, here, there);
        let theirs = Remote::new(nodes.0, there, here);
        prop_assert_eq!(mine.connection(nodes.0), theirs.connection(nodes.1));
        let swapped = Remote::new(nodes.1, there, here);
        prop_assert_ne!(mine.connection(nodes.0), swapped.connection(nodes.0));
        prop_assert_ne!(mine.connection(nodes.0), Remote { node: 9, ..mine }.connection(nodes.0));
    }

    #[test]
    fn they_read_back(here in address(), there in address(), other in address(), node in 0..9_u32) {
        prop_assume!(there != other);
        let remote = Remote::new(node + 1, here, there);
        let model = model(node, vec![socket(remote), Socket::default(), socket(Remote::new(node + 1, here, other))]);
        prop_assert_eq!(again(&model).unwrap(), model);
    }

    /// However an address is written, one end writes it as the other.
    #[test]
    fn one_form_of_an_address(ip in any::<[u8; 4]>(), link in any::<[u16; 4]>(), port: u16, scope: u32, flow: u32) {
        let v4 = Ipv4Addr::from(ip);
        let plain = SocketAddr::from((v4, port));
        let mapped = SocketAddr::from((v4.to_ipv6_mapped(), port));
        prop_assert_eq!(Remote::new(1, mapped, plain), Remote::new(1, plain, mapped));
        let ip = Ipv6Addr::new(0xfe80, 0, 0, 0, link[0], link[1], link[2], link[3]);
        let scoped = SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope));
        prop_assert_eq!(Remote::new(1, scoped, plain), Remote::new(1, SocketAddr::from((ip, port)), plain));
        for raw in [mapped, scoped].into_iter().filter(|it| *it != Remote::new(1, *it, plain).local) {
            let error = again(&model(0, vec![socket(Remote { node: 1, local: raw, remote: plain })])).unwrap_err();
            prop_assert!(error.to_string().contains("in another form"), "{}", error);
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let ends = |port| (SocketAddr::from(([10, 0, 0, 1], port)), SocketAddr::from(([10, 0, 0, 2], 80)));
    let remote = |node, port| Remote::new(node, ends(port).0, ends(port).1);
    let good = || socket(remote(1, 4000));
    assert!(again(&model(0, vec![good(), socket(remote(1, 4001)), socket(remote(2, 4000))])).is_ok());
    let cases = [
        (vec![Socket { peer: Some(0), ..good() }], 0, "beside a peer on this node"),
        (vec![good()], 1, "this node"),
        (vec![socket(remote(NODES_MAX as u32, 1))], 0, "a node that no generation has"),
        (vec![Socket { kind: 2, ..good() }], 0, "not TCP"),
        (vec![Socket { family: 1, ..good() }], 0, "not TCP"),
        (vec![Socket { backlog: Some(5), ..good() }], 0, "listens"),
        (vec![Socket { local: vec![], ..good() }], 0, "without both its addresses"),
        (vec![Socket { remote: vec![], ..good() }], 0, "without both its addresses"),
        (vec![good(), good()], 1, "that another file is"),
    ];
    for (sockets, at, reason) in cases {
        let (own, last) = if reason == "this node" { (1, 0) } else { (0, at) };
        let error = again(&model(own, sockets)).unwrap_err().to_string();
        assert!(error.contains(&format!("files[{last}].kind.socket.peer_node")) && error.contains(reason), "{error}");
    }
    let error = again(&model(NODES_MAX as u32, vec![])).unwrap_err();
    assert!(matches!(error, FormatError::Limit { field: "number of a node", .. }), "{error}");
}
