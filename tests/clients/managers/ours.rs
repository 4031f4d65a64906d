//! Our own manager's side against a real whydownd and against an old host: every ending once, and nothing made up.

use std::time::Duration;

use tokio::runtime::Runtime;
use whydown_lab::{Result, wait_until};
use whydown_manager::{ExitReason, Fleet, Memory, News, Patience, Rhythm, Target};

use crate::managers::live::{Host, PATIENCE};
use crate::managers::old_host::OldHost;

/// A fleet of one host, and all that it told so far.
struct Watch {
    runtime: Runtime,
    fleet: Fleet,
    told: Vec<News>,
}

impl Watch {
    fn start(url: String, acknowledge: bool, memory: Memory) -> Self {
        let runtime = Runtime::new().expect("threads");
        let patience = Patience { connect: Duration::from_secs(10), reply: PATIENCE };
        let every = Duration::from_millis(100);
        let rhythm = Rhythm { every, backoff_max: every * 4, at_once: 4, patience, acknowledge };
        let fleet = {
            let _inside = runtime.enter();
            Fleet::start(&[Target { url, tls: None }], rhythm, memory).expect("a host")
        };
        Self { runtime, fleet, told: Vec::new() }
    }

    /// Waits until this was told; gives all that came with it and before.
    #[track_caller]
    fn until(&mut self, what: &str, is: impl Fn(&News) -> bool) -> Vec<News> {
        let mut came = Vec::new();
        loop {
            let next =
                self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.fleet.next()).await });
            let Ok(Some((0, piece))) = next else { panic!("{what} was not told, but {came:?}") };
            came.push(piece);
            if is(came.last().expect("just pushed")) {
                self.told.extend(came.iter().cloned());
                return came;
            }
        }
    }

    fn end(mut self) -> (Memory, Vec<News>) {
        (self.fleet.memory(), self.told)
    }
}

fn ended(vm: &str) -> impl Fn(&News) -> bool {
    move |news| matches!(news, News::Ended { vm: which, .. } if which == vm)
}

fn gone(vm: &str) -> impl Fn(&News) -> bool {
    move |news| matches!(news, News::Gone { vm: which } if which == vm)
}

fn answers(news: &News) -> bool {
    matches!(news, News::Answers { .. })
}

fn silent(news: &News) -> bool {
    matches!(news, News::Silent { .. })
}

#[test]
fn each_ending_of_a_real_host_is_told_once_over_restarts_of_both_sides() -> Result<()> {
    let mut host = Host::start_at_a_fixed_port("")?;
    let guest = host.guest("twice")?;
    let id = guest.uuid_text().to_owned();
    host.up(&guest)?.power_off()?;
    host.wait(&guest, "Down");
    let url = url_of(&host)?;
    let mut watch = Watch::start(url.clone(), false, Memory::default());
    let first = watch.until("the first ending", ended(&id)).pop();
    let (memory, _) = watch.end();
    let memory: Memory =
        serde_json::from_str(&serde_json::to_string(&memory).expect("text")).expect("memory");

    // While nobody looks, somebody acknowledges it, starts it again, and it ends in the same way.
    host.python(&format!("server.destroy('{id}')"))?;
    host.up(&guest)?.power_off()?;
    host.wait(&guest, "Down");
    let mut watch = Watch::start(url.clone(), false, memory);
    let second = watch.until("the second ending, which says the same", ended(&id)).pop();
    let (Some(News::Ended { exit: a, .. }), Some(News::Ended { exit: b, .. })) = (first, second) else {
        panic!("endings")
    };
    assert_eq!((a.code, a.reason, &a.message), (b.code, b.reason, &b.message));
    assert!(a.run.is_some() && a.run != b.run);
    let (memory, _) = watch.end();

    // Nothing again: neither to a manager that was started anew, nor when the host was away.
    let mut watch = Watch::start(url, false, memory);
    watch.until("an answer", answers);
    host.daemon.terminate()?;
    watch.until("silence", silent);
    host.daemon.start_again()?;
    watch.until("an answer", answers);
    let (memory, told) = watch.end();
    assert!(told.iter().all(|news| answers(news) || silent(news)), "{told:?}");
    let mut watch = Watch::start(url_of(&host)?, true, memory);
    let came = watch.until("the end of it", gone(&id));
    assert!(matches!(came.as_slice(), [News::Answers { .. }, News::Gone { .. }]), "{came:?}");
    Ok(())
}

