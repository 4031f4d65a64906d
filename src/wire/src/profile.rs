//! Profiles: which members a VM that runs has for which generation of managers, as `proto-schemas/profiles.toml` says.
//!
//! Every member goes through [`Profile::put`] and its kin, which ask the profile; nothing else may decide by generation.

use std::fmt::Display;
use std::sync::LazyLock;

use crate::write::{Items, Members};

static TABLE: &str = include_str!("../../../proto-schemas/profiles.toml");

/// A generation of managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Generation {
    /// What all can read.
    #[default]
    Common,
    /// Engine 3.4, as VDSM 4.14 spoke.
    V3_4,
    /// Engine 3.5, as VDSM 4.16 spoke.
    V3_5,
    /// Engine 3.6, as VDSM 4.17 spoke.
    V3_6,
    /// Engine 4.0 and later, as VDSM 4.18 spoke.
    V4_0,
}

impl Generation {
    /// All, in the order of the table of profiles.
    pub const ALL: [Self; 5] = [Self::Common, Self::V3_4, Self::V3_5, Self::V3_6, Self::V4_0];

    /// The profile's name in the table and in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Common => "common",
            Self::V3_4 => "3.4",
            Self::V3_5 => "3.5",
            Self::V3_6 => "3.6",
            Self::V4_0 => "4.0",
        }
    }
}

macro_rules! keys {
    ($($section:literal { $($key:ident = $name:literal),* $(,)? })*) => {
        /// A member that a profile rules.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Key { $($($key,)*)* }

        /// Each with its section and name.
        const KEYS: &[(&str, &str)] = &[$($(($section, $name),)*)*];
    };
}

keys! {
    "vm" {
        VmId = "vmId", Status = "status", StatusTime = "statusTime", VmName = "vmName", VmType = "vmType",
        Pid = "pid", ElapsedTime = "elapsedTime", MonitorResponse = "monitorResponse", PauseCode = "pauseCode",
        TimeOffset = "timeOffset", ClientIp = "clientIp", KvmEnable = "kvmEnable", AcpiEnable = "acpiEnable",
        DisplayType = "displayType", DisplayPort = "displayPort", DisplaySecurePort = "displaySecurePort",
        DisplayIp = "displayIp", DisplayInfo = "displayInfo", Hash = "hash", Network = "network", Disks = "disks",
        Cdrom = "cdrom", Boot = "boot", WatchdogEvent = "watchdogEvent", MigrationProgress = "migrationProgress",
    }
    "started" {
        VcpuCount = "vcpuCount", VcpuPeriod = "vcpuPeriod", VcpuQuota = "vcpuQuota", Username = "username",
        Session = "session", MemUsage = "memUsage", MemoryStats = "memoryStats",
        GuestCpuCount = "guestCPUCount", AppsList = "appsList",
        GuestIps = "guestIPs", GuestFqdn = "guestFQDN", GuestName = "guestName", GuestOs = "guestOs",
        NetIfaces = "netIfaces", DisksUsage = "disksUsage", LastLogin = "lastLogin",
        GuestTimezone = "guestTimezone", GuestOsInfo = "guestOsInfo", BalloonInfo = "balloonInfo",
    }
    "sampled" {
        StatsAge = "statsAge", CpuUser = "cpuUser", CpuSys = "cpuSys", CpuUsage = "cpuUsage", IoTune = "ioTune",
    }
    "nic" {
        NicName = "name", MacAddr = "macAddr", Speed = "speed", State = "state", RxRate = "rxRate",
        TxRate = "txRate", RxErrors = "rxErrors", RxDropped = "rxDropped", TxErrors = "txErrors",
        TxDropped = "txDropped", Rx = "rx", Tx = "tx", SampleTime = "sampleTime",
    }
    "drive" {
        TrueSize = "truesize", ApparentSize = "apparentsize", ImageId = "imageID", ReadRate = "readRate",
        WriteRate = "writeRate", ReadLatency = "readLatency", WriteLatency = "writeLatency",
        FlushLatency = "flushLatency", ReadOps = "readOps", WriteOps = "writeOps", ReadBytes = "readBytes",
        WrittenBytes = "writtenBytes",
    }
    "memory-stats" {
        MemTotal = "mem_total", MemFree = "mem_free", MemUnused = "mem_unused", SwapIn = "swap_in",
        SwapOut = "swap_out", PageFaults = "pageflt", MajorFaults = "majflt",
    }
    "balloon" {
        BalloonMax = "balloon_max", BalloonMin = "balloon_min", BalloonCur = "balloon_cur",
        BalloonTarget = "balloon_target",
    }
    "display" { ScreenType = "type", ScreenPort = "port", ScreenTlsPort = "tlsPort", ScreenIp = "ipAddress" }
    "watchdog" { WatchdogTime = "time", WatchdogAction = "action" }
    "guest-interface" { IfaceName = "name", IfaceHw = "hw", IfaceInet = "inet", IfaceInet6 = "inet6" }
    "disk-usage" { UsagePath = "path", UsageFs = "fs", UsageTotal = "total", UsageUsed = "used" }
    "guest-timezone" { ZoneName = "zone", ZoneOffset = "offset" }
    "guest-os" {
        OsType = "type", OsArch = "arch", OsDistribution = "distribution", OsVersion = "version",
        OsCodename = "codename", OsKernel = "kernel",
    }
    "io-tune" { TunedName = "name", TunedPath = "path", Tuned = "ioTune" }
}

