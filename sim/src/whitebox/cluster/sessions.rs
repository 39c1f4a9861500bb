//! Sessions and connections of clients as the directory has them: at rest one of each (Q3), and epochs that rise (W3).

use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::NodeId;
use newtmq_cluster::directory::{Client, Conn};
use newtmq_cluster::lane::Epoch;
use newtmq_cluster::meta::ClusterId;

use super::{Core, Found, Member};
use crate::report::{Check, Obligations};

/// A node in one of its starts.
type Start = (u16, u64);
/// A client in a cluster: each cluster counts for itself.
type Of = (ClusterId, Client);

/// Epochs that were seen.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    /// Whose connection had it.
    given: BTreeMap<(Of, Epoch), (Start, Conn)>,
    /// In which cluster a connection got its epoch.
    given_in: BTreeMap<(Start, Conn, Epoch), ClusterId>,
    /// Nodes that have come into a cluster since they were looked at.
    came: BTreeSet<u16>,
    /// The last one of a client at a node.
    last: BTreeMap<(Start, Of), Epoch>,
}

impl Epochs {
    /// A node has come into a cluster.
    pub(super) fn came(&mut self, node: u16) {
        self.came.insert(node);
    }

    /// Looks at a node that runs: an epoch is one connection's, and the next one at the same node has a higher one.
    pub(super) fn look(&mut self, member: &Member<'_>, obligations: &mut Obligations) -> Vec<Found> {
        let (Some(cluster), Some(id)) = (member.cluster(), member.belongs()) else { return Vec::new() };
        let start = (member.ix, member.control.owned().log().incarnation().0);
        let mut found = Vec::new();
        let has_come = self.came.remove(&member.ix);
        // What a node has given alone has no term.
        for (client, conn, epoch, _) in cluster.directory().served().filter(|(.., epoch, _)| epoch.term > 0) {
            // One that was given in the cluster that the node was in before counts there.
            let of = if has_come { ClusterId(0) } else { id };
            if *self.given_in.entry((start, conn, epoch)).or_insert(of) != id {
                continue;
            }
            obligations.count(Check::Epochs, 1);
            let (of, own) = ((id, client.clone()), (start, conn));
            let known = *self.given.entry((of.clone(), epoch)).or_insert(own);
            if known != own {
                let what = format!("two connections of {client} have the epoch {epoch:?}: {known:?} and {own:?}");
                found.push((Check::Epochs, member.ix, what));
            }
            // Without a quorum only what somebody still knows is extended: a session that ended long ago is forgotten.
            if epoch.provisional > 0 {
                continue;
            }
            let last = self.last.insert((start, of), epoch);
            if let Some(last) = last.filter(|last| *last > epoch) {
                let what = format!("{client} has the epoch {epoch:?} here, and had {last:?} before");
                found.push((Check::Epochs, member.ix, what));
            }
        }
        found
    }
}

/// Whether each client has one session and one connection at most, and who decides knows where.
pub(crate) fn has_one_session(members: &[Member<'_>]) -> bool {
    let core = Core::of(members);
    let mut directories = core.nodes.iter().filter_map(|member| member.cluster()).map(|cluster| cluster.directory());
    let seat = core
        .nodes
        .iter()
        .find(|member| member.cluster().and_then(|cluster| cluster.directory().seated()).is_some_and(|seat| seat.open));
    let is_settled = seat.is_some_and(|seat| directories.all(|of| of.obeys() == Some(seat.id) && of.is_at_rest()));
    is_settled && differ(&core, false, &mut Obligations::default()).is_none()
}

/// What stands against that each client has one session and one connection in a cluster, and that who decides knows where; and, if
/// all have had the time for it, that somebody decides, and nobody waits for an answer.
pub(super) fn differ(core: &Core<'_>, is_led: bool, obligations: &mut Obligations) -> Option<(u16, String)> {
    let directories = core.nodes.iter().filter_map(|member| Some((member, member.cluster()?.directory())));
    let directories: Vec<_> = directories.collect();
    let seat = directories.iter().find(|(_, directory)| directory.seated().is_some_and(|seat| seat.open));
    let Some(seat) = seat else {
        let (member, _) = directories.first().filter(|_| is_led)?;
        return Some((member.ix, "nobody decides where sessions are".into()));
    };
    let seats = |(_, directory): &(_, &newtmq_cluster::directory::Directory)| directory.obeys() == Some(seat.0.id);
    if let Some((member, _)) = directories.iter().find(|of| !seats(of) || !of.1.is_at_rest()) {
        return is_led.then(|| (member.ix, "it waits yet for what is decided about a session, or tells of one".into()));
    }
    let mut homes: BTreeMap<&str, NodeId> = BTreeMap::new();
    let mut served: BTreeMap<&str, NodeId> = BTreeMap::new();
    for (member, directory) in &directories {
        let sessions = directory.sessions().map(|(client, _)| (&**client, "session"));
        let connections = directory.served().map(|(client, ..)| (&**client, "connection"));
        for (client, what) in sessions.chain(connections) {
            obligations.count(Check::OneSession, 1);
            let known = if what == "session" { &mut homes } else { &mut served };
            if let Some(other) = known.insert(client, member.id) {
                return Some((member.ix, format!("{client} has a {what} here and one at node {:x}", other.0)));
            }
        }
    }
    for (member, _) in &directories {
        let cluster = member.cluster()?;
        let wills = cluster.kept_wills().filter(|_| cluster.meta().view().leader.is_some());
        for (client, is_over) in wills {
            obligations.count(Check::OneSession, 1);
            if is_over || homes.get(&*client) != Some(&member.id) {
                return Some((member.ix, format!("the cluster keeps a will of {client}, which has no session here")));
            }
        }
    }
    for client in homes.keys().chain(served.keys()) {
        let place = seat.1.place(client)?;
        let (home, holder) = (homes.get(client).copied(), served.get(client).copied());
        if (place.home, place.holder.map(|(node, _)| node)) != (home, holder) {
            let what =
                format!("{client} is at {home:?} with a connection at {holder:?}, and the directory says {place:?}");
            return Some((seat.0.ix, what));
        }
    }
    None
}
