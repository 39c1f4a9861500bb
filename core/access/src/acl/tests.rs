use proptest::prelude::*;

use super::*;

/// The file that EMQ X ships, and the one of the notes that this project grew from.
const SHIPPED: &str = r##"
%%--------------------------------------------------------------------
%% [ACL](https://docs.emqx.io) {deny, all}.
%%--------------------------------------------------------------------

{allow, {user, "dashboard"}, subscribe, ["$SYS/#"]}.

{allow, {ipaddr, "127.0.0.1"}, pubsub, ["$SYS/#", "#"]}.

{deny, all, subscribe, ["$SYS/#", {eq, "#"}]}.

{allow, all}.
"##;

fn who<'a>(client: &'a str, username: Option<&'a str>, ip: &str) -> Who<'a> {
    Who { client, username, ip: ip.parse().unwrap() }
}

fn anybody() -> Who<'static> {
    who("c", Some("u"), "192.0.2.7")
}

fn check(text: &str, who: &Who<'_>, action: Action, topic: &str) -> Option<Permission> {
    Acl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).check(who, action, topic)
}

use Action::{Publish, Subscribe};
use Permission::{Allow, Deny};

#[test]
fn the_shipped_file_with_and_without_final_dots() {
    let with = Acl::parse(SHIPPED).unwrap();
    let without = Acl::parse(&SHIPPED.replace("}.\n", "}\n")).unwrap();
    assert_eq!(with, without);
    let last = Acl::parse(SHIPPED.trim_end().trim_end_matches('.')).unwrap();
    assert_eq!(with, last);
    assert_eq!(with.len(), 4);
    let dashboard = who("c", Some("dashboard"), "192.0.2.7");
    let local = who("c", None, "127.0.0.1");
    for (who, action, topic, permission) in [
        (dashboard, Subscribe, "$SYS/#", Allow),
        (dashboard, Subscribe, "$SYS/brokers", Allow),
        (dashboard, Subscribe, "#", Deny),
        (dashboard, Subscribe, "a/#", Allow),
        (local, Subscribe, "$SYS/#", Allow),
        (local, Subscribe, "#", Allow),
        (local, Publish, "$SYS/x", Allow),
        (anybody(), Subscribe, "$SYS/brokers", Deny),
        (anybody(), Subscribe, "$SYS", Deny),
        (anybody(), Subscribe, "#", Deny),
        (anybody(), Subscribe, "+/#", Allow),
        (anybody(), Publish, "$SYS/x", Allow),
        (anybody(), Publish, "t", Allow),
    ] {
        assert_eq!(with.check(&who, action, topic), Some(permission), "{who:?} {action:?} {topic}");
    }
}

/// Each of the three samples alone, with its dot and without.
#[test]
fn the_samples_of_the_notes() {
    for sample in [
        r##"{allow, {user, "dashboard"}, subscribe, ["$SYS/#"]}"##,
        r##"{allow, {ipaddr, "127.0.0.1"}, pubsub, ["$SYS/#", "#"]}"##,
        r##"{deny, all, subscribe, ["$SYS/#", {eq, "#"}]}"##,
    ] {
        let acl = Acl::parse(sample).unwrap();
        assert_eq!(acl.len(), 1);
        for end in [".", ".\n", " .", "\n.\n% end", ". {allow, all}", "{allow, all}."] {
            let longer = Acl::parse(&format!("{sample}{end}")).unwrap();
            assert_eq!(longer.rules[0], acl.rules[0], "{sample}{end}");
        }
    }
}

#[test]
fn an_empty_file_decides_nothing() {
    for text in ["", "\n", "%% nothing", "\u{feff}"] {
        assert!(Acl::parse(text).unwrap().is_empty());
        assert_eq!(check(text, &anybody(), Publish, "t"), None);
    }
}

