//! Programs that remember addresses, with the preload library and a segment whose table says that they have moved: from
//! 10.77.0.x and fd77::1, which this host has not, to addresses of its loopback.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use hijack_abi::addresses::{Ports, loopback};
use hijack_abi::{JOB_FOLDER_VARIABLE, LIBRARY_FILE, SEGMENT_FILE};
use node_agent::addresses::{Table, write_addresses};
use node_agent::guardian::control::Control;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Old and new addresses of this virtual node (the first) and of others.
const MOVED: [(&str, &str, bool); 3] =
    [("10.77.0.1", "127.77.0.1", true), ("10.77.0.2", "127.77.0.2", true), ("fd77::1", "::1", true)];

/// A virtual node: its segment and its job's folder.
struct Ground {
    control: Control,
    folder: tempfile::TempDir,
}

impl Ground {
    fn new() -> Outcome<Self> {
        let ground = Self { control: Control::create()?, folder: tempfile::tempdir()? };
        symlink(library(), ground.folder.path().join(LIBRARY_FILE))?;
        let segment = format!("/proc/{}/fd/{}", std::process::id(), ground.control.number());
        symlink(segment, ground.folder.path().join(SEGMENT_FILE))?;
        Ok(ground)
    }

    fn moved() -> Outcome<Self> {
        let ground = Self::new()?;
        ground.write(&moved()?)?;
        Ok(ground)
    }

    fn write(&self, table: &Table) -> Outcome {
        Ok(write_addresses(self.control.segment(), table)?)
    }

    fn command(&self, words: &str) -> Command {
        let mut command = bare(words);
        command.env("LD_PRELOAD", self.folder.path().join(LIBRARY_FILE)).env(JOB_FOLDER_VARIABLE, self.folder.path());
        command
    }

    fn said(&self, words: &str) -> Outcome<String> {
        said(self.command(words))
    }

    fn start(&self, words: &str) -> Outcome<Running> {
        let mut child = self.command(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("stdout")?);
        Ok(Running { child, lines })
    }
}

/// A program that is talked with; killed when this is dropped.
struct Running {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    fn go_on(&mut self) -> Outcome {
        Ok(self.child.stdin.as_mut().ok_or("stdin")?.write_all(b"\n")?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn moved() -> Outcome<Table> {
    let mut table = Table::default();
    for (old, new, own) in MOVED {
        table.address(old.parse()?, new.parse()?, Ports::NONE, own);
    }
    Ok(table)
}

fn bare(words: &str) -> Command {
    let mut command = Command::new(program());
    command.args(words.split(' ')).env_clear().stdin(Stdio::null());
    command
}

fn said(mut command: Command) -> Outcome<String> {
    let output = command.output()?;
    let text = String::from_utf8(output.stdout)?;
    assert!(output.status.success() && text.ends_with("RESULT done\n"), "{command:?}: {}\n{text}", output.status);
    Ok(text)
}

/// The library as it is installed.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--release", "--package", "hijack"]).status();
        assert!(built.is_ok_and(|it| it.success()), "cargo build --release --package hijack");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target folder");
        target.join("release").join(LIBRARY_FILE)
    })
}

fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/addresses.c");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (new, program) = (folder.join(format!("addresses-{}", std::process::id())), folder.join("addresses"));
        let mut gcc = Command::new("gcc");
        // As distributions build: recvfrom is another function then.
        gcc.args(["-O2", "-Wall", "-D_FORTIFY_SOURCE=2", "-pthread", "-o"]).arg(&new).arg(source);
        assert!(gcc.status().is_ok_and(|it| it.success()), "gcc");
        std::fs::rename(new, &program).expect("a name for the program");
        program
    })
}

fn name(text: &str) -> SocketAddr {
    text.parse().expect("an address with port")
}

