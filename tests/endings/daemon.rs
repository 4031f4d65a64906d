//! The daemon itself: its listeners, its configuration, its ledger in trouble, and libvirt inside it.

use std::process::Command;

use serde_json::Value;
use whydown_lab::{
    EmbedRoot, Guest, Launch, OnEnd, Result, Signal, Whydownd, lab_dir, run, wait_until, xmlrpc_client,
};

use whydown_lab::host::{Held, PATIENCE};

/// whydownd with libvirt inside.
pub struct Embedded {
    pub daemon: Whydownd,
    pub root: EmbedRoot,
    pub folder: tempfile::TempDir,
}

impl Embedded {
    pub fn start(config: &str) -> Result<Self> {
        let folder = lab_dir()?;
        let root = EmbedRoot::new(folder.path().join("e"))?;
        let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), &root.uri());
        Ok(Self { daemon: Whydownd::start(launch.config(config))?, root, folder })
    }

    pub fn guest(&self, name: &str) -> Result<Guest> {
        Guest::new(self.folder.path(), name)
    }

    pub fn python(&self, code: &str) -> Result<String> {
        Ok(xmlrpc_client(self.daemon.port()?, code)?.trim().to_owned())
    }

    pub fn create(&self, guest: &Guest) -> Result<whydown_lab::Serial> {
        let document = guest.write_xml()?;
        let call = format!(
            "print(server.create({{'xml': open('{}').read()}})['status']['code'])",
            document.display()
        );
        assert_eq!(self.python(&call)?, "0");
        guest.serial(PATIENCE)
    }

    pub fn stats(&self, guest: &Guest, member: &str) -> Option<String> {
        let code =
            format!("print(server.getVmStats('{}')['statsList'][0].get('{member}'))", guest.uuid_text());
        self.python(&code).ok()
    }

    pub fn wait(&self, guest: &Guest, status: &str) {
        let what = format!("{} is {status}", guest.name());
        wait_until(&what, PATIENCE, || self.stats(guest, "status").as_deref() == Some(status));
    }

    pub fn whydown(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whydown"));
        command.arg("--socket").arg(self.daemon.socket_path()).args(arguments);
        command.output().expect("the command line can be run")
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let done = self.whydown(arguments);
        serde_json::from_slice(&done.stdout).unwrap_or_else(|error| {
            panic!("{arguments:?}: {error}: {}", String::from_utf8_lossy(&done.stderr));
        })
    }
}

#[test]
fn vms_outlive_the_daemon_that_has_libvirt_inside_and_keep_their_runs() -> Result<()> {
    let mut host = Embedded::start("")?;
    let guest = host.guest("stays")?;
    let mut serial = host.create(&guest)?;
    host.wait(&guest, "Up");
    let run = host.json(&["--json", "why", "stays"])["domain"]["run"].clone();
    let status = host.daemon.terminate()?;
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    assert!(!host.daemon.socket_path().exists(), "the socket file is cleared away");
    assert!(host.root.qemu("stays")?.is_alive());
    host.daemon.start_again()?;
    host.wait(&guest, "Up");
    assert_eq!(host.json(&["--json", "why", "stays"])["domain"]["run"], run);
    host.daemon.kill_9()?;
    host.daemon.start_again()?;
    host.wait(&guest, "Up");
    serial.power_off()?;
    host.wait(&guest, "Down");
    assert_eq!(host.stats(&guest, "exitCause").as_deref(), Some("guest-poweroff"));
    Ok(())
}

#[test]
fn exit_reasons_above_8_are_for_those_who_ask() -> Result<()> {
    let host = Embedded::start("")?;
    let guest = host.guest("reset")?.on_reboot(OnEnd::Destroy);
    host.create(&guest)?.reset()?;
    host.wait(&guest, "Down");
    let ask = |header: &str| {
        host.python(&format!(
            "import xmlrpc.client\n\
             s = xmlrpc.client.ServerProxy('http://127.0.0.1:{}/RPC2', headers=[{header}])\n\
             vm = s.getAllVmStats()['statsList'][0]\n\
             print(vm['exitCode'], vm['exitReason'], vm['exitReasonExact'], vm['exitCause'])",
            host.daemon.port()?
        ))
    };
    assert_eq!(ask("")?, "0 6 13 destroyed-on-reboot");
    assert_eq!(ask("('X-Whydown-Exit-Reasons', 'full')")?, "0 13 13 destroyed-on-reboot");
    Ok(())
}

