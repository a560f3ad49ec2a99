//! From keys to what quinn and rustls want to have. Only TLS 1.3, only this job's CA, both sides show a certificate.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, ConnectionError, EndpointConfig, IdleTimeout, NoneTokenStore, ServerConfig, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;

use crate::error::TransportError;
use crate::frame::ALPN;
use crate::keys::{Identity, JoinFile, Keys};
use crate::limits::{HANDSHAKES_AT_ONCE_MAX, WINDOW_BYTES};
use crate::secret::Der;

/// Round trip assumed before one was measured: three times this is how soon a lost first datagram is sent again. The
/// default is made for the other side of the world.
const INITIAL_RTT: Duration = Duration::from_millis(50);
/// Bytes of the key of resets; the key of connection identifiers follows it in [`Keys::reset`].
const RESET_KEY_BYTES: usize = 32;
/// Resets are this far apart: a thousand agents hear within a second that their coordinator is another one.
const RESET_INTERVAL: Duration = Duration::from_millis(1);
/// Bytes that strangers may have us keep before we have looked at their first datagram.
const INCOMING_BYTES_MAX: u64 = 64 << 10;

/// For the coordinator.
pub(crate) fn server_config(keys: &Keys, idle: Duration) -> Result<ServerConfig, TransportError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&keys.ca)?.into(), provider()).build();
    let (certificates, key) = identity(&keys.server);
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(in_words)?
        .with_client_cert_verifier(verifier.map_err(in_words)?)
        .with_single_cert(certificates, key)
        .map_err(in_words)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // Tickets would let an agent in without a look at its certificate.
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).map_err(in_words)?));
    config.transport_config(Arc::new(transport(idle, None)?));
    config.max_incoming(HANDSHAKES_AT_ONCE_MAX).incoming_buffer_size_total(INCOMING_BYTES_MAX);
    config.validation_token.sent(0);
    Ok(config)
}

/// For an agent.
pub(crate) fn client_config(
    join: &JoinFile,
    idle: Duration,
    keep_alive: Duration,
) -> Result<ClientConfig, TransportError> {
    let own = Identity { certificate: join.certificate.clone(), key: join.key.clone() };
    let (certificates, key) = identity(&own);
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(in_words)?
        .with_root_certificates(roots(&join.ca)?)
        .with_client_auth_cert(certificates, key)
        .map_err(in_words)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).map_err(in_words)?));
    config.transport_config(Arc::new(transport(idle, Some(keep_alive))?));
    config.token_store(Arc::new(NoneTokenStore));
    Ok(config)
}

/// For the coordinator, with the key of its connection identifiers: a new process with the same keys makes and knows the
/// same ones, so it can tell the clients of its predecessor at once that their connections are gone.
pub(crate) fn server_endpoint(keys: &Keys) -> Result<(EndpointConfig, u64), TransportError> {
    let damaged = || TransportError::Keys("the key of resets is too short".to_owned());
    let (reset, rest) = keys.reset.0.split_first_chunk::<RESET_KEY_BYTES>().ok_or_else(damaged)?;
    let key = u64::from_le_bytes(*rest.first_chunk().ok_or_else(damaged)?);
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset)));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
    config.min_reset_interval(RESET_INTERVAL);
    // So that what has not the bit is surely not of ours, and can be counted as garbage.
    config.grease_quic_bit(false);
    Ok((config, key))
}

/// Who failed to shake hands, in words: what the TLS alert means between us.
pub(crate) fn handshake_failure(error: &ConnectionError) -> String {
    let text = match error {
        ConnectionError::TransportError(error) => match alert(u64::from(error.code)) {
            Some(116) => "it shows no certificate",
            Some(48 | 51) => "its certificate is not of this job",
            Some(45) => "its certificate has expired or is not valid yet",
            Some(42 | 43 | 46) => "its certificate is damaged or for another purpose",
            Some(120) => "it speaks another version of this protocol",
            _ => return error.to_string(),
        },
        ConnectionError::ConnectionClosed(close) => match alert(u64::from(close.error_code)) {
            Some(116) => "it wants a certificate",
            Some(48 | 51) => "it does not take our certificate for one of its job",
            Some(45) => "it takes our certificate for expired",
            Some(42 | 43 | 46) => "it does not accept our certificate",
            Some(120) => "it speaks another version of this protocol",
            _ => return error.to_string(),
        },
        ConnectionError::VersionMismatch => "it speaks another version of QUIC",
        ConnectionError::TimedOut => "it did not answer",
        _ => return error.to_string(),
    };
    text.to_owned()
}

/// Whether a failed handshake is one that we refused, or that was refused for our keys: not one that was given up.
pub(crate) fn is_refusal(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::ConnectionClosed(close) => alert(u64::from(close.error_code)).is_some(),
        ConnectionError::ApplicationClosed(_) => false,
        _ => true,
    }
}

/// QUIC carries a TLS alert as 0x100 plus its number.
fn alert(code: u64) -> Option<u64> {
    (0x100..0x200).contains(&code).then_some(code & 0xff)
}

fn transport(idle: Duration, keep_alive: Option<Duration>) -> Result<TransportConfig, TransportError> {
    let idle = IdleTimeout::try_from(idle).map_err(|_| TransportError::Time("idle"))?;
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(keep_alive)
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES))
        .datagram_receive_buffer_size(None);
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(ca: &Der) -> Result<RootCertStore, TransportError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.0.clone())).map_err(in_words)?;
    Ok(roots)
}

fn identity(identity: &Identity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = PrivatePkcs8KeyDer::from(identity.key.0.clone());
    (vec![CertificateDer::from(identity.certificate.0.clone())], key.into())
}

fn in_words(cause: impl std::fmt::Display) -> TransportError {
    TransportError::Keys(cause.to_string())
}
