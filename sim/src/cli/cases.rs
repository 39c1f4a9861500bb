//! Cases that nobody wrote: the generator, as the command line asks for it.

use newtmq_sim::Scenario;
use newtmq_sim::generate::{Family, Profile, Size, scenario};

/// Names of the families.
pub(crate) fn families() -> Vec<&'static str> {
    Family::ALL.iter().map(|family| family.name()).collect()
}

/// Those with one node.
#[cfg(newtmq_mutants)]
pub(crate) fn of_one_node() -> Vec<Family> {
    those(|family| !family.is_cluster())
}

/// Those with several nodes.
#[cfg(newtmq_mutants)]
pub(crate) fn of_clusters() -> Vec<Family> {
    those(Family::is_cluster)
}

fn those(of: impl Fn(Family) -> bool) -> Vec<Family> {
    Family::ALL.iter().copied().filter(|family| of(*family)).collect()
}

/// The case of a seed, for the tier of this build. Of several families one after the other.
pub(crate) fn case(families: &[String], full: bool, seed: u64) -> Scenario {
    let named: Vec<Family> = families.iter().filter_map(|name| Family::by_name(name)).collect();
    // Devices have no tier of real sockets.
    let among = if named.is_empty() { those(|family| !(cfg!(madsim) && family.is_sn())) } else { named };
    let family = among[(seed % among.len() as u64) as usize];
    let size = if full { Size::Full } else { Size::Micro };
    let mut case = scenario(Profile { family, size }, seed);
    if cfg!(madsim) {
        case.fit_madsim();
    }
    case
}
