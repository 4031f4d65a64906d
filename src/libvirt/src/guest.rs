//! What a guest tells of itself, asked through its agent.
//!
//! The guest may lie in everything: counts are not believed, lists and texts are cut at their bounds, addresses must be
//! addresses. It may also not answer: each question waits a bounded time, and the first that is not answered is the
//! last. Where only one question is refused, as by an agent that does not know it, its answer is missing.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use virt_sys as sys;
use whydown_core::guest::{GuestAccount, GuestFileSystem, GuestInterface, GuestSystem, GuestUser, TimeZone};
use whydown_core::hypervisor::DomainState;
use whydown_core::id::DomainId;
use whydown_core::time::Wall;

use crate::act::Refusal;
use crate::ffi::{Dom, Fault, Value};
use crate::link::Hypervisor;

/// Seconds that the agent has for one answer. Libvirt itself gives it five to say that it is there.
const ANSWER_S: u16 = 5;

/// How long whoever freezes a guest waits for a question that is under way: as long as all questions may take.
const TURN: Duration = Duration::from_secs(45);

/// Bytes of one text, as the tables of managers have it.
const TEXT: usize = 255;

/// Bytes of an interface's name, as the tables of managers have it. Linux has 15.
const INTERFACE_NAME: usize = 50;

/// Users, interfaces and file systems of one guest. What a manager gets of one guest is in the reply of the whole host.
const ENTRIES: usize = 64;

/// Addresses of all interfaces of one guest.
const ADDRESSES: usize = 256;

/// The latest moment that is believed, in milliseconds since 1970: the year 2200.
const LATEST_MS: u64 = 7_258_118_400_000;

impl Hypervisor {
    /// What the guest tells of itself. Takes as long as the agent does, and half a minute at most where that or QEMU's
    /// monitor hangs. `None` while its file systems are being frozen or thawed through us.
    ///
    /// While it asks, libvirt waits for an answer of this agent five seconds at most, whoever asks it; before and
    /// after, without a bound.
    ///
    /// # Errors
    ///
    /// As [`Refusal`] says; `Refused` also if there is no agent, or none that answers.
    pub fn ask_guest(&self, id: DomainId) -> Result<Option<GuestAccount>, Refusal> {
        let Some(_turn) = self.agents().try_take(id) else { return Ok(None) };
        self.act(id, |dom| {
            dom.bound_agent(Some(ANSWER_S))?;
            let asked = ask(dom);
            // Otherwise a later freeze, of anybody, would be given up while the guest still does it.
            let unbound = dom.bound_agent(None);
            let account = asked?;
            unbound.map(|()| Some(account))
        })
    }

    /// Refuses if the agent does not answer: libvirt itself would wait a minute for one that hangs to shut down.
    pub(crate) fn heard(&self, id: DomainId) -> Result<(), Refusal> {
        self.with_agent(id, |dom| {
            // What else is wrong the deed itself will tell.
            if dom.bound_agent(Some(ANSWER_S)).is_err() {
                return Ok(());
            }
            let heard = dom.guest_info(sys::VIR_DOMAIN_GUEST_INFO_HOSTNAME, |_, _| {});
            dom.bound_agent(None)?;
            match heard {
                Err(fault) if is_silence(&fault) => Err(fault),
                _ => Ok(()),
            }
        })
    }

    /// Has an agent do what ends or resets its own guest. One that obeys may be gone before it has answered, and libvirt
    /// then tells of a broken connection: the order was taken all the same. Refused is what was never sent, and what the
    /// agent of a guest that stays refused in form.
    pub(crate) fn order_agent(
        &self,
        id: DomainId,
        deed: impl FnOnce(&Dom) -> Result<(), Fault>,
    ) -> Result<(), Refusal> {
        self.heard(id)?;
        match self.act(id, deed) {
            Err(Refusal::Refused { code, text }) if may_have_been_sent(code, &text) => {
                if is_broken_off(code, &text) || self.is_going(id) {
                    tracing::debug!(%id, "its agent was gone before it had answered: {text}");
                    return Ok(());
                }
                Err(Refusal::Refused { code, text })
            }
            done => done,
        }
    }

    fn is_going(&self, id: DomainId) -> bool {
        self.view(id).is_ok_and(|view| {
            view.is_none_or(|view| matches!(view.state, DomainState::ShutOff(_) | DomainState::ShuttingDown))
        })
    }

