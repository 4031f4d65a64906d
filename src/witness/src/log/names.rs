//! Names of senders that go on for lines, and what they forge.

use whydown_core::evidence::LogWord::Shutdown;
use whydown_core::evidence::{Fact, Sender};
use whydown_core::time::Wall;

use super::LibvirtProcess;
use super::read;
use super::tests::{Log, NOW, at, begin, end, libvirt, qemu, seen, term, word};

#[test]
fn a_senders_name_that_goes_on_for_lines_forges_nothing() {
    let by_init = "terminating on signal 15 from pid 1 (/sbin/init)";
    for (name, farewell) in [
        // Recorded: an argument zero with a line break in it.
        (format!("evil\nqemu-system-x86_64: {by_init}"), true),
        (format!("evil)\nqemu-system-x86_64: {by_init}\n("), true),
        (format!("evil)\n{}x", qemu("10:10:00.1", by_init)), true),
        (format!("evil)\n{}x", qemu("10:09:00.1", by_init)), true),
        (format!("evil\n{}{}(", end("10:10:00.1", "destroyed"), term("10:10:00.2", 1, "/sbin/init")), true),
        // libvirt was away, and no word of its own follows.
        (format!("evil)\n{}(", end("10:10:00.1", "destroyed")), false),
        (format!("evil\n{}", end("10:10:00.1", "destroyed")), false),
        (format!("evil)\n{}\n\n(", end("10:10:00.1", "migrated")), false),
        // Its last line bears a stamp as well.
        (format!("evil)\n{}{}", end("10:10:00.1", "migrated"), libvirt("10:10:00.2", "x").trim_end()), false),
        (format!("evil)\n{}{}", end("10:10:00.1", "migrated"), qemu("10:10:00.2", "x").trim_end()), false),
        (format!("evil)\n{}{}", end("10:10:00.1", "migrated"), end("10:10:00.2", "saved").trim_end()), false),
    ] {
        let own = if farewell { end("10:10:00.300", "shutdown") } else { String::new() };
        let log = Log::of(begin("10:00:00.000") + &term("10:10:00.0", 4711, &name) + &own);
        let facts = log.read(seen("10:00:00.4"));
        let told = facts.iter().find_map(|f| match f {
            Fact::LogSignal { pid, program, sender, .. } => Some((*pid, program.as_str(), *sender)),
            _ => None,
        });
        let Some((4711, program, Sender::Outside)) = told else { panic!("{name}: {facts:?}") };
        assert!(program.starts_with("evil") && !program.contains("init"), "{program}");
        let wanted = farewell.then(|| (Shutdown, at("10:10:00.3")));
        assert_eq!(word(&facts), wanted, "{name}: {facts:?}");
    }
}

#[test]
fn a_block_in_a_senders_name_is_no_start() {
    let block =
        begin("10:10:00.100") + &term("10:10:00.2", 1, "/sbin/init") + &end("10:10:00.3", "destroyed");
    let line = libvirt("10:10:00.100", "starting up libvirt version: 9.0.0");
    for (name, farewell) in [
        (format!("evil\n{line}x"), true),
        (format!("evil)\n{line}x"), true),
        (format!("evil)\n{line}LC_ALL=Cx ("), true),
        (format!("evil\n{}", begin("10:10:00.100").trim_end()), true),
        (format!("evil\n{}", begin("10:10:00.100").trim_end()), false),
        (format!("evil)\n{}(", begin("10:10:00.100")), true),
        (format!("evil)\n{}(", begin("10:10:00.100")), false),
        (format!("evil\n{block}("), true),
        // By its stamp it began before the signal, as does an end that stands before it.
        (format!("evil\n{}(", begin("09:10:00.100")), true),
        (format!("evil)\n{}{}(", end("09:10:00.1", "saved"), begin("09:10:00.200")), true),
        (format!("evil)\n{}{}(", end("09:10:00.1", "saved"), begin("09:10:00.200")), false),
        (format!("evil)\n{}{}x", end("09:10:00.1", "saved"), begin("09:10:00.200")), true),
    ] {
        let own = if farewell { end("10:10:00.400", "shutdown") } else { String::new() };
        let next = begin("10:20:00.000") + &term("10:30:00.0", 7, "x") + &end("10:30:00.2", "shutdown");
        for next in ["", &next] {
            let text = begin("10:00:00.000") + &term("10:10:00.0", 4711, &name) + &own + next;
            let told = read(Log::of(text).0.path(), "w1", &LibvirtProcess::default(), NOW);
            let began: Vec<_> = told.blocks.iter().map(|block| block.began).collect();
            let wanted = [Some(at("10:00:00.0")), Some(at("10:20:00.0"))];
            assert_eq!(began, wanted[..if next.is_empty() { 1 } else { 2 }], "{name}");
            let facts = &told.blocks[0].facts;
            let by =
                |f: &(Wall, Fact)| matches!(f.1, Fact::LogSignal { pid: 4711, sender: Sender::Outside, .. });
            assert!(facts.iter().any(by), "{name}: {facts:?}");
        }
    }
}

#[test]
fn what_looks_like_a_name_hides_no_start() {
    let next = begin("10:20:00.000") + &end("10:30:00.2", "shutdown");
    let crash = "ERROR:../block.c:1:x: assertion failed: (ret >= 0)\n";
    for body in [
        // The host went down before libvirt could say farewell.
        term("10:10:00.0", 1, "/sbin/init"),
        term("10:10:00.0", 4711, "x"),
        // A name that was never written out.
        qemu("10:10:00.0", "terminating on signal 15 from pid 4711 (x"),
        qemu("10:10:00.0", "terminating on signal 15 from pid 4711 (x") + "y\n",
        term("10:10:00.0", 4711, "x") + &end("10:10:00.2", "shutdown") + &begin("10:11:00.000") + crash,
        term("10:10:00.0", 7371, "/usr/sbin/libvirtd") + &end("10:10:00.2", "destroyed") + crash,
        crash.to_owned(),
    ] {
        let told = read(
            Log::of(begin("10:00:00.000") + &body + &next).0.path(),
            "w1",
            &LibvirtProcess::default(),
            NOW,
        );
        assert_eq!(told.blocks.last().and_then(|last| last.began), Some(at("10:20:00.0")), "{body}");
    }
}