fn url_of(host: &Host) -> Result<String> {
    Ok(format!("http://127.0.0.1:{}/", host.daemon.port()?))
}

#[test]
fn an_old_host_is_read_as_it_always_was_and_its_troubles_say_nothing_about_vms() -> Result<()> {
    let old = OldHost::start();
    for vm in ["crashed", "off", "up"] {
        old.lab(&format!("up('{vm}')"))?;
    }
    let mut watch = Watch::start(old.url(), true, Memory::default());
    watch.until(
        "the last VM",
        |news| matches!(news, News::Status { vm, status } if vm == "up" && status == "Up"),
    );

    for trouble in ["fault", "recovering"] {
        old.lab(&format!("trouble('{trouble}', 0)"))?;
        let came = watch.until("that it says nothing", silent);
        assert_eq!(came.len(), 1, "{trouble}: {came:?}");
        old.lab("trouble('', 0)")?;
        let came = watch.until("that it is back", answers);
        assert_eq!(came, [News::Answers { vms: 3, broken: 0 }], "{trouble}");
    }

    // What cannot be read is named and counted; the others are read.
    old.lab("odd('odd')")?;
    let came = watch.until("what is odd", |news| matches!(news, News::Broken { .. }));
    assert_eq!(came, [News::Broken { what: "VM odd: it is Down without an exitCode".into(), count: 1 }]);

    // destroy fails twice, and is repeated until the VM is gone.
    old.lab("trouble('', 2)")?;
    old.lab("down('crashed', 1, 'Lost connection with qemu process')")?;
    let came = watch.until("the end of it", gone("crashed"));
    let [News::Ended { exit, .. }, News::Gone { .. }] = came.as_slice() else { panic!("{came:?}") };
    assert_eq!((exit.code, exit.reason, exit.reason.or_placeholder()), (1, ExitReason::NotSent, -1));
    assert_eq!((&exit.cause, &exit.run, exit.status_time), (&None, &None, None));
    assert_eq!(old.lab("destroys()")?, "['crashed', 'crashed', 'crashed']");

    // Two equal endings, and the VM seen between them: two endings.
    for _ in 0..2 {
        old.lab("down('off', 0, 'User shut down')")?;
        watch.until("the ending", ended("off"));
        watch.until("the end of it", gone("off"));
        old.lab("up('off')")?;
        watch.until("that it is up", |news| matches!(news, News::Status { vm, .. } if vm == "off"));
    }
    let (_, told) = watch.end();
    assert!(!told.iter().any(gone("up")) && !told.iter().any(ended("up")), "{told:?}");
    assert_eq!(told.iter().filter(|news| ended("crashed")(news)).count(), 1);
    Ok(())
}

#[test]
fn an_ending_is_not_acknowledged_before_it_was_told_nor_a_vm_destroyed_that_runs_again() -> Result<()> {
    let old = OldHost::start();
    old.lab("down('a', 1, 'x')")?;
    let mut watch = Watch::start(old.url(), true, Memory::default());
    // It is given, and the caller does not come back yet: the host is polled on, and nothing is destroyed.
    watch.until("the ending", ended("a"));
    let polls = || old.lab("polls()").ok().and_then(|polls| polls.parse::<u32>().ok());
    let before = polls().expect("a number");
    wait_until("it is polled on", PATIENCE, || polls() >= Some(before + 3));
    assert_eq!(old.lab("destroys()")?, "[]");
    // It is started again right after the poll that said Down. What is acknowledged now would end it.
    old.lab("frozen(True)")?;
    old.lab("up('a')")?;
    assert_eq!(watch.fleet.try_next(), None, "the caller is back, and has nothing new");
    let before = polls().expect("a number");
    wait_until("it is polled on", PATIENCE, || polls() >= Some(before + 3));
    assert_eq!(old.lab("destroys()")?, "[]");
    old.lab("frozen(False)")?;
    watch.until("that it runs", |news| matches!(news, News::Status { vm, .. } if vm == "a"));
    assert_eq!(old.lab("destroys()")?, "[]");
    Ok(())
}