/// What a value is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Int,
    Double,
    Struct,
    Array,
}

/// One member in one profile.
#[derive(Debug)]
struct Rule {
    present: bool,
    form: Form,
    /// Whether it is sent while there is nothing to tell.
    empty: bool,
    none: String,
}

/// One generation's rules.
#[derive(Debug)]
pub(crate) struct Profile {
    /// By [`Key`].
    rules: Vec<Rule>,
    /// Whether network interfaces are there before their rates are.
    pub(crate) nics_before_rates: bool,
    /// Engines for which the host offers itself, by `major.minor`.
    pub(crate) engines: Vec<String>,
    /// Levels of clusters for which it does.
    pub(crate) cluster_levels: Vec<String>,
    /// The kind of switch that its networks have, where managers want to know.
    pub(crate) switch: Option<String>,
}

static PROFILES: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    // The table is part of the program, and a test reads it.
    let table: toml::Table = TABLE.parse().expect("proto-schemas/profiles.toml is TOML");
    Generation::ALL.iter().map(|generation| Profile::read(&table, generation.word())).collect()
});

impl Profile {
    /// The rules of a generation.
    pub(crate) fn of(generation: Generation) -> &'static Self {
        &PROFILES[generation as usize]
    }

    fn read(table: &toml::Table, word: &str) -> Self {
        let rule = |&(section, name): &(&str, &str)| {
            let row = &table[section][name];
            let listed = |key: &str| match row.get(key).and_then(toml::Value::as_str) {
                Some("all") => true,
                Some(words) => words.split(' ').any(|listed| listed == word),
                None => false,
            };
            let form = match row["type"].as_str().unwrap_or_default() {
                _ if listed("int") => Form::Int,
                "int" => Form::Int,
                "double" => Form::Double,
                "balloon" | "memory-stats" | "watchdog" | "guest-timezone" | "guest-os" => Form::Struct,
                kind if kind.starts_with('{') => Form::Struct,
                kind if kind.starts_with('[') => Form::Array,
                _ => Form::Text,
            };
            let none = row.get("none").and_then(toml::Value::as_str).unwrap_or_default().to_owned();
            Rule { present: row.get("in").is_none() || listed("in"), form, empty: listed("empty"), none }
        };
        let profile = &table["profile"][word];
        let text = |key: &str| profile.get(key).and_then(toml::Value::as_str);
        let words = |key: &str| text(key).unwrap_or_default().split(' ').map(str::to_owned).collect();
        Self {
            rules: KEYS.iter().map(rule).collect(),
            nics_before_rates: profile["nics_before_rates"].as_bool() == Some(true),
            engines: words("engines"),
            cluster_levels: words("cluster_levels"),
            switch: text("switch").map(str::to_owned),
        }
    }

    fn rule(&self, key: Key) -> (&'static str, &Rule) {
        (KEYS[key as usize].1, &self.rules[key as usize])
    }

    /// A plain value, in the form that the profile wants.
    pub(crate) fn put(&self, s: &mut Members<'_>, key: Key, value: Option<impl Display>) {
        let (name, rule) = self.rule(key);
        let text = match value {
            _ if !rule.present => return,
            Some(value) => value.to_string(),
            None if rule.empty => rule.none.clone(),
            None => return,
        };
        match rule.form {
            Form::Int => s.int(name, saturated(&text)),
            Form::Double => s.double(name, text.parse().unwrap_or(0.0)),
            Form::Text | Form::Struct | Form::Array => s.text(name, &text),
        }
    }

    /// A struct.
    pub(crate) fn put_struct(
        &self,
        s: &mut Members<'_>,
        key: Key,
        fill: Option<impl FnOnce(&mut Members<'_>)>,
    ) {
        let (name, rule) = self.rule(key);
        match fill {
            _ if !rule.present => {}
            Some(fill) => s.structure(name, fill),
            None if rule.empty => s.structure(name, |_| {}),
            None => {}
        }
    }

    /// An array.
    pub(crate) fn put_array(&self, s: &mut Members<'_>, key: Key, fill: Option<impl FnOnce(&mut Items<'_>)>) {
        let (name, rule) = self.rule(key);
        match fill {
            _ if !rule.present => {}
            Some(fill) => s.array(name, fill),
            None if rule.empty => s.array(name, |_| {}),
            None => {}
        }
    }

    /// Whether it is sent while there is nothing to tell.
    pub(crate) fn sends_empty(&self, key: Key) -> bool {
        let (_, rule) = self.rule(key);
        rule.present && rule.empty
    }
}

