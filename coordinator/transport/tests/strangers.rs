//! Who is not of the job does not get in, is reported once, and does not harm those who are.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coordinator_transport::limits::HELLO_BYTES_MAX;
use coordinator_transport::{ClientEvent, JoinFile, Keys, Receiver, Server, ServerEvent, ServerOptions};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use common::relay::{Relay, Way};
use common::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The server's name in its certificate.
const NAME: &str = "coordinator.slackwater.internal";

fn value(line: &str) -> Value {
    serde_json::from_str(line).expect("JSON")
}

fn join_file(value: &Value) -> JoinFile {
    let folder = tempfile::tempdir().expect("a folder");
    JoinFile::read(&private(&folder.path().join("join"), value)).expect("a join file")
}

fn keys(value: &Value) -> Keys {
    let folder = tempfile::tempdir().expect("a folder");
    Keys::read(&private(&folder.path().join("keys"), value)).expect("keys")
}

fn private(path: &std::path::Path, value: &Value) -> std::path::PathBuf {
    fs::write(path, value.to_string()).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its mode");
    path.to_owned()
}

/// A CA of our own, to make what [`Keys`] never makes.
struct Forge(Issuer<'static, KeyPair>, String);

impl Forge {
    fn new() -> Self {
        let (mut parameters, key) = (CertificateParams::default(), KeyPair::generate().expect("a key"));
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).expect("a certificate");
        Self(Issuer::new(parameters, key), STANDARD.encode(certificate.der()))
    }

    fn sign(&self, purpose: ExtendedKeyUsagePurpose, from: SystemTime, until: SystemTime) -> Value {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
        (parameters.not_before, parameters.not_after) = (from.into(), until.into());
        parameters.extended_key_usages = vec![purpose];
        let certificate = parameters.signed_by(&key, &self.0).expect("a certificate");
        json!({"certificate": STANDARD.encode(certificate.der()), "key": STANDARD.encode(key.serialize_der())})
    }

    /// Keys whose agents have a certificate for this time.
    fn keys(&self, from: SystemTime, until: SystemTime) -> Keys {
        let now = SystemTime::now();
        keys(&json!({
            "format": 1, "job": "job", "ca": self.1, "reset": STANDARD.encode([5; 40]),
            "server": self.sign(ExtendedKeyUsagePurpose::ServerAuth, now - DAY, now + DAY),
            "agent": self.sign(ExtendedKeyUsagePurpose::ClientAuth, from, until),
        }))
    }
}

/// A client with such keys gets nowhere. What the server says of it, and the client at last.
fn turned_down(file: &JoinFile, events: &Receiver<ServerEvent>) -> (String, String) {
    let (_client, client_events) = join(file, "stranger", SHORT);
    let reason = refused(events);
    match next(&client_events) {
        ClientEvent::Lost { reason: own } => (reason, own),
        other => panic!("{other:?}"),
    }
}

/// An agent of the job does what it always does.
fn lives(keys: &Keys, served: &Served) {
    let address = served.0.local_address();
    let ((client, client_events), peer) = pair(keys, served, address, LONG);
    client.send(b"here").expect("room");
    assert_eq!(message(&served.1), b"here");
    served.0.send(peer, b"there").expect("room");
    assert_eq!(client_message(&client_events), b"there");
    assert!(client.finish(PATIENCE));
}

