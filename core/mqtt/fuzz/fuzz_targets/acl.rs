//! Any text as an `acl.conf`: nothing panics, a mistake names a line of the text, and rules that are read decide.
//!
//! `cargo +nightly fuzz run acl` in the folder `core/mqtt`.

#![no_main]

use core::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use newtmq_access::{Acl, Action, Who};

fuzz_target!(|text: &str| {
    match Acl::parse(text) {
        Ok(acl) => {
            let who = Who { client: "c", username: Some("u"), ip: IpAddr::V4(Ipv4Addr::LOCALHOST) };
            for (action, topic) in [(Action::Publish, "a/b"), (Action::Subscribe, "#"), (Action::Subscribe, "$SYS/+")] {
                let _ = acl.check(&who, action, topic);
            }
        }
        Err(error) => assert!((1..=text.split('\n').count()).contains(&(error.line as usize)), "{error}"),
    }
});