    /// Calls what must not meet the bound of [`Hypervisor::ask_guest`].
    pub(crate) fn with_agent<T>(
        &self,
        id: DomainId,
        deed: impl FnOnce(&Dom) -> Result<T, Fault>,
    ) -> Result<T, Refusal> {
        let _turn = self.agents().take(id);
        self.act(id, deed)
    }
}

/// Which agents are being asked by us. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Agents(Arc<(Mutex<HashSet<DomainId>>, Condvar)>);

/// One agent's turn.
#[derive(Debug)]
pub(crate) struct Turn {
    agents: Agents,
    id: DomainId,
}

impl Agents {
    fn taken(&self) -> MutexGuard<'_, HashSet<DomainId>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn, if nobody has it.
    fn try_take(&self, id: DomainId) -> Option<Turn> {
        let free = self.taken().insert(id);
        free.then(|| Turn { agents: self.clone(), id })
    }

    /// The turn, when whoever has it is done; `None` if that takes too long.
    fn take(&self, id: DomainId) -> Option<Turn> {
        let waited = self.0.1.wait_timeout_while(self.taken(), TURN, |taken| taken.contains(&id));
        let (mut taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let free = taken.insert(id);
        drop(taken);
        free.then(|| Turn { agents: self.clone(), id })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.agents.taken().remove(&self.id);
        self.agents.0.1.notify_all();
    }
}

/// All questions, the cheapest first.
fn ask(dom: &Dom) -> Result<GuestAccount, Fault> {
    let mut reading = Reading::default();
    let (mut answered, mut refused) = (false, None);
    let mut note = |answer: Result<(), Fault>| match answer {
        Ok(()) => {
            answered = true;
            Ok(())
        }
        Err(fault) if is_silence(&fault) => Err(fault),
        Err(fault) => {
            refused = Some(fault);
            Ok(())
        }
    };
    for types in [
        sys::VIR_DOMAIN_GUEST_INFO_HOSTNAME,
        sys::VIR_DOMAIN_GUEST_INFO_OS,
        sys::VIR_DOMAIN_GUEST_INFO_TIMEZONE,
        sys::VIR_DOMAIN_GUEST_INFO_USERS,
    ] {
        note(dom.guest_info(types, |name, value| reading.put(name, value)))?;
    }
    let mut interfaces = Interfaces::default();
    note(dom.agent_interfaces(|name, mac, addresses| interfaces.put(&name, &mac, &addresses)).map(|()| {
        reading.interfaces = Some(std::mem::take(&mut interfaces.list));
    }))?;
    // A file system of a server that is gone may keep the agent: so it comes last.
    note(dom.guest_info(sys::VIR_DOMAIN_GUEST_INFO_FILESYSTEM, |name, value| reading.put(name, value)))?;
    match refused {
        Some(fault) if !answered => Err(fault),
        _ => Ok(reading.account()),
    }
}

/// Whether an order to an agent can have reached it, as far as this error goes. Without a connection, a channel or a
/// running machine none was sent.
fn may_have_been_sent(code: i32, text: &str) -> bool {
    let never = [sys::VIR_ERR_OPERATION_INVALID, sys::VIR_ERR_ARGUMENT_UNSUPPORTED, sys::VIR_ERR_NO_SUPPORT];
    let unsent = ["agent is not connected", "agent is not available due to an error"];
    !never.iter().any(|known| *known as i32 == code) && !unsent.iter().any(|known| text.contains(known))
}

/// Whether this error of an order that was sent says that the connection to the agent broke, or that no answer came.
/// libvirt's codes for it differ from version to version; the words are those of its versions 6 to 12.
fn is_broken_off(code: i32, text: &str) -> bool {
    const BROKEN: [&str; 6] = [
        "from agent socket",
        "to agent socket",
        "read from agent",
        "write to agent",
        "agent disappeared",
        "waiting for agent",
    ];
    let silent = [sys::VIR_ERR_AGENT_UNRESPONSIVE, sys::VIR_ERR_AGENT_COMMAND_TIMEOUT];
    silent.iter().any(|known| *known as i32 == code) || BROKEN.iter().any(|known| text.contains(known))
}

/// Whether this says that there is nobody to ask, so that the next question would only take as long.
fn is_silence(fault: &Fault) -> bool {
    [
        sys::VIR_ERR_NO_DOMAIN,
        sys::VIR_ERR_NO_SUPPORT,
        sys::VIR_ERR_OPERATION_INVALID,
        sys::VIR_ERR_OPERATION_TIMEOUT,
        sys::VIR_ERR_AGENT_UNRESPONSIVE,
        sys::VIR_ERR_AGENT_UNSYNCED,
        sys::VIR_ERR_AGENT_COMMAND_TIMEOUT,
    ]
    .iter()
    .any(|code| *code as i32 == fault.code)
}

/// The answers while they come in, each value with a name such as `fs.0.mountpoint`.
#[derive(Debug, Default)]
struct Reading {
    host_name: Option<String>,
    system: Option<GuestSystem>,
    zone: Option<String>,
    zone_offset_s: Option<i64>,
    users: Option<BTreeMap<usize, GuestUser>>,
    file_systems: Option<BTreeMap<usize, GuestFileSystem>>,
    interfaces: Option<Vec<GuestInterface>>,
}

impl Reading {
    fn put(&mut self, name: &str, value: Value) {
        let (group, rest) = name.split_once('.').unwrap_or((name, ""));
        match (group, value) {
            ("hostname", Value::Text(text)) => self.host_name = Some(cut(&text, TEXT)),
            ("os", Value::Text(text)) => self.put_system(rest, &text),
            ("timezone", Value::Text(text)) if rest == "name" => self.zone = Some(cut(&text, TEXT)),
            ("timezone", Value::Number(number)) if rest == "offset" => {
                self.zone_offset_s = i64::try_from(number).ok();
            }
            ("timezone", Value::Negative(number)) if rest == "offset" => self.zone_offset_s = Some(number),
            ("user", value) => self.put_user(rest, value),
            ("fs", value) => self.put_file_system(rest, value),
            _ => {}
        }
    }