/// The wire's integers have 32 bits.
fn saturated(text: &str) -> i32 {
    text.parse::<i64>().map_or(0, |number| number.clamp(i32::MIN.into(), i32::MAX.into()) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_keys_are_the_same() {
        let table: toml::Table = TABLE.parse().unwrap();
        let words: Vec<&str> = Generation::ALL.iter().map(|generation| generation.word()).collect();
        let mut rows = Vec::new();
        for (section, keys) in &table {
            let keys = keys.as_table().unwrap();
            if section == "profile" {
                assert_eq!(keys.keys().collect::<Vec<_>>().len(), words.len());
                assert!(words.iter().all(|word| keys.contains_key(*word)));
                continue;
            }
            for (name, row) in keys {
                rows.push((section.as_str(), name.as_str()));
                for (field, value) in row.as_table().unwrap() {
                    let value = value.as_str().unwrap();
                    match field.as_str() {
                        "type" | "none" => {}
                        "in" | "empty" | "int" => assert!(
                            value == "all" || value.split(' ').all(|word| words.contains(&word)),
                            "{section}.{name}.{field}"
                        ),
                        other => panic!("{section}.{name}: unknown field {other}"),
                    }
                }
            }
        }
        let mut keys = KEYS.to_vec();
        rows.sort_unstable();
        keys.sort_unstable();
        assert_eq!(rows, keys);
    }

    #[test]
    fn each_profile_is_at_its_generation() {
        assert_eq!(PROFILES.len(), Generation::ALL.len());
        assert!(Generation::ALL.iter().enumerate().all(|(index, generation)| *generation as usize == index));
        assert!(Profile::of(Generation::V3_4).nics_before_rates);
        assert!(!Profile::of(Generation::V3_5).nics_before_rates);
        for generation in Generation::ALL {
            let profile = Profile::of(generation);
            assert!(!profile.engines.is_empty() && !profile.cluster_levels.is_empty(), "{generation:?}");
            // An engine that reads level 4.0 asks each network for its switch.
            let wants_switch = profile.cluster_levels.iter().any(|level| level.as_str() >= "4.0");
            assert_eq!(profile.switch.is_some(), wants_switch, "{generation:?}");
        }
    }
}
