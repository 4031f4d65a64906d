//! Who comes in by which listener of a daemon as it is delivered: an unprivileged user of this host, a page's request, and
//! those whom the administrator names.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use whydown_lab::{EmbedRoot, Guest, Launch, Result, Whydownd, lab_dir, run, unix_client, wait_until};

use crate::attacker::{Attacker, param, post_with, xml};
use crate::host::{Host, LIMITS, LISTENERS, Listener, VM};

const PATIENCE: Duration = Duration::from_secs(60);

/// `nobody`, and another who has no name.
const NOBODY: &str = "65534";
const NAMELESS: &str = "65017";

/// What that user's Python prints, with `ask` for calls and `get` for pages; over TCP, or through the socket of this path.
fn as_user(uid: &str, port: u16, socket: &Path, code: &str) -> Result<String> {
    let script = format!(
        "import http.client, json, socket, xmlrpc.client\n\
         class Local(xmlrpc.client.Transport):\n\
         \x20   def make_connection(self, host):\n\
         \x20       made = http.client.HTTPConnection('localhost')\n\
         \x20       made.sock = socket.socket(socket.AF_UNIX); made.sock.connect('{}')\n\
         \x20       return made\n\
         tcp = xmlrpc.client.ServerProxy('http://127.0.0.1:{port}/')\n\
         unix = xmlrpc.client.ServerProxy('http://localhost/', transport=Local())\n\
         def get(path):\n\
         \x20   asked = http.client.HTTPConnection('127.0.0.1', {port}); asked.request('GET', path)\n\
         \x20   answer = asked.getresponse(); return answer.status, answer.read().decode()\n{code}",
        socket.display()
    );
    let mut command = Command::new("setpriv");
    command.args(["--reuid", uid, "--regid", uid, "--clear-groups", "--", "/usr/bin/python3", "-c", &script]);
    command.current_dir("/").env("no_proxy", "*");
    Ok(String::from_utf8_lossy(&run(&mut command, PATIENCE)?.stdout).trim_end().to_owned())
}

fn whydown(daemon: &Whydownd, arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whydown"));
    command.arg("--socket").arg(daemon.socket_path()).arg("--json").args(arguments);
    let done = run(&mut command, PATIENCE).expect("the command line answers");
    serde_json::from_slice(&done.stdout).expect("it is JSON")
}

fn launch(folder: &Path) -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.join("d"), "test:///default")
}

#[test]
fn a_local_user_changes_nothing_over_plain_tcp_and_is_told_which_setting_would_let_him() -> Result<()> {
    let folder = lab_dir()?;
    let daemon = Whydownd::start(launch(folder.path()).as_delivered())?;
    let acts = format!(
        "calls = [('destroy', '{VM}'), ('shutdown', '{VM}', '0', ''), ('pause', '{VM}'), ('cont', '{VM}'),\n\
         \x20 ('hibernate', '{VM}'), ('migrate', {{'vmId': '{VM}', 'dst': 'h'}}), ('migrateCancel', '{VM}'),\n\
         \x20 ('setVmTicket', '{VM}', 'x', '0', 'keep', {{}}), ('setBalloonTarget', '{VM}', 1024),\n\
         \x20 ('vmUpdateDevice', '{VM}', {{'deviceType': 'graphics', 'graphicsType': 'vnc', 'password': 'x', 'ttl': '0'}}),\n\
         \x20 ('changeCD', '{VM}', '/x'), ('changeFloppy', '{VM}', ''),\n\
         \x20 ('hotplugNic', {{'vmId': '{VM}', 'nic': {{'network': 'b'}}}}),\n\
         \x20 ('hotunplugNic', {{'vmId': '{VM}', 'nic': {{'macAddr': 'a'}}}}),\n\
         \x20 ('hotplugDisk', {{'vmId': '{VM}', 'drive': {{'path': '/x'}}}}),\n\
         \x20 ('hotunplugDisk', {{'vmId': '{VM}', 'drive': {{'path': '/x'}}}}),\n\
         \x20 ('setNumberOfCpus', '{VM}', 1), ('freeze', '{VM}'), ('thaw', '{VM}'),\n\
         \x20 ('create', {{'vmId': '{VM}', 'xml': '<domain><name>n</name></domain>'}}),\n\
         \x20 ('snapshot', '{VM}', [{{'name': 'vda', 'path': '/x'}}])]\n\
         for call in calls:\n\
         \x20   status = getattr(tcp, call[0])(*call[1:])['status']\n\
         \x20   print(call[0], status['code'], status['message'])"
    );
    let said = as_user(NOBODY, daemon.port()?, &daemon.socket_path(), &acts)?;
    assert_eq!(said.lines().count(), 21, "{said}");
    for line in said.lines() {
        let (call, told) = line.split_once(' ').expect("a call and its status");
        assert!(told.starts_with("75 ") && told.contains(&format!(" may not {call}: ")), "{line}");
        for word in
            ["nobody (uid 65534) at 127.0.0.1:", "xmlrpc.plain_may_act = true", "tls.actors", "Unix socket"]
        {
            assert!(line.contains(word), "{line}");
        }
    }
    assert_eq!(whydown(&daemon, &["list"])["domains"][0]["status"], "up");
    assert!(
        daemon.output_tail().contains("refused: nobody (uid 65534) at 127.0.0.1:"),
        "{}",
        daemon.output_tail()
    );
    Ok(())
}