#[test]
fn wrong_keys_of_every_kind() {
    let forge = Forge::new();
    let now = SystemTime::now();
    let good = forge.keys(now - DAY, now + DAY);
    let served = serve(&good, LONG);
    let addresses = vec![served.0.local_address()];
    let own = value(&good.join_file(addresses.clone()).to_line());
    let other_job = Keys::make("other").expect("keys").join_file(addresses.clone());

    let (here, there) = turned_down(&other_job, &served.1);
    assert_eq!(here, "it does not take our certificate for one of its job");
    assert!(there.contains("its certificate is not of this job"), "{there}");

    // It trusts the right coordinator, and shows the key of another job.
    let mut mixed = value(&other_job.to_line());
    mixed["ca"] = own["ca"].clone();
    let (here, there) = turned_down(&join_file(&mixed), &served.1);
    assert_eq!(here, "its certificate is not of this job");
    assert!(there.contains("it does not take our certificate for one of its job"), "{there}");

    // Of an own CA with the same name.
    let own_made = Forge::new().sign(ExtendedKeyUsagePurpose::ClientAuth, now - DAY, now + DAY);
    let mut self_made = own.clone();
    (self_made["certificate"], self_made["key"]) = (own_made["certificate"].clone(), own_made["key"].clone());
    let reason = turned_down_again(&join_file(&self_made), &served);
    assert!(reason.contains("our certificate"), "{reason}");

    for (from, until) in [(now - 3 * DAY, now - DAY), (now + DAY, now + 2 * DAY)] {
        let expired = forge.keys(from, until).join_file(addresses.clone());
        let mut expired = value(&expired.to_line());
        expired["ca"] = own["ca"].clone();
        let reason = turned_down_again(&join_file(&expired), &served);
        assert!(reason.contains("expired") || reason.contains("our certificate"), "{reason}");
    }

    // A coordinator's key, shown by an agent.
    let coordinator = forge.sign(ExtendedKeyUsagePurpose::ServerAuth, now - DAY, now + DAY);
    let mut wrong = own.clone();
    (wrong["certificate"], wrong["key"]) = (coordinator["certificate"].clone(), coordinator["key"].clone());
    let reason = turned_down_again(&join_file(&wrong), &served);
    assert!(reason.contains("certificate"), "{reason}");
    lives(&good, &served);
}

/// For reasons that the server has reported already.
fn turned_down_again(file: &JoinFile, (_, events): &Served) -> String {
    let (_client, client_events) = join(file, "stranger", SHORT);
    let reason = match next(&client_events) {
        ClientEvent::Lost { reason } => reason,
        other => panic!("{other:?}"),
    };
    while let Ok(event) = events.try_recv() {
        assert!(matches!(event, ServerEvent::Refused { .. }), "{event:?}");
    }
    reason
}

#[test]
fn expired_keys_open_nothing_on_either_side() {
    let now = SystemTime::now();
    let old = Keys::make_valid("job", now - 3 * DAY, now - DAY).expect("keys");
    let served = serve(&old, LONG);
    let (here, there) = turned_down(&old.join_file(vec![served.0.local_address()]), &served.1);
    assert_eq!(here, "it takes our certificate for expired");
    assert!(there.contains("its certificate has expired"), "{there}");
}

#[test]
fn an_agents_key_makes_no_coordinator() {
    let forge = Forge::new();
    let now = SystemTime::now();
    let all = forge.keys(now - DAY, now + DAY);
    let join_line = value(&all.join_file(Vec::new()).to_line());
    let false_one = keys(&json!({
        "format": 1, "job": "job", "ca": join_line["ca"], "reset": STANDARD.encode([5; 40]),
        "server": {"certificate": join_line["certificate"], "key": join_line["key"]},
        "agent": {"certificate": join_line["certificate"], "key": join_line["key"]},
    }));
    let served = serve(&false_one, LONG);
    let (_, there) = turned_down(&all.join_file(vec![served.0.local_address()]), &served.1);
    assert!(there.contains("certificate"), "{there}");
}

/// What a program without our library could do.
fn raw<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// TLS for a client with the key of a join file, or with none.
fn raw_config(file: &Value, with_key: bool, protocol: &[u8]) -> quinn::ClientConfig {
    let bytes = |name: &str| STANDARD.decode(file[name].as_str().expect("text")).expect("base64");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(bytes("ca").into()).expect("a CA");
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots);
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(bytes("key"));
    let mut tls = match with_key {
        true => builder.with_client_auth_cert(vec![bytes("certificate").into()], key.into()).expect("a key"),
        false => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![protocol.to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("QUIC")))
}

async fn raw_connection(config: quinn::ClientConfig, address: SocketAddr) -> (Endpoint, Connection) {
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
    let connection = endpoint.connect_with(config, address, NAME).expect("begun").await.expect("connected");
    (endpoint, connection)
}