    fn put_system(&mut self, key: &str, text: &str) {
        let system = self.system.get_or_insert_default();
        let place = match key {
            "id" => &mut system.id,
            "name" => &mut system.name,
            "pretty-name" => &mut system.pretty_name,
            "version" => &mut system.version,
            "version-id" => &mut system.version_id,
            "variant" => &mut system.variant,
            "machine" => &mut system.machine,
            "kernel-release" => &mut system.kernel_release,
            "kernel-version" => &mut system.kernel_version,
            _ => return,
        };
        *place = cut(text, TEXT);
    }

    fn put_user(&mut self, key: &str, value: Value) {
        let Some((user, key)) = entry(self.users.get_or_insert_default(), key) else { return };
        match (key, value) {
            ("name", Value::Text(text)) => user.name = cut(&text, TEXT),
            ("domain", Value::Text(text)) => user.domain = cut(&text, TEXT),
            ("login-time", Value::Number(ms)) if ms <= LATEST_MS => {
                user.since = Some(Wall::from_millis(ms.cast_signed()));
            }
            _ => {}
        }
    }

    fn put_file_system(&mut self, key: &str, value: Value) {
        let Some((system, key)) = entry(self.file_systems.get_or_insert_default(), key) else { return };
        match (key, value) {
            ("mountpoint", Value::Text(text)) => system.mount = cut(&text, TEXT),
            ("fstype", Value::Text(text)) => system.kind = cut(&text, TEXT),
            ("total-bytes", Value::Number(bytes)) => system.total = Some(bytes),
            ("used-bytes", Value::Number(bytes)) => system.used = Some(bytes),
            _ => {}
        }
    }