#[test]
fn a_local_user_reads_over_plain_tcp_what_is_no_secret_and_no_words_of_others() -> Result<()> {
    let folder = lab_dir()?;
    let root = EmbedRoot::new(folder.path().join("e"))?;
    let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), &root.uri());
    // The secret: a folder's name, which libvirt tells when the start fails, and who asked for it.
    let secret = folder.path().join("tell-nobody");
    let config = format!("create.folders = ['{}']\n", folder.path().display());
    let daemon = Whydownd::start(launch.as_delivered().config(&config))?;
    let guest = Guest::new(folder.path(), "refused")?.image(secret.join("disk.img"));
    let document = guest.write_xml()?;
    let code = format!(
        "print(server.create({{'vmId': '{}', 'xml': open('{}').read()}})['status']['code'])",
        guest.uuid_text(),
        document.display()
    );
    assert_eq!(unix_client(&daemon.socket_path(), &code)?, "0");
    let ending = || whydown(&daemon, &["why", "refused"])["ending"].clone();
    wait_until("it is down", PATIENCE, || whydown(&daemon, &["list"])["domains"][0]["status"] == "down");
    for word in ["tell-nobody", "uid 0"] {
        assert!(ending().to_string().contains(word), "{word} is told to root: {}", ending());
    }
    let id = guest.uuid_text();
    let read = format!(
        "print(tcp.getAllVmStats()); print(tcp.getVmStats('{id}')); print(tcp.list(True, ['{id}']))\n\
         print(tcp.getVdsCapabilities()); print(tcp.getVdsStats()); print(tcp.getVdsHardwareInfo())\n\
         print(tcp.migrateStatus('{id}'))\n\
         for path in ('domains', 'why?vm=refused', 'why?vm={id}', 'history', 'health', 'doctor', 'doctor?vm=refused'):\n\
         \x20   print(*get('/v1/' + path))"
    );
    let told = as_user(NOBODY, daemon.port()?, &daemon.socket_path(), &read)?;
    for word in ["tell-nobody", "uid 0", "pid ", "asked whydown"] {
        assert!(!told.contains(word), "{word}: {told}");
    }
    assert!(!told.contains("'uuid': "), "the host's own number is root's: {told}");
    // The machine is told, and of its devices none; a listener where one may act has them.
    assert!(told.contains("'devices': []") && !told.contains("'memSize': 0"), "{told}");
    let code = format!("print(server.list(True, ['{id}']))");
    assert!(unix_client(&daemon.socket_path(), &code)?.contains("disk.img"));
    // Names, states and causes are told, by every question about them.
    assert!(told.matches("start-failed").count() >= 7, "{told}");
    assert_eq!(told.matches("'exitMessage': 'The VM could not be started.'").count(), 3, "{told}");
    assert_eq!(told.matches("403 ").count(), 2, "{told}");
    let secrets = ["may not read the host's serial numbers", "may not read how a migration went"];
    for denied in secrets {
        assert!(told.contains(denied), "{denied}: {told}");
    }
    // The same, live.
    let watch = "asked = socket.create_connection(('127.0.0.1', tcp_port)); asked.settimeout(60)\n\
                 asked.sendall(b'GET /v1/watch HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n')\n\
                 read = b''\n\
                 while b'start-failed' not in read: read += asked.recv(4096)\n\
                 print(read.decode())";
    let watch = watch.replace("tcp_port", &daemon.port()?.to_string());
    let told = as_user(NOBODY, daemon.port()?, &daemon.socket_path(), &watch)?;
    assert!(!told.contains("tell-nobody") && !told.contains("uid 0"), "{told}");
    Ok(())
}

