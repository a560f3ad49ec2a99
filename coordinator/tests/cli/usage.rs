//! Wrong usage, help, and places where there is nothing.

use crate::place::{Place, text};

#[test]
fn wrong_usage_says_how_it_is_used() {
    let place = Place::new();
    let cases: [(&str, &[&str]); 8] = [
        ("ckpt-run", &[]),
        ("ckpt-run", &["--nonsense", "true"]),
        ("ckpt-run", &["--every", "soon", "true"]),
        ("ckpt-run", &["--keep", "0", "true"]),
        ("ckpt", &[]),
        ("ckpt", &["nonsense"]),
        ("ckpt", &["checkpoint", "job", "--dir", "dir"]),
        ("ckpt-restart", &[]),
    ];
    for (tool, words) in cases {
        let said = place.run(tool, words);
        assert_eq!(said.status.code(), Some(2), "{tool} {words:?}");
        assert!(text(&said.stderr).contains("sage") || text(&said.stderr).contains("error"), "{tool} {words:?}");
    }
}

#[test]
fn options_of_the_program_are_the_programs() {
    let place = Place::new();
    let said = place.run("ckpt-run", &["sh", "-c", "echo $1", "sh", "--keep"]);
    assert_eq!((said.status.code(), text(&said.stdout).as_str()), (Some(0), "--keep\n"), "{}", text(&said.stderr));
    let said = place.run("ckpt-run", &["--keep", "3", "--", "echo", "--", "--name"]);
    assert_eq!(text(&said.stdout), "-- --name\n", "{}", text(&said.stderr));
}

#[test]
fn help_tells_exit_codes() {
    let place = Place::new();
    for tool in ["ckpt-run", "ckpt-restart", "ckpt"] {
        let said = place.run(tool, &["--help"]);
        assert_eq!(said.status.code(), Some(0));
        assert!(text(&said.stdout).contains("Exit codes"), "{tool}");
    }
}

#[test]
fn where_there_is_nothing() {
    let place = Place::new();
    let here = place.path().display().to_string();
    for dir in [here.as_str(), "/no/such/folder", "/etc/passwd"] {
        let calls: [(&str, Vec<&str>); 3] =
            [("ckpt-restart", vec![dir]), ("ckpt", vec!["inspect", dir]), ("ckpt", vec!["verify", dir])];
        for (tool, words) in calls {
            let said = place.run(tool, &words);
            assert_eq!(said.status.code(), Some(1), "{tool} {words:?}");
            assert!(text(&said.stderr).contains(dir), "{tool} {words:?}: {}", text(&said.stderr));
        }
    }
    let said = place.run("ckpt", &["ls", &here, "--json"]);
    assert_eq!((said.status.code(), text(&said.stdout).trim()), (Some(0), "[]"));
}
