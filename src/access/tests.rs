#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use newtmq_access::{HashParams, SCRAM_ITERATIONS, ScramKeys, ThrottleLimits, User};
use newtmq_base::ConnId;

use super::*;

const CHEAP: HashParams = HashParams { memory_kib: 64, passes: 1, lanes: 1 };

fn users() -> Users {
    let password = Verifier::default().hash(b"secret", [7; 16], CHEAP).unwrap();
    let user = User { password: Some(password), scram: ScramKeys::derive("secret", &[8; 16], SCRAM_ITERATIONS) };
    let (text, _) = Users::edited("", "alice", Some(&user), [1; 32]).unwrap();
    Users::parse(&text, [1; 32]).unwrap()
}

fn shared(allow_anonymous: bool) -> Shared {
    let limits = ThrottleLimits { user_failures: 3, ..ThrottleLimits::default() };
    Shared {
        allow_anonymous: allow_anonymous.into(),
        clock: Clock::start(),
        patience: Duration::from_secs(3600),
        users: RwLock::new(Some(Arc::new(users()))),
        jwt: RwLock::new(None),
        http: None,
        records: None,
        throttle: Mutex::new(Throttle::new(limits)),
        exchanges: Mutex::default(),
        accepted: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        throttled: AtomicU64::new(0),
        busy: AtomicU64::new(0),
        warned: AtomicU64::new(0),
    }
}

fn records() -> Records {
    Records::new(Clock::start(), &std::collections::BTreeMap::new())
}

fn question(username: Option<&str>, password: Option<&str>, method: Option<&str>, data: &[u8]) -> Question {
    Question::Authenticate {
        conn: ConnId { slot: 1, generation: 1 },
        peer: SocketAddr::from(([192, 0, 2, 1], 1)),
        client: "c".into(),
        username: username.map(Into::into),
        password: password.map(|password| password.as_bytes().into()),
        method: method.map(Into::into),
        data: (!data.is_empty()).then(|| data.into()),
        will: None,
    }
}

/// The verdict, wherever it is made.
fn decide(shared: &Shared, question: Question) -> Verdict {
    decide_with(&mut Verifier::default(), shared, question)
}

fn decide_with(verifier: &mut Verifier, shared: &Shared, question: Question) -> Verdict {
    shared.decide_at_once(&question).unwrap_or_else(|| {
        let (asked, _driver) = Asked::alone(question);
        match shared.decide(verifier, &asked) {
            Decided::Here(verdict) => verdict,
            Decided::Elsewhere => panic!("there is no service"),
        }
    })
}

const ALLOW: Verdict = Verdict::Allow { data: None };
const WRONG: Verdict = Verdict::Deny(ReasonCode::BadUserNameOrPassword);

#[test]
fn who_may_connect() {
    for (anonymous, username, password, verdict) in [
        (true, None, None, ALLOW),
        (true, None, Some("x"), ALLOW),
        (false, None, None, Verdict::Deny(ReasonCode::NotAuthorized)),
        (false, None, Some("secret"), Verdict::Deny(ReasonCode::NotAuthorized)),
        (false, Some("alice"), Some("secret"), ALLOW),
        (true, Some("alice"), Some("secret"), ALLOW),
        (true, Some("alice"), Some("Secret"), WRONG),
        (true, Some("alice"), None, WRONG),
        (true, Some("bob"), Some("secret"), WRONG),
        (true, Some(""), Some(""), WRONG),
    ] {
        let shared = shared(anonymous);
        let got = decide(&shared, question(username, password, None, b""));
        assert_eq!(got, verdict, "{anonymous} {username:?} {password:?}");
    }
}

fn cheap(password: &str) -> String {
    let password = Some(Verifier::default().hash(password.as_bytes(), [7; 16], CHEAP).unwrap());
    User { password, scram: None }.to_string()
}