#[test]
fn a_document_runs_no_program_of_its_senders_until_the_administrator_names_it() -> Result<()> {
    let folder = lab_dir()?;
    let root = EmbedRoot::new(folder.path().join("e"))?;
    let (program, mark) = (folder.path().join("evil.sh"), folder.path().join("ran"));
    std::fs::write(&program, format!("#!/bin/sh\nid >>{}\nexit 1\n", mark.display()))
        .expect("the folder can be written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let start = |name: &str, config: &str| {
        let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join(name), &root.uri());
        Whydownd::start(launch.as_delivered().config(config))
    };
    let xml = format!("<emulator>{}</emulator>", program.display());
    let document = format!(
        "<domain type=\"qemu\"><name>evil</name><memory>4096</memory><os><type>hvm</type></os><devices>{xml}</devices></domain>"
    );
    let create = format!("print(server.create({{'vmId': '{VM}', 'xml': '{document}'}})['status'])");
    let mut daemon = start("a", "")?;
    let told = unix_client(&daemon.socket_path(), &create)?;
    assert!(told.contains("<emulator>") && told.contains("create.emulators"), "{told}");
    // Not by another way either.
    let other = unix_client(
        &daemon.socket_path(),
        &format!(
            "print(server.create({{'vmId': '{VM}', 'vmName': 'n', 'memSize': '4', 'vmType': 'kvm', 'cdrom': '/etc/shadow'}}))\n\
             print(server.migrate({{'vmId': '{VM}', 'dst': 'qemu+ext:///system?command={}'}}))\n\
             print(server.snapshot('{VM}', [{{'name': 'vda', 'path': '/etc/cron.d/x'}}]))\n\
             channel = {{'type': 'channel', 'device': 'unix', 'name': '../../x'}}\n\
             print(server.create({{'vmId': '{VM}', 'vmName': 'n', 'memSize': '4', 'vmType': 'kvm', 'devices': [channel]}}))\n\
             print(server.create({{'vmId': '{VM}', 'vmName': 'n', 'memSize': '4', 'vmType': 'kvm', 'display': 'vnc', 'keyboardLayout': '../x'}}))\n\
             print(server.migrate({{'vmId': '{VM}', 'dst': 'qemu+ssh://%2DoProxyCommand=x/system'}}))",
            program.display()
        ),
    )?;
    let lines: Vec<&str> = other.lines().collect();
    assert_eq!(lines.len(), 6, "{other}");
    for (line, words) in lines.iter().zip([
        ["<disk><source>", "create.folders"],
        ["dst ", "create.allow"],
        ["path ", "create.folders"],
        ["<channel><target>", "name="],
        ["<graphics>", "keymap="],
        ["dst ", "create.allow"],
    ]) {
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
    assert!(!mark.exists() && whydown(&daemon, &["list"])["domains"].as_array().is_some_and(Vec::is_empty));
    daemon.terminate()?;
    // And that the program would have run shows who names it.
    let daemon = start("b", &format!("create.emulators = ['{}']\n", program.display()))?;
    unix_client(&daemon.socket_path(), &create)?;
    wait_until("it ran", PATIENCE, || mark.exists());
    Ok(())
}

