//! From addresses to a connection: all are tried, one a little after the other, the first that answers is it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use quinn::{ClientConfig, Connection, Endpoint};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep, timeout};

use crate::keys::SERVER_NAME;
use crate::limits::{ATTEMPT_TIMEOUT, BACK_OFF_MAX, BACK_OFF_MIN, STAGGER};
use crate::tls::handshake_failure;

/// Looks for the coordinator.
pub(super) struct Search {
    pub endpoint: Endpoint,
    /// The one that answered last comes first.
    addresses: Vec<SocketAddr>,
    pause: Duration,
    random: SystemRandom,
}

/// A socket for both families, or for IPv4 where there is no other.
pub(super) fn endpoint(config: ClientConfig) -> io::Result<Endpoint> {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let mut endpoint =
        Endpoint::client(any).or_else(|_| Endpoint::client(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

impl Search {
    pub(super) fn new(endpoint: Endpoint, addresses: Vec<SocketAddr>) -> Self {
        Self { endpoint, addresses, pause: BACK_OFF_MIN, random: SystemRandom::new() }
    }

    /// One round over all addresses. `Err`: what each of them had to say.
    pub(super) async fn connect(&mut self) -> Result<Connection, String> {
        let mut attempts = JoinSet::new();
        for (delay, &address) in (0..).map(|turn| STAGGER * turn).zip(&self.addresses) {
            let endpoint = self.endpoint.clone();
            attempts.spawn(async move {
                sleep(delay).await;
                (address, attempt(&endpoint, address).await)
            });
        }
        let mut reasons = Vec::new();
        while let Some(ended) = attempts.join_next().await {
            match ended {
                Ok((address, Ok(connection))) => {
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

    /// A session is carried: the next time pauses are short again.
    pub(super) fn found(&mut self) {
        self.pause = BACK_OFF_MIN;
    }
}

async fn attempt(endpoint: &Endpoint, address: SocketAddr) -> Result<Connection, String> {
    let connecting = endpoint.connect(address, SERVER_NAME).map_err(|cause| cause.to_string())?;
    match timeout(ATTEMPT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|cause| handshake_failure(&cause)),
        Err(_) => Err("no answer".to_owned()),
    }
}
