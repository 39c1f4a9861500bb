//! One thing at a time.

use super::net::{Net, small};

#[test]
pub(super) fn a_write_is_everywhere_once() {
    let mut net = Net::new(3, 1, small());
    let index = net.wrote(1, "a/b", true);
    assert!(index > 0);
    net.check_rest(5);
    assert_eq!(net.retained(2).view().messages, 1);
}
