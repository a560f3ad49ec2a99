//! The cluster's files in its scratch folder: what its nodes have for /etc, keys for ssh, the shared file system, records.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::error::ClusterError;
use super::ground::{run, system};
use super::network::{address, address_v6};
use super::{Options, USER};

/// Where things are in the scratch folder.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The scratch folder.
    pub scratch: PathBuf,
}

/// A user of the nodes, from their passwd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub shell: String,
}

impl Layout {
    /// What the nodes have for files of /etc.
    pub fn etc(&self) -> PathBuf {
        self.scratch.join("etc")
    }

    /// What belongs to one node: its log, its /var/log and /var/tmp.
    pub fn node(&self, name: &str) -> PathBuf {
        self.scratch.join("nodes").join(name)
    }

    /// Pids and start times of what was started, and marks of nodes that are up.
    pub fn records(&self) -> PathBuf {
        self.scratch.join("run")
    }

    /// What all nodes see as /srv.
    pub fn shared(&self) -> PathBuf {
        self.scratch.join("shared")
    }

    /// The home folder of the nodes' user.
    pub fn home(&self) -> PathBuf {
        self.shared().join("home").join(USER)
    }

    /// Writes everything that does not depend on a node.
    pub fn write(&self, options: &Options) -> Result<(), ClusterError> {
        for folder in [self.etc(), self.etc().join("ssh"), self.etc().join("daemons"), self.records(), self.shared()] {
            make_folder(&folder, 0o755)?;
        }
        self.write_accounts(options.uid)?;
        write(&self.etc().join("hosts"), &hosts(options.nodes), 0o644)?;
        write(&self.etc().join("binds"), &binds(&self.scratch, options), 0o644)?;
        for (number, daemon) in options.daemons.iter().enumerate() {
            write(&self.etc().join(format!("daemons/{number:03}")), daemon, 0o644)?;
        }
        let owned = |folder: PathBuf| make_folder(&folder, 0o755).and_then(|()| give(&folder, options.uid));
        make_folder(&self.shared().join("home"), 0o755)?;
        owned(self.home())?;
        owned(self.shared().join("work"))?;
        self.write_ssh(options.uid)
    }

    /// Takes away everything that a cluster has written.
    pub fn remove(&self) -> Result<(), ClusterError> {
        let kept = |path: &Path| path.exists();
        for folder in
            [self.etc(), self.scratch.join("nodes"), self.records(), self.shared()].iter().filter(|it| kept(it))
        {
            fs::remove_dir_all(folder).map_err(ClusterError::file("remove", folder))?;
        }
        Ok(())
    }

    /// Finds a user of the nodes by name.
    pub fn account(&self, user: &str) -> Result<Account, ClusterError> {
        let path = self.etc().join("passwd");
        let passwd = fs::read_to_string(&path).map_err(ClusterError::file("read", &path))?;
        let found = passwd.lines().find_map(|line| parse_account(line, user));
        found.ok_or_else(|| ClusterError::NoSuchUser { user: user.to_owned() })
    }

    fn write_accounts(&self, uid: u32) -> Result<(), ClusterError> {
        let lines = [
            ("passwd", format!("{USER}:x:{uid}:{uid}:a user of the virtual cluster:/home/{USER}:/bin/bash"), 0o644),
            ("group", format!("{USER}:x:{uid}:"), 0o644),
            // Not `!`: sshd takes that for a locked account.
            ("shadow", format!("{USER}:*:19000:0:99999:7:::"), 0o600),
        ];
        for (name, line, mode) in lines {
            let system = fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
            // Neither its name nor its number may mean somebody of the host; shadow has no numbers.
            let other = |line: &&str| {
                let mut fields = line.split(':');
                let (user, number) = (fields.next(), fields.nth(1));
                user != Some(USER) && (name == "shadow" || number != Some(uid.to_string().as_str()))
            };
            let others = system.lines().filter(other).map(|line| format!("{line}\n")).collect::<String>();
            write(&self.etc().join(name), &format!("{others}{line}\n"), mode)?;
        }
        Ok(())
    }

