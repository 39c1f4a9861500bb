use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::subsequence;

use super::table;
use crate::config::import::import_text;
use crate::config::*;

fn flat(text: &str) -> Result<Loaded, Problems> {
    load_text("emqx.conf", text, &Sources::default())
}

fn wrong(text: &str) -> String {
    flat(text).expect_err("the text is wrong").to_string()
}

/// What is told about a text that is right.
fn told(text: &str) -> String {
    let loaded = flat(text).unwrap_or_else(|problems| panic!("{problems}"));
    loaded.differences.iter().map(|of| format!("{}\n", crate::check::told(of))).collect()
}

const SAMPLE: &str = include_str!("../../../etc/emqx.conf");

#[test]
fn the_sample_is_read_as_it_is() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/emqx.conf");
    let loaded = load(&Sources { file: Some(file), ..Sources::default() }).unwrap_or_else(|error| panic!("{error}"));
    let Config { listeners, zones, mqtt, retained, access, broker, .. } = &loaded.config;
    assert_eq!(
        listeners.iter().map(Listener::path).collect::<Vec<_>>(),
        ["listener.tcp.external", "listener.tcp.internal", "listener.ws.external"]
    );
    assert_eq!((listeners[0].max_conn_rate, listeners[0].send_timeout), (1000, Duration::from_secs(15)));
    assert_eq!((zones["external"].max_inflight, zones["external"].retry_interval), (32, Duration::from_secs(20)));
    assert!(!zones["internal"].enable_auth && zones["internal"].mqueue_default_priority == DefaultPriority::Lowest);
    assert_eq!((mqtt.max_packet_size, mqtt.max_topic_levels), (1 << 20, 0));
    assert_eq!((retained.max_payload_size, broker.shared_subscription_strategy), (1 << 20, SharedStrategy::Random));
    // Paths are as seen from above the folder `etc`.
    let acl_file = access.acl_file.as_deref().expect("it has rules");
    assert!(acl_file.ends_with("etc/acl.conf") && acl_file.is_file());
    crate::access::check(access).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.notes, [""; 0]);
}

#[test]
fn what_is_told_about_the_sample() {
    insta::assert_snapshot!(told(SAMPLE));
}

#[test]
fn the_sample_of_our_own_has_every_default() {
    let text = include_str!("../../../etc/newtmq.toml");
    assert!(text == sample(), "run `cargo run -- config-docs --sample etc/newtmq.toml` and review the difference");
    let load = |text: &str| load_text("etc/newtmq.toml", text, &Sources::default());
    assert_eq!(load(text).unwrap().config, Config::default());
    // Without the `#` before keys that have a default.
    let is_key =
        |line: &&str| line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
    let keys: String = text.lines().filter(is_key).map(|line| format!("{}\n", &line[1..])).collect();
    let config =
        load(&keys.replace(
            "listener.ssl.external.handshake",
            "listener.ssl.external.bind = 1\nlistener.ssl.external.handshake",
        ))
        .unwrap_or_else(|problems| panic!("{problems}"))
        .config;
    let standard = Config::default();
    assert_eq!(config.zones["external"], standard.zones["external"]);
    assert_eq!(config.listeners[0], standard.listeners[0]);
    let same = Config { listeners: standard.listeners.clone(), zones: standard.zones.clone(), ..config };
    assert_eq!(same, standard);
}

#[test]
fn the_page_is_what_the_tables_say() {
    let written = include_str!("../../../docs/migration.md");
    assert!(
        written == migration(),
        "run `cargo run -- config-docs --migration docs/migration.md` and review the difference"
    );
}

