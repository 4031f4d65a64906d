//! The verbs that this step serves, each with its parameters read into types.
//!
//! Managers send most numbers and booleans as text, and leave trailing parameters out: both are read. What cannot be
//! read is refused with a status that names the parameter; it is never guessed, for `force` may be among it.

use std::collections::BTreeMap;

use dxr::Value;
use whydown_core::evidence::tame;
use whydown_core::id::DomainId;
use whydown_core::operation::{Operation, OperationKind, SnapshotDisk};

use crate::absent::absent;
use crate::call::Call;
use crate::classic::ClassicVm;
use crate::fields::{Fields, Ignored};
use crate::refused::Refused;
use crate::verbs::{METHODS, Method};

mod devices;
mod running;

pub(crate) use devices::*;
pub(crate) use running::*;

/// Seconds that a user gets to save work before a shutdown, where the manager does not say.
pub const DEFAULT_SHUTDOWN_DELAY_S: u32 = 30;

/// Seconds that each step of a shutdown may take, where the manager does not say.
pub const DEFAULT_SHUTDOWN_TIMEOUT_S: u32 = 120;

/// What a manager asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Are you there?
    Ping,
    /// Which VMs, in which state?
    List {
        /// With all that is known of each.
        full: bool,
        /// Only these; `None` for all. Unknown ones are left out in silence.
        vms: Option<Vec<DomainId>>,
    },
    /// The state of one VM.
    GetVmStats {
        /// Which.
        vm: DomainId,
    },
    /// The state of all VMs.
    GetAllVmStats,
    /// Start a VM from a domain document.
    Create {
        /// The UUID that the manager gave beside the document.
        vm: Option<DomainId>,
        /// libvirt's domain document, unread.
        xml: String,
    },
    /// Start a VM from VDSM's own parameters.
    CreateClassic(Box<ClassicVm>),
    /// Do something with a VM that is up.
    Do {
        /// Which.
        vm: DomainId,
        /// What.
        act: Operation,
    },
    /// Change what a VM that is up is made of.
    Device {
        /// Which VM.
        vm: DomainId,
        /// What.
        act: Operation,
        /// A domain's document with what of it names things of the host, as a manager may send it with `create`: to be judged.
        judged: Option<String>,
    },
    /// Let disks go on in new images.
    Snapshot {
        /// Which VM.
        vm: DomainId,
        /// Which disks, and where.
        disks: Vec<SnapshotDisk>,
        /// The manager has frozen the file systems itself.
        frozen: bool,
    },
    /// How far is the migration or the save?
    MigrateStatus {
        /// Of which.
        vm: DomainId,
    },
    /// May this VM come here by migration?
    MigrationCreate {
        /// Which.
        vm: DomainId,
    },
    /// Ask the guest to shut down.
    Shutdown {
        /// Which.
        vm: DomainId,
        /// Seconds of warning for the user.
        delay_s: u32,
        /// What the user is told; `None` for the usual.
        message: Option<String>,
        /// Start it again afterwards.
        reboot: bool,
        /// Seconds that each step may take.
        timeout_s: u32,
        /// Force it off in the end.
        force: bool,
    },
    /// End it and forget it; forget it, if it is Down.
    Destroy {
        /// Which.
        vm: DomainId,
        /// How often to try it gently before force.
        graceful_attempts: u32,
    },
    /// What the host can do.
    GetVdsCapabilities,
    /// What the host is doing.
    GetVdsStats,
    /// What the host is made of.
    GetVdsHardwareInfo,
    /// Which methods are there?
    ListMethods,
    /// What is a method for?
    MethodHelp {
        /// Its name.
        name: String,
    },
    /// What does a method take and give?
    MethodSignature {
        /// Its name.
        name: String,
    },
}

/// What whoever calls a verb must be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// To be told what is no secret.
    Plain,
    /// To be told something that is secret as a whole, in words that follow *may not*.
    Secret(&'static str),
    /// To have this done with a VM.
    Operation(OperationKind),
}

impl Verb {
    /// Reads a call.
    ///
    /// # Errors
    /// [`Refused`], which knows its own reply.
    pub fn parse(call: &Call) -> Result<Self, Refused> {
        Self::read(call).map(|(verb, _)| verb)
    }

