//! A job's keys: a CA that signs two certificates and is forgotten, one for the coordinator, one for all agents.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::error::KeysError;
use crate::limits::JOB_BYTES_MAX;
use crate::secret::{self, Der};

/// What the coordinator is called in its certificate. Not a host's name: it may move, and only its key counts.
pub(crate) const SERVER_NAME: &str = "coordinator.slackwater.internal";
/// Version of both files.
pub(crate) const FORMAT: u32 = 1;
/// Ten years: no job runs longer, and keys that were forgotten somewhere open nothing for ever.
const VALID: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// Certificates begin a year ago: a node whose clock is that wrong has other troubles, but must not lose its job for it.
const CLOCK_SKEW: Duration = Duration::from_secs(366 * 24 * 3600);

/// What the coordinator of a job keeps, in one 0600 file, so that one that is started anew is known to its agents.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    format: u32,
    pub(crate) job: String,
    pub(crate) ca: Der,
    pub(crate) server: Identity,
    pub(crate) agent: Identity,
    /// What the server's connection identifiers and resets are made with: a server that is started anew can tell
    /// clients of the old one at once that it does not know their connection.
    pub(crate) reset: Der,
}

/// A certificate and its key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pub certificate: Der,
    pub key: Der,
}

impl Keys {
    /// New keys for a job, valid for ten years.
    ///
    /// # Errors
    /// [`KeysError::Job`], [`KeysError::Make`].
    pub fn make(job: &str) -> Result<Self, KeysError> {
        let now = SystemTime::now();
        Self::make_valid(job, now - CLOCK_SKEW, now + VALID)
    }

    /// New keys for a job, with a beginning and an end of their own.
    ///
    /// # Errors
    /// [`KeysError::Job`], [`KeysError::Make`].
    pub fn make_valid(job: &str, from: SystemTime, until: SystemTime) -> Result<Self, KeysError> {
        check_job(job)?;
        Self::make_checked(job, from, until).map_err(KeysError::Make)
    }

    /// From the file that [`Keys::write`] made.
    ///
    /// # Errors
    /// [`KeysError`]: it cannot be read, is open to others, or is not such a file.
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let keys: Self = secret::read(path)?;
        secret::check_format(path, keys.format)?;
        check_job(&keys.job)?;
        Ok(keys)
    }

    /// Into a file, mode 0600, that appears with all its bytes or not at all.
    ///
    /// # Errors
    /// [`KeysError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), KeysError> {
        secret::write(path, self)
    }

    /// What an agent needs to find the coordinator at these addresses.
    #[must_use]
    pub fn join_file(&self, addresses: Vec<SocketAddr>) -> JoinFile {
        let Identity { certificate, key } = self.agent.clone();
        JoinFile { format: FORMAT, job: self.job.clone(), addresses, ca: self.ca.clone(), certificate, key }
    }

    /// The job's name.
    #[must_use]
    pub fn job(&self) -> &str {
        &self.job
    }

    fn make_checked(job: &str, from: SystemTime, until: SystemTime) -> Result<Self, String> {
        let valid = Valid { from, until };
        let ca_key = KeyPair::generate().map_err(in_words)?;
        let mut ca = valid.parameters(&format!("slackwater job {job}"), &[])?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = ca.self_signed(&ca_key).map_err(in_words)?;
        let issuer = Issuer::new(ca, ca_key);
        // Two purposes, so that an agent's key does not make anybody a coordinator.
        let server = valid.signed(&issuer, "coordinator", &[SERVER_NAME], ExtendedKeyUsagePurpose::ServerAuth)?;
        let agent = valid.signed(&issuer, "agent", &[], ExtendedKeyUsagePurpose::ClientAuth)?;
        let mut reset = vec![0; 40];
        SystemRandom::new().fill(&mut reset).map_err(|_| "the kernel has no random bytes".to_owned())?;
        let ca = Der(certificate.der().to_vec());
        Ok(Self { format: FORMAT, job: job.to_owned(), ca, server, agent, reset: Der(reset) })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Keys").field("job", &self.job).finish_non_exhaustive()
    }
}

/// What an agent needs to find its coordinator and to be believed. It is a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinFile {
    pub(crate) format: u32,
    /// The job's name.
    pub job: String,
    /// Where the coordinator may be reached; all are tried.
    pub addresses: Vec<SocketAddr>,
    pub(crate) ca: Der,
    pub(crate) certificate: Der,
    pub(crate) key: Der,
}

impl JoinFile {
    /// From a file, or from standard input when the path is `-`. Standard input need not end after it.
    ///
    /// # Errors
    /// [`KeysError`]: it cannot be read, is open to others, or is not such a file.
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let join: Self = secret::read(path)?;
        secret::check_format(path, join.format)?;
        check_job(&join.job)?;
        Ok(join)
    }

    /// Into a file, mode 0600, that appears with all its bytes or not at all.
    ///
    /// # Errors
    /// [`KeysError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), KeysError> {
        secret::write(path, self)
    }

    /// As one line, for the standard input of an agent that is started elsewhere. It is a secret.
    #[must_use]
    pub fn to_line(&self) -> String {
        secret::line(self)
    }
}

impl fmt::Debug for JoinFile {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("JoinFile").field("job", &self.job).field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// From when until when.
#[derive(Clone, Copy)]
struct Valid {
    from: SystemTime,
    until: SystemTime,
}

impl Valid {
    fn parameters(self, name: &str, dns_names: &[&str]) -> Result<CertificateParams, String> {
        let names: Vec<String> = dns_names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = CertificateParams::new(names).map_err(in_words)?;
        parameters.not_before = self.from.into();
        parameters.not_after = self.until.into();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        Ok(parameters)
    }

    fn signed(
        self,
        issuer: &Issuer<'_, KeyPair>,
        name: &str,
        dns_names: &[&str],
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<Identity, String> {
        let key = KeyPair::generate().map_err(in_words)?;
        let mut parameters = self.parameters(name, dns_names)?;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![purpose];
        let certificate = parameters.signed_by(&key, issuer).map_err(in_words)?;
        Ok(Identity { certificate: Der(certificate.der().to_vec()), key: Der(key.serialize_der()) })
    }
}

fn check_job(job: &str) -> Result<(), KeysError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=JOB_BYTES_MAX).contains(&job.len()) && job.bytes().all(good) {
        return Ok(());
    }
    Err(KeysError::Job(job.chars().take(JOB_BYTES_MAX).collect()))
}

fn in_words(cause: rcgen::Error) -> String {
    cause.to_string()
}