#[test]
fn who_may_connect_with_a_table() {
    use newtmq_cluster::meta::BlobKind;
    let records = records();
    for (key, password) in [("username:bob", "BOB"), ("clientid:c", "CLIENT"), ("username:alice", "TABLE")] {
        records.changed(BlobKind::User, key, Some(cheap(password).as_bytes()));
    }
    let of = |client: &str, question: Question| match question {
        Question::Authenticate { conn, peer, username, password, method, data, will, .. } => {
            Question::Authenticate { conn, peer, client: client.into(), username, password, method, data, will }
        }
        other => other,
    };
    for (anonymous, client, username, password, verdict) in [
        (false, "d", Some("bob"), Some("BOB"), ALLOW),
        (false, "d", Some("bob"), Some("bob"), WRONG),
        (false, "d", Some("alice"), Some("secret"), ALLOW),
        (false, "d", Some("alice"), Some("TABLE"), WRONG),
        (false, "d", Some("eve"), Some("BOB"), WRONG),
        (false, "d", None, Some("BOB"), Verdict::Deny(ReasonCode::NotAuthorized)),
        (false, "c", None, Some("CLIENT"), ALLOW),
        (false, "c", Some("c"), Some("CLIENT"), ALLOW),
        // Also where anybody may come: this identifier is somebody's.
        (true, "c", None, None, WRONG),
        (true, "c", None, Some("CLIENT"), ALLOW),
        (true, "c", Some("bob"), Some("BOB"), WRONG),
        (true, "c", Some("alice"), Some("secret"), WRONG),
        (true, "d", None, None, ALLOW),
    ] {
        let shared = Shared { records: Some(records.clone()), ..shared(anonymous) };
        let got = decide(&shared, of(client, question(username, password, None, b"")));
        assert_eq!(got, verdict, "{anonymous} {client} {username:?} {password:?}");
    }
    // Nor by SCRAM, whose user is right.
    let shared = Shared { records: Some(records.clone()), ..shared(true) };
    let first = question(Some("alice"), None, Some(SCRAM_METHOD), b"n,,n=alice,r=nonce");
    assert!(matches!(decide(&shared, of("d", first.clone())), Verdict::Continue(_)));
    assert_eq!(decide(&shared, of("c", first)), WRONG);
    records.changed(BlobKind::User, "username:bob", None);
    assert_eq!(decide(&shared, of("d", question(Some("bob"), Some("BOB"), None, b""))), WRONG);
}

/// Counted and not timed: each password that is looked at costs one hash, and no other question a hash at all.
/// The time of a login tells nobody which names there are.
#[test]
fn every_password_that_is_looked_at_is_the_same_work() {
    use newtmq_cluster::meta::BlobKind;
    let records = records();
    for (key, password) in [("username:bob", "BOB"), ("clientid:c", "CLIENT")] {
        records.changed(BlobKind::User, key, Some(cheap(password).as_bytes()));
    }
    let with_table = Shared { records: Some(records), ..shared(false) };
    // Whoever waits is not looked at, known or not.
    let patient = || {
        Mutex::new(Throttle::new(ThrottleLimits { user_failures: 0, address_failures: 0, ..ThrottleLimits::default() }))
    };
    for shared in [Shared { throttle: patient(), ..shared(false) }, Shared { throttle: patient(), ..with_table }] {
        for name in ["alice", "bob", "c", "eve", "", "x".repeat(1000).as_str()] {
            for password in [Some("secret"), Some("BOB"), Some("CLIENT"), Some("wrong"), Some(""), None] {
                let mut verifier = Verifier::default();
                let _ = decide_with(&mut verifier, &shared, question(Some(name), password, None, b""));
                assert_eq!(verifier.work(), 64, "{name} {password:?}");
            }
        }
    }
}

#[test]
fn failures_with_a_client_identifier_are_counted() {
    use newtmq_cluster::meta::BlobKind;
    let records = records();
    records.changed(BlobKind::User, "clientid:c", Some(cheap("CLIENT").as_bytes()));
    let shared = Shared { records: Some(records), ..shared(true) };
    for _ in 0..3 {
        assert_eq!(decide(&shared, question(None, Some("x"), None, b"")), WRONG);
    }
    let waits = Verdict::Deny(ReasonCode::ConnectionRateExceeded);
    assert_eq!(decide(&shared, question(None, Some("CLIENT"), None, b"")), waits);
}

#[test]
fn after_some_failures_nobody_is_looked_at() {
    let shared = shared(true);
    let login = |password| decide(&shared, question(Some("alice"), Some(password), None, b""));
    let wait = Verdict::Deny(ReasonCode::ConnectionRateExceeded);
    assert_eq!([(); 3].map(|()| login("wrong")), [WRONG, WRONG, WRONG]);
    assert_eq!([login("wrong"), login("secret")], [wait.clone(), wait]);
    // Others may try.
    assert_eq!(decide(&shared, question(Some("bob"), Some("x"), None, b"")), WRONG);
    let counted = [&shared.accepted, &shared.failed, &shared.throttled].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counted, [0, 4, 2]);
}