    /// Reads a call, and names the parameters that have no effect: VDSM did not read them either, or had nothing done
    /// about them. Such as `src` of `migrate`; a parameter that would change what is done is refused instead.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn read(call: &Call) -> Result<(Self, Vec<String>), Refused> {
        let ignored = Ignored::default();
        let verb = Self::noting(call, &ignored)?;
        Ok((verb, ignored.names()))
    }

    fn noting(call: &Call, ignored: &Ignored) -> Result<Self, Refused> {
        let Some(method) = METHODS.iter().find(|method| method.name == call.method) else {
            return Err(match absent(&call.method) {
                Some((name, code)) => Refused::Absent { name, code },
                None => Refused::unknown_method(&call.method),
            });
        };
        if call.params.len() > method.params.len() {
            return Err(Refused::TooMany { method: method.name, most: method.params.len() });
        }
        (method.read)(&Given { method, values: &call.params, ignored: ignored.clone() })
    }

    /// What whoever calls it must be allowed.
    pub const fn needs(&self) -> Needs {
        match self {
            Self::Do { act, .. } | Self::Device { act, .. } => Needs::Operation(act.kind()),
            Self::Create { .. } | Self::CreateClassic(_) => Needs::Operation(OperationKind::Create),
            Self::Snapshot { .. } => Needs::Operation(OperationKind::Snapshot),
            Self::Shutdown { reboot: false, .. } => Needs::Operation(OperationKind::Shutdown),
            Self::Shutdown { reboot: true, .. } => Needs::Operation(OperationKind::Reboot),
            Self::Destroy { .. } => Needs::Operation(OperationKind::Destroy),
            // Serial numbers: the kernel shows them to root alone.
            Self::GetVdsHardwareInfo => Needs::Secret("read the host's serial numbers"),
            // libvirt's words on what went wrong with it stand in it.
            Self::MigrateStatus { .. } => Needs::Secret("read how a migration went"),
            Self::Ping
            | Self::List { .. }
            | Self::GetVmStats { .. }
            | Self::GetAllVmStats
            | Self::GetVdsCapabilities
            | Self::GetVdsStats
            // It only asks whether a VM may come.
            | Self::MigrationCreate { .. }
            | Self::ListMethods
            | Self::MethodHelp { .. }
            | Self::MethodSignature { .. } => Needs::Plain,
        }
    }

    /// Whether it may be answered before the first listing was taken. Of the rest, VDSM says
    /// [`Code::Recovering`](crate::Code::Recovering) then: absence would mean "gone" to a manager.
    pub const fn answers_while_recovering(&self) -> bool {
        matches!(self, Self::ListMethods | Self::MethodHelp { .. } | Self::MethodSignature { .. })
    }
}

/// What a call asks for, and which parameters have no effect; beside it, all that were looked for.
#[cfg(test)]
#[expect(clippy::type_complexity, reason = "one test takes it apart at once")]
pub(crate) fn read_noting(
    call: &Call,
) -> (Result<(Verb, Vec<String>), Refused>, std::collections::BTreeSet<String>) {
    let ignored = Ignored::default();
    let verb = Verb::noting(call, &ignored);
    let asked = ignored.asked.take();
    (verb.map(|verb| (verb, ignored.names())), asked)
}

/// A struct without members. An empty array is taken for one: PHP has the same for both, and sends that.
pub(crate) static NO_MEMBERS: BTreeMap<String, Value> = BTreeMap::new();

/// The parameters of one call, beside the method's table row that names them.
pub(crate) struct Given<'a> {
    method: &'static Method,
    values: &'a [Value],
    ignored: Ignored,
}