#[test]
fn whom_a_rule_is_about() {
    let them = [
        who("c", Some("u"), "192.0.2.7"),
        who("c", None, "192.0.2.8"),
        who("d", Some("u"), "10.1.2.3"),
        who("d", Some("v"), "2001:db8::1"),
    ];
    for (subject, fits) in [
        ("all", [true; 4]),
        ("{user, all}", [true; 4]),
        ("{client, all}", [true; 4]),
        (r##"{user, "u"}"##, [true, false, true, false]),
        (r##"{user, <<"u">>}"##, [true, false, true, false]),
        (r##"{client, <<"c"/utf8>>}"##, [true, true, false, false]),
        (r##"{ipaddr, "192.0.2.7"}"##, [true, false, false, false]),
        (r##"{ipaddr, "192.0.2.0/24"}"##, [true, true, false, false]),
        (r##"{ipaddr, "192.0.2.77/24"}"##, [true, true, false, false]),
        (r##"{ipaddr, "0.0.0.0/0"}"##, [true, true, true, false]),
        (r##"{ipaddr, "::/0"}"##, [false, false, false, true]),
        (r##"{ipaddr, "2001:db8::/32"}"##, [false, false, false, true]),
        (r##"{ipaddr, "2001:db8::1"}"##, [false, false, false, true]),
        (r##"{'and', [{user, "u"}, {ipaddr, "10.0.0.0/8"}]}"##, [false, false, true, false]),
        (r##"{'or', [{user, "v"}, {client, "c"}]}"##, [true, true, false, true]),
        (r##"{'and', [{user, "u"}, {'or', [{client, "c"}, {client, "x"}]}]}"##, [true, false, false, false]),
        ("{'and', []}", [true; 4]),
        ("{'or', []}", [false; 4]),
    ] {
        let text = format!("{{deny, {subject}, pubsub, [\"#\"]}}.");
        let got = them.map(|who| check(&text, &who, Publish, "t").is_some());
        assert_eq!(got, fits, "{subject}");
    }
}

#[test]
fn addresses_of_ipv4_in_ipv6_are_those_of_ipv4() {
    let mapped = who("c", None, "::ffff:192.0.2.7");
    let text = r##"{allow, {ipaddr, "192.0.2.0/24"}, pubsub, ["t"]}."##;
    assert_eq!(check(text, &mapped, Publish, "t"), Some(Allow));
}

#[test]
fn what_a_rule_is_about() {
    for (access, publish, subscribe) in [("publish", true, false), ("subscribe", false, true), ("pubsub", true, true)] {
        let text = format!("{{allow, all, {access}, \"t\"}}.");
        assert_eq!(check(&text, &anybody(), Publish, "t").is_some(), publish);
        assert_eq!(check(&text, &anybody(), Subscribe, "t").is_some(), subscribe);
    }
}

#[test]
fn topics() {
    for (topics, topic, fits) in [
        (r##"[]"##, "t", false),
        (r##"["a", "b"]"##, "b", true),
        (r##"["a/b"]"##, "a/b", true),
        (r##"["a/b"]"##, "a/b/c", false),
        (r##"["a/b"]"##, "a", false),
        (r##"["a/+"]"##, "a/b", true),
        (r##"["a/+"]"##, "a/", true),
        (r##"["a/+"]"##, "a", false),
        (r##"["a/+"]"##, "a/b/c", false),
        (r##"["a/+/c"]"##, "a/b/c", true),
        (r##"["a/+/c"]"##, "a/b/d", false),
        (r##"["+/b"]"##, "a/b", true),
        (r##"["+/b"]"##, "/b", true),
        (r##"["a/#"]"##, "a", true),
        (r##"["a/#"]"##, "a/", true),
        (r##"["a/#"]"##, "a/b/c", true),
        (r##"["a/#"]"##, "ab", false),
        (r##"["a/b/#"]"##, "a/b", true),
        (r##"["a/+/#"]"##, "a/b", true),
        (r##"["a/+/#"]"##, "a", false),
        (r##"["#"]"##, "a/b", true),
        (r##"[{eq, "#"}]"##, "a", false),
        (r##"[{eq, "a/+"}]"##, "a/b", false),
        (r##"[{eq, "a/b"}]"##, "a/b", true),
        (r##"["a/%u"]"##, "a/u", true),
        (r##"["a/%u/x"]"##, "a/u/x", true),
        (r##"["a/%u"]"##, "a/%u", false),
        (r##"["%c/+"]"##, "c/x", true),
        (r##"["%c/#"]"##, "c", true),
        (r##"["%c/#"]"##, "d/x", false),
        (r##"[{eq, "a/%u"}]"##, "a/u", false),
        (r##"[{eq, "a/%u"}]"##, "a/%u", true),
        (r##"["$SYS/#"]"##, "$SYS/x", true),
        (r##"["$SYS/+"]"##, "$SYS/x", true),
    ] {
        for word in ["allow", "deny"] {
            let text = format!("{{{word}, all, publish, {topics}}}.");
            assert_eq!(check(&text, &anybody(), Publish, topic).is_some(), fits, "{text} {topic}");
        }
    }
}

/// A filter is compared level by level. The last two columns: whether it fits in an `allow` and in a `deny` rule.
#[test]
fn filters() {
    for (rule, filter, allow, deny) in [
        ("a/b", "a/b", true, true),
        ("a/b", "a/+", false, false),
        ("a/+", "a/+", true, true),
        ("a/#", "a/+", true, true),
        ("a/#", "a/#", true, true),
        ("a/#", "#", false, false),
        ("#", "#", true, true),
        ("#", "+", true, true),
        ("+", "+", true, true),
        // It would reach deeper than the rule.
        ("a/+", "a/#", false, true),
        ("+", "#", false, true),
        ("+/b", "#", false, false),
        // Topics that begin with `$`.
        ("#", "$SYS/#", false, true),
        ("+/x", "$SYS/x", false, true),
        ("$SYS/#", "$SYS/#", true, true),
    ] {
        for (word, fits) in [("allow", allow), ("deny", deny)] {
            let text = format!("{{{word}, all, subscribe, [\"{rule}\"]}}.");
            assert_eq!(check(&text, &anybody(), Subscribe, filter).is_some(), fits, "{text} {filter}");
        }
    }
}

#[test]
fn names_give_no_wildcards_and_no_levels() {
    let text = r##"{allow, all, pubsub, ["user/%u/#", "client/%c"]}."##;
    for (name, topic, fits) in [
        ("+", "user/+/#", false),
        ("#", "user/#", false),
        ("+", "client/+", false),
        ("#", "client/#", false),
        ("a/b", "user/a/b", false),
        ("a", "user/a/b", true),
        ("a", "user/b/b", false),
        ("", "user//b", true),
    ] {
        let who = who(name, Some(name), "192.0.2.7");
        assert_eq!(check(text, &who, Subscribe, topic).is_some(), fits, "{name} {topic}");
    }
    // Without a user name the placeholder is a word.
    let nobody = who("c", None, "192.0.2.7");
    assert_eq!(check(text, &nobody, Publish, "user/%u/x"), Some(Allow));
    assert_eq!(check(text, &nobody, Publish, "user//x"), None);
}

#[test]
fn the_first_rule_that_fits_decides() {
    let text = r##"{deny, {user, "u"}, publish, ["a"]}. {allow, all, publish, ["a"]}. {deny, all}."##;
    assert_eq!(check(text, &anybody(), Publish, "a"), Some(Deny));
    assert_eq!(check(text, &who("c", None, "192.0.2.7"), Publish, "a"), Some(Allow));
    assert_eq!(check(text, &anybody(), Subscribe, "a"), Some(Deny));
}

#[test]
fn strings() {
    for (written, read) in [
        (r##""a\"b\\c""##, "a\"b\\c"),
        (r##""\x41\x{e4}\101\s""##, "A\u{e4}A "),
        (r##""\t\z""##, "\tz"),
        ("\"\u{e4}%c\"", "\u{e4}%c"),
        (r##""\7\18""##, "\u{7}\u{1}8"),
    ] {
        let text = format!("{{allow, {{user, {written}}}, pubsub, [\"#\"]}}.");
        assert_eq!(check(&text, &who("c", Some(read), "192.0.2.7"), Publish, "t"), Some(Allow), "{written}");
    }
}

#[test]
fn mistakes_are_told_with_line_and_column() {
    let table = [
        ("allow", "1:1: a rule, which begins with `{`, is expected here, not `allow`"),
        ("{alow, all}.", "1:2: a rule begins with allow or deny, not `alow`"),
        ("{allow}.", "1:7: `,` and whom the rule is about is expected here, not `}`"),
        ("{allow, al}.", "1:9: whom the rule is about is all or a pair such as {user, \"name\"}, not `al`"),
        ("{allow, {usr, \"x\"}, publish, []}.", "1:10: `usr` is none of user, client, ipaddr, 'and', 'or'"),
        ("{allow, {user, x}, publish, []}.", "1:16: a name in double quotes or all is expected here, not `x`"),
        ("{allow, {user, \"x\"}}.", "1:20: `,` and one of publish, subscribe, pubsub is expected here, not `}`"),
        ("{allow, all, pub, []}.", "1:14: `pub` is none of publish, subscribe, pubsub"),
        (
            "{allow, {ipaddr, \"1.2.3\"}, pubsub, []}.",
            "1:18: \"1.2.3\" is no address such as \"192.168.0.1\", \"10.0.0.0/8\" or \"fd00::/8\"",
        ),
        ("{allow, all, pubsub, [\"a/#/b\"]}.", "1:23: \"a/#/b\" is no topic filter: # is not the last level"),
        (
            "{allow, all, pubsub, [\"$share/g/t\"]}.",
            "1:23: a shared subscription is checked by the filter behind its group; write that filter here",
        ),
        ("{allow, all, pubsub, [\"a/x%u\"]}.", "1:23: %u and %c stand for a whole level, not for a part of `x%u`"),
        ("{allow, all, pubsub, [{ne, \"a\"}]}.", "1:24: a topic is \"topic\" or {eq, \"topic\"}; `ne` is no eq"),
        ("{allow, all, pubsub, [\"a\" \"b\"]}.", "1:27: `,` or `]` is expected here, not the string \"b\""),
        (
            "{allow, all, pubsub, [\"a\", ]}.",
            "1:28: a topic in double quotes or {eq, \"topic\"} is expected here, not `]`",
        ),
        (
            "{allow, all}.\n{deny, all",
            "2:11: `,` and one of publish, subscribe, pubsub is expected here, not the end of the file",
        ),
        ("{allow, all}. \n\n  deny", "3:3: a rule, which begins with `{`, is expected here, not `deny`"),
        ("{allow, all},", "1:13: `.` after the rule is expected here, not `,`"),
        ("{allow, all}..", "1:14: a rule, which begins with `{`, is expected here, not `.`"),
        ("%% \u{e4}\n\u{e4}", "2:1: `\u{e4}` has no place in a rule"),
        ("{allow, All}.", "1:9: `All`: words are written in small letters"),
        ("{allow, 1}.", "1:9: a number has no place in a rule"),
        ("{allow, {user, \"x}, pubsub, []}.", "1:16: this quote is never closed"),
        ("{allow, {user, \"x\n\"}, pubsub, []}.", "1:16: this quote is not closed on its line"),
        ("{allow, {user, \"\\xzz\"}, pubsub, []}.", "1:17: `\\x` needs two hexadecimal digits"),
        ("{allow, {user, \"\\x{110000}\"}, pubsub, []}.", "1:17: this is no character"),
        ("{allow, {user, \"\\0\"}, pubsub, []}.", "1:17: no topic or name has a null character"),
        ("{allow, {user, <\"x\">}, pubsub, []}.", "1:16: a binary is written <<\"text\">>"),
    ];
    for (text, message) in table {
        assert_eq!(Acl::parse(text).unwrap_err().to_string(), message, "{text}");
    }
    let deep = format!("{{allow, {}all", "{'and', [".repeat(100));
    assert_eq!(Acl::parse(&deep).unwrap_err().message, "nested deeper than 16");
    let wide = format!("{{allow, all, publish, [{}]}}", "\"t\",".repeat(100_001));
    assert_eq!(Acl::parse(&wide).unwrap_err().message, "the rules have more than 100000 topics and conditions");
    let many = "{allow, all}.\n".repeat(RULES_MAX + 1);
    assert_eq!(Acl::parse(&many).unwrap_err().line, RULES_MAX as u32 + 1);
}

/// A subject in the text of a file.
fn subject() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("all".to_owned()),
        "[a-c]".prop_map(|name| format!("{{user, \"{name}\"}}")),
        "[a-c]".prop_map(|name| format!("{{client, \"{name}\"}}")),
        (0..4_u8, 0..=32_u8).prop_map(|(host, bits)| format!("{{ipaddr, \"192.0.2.{host}/{bits}\"}}")),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        (prop_oneof![Just("and"), Just("or")], prop::collection::vec(inner, 0..3))
            .prop_map(|(word, list)| format!("{{'{word}', [{}]}}", list.join(", ")))
    })
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in "(\\PC|\n|\\{|\\}|\"|\\\\|allow|all|,|\\[|\\]|eq|\\.){0,80}") {
        if let Err(error) = Acl::parse(&text) {
            prop_assert!(error.line >= 1 && error.column >= 1 && !error.message.contains('\n'));
        }
    }

    #[test]
    fn rules_that_are_broken_somewhere_are_read_without_a_panic(at in 0..400_usize, with in "\\PC?") {
        let mut text: Vec<char> = SHIPPED.chars().collect();
        let at = at.min(text.len() - 1);
        text.splice(at..=at, with.chars());
        let _ = Acl::parse(&text.iter().collect::<String>());
    }

    #[test]
    fn spaces_dots_and_comments_change_nothing(
        rules in prop::collection::vec((subject(), "(publish|subscribe|pubsub)", "(a|b|\\+|%u|%c)(/(a|b|\\+|%c)){0,2}(/#)?"), 1..4),
        blank in "( |\n|% x\n){1,3}",
    ) {
        let rules: Vec<String> =
            rules.iter().map(|(who, access, topic)| format!("{{deny, {who}, {access}, [\"{topic}\"]}}")).collect();
        let plain = Acl::parse(&rules.join(".\n")).unwrap();
        prop_assert_eq!(&Acl::parse(&rules.join("")).unwrap(), &plain);
        let spaced: Vec<String> = rules.iter().map(|rule| rule.replace(", ", &format!(",{blank}"))).collect();
        prop_assert_eq!(&Acl::parse(&spaced.join(&format!("{blank}.{blank}"))).unwrap(), &plain);
    }

    /// A deny rule for publishing fits exactly the topics that its filter matches, but for `$` at the beginning.
    #[test]
    fn topics_are_matched_as_subscriptions_match_them(
        filter in "((a|b|\\+)(/(a|b|\\+)){0,3}(/#)?|#)",
        topic in "(a|b|c|)(/(a|b|c|)){0,4}",
    ) {
        prop_assume!(!topic.is_empty());
        let expected = newtmq_mqtt::TopicFilter::new(&filter).unwrap().matches(newtmq_mqtt::TopicName::new(&topic).unwrap());
        let text = format!("{{deny, all, publish, [\"{filter}\"]}}.");
        prop_assert_eq!(check(&text, &anybody(), Publish, &topic).is_some(), expected);
    }
}

#[test]
fn lists_of_topics_are_rules() {
    let acl = Acl::only(&["up/%c/#", "a"], &["down/%u", "b/+"]).unwrap();
    let who = |client, username| Who { client, username, ip: [192, 0, 2, 1].into() };
    for (client, username, action, topic, allowed) in [
        ("c", Some("u"), Action::Publish, "up/c/x", true),
        ("c", Some("u"), Action::Publish, "up/d/x", false),
        ("c", Some("u"), Action::Publish, "a", true),
        ("c", Some("u"), Action::Subscribe, "a", false),
        ("c", Some("u"), Action::Subscribe, "down/u", true),
        ("c", Some("u"), Action::Publish, "down/u", false),
        ("c", Some("u"), Action::Subscribe, "b/x", true),
        ("c", Some("u"), Action::Subscribe, "b/#", false),
        ("c", Some("u"), Action::Subscribe, "#", false),
        // Names that look like wildcards or levels are only names.
        ("+", Some("u"), Action::Publish, "up/d/x", false),
        ("#", Some("u"), Action::Publish, "up/d", false),
        ("c/d", Some("u"), Action::Publish, "up/c/d/x", false),
        ("c", Some("#"), Action::Subscribe, "down/x", false),
        ("c", Some("+"), Action::Subscribe, "down/x", false),
        ("c", None, Action::Subscribe, "down/x", false),
    ] {
        let got = acl.check(&who(client, username), action, topic) == Some(Permission::Allow);
        assert_eq!(got, allowed, "{client} {username:?} {action:?} {topic}");
    }
    for bad in ["a/#/b", "", "x-%u", "a\0"] {
        assert!(Acl::only(&[bad], &[]).is_err() && Acl::only(&[], &[bad]).is_err(), "{bad:?}");
    }
}