#[test]
fn exchanges_that_are_refused() {
    let method = Some(SCRAM_METHOD);
    for (username, first, verdict) in [
        (None, "n,,n=alice,r=x", WRONG),
        (Some("bob"), "n,,n=alice,r=x", WRONG),
        (Some("alice"), "", WRONG),
        (Some("alice"), "p=tls-unique,,n=alice,r=x", WRONG),
    ] {
        assert_eq!(decide(&shared(true), question(username, None, method, first.as_bytes())), verdict, "{first}");
    }
    let other = decide(&shared(true), question(None, None, Some("PLAIN"), b"x"));
    assert_eq!(other, Verdict::Deny(ReasonCode::BadAuthenticationMethod));
    // Somebody and nobody get as far; the proof decides.
    for username in ["alice", "nobody"] {
        let shared = shared(true);
        let step = |data: &[u8]| decide(&shared, question(Some(username), None, method, data));
        let Verdict::Continue(challenge) = step(format!("n,,n={username},r=x").as_bytes()) else { panic!() };
        let nonce = String::from_utf8_lossy(&challenge).split(',').next().unwrap().to_owned();
        let proof = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        assert_eq!(step(format!("c=biws,{nonce},p={proof}").as_bytes()), WRONG);
        assert_eq!(shared.failed.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn exchanges_that_began_before_others_failed_wait_as_well() {
    let shared = shared(true);
    let step = |slot: u32, data: &[u8]| {
        let mut question = question(Some("alice"), None, Some(SCRAM_METHOD), data);
        let Question::Authenticate { conn, .. } = &mut question else { panic!() };
        conn.slot = slot;
        decide(&shared, question)
    };
    let started: Vec<_> = (0..5).map(|slot| (slot, step(slot, b"n,,n=alice,r=x"))).collect();
    let guesses = started.into_iter().map(|(slot, verdict)| {
        let Verdict::Continue(challenge) = verdict else { panic!() };
        let nonce = String::from_utf8_lossy(&challenge).split(',').next().unwrap().to_owned();
        step(slot, format!("c=biws,{nonce},p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").as_bytes())
    });
    let wait = Verdict::Deny(ReasonCode::ConnectionRateExceeded);
    assert_eq!(guesses.collect::<Vec<_>>(), [WRONG, WRONG, WRONG, wait.clone(), wait]);
}

#[test]
fn a_full_queue_refuses_and_does_not_wait() {
    let shared = Arc::new(shared(true));
    let decider = start(&shared).unwrap();
    // No thread gets further than this.
    let stopped = shared.throttle.lock().unwrap();
    let mut answers: Vec<_> = (0..QUEUE_MAX + THREADS_MAX + 2)
        .map(|_| {
            let (asked, verdicts) = Asked::alone(question(Some("alice"), Some("secret"), None, b""));
            decider.ask(asked);
            verdicts
        })
        .collect();
    let refused = answers.iter_mut().filter_map(|verdicts| verdicts.try_recv().ok()).map(|(_, verdict)| verdict);
    let refused: Vec<_> = refused.collect();
    assert!((2..=THREADS_MAX + 2).contains(&refused.len()), "{}", refused.len());
    assert!(refused.iter().all(|verdict| *verdict == Verdict::Deny(ReasonCode::ServerBusy)));
    assert_eq!(shared.busy.load(Ordering::Relaxed), refused.len() as u64);
    drop(stopped);
    // The others are answered, and the threads go when nobody can ask any more.
    let allowed = answers.iter_mut().filter_map(|verdicts| verdicts.blocking_recv()).map(|(_, verdict)| verdict);
    assert_eq!(allowed.filter(|verdict| *verdict == ALLOW).count(), answers.len() - refused.len());
}

#[test]
fn who_waits_no_longer_is_not_looked_at() {
    let shared = Arc::new(Shared { patience: Duration::ZERO, ..shared(true) });
    let (asked, mut verdicts) = Asked::alone(question(Some("alice"), Some("secret"), None, b""));
    start(&shared).unwrap().ask(asked);
    let (_, verdict) = verdicts.blocking_recv().unwrap();
    assert_eq!(verdict, Verdict::Deny(ReasonCode::ServerBusy));
    let counted = [&shared.accepted, &shared.failed, &shared.busy].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counted, [0, 0, 1]);
}

fn reload(access: &Access) -> Result<AccessConfig, FileError> {
    let config = access.config.read().unwrap().clone();
    access.prepare(&config).map(Ready::commit)
}

#[test]
fn a_broken_file_changes_nothing() {
    let dir = std::env::temp_dir().join(format!("newtmq-access-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("acl.conf");
    std::fs::write(&file, "{allow, all}.").unwrap();
    let config = Config { acl_file: Some(file.clone()), ..crate::config::Config::default().access };
    let access = Access::open(&config, Clock::start(), Duration::ZERO, &records()).unwrap();
    assert_eq!(access.hooks(), HookSet::default(), "nobody is asked without a password file");
    assert_eq!(access.rules().acl.map(|acl| acl.len()), Some(1));
    std::fs::write(&file, "{allow, all}. {deny, al}.").unwrap();
    assert_eq!(
        reload(&access).unwrap_err().to_string(),
        format!(
            "{}:1:22: whom the rule is about is all or a pair such as {{user, \"name\"}}, not `al`",
            file.display()
        )
    );
    std::fs::write(&file, b"{allow, all}.\n\xFF").unwrap();
    assert_eq!(reload(&access).unwrap_err().to_string(), format!("{}:2: not UTF-8", file.display()));
    std::fs::write(&file, "").unwrap();
    assert_eq!(reload(&access).unwrap().acl.map(|acl| acl.len()), Some(0));
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(reload(&access).unwrap_err().to_string().contains("No such file"));
}