impl<'a> Given<'a> {
    /// The parameter at `index`, unless it is missing or nil.
    fn get(&self, index: usize) -> Option<&'a Value> {
        self.values.get(index).filter(|value| !matches!(value, Value::Nil))
    }

    /// The members of a required struct.
    fn members(&self, index: usize) -> Result<&'a BTreeMap<String, Value>, Refused> {
        match self.get(index).ok_or_else(|| self.missing(index))? {
            Value::Struct(members) => Ok(members),
            Value::Array(items) if items.is_empty() => Ok(&NO_MEMBERS),
            _ => Err(self.wrong(index, "a struct")),
        }
    }

    /// The same, to be read member by member.
    fn fields(&self, index: usize) -> Result<Fields<'a>, Refused> {
        Ok(Fields::new(self.method.name, self.members(index)?, self.ignored.clone()))
    }

    fn name(&self, index: usize) -> &'static str {
        self.method.params[index].name
    }

    fn missing(&self, index: usize) -> Refused {
        Refused::Missing { param: self.name(index) }
    }

    fn wrong(&self, index: usize, wanted: &'static str) -> Refused {
        Refused::Wrong { method: self.method.name, param: self.name(index), wanted }
    }

    /// A required VM. Text that is no UUID names no VM of any libvirt.
    fn vm(&self, index: usize) -> Result<DomainId, Refused> {
        match self.get(index).ok_or_else(|| self.missing(index))? {
            Value::String(text) => text.trim().parse().map_err(|_| Refused::NoSuchVm),
            _ => Err(self.wrong(index, "the text of a UUID")),
        }
    }

    fn text(&self, index: usize) -> Result<&'a str, Refused> {
        match self.get(index).ok_or_else(|| self.missing(index))? {
            Value::String(text) => Ok(text),
            _ => Err(self.wrong(index, "text")),
        }
    }

    /// Free text for people, bounded and tamed; `None` if it is missing or empty.
    fn words(&self, index: usize) -> Result<Option<String>, Refused> {
        match self.get(index) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(tame(text))),
            Some(_) => Err(self.wrong(index, "text")),
        }
    }

    fn flag(&self, index: usize) -> Result<bool, Refused> {
        const WANTED: &str = "true or false";
        match self.get(index) {
            None => Ok(false),
            Some(Value::Boolean(truth)) => Ok(*truth),
            Some(Value::Integer(number)) => Ok(*number != 0),
            Some(Value::Long(number)) => Ok(*number != 0),
            Some(Value::String(text)) => match text.trim().to_ascii_lowercase().as_str() {
                "" | "false" | "0" | "no" => Ok(false),
                "true" | "1" | "yes" => Ok(true),
                _ => Err(self.wrong(index, WANTED)),
            },
            Some(_) => Err(self.wrong(index, WANTED)),
        }
    }

    /// VDSM's way with the flag of `list`: any text but the empty one is true, "false" too. Only the amount of
    /// detail hangs on it.
    fn loose_flag(&self, index: usize) -> Result<bool, Refused> {
        match self.get(index) {
            Some(Value::String(text)) => Ok(!text.is_empty()),
            _ => self.flag(index),
        }
    }

    /// A count or a number of seconds; `None` if it is missing or empty text.
    fn number(&self, index: usize) -> Result<Option<u32>, Refused> {
        const WANTED: &str = "a whole number from 0 to 4294967295";
        let read = match self.get(index) {
            None => return Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(Value::Integer(number)) => u32::try_from(*number).ok(),
            Some(Value::Long(number)) => u32::try_from(*number).ok(),
            Some(Value::Double(number))
                if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(number) =>
            {
                Some(*number as u32)
            }
            Some(_) => None,
        };
        read.map(Some).ok_or_else(|| self.wrong(index, WANTED))
    }

    /// Seconds; nothing and zero both mean `default`, as they did to VDSM.
    fn seconds(&self, index: usize, default: u32) -> Result<u32, Refused> {
        Ok(self.number(index)?.filter(|&seconds| seconds > 0).unwrap_or(default))
    }

    /// A choice of VMs: `None` for all. What is no UUID names no VM; a bare text instead of an array matches nothing.
    fn vms(&self, index: usize) -> Option<Vec<DomainId>> {
        match self.get(index) {
            None => None,
            Some(Value::Array(items)) if items.is_empty() => None,
            Some(Value::Array(items)) => Some(
                items
                    .iter()
                    .filter_map(|item| match item {
                        Value::String(text) => text.trim().parse().ok(),
                        _ => None,
                    })
                    .collect(),
            ),
            Some(_) => Some(Vec::new()),
        }
    }
}

pub(crate) fn read_list(given: &Given<'_>) -> Result<Verb, Refused> {
    Ok(Verb::List { full: given.loose_flag(0)?, vms: given.vms(1) })
}

pub(crate) fn read_vm_stats(given: &Given<'_>) -> Result<Verb, Refused> {
    Ok(Verb::GetVmStats { vm: given.vm(0)? })
}

pub(crate) fn read_shutdown(given: &Given<'_>) -> Result<Verb, Refused> {
    Ok(Verb::Shutdown {
        vm: given.vm(0)?,
        delay_s: given.seconds(1, DEFAULT_SHUTDOWN_DELAY_S)?,
        message: given.words(2)?,
        reboot: given.flag(3)?,
        timeout_s: given.seconds(4, DEFAULT_SHUTDOWN_TIMEOUT_S)?,
        force: given.flag(5)?,
    })
}

