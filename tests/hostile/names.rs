//! VMs with names that hide something: they are found and told as any other, and no terminal gets what is hidden.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use whydown::visible::visible;
use whydown_lab::{EmbedRoot, Guest, Launch, Result, Whydownd, lab_dir, run, unix_client, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

struct Host {
    daemon: Whydownd,
    root: EmbedRoot,
    folder: tempfile::TempDir,
}

impl Host {
    fn start() -> Result<Self> {
        let folder = lab_dir()?;
        let root = EmbedRoot::new(folder.path().join("e"))?;
        let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), &root.uri());
        Ok(Self { daemon: Whydownd::start(launch)?, root, folder })
    }

    /// Has a machine of this name started, as a manager does; whether libvirt took it is told later.
    fn create(&self, file: &str, name: &str) -> Result<Guest> {
        let guest = Guest::new(self.folder.path(), file)?;
        let document = guest.xml().replace(&format!("<name>{file}</name>"), &format!("<name>{name}</name>"));
        let path = self.folder.path().join(format!("{file}.odd.xml"));
        std::fs::write(&path, document).expect("a file can be written");
        let code = format!(
            "print(server.create({{'vmId': '{}', 'xml': open('{}', encoding='utf-8').read()}})['status'])",
            guest.uuid_text(),
            path.display()
        );
        let status = unix_client(&self.daemon.socket_path(), &code)?;
        assert!(status.contains("'code': 0"), "{status}");
        Ok(guest)
    }

    fn whydown(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whydown"));
        command.arg("--socket").arg(self.daemon.socket_path()).args(arguments);
        let done = run(&mut command, PATIENCE).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
        String::from_utf8(done.stdout).expect("text")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.whydown(&[&["--json"], arguments].concat())).expect("JSON")
    }

    fn status(&self, guest: &Guest) -> Option<Value> {
        let all = self.json(&["list"])["domains"].clone();
        all.as_array()?.iter().find(|domain| domain["domain"] == guest.uuid_text()).cloned()
    }

    fn wait(&self, guest: &Guest, status: &str) -> Value {
        wait_until(&format!("{} is {status}", guest.name()), PATIENCE, || {
            self.status(guest).is_some_and(|domain| domain["status"] == status)
        });
        self.status(guest).expect("it was there")
    }
}

#[test]
fn a_name_that_hides_something_is_found_by_what_is_shown_and_its_log_is_read() -> Result<()> {
    let host = Host::start()?;
    let names = [
        "a\u{202e}gnp",
        "b\u{2028}c",
        "d\u{200b}",
        "e\u{9b}31m",
        "f\u{feff}\u{2066}",
        "g\u{3164}h",
        "i\\u{202e}",
    ];
    for (number, name) in names.iter().enumerate() {
        let guest = host.create(&format!("guest-{number}"), name)?;
        host.wait(&guest, "up");
        wait_until("its process is known", PATIENCE, || {
            host.status(&guest).is_some_and(|domain| domain["pid"].is_u64())
        });
        let pid = host.status(&guest).expect("it runs")["pid"].as_u64().expect("a process");
        // Its sender is told by QEMU's log, which has the machine's name.
        run(Command::new("/bin/kill").args(["-TERM", &pid.to_string()]), PATIENCE)?;
        host.wait(&guest, "down");
        let shown = visible(name);
        assert_ne!(shown, *name);
        for asked in [&shown, *name] {
            let ending = host.json(&["why", asked])["ending"].clone();
            assert_eq!(
                (&ending["domain"], &ending["name"]),
                (&guest.uuid_text().into(), &(*name).into()),
                "{shown}"
            );
            let evidence = ending["evidence"].to_string();
            assert!(evidence.contains("QEMU's log: ended by signal 15"), "{shown}: {evidence}");
            let history = host.json(&["history", asked])["endings"].clone();
            assert_eq!(history.as_array().map(Vec::len), Some(1), "{shown}");
        }
        let hidden: Vec<char> = name.chars().filter(|c| !c.is_ascii()).collect();
        for arguments in
            [&["list"][..], &["why", &shown], &["history"], &["--json", "list"], &["--json", "why", name]]
        {
            let told = host.whydown(arguments);
            assert!(!told.contains(hidden.as_slice()), "{arguments:?}: {told:?}");
            assert!(arguments[0] == "--json" || told.contains(&shown), "{arguments:?}: {told:?}");
        }
        // What libvirt inside prints by itself is its own.
        let log = std::fs::read_to_string(host.daemon.output_path()).expect("it logs");
        let log: String = log.lines().filter(|line| line.contains(" whydown")).collect();
        assert!(log.contains(&shown) && !log.contains(hidden.as_slice()), "{shown}: {log}");
    }
    Ok(())
}

#[test]
fn a_name_that_looks_like_a_uuid_is_found_as_a_name() -> Result<()> {
    let host = Host::start()?;
    let name = "6695eb01-f6a4-8304-79aa-97f2502e193f";
    let guest = host.create("guest", name)?;
    host.wait(&guest, "up");
    assert_eq!(host.json(&["why", name])["domain"]["domain"], guest.uuid_text());
    guest.serial(PATIENCE)?.power_off()?;
    host.wait(&guest, "down");
    assert_eq!(host.json(&["why", name])["ending"]["domain"], guest.uuid_text());
    // Acknowledged, it is in history alone.
    let destroy = format!("print(server.destroy('{}')['status']['code'])", guest.uuid_text());
    assert_eq!(unix_client(&host.daemon.socket_path(), &destroy)?, "0");
    assert_eq!(host.json(&["why", name])["ending"]["domain"], guest.uuid_text());
    assert_eq!(host.json(&["history", name])["endings"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[test]
fn of_namesakes_the_one_that_runs_or_ran_is_told_before_one_that_failed_and_all_are_listed() -> Result<()> {
    let host = Host::start()?;
    let one = host.create("one", "web")?;
    host.wait(&one, "up");
    // libvirt has one machine of a name at most: this one fails, later.
    let other = host.create("other", "web")?;
    host.wait(&other, "down");
    let both = |told: &Value| (told["domain"]["domain"].clone(), told["namesakes"].clone());
    let wanted = (Value::from(one.uuid_text()), serde_json::json!([other.uuid_text()]));
    assert_eq!(both(&host.json(&["why", "web"])), wanted);
    host.root.qemu("web")?.signal(whydown_lab::Signal::KILL)?;
    host.wait(&one, "down");
    assert_eq!(both(&host.json(&["why", "web"])), wanted);
    let told = host.whydown(&["why", "web"]);
    let line = format!("There are 2 VMs of this name. This is about {}", one.uuid_text());
    assert!(told.contains(&line) && told.contains(&format!("The others: {}", other.uuid_text())), "{told}");
    for guest in [&one, &other] {
        assert_eq!(host.json(&["why", guest.uuid_text()])["ending"]["domain"], guest.uuid_text());
    }
    Ok(())
}
