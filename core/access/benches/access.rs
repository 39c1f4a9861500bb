//! What a decision costs: 100 rules of which none fits, an answer out of the cache, and one password.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use newtmq_access::{Acl, AclCache, AclCacheLimits, Action, HashParams, Permission, Verifier, Who};
use newtmq_base::Instant;

const TOPIC: &str = "site/7/line/3/sensor/temperature";

fn acl(criterion: &mut Criterion) {
    let who = Who { client: "c", username: Some("u"), ip: [192, 0, 2, 7].into() };
    let rules = |rule: &dyn Fn(usize) -> String| {
        Acl::parse(&(0..100).map(rule).collect::<String>()).expect("the rules are right")
    };
    let by_user = rules(&|n| format!("{{allow, {{user, \"user{n}\"}}, pubsub, [\"site/#\"]}}."));
    let by_topic = rules(&|n| format!("{{allow, all, publish, [\"plant/{n}/#\"]}}."));
    // The worst: every rule is for this client, and its filter differs in the last level only.
    let by_level = rules(&|n| format!("{{allow, all, publish, [\"site/+/line/+/sensor/x{n}\"]}}."));
    for (name, acl) in [("by_user", by_user), ("by_topic", by_topic), ("by_level", by_level)] {
        assert_eq!(acl.check(&who, Action::Publish, TOPIC), None);
        criterion.bench_function(&format!("acl/100_rules/{name}"), |bencher| {
            bencher.iter(|| acl.check(black_box(&who), Action::Publish, black_box(TOPIC)));
        });
    }
    let mut cache = AclCache::default();
    let limits = AclCacheLimits::default();
    for n in 0..limits.max_size {
        let topic = format!("{TOPIC}/{n:02}");
        cache.put(Instant::START, 1, &limits, (Action::Publish, &topic, Permission::Allow));
    }
    let last = format!("{TOPIC}/{:02}", limits.max_size - 1);
    criterion.bench_function("acl/cache_of_32/last", |bencher| {
        bencher.iter(|| cache.get(Instant::START, 1, Action::Publish, black_box(&last)));
    });
}

fn password(criterion: &mut Criterion) {
    let mut verifier = Verifier::default();
    let hash = verifier.hash(b"correct horse", [7; 16], HashParams::default()).expect("the defaults are right");
    let mut group = criterion.benchmark_group("password");
    group.sample_size(20);
    group.bench_function("verify", |bencher| bencher.iter(|| verifier.verify(black_box(b"correct horse"), &hash)));
    group.finish();
}

criterion_group!(benches, acl, password);
criterion_main!(benches);