    fn account(self) -> GuestAccount {
        // Clocks of this world are less than a day apart.
        let offset = self.zone_offset_s.filter(|offset| offset.abs() < 86_400);
        GuestAccount {
            host_name: self.host_name.filter(|name| !name.is_empty()),
            system: self.system.filter(|system| *system != GuestSystem::default()),
            time_zone: offset.map(|offset| TimeZone {
                name: self.zone.unwrap_or_default(),
                offset_s: i32::try_from(offset).unwrap_or(0),
            }),
            users: self.users.map(|users| users.into_values().filter(|user| !user.name.is_empty()).collect()),
            interfaces: self.interfaces,
            file_systems: self
                .file_systems
                .map(|systems| systems.into_values().filter(|system| !system.mount.is_empty()).collect()),
        }
    }
}

/// The entry that a name such as `0.mountpoint` is about, and the rest of the name; none for `count`.
fn entry<'a, 'b, T: Default>(
    entries: &'a mut BTreeMap<usize, T>,
    name: &'b str,
) -> Option<(&'a mut T, &'b str)> {
    let (index, key) = name.split_once('.')?;
    let index = index.parse().ok().filter(|index| *index < ENTRIES)?;
    Some((entries.entry(index).or_default(), key))
}

#[derive(Debug, Default)]
struct Interfaces {
    list: Vec<GuestInterface>,
    addresses: usize,
}

impl Interfaces {
    fn put(&mut self, name: &str, mac: &str, addresses: &[String]) {
        if self.list.len() >= ENTRIES || name.is_empty() {
            return;
        }
        let room = ADDRESSES - self.addresses;
        let addresses: Vec<_> = addresses.iter().filter_map(|text| text.parse().ok()).take(room).collect();
        self.addresses += addresses.len();
        let mac = if is_mac(mac) { mac.to_ascii_lowercase() } else { String::new() };
        self.list.push(GuestInterface { name: cut(name, INTERFACE_NAME), mac, addresses });
    }
}

/// Six bytes in the usual form.
fn is_mac(text: &str) -> bool {
    let pairs: Vec<&str> = text.split(':').collect();
    let pair = |pair: &&str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
    pairs.len() == 6 && pairs.iter().all(pair)
}

/// At most `limit` bytes, on one line.
fn cut(text: &str, limit: usize) -> String {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace(['\n', '\t'], " ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_breaks_while_the_guest_obeys_is_no_refusal_and_one_that_was_not_there_is() {
        let (internal, system) = (sys::VIR_ERR_INTERNAL_ERROR as i32, sys::VIR_ERR_SYSTEM_ERROR as i32);
        let silent = sys::VIR_ERR_AGENT_UNRESPONSIVE as i32;
        for (code, text) in [
            (internal, "internal error: End of file from agent socket"),
            (internal, "internal error: Guest agent disappeared while executing command"),
            (silent, "Guest agent is not responding: Guest agent disappeared while executing command"),
            (silent, "Guest agent is not responding: Guest agent not available for now"),
            (system, "Unable to read from agent: Connection reset by peer"),
            (system, "Unable to write to agent: Broken pipe"),
        ] {
            assert!(may_have_been_sent(code, text) && is_broken_off(code, text), "{text}");
        }
        for (code, text) in [
            (silent, "Guest agent is not responding: QEMU guest agent is not connected"),
            (silent, "Guest agent is not responding: QEMU guest agent is not available due to an error"),
            (
                sys::VIR_ERR_ARGUMENT_UNSUPPORTED as i32,
                "argument unsupported: QEMU guest agent is not configured",
            ),
            (
                sys::VIR_ERR_OPERATION_INVALID as i32,
                "Requested operation is not valid: domain is not running",
            ),
        ] {
            assert!(!may_have_been_sent(code, text), "{text}");
        }
        let disabled = "internal error: unable to execute QEMU agent command 'guest-shutdown': \
                        Command guest-shutdown has been disabled";
        assert!(may_have_been_sent(internal, disabled) && !is_broken_off(internal, disabled));
    }

    fn read(texts: &[(&str, &str)], numbers: &[(&str, i64)]) -> GuestAccount {
        let mut reading = Reading::default();
        for (name, text) in texts {
            reading.put(name, Value::Text((*text).into()));
        }
        for (name, number) in numbers {
            let value = u64::try_from(*number).map_or(Value::Negative(*number), Value::Number);
            reading.put(name, value);
        }
        reading.account()
    }

    #[test]
    fn names_and_values_become_an_account() {
        let account = read(
            &[
                ("hostname", "vm.example"),
                ("os.id", "debian"),
                ("os.kernel-release", "6.1"),
                ("timezone.name", "EST"),
                ("user.0.name", "alice"),
                ("user.0.domain", "D"),
                ("fs.0.mountpoint", "/data"),
                ("fs.0.fstype", "ext2"),
                ("fs.0.disk.0.alias", "virtio-disk0"),
            ],
            &[
                ("timezone.offset", -18_000),
                ("user.count", 1),
                ("user.0.login-time", 1_700_000_000_000),
                ("fs.count", 1),
                ("fs.0.total-bytes", 4096),
                ("fs.0.used-bytes", 1024),
            ],
        );
        assert_eq!(account.host_name.as_deref(), Some("vm.example"));
        assert_eq!(account.system.as_ref().map(|system| system.kernel_release.as_str()), Some("6.1"));
        assert_eq!(account.time_zone, Some(TimeZone { name: "EST".into(), offset_s: -18_000 }));
        let since = Some(Wall::from_millis(1_700_000_000_000));
        assert_eq!(account.users, Some(vec![GuestUser { name: "alice".into(), domain: "D".into(), since }]));
        let data = GuestFileSystem {
            mount: "/data".into(),
            kind: "ext2".into(),
            total: Some(4096),
            used: Some(1024),
        };
        assert_eq!(account.file_systems, Some(vec![data]));
        assert_eq!(account.interfaces, None, "that was not asked");
    }

    #[test]
    fn nobody_logged_in_is_told_apart_from_nothing_told() {
        assert_eq!(read(&[], &[("user.count", 0)]).users, Some(Vec::new()));
        assert_eq!(read(&[("hostname", "x")], &[]).users, None);
        assert!(read(&[], &[]).is_empty());
    }

    #[test]
    fn counts_are_not_believed_and_what_is_out_of_bounds_is_left_out() {
        let long = "\u{202e}x".repeat(100_000);
        let account = read(
            &[
                ("hostname", &long),
                ("user.18446744073709551616.name", "a"),
                ("user.-1.name", "a"),
                ("user.64.name", "a"),
                ("user.0", "a"),
                ("user.3.name", "b\nc"),
                ("fs.9999999.mountpoint", "/"),
                ("fs.0.mountpoint", ""),
                ("os.unknown", "x"),
                ("", ""),
            ],
            &[
                ("user.count", i64::MAX),
                ("user.3.login-time", i64::MAX),
                ("fs.count", -1),
                ("timezone.offset", 90_000),
                ("hostname", 5),
            ],
        );
        assert!(account.host_name.as_ref().is_some_and(|name| name.len() <= TEXT && name.len() > 200));
        let user = GuestUser { name: "b c".into(), domain: String::new(), since: None };
        assert_eq!(account.users, Some(vec![user]));
        assert_eq!((account.file_systems, account.time_zone, account.system), (Some(vec![]), None, None));
    }

    #[test]
    fn addresses_must_be_addresses_and_only_so_many_are_kept() {
        let mut interfaces = Interfaces::default();
        interfaces.put("lo", "00:00:00:00:00:00", &["127.0.0.1".into(), "::1".into()]);
        interfaces.put("eth0", "52:54:00:AB:00:01", &["10.0.2.15".into(), "999.1.1.1".into(), "<x>".into()]);
        interfaces.put("", "52:54:00:ab:00:02", &[]);
        let [lo, eth0] = &interfaces.list[..] else { panic!("{interfaces:?}") };
        assert_eq!((lo.mac.as_str(), lo.addresses.len()), ("00:00:00:00:00:00", 2));
        assert_eq!((eth0.mac.as_str(), eth0.addresses.len()), ("52:54:00:ab:00:01", 1));
        let many: Vec<String> = (0..=255).map(|byte| format!("10.0.0.{byte}")).collect();
        for index in 0..500_000 {
            interfaces.put(&format!("{index}{}", "n".repeat(80)), "no address", &many);
        }
        assert_eq!(interfaces.list.len(), ENTRIES);
        assert!(interfaces.list.iter().all(|one| one.name.len() <= INTERFACE_NAME));
        assert_eq!(interfaces.list.iter().map(|one| one.addresses.len()).sum::<usize>(), ADDRESSES);
    }

    #[test]
    fn a_freeze_waits_for_a_question_and_no_question_comes_between() {
        let (agents, id) = (Agents::default(), DomainId::from_bytes([1; 16]));
        let asking = agents.try_take(id).unwrap();
        assert!(agents.try_take(id).is_none());
        assert!(agents.try_take(DomainId::from_bytes([2; 16])).is_some());
        let freezing = std::thread::spawn({
            let agents = agents.clone();
            move || agents.take(id)
        });
        drop(asking);
        let turn = freezing.join().unwrap();
        assert!(turn.is_some() && agents.try_take(id).is_none());
        drop(turn);
        assert!(agents.try_take(id).is_some());
    }
}
