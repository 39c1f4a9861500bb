//! Who may connect, and who may do what with which topic: the rules of `acl.conf`, the cache of their answers, the
//! password file with Argon2id hashes, users that are added while the broker runs, SCRAM-SHA-256, who is banned, and the
//! throttling of logins.
//!
//! This crate decides; it never opens a file, reads a clock or makes a random number: texts, times and random bytes come
//! in as arguments. Nothing secret is shown by a `Debug` of its types or told by one of its errors.

mod accounts;
mod acl;
mod banned;
mod cache;
mod flapping;
mod hash;
mod scram;
mod throttle;
mod users;

pub use accounts::{ACCOUNT_NAME_BYTES_MAX, ACCOUNTS_MAX, AccountKind, Accounts, Judged, check_account_name};
pub use acl::{Acl, AclError, Action, Permission, RULES_MAX, Who};
pub use banned::{BAN_TEXT_BYTES_MAX, BAN_WHO_BYTES_MAX, BANS_MAX, Ban, BanKind, BanWho, Bans};
pub use cache::{AclCache, AclCacheLimits};
pub use flapping::{Flapping, FlappingLimits};
pub use hash::{HashParams, InvalidHash, PasswordHash, SALT_BYTES, Verifier};
pub use scram::{SCRAM_ITERATIONS, SCRAM_METHOD, SCRAM_NONCE_BYTES, ScramError, ScramKeys, ScramServer};
pub use throttle::{Throttle, ThrottleLimits};
pub use users::{SALT_KEY_BYTES, USERS_MAX, User, Users, UsersError};
