//! Running the broker until it is told to stop.

use crate::config::Config;
use crate::data::NodeIdentity;

/// What a broker is started with.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The configuration.
    pub config: Config,
    /// Who this node is.
    pub node: NodeIdentity,
    /// Shards; 1 in this version.
    pub shards: u16,
    /// The start message is one line of JSON.
    pub json: bool,
}

/// Runs the broker until it is told to stop.
///
/// # Errors
/// It cannot start, or a part of it failed.
pub fn run(options: RunOptions) -> anyhow::Result<()> {
    let _ = options;
    anyhow::bail!("this build has no broker yet")
}