pub(crate) fn read_destroy(given: &Given<'_>) -> Result<Verb, Refused> {
    Ok(Verb::Destroy { vm: given.vm(0)?, graceful_attempts: given.number(1)?.unwrap_or(1) })
}

/// `create` takes one struct: with a document in `xml`, its other members are the manager's own business; without,
/// they are the VM.
pub(crate) fn read_create(given: &Given<'_>) -> Result<Verb, Refused> {
    let members = given.members(0)?;
    if let None | Some(Value::Nil) = members.get("xml") {
        let fields = given.fields(0)?;
        let vm = ClassicVm::read(&fields)?;
        fields.finish()?;
        return Ok(Verb::CreateClassic(Box::new(vm)));
    }
    let vm = match members.get("vmId") {
        None | Some(Value::Nil) => None,
        Some(Value::String(text)) => Some(text.trim().parse().map_err(|_| Refused::NotAUuid)?),
        Some(_) => return Err(Refused::NotAUuid),
    };
    match members.get("xml") {
        Some(Value::String(xml)) if !xml.trim().is_empty() => Ok(Verb::Create { vm, xml: xml.clone() }),
        None | Some(Value::Nil | Value::String(_)) => Err(Refused::Missing { param: "xml" }),
        Some(_) => Err(Refused::Wrong { method: "create", param: "xml", wanted: "text" }),
    }
}

pub(crate) fn read_help(given: &Given<'_>) -> Result<Verb, Refused> {
    Ok(Verb::MethodHelp { name: given.text(0)?.into() })
}

