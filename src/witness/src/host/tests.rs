//! A real bus, with a systemd and a logind on it that do what a test wants. Debian's own are heard in `tests/host`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use futures_core::Stream;
use tempfile::TempDir;
use whydown_core::evidence::Fact;
use whydown_core::hypervisor::Process;
use whydown_core::lifecycle::Subject;
use zbus::message::{Message, Type};
use zbus::{Connection, MessageStream, ObjectPath, Variant, connection};

use super::*;
use crate::source::{Report, Sink};

/// Longer than anything here takes, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// In which VMs run.
const UNITS: [&str; 2] = ["machine-qemu\\x2d1\\x2dvm.scope", "user@1000.service"];

const NOW: Wall = Wall::from_millis(1_000_000);

/// A bus of our own; ends with the test.
struct Daemon(Child);

impl Daemon {
    fn start(folder: &TempDir) -> Self {
        let config = folder.path().join("bus.conf");
        let text = format!(
            "<busconfig><type>session</type><listen>{}</listen><policy context=\"default\">\
             <allow own=\"*\"/><allow send_destination=\"*\"/><allow eavesdrop=\"true\"/></policy></busconfig>",
            address(folder)
        );
        std::fs::write(&config, text).unwrap();
        let _ = std::fs::remove_file(folder.path().join("bus"));
        let child = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon is needed: tests/setup.sh test");
        let mut daemon = Self(child);
        let mut line = String::new();
        BufReader::new(daemon.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("unix:path="), "{line}");
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn address(folder: &TempDir) -> String {
    format!("unix:path={}", folder.path().join("bus").display())
}

/// What systemd and logind answer.
#[derive(Clone, Copy, Default)]
struct Says {
    announced: bool,
    stopping: bool,
    mute: bool,
}

/// Both of them.
struct Init {
    connection: Connection,
    says: Arc<Mutex<Says>>,
    /// A message for each look at systemd's state.
    looks: Receiver<()>,
}

impl Init {
    fn start(folder: &TempDir, names: &[&str]) -> Self {
        let says = Arc::<Mutex<Says>>::default();
        let connection = connect(folder);
        let (there, own) = (connection.clone(), Arc::clone(&says));
        let (looked, looks) = channel();
        let messages = MessageStream::from(&connection);
        std::thread::spawn(move || zbus::block_on(answer(there, messages, own, looked)));
        for name in names {
            zbus::block_on(connection.request_name(*name)).unwrap();
        }
        Self { connection, says, looks }
    }

    /// Says this from now on, without a signal.
    fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    fn prepare_for_shutdown(&self, begins: bool) {
        let (path, interface) = ("/org/freedesktop/login1", "org.freedesktop.login1.Manager");
        let sent = self.connection.emit_signal(None::<&str>, path, interface, "PrepareForShutdown", &begins);
        zbus::block_on(sent).unwrap();
    }

    fn job(&self, member: &str, unit: &str) {
        let (path, interface) = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
        let job = ObjectPath::try_from("/org/freedesktop/systemd1/job/7").unwrap();
        let body = (7u32, job, unit);
        zbus::block_on(self.connection.emit_signal(None::<&str>, path, interface, member, &body)).unwrap();
    }
}

fn connect(folder: &TempDir) -> Connection {
    let address = address(folder);
    zbus::block_on(connection::Builder::address(&*address).build()).unwrap()
}

async fn answer(
    connection: Connection,
    mut messages: MessageStream,
    says: Arc<Mutex<Says>>,
    looked: Sender<()>,
) {
    loop {
        let message = std::future::poll_fn(|context| Pin::new(&mut messages).poll_next(context)).await;
        let Some(Ok(message)) = message else { return };
        let says = *says.lock().unwrap();
        if message.message_type() != Type::MethodCall || says.mute {
            continue;
        }
        let header = message.header();
        let body = message.body();
        let replied = match body.deserialize::<(&str, &str)>() {
            Ok((_, "SystemState")) => {
                let _ = looked.send(());
                let state = if says.stopping { "stopping" } else { "degraded" };
                connection.reply(&header, &Variant::from(state)).await
            }
            Ok((_, "PreparingForShutdown")) => {
                connection.reply(&header, &Variant::from(says.announced)).await
            }
            _ => connection.reply(&header, &()).await,
        };
        if replied.is_err() {
            return;
        }
    }
}

const BOTH: [&str; 2] = ["org.freedesktop.login1", "org.freedesktop.systemd1"];

fn watch(folder: &TempDir) -> (HostWatch, Receiver<Report>) {
    let (tell, told) = channel();
    let processes = Processes::new(None);
    UNITS.iter().for_each(|unit| processes.units.put(Process { pid: 77, start_ticks: 1 }, unit));
    let config = Config { bus: address(folder), processes, clock: || NOW };
    (HostWatch::start(config, Sink::new(move |report| drop(tell.send(report)))), told)
}

/// The next report, in short.
#[track_caller]
fn next(told: &Receiver<Report>) -> String {
    match told.recv_timeout(PATIENCE).expect("a report") {
        Report::Available => "heard".into(),
        Report::Unavailable { why } => format!("deaf: {why}"),
        Report::Observed { subject: Subject::Host, at: NOW, fact: Fact::HostGoingDown { by } } => {
            format!("down: {by}")
        }
        Report::Observed { subject: Subject::Host, at: NOW, fact: Fact::HostStays } => "stays".into(),
        Report::Observed { subject: Subject::Process(_), at: NOW, fact: Fact::UnitStopping { unit } } => {
            format!("unit {unit}")
        }
        other => panic!("{other:?}"),
    }
}

fn word(by: &str) -> Option<GoingDown> {
    Some(GoingDown { at: NOW, by: by.into() })
}

fn down(by: &str) -> String {
    format!("down: {by}")
}

#[test]
fn a_shutdown_is_told_once_by_each_who_says_so_and_taken_back_when_it_is_called_off() {
    let folder = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(&folder);
    let init = Init::start(&folder, &BOTH);
    let (watch, told) = watch(&folder);
    assert_eq!((next(&told), next(&told)), ("stays".into(), "heard".into()));
    assert!(watch.is_heard());
    assert_eq!(watch.ask(), Answer::Heard(None));

    for _ in 0..2 {
        init.say(Says { announced: true, ..Says::default() });
        init.prepare_for_shutdown(true);
        assert_eq!(next(&told), down(LOGIND));
        init.say(Says { announced: true, stopping: true, mute: false });
        init.job("JobNew", "shutdown.target");
        assert_eq!(next(&told), down(SYSTEMD));
        assert_eq!(watch.ask(), Answer::Heard(word(LOGIND)), "the first word");
        init.prepare_for_shutdown(true);
        assert_eq!(watch.ask(), Answer::Heard(word(LOGIND)));

        init.say(Says { announced: false, stopping: true, mute: false });
        init.prepare_for_shutdown(false);
        assert_eq!(watch.ask(), Answer::Heard(word(LOGIND)), "systemd still stops the system");
        init.say(Says::default());
        init.job("JobRemoved", "shutdown.target");
        assert_eq!(next(&told), "stays");
        assert_eq!(watch.ask(), Answer::Heard(None));
    }
    drop(watch);
    assert!(told.recv().is_err(), "nothing else was told, and the thread is gone");
}

#[test]
fn a_question_is_answered_with_what_is_so_after_it_was_put() {
    let folder = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(&folder);
    let init = Init::start(&folder, &["org.freedesktop.systemd1"]);
    let (watch, told) = watch(&folder);
    assert_eq!((next(&told), next(&told)), ("stays".into(), "heard".into()), "without a logind");
    init.job("JobNew", "some.service");
    // Scopes and users' managers are told: a VM may run in one.
    init.job("JobNew", "nobodys.scope");
    for unit in UNITS {
        init.job("JobNew", unit);
        assert_eq!(next(&told), format!("unit {unit}"));
    }
    for stopping in [true, false, true] {
        init.say(Says { stopping, ..Says::default() });
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let askers: Vec<_> = (0..8).map(|_| scope.spawn(|| watch.ask())).collect();
            askers.into_iter().map(|asker| asker.join().unwrap()).collect()
        });
        let wanted = Answer::Heard(stopping.then(|| word(SYSTEMD)).flatten());
        assert_eq!(answers, vec![wanted; 8]);
    }
    assert_eq!((next(&told), next(&told), next(&told)), (down(SYSTEMD), "stays".into(), down(SYSTEMD)));
    // A logind that comes later is heard as well.
    let logind = Init::start(&folder, &["org.freedesktop.login1"]);
    logind.say(Says { announced: true, ..Says::default() });
    logind.prepare_for_shutdown(true);
    assert_eq!(next(&told), down(LOGIND));
}