    fn write_ssh(&self, uid: u32) -> Result<(), ClusterError> {
        let (server, client) = (self.etc().join("ssh"), self.home().join(".ssh"));
        make_folder(&client, 0o700)?;
        let host_key = make_key(&server.join("host_key"))?;
        let user_key = make_key(&client.join("id_ed25519"))?;
        write(&server.join("sshd_config"), SSHD_CONFIG, 0o644)?;
        write(&server.join("known_hosts"), &format!("n*,10.77.0.*,fd77::*,localhost,127.*,::1 {host_key}"), 0o644)?;
        write(&client.join("authorized_keys"), &user_key, 0o600)?;
        write(&client.join("config"), SSH_CONFIG, 0o600)?;
        for name in ["", "id_ed25519", "id_ed25519.pub", "authorized_keys", "config"] {
            give(&client.join(name), uid)?;
        }
        Ok(())
    }
}

/// sshd of the nodes: a key of the cluster's own, one user, no PAM (which would want a session manager).
const SSHD_CONFIG: &str = "\
HostKey /run/ssh/host_key
PidFile /run/sshd.pid
UsePAM no
PasswordAuthentication no
PermitRootLogin no
AllowUsers hpc
MaxStartups 100
MaxSessions 100
";

/// A launcher cannot answer questions.
const SSH_CONFIG: &str = "\
Host *
    BatchMode yes
    ConnectTimeout 10
    StrictHostKeyChecking yes
    GlobalKnownHostsFile /run/ssh/known_hosts
    UserKnownHostsFile /dev/null
    LogLevel ERROR
";

/// Names are IPv4 addresses, as launchers expect; the IPv6 address has a name of its own.
fn hosts(nodes: u32) -> String {
    let node = |number| format!("{} n{number}\n{} n{number}-v6\n", address(number), address_v6(number));
    "127.0.0.1 localhost\n::1 localhost ip6-localhost\n".to_owned() + &(1..=nodes).map(node).collect::<String>()
}

/// What the nodes see of the host where they have something of their own: lines of `from TAB to`.
fn binds(scratch: &Path, options: &Options) -> String {
    let own = (scratch.to_path_buf(), scratch.to_path_buf());
    let all = std::iter::once(&own).chain(&options.binds);
    all.map(|(from, to)| format!("{}\t{}\n", from.display(), to.display())).collect()
}

fn parse_account(line: &str, user: &str) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
    let account =
        || Some(Account { uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.into(), shell: shell.into() });
    if name == user { account() } else { None }
}

/// A new key pair; the public half.
fn make_key(path: &Path) -> Result<String, ClusterError> {
    run(system("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "virtual-cluster", "-f"]).arg(path))?;
    let public = path.with_extension("pub");
    fs::read_to_string(&public).map_err(ClusterError::file("read", &public))
}

/// Makes a folder with this mode, whatever the umask is.
pub fn make_folder(folder: &Path, mode: u32) -> Result<(), ClusterError> {
    fs::create_dir_all(folder).map_err(ClusterError::file("make", folder))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(mode)).map_err(ClusterError::file("set the mode of", folder))
}

/// Writes a file with this mode.
pub fn write(path: &Path, text: &str, mode: u32) -> Result<(), ClusterError> {
    fs::write(path, text).map_err(ClusterError::file("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(ClusterError::file("set the mode of", path))
}

fn give(path: &Path, uid: u32) -> Result<(), ClusterError> {
    chown(path, Some(uid), Some(uid)).map_err(ClusterError::file("change the owner of", path))
}

#[cfg(test)]
mod tests {
    use super::{Account, hosts, parse_account};

    #[test]
    fn every_node_has_two_names() {
        let text = hosts(2);
        for line in ["10.77.0.11 n1", "fd77::11 n1-v6", "10.77.0.12 n2", "fd77::12 n2-v6"] {
            assert!(text.lines().any(|have| have == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn accounts_are_found_by_name() {
        let line = "hpc:x:20001:20002:a user:/home/hpc:/bin/bash";
        let want = Account { uid: 20_001, gid: 20_002, home: "/home/hpc".into(), shell: "/bin/bash".into() };
        assert_eq!(parse_account(line, "hpc"), Some(want));
        assert_eq!(parse_account(line, "root"), None);
        assert_eq!(parse_account("hpc:x:20001", "hpc"), None);
    }
}
