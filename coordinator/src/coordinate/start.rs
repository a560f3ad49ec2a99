//! Starting an agent on another host, by ssh or what the user names in its place.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use node_agent::guardian::AGENT_VARIABLES;
use node_agent::link::Join;

/// How long ssh and the start of an agent may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of what it says that are kept.
const SAID_BYTES_MAX: u64 = 16 << 10;

/// Starts `ckpt agent` on `host`. Returns when it runs in the background there.
///
/// # Errors
/// What ssh or the agent said.
pub fn start_agent(host: &str, options: &[String], join: &Join) -> Result<(), String> {
    let ckpt = std::env::current_exe().map_err(|error| format!("cannot find out where ckpt lies: {error}"))?;
    let rsh = rsh(&join.record.rsh);
    let mut command = Command::new(&rsh[0]);
    command
        .args(&rsh[1..])
        .args(options)
        .arg(host)
        .arg(format!("exec {} agent --join -", quoted(&ckpt.display().to_string())));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot run {}: {error}", rsh[0]))?;
    let text = serde_json::to_vec(join).map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has ended already says why below.
        let _ = stdin.write_all(&text);
    }
    wait(child).map_err(|reason| format!("{} {host}: {reason}", rsh.join(" ")))
}

fn wait(mut child: Child) -> Result<(), String> {
    let (sender, receiver) = mpsc::channel();
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let pid = child.id();
    thread::spawn(move || {
        let mut said = String::new();
        let _ = out.map(|it| it.take(SAID_BYTES_MAX).read_to_string(&mut said));
        let _ = err.map(|it| it.take(SAID_BYTES_MAX).read_to_string(&mut said));
        let _ = sender.send((child.wait(), said));
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok((Ok(status), _)) if status.success() => Ok(()),
        Ok((Ok(status), said)) => Err(format!("{status}: {}", said.trim())),
        Ok((Err(error), _)) => Err(error.to_string()),
        Err(_) => {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::SIGKILL);
            Err(format!("no answer within {} s", PATIENCE.as_secs()))
        }
    }
}

/// What starts programs on other hosts: `--rsh`, else what the user had told the launchers to take, else ssh.
fn rsh(wanted: &str) -> Vec<String> {
    let launchers = || AGENT_VARIABLES.iter().find_map(|name| std::env::var(name).ok());
    let said = Some(wanted.to_owned()).filter(|it| !it.trim().is_empty()).or_else(launchers);
    let words: Vec<String> = said.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    if words.is_empty() { vec!["ssh".into()] } else { words }
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
