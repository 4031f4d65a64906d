//! A command line of QEMU's, as libvirt writes it into the log: what it says of the lines that follow, and of an end.

/// QEMU's option that makes it stamp its lines.
const STAMPS: &str = "timestamp=on";

/// Ends of a device that are QEMU's standard output or error.
const OUTPUTS: [&str; 5] = ["/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/fd/", "/dev/console"];

/// Whether QEMU stamps its lines.
pub(super) fn stamps(command: &[u8]) -> bool {
    words(command).any(|(option, value)| option == "-msg" && value.contains(STAMPS))
}

/// Whether something of the guest's may write into the log: a console that is QEMU's own standard output, or the file of the
/// log itself, and what writes there by itself as the guest makes it: the calls of semihosting, a screen of letters, and
/// the renderer of 3D graphics, which prints the guest's shaders where it does not understand them.
pub(super) fn speaks_to_the_log(command: &[u8]) -> bool {
    const CONSOLES: [&str; 8] =
        ["-chardev", "-serial", "-parallel", "-debugcon", "-monitor", "-virtioconsole", "-mon", "-D"];
    let log = words(command).find_map(|(option, value)| {
        let name = value.strip_prefix("guest=").filter(|_| option == "-name")?;
        Some(format!("/{}.log", name.split(',').next().unwrap_or_default()))
    });
    words(command).any(|(option, value)| match option.as_str() {
        "-nographic" | "-curses" | "-semihosting" | "-semihosting-config" => true,
        "-display" => value.starts_with("curses"),
        "-device" => {
            value.contains("-gl\"")
                || value.contains("-gl,")
                || value.ends_with("-gl")
                || value.contains("virgl")
        }
        option if CONSOLES.contains(&option) => {
            value.contains("stdio")
                || OUTPUTS.iter().any(|output| value.contains(output))
                || log.as_ref().is_some_and(|log| value.contains(log))
        }
        _ => false,
    })
}

/// Whether its watchdog, where it has one, powers it off.
pub(super) fn watchdog_powers_off(command: &[u8]) -> bool {
    // Of several the last one counts, as in QEMU.
    let last = words(command).filter(|(option, _)| option == "-watchdog-action").last();
    last.is_some_and(|(_, action)| action == "poweroff")
        || words(command).any(|(option, value)| option == "-action" && value.contains("watchdog=poweroff"))
}

/// Whether it is known to have no device by which its guest could report a panic. On processors other than these two a guest
/// reports it to the machine itself, and so does one under Hyper-V's interface or in confidential memory.
pub(super) fn cannot_panic(command: &[u8]) -> bool {
    const REPORTS: [&str; 7] =
        ["pvpanic", "hv-crash", "hv_crash", "hv-passthrough", "hv_passthrough", "sev", "tdx"];
    let known = words(command).any(|(program, _)| {
        program.ends_with("qemu-system-x86_64") || program.ends_with("qemu-system-aarch64")
    });
    known
        && !words(command).any(|(option, value)| {
            matches!(option.as_str(), "-device" | "-cpu" | "-object" | "-machine" | "-readconfig" | "-set")
                && (option == "-readconfig" || REPORTS.iter().any(|word| value.contains(word)))
        })
}

/// What lets the guest end QEMU with a status of its own, in QEMU's word.
pub(super) fn guests_exit(command: &[u8]) -> Option<&'static str> {
    crate::emulator::guests_exit(words(command))
}

/// Each argument with the one that follows it, without the quotes and backslashes of a shell.
fn words(command: &[u8]) -> impl Iterator<Item = (String, String)> {
    let mut words = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in String::from_utf8_lossy(command).chars() {
        match c {
            '\n' | ' ' if !quoted => {
                escaped = false;
                if words.last().is_some_and(|word| !word.is_empty()) {
                    words.push(String::new());
                }
                continue;
            }
            _ if escaped => escaped = false,
            '\\' if !quoted => {
                escaped = true;
                continue;
            }
            '\'' => {
                quoted = !quoted;
                continue;
            }
            _ => {}
        }
        words.extend(words.is_empty().then(String::new));
        if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    let next: Vec<String> = words.iter().skip(1).cloned().chain([String::new()]).collect();
    words.into_iter().zip(next)
}