/// Behind the last colon.
fn port(text: &str) -> u16 {
    text.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

#[test]
fn without_a_table_everything_is_as_without_the_library() -> Outcome {
    let ground = Ground::new()?;
    for words in [
        "tcp 127.0.0.1 127.0.0.1",
        "tcp 127.0.0.2 -",
        "tcp ::1 ::1",
        "tcp ::ffff:127.0.0.1 -",
        "udp 127.0.0.1 127.0.0.3",
        "udp ::1 ::1",
        "short 127.0.0.1 127.0.0.1",
        "short ::1 ::1",
        "cancel 127.0.0.1",
        "errors",
    ] {
        let without = said(bare(words))?;
        assert_eq!(ground.said(words)?, without, "{words}");
        let mut of_no_job = ground.command(words);
        of_no_job.env_remove(JOB_FOLDER_VARIABLE);
        assert_eq!(said(of_no_job)?, without, "{words}, in no job");
        ground.write(&Table::default())?;
        assert_eq!(ground.said(words)?, without, "{words}, with an empty table");
    }
    Ok(())
}

#[test]
fn old_addresses_are_reached_and_believed() -> Outcome {
    let ground = Ground::moved()?;
    // What a program says of addresses that it has, it says of addresses that it had.
    for (words, real) in [
        ("tcp 10.77.0.1 10.77.0.2", "tcp 127.77.0.1 127.77.0.2"),
        ("tcp fd77::1 fd77::1", "tcp ::1 ::1"),
        ("tcp ::ffff:10.77.0.1 ::ffff:10.77.0.2", "tcp ::ffff:127.77.0.1 ::ffff:127.77.0.2"),
        ("udp 10.77.0.2 10.77.0.1", "udp 127.77.0.2 127.77.0.1"),
        ("udp fd77::1 fd77::1", "udp ::1 ::1"),
        ("cancel 10.77.0.1", "cancel 127.77.0.1"),
        ("errors", "errors"),
    ] {
        let expected = said(bare(real))?.replace("127.77.0", "10.77.0").replace("::1", "fd77::1");
        assert_eq!(ground.said(words)?, expected, "{words}");
    }
    // Neither old nor moved: nobody's business.
    assert_eq!(ground.said("tcp 127.0.0.1 127.0.0.1")?, said(bare("tcp 127.0.0.1 127.0.0.1"))?);
    Ok(())
}

#[test]
fn a_name_is_cut_where_the_kernel_would_have_cut_it() -> Outcome {
    let ground = Ground::moved()?;
    let expected = said(bare("short 127.77.0.1 127.77.0.2"))?;
    let expected = expected.replace("7f 4d 00", "0a 4d 00").replace("7f 4d ee", "0a 4d ee");
    assert_eq!(ground.said("short 10.77.0.1 10.77.0.2")?, expected);
    assert!(expected.contains("(6 of 16): 02 00 00 00 0a 4d ee ee"), "{expected}");
    Ok(())
}

#[test]
fn who_waited_before_the_move_hears_of_it_after() -> Outcome {
    let ground = Ground::new()?;
    let mut server = ground.start("serve 127.77.0.1")?;
    let port: u16 = server.line()?.parse()?;
    ground.write(&moved()?)?;
    let caller = said(bare(&format!("call 127.77.0.1 {port} 127.77.0.2")))?;
    let caller = caller.split_once(' ').ok_or("both ends")?.0.replace("127.", "10.");
    assert_eq!(server.line()?, format!("{caller} {caller}"));
    Ok(())
}

#[test]
fn moved_ports_and_connections_are_what_they_were() -> Outcome {
    let ground = Ground::new()?;
    let listener = TcpListener::bind("127.77.0.1:0")?;
    let real = listener.local_addr()?;
    let mut table = moved()?;
    table.exact(name("10.77.0.1:4242"), real, false);
    ground.write(&table)?;
    let mut client = ground.start("call 10.77.0.1 4242 10.77.0.2")?;
    let line = client.line()?;
    let (local, rest) = line.split_once(' ').ok_or("both ends")?;
    assert_eq!((name(local).ip(), rest), ("10.77.0.2".parse()?, "10.77.0.1:4242 reuse 1"));
    let (_stream, caller) = listener.accept()?;
    assert_eq!(caller, name(&local.replace("10.", "127.")));

    table.connection([caller, real], [name("10.77.0.2:1111"), name("10.77.0.1:2222")]);
    ground.write(&table)?;
    client.go_on()?;
    assert_eq!(client.line()?, "10.77.0.2:1111 10.77.0.1:2222");
    ground.write(&moved()?)?;
    client.go_on()?;
    assert_eq!(client.line()?, format!("{local} 10.77.0.1:{}", real.port()));
    Ok(())
}

/// Two virtual nodes on one host, told apart by their ports and by their loopback addresses.
#[test]
fn virtual_nodes_that_share_a_host_do_not_meet() -> Outcome {
    let shared: IpAddr = "::1".parse()?;
    let local: IpAddr = "127.0.0.1".parse()?;
    let slices = [Ports { first: 21_000, last: 21_499 }, Ports { first: 21_500, last: 21_999 }];
    let node = |place: usize| -> Outcome<Ground> {
        let ground = Ground::new()?;
        let mut table = Table::sharing(slices[place]);
        for (other, old) in ["fd77::1", "fd77::2"].into_iter().enumerate() {
            table.address(old.parse()?, shared, slices[other], other == place);
        }
        let own = loopback(place as u8 + 77, local).ok_or("a loopback address")?;
        table.address(local, own, Ports::NONE, true);
        ground.write(&table)?;
        Ok(ground)
    };
    let (first, second) = (node(0)?, node(1)?);

    let mut server = first.start("serve fd77::1")?;
    let at: u16 = server.line()?.parse()?;
    assert!(slices[0].contains(at), "{at}");
    let client = second.said(&format!("call fd77::1 {at} -"))?;
    let (own, rest) = client.split_once(' ').ok_or("both ends")?;
    assert!(own.starts_with("fd77::2:") && slices[1].contains(port(own)), "{client}");
    assert!(rest.starts_with(&format!("fd77::1:{at} reuse 1")), "{client}");
    assert_eq!(server.line()?, format!("{own} {own}"));

    let mut server = first.start("serve 127.0.0.1")?;
    let at: u16 = server.line()?.parse()?;
    assert!(second.said(&format!("call 127.0.0.1 {at} -"))?.starts_with("ECONNREFUSED\n"));
    let client = first.said(&format!("call 127.0.0.1 {at} -"))?;
    let (own, rest) = client.split_once(' ').ok_or("both ends")?;
    assert!(own.starts_with("127.0.0.1:") && rest.starts_with(&format!("127.0.0.1:{at} ")), "{client}");
    assert_eq!(server.line()?, format!("{own} {own}"));
    assert_eq!(first.said("udp 127.0.0.1 127.0.0.1")?, said(bare("udp 127.0.0.1 127.0.0.1"))?);
    assert_eq!(second.said("tcp 127.0.0.1 -")?, said(bare("tcp 127.0.0.1 -"))?);
    Ok(())
}

/// Not a test: figures for docs/hijack.md. `cargo test --release -- --ignored --nocapture costs`
#[test]
#[ignore = "measures"]
fn costs() -> Outcome {
    let (idle, moved) = (Ground::new()?, Ground::moved()?);
    for _ in 0..3 {
        println!("without the library\n{}", said(bare("measure 127.77.0.1 200"))?);
        println!("no table\n{}", idle.said("measure 127.77.0.1 200")?);
        println!("a table\n{}", moved.said("measure 10.77.0.1 200")?);
    }
    Ok(())
}
