//! `mutants`: each planted bug against the checks. A testbed that finds none of them proves nothing.

use super::MutantsArguments;

#[cfg(newtmq_mutants)]
mod kill;
#[cfg(newtmq_mutants)]
mod scenarios;

/// The table of which planted bug is found by what.
pub(super) fn mutants(arguments: &MutantsArguments) -> Result<u8, String> {
    #[cfg(newtmq_mutants)]
    return if arguments.scenarios { scenarios::table(arguments) } else { kill::table(arguments) };
    #[cfg(not(newtmq_mutants))]
    {
        let _ = arguments;
        Err(NONE_HERE.into())
    }
}

/// Makes a planted bug active in this thread, or none.
pub(super) fn activate(name: Option<&str>) -> Result<(), String> {
    #[cfg(newtmq_mutants)]
    return kill::activate(name);
    #[cfg(not(newtmq_mutants))]
    name.map_or(Ok(()), |_| Err(NONE_HERE.into()))
}

#[cfg(not(newtmq_mutants))]
const NONE_HERE: &str = "this build has no planted bugs; `cargo sim` makes one that has";