/// libvirt makes a path of a channel's name: root would remove what lies there, and have the guest listen in its place.
#[test]
fn a_document_removes_and_writes_nothing_of_the_host_by_a_name_or_an_image() -> Result<()> {
    let folder = lab_dir()?;
    let root = EmbedRoot::new(folder.path().join("e"))?;
    let [images, firmware, others] = ["images", "firmware", "others"].map(|name| folder.path().join(name));
    for made in [&images, &firmware, &others] {
        std::fs::create_dir(made).expect("the folder can be written");
    }
    let precious = [&firmware, &others].map(|folder| folder.join("precious"));
    for file in &precious {
        std::fs::write(file, "precious").expect("the folder can be written");
    }
    let make = |name: &str, options: &[&str]| {
        let image = images.join(name);
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .args(options)
            .args([image.as_os_str(), "1M".as_ref()])
            .status();
        assert!(made.expect("qemu-img is there: apt-get install qemu-utils").success());
        image
    };
    let image = make("names.qcow2", &["-o", &format!("data_file={}", others.join("data").display())]);
    let below = make("below.qcow2", &[]);
    let above = make("above.qcow2", &["-F", "qcow2", "-b", &below.display().to_string()]);
    let config =
        format!("create.folders = ['{}']\ncreate.firmware = ['{}']\n", images.display(), firmware.display());
    let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), &root.uri());
    let daemon = Whydownd::start(launch.as_delivered().config(&config))?;
    let create = |name: &str, devices: &str| -> Result<String> {
        let guest = Guest::new(&images, name)?.device_xml(devices);
        let document = guest.write_xml()?;
        let code = format!(
            "print(server.create({{'vmId': '{}', 'xml': open('{}').read()}})['status'])",
            guest.uuid_text(),
            document.display()
        );
        unix_client(&daemon.socket_path(), &code)
    };
    let climb = "../".repeat(30);
    let by_name = |path: &Path| {
        format!(
            "<controller type='virtio-serial'/><channel type='unix'><source mode='bind'/>\
             <target type='virtio' name='{climb}{}'/></channel>",
            path.display().to_string().trim_start_matches('/')
        )
    };
    let [written, other] = &precious;
    let disk = |path: &Path, format: &str| {
        format!(
            "<disk type='file'><driver name='qemu' type='{format}'/><source file='{}'/><target dev='vdb' bus='virtio'/></disk>",
            path.display()
        )
    };
    for (name, devices, told) in [
        ("channel", by_name(other), "<channel><target>: name="),
        (
            "serial",
            format!("<serial type='file'><source path='{}'/></serial>", written.display()),
            "create.folders",
        ),
        ("disk", disk(written, "raw"), "create.folders"),
        ("data", disk(&image, "qcow2"), "others/data"),
        ("extents", disk(&image, "vmdk"), "\"formats\" in create.allow"),
    ] {
        let status = create(name, &devices)?;
        assert!(status.contains("'code': 9") && status.contains(told), "{name}: {status}");
    }
    for file in &precious {
        assert_eq!(std::fs::read_to_string(file).expect("it is there"), "precious");
    }
    assert!(whydown(&daemon, &["list"])["domains"].as_array().is_some_and(Vec::is_empty));
    // What engines name is taken, and a chain within the folder.
    let channel = "<controller type='virtio-serial'/><channel type='unix'><source mode='bind'/>\
                   <target type='virtio' name='org.qemu.guest_agent.0'/></channel>";
    let status = create("good", &format!("{channel}{}", disk(&above, "qcow2")))?;
    assert!(status.contains("'code': 0"), "{status}");
    wait_until("it runs", PATIENCE, || whydown(&daemon, &["list"])["domains"][0]["status"] == "up");
    Ok(())
}

#[test]
fn what_the_daemon_writes_is_roots_alone_whatever_the_mask_it_is_started_with() -> Result<()> {
    let folder = lab_dir()?;
    let state = folder.path().join("new/state");
    let config = folder.path().join("whydown.toml");
    std::fs::write(&config, "xmlrpc.listen = []\n").expect("the folder can be written");
    let mut child = Command::new("sh")
        .args([
            "-c",
            "umask 0; exec \"$@\"",
            "sh",
            env!("CARGO_BIN_EXE_whydownd"),
            "--connect",
            "test:///default",
        ])
        .args(["--config".as_ref(), config.as_os_str(), "--state-dir".as_ref(), state.as_os_str()])
        .args(["--socket".as_ref(), folder.path().join("socket").as_os_str()])
        .spawn()
        .expect("sh is there");
    let mode = |path: &Path| std::fs::metadata(path).map(|found| found.permissions().mode() & 0o777).ok();
    let socket = folder.path().join("socket");
    let ledger = state.join("ledger.db");
    wait_until("socket and ledger are there", PATIENCE, || mode(&socket) == Some(0o660) && ledger.exists());
    let modes = [mode(&folder.path().join("new")), mode(&state), mode(&ledger)];
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(modes, [Some(0o700), Some(0o700), Some(0o600)]);
    Ok(())
}

