//! Cases that nobody wrote: the generator, as the command line asks for it.

use newtmq_sim::Scenario;

/// Names of the families.
pub(crate) fn families() -> Vec<&'static str> {
    vec!["all"]
}

/// The case of a seed. With several families the seed picks one.
pub(crate) fn case(families: &[String], full: bool, seed: u64) -> Scenario {
    let _ = (families, full);
    Scenario { seed, ..Scenario::default() }
}
