//! Managers and readers by TLS, rights by name, and certificates that are renewed under way.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use whydown_lab::{
    Authority, Launch, Papers, Result, Signal, Term, Whydownd, lab_dir, python, run, wait_for, wait_until,
    xmlrpc_client,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// The one domain of libvirt's test driver, running from the start.
const VM: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

/// Python's client with TLS: the port, our authority, and the client's certificate and key are its arguments.
const CLIENT: &str = "import ssl, sys, xmlrpc.client
port, ca, certificate, key = sys.argv[1:5]
context = ssl.create_default_context(cafile=ca)
context.check_hostname = False
if certificate:
    context.load_cert_chain(certificate, key)
server = xmlrpc.client.ServerProxy('https://127.0.0.1:%s/' % port, context=context, allow_none=True)
";

struct Host {
    daemon: Whydownd,
    authority: Authority,
    folder: TempDir,
}

impl Host {
    /// With this in the configuration besides the certificates, and one name that may act and one that may read.
    fn start(config: &str) -> Result<Self> {
        Self::start_with(config, "actors = ['engine.example']\nreaders = ['dwh.example']\n", true)
    }

    /// With everything but TLS as it is delivered.
    fn start_as_delivered() -> Result<Self> {
        Self::begin("", "", true, Launch::as_delivered)
    }

    /// With these rights; the certificates are there if `papers`.
    fn start_with(config: &str, rights: &str, papers: bool) -> Result<Self> {
        Self::begin(config, rights, papers, |launch| launch)
    }

    fn begin(config: &str, rights: &str, papers: bool, how: impl FnOnce(Launch) -> Launch) -> Result<Self> {
        let folder = lab_dir()?;
        let authority = Authority::new("an authority")?;
        let at = folder.path().display();
        let tls = format!(
            "{config}\n[tls]\nlisten = ['127.0.0.1:0']\ncertificate = '{at}/host-cert.pem'\nkey = '{at}/host-key.pem'\n\
             ca = '{at}/ca.pem'\n{rights}"
        );
        let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), "test:///default");
        if papers {
            Self::certify(&authority, &folder, "host.example")?;
        }
        Ok(Self { daemon: Whydownd::start(how(launch.config(&tls)))?, authority, folder })
    }

    fn certify(authority: &Authority, folder: &TempDir, name: &str) -> Result<()> {
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).expect("the folder can be written");
        authority.issue(name, &["127.0.0.1"], Term::Now)?.write(folder.path(), "host")?;
        Ok(())
    }

    fn papers(&self, name: &str) -> Result<Papers> {
        self.authority.issue(name, &[], Term::Now)
    }

    fn tls_port(&self) -> u16 {
        let listen = self.daemon.state_dir().join("listen");
        wait_for("an address with TLS", PATIENCE, || {
            let text = std::fs::read_to_string(&listen).ok()?;
            let address: SocketAddr =
                text.lines().find_map(|line| line.strip_prefix("tls "))?.parse().ok()?;
            Some(address.port())
        })
        .expect("the daemon writes where it listens")
    }

    /// Runs `code` with Python's client, as the holder of these papers.
    fn python(&self, papers: Option<&Papers>, code: &str) -> Result<String> {
        let (certificate, key) = match papers {
            Some(papers) => papers.write(self.folder.path(), "client")?,
            None => (PathBuf::new(), PathBuf::new()),
        };
        let ca = self.folder.path().join("ca.pem");
        let text = |path: &PathBuf| path.display().to_string();
        let arguments = [self.tls_port().to_string(), text(&ca), text(&certificate), text(&key)];
        python(&format!("{CLIENT}{code}"), &arguments.each_ref().map(String::as_str))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whydown"));
        command.arg("--socket").arg(self.daemon.socket_path()).arg("--json").args(arguments);
        let done = run(&mut command, PATIENCE).expect("the command line answers");
        serde_json::from_slice(&done.stdout).expect("it is JSON")
    }

    /// The common name that the host shows.
    fn shown(&self) -> Result<String> {
        // Only a certificate that was verified is told in words.
        let code = "import socket\n\
            with socket.create_connection(('127.0.0.1', int(port))) as plain:\n\
            \x20   with context.wrap_socket(plain) as secured:\n\
            \x20       print(dict(pair[0] for pair in secured.getpeercert()['subject'])['commonName'])";
        self.python(Some(&self.papers("engine.example")?), code)
    }
}