#[test]
fn over_loopback_the_evidence_and_the_log_name_the_user_who_asked() -> Result<()> {
    let folder = lab_dir()?;
    let daemon = Whydownd::start(launch(folder.path()))?;
    let code = format!("print(tcp.destroy('{VM}')['status']['code'])");
    assert_eq!(
        as_user(NOBODY, daemon.port()?, &daemon.socket_path(), &code)?,
        "0",
        "whoever may act by the setting"
    );
    let ending = || whydown(&daemon, &["why", VM])["ending"].clone();
    wait_until("its ending is told", PATIENCE, || ending().is_object());
    let who = "nobody (uid 65534) at 127.0.0.1:";
    assert!(ending()["because"].to_string().contains(who), "{}", ending());
    let log = std::fs::read_to_string(daemon.output_path()).expect("the log");
    assert!(log.contains(&format!("the end of {VM} is asked for by {who}")), "{log}");
    assert!(log.contains("xmlrpc.plain_may_act is true: whoever reaches xmlrpc.listen may"), "{log}");
    Ok(())
}

#[test]
fn named_users_act_through_the_socket_and_others_read_there_what_is_no_secret() -> Result<()> {
    let folder = lab_dir()?;
    // For the socket's file alone to decide.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).expect("it is ours");
    let config = "socket.users = ['nobody']\n";
    let daemon = Whydownd::start(launch(folder.path()).as_delivered().config(config))?;
    std::fs::set_permissions(folder.path().join("d"), std::fs::Permissions::from_mode(0o711))
        .expect("it is ours");
    let (port, socket) = (daemon.port()?, daemon.socket_path());
    let destroy = format!("print(unix.destroy('{VM}')['status'])");
    let told = as_user(NAMELESS, port, &socket, &destroy)?;
    assert!(told.contains("'code': 75") && told.contains("(uid 65017, pid "), "{told}");
    assert!(told.contains("socket.users"), "{told}");
    let told = as_user(
        NAMELESS,
        port,
        &socket,
        "print(unix.getVdsHardwareInfo()['status'], unix.list()['status'])",
    )?;
    assert!(told.contains("'code': 75") && told.contains("'code': 0"), "{told}");
    assert!(as_user(NOBODY, port, &socket, &destroy)?.contains("'code': 0"));
    wait_until("its ending is told", PATIENCE, || whydown(&daemon, &["why", VM])["ending"].is_object());
    let because = whydown(&daemon, &["why", VM])["ending"]["because"].to_string();
    assert!(because.contains("nobody (uid 65534, pid "), "{because}");
    drop(daemon);

    // Without a name in the list the file keeps everybody out but root and the group.
    let folder = lab_dir()?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).expect("it is ours");
    let daemon = Whydownd::start(launch(folder.path()).as_delivered())?;
    std::fs::set_permissions(folder.path().join("d"), std::fs::Permissions::from_mode(0o711))
        .expect("it is ours");
    let refused = "try: print(unix.list())\nexcept PermissionError as no: print('kept out')";
    assert_eq!(as_user(NOBODY, daemon.port()?, &daemon.socket_path(), refused)?, "kept out");
    // Whoever opens the file lets everybody in, and nobody more may act.
    std::fs::set_permissions(daemon.socket_path(), std::fs::Permissions::from_mode(0o666))
        .expect("it is ours");
    let told = as_user(NOBODY, daemon.port()?, &daemon.socket_path(), &destroy)?;
    assert!(told.contains("'code': 75"), "{told}");
    Ok(())
}

