//! Managers without TLS of today, by the recipe of `docs/operating-tls.md`: nginx, which still speaks TLS 1.0, in front of
//! the unix socket, where its user is named.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use whydown_lab::{Authority, Launch, Result, Term, Whydownd, lab_dir, python, run, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// The one domain of libvirt's test driver, running from the start.
const VM: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

const PAGE: &str = include_str!("../../../docs/operating-tls.md");

/// What the page has between these fences, behind its first line.
fn recipe(language: &str, first: &str) -> String {
    let fence = format!("```{language}\n{first}\n");
    let block = PAGE.split(&fence).nth(1).and_then(|rest| rest.split("```").next());
    block.unwrap_or_else(|| panic!("the page has no {language} with {first}")).to_owned()
}

/// nginx, in the foreground; its workers go with it.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::TERM,
        );
        let _ = self.0.wait();
    }
}

#[test]
fn an_old_manager_acts_by_tls_1_0_through_a_proxy_before_the_socket_and_is_named_by_the_proxys_user()
-> Result<()> {
    let folder = lab_dir()?;
    let at = folder.path().display().to_string();
    // Its workers are another user.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).expect("it is ours");
    let configured = PAGE.split("The proxy comes in by its user").nth(1).expect("the recipe");
    let configured =
        configured.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("TOML");
    let users =
        configured.lines().find(|line| line.starts_with("users = ")).expect("the proxy's user is named");
    let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), "test:///default");
    let daemon = Whydownd::start(launch.as_delivered().config(&format!("[socket]\n{users}\n")))?;
    std::fs::set_permissions(folder.path().join("d"), std::fs::Permissions::from_mode(0o711))
        .expect("it is ours");

    let authority = Authority::new("an authority")?;
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).expect("the folder can be written");
    authority.issue("host.example.org", &["127.0.0.1"], Term::Now)?.write(folder.path(), "host")?;
    for (name, file) in [("engine.example.org", "engine"), ("host-2.example.org", "other")] {
        authority.issue(name, &[], Term::Now)?.write(folder.path(), file)?;
    }
    // A port that is free now; nginx takes no port of the kernel's choice.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let server = recipe("nginx", "# /etc/nginx/conf.d/whydown.conf")
        .replace("listen [::]:54321 ssl ipv6only=off;", &format!("listen 127.0.0.1:{port} ssl;"))
        .replace("/etc/pki/vdsm/certs/vdsmcert.pem", &format!("{at}/host-cert.pem"))
        .replace("/etc/pki/vdsm/keys/vdsmkey.pem", &format!("{at}/host-key.pem"))
        .replace("/etc/pki/vdsm/certs/cacert.pem", &format!("{at}/ca.pem"))
        .replace("/run/whydown/whydown.sock", &daemon.socket_path().display().to_string());
    assert!(
        !server.contains("/etc/") && !server.contains("/run/"),
        "a path of the page is not replaced: {server}"
    );
    let whole = format!(
        "user www-data;\ndaemon off;\npid {at}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
         client_body_temp_path {at}/body;\nproxy_temp_path {at}/proxy;\nfastcgi_temp_path {at}/f;\n\
         uwsgi_temp_path {at}/u;\nscgi_temp_path {at}/s;\n{server}\n}}\n"
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, whole).expect("the folder can be written");
    let child =
        Command::new("nginx").arg("-c").arg(&file).args(["-e", "stderr"]).stdin(Stdio::null()).spawn();
    let _proxy = Proxy(child.expect("nginx is installed: run `tests/setup.sh test`"));
    wait_until("nginx listens", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());

    let client = |who: &str, code: &str| {
        let start = format!(
            "import ssl, warnings, xmlrpc.client\n\
             warnings.simplefilter('ignore')\n\
             context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n\
             context.load_verify_locations('{at}/ca.pem'); context.load_cert_chain('{at}/{who}-cert.pem', '{at}/{who}-key.pem')\n\
             context.check_hostname = False\n\
             context.set_ciphers('DEFAULT:@SECLEVEL=0')\n\
             context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1\n\
             server = xmlrpc.client.ServerProxy('https://127.0.0.1:{port}/', context=context)\n"
        );
        python(&(start + code), &[])
    };
    assert_eq!(client("engine", "print(server.getAllVmStats()['statsList'][0]['status'])")?, "Up");
    let kept_out = "try: print(server.list())\nexcept xmlrpc.client.ProtocolError as no: print(no.errcode)";
    assert_eq!(client("other", kept_out)?, "403", "a certificate of the authority alone is not enough");
    assert_eq!(client("engine", &format!("print(server.destroy('{VM}')['status']['code'])"))?, "0");
    let why = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whydown"));
        command.arg("--socket").arg(daemon.socket_path()).args(["--json", "why", VM]);
        run(&mut command, PATIENCE)
            .map(|done| String::from_utf8_lossy(&done.stdout).into_owned())
            .unwrap_or_default()
    };
    wait_until("its ending is told", PATIENCE, || why().contains("admin-destroyed"));
    assert!(why().contains("www-data (uid "), "{}", why());
    Ok(())
}