#[test]
fn nobody_else_on_the_bus_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(&folder);
    let init = Init::start(&folder, &BOTH);
    let liar = connect(&folder);
    let (watch, told) = watch(&folder);
    assert_eq!((next(&told), next(&told)), ("stays".into(), "heard".into()));
    assert_eq!(init.looks.try_iter().count(), 1);
    // Names of connections are numbers in order: this reaches every one, the witness among them.
    for number in 0..8 {
        for (path, interface, member) in [
            ("/org/freedesktop/login1", "org.freedesktop.login1.Manager", "PrepareForShutdown"),
            ("/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged"),
        ] {
            let message = Message::signal(path, interface, member).destination(format!(":1.{number}"));
            let message = message.build(&true).unwrap();
            zbus::block_on(liar.send(&message)).unwrap();
        }
    }
    init.looks.recv_timeout(PATIENCE).expect("it looks, and sees that nothing is so");
    assert_eq!(watch.ask(), Answer::Heard(None));
    drop(watch);
    assert!(told.recv().is_err(), "nothing was told");
}

#[test]
fn what_was_heard_stays_while_the_bus_is_away_and_is_asked_again_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&folder);
    let init = Init::start(&folder, &BOTH);
    init.say(Says { announced: true, ..Says::default() });
    let (watch, told) = watch(&folder);
    assert_eq!((next(&told), next(&told)), (down(LOGIND), "heard".into()));
    drop(daemon);
    let deaf = next(&told);
    assert!(deaf.starts_with("deaf: "), "{deaf}");
    assert!(!watch.is_heard());
    assert_eq!(watch.ask(), Answer::Unavailable(word(LOGIND)));
    let _daemon = Daemon::start(&folder);
    let _init = Init::start(&folder, &BOTH);
    assert_eq!((next(&told), next(&told)), ("stays".into(), "heard".into()));
    assert_eq!(watch.ask(), Answer::Heard(None));
}

