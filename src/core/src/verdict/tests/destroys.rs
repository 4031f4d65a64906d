//! Who destroyed it, where more than one client may have.

use super::*;

fn libvirts(signal: i32, second: i64) -> (i64, Fact) {
    (second, signalled(signal, Sender::Libvirt))
}

fn logged(second: i64, dated: bool) -> (i64, Fact) {
    let at = dated.then(|| at(second));
    let program = "/usr/sbin/libvirtd".into();
    (89, Fact::LogSignal { signal: 15, pid: 7, program, sender: Sender::Libvirt, at })
}

/// QEMU hangs, two clients destroy it, and libvirt tells both that it did.
#[test]
fn a_destroy_is_certainly_ours_only_where_libvirts_first_signal_is_known_to_have_come_after_it() {
    for (kind, ours, perhaps) in
        [(OperationKind::Destroy, "D3", "D11"), (OperationKind::ForceOff, "D2", "D10")]
    {
        let told = |signals: &[(i64, Fact)], row: &str| {
            let mut facts = vec![
                (0, host(Happening::Started(StartDetail::Booted))),
                (75, asked(kind)),
                (80, Fact::PassedOn(kind)),
            ];
            facts.extend(signals.iter().cloned());
            facts.push((90, host(Happening::Stopped(StopDetail::Destroyed))));
            let probable = row == perhaps;
            says(&facts, 90, row, if probable { Certainty::Probable } else { Certainty::Certain });
        };
        told(&[libvirts(15, 81)], ours);
        told(&[libvirts(15, 81), libvirts(9, 89)], ours);
        told(&[logged(81, true)], ours);
        // When libvirt sent its first signal is not known.
        told(&[], perhaps);
        told(&[libvirts(9, 89)], perhaps);
        told(&[logged(81, false)], perhaps);
        // Nor whether it was for us, whose request was on its way to the disk.
        told(&[libvirts(15, 79), libvirts(9, 89)], perhaps);
        told(&[logged(79, true)], perhaps);
        // It was not for us.
        told(&[libvirts(15, 74), libvirts(9, 89)], "D6");
        told(&[logged(74, true)], "D6");
    }
}

#[test]
fn where_one_of_our_destroys_was_refused_before_the_signal_only_the_last_one_counts() {
    let destroy =
        |second| [(second, asked(OperationKind::Destroy)), (second, Fact::PassedOn(OperationKind::Destroy))];
    let refusal = |second| (second, refused(OperationKind::Destroy));
    let told = |facts: &[(i64, Fact)], row: &str, certainty| {
        let mut all = vec![(0, host(Happening::Started(StartDetail::Booted)))];
        all.extend(facts.iter().cloned());
        all.push((90, host(Happening::Stopped(StopDetail::Destroyed))));
        says(&all, 90, row, certainty);
    };
    let (certain, probable) = (Certainty::Certain, Certainty::Probable);
    // Refused as the first one was at work.
    let all = |parts: &[&[(i64, Fact)]]| parts.concat();
    let first = all(&[&destroy(80), &[libvirts(15, 81)], &destroy(82), &[refusal(83)]]);
    told(&first, "D3", certain);
    // The first was refused; another client's destroy was at work when the second came.
    let late = all(&[&destroy(60), &[refusal(61), libvirts(15, 81)], &destroy(82)]);
    told(&late, "D11", probable);
    let again = all(&[&destroy(60), &[refusal(61)], &destroy(80), &[libvirts(15, 81)]]);
    told(&again, "D3", certain);
}

/// Between the request and libvirt's signal lies a sync of the disk, and a guest may power off in it.
#[test]
fn a_guest_that_was_off_before_libvirts_signal_was_not_destroyed_by_us() {
    let off = host(Happening::QemuShutdown { guest: true, reason: QemuReason::GuestShutdown });
    let told = |off_at: Option<i64>, row: &str, certainty| {
        let mut facts = vec![
            (0, host(Happening::Started(StartDetail::Booted))),
            (75, asked(OperationKind::Destroy)),
            (80, Fact::PassedOn(OperationKind::Destroy)),
            libvirts(15, 82),
        ];
        facts.extend(off_at.map(|second| (second, off.clone())));
        facts.sort_by_key(|(second, _)| *second);
        facts.push((90, host(Happening::Stopped(StopDetail::Destroyed))));
        says(&facts, 90, row, certainty);
    };
    told(None, "D3", Certainty::Certain);
    told(Some(78), "G8", Certainty::Probable);
    told(Some(81), "G8", Certainty::Probable);
    told(Some(83), "D3", Certainty::Certain);
}
