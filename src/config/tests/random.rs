//! Whatever is written, the answer is settings or findings, never a panic; and settings keep their promises.

use proptest::prelude::*;

use super::super::key::KEYS;
use super::World;

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        (0i64..2000).prop_map(|n| n.to_string()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        Just("1979-05-27T07:32:00Z".to_owned()),
        Just("{ a = 1 }".to_owned()),
        "\\PC{0,20}".prop_map(|s| format!("{s:?}")),
        prop::sample::select(vec![
            "'/a'",
            "''",
            "'0600'",
            "'full'",
            "'info'",
            "'test:///default'",
            "['unix']"
        ])
        .prop_map(str::to_owned),
        prop::collection::vec("[0-9:.\\[\\]a-f]{0,12}", 0..4).prop_map(|list| format!("{list:?}")),
    ]
}

fn promises(world: &World) -> Result<(), TestCaseError> {
    match world.load() {
        Ok(loaded) => {
            let settings = loaded.settings;
            prop_assert!(settings.libvirt.reconnect_min <= settings.libvirt.reconnect_max);
            prop_assert!(settings.deciding.settle <= settings.deciding.settle_snapshot);
            let loopback = settings.xmlrpc.listen.iter().all(|at| at.ip().to_canonical().is_loopback());
            prop_assert!(settings.xmlrpc.insecure_listen_anywhere || loopback);
            let ports = |list: &[std::net::SocketAddr]| list.iter().map(|at| at.port()).collect::<Vec<_>>();
            let both = ports(&settings.xmlrpc.listen);
            let everywhere = settings.tls.listen.iter().filter(|at| at.ip().is_unspecified());
            prop_assert!(everywhere.into_iter().all(|at| at.port() == 0 || !both.contains(&at.port())));
            prop_assert!(settings.state.dir.is_absolute() && settings.socket.path.is_absolute());
            prop_assert_eq!(settings.socket.mode.bits() & 0o002, 0);
        }
        Err(mistakes) => {
            prop_assert!(!mistakes.findings().is_empty());
            for finding in mistakes.findings() {
                let line = finding.to_string();
                prop_assert!(!line.contains('\n') && line.chars().count() < 600, "{}", line);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_settings_or_findings(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        promises(&World::new().file("whydown.toml", bytes))?;
    }

    #[test]
    fn any_text_of_tomls_characters_is_settings_or_findings(
        text in "([a-z_.\"'\\[\\]={}, \\n#0-9é]|libvirt|xmlrpc|listen|filter){0,60}"
    ) {
        promises(&World::new().file("whydown.toml", text))?;
    }

    #[test]
    fn any_values_of_our_keys_are_settings_or_findings(
        chosen in prop::collection::vec((0..KEYS.len(), value()), 0..12)
    ) {
        let mut world = World::new();
        for (at, (key, value)) in chosen.iter().enumerate() {
            world = world.file(&format!("conf.d/{at:02}.toml"), format!("{} = {value}\n", KEYS[*key].full()));
        }
        promises(&world)?;
    }

    #[test]
    fn any_variables_are_settings_or_findings(
        chosen in prop::collection::vec((0..KEYS.len(), "\\PC{0,24}"), 0..6),
        name in "WHYDOWN_[A-Za-z_]{0,30}",
        value in "\\PC{0,24}",
    ) {
        let mut world = World::new().variable(&name, value);
        for (key, value) in chosen {
            world = world.variable(&KEYS[key].variable(), value);
        }
        promises(&world)?;
    }
}