#[test]
fn a_request_as_pages_send_it_does_not_act_at_any_listener() {
    let host = Host::start(LIMITS);
    let call = xml("destroy", &param(&format!("<string>{VM}</string>")));
    let form = format!("{}={}", &call[..14], &call[15..]);
    host.under_attack(|host| {
        for listener in LISTENERS {
            for (headers, status) in [
                ("Content-Type: text/plain\r\nOrigin: http://evil.example\r\n", 403),
                ("Content-Type: text/xml\r\nOrigin: null\r\n", 403),
                ("Content-Type: text/xml\r\nOrigin: http://localhost\r\n", 403),
                ("Content-Type: text/xml\r\nSec-Fetch-Site: same-origin\r\n", 403),
                ("Content-Type: text/xml\r\nSec-Fetch-Site: none\r\n", 403),
                ("Content-Type: text/xml\r\nsec-fetch-mode: navigate\r\n", 403),
                ("Content-Type: text/xml\r\nReferer: http://evil.example/\r\n", 403),
                ("Content-Type: text/xml\r\nSec-CH-UA: \"Chromium\"\r\n", 403),
                ("Content-Type: text/plain;charset=UTF-8\r\n", 415),
                ("Content-Type: application/x-www-form-urlencoded\r\n", 415),
                ("Content-Type: multipart/form-data; boundary=x\r\n", 415),
            ] {
                for body in [&call, &form] {
                    let answer = host.connect(listener).ask(post_with(headers, body));
                    assert_eq!(answer.status, status, "{listener:?} {headers}: {}", answer.text());
                    assert!(!answer.head.contains("access-control"), "{}", answer.head);
                }
            }
            let options = "OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\
                           Access-Control-Request-Method: POST\r\n\r\n";
            let answer = host.connect(listener).ask(options);
            assert!(answer.status == 405 && !answer.head.contains("access-control"), "{}", answer.head);
            for (headers, status) in [
                ("Sec-Fetch-Site: cross-site\r\n", 403),
                ("Sec-Fetch-Site: same-site\r\n", 403),
                ("Origin: http://evil.example\r\n", 403),
                ("Sec-Fetch-Site: same-origin\r\nReferer: http://localhost/page\r\n", 200),
                ("Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n", 200),
            ] {
                let look = format!("GET /v1/domains HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
                let answer = host.connect(listener).ask(look);
                assert_eq!(answer.status, status, "{listener:?} {headers}: {}", answer.text());
                assert!(answer.head.contains("x-content-type-options: nosniff"), "{}", answer.head);
                assert!(answer.head.contains("cross-origin-resource-policy: same-origin"), "{}", answer.head);
            }
        }
    });
}

#[test]
fn under_a_name_of_its_own_a_page_reads_nothing_and_clients_of_each_listener_are_known() {
    let asked = |host: &Host, listener: Listener, request: &str, name: &str| {
        let named = if name.is_empty() { String::new() } else { format!("Host: {name}\r\n") };
        let ping = xml("ping", "");
        let request = match request {
            "look" => format!("GET /v1/domains HTTP/1.1\r\n{named}\r\n"),
            _ => format!("POST / HTTP/1.1\r\n{named}Content-Length: {}\r\n\r\n{ping}", ping.len()),
        };
        Attacker::connect(host, listener).expect("it may connect").ask(request).status
    };
    let delivered = Host::start_as_delivered(LIMITS);
    for request in ["look", "call"] {
        for name in ["evil.example", "evil.example:54321", "localhost.evil.example", "10.0.0.1"] {
            assert_eq!(asked(&delivered, Listener::Plain, request, name), 403, "{name}");
            assert_eq!(asked(&delivered, Listener::Unix, request, name), 403, "{name}");
            assert_eq!(
                asked(&delivered, Listener::Tls, request, name),
                200,
                "{name}: whoever shows a certificate"
            );
        }
        for name in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.9.9.9", "[::1]:54321", ""] {
            for listener in LISTENERS {
                assert_eq!(asked(&delivered, listener, request, name), 200, "{listener:?} {name:?}");
            }
        }
        for name in ["whydown", "unix", "%2Frun%2Fwhydown%2Fwhydown.sock"] {
            assert_eq!(asked(&delivered, Listener::Plain, request, name), 403, "{name}");
            assert_eq!(asked(&delivered, Listener::Unix, request, name), 200, "{name}");
        }
    }
    // Where plain text may act, managers call by names of their own; a page's call says that it is one, a look does not.
    let open = Host::start(LIMITS);
    assert_eq!(asked(&open, Listener::Plain, "call", "host7.example.org:54321"), 200);
    assert_eq!(asked(&open, Listener::Plain, "look", "host7.example.org:54321"), 403);
}