#[test]
fn a_systemd_that_does_not_answer_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(&folder);
    let init = Init::start(&folder, &BOTH);
    let (watch, told) = watch(&folder);
    assert_eq!((next(&told), next(&told)), ("stays".into(), "heard".into()));
    init.say(Says { mute: true, ..Says::default() });
    assert_eq!(watch.ask(), Answer::Unavailable(None));
    assert_eq!(next(&told), "deaf: systemd's state: no answer within 2 s");
    init.say(Says::default());
    assert_eq!((next(&told), next(&told)), ("stays".into(), "heard".into()));
}

#[test]
fn a_bus_that_is_none_is_named_once_and_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let (nobody, told) = watch(&folder);
    assert!(next(&told).starts_with("deaf: it cannot be reached: "));
    assert_eq!(nobody.ask(), Answer::Unavailable(None));
    drop(nobody);
    assert!(told.recv().is_err(), "told once");

    // Those that take connections and say nothing, or what no bus says: zbus panics over an empty line.
    let noises =
        [&b""[..], &[b'x'; 100_000], &[b'\n'; 100_000], b"OK 0123456789abcdef0123456789abcdef\r\n\0\0"];
    let others = noises.map(|noise| {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("bus")).unwrap();
        let (watch, told) = watch(&folder);
        let (mut peer, _) = listener.accept().unwrap();
        // It may have hung up before the end.
        let _ = peer.write_all(noise);
        (watch, told, peer)
    });
    for (watch, told, _peer) in others {
        let word = next(&told);
        assert!(word.starts_with("deaf: it cannot be re"), "{word}");
        assert_eq!(watch.ask(), Answer::Unavailable(None));
        drop(watch);
        assert!(told.recv().is_err());
    }
}

#[test]
fn dropping_it_ends_its_thread_while_it_connects() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("bus")).unwrap();
    let (watch, told) = watch(&folder);
    let _peer = listener.accept().unwrap();
    drop(watch);
    assert!(told.recv().is_err(), "it was not waited for long enough to be given up");
}