#[test]
fn a_line_that_has_come_to_the_end_of_another_is_told() {
    insta::assert_snapshot!(wrong(
        "cluster.k8s.apiserver = http://10.110.111.204:8080cluster.k8s.service_name = emqx\n"
    ));
    insta::assert_snapshot!(wrong(
        "## a\nlog.level = warning listener.tcp.external = 1883\nacl_nomatch = denyallow_anonymous = true"
    ));
    // Values have equals signs, too.
    for text in
        ["zone.external.mqueue_priorities = a.b=1,c=2", "node.cookie = cookie=1 = b", "zone.external.mountpoint = a=b/"]
    {
        assert!(flat(&format!("{text}\nallow_anonymous = true")).is_ok(), "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let text = "\
allow_anonymous = maybe
zone.external.max_infligth = 3
listener.tcp.external.aceptors = 8
colour = red
mqtt.max_qos_allowed = 3
listener.ssl.external = 8883
listener.ssl.external.tls_versions = tlsv1.1,sslv3
listener.tcp.lan = 1884
listener.tcp.lan.peer_cert_as_clientid = cn
zone.external.acl_nomatch = allow
zone.external.max_packet_size = 64KB
zone.lan.allow_anonymous = maybe
auth.mysql.server = 127.0.0.1:3306
auth.user.1.username = alice
no equals sign
node.name =
log.level = loud
";
    insta::assert_snapshot!(wrong(text));
}

#[test]
fn another_format_is_told() {
    insta::assert_snapshot!(wrong("listener 1883\npersistence true\n"));
    insta::assert_snapshot!(wrong("node {\n  name = \"emqx@127.0.0.1\"\n}\n"));
}

#[test]
fn what_has_no_effect_or_another_is_told() {
    let text = "\
allow_anonymous = true
cluster.autoheal = off
log.level = error
zone.external.max_inflight = 0
zone.external.max_mqueue_len = 100000
zone.external.max_awaiting_rel = 0
zone.external.enable_flapping_detect = on
zone.external.acl_nomatch = deny
zone.external.max_packet_size = 1MB
listener.tcp.external = 1883
listener.tcp.external.rate_limit = 100KB,10s
listener.tcp.external.acceptors = 8
listener.tcp.external = 1884
bridge.aws.address = 127.0.0.2:1883
bridge.aws.password = s3cr3t
module.presence = off
node.name = emqx@broker.example.org
zone.external.durability = memory
";
    insta::assert_snapshot!(told(text));
    assert!(!told(text).contains("s3cr3t"));
    let loaded = flat(text).unwrap();
    insta::assert_snapshot!(crate::check::missing(&loaded).join("\n"));
    let zone = &loaded.config.zones["external"];
    assert_eq!((zone.max_inflight, zone.max_mqueue_len, zone.max_awaiting_rel), (256, 65_278, 65_535));
    assert_eq!(zone.durability, Durability::Memory);
    let listener = &loaded.config.listeners[0];
    assert_eq!((listener.bind.port(), listener.max_connections), (1884, 1024));
    assert_eq!(listener.rate_limit, Some(Bandwidth { bytes_per_second: 10_240, burst: 102_400 }));
}

#[test]
fn what_is_not_set_is_as_in_emqx() {
    insta::assert_snapshot!(wrong("log.level = info"));
    let config = flat("allow_anonymous = true\nlistener.tcp.a = 1\nlistener.tcp.a.zone = lan").unwrap().config;
    assert_eq!((config.access.acl_nomatch, config.mqtt.ignore_loop_deliver), (AclNomatch::Deny, true));
    assert_eq!(
        (config.broker.shared_subscription_strategy, config.cluster.autoclean),
        (SharedStrategy::RoundRobin, None)
    );
    assert_eq!((config.zones["lan"].max_inflight, config.zones["lan"].max_mqueue_len), (64_534, 1000));
    assert_eq!(config.zones.keys().collect::<Vec<_>>(), ["lan"]);
}

#[test]
fn zones_and_logins() {
    let text = "allow_anonymous = false\npassword_file = users\nzone.a.allow_anonymous = true\nzone.b.bypass_auth_plugins = true\n\
                zone.c.allow_anonymous = false\n";
    let zones = flat(text).unwrap().config.zones;
    assert_eq!([zones["a"].enable_auth, zones["b"].enable_auth, zones["c"].enable_auth], [false, false, true]);
    let users = "auth.user.1.username = alice\nauth.user.1.password = a#b\nauth.user.2.username = bob\nauth.user.2.password = c\n";
    let config = flat(users).unwrap().config;
    let named: Vec<_> = config.access.users.iter().map(|(name, password)| (name.as_str(), password.reveal())).collect();
    assert_eq!(named, [("alice", "a#b"), ("bob", "c")]);
}

#[test]
fn a_node_is_reached_by_the_address_in_its_name() {
    let listen = |name: &str| {
        let text = format!("allow_anonymous = true\nnode.cookie = c\nnode.name = {name}");
        flat(&text).unwrap().config.node.listen.map(|listen| listen.to_string())
    };
    assert_eq!(listen("emqx@192.0.2.1").as_deref(), Some("192.0.2.1:4370"));
    assert_eq!(listen("emqx@127.0.0.1").as_deref(), Some("127.0.0.1:4370"));
    assert_eq!(listen("emqx@broker.example.org").as_deref(), Some("127.0.0.1:4370"));
}

#[test]
fn the_cookie_that_everybody_knows() {
    let notes = |name: &str| {
        let text = format!("allow_anonymous = true\nnode.cookie = emqxsecretcookie\nnode.name = {name}");
        flat(&text).unwrap().notes
    };
    let told = "node.cookie is emqxsecretcookie, which everybody knows: any machine could join the cluster";
    assert_eq!(notes("emqx@192.0.2.1"), [told]);
    assert_eq!(notes("emqx@127.0.0.1"), [""; 0]);
}

#[test]
fn variables_mean_what_they_mean_in_the_file() {
    let environment = [
        ("EMQX_LOG__LEVEL", "warning"),
        ("EMQX_LISTENER__TCP__EXTERNAL", "1884"),
        ("EMQX_LISTENER__TCP__EXTERNAL__ACCEPTORS", "8"),
        ("EMQX_ALLOW_ANONYMOUS", "true"),
        ("EMQX_HOST", "10.0.0.1"),
        ("NEWTMQ_ZONE__EXTERNAL__MAX_INFLIGHT", "7"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let sources = Sources { environment, sets: vec!["mqtt.max_qos_allowed=1".to_owned()], ..Sources::default() };
    let text = "log.level = loud\nlistener.tcp.external = 1883\n";
    let loaded = load_text("emqx.conf", text, &sources).unwrap_or_else(|problems| panic!("{problems}"));
    let Config { log, listeners, zones, mqtt, access, .. } = &loaded.config;
    assert_eq!((log.level, listeners[0].bind.port(), access.allow_anonymous), (LogLevel::Warn, 1884, true));
    assert_eq!((zones["external"].max_inflight, mqtt.max_qos_allowed), (7, 1));
    assert_eq!(loaded.notes, ["these environment variables name no key and are ignored: EMQX_HOST"]);
}

#[test]
fn files_beside_it() {
    let scratch = crate::data::tests::Scratch::new("emqx");
    let root = scratch.0.as_path();
    let write = |name: &str, text: &str| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("etc/emqx.conf", "allow_anonymous = false\ninclude more.conf\nacl_file = etc/acl.conf\n");
    write("etc/more.conf", "zone.external.max_inflight = 7\n");
    write("etc/plugins/emqx_auth_username.conf", "auth.user.1.username = alice\nauth.user.1.password = secret\n");
    write("etc/plugins/emqx_auth_mysql.conf", "auth.mysql.server = 127.0.0.1:3306\n");
    write("etc/plugins/emqx_retainer.conf", "retainer.max_payload_size = 64KB\n");
    let sources = Sources { file: Some(root.join("etc/emqx.conf")), ..Sources::default() };
    let shown = |text: String| text.replace(&root.display().to_string(), "ROOT");
    // Without a list those are loaded that EMQ X loads.
    insta::assert_snapshot!(shown(load(&sources).unwrap_err().to_string()));
    write("data/loaded_plugins", "emqx_retainer.\nemqx_stomp.\nemqx_auth_username.\n");
    let loaded = load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.config.access.users.len(), 1);
    assert_eq!(loaded.config.access.acl_file.as_deref(), Some(root.join("etc/acl.conf").as_path()));
    assert_eq!((loaded.config.retained.max_payload_size, loaded.config.zones["external"].max_inflight), (64 << 10, 7));
    insta::assert_snapshot!(shown(crate::check::missing(&loaded).join("\n")));
    let environment = vec![("EMQX_LOADED_PLUGINS".to_owned(), "emqx_retainer,emqx_auth_mysql".to_owned())];
    insta::assert_snapshot!(load(&Sources { environment, ..sources.clone() }).unwrap_err().to_string());
    write("etc/more.conf", "include emqx.conf\nzone.external.max_inflight = 7\n");
    assert!(load(&sources).unwrap_err().to_string().contains("files include each other"));
    write("etc/more.conf", "include no.conf");
    insta::assert_snapshot!(shown(load(&sources).unwrap_err().to_string()));
}

/// Lines for every path of every row, with values that the key takes, and some that it does not.
fn every_line() -> Vec<String> {
    let sample = |path: &str, absent: &str| -> Vec<String> {
        let of_ours = |key: &str| match known::find(key) {
            Some(known::Found::Root(_, key)) => Some(key.default),
            Some(known::Found::Zone(_, key)) => Some(key.default),
            Some(known::Found::Listener(_, _, _, key)) => Some(key.default),
            None => None,
        };
        let ours = of_ours(&known::canonical(path)).unwrap_or_default();
        let mut values: BTreeSet<&str> =
            [absent, ours, "0", "1", "on", "64KB"].into_iter().filter(|v| !v.is_empty()).collect();
        if path.ends_with("access.1") {
            values = BTreeSet::from(["allow all", "deny 10.0.0.0/8"]);
        }
        values.into_iter().map(str::to_owned).collect()
    };
    let mut all = BTreeSet::new();
    for row in table::rows() {
        for path in table::paths(row, "") {
            let path = path.replace("$name", "external").replace("$number", "1").replace("$level", "debug");
            let path = if row.key.ends_with('*') { format!("{path}.x") } else { path };
            all.extend(sample(&path, row.absent).into_iter().map(|value| format!("{path} = {value}")));
        }
    }
    all.into_iter().collect()
}

#[test]
fn the_file_of_the_plugin_for_mqtt_sn() {
    let text = "allow_anonymous = true\nacl_nomatch = deny\nlistener.tcp.external = 1883\nmqtt.sn.port = 1884\nmqtt.sn.advertise_duration = 15m\n\
                mqtt.sn.gateway_id = 1\nmqtt.sn.enable_stats = off\nmqtt.sn.enable_qos3 = on\nmqtt.sn.idle_timeout = 30s\n\
                mqtt.sn.predefined.topic.0 = reserved\nmqtt.sn.predefined.topic.1 = /predefined/topic/name/hello\n\
                mqtt.sn.username = mqtt_sn_user\nmqtt.sn.password = abc\n";
    let Loaded { config, differences, .. } = flat(text).unwrap();
    assert_eq!(differences, []);
    let listener = &config.listeners[1];
    assert_eq!((listener.path().as_str(), listener.bind.port()), ("listener.sn.external", 1884));
    assert_eq!(config.sn.enable_qos3, crate::config::Qos3::On);
    assert_eq!(config.sn.predefined.into_iter().collect::<Vec<_>>(), [(1, "/predefined/topic/name/hello".to_owned())]);
    assert_eq!(config.sn.password.unwrap().reveal(), "abc");
}

/// What the page says of each row is what comes of it.
#[test]
fn each_row_does_what_it_says() {
    use super::table::Does;
    for row in table::rows() {
        for path in table::paths(row, "") {
            let path = path.replace("$name", "external").replace("$number", "1").replace("$level", "debug");
            let path = if row.key.ends_with('*') { format!("{path}.x") } else { path };
            let text = format!("allow_anonymous = true\nacl_nomatch = deny\n{path} = some-value\n");
            let read = flat(&text);
            let tells = |kind: Effect| {
                let differences = &read.as_ref().unwrap_or_else(|problems| panic!("{problems}")).differences;
                match row.is_quiet("some-value") {
                    true => assert_eq!(differences, &[], "{path}"),
                    false => assert_eq!((&differences[0].key, differences[0].kind), (&path, kind)),
                }
            };
            match row.does {
                Does::NoEffect => tells(Effect::NoEffect),
                Does::NotYet => tells(Effect::NotYet),
                Does::Refused => {
                    let told = format!("emqx.conf:3: {path}: {}", row.why);
                    assert!(read.unwrap_err().to_string().contains(&told), "{path}");
                }
                Does::NodeWide(other) => {
                    let told = format!("emqx.conf:3: {path}: {}; set `{other}`", row.why);
                    assert!(known::find(other).is_some() && read.unwrap_err().to_string().contains(&told), "{path}");
                }
                Does::Same | Does::By(_) => assert!(known::find(&path).is_some(), "{path}"),
                Does::As(other) => assert!(known::find(&super::named(other, &path)).is_some(), "{path}"),
                Does::Together => {}
            }
        }
    }
}

/// What the page says of each plugin is what comes of it.
#[test]
fn each_plugin_is_what_it_says() {
    use super::plugins::{Is, PLUGINS};
    let scratch = crate::data::tests::Scratch::new("plugins");
    std::fs::create_dir_all(&scratch.0).unwrap();
    std::fs::write(scratch.0.join("emqx.conf"), "allow_anonymous = true\n").unwrap();
    for plugin in PLUGINS {
        let environment = vec![("EMQX_LOADED_PLUGINS".to_owned(), plugin.name.to_owned())];
        let read = load(&Sources { file: Some(scratch.0.join("emqx.conf")), environment, ..Sources::default() });
        let told = match &read {
            Ok(loaded) => loaded.differences.iter().map(|of| (of.key.as_str(), of.kind, of.why.as_str())).collect(),
            Err(problems) => {
                assert!(problems.to_string().contains(&format!("EMQX_LOADED_PLUGINS: {}: ", plugin.name)));
                Vec::new()
            }
        };
        let missing = [(plugin.name, Effect::NotYet, plugin.why)];
        match plugin.is {
            Is::BuiltIn | Is::Needless => assert!(read.is_ok() && told.is_empty(), "{}", plugin.name),
            Is::Missing => assert_eq!(told, missing),
            Is::Guard => assert!(read.is_err(), "{}", plugin.name),
        }
    }
}

const BASE: &str = "allow_anonymous = true\nlistener.tcp.external = 1883\nlistener.ssl.external = 8883\n\
                    listener.ws.external = 8083\nlistener.wss.external = 8084\n";

/// Those of them that are right alone.
fn good_lines() -> Vec<String> {
    every_line().into_iter().filter(|line| flat(&format!("{line}\n{BASE}")).is_ok()).collect()
}

#[test]
fn what_is_imported_says_the_same() {
    let import = import_text("emqx.conf", SAMPLE).unwrap();
    insta::assert_snapshot!(import.toml);
    let again =
        load_text("newtmq.toml", &import.toml, &Sources::default()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(again.config, flat(SAMPLE).unwrap().config);
    assert!(again.differences.is_empty());
    let secret = import_text("emqx.conf", "allow_anonymous = true\nnode.cookie = \"s3\\cr3t").unwrap();
    assert!(secret.has_secrets && secret.toml.contains(r#"node.cookie = "\"s3\\cr3t""#), "{}", secret.toml);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_lines_are_imported_as_they_are_read(lines in subsequence(good_lines(), 1..60)) {
        let text = format!("{}\n{BASE}", lines.join("\n"));
        match (flat(&text), import_text("emqx.conf", &text)) {
            (Ok(read), Ok(import)) => {
                let again = load_text("newtmq.toml", &import.toml, &Sources::default());
                let again = again.map_err(|problems| TestCaseError::fail(format!("{problems}\n{}", import.toml)))?;
                prop_assert_eq!(again.config, read.config);
            }
            (Err(one), Err(other)) => prop_assert_eq!(one, other),
            (one, other) => prop_assert!(false, "{one:?} {other:?}"),
        }
    }

    #[test]
    fn no_text_panics_and_every_mistake_has_a_place(
        lines in proptest::collection::vec(prop_oneof![
            proptest::sample::select(every_line()),
            "[a-z.]{1,12} ?= ?.{0,12}",
            ".{0,20}",
        ], 0..30),
    ) {
        let text = lines.join("\n");
        if let Err(Problems(problems)) = flat(&text) {
            for problem in problems {
                // What is between keys, such as a listener without an address, may be about no line at all.
                match problem.origin {
                    Some(Origin::Line(_, line)) => prop_assert!((1..=lines.len()).contains(&line), "{line}"),
                    _ => prop_assert!(problem.fault.key().is_some(), "{problem}"),
                }
            }
        }
    }
}
