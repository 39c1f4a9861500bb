//! Cases that nobody wrote: the generator, as the command line asks for it.

use newtmq_sim::Scenario;
use newtmq_sim::generate::{Family, Profile, Size, scenario};
use newtmq_sim::scenario::Driver;

/// Names of the families.
pub(crate) fn families() -> Vec<&'static str> {
    Family::ALL.iter().map(|family| family.name()).collect()
}

/// The case of a seed, for the tier of this build. Of several families, or of all, one after the other.
pub(crate) fn case(families: &[String], full: bool, seed: u64) -> Scenario {
    let named: Vec<Family> = families.iter().filter_map(|name| Family::by_name(name)).collect();
    let among = if named.is_empty() { Family::ALL } else { &named };
    let family = among[(seed % among.len() as u64) as usize];
    let size = if full { Size::Full } else { Size::Micro };
    let mut case = scenario(Profile { family, size }, seed);
    if cfg!(madsim) {
        // Its nodes have no disks.
        case.broker.durability = None;
    }
    case.driver = if cfg!(madsim) { Driver::Madsim } else { Driver::Kernel };
    case
}
