//! Starts that a whole host refuses: by its control groups, to a client and at boot. libvirt's own log is the journal here.

use whydown_lab::{GoDown, Result, wait_until};

use super::world::{PATIENCE, World};

/// More than any control group takes; where the processors are in none, any share is too much.
const SHARES: &str = "<cputune><shares>262144</shares></cputune>\n";

#[test]
fn a_start_that_control_groups_refuse_is_told_with_libvirts_text_by_hand_and_at_boot() -> Result<()> {
    let mut world = World::start()?;
    let guest = world.host.guest("greedy")?.domain_xml(SHARES);
    let document = guest.write_xml()?;
    world.host.run(&["virsh", "-q", "define", &document.to_string_lossy()])?;
    assert!(world.host.run(&["virsh", "-q", "start", "greedy"]).is_err(), "it started");
    let told = |world: &World, count: usize| {
        // One that libvirt made at boot before whydown listened is told by QEMU's log first, and libvirt's text corrects it.
        wait_until("the failed start is told with its reason", PATIENCE, || {
            let past = world.past(&guest);
            past.len() >= count && past[0]["row"] == "B8"
        });
        let ending = world.expect(&guest, count, ["start-failed", "probable", "B8"]);
        let message = ending["message"].as_str().unwrap_or_default();
        let refused = ["CPU tuning is not available on this host", "must be in range"];
        assert!(refused.iter().any(|words| message.contains(words)), "{message}: {}", world.host.journal(80));
    };
    told(&world, 1);
    world.host.run(&["virsh", "-q", "autostart", "greedy"])?;
    world.host.go_down(GoDown::Reboot)?;
    world.host.boot()?;
    told(&world, 2);
    Ok(())
}