#[test]
fn down_records_leave_by_count_and_stay_in_history() -> Result<()> {
    let host = Embedded::start("[unacknowledged]\nmax_count = 2\n")?;
    let guests: Vec<_> = (0..3).map(|n| host.guest(&format!("b{n}"))).collect::<Result<_>>()?;
    for guest in &guests {
        host.create(guest)?.power_off()?;
        host.wait(guest, "Down");
    }
    wait_until("the oldest has left", PATIENCE, || {
        host.python("print(sorted(v['vmId'] for v in server.list(False)['vmList']))").is_ok_and(|ids| {
            !ids.contains(guests[0].uuid_text())
                && ids.contains(guests[1].uuid_text())
                && ids.contains(guests[2].uuid_text())
        })
    });
    let history = host.json(&["--json", "history", guests[0].uuid_text()]);
    assert_eq!(history["endings"][0]["acknowledged_by"], "(limit)");
    Ok(())
}

#[test]
fn the_command_line_says_what_is_wrong_by_its_exit_status() -> Result<()> {
    let mut host = Embedded::start("")?;
    let code = |arguments: &[&str]| host.whydown(arguments).status.code();
    assert_eq!(code(&["list"]), Some(0));
    assert_eq!(code(&["health"]), Some(0));
    assert_eq!(code(&["why", "nobody"]), Some(4));
    assert_eq!(code(&["history", "--since", "never"]), Some(1));
    assert_eq!(code(&["frobnicate"]), Some(2));
    let guest = host.guest("seen")?;
    let mut watch = Held(
        Command::new(env!("CARGO_BIN_EXE_whydown"))
            .arg("--socket")
            .arg(host.daemon.socket_path())
            .args(["--json", "watch"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("it runs"),
    );
    let mut serial = host.create(&guest)?;
    serial.power_off()?;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watch.0.stdout.take().expect("piped")));
    let (mut seen, mut down_at) = (Vec::new(), Value::Null);
    for line in lines.by_ref() {
        let change: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        let status = change["domain"]["status"].as_str().unwrap_or_default().to_owned();
        seen.push(status.clone());
        if status == "down" {
            assert_eq!(change["domain"]["ending"]["cause"], "guest-poweroff");
            down_at = change["at"].clone();
            break;
        }
    }
    assert!(seen.iter().any(|status| status == "up"), "{seen:?}");
    // A destroyed VM is never shown as down: how it ended is told as it leaves.
    let gone = host.guest("gone")?;
    let _serial = host.create(&gone)?;
    let destroy = format!("print(server.destroy('{}')['status']['code'])", gone.uuid_text());
    assert_eq!(xmlrpc_client(host.daemon.port()?, &destroy)?.trim(), "0");
    let mut next =
        || -> Value { serde_json::from_str(&lines.next().expect("a line").expect("read")).expect("JSON") };
    let left =
        std::iter::repeat_with(&mut next).find(|change| !change["left"].is_null()).expect("it goes on");
    assert_eq!(left["left"], gone.uuid_text());
    assert_eq!(left["ending"]["cause"], "admin-destroyed");
    // Who comes later is told since when it is so.
    let mut late = Held(
        Command::new(env!("CARGO_BIN_EXE_whydown"))
            .arg("--socket")
            .arg(host.daemon.socket_path())
            .args(["--json", "watch"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("it runs"),
    );
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(late.0.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut reader, &mut line).expect("read");
    let first: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(first["domain"]["name"], "seen");
    assert_eq!(first["at"], down_at, "and not since it came");
    drop(late);
    // A stop does not wait for those who watch, and they hear of it.
    host.daemon.terminate()?;
    let last =
        std::iter::repeat_with(&mut next).find(|change| change["stopping"] == true).expect("it goes on");
    assert!(last["domain"].is_null());
    assert_eq!(watch.0.wait().expect("it ends").code(), Some(69));
    assert_eq!(host.whydown(&["list"]).status.code(), Some(69));
    Ok(())
}

#[test]
fn a_wrong_configuration_is_told_whole_and_nothing_starts() -> Result<()> {
    let folder = lab_dir()?;
    let file = folder.path().join("bad.toml");
    std::fs::write(&file, "[ledger]\nendings_max_count = 'x'\n[socket]\nmode = '0777'\n[nonsense]\na = 1\n")
        .expect("written");
    let daemon = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whydownd"));
        command.arg("--config").arg(&file).args(arguments).output().expect("it runs")
    };
    let started = daemon(&[]);
    assert_eq!(started.status.code(), Some(78));
    let told = String::from_utf8_lossy(&started.stderr).into_owned();
    for key in ["ledger.endings_max_count", "socket.mode", "nonsense"] {
        assert!(told.contains(key) && told.contains("bad.toml"), "{key}: {told}");
    }
    assert_eq!(daemon(&["--check-config"]).status.code(), Some(78));
    Ok(())
}

#[test]
fn a_second_daemon_on_the_same_folder_is_refused() -> Result<()> {
    let host = Embedded::start("")?;
    let second = Command::new(env!("CARGO_BIN_EXE_whydownd"))
        .args(["--connect", "test:///default", "--listen", "127.0.0.1:0"])
        .arg("--state-dir")
        .arg(host.daemon.state_dir())
        .arg("--socket")
        .arg(host.folder.path().join("other.sock"))
        .output()
        .expect("it runs");
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another whydownd uses it"));
    Ok(())
}

#[test]
fn a_damaged_ledger_is_moved_away_and_the_daemon_goes_on() -> Result<()> {
    let mut host = Embedded::start("")?;
    let guest = host.guest("before")?;
    host.create(&guest)?.power_off()?;
    host.wait(&guest, "Down");
    host.daemon.terminate()?;
    std::fs::write(host.daemon.state_dir().join("ledger.db"), b"this is no database, and never was")
        .expect("written");
    host.daemon.start_again()?;
    let moved = std::fs::read_dir(host.daemon.state_dir()).expect("the folder is there").flatten();
    assert!(moved.into_iter().any(|f| f.file_name().to_string_lossy().starts_with("ledger.db.damaged-")));
    let after = host.guest("after")?;
    host.create(&after)?.power_off()?;
    host.wait(&after, "Down");
    assert_eq!(host.stats(&after, "exitDurable").as_deref(), Some("None"), "it is on disk");
    Ok(())
}

#[test]
fn a_full_disk_loses_nothing_and_is_said_aloud() -> Result<()> {
    let folder = lab_dir()?;
    let mount = Mount::tmpfs(&folder.path().join("d/state"))?;
    let root = EmbedRoot::new(folder.path().join("e"))?;
    let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), &root.uri());
    let host = Embedded { daemon: Whydownd::start(launch)?, root, folder };
    assert_eq!(host.daemon.state_dir(), mount.0);
    let port = host.daemon.port()?;
    let guest = host.guest("full")?;
    let document = guest.write_xml()?;
    let create =
        format!("print(server.create({{'xml': open('{}').read()}})['status']['code'])", document.display());
    assert_eq!(xmlrpc_client(port, &create)?.trim(), "0");
    let mut serial = guest.serial(PATIENCE)?;
    let filler = Filler::start(&mount);
    serial.power_off()?;
    let durable = |wanted: &str| {
        let code = format!(
            "v = server.getVmStats('{}')['statsList'][0]\nprint(v['status'], v.get('exitDurable', True))",
            guest.uuid_text()
        );
        xmlrpc_client(port, &code).is_ok_and(|told| told.trim() == format!("Down {wanted}"))
    };
    wait_until("it is Down, and not on disk", PATIENCE, || durable("False"));
    assert!(host.json(&["--json", "health"])["ledger_trouble"].is_string());
    filler.make_room();
    wait_until("it is on disk", PATIENCE, || durable("True"));
    wait_until("the ledger is well", PATIENCE, || {
        host.json(&["--json", "health"])["ledger_trouble"].is_null()
    });
    drop(host);
    drop(mount);
    Ok(())
}

