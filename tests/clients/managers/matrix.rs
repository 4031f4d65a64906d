//! {old, new} managers against {old, new} hosts, all four with real processes, and the page that says what each sees.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use whydown_core::cause::{Cause, ROWS};
use whydown_lab::{OnEnd, Result};
use whydown_wire::Range;

use crate::managers::live::Host;
use crate::managers::old_host::OldHost;
use crate::managers::reader::Reader;
use crate::managers::table::{Above, TABLE};
use whydown_lab::engine::{Param, call};
use whydown_lab::generated::check;

/// What a manager saw of a VM: exit code and reason, -1 where it has none.
type Saw = BTreeMap<String, (i64, i64)>;

/// A manager from before exitReason: one full cycle, the devices of VMs that it does not know, and the acknowledgement
/// of what is Down; a second cycle must be without those.
fn old_manager(port: u16) -> Saw {
    let mut reader = Reader::new("3.4");
    let ask = |method, params: &[Param<'_>]| call(port, None, method, params);
    let lost_nothing = Vec::<String>::new();
    assert_eq!(reader.host("capabilities", &ask("getVdsCapabilities", &[])).as_ref(), Ok(&lost_nothing));
    assert_eq!(reader.host("host", &ask("getVdsStats", &[])).as_ref(), Ok(&lost_nothing));
    let taken = reader.stats(&ask("getAllVmStats", &[])).expect("it reads all VMs");
    assert_eq!(taken.lost, lost_nothing);
    let ids: Vec<String> = taken.vms.keys().cloned().collect();
    let described = reader.described(&ask("list", &[Param::Text("true"), Param::Texts(&ids)]));
    assert_eq!(described.expect("it reads the devices").0.len(), ids.len());
    let saw: Saw = taken
        .vms
        .into_iter()
        .filter_map(|(id, vm)| Some((id, vm.exit.map(|e| (e.code, e.reason))?)))
        .collect();
    for id in saw.keys() {
        ask("destroy", &[Param::Text(id)]);
    }
    let (listed, _) = reader.list(&ask("list", &[])).expect("it reads the list");
    assert!(saw.keys().all(|id| !listed.contains_key(id)), "acknowledged, and still there: {listed:?}");
    assert_eq!(listed.len(), ids.len() - saw.len(), "the others are");
    saw
}

/// `whydown hosts --acknowledge`, until all of these VMs were told and are gone.
fn new_manager(port: u16, wanted: usize) -> Saw {
    let url = format!("http://127.0.0.1:{port}/");
    let mut command = Command::new(env!("CARGO_BIN_EXE_whydown"));
    command.args(["--json", "hosts", "--every", "0.2", "--acknowledge", &url]).stdout(Stdio::piped());
    let mut child = Held(command.spawn().expect("it runs"));
    let (mut saw, mut gone) = (Saw::new(), 0);
    for line in BufReader::new(child.0.stdout.take().expect("piped")).lines() {
        let told: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        assert_ne!(told["answers"], false, "{told}");
        if let (Some(code), Some(reason)) = (told["exit_code"].as_i64(), told["exit_reason"].as_i64()) {
            let before = saw.insert(told["vm"].as_str().expect("an id").into(), (code, reason));
            assert_eq!(before, None, "told twice: {told}");
        }
        gone += usize::from(told["gone"] == true);
        if gone == wanted {
            break;
        }
    }
    saw
}

struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
fn old_and_new_managers_see_what_they_can_of_old_and_new_hosts() -> Result<()> {
    // A user's shutdown, a crash, and a reboot that ends the VM: a number that old managers do not know.
    let host = Host::start("")?;
    let end_three = || -> Result<[String; 3]> {
        let guests =
            [host.guest("off")?, host.guest("fell")?, host.guest("reset")?.on_reboot(OnEnd::Destroy)];
        host.up(&guests[0])?.power_off()?;
        host.up(&guests[1])?.panic()?;
        host.up(&guests[2])?.reset()?;
        guests.iter().for_each(|guest| host.wait(guest, "Down"));
        Ok(guests.map(|guest| guest.uuid_text().to_owned()))
    };
    let alive = host.guest("alive")?;
    let _line = host.up(&alive)?;
    let of = |ids: &[String], saw: [(i64, i64); 3]| ids.iter().cloned().zip(saw).collect::<Saw>();

    let ids = end_three()?;
    assert_eq!(
        old_manager(host.daemon.port()?),
        of(&ids, [(0, -1), (1, -1), (0, -1)]),
        "old manager, new host"
    );
    let ids = end_three()?;
    assert_eq!(
        new_manager(host.daemon.port()?, 3),
        of(&ids, [(0, 7), (1, 2), (0, 13)]),
        "new manager, new host"
    );

    let old = OldHost::start();
    let ids = ["off", "fell", "reset"].map(|name| host.guest(name).map(|guest| guest.uuid_text().to_owned()));
    let ids = ids.into_iter().collect::<Result<Vec<_>>>()?;
    let end_three = || -> Result<()> {
        old.lab(&format!("up('{}')", alive.uuid_text()))?;
        old.lab(&format!("down('{}', 0, 'User shut down')", ids[0]))?;
        old.lab(&format!("down('{}', 1, 'Lost connection with qemu process')", ids[1]))?;
        old.lab(&format!("down('{}', 0, 'Admin shut down')", ids[2])).map(drop)
    };
    end_three()?;
    assert_eq!(old_manager(old.port), of(&ids, [(0, -1), (1, -1), (0, -1)]), "old manager, old host");
    end_three()?;
    assert_eq!(new_manager(old.port, 3), of(&ids, [(0, -1), (1, -1), (0, -1)]), "new manager, old host");
    Ok(())
}

#[test]
fn the_page_of_compatibility_follows_from_the_tables() {
    let mut page = String::from(
        "# Compatibility\n\n\
         <!-- Generated by tests/fix.sh from tests/clients/managers/engines.toml, tests/clients/managers/accepts.toml and proto-schemas/causes.toml. -->\n\n\
         ## Which setting an engine needs\n\n\
         | oVirt engine | `xmlrpc.profile` | `xmlrpc.exit_reasons` | knows reasons up to | what a higher one does to it |\n\
         |---|---|---|---|---|\n",
    );
    for (version, engine) in &TABLE.engine {
        let name = if version == "4.2" { "a manager of today" } else { version };
        let words =
            |words: &[String]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
        let highest = engine.highest.map_or_else(|| "(reads none)".to_owned(), |highest| highest.to_string());
        let above = match engine.above {
            None => "nothing: the member is discarded",
            Some(Above::Null) => "the reason is stored as nothing",
            Some(Above::Batch) => "no VM of the host is saved in that cycle",
            Some(Above::Unreported) => "the VM looks as if it were not reported",
            Some(Above::Unknown) => "it is Unknown, with the number kept",
        };
        let _ = writeln!(
            page,
            "| {name} | {} | {} | {highest} | {above} |",
            words(&engine.profiles),
            words(&engine.ranges)
        );
    }
    page.push_str(
        "\nThe defaults, `common` and `classic`, are right for every one of them.\n\
         Its own profile gives an engine the members and forms that VDSM of its time had; a wider range gives it more numbers.\n\
         Today's engines speak no XML-RPC: managers of today are such as our own, see [whydown hosts](cli.md#whydown-hosts).\n\
         Every line is tested: engines are imitated as strictly as they read, in every setting that stands here, against a real host and against every status and every cause.\n\n",
    );
    page.push_str(&crate::managers::accepts::page());
    page.push_str(
        "## Beside the engine\n\n\
         - **MOM** 0.5.0 and later steers balloons over XML-RPC by `setBalloonTarget`.\n  \
         MOM 0.4.5 asks for `vmSetBalloonTarget`, a name that VDSM never had, whatever its version: it answered with a fault, and so does whydown. MOM took that for its own mistake (*Fix ballooning method name when talking to VDSM over xmlrpc*, in 0.5.0). What it reads of VMs it reads; take 0.5.0 or later for the balloons.\n\
         - **Hosted engine.** To take its own VM into its database an engine wants of each disk in `list` its sizes, format and the ids of its volume. The sizes are there once the VM was sampled. The ids are there where the disk lies in VDSM's storage, whose paths are made of them; of another disk there is `imageID` alone, and only where its serial number is one.\n\n\
         ## Old and new, four ways\n\n\
         *Old* is from before `exitReason`: engine 3.4, VDSM 4.14.\n\
         *New* is whydown, on either side.\n\n\
         | manager | host | what the manager has of an ending |\n|---|---|---|\n\
         | old | old | `exitCode` and `exitMessage`, as ever |\n\
         | old | new | the same: it discards the members that it does not know |\n\
         | new | old | the same; the reason is the placeholder -1, which is never on the wire, and nothing is decided by it |\n\
         | new | new | `exitCode`, `exitReason` of 0 to 14, the cause, how certain it is, and the run |\n\n\
         A test walks all four with real processes.\n\
         `exitCode` is the same for all, and what every manager decides by.\n\n\
         ## What each sees of each ending\n\n\
         The number is `exitReason`; an old manager has none, and so has every manager of an old host (-1).\n\n\
         | causes | exitCode | `classic` | `4.1` | `full` |\n|---|---|---|---|---|\n",
    );
    let mut classes: BTreeMap<(u8, u8, u8), Vec<&str>> = BTreeMap::new();
    for cause in Cause::ALL {
        let row = cause.row();
        classes.entry((row.exit_reason, row.exit_code, row.classic_reason)).or_default().push(row.word);
    }
    for ((exact, code, classic), words) in classes {
        let words: Vec<String> = words.iter().map(|word| format!("[`{word}`](causes.md#{word})")).collect();
        let told = |range: Range| if exact <= range.highest() { exact } else { classic };
        let [narrow, middle, full] = Range::ALL.map(told);
        let _ = writeln!(page, "| {} | {code} | {narrow} | {middle} | {full} |", words.join(", "));
    }
    assert_eq!(ROWS.len(), Cause::ALL.len());
    check("docs/reference/compatibility.md", &page);
}
