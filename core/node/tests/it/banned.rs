//! Who is banned is refused at CONNECT; who connects too often is told of.

use core::time::Duration;

use newtmq_access::{BanKind, FlappingLimits};
use newtmq_base::Instant;
use newtmq_mqtt::ReasonCode;
use newtmq_node::{Hook, HookSet, ShardConfig, Verdict};

use crate::harness::{Connect, check, check_with};

#[test]
fn who_is_banned_is_refused() {
    check(|net| {
        let end = net.now() + Duration::from_secs(10);
        net.set_bans(&[(BanKind::ClientId, "c", end), (BanKind::Username, "eve", Instant::NEVER)]);
        for (connect, reason) in [
            (Connect::v5("c"), ReasonCode::Banned),
            (Connect::v5("d").user("eve", "p"), ReasonCode::Banned),
            // CONNACK has no other code for it (MQTT 3.1.1, section 3.2.2.3).
            (Connect::v311("c"), ReasonCode::NotAuthorized),
        ] {
            assert_eq!(net.refused(connect), reason);
        }
        net.connect(Connect::v5("eve").user("c", "p"));
        net.advance_secs(10);
        net.connect(Connect::v5("c"));
        net.set_bans(&[(BanKind::Address, "192.0.2.0/24", Instant::NEVER)]);
        assert_eq!(net.refused(Connect::v5("anybody")), ReasonCode::Banned);
        // Also who has no Client Identifier so far.
        assert_eq!(net.refused(Connect::v5("")), ReasonCode::Banned);
        net.set_bans(&[]);
        net.connect(Connect::v5("anybody"));
    });
}

/// Nobody's password is looked at in vain, and who was banned while his was does not slip through.
#[test]
fn bans_come_before_and_after_authentication() {
    let configure = |config: &mut ShardConfig| config.hooks = HookSet::default().with(Hook::ClientAuthenticate);
    check_with(configure, |net| {
        net.set_bans(&[(BanKind::ClientId, "c", Instant::NEVER)]);
        net.decide(|_| Verdict::Allow { data: None });
        assert_eq!(net.refused(Connect::v5("c").user("u", "p")), ReasonCode::Banned);
        assert!(net.questions.is_empty());
        net.connect(Connect::v5("d").user("u", "p"));
        assert_eq!(net.questions.len(), 1);
    });
}

#[test]
fn a_zone_may_do_without_bans() {
    check_with(
        |config| config.zones[0].bypass_bans = true,
        |net| {
            net.set_bans(&[(BanKind::ClientId, "c", Instant::NEVER)]);
            net.connect(Connect::v5("c"));
        },
    );
}

#[test]
fn who_connects_too_often_is_told_of() {
    let limits = FlappingLimits { count: 3, window: Duration::from_secs(60) };
    check_with(
        move |config| config.zones[0].flapping = Some(limits),
        |net| {
            for _ in 0..3 {
                net.connect(Connect::v5("c"));
            }
            assert!(net.flaps.is_empty());
            // One that takes over its own session again and again is one, too.
            net.connect(Connect::v5("c"));
            assert_eq!(net.flaps, ["c".into()]);
            net.connect(Connect::v5("d"));
            net.advance_secs(60);
            for _ in 0..3 {
                net.connect(Connect::v5("d"));
            }
            assert_eq!(net.flaps.len(), 1);
        },
    );
}
