//! The manager's side against real hosts: new ones, an old one, and one that is not there.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;
use whydown_lab::{Launch, Result, Whydownd, lab_dir, wait_until, xmlrpc_client};

use whydown_lab::host::{Held, PATIENCE};

const TEST_VM: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

/// A host from before `exitReason`: Python's server with the replies of its time.
const OLD_HOST: &str = "
import xmlrpc.server, sys
class H(xmlrpc.server.SimpleXMLRPCRequestHandler):
    rpc_paths = ('/', '/RPC2')
    protocol_version = 'HTTP/1.1'
s = xmlrpc.server.SimpleXMLRPCServer(('127.0.0.1', 0), H, logRequests=False)
down = [{'vmId': 'old', 'status': 'Down', 'exitCode': 1, 'exitMessage': 'Lost connection with qemu process'}]
ok = {'code': 0, 'message': 'Done'}
def destroy(vm):
    gone = [v for v in down if v['vmId'] == vm]
    for v in gone: down.remove(v)
    return {'status': ok if gone else {'code': 1, 'message': 'Virtual machine does not exist'}}
def stats(vm):
    found = [v for v in down if v['vmId'] == vm]
    return {'status': ok, 'statsList': found} if found else {'status': {'code': 1, 'message': 'Virtual machine does not exist'}}
s.register_function(destroy, 'destroy')
s.register_function(stats, 'getVmStats')
s.register_function(lambda: {'status': ok, 'statsList': down + [{'vmId': 'up', 'status': 'Up'}, {'odd': 1}]}, 'getAllVmStats')
print(s.server_address[1], flush=True)
s.serve_forever()
";

struct OldHost(#[expect(dead_code, reason = "held until the end")] Held, String);

impl OldHost {
    fn start() -> Self {
        let spawned = Command::new("python3").args(["-c", OLD_HOST]).stdout(Stdio::piped()).spawn();
        let mut child = Held(spawned.expect("python3 is there: tests/setup.sh test"));
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().expect("piped")).read_line(&mut line).expect("a port");
        Self(child, format!("http://127.0.0.1:{}/", line.trim()))
    }
}

#[test]
fn old_and_new_hosts_are_read_side_by_side_and_each_ending_once() -> Result<()> {
    let folder = lab_dir()?;
    let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), "test:///default");
    let daemon = Whydownd::start(launch)?;
    let new = format!("http://127.0.0.1:{}/", daemon.port()?);
    let old = OldHost::start();
    let absent = "http://127.0.0.1:9/";
    let mut hosts = Held(
        // If something never comes, the stream ends all the same, and what did come is shown.
        Command::new("timeout")
            .args([
                "120",
                env!("CARGO_BIN_EXE_whydown"),
                "--json",
                "hosts",
                "--every",
                "0.2",
                "--acknowledge",
                "--highly-available",
                &new,
                &old.1,
                absent,
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs"),
    );
    let lines = BufReader::new(hosts.0.stdout.take().expect("piped")).lines();
    let mut told: Vec<Value> = Vec::new();
    let mut asked = false;
    for line in lines {
        told.push(serde_json::from_str(&line.expect("a line")).expect("JSON"));
        let has = |wanted: &dyn Fn(&Value) -> bool| told.iter().any(wanted);
        if !asked && has(&|t| t["vm"] == TEST_VM && t["status"] == "Up") {
            asked = true;
            xmlrpc_client(daemon.port()?, &format!("server.shutdown('{TEST_VM}', '0', '')"))?;
        }
        let gone = |vm: &str| has(&|t| t["vm"] == vm && t["gone"] == true);
        if gone(TEST_VM) && gone("old") && has(&|t| t["host"] == absent) {
            break;
        }
    }
    drop(hosts);
    let endings = |vm: &str| {
        told.iter().filter(|t| t["vm"] == vm && t["status"] == "Down").cloned().collect::<Vec<_>>()
    };
    let (new_one, old_one) = (endings(TEST_VM), endings("old"));
    assert_eq!((new_one.len(), old_one.len()), (1, 1), "each ending once: {told:#?}");
    assert_eq!((&new_one[0]["exit_code"], &new_one[0]["exit_reason"]), (&Value::from(0), &Value::from(6)));
    assert_eq!(
        (&new_one[0]["cause"], &new_one[0]["then"]),
        (&Value::from("admin-shutdown"), &Value::from("leave"))
    );
    assert_eq!(
        (&old_one[0]["exit_reason"], &old_one[0]["exit_reason_sent"]),
        (&Value::from(-1), &Value::Null)
    );
    assert_eq!(old_one[0]["then"], "restart");
    let broken: Vec<_> = told.iter().filter(|t| !t["broken"].is_null()).collect();
    assert_eq!(broken.len(), 1, "a VM without an id is named once, and spoils nothing: {broken:?}");
    assert!(told.iter().any(|t| t["host"] == absent && t["answers"] == false));
    Ok(())
}

#[test]
fn one_look_ends_with_what_could_not_be_read() -> Result<()> {
    let folder = lab_dir()?;
    let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), "test:///default");
    let daemon = Whydownd::start(launch)?;
    let new = format!("http://127.0.0.1:{}/", daemon.port()?);
    let look = |urls: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whydown"));
        let done = command.args(["hosts", "--once"]).args(urls).output().expect("it runs");
        (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned())
    };
    wait_until("it answers", PATIENCE, || look(&[&new]).0 == Some(0));
    assert!(look(&[&new]).1.contains(&format!("{TEST_VM}  Up")));
    let (status, text) = look(&[&new, "http://127.0.0.1:9/"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("does not answer") && text.contains(TEST_VM), "{text}");
    assert_eq!(look(&["nonsense"]).0, Some(1));
    assert_eq!(look(&[]).0, Some(2));
    Ok(())
}