/// A small disk of its own; needs root, as the libvirtd of the other tests does.
pub struct Mount(pub std::path::PathBuf);

impl Mount {
    pub fn tmpfs(at: &std::path::Path) -> Result<Self> {
        std::fs::create_dir_all(at).expect("made");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "whydown-test"]).arg(at), PATIENCE)?;
        Ok(Self(at.to_path_buf()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Keeps a disk full: a ledger that fails closes its files, which makes room, and would write again a second later.
pub struct Filler {
    file: std::path::PathBuf,
    stop: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Filler {
    /// The disk is full when this returns.
    pub fn start(mount: &Mount) -> Self {
        use std::io::Write;
        use std::sync::mpsc::{RecvTimeoutError, channel};
        let file = mount.0.join("filler");
        let mut open = std::fs::File::create(&file).expect("made");
        let mut fill = move || while open.write_all(&[1; 4096]).is_ok() {};
        fill();
        let (stop, stopped) = channel();
        let pause = std::time::Duration::from_millis(1);
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                fill();
            }
        });
        Self { file, stop, thread }
    }

    /// Goes away, and leaves room.
    pub fn make_room(self) {
        drop(self.stop);
        self.thread.join().expect("it only writes");
        std::fs::remove_file(&self.file).expect("there is room again");
    }
}