#[test]
fn the_engine_acts_by_its_certificate_and_is_named_in_the_evidence() -> Result<()> {
    let host = Host::start("")?;
    let engine = host.papers("engine.example")?;
    let polls = format!(
        "print(server.ping()['status']['code'], server.list()['vmList'][0]['vmId'] == '{VM}', \
         server.getVmStats('{VM}')['statsList'][0]['status'])"
    );
    assert_eq!(host.python(Some(&engine), &polls)?, "0 True Up");
    assert_eq!(host.python(Some(&engine), &format!("print(server.destroy('{VM}')['status']['code'])"))?, "0");
    wait_until("its ending is told", PATIENCE, || host.json(&["why", VM])["ending"].is_object());
    let ending = host.json(&["why", VM])["ending"].clone();
    let words = ending.to_string();
    assert!(words.contains("engine.example at 127.0.0.1:"), "{words}");
    assert_eq!(ending["cause"], "admin-destroyed", "{words}");
    Ok(())
}

#[test]
fn a_reader_reads_and_a_stranger_of_the_same_authority_does_not() -> Result<()> {
    let host = Host::start("")?;
    let reader = host.papers("dwh.example")?;
    let code = format!(
        "print(server.getAllVmStats()['status']['code'])\n\
         for status in (server.destroy('{VM}')['status'], server.shutdown('{VM}', '0', '')['status'],\n\
         \x20              server.create({{'xml': '<domain/>'}})['status']):\n\
         \x20   print(status['code'], status['message'].split(' at ')[0], status['message'].split(' ', 3)[3])\n\
         print(server.getVmStats('{VM}')['statsList'][0]['status'])"
    );
    let said = host.python(Some(&reader), &code)?;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines[0], lines[4], lines.len()), ("0", "Up", 5), "{said}");
    for (line, verb) in lines[1..4].iter().zip(["destroy", "shutdown", "create"]) {
        let why = format!("may not {verb}: none of its certificate's names is in tls.actors");
        assert!(line.starts_with("75 dwh.example ") && line.ends_with(&why), "{line}");
    }
    let stranger = host.papers("host-2.example")?;
    let told = host.python(Some(&stranger), "print(server.list()['status'])")?;
    assert!(told.contains("'code': 75") && told.contains("host-2.example at 127.0.0.1:"), "{told}");
    let code = "import urllib.request, urllib.error\n\
        try:\n\
        \x20   urllib.request.urlopen('https://127.0.0.1:%s/v1/domains' % port, context=context)\n\
        except urllib.error.HTTPError as refused:\n\
        \x20   print(refused.code, refused.read().decode())";
    let told = host.python(Some(&stranger), code)?;
    assert!(told.starts_with("403 ") && told.contains("host-2.example"), "{told}");
    // Without a certificate not even that much is said.
    let silent = "import http.client\n\
        try:\n\
        \x20   server.ping(); print('answered')\n\
        except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected) as refused:\n\
        \x20   print('refused')";
    assert_eq!(host.python(None, silent)?, "refused");
    wait_until("the log tells of it", PATIENCE, || {
        host.daemon.output_tail().contains("refused: the handshake failed: peer sent no certificates")
    });
    assert_eq!(host.python(Some(&reader), silent)?, "answered");
    Ok(())
}

#[test]
fn every_certificate_reads_by_default_and_a_star_lets_all_act() -> Result<()> {
    let read = "print(server.list()['status']['code'])";
    let destroy = format!("print(server.destroy('{VM}')['status']['code'])");
    let host = Host::start_with("", "", true)?;
    let anybody = host.papers("host-2.example")?;
    assert_eq!(host.python(Some(&anybody), read)?, "0");
    assert_eq!(host.python(Some(&anybody), &destroy)?, "75");
    drop(host);
    let host = Host::start_with("", "actors = ['*']\nreaders = ['dwh.example']\n", true)?;
    let anybody = host.papers("host-2.example")?;
    assert_eq!(host.python(Some(&anybody), read)?, "0", "whoever may act may read");
    assert_eq!(host.python(Some(&anybody), &destroy)?, "0");
    Ok(())
}

