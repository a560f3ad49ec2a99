//! The network of the cluster: a bridge in a network namespace of its own, with a port for each node.
//!
//! Nothing of it is seen on the host, and there is no way out: what is sent to an address that no node has is answered with
//! "unreachable" by the bridge, which is every node's default route, so that nothing waits for a name server.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::cgroups::Cgroups;
use super::error::ClusterError;
use super::ground::{run, spoken, system, until};
use super::layout::{Layout, write};
use super::process::{Identity, network_of};

/// Prefix length of the nodes' IPv4 addresses.
pub const PREFIX: u8 = 24;
/// Prefix length of the nodes' IPv6 addresses.
pub const PREFIX_V6: u8 = 64;
/// The bridge's own address.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The name of the cgroup of the process that holds the namespace.
const NAME: &str = "network";
/// The longest that the namespace may take to be there.
const START_LIMIT: Duration = Duration::from_secs(10);
/// The longest that its holder may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// The IPv4 address of node `number`.
pub fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 77, 0, 10).to_bits() + number)
}

/// Its IPv6 address.
pub fn address_v6(number: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x10).to_bits() + u128::from(number))
}

/// The bridge, and the process that keeps its namespace alive.
pub struct Network {
    holder: Child,
    identity: Identity,
}

impl Network {
    /// Makes the namespace and the bridge. Its holder ends when we do, whatever ends us.
    pub fn start(groups: &Cgroups, layout: &Layout) -> Result<Network, ClusterError> {
        groups.add(NAME)?;
        let mut command = system("bash");
        command.args(["-c", &groups.join_and_exec(NAME), "bash", "setsid", "unshare", "--net", "cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let holder = command.spawn();
        let holder = holder.map_err(|source| ClusterError::Start { command: spoken(&command), source })?;
        let pid = holder.id().cast_signed();
        let identity = Identity::of(pid).unwrap_or(Identity { pid, start_ticks: 0 });
        let network = Network { holder, identity };
        write(&layout.records().join("network.pid"), &identity.to_record(), 0o644)?;
        network.set_up()?;
        Ok(network)
    }

    /// Gives a node its interface `eth0`, and the bridge a port for it.
    pub fn attach(&self, node: &str, number: u32, init: Identity) -> Result<(), ClusterError> {
        // The same hardware address in every life, as a machine has it: its peers go on asking for the old one for a minute.
        let (port, pid, hardware) = (port(node), init.pid.to_string(), format!("02:77:00:00:00:{number:02x}"));
        let peer = ["peer", "name", "eth0", "address", &hardware, "netns", &pid];
        self.ip(&[&["link", "add", "name", &port, "type", "veth"], peer.as_slice()].concat())?;
        self.plug(node)
    }

    /// Removes a node's port. A dead node's namespace can live on for minutes through sockets that still want to say
    /// something, and with it the link.
    pub fn detach(&self, node: &str) {
        // It may be gone already, with its namespace.
        let _ = self.ip(&["link", "delete", &port(node)]);
    }

    /// The port's link goes down, and so does the node's.
    pub fn cut(&self, node: &str) -> Result<(), ClusterError> {
        self.ip(&["link", "set", &port(node), "down"])
    }

    /// The port is no longer one of the bridge's: both ends' links stay up and nothing comes through.
    pub fn unplug(&self, node: &str) -> Result<(), ClusterError> {
        self.ip(&["link", "set", &port(node), "nomaster"])
    }

    /// The port is up and the bridge's.
    pub fn plug(&self, node: &str) -> Result<(), ClusterError> {
        self.ip(&["link", "set", &port(node), "master", "br0", "up"])
    }

    /// What goes to a node takes `delay_ms` longer; 0 takes the delay away.
    pub fn delay(&self, node: &str, delay_ms: u32) -> Result<(), ClusterError> {
        let (port, delay) = (port(node), format!("{delay_ms}ms"));
        let tc = |words: &[&str]| run(self.inside("tc").args(words));
        if delay_ms == 0 {
            // `replace` first: there is something to delete then.
            tc(&["qdisc", "replace", "dev", &port, "root", "pfifo"])?;
            return tc(&["qdisc", "delete", "dev", &port, "root"]);
        }
        tc(&["qdisc", "replace", "dev", &port, "root", "netem", "delay", &delay])
    }

    /// Ends the namespace and all links that are left.
    pub fn end(&mut self) -> Result<(), ClusterError> {
        let _ = self.identity.kill();
        until(|| "the end of the bridge".into(), END_LIMIT, || Ok(self.holder.try_wait().unwrap_or(None)))?;
        Ok(())
    }

    fn set_up(&self) -> Result<(), ClusterError> {
        let ours = network_of(std::process::id().cast_signed());
        until(
            || "the bridge's namespace".into(),
            START_LIMIT,
            || Ok(network_of(self.identity.pid).filter(|theirs| Some(theirs) != ours.as_ref())),
        )?;
        self.ip(&["link", "set", "lo", "up"])?;
        self.ip(&["link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0"])?;
        self.ip(&["address", "add", &format!("{GATEWAY}/{PREFIX}"), "dev", "br0"])?;
        self.ip(&["link", "set", "br0", "up"])?;
        // Without forwarding it would drop what it has no route for, without a word.
        run(self.inside("sh").args(["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]))
    }

    fn ip(&self, words: &[&str]) -> Result<(), ClusterError> {
        run(self.inside("ip").args(words))
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = system("nsenter");
        command.args(["--target", &self.identity.pid.to_string(), "--net", "--", program]);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("virtual cluster: {error}");
        }
    }
}

fn port(node: &str) -> String {
    format!("v{node}")
}

#[cfg(test)]
mod tests {
    use super::{address, address_v6};

    #[test]
    fn addresses() {
        assert_eq!(address(1).to_string(), "10.77.0.11");
        assert_eq!(address(200).to_string(), "10.77.0.210");
        assert_eq!(address_v6(2).to_string(), "fd77::12");
    }
}