#[test]
fn libvirts_test_driver_is_a_connection_like_any_other() -> Result<()> {
    let folder = lab_dir()?;
    let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), "test:///default");
    let mut daemon = Whydownd::start(launch)?;
    let id = "6695eb01-f6a4-8304-79aa-97f2502e193f";
    let python = |daemon: &Whydownd, code: &str| -> Result<String> {
        Ok(xmlrpc_client(daemon.port()?, code)?.trim().to_owned())
    };
    assert_eq!(
        python(&daemon, "print([v['vmId'] for v in server.list(False)['vmList']])")?,
        format!("['{id}']")
    );
    python(&daemon, &format!("assert server.shutdown('{id}', '0', '')['status']['code'] == 0"))?;
    wait_until("it is down", PATIENCE, || {
        python(&daemon, &format!("print(server.getVmStats('{id}')['statsList'][0]['status'])"))
            .is_ok_and(|s| s == "Down")
    });
    for (code, wanted) in [
        ("print(server.ping()['status']['code'])", "0"),
        ("print('cpuUser' in server.getVdsStats()['info'])", "True"),
        ("print('cpuSpeed' in server.getVdsCapabilities()['info'])", "True"),
        ("print(server.getVdsHardwareInfo()['status']['code'])", "0"),
        ("print('getAllVmStats' in server.system.listMethods())", "True"),
    ] {
        assert_eq!(python(&daemon, code)?, wanted, "{code}");
    }
    daemon.signal(Signal::TERM)?;
    assert!(daemon.wait_end(PATIENCE)?.is_some_and(|status| status.success()));
    Ok(())
}

#[test]
fn why_of_a_name_that_was_given_again_is_about_the_vm_that_began_last() -> Result<()> {
    let host = Embedded::start("")?;
    let first = host.guest("twin")?;
    host.create(&first)?.power_off()?;
    host.wait(&first, "Down");
    let elsewhere = host.folder.path().join("second");
    std::fs::create_dir(&elsewhere).expect("made");
    let second = Guest::new(&elsewhere, "twin")?;
    let mut serial = host.create(&second)?;
    host.wait(&second, "Up");
    let told = host.json(&["--json", "why", "twin"]);
    assert_eq!(told["domain"]["domain"], second.uuid_text());
    assert_eq!((&told["ending"]["domain"], &told["ending"]["run"]), (&first.uuid_text().into(), &1.into()));
    assert_eq!(told["namesakes"], serde_json::json!([first.uuid_text()]));
    let words = String::from_utf8_lossy(&host.whydown(&["why", "twin"]).stdout).into_owned();
    assert!(words.contains(first.uuid_text()) && words.contains("another VM of this name"), "{words}");
    serial.power_off()?;
    host.wait(&second, "Down");
    assert_eq!(host.json(&["--json", "why", "twin"])["ending"]["domain"], second.uuid_text());
    Ok(())
}