#[test]
fn plain_text_does_not_act_unless_it_is_told_to() -> Result<()> {
    let destroy = format!("print(server.destroy('{VM}')['status'])");
    let host = Host::start_as_delivered()?;
    let port = host.daemon.port()?;
    let told = xmlrpc_client(port, &destroy)?;
    assert!(told.contains("'code': 75") && told.contains("set xmlrpc.plain_may_act = true"), "{told}");
    assert_eq!(xmlrpc_client(port, "print(server.list()['status']['code'])")?, "0");
    drop(host);
    let host = Host::start("")?;
    assert!(xmlrpc_client(host.daemon.port()?, &destroy)?.contains("'code': 0"));
    Ok(())
}

#[test]
fn a_renewed_certificate_is_shown_after_sighup_and_an_open_connection_goes_on() -> Result<()> {
    let host = Host::start("")?;
    assert_eq!(host.shown()?, "host.example");
    // One connection, kept over the renewal: the client asks again when the file `go` is there, and says when it has.
    let renewal = format!(
        "import os, time\n\
         folder = '{at}'\n\
         def step(name):\n\
         \x20   server.ping(); own = server('transport')._connection[1].sock.getsockname()\n\
         \x20   open(folder + '/' + name, 'w').close(); return own\n\
         first = step('pinged')\n\
         deadline = time.monotonic() + 60\n\
         while not os.path.exists(folder + '/go') and time.monotonic() < deadline: time.sleep(0.02)\n\
         print(first == step('pinged-again'))",
        at = host.folder.path().display()
    );
    let engine = host.papers("engine.example")?;
    std::thread::scope(|scope| -> Result<()> {
        let open = scope.spawn(|| host.python(Some(&engine), &renewal));
        wait_until("the first ping", PATIENCE, || host.folder.path().join("pinged").exists());
        Host::certify(&host.authority, &host.folder, "renewed.example")?;
        host.daemon.signal(Signal::HUP)?;
        wait_until("the new certificate", PATIENCE, || {
            // Its own folder: the open client has its certificate in memory by now.
            host.shown().is_ok_and(|name| name == "renewed.example")
        });
        std::fs::write(host.folder.path().join("go"), "").expect("the folder can be written");
        assert_eq!(open.join().expect("no panic")?, "True", "the same connection before and after");
        Ok(())
    })?;

    // A broken key: loudly, and what was good goes on.
    std::fs::write(host.folder.path().join("host-key.pem"), "nothing").expect("the folder can be written");
    host.daemon.signal(Signal::HUP)?;
    let trouble = || host.json(&["health"])["tls_trouble"].clone();
    wait_until("the trouble is told", PATIENCE, || trouble().is_string());
    assert!(trouble().as_str().is_some_and(|text| text.contains("host-key.pem")), "{}", trouble());
    assert_eq!(host.shown()?, "renewed.example");
    assert!(host.daemon.output_tail().contains("the files read before stay in use"));
    Ok(())
}

#[test]
fn a_host_without_certificates_watches_its_vms_and_takes_them_when_they_come() -> Result<()> {
    let host = Host::start_with("", "", false)?;
    assert!(host.json(&["health"])["tls_trouble"].is_string());
    assert_eq!(xmlrpc_client(host.daemon.port()?, "print(server.list()['status']['code'])")?, "0");
    Host::certify(&host.authority, &host.folder, "host.example")?;
    assert!(host.shown().is_err(), "nothing is read before it is told");
    host.daemon.signal(Signal::HUP)?;
    wait_until("TLS", PATIENCE, || host.shown().is_ok_and(|name| name == "host.example"));
    assert!(host.json(&["health"])["tls_trouble"].is_null());
    Ok(())
}

#[test]
fn sighup_without_tls_ends_nothing() -> Result<()> {
    let folder = lab_dir()?;
    let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), "test:///default");
    let daemon = Whydownd::start(launch)?;
    daemon.signal(Signal::HUP)?;
    wait_until("it was heard", PATIENCE, || daemon.output_tail().contains("there is no TLS"));
    assert_eq!(xmlrpc_client(daemon.port()?, "print(server.list()['status']['code'])")?, "0");
    Ok(())
}