#[test]
fn no_certificate_and_another_protocol() {
    let good = Keys::make("job").expect("keys");
    let served = serve(&good, LONG);
    let address = served.0.local_address();
    let file = value(&good.join_file(vec![address]).to_line());
    raw(async {
        let (_endpoint, connection) = raw_connection(raw_config(&file, false, b"slackwater/1"), address).await;
        connection.closed().await;
    });
    assert_eq!(refused(&served.1), "it shows no certificate");
    raw(async {
        let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
        let config = raw_config(&file, true, b"slackwater/2");
        endpoint.connect_with(config, address, NAME).expect("begun").await.expect_err("refused");
    });
    assert_eq!(refused(&served.1), "it speaks another version of this protocol");
    lives(&good, &served);
}

#[test]
fn garbage_and_frames_that_cannot_be() {
    let good = Keys::make("job").expect("keys");
    let served = serve(&good, LONG);
    let address = served.0.local_address();
    let file = value(&good.join_file(vec![address]).to_line());
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    for number in 0..2000_u32 {
        let mut datagram: Vec<u8> = (0..number).map(|at| (at.wrapping_mul(number) >> 3) as u8).collect();
        datagram.truncate(1400);
        socket.send_to(&datagram, address).expect("sent");
    }
    socket.send_to(b"GET / HTTP/1.1\r\nHost: coordinator\r\n\r\n", address).expect("sent");
    assert_eq!(refused(&served.1), "it sends what is not QUIC for this coordinator");

    let open = |hello: usize| {
        let mut frame = u32::try_from(26 + hello).expect("small").to_le_bytes().to_vec();
        frame.extend_from_slice(&[1; 17]);
        frame.extend_from_slice(&[0; 9]);
        frame.resize(frame.len() + hello, 7);
        frame
    };
    // The first frame: too long by its own word, by far, of no kind; then one that is right, and one too long after it.
    let mut huge_later = open(0);
    huge_later.extend_from_slice(&u32::MAX.to_le_bytes());
    let too_long = format!("a frame of {} bytes", 26 + HELLO_BYTES_MAX + 1);
    let cases = [
        (open(HELLO_BYTES_MAX + 1), too_long.as_str()),
        (0xffff_ffff_u32.to_le_bytes().to_vec(), "a frame of 4294967295 bytes"),
        (vec![1, 0, 0, 0, 77], "a frame of kind 77"),
        (vec![9, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0], "a frame that does not belong there"),
        (huge_later, "a frame of 4294967295 bytes"),
    ];
    for (bytes, expected) in cases {
        let closed = raw(async {
            let (_endpoint, connection) = raw_connection(raw_config(&file, true, b"slackwater/1"), address).await;
            let (mut to, _from) = connection.open_bi().await.expect("a stream");
            // It may be closed before all is written.
            let _ = to.write_all(&bytes).await;
            connection.closed().await.to_string()
        });
        assert!(closed.contains(expected), "{closed} is not {expected}");
    }
    lives(&good, &served);
}

#[test]
fn a_thousand_that_begin_a_handshake_and_then_idle() {
    let good = Keys::make("job").expect("keys");
    let options = ServerOptions { timeout: LONG, handshakes_at_once_max: 100, ..ServerOptions::default() };
    let served = Server::start(socket(), &good, options).expect("a server");
    let address = served.0.local_address();
    let ((client, _client_events), _) = pair(&good, &served, address, LONG);
    // They prove their address, and hear nothing of what follows: only packets of the kind Retry come back.
    let relay = Relay::new(address, 1);
    relay.filter(|way, datagram| way == Way::ToServer || datagram[0] & 0xf0 == 0xf0);
    let file = value(&good.join_file(vec![relay.address]).to_line());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let idlers = std::thread::spawn(move || {
        raw(async {
            let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
            let config = raw_config(&file, true, b"slackwater/1");
            let begin = |_| endpoint.connect_with(config.clone(), relay.address, NAME).expect("begun");
            let begun: Vec<_> = (0..1000).map(begin).collect();
            let _ = stopped.await;
            begun.len()
        })
    });
    // The door is full, and those who have stood in it too long are sent away.
    let mut signs = BTreeSet::from(["too many connect at once", "its handshake was not done when others wanted in"]);
    while !signs.is_empty() {
        signs.remove(refused(&served.1).as_str());
    }
    client.send(b"still here").expect("room");
    assert_eq!(message(&served.1), b"still here");
    lives(&good, &served);
    drop(stop);
    assert_eq!(idlers.join().expect("no panic"), 1000);
}
