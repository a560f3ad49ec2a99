//! From addresses to a connection: all are tried, one a little after the other, the first that answers is it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use quinn::{ClientConfig, Connection, Endpoint};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep, timeout};

use crate::keys::SERVER_NAME;
use crate::limits::{ATTEMPT_TIMEOUT, BACK_OFF_MAX, BACK_OFF_MIN, DROP_TIMEOUT, STAGGER};
use crate::session::Code;
use crate::tls::handshake_failure;

/// Looks for the coordinator.
pub(super) struct Search {
    config: ClientConfig,
    /// Of the newest connection.
    endpoint: Option<Endpoint>,
    /// The one that answered last comes first.
    addresses: Vec<SocketAddr>,
    pause: Duration,
    random: SystemRandom,
}

impl Search {
    pub(super) fn new(config: ClientConfig, addresses: Vec<SocketAddr>) -> Self {
        Self { config, endpoint: None, addresses, pause: BACK_OFF_MIN, random: SystemRandom::new() }
    }

    /// One round over all addresses. `Err`: what each of them had to say.
    pub(super) async fn connect(&mut self) -> Result<Connection, String> {
        let mut attempts = JoinSet::new();
        for (delay, &address) in (0..).map(|turn| STAGGER * turn).zip(&self.addresses) {
            let config = self.config.clone();
            attempts.spawn(async move {
                sleep(delay).await;
                (address, attempt(config, address).await)
            });
        }
        let mut reasons = Vec::new();
        while let Some(ended) = attempts.join_next().await {
            match ended {
                Ok((address, Ok((endpoint, connection)))) => {
                    self.endpoint = Some(endpoint);
                    let at = self.addresses.iter().position(|&known| known == address).unwrap_or(0);
                    self.addresses[..=at].rotate_right(1);
                    return Ok(connection);
                }
                Ok((address, Err(reason))) => reasons.push(format!("{address}: {reason}")),
                Err(_) => {}
            }
        }
        Err(reasons.join("; "))
    }

    /// The pause before the next round. Each is twice as long as the one before, by and large: agents that were cut off
    /// together do not come back in step.
    pub(super) async fn back_off(&mut self) {
        let mut random = [0; 4];
        // Without random bytes they come in step, and come.
        let _ = self.random.fill(&mut random);
        let jitter = 0.5 + f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX) / 2.0;
        sleep(self.pause.mul_f64(jitter)).await;
        self.pause = (self.pause * 2).min(BACK_OFF_MAX);
    }

    /// Hangs up, and waits a moment until the other side has it.
    pub(super) async fn close(self) {
        if let Some(endpoint) = self.endpoint {
            endpoint.close(Code::Gone.into(), b"");
            let _ = timeout(DROP_TIMEOUT, endpoint.wait_idle()).await;
        }
    }

    /// A session is carried: the next time pauses are short again.
    pub(super) fn found(&mut self) {
        self.pause = BACK_OFF_MIN;
    }
}

/// With a socket of its own: one that outlived its connection would answer late datagrams with resets, which nobody at the
/// other end can tell from garbage.
async fn attempt(config: ClientConfig, address: SocketAddr) -> Result<(Endpoint, Connection), String> {
    let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { IpAddr::from(Ipv6Addr::UNSPECIFIED) };
    let endpoint = Endpoint::client(SocketAddr::new(any, 0)).map_err(|cause| format!("no socket: {cause}"))?;
    let connecting = endpoint.connect_with(config, address, SERVER_NAME).map_err(|cause| cause.to_string())?;
    match timeout(ATTEMPT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => Ok((endpoint, connection)),
        Ok(Err(cause)) => Err(handshake_failure(&cause)),
        Err(_) => Err("it did not answer".to_owned()),
    }
}