pub(crate) fn read_signature(given: &Given<'_>) -> Result<Verb, Refused> {
    Ok(Verb::MethodSignature { name: given.text(0)?.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

    fn parse(method: &str, params: &[Value]) -> Result<Verb, Refused> {
        Verb::parse(&Call { method: method.into(), params: params.to_vec() })
    }

    fn text(text: &str) -> Value {
        Value::String(text.into())
    }

    fn id() -> DomainId {
        ID.parse().unwrap()
    }

    #[test]
    fn verbs_without_parameters_are_read() {
        for (name, verb) in [
            ("ping", Verb::Ping),
            ("getAllVmStats", Verb::GetAllVmStats),
            ("getVdsCapabilities", Verb::GetVdsCapabilities),
            ("getVdsStats", Verb::GetVdsStats),
            ("getVdsHardwareInfo", Verb::GetVdsHardwareInfo),
            ("system.listMethods", Verb::ListMethods),
        ] {
            assert_eq!(parse(name, &[]), Ok(verb), "{name}");
            let too_many = parse(name, &[text("x")]);
            assert!(matches!(too_many, Err(Refused::TooMany { most: 0, .. })), "{name}: {too_many:?}");
        }
    }

    #[test]
    fn list_reads_the_flag_as_vdsm_did_and_ids_of_any_case() {
        let all = |full| Ok(Verb::List { full, vms: None });
        assert_eq!(parse("list", &[]), all(false));
        assert_eq!(parse("list", &[text("")]), all(false));
        assert_eq!(parse("list", &[text("false")]), all(true));
        assert_eq!(parse("list", &[Value::Boolean(true), Value::Array(vec![])]), all(true));
        let some = Value::Array(vec![text(&ID.to_uppercase()), text("nonsense"), Value::Integer(1)]);
        assert_eq!(
            parse("list", &[text("true"), some]),
            Ok(Verb::List { full: true, vms: Some(vec![id()]) })
        );
        assert_eq!(
            parse("list", &[text("true"), text(ID)]),
            Ok(Verb::List { full: true, vms: Some(vec![]) })
        );
    }

    #[test]
    fn numbers_and_flags_come_as_text_or_as_themselves() {
        let expected = Verb::Shutdown {
            vm: id(),
            delay_s: 5,
            message: Some("bye".into()),
            reboot: false,
            timeout_s: 60,
            force: true,
        };
        let as_text = ["5", "bye", "false", "60", "True"].map(text);
        let typed =
            [Value::Integer(5), text("bye"), Value::Boolean(false), Value::Long(60), Value::Integer(1)];
        for rest in [as_text, typed] {
            let params = [&[text(ID)][..], &rest].concat();
            assert_eq!(parse("shutdown", &params).as_ref(), Ok(&expected));
        }
        let usual = Verb::Shutdown {
            vm: id(),
            delay_s: 30,
            message: None,
            reboot: false,
            timeout_s: 120,
            force: false,
        };
        for rest in
            [vec![], vec![text(""), text("")], vec![text("0"), Value::Nil, Value::Nil, Value::Integer(0)]]
        {
            let params = [vec![text(ID)], rest].concat();
            assert_eq!(parse("shutdown", &params).as_ref(), Ok(&usual));
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_and_never_guessed() {
        let wrong = |index: usize, value: Value| {
            let mut params = vec![text(ID), Value::Nil, Value::Nil, Value::Nil, Value::Nil, Value::Nil];
            params[index] = value;
            match parse("shutdown", &params) {
                Err(Refused::Wrong { method: "shutdown", param, .. }) => param,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(wrong(1, text("soon")), "delay");
        assert_eq!(wrong(1, Value::Integer(-1)), "delay");
        assert_eq!(wrong(2, Value::Integer(1)), "message");
        assert_eq!(wrong(3, text("maybe")), "reboot");
        assert_eq!(wrong(4, Value::Double(0.5)), "timeout");
        assert_eq!(wrong(5, text("forced")), "force");
        assert_eq!(wrong(0, Value::Integer(1)), "vmId");
    }

    #[test]
    fn an_id_that_is_no_uuid_is_a_vm_that_does_not_exist() {
        for method in ["getVmStats", "shutdown", "destroy"] {
            assert_eq!(parse(method, &[text("web1")]), Err(Refused::NoSuchVm), "{method}");
            assert_eq!(parse(method, &[]), Err(Refused::Missing { param: "vmId" }), "{method}");
        }
        assert_eq!(parse("destroy", &[text(ID)]), Ok(Verb::Destroy { vm: id(), graceful_attempts: 1 }));
        assert_eq!(
            parse("destroy", &[text(ID), text("3")]),
            Ok(Verb::Destroy { vm: id(), graceful_attempts: 3 })
        );
    }

    #[test]
    fn create_takes_a_document_and_perhaps_an_id() {
        let create = |members: &[(&str, Value)]| {
            let members: BTreeMap<_, _> = members.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
            parse("create", &[Value::Struct(members)])
        };
        let xml = || ("xml", text("<domain/>"));
        assert_eq!(create(&[xml()]), Ok(Verb::Create { vm: None, xml: "<domain/>".into() }));
        assert_eq!(
            create(&[xml(), ("vmId", text(ID))]),
            Ok(Verb::Create { vm: Some(id()), xml: "<domain/>".into() })
        );
        assert_eq!(create(&[xml(), ("vmId", text("web1"))]), Err(Refused::NotAUuid));
        assert_eq!(create(&[("vmId", text(ID)), ("xml", text(" "))]), Err(Refused::Missing { param: "xml" }));
        assert_eq!(parse("create", &[]), Err(Refused::Missing { param: "params" }));
        assert!(matches!(parse("create", &[text("<domain/>")]), Err(Refused::Wrong { param: "params", .. })));
        // PHP's empty struct is an empty array.
        assert_eq!(parse("create", &[Value::Array(vec![])]), create(&[]));
        let one = Value::Array(vec![text("<domain/>")]);
        assert!(matches!(parse("create", &[one]), Err(Refused::Wrong { param: "params", .. })));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(Value::Integer),
            any::<i64>().prop_map(Value::Long),
            any::<bool>().prop_map(Value::Boolean),
            any::<f64>().prop_map(Value::Double),
            any::<String>().prop_map(Value::String),
            Just(text(ID)),
            Just(text("5")),
            Just(Value::Nil),
        ];
        leaf.prop_recursive(2, 8, 4, |inner| {
            let name = prop_oneof![Just("vmId"), Just("xml"), Just("other")].prop_map(String::from);
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::btree_map(name, inner, 0..3).prop_map(Value::Struct),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_call_is_read_or_refused_with_a_reply(
            method in 0..METHODS.len(),
            params in proptest::collection::vec(any_value(), 0..8),
        ) {
            if let Err(refused) = parse(METHODS[method].name, &params) {
                let reply = refused.reply();
                prop_assert!(dxr::MethodResponse::from_xml(std::str::from_utf8(&reply).unwrap()).is_ok());
            }
        }
    }

    #[test]
    fn an_unknown_method_is_refused_by_name() {
        assert_eq!(parse("Ping", &[]), Err(Refused::UnknownMethod("Ping".into())));
    }
}
