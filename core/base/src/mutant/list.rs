//! The planted bugs, in one table. Where each of them is, `planted!(Name)` says.
//!
//! Numbers are those of the list of mutants that the testbed was designed with; bugs without a number are others.
//!
//! Checks have the names that the testbed reports: S1 to S12 for what the clients' history shows, L5 to L8 for what does not
//! happen in time, Q1 and Q9 for routes and the ledger at rest, W for anything else that a look inside shows, R for a rule
//! of the protocol that a client itself sees broken (a malformed packet, its window, packet size or aliases exceeded,
//! acknowledgements out of order, an answer that is missing or that it did not ask for, the end of its connection without a
//! reason), crash for a panic. Two are no checks: cluster says that only several nodes can have a bug, part the same of
//! one that the trials of its part of the core find and hardly any case that nobody wrote does.

macro_rules! mutants {
    ($($name:ident, $text:literal, $number:expr, [$($check:literal),+], $about:literal;)+) => {
        /// A planted bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $(#[doc = $about] $name,)+
        }

        impl Mutant {
            /// Every planted bug; those with a number come first, in order.
            pub const ALL: &[Mutant] = &[$(Mutant::$name),+];

            /// Its name on a command line and in reports.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Mutant::$name => $text,)+
                }
            }

            /// Its number in the testbed's list, if it is one of those.
            #[must_use]
            pub fn number(self) -> Option<u8> {
                match self {
                    $(Mutant::$name => $number,)+
                }
            }

            /// What is broken.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self {
                    $(Mutant::$name => $about,)+
                }
            }

            /// Names of the checks that should find it: one is enough.
            #[must_use]
            pub fn expected(self) -> &'static [&'static str] {
                match self {
                    $(Mutant::$name => &[$($check),+],)+
                }
            }

            /// Whether only several nodes can have it.
            #[must_use]
            pub fn is_of_cluster(self) -> bool {
                self.is_of_part() || self.expected().contains(&"cluster")
            }

            /// Whether finding it is left to the trials of its part of the core.
            #[must_use]
            pub fn is_of_part(self) -> bool {
                self.expected().contains(&"part")
            }
        }
    };
}

mutants! {
    // Of the testbed's list.
    RoutesOutliveIncarnation, "routes-outlive-incarnation", Some(1), ["part", "Q1", "W"],
        "The transient routes of a node's earlier incarnation stay at the shards when it starts again.";
    DeletedNotMasked, "deleted-not-masked", Some(2), ["cluster", "S1", "Q1", "L3", "W"],
        "The routes of a node that counts as down are removed, and do not come back with it.";
    DeltaOverGap, "delta-over-gap", Some(3), ["part", "W6", "W"],
        "A log's operations are applied although earlier ones are missing.";
    SnapshotMerges, "snapshot-merges", Some(4), ["cluster", "Q1", "W6", "Q7", "L2", "W"],
        "A snapshot adds to a copy what it has and removes nothing.";
    DoubleSubscribe, "double-subscribe", Some(5), ["S2", "S12", "Q1", "W"],
        "A second subscription of a filter by its only subscriber is added to the first one instead of replacing it.";
    TakeoverWithoutFence, "takeover-without-fence", Some(6), ["S6", "S1", "W", "crash"],
        "A client that connects again gets its session while its old connection goes on.";
    StaleAck, "stale-ack", Some(7), ["S1", "R"],
        "An acknowledgement of what is no longer in flight, as of an earlier connection, ends the oldest delivery instead \
         (one node has no epochs).";
    SeqWithoutTerm, "seq-without-term", Some(8), ["part", "W3"],
        "A new directory's epochs begin again without its term.";
    AgeByClock, "age-by-clock", Some(9), ["part", "S6"],
        "Connections are compared by what their nodes' clocks said, and not by their age.";
    FalseSessionPresent, "false-session-present", Some(10), ["S7"],
        "CONNACK says Session Present where there was no session, unless Clean Start was asked for.";
    SilenceIsNoSession, "silence-is-no-session", Some(11), ["part", "S7"],
        "A home that does not answer is taken for none, and a new session begins.";
    ToldBeforeSync, "told-before-sync", Some(12), ["W8", "S13"],
        "What was written is told to be stored before it is synced.";
    AckBeforeForwardAck, "ack-before-forward-ack", Some(13), ["part", "S1", "S13", "W"],
        "A publisher is answered before the other nodes that its message went to have it.";
    InFlightDropped, "in-flight-dropped", Some(15), ["S1", "Q9", "W"],
        "What was sent and not acknowledged is dropped when the connection ends.";
    PacketIdsStartOver, "packet-ids-start-over", Some(16), ["S8", "S1", "W"],
        "Packet Identifiers begin at 1 again when a client resumes (one node has no failover).";
    DupIsSeen, "dup-is-seen", Some(17), ["S1"],
        "A PUBLISH with DUP is acknowledged as seen before, without looking.";
    Qos2IdsForgotten, "qos2-ids-forgotten", Some(18), ["S3"],
        "The QoS 2 identifiers that a client has in use are forgotten when it resumes.";
    Qos2IdFreedEarly, "qos2-id-freed-early", Some(19), ["S3", "R"],
        "A QoS 2 identifier is free when PUBREC is sent: PUBREL is of an unknown one, and a PUBLISH sent again is published \
         again (the broker keeps no message until PUBREL that it could publish then).";
    PubrecNotStored, "pubrec-not-stored", Some(20), ["S3"],
        "PUBREL is sent, and that PUBREC has come is not stored.";
    LaneByMessage, "lane-by-message", Some(22), ["cluster", "S5", "W"],
        "What waits for another node's credit waits in a lane of its message instead of its publisher.";
    ResendOutOfOrder, "resend-out-of-order", Some(23), ["part", "S5", "W"],
        "What is sent to another node again after a reset is sent in the opposite order.";
    LaneDedupWithoutIncarnation, "lane-dedup-without-incarnation", Some(24), ["part", "S1", "W"],
        "What another node sends after its restart is taken for what it sent before.";
    RetainedReadTooEarly, "retained-read-too-early", Some(25), ["S9b", "S9"],
        "The owner of a topic answers who reads retained messages before it has worked off what was retained before \
         (several shards; there is no commit).";
    ReadBeforeInstall, "read-before-install", Some(26), ["S9b", "S9"],
        "Retained messages are read before every shard has installed the subscription (several shards).";
    RetainedDeleteNotStored, "retained-delete-not-stored", Some(27), ["S9"],
        "That a retained message was deleted is not stored.";
    WillOfBothNodes, "will-of-both-nodes", Some(28), ["part", "S10"],
        "A node whose will the cluster keeps publishes it without asking whether another one has (`will_ha`).";
    WillSurvivesTakeover, "will-survives-takeover", Some(29), ["S10"],
        "The delayed will of a session is published when its client resumes it in time.";
    WillOfDeadNodeLost, "will-of-dead-node-lost", Some(30), ["part", "L8"],
        "Nobody publishes the wills of a node that is down (`will_ha`).";
    SharedNoRedispatch, "shared-no-redispatch", Some(31), ["S11"],
        "A shared message that comes to a shard without a ready member is dropped instead of going on to the next one \
         (several shards; no client of one node refuses a message).";
    SharedAckedBeforeEnqueue, "shared-acked-before-enqueue", Some(32), ["S11"],
        "A shared message whose member is not ready is acknowledged and not queued (within a node PUBACK may come before a \
         queue of another shard has the message, but it must come to have it).";

    AutocleanWithoutQuorum, "autoclean-without-quorum", Some(33), ["cluster", "W12"],
        "A leader removes who was down for too long without a quorum of voters that is more than half of the members.";
    AutocleanCountsAlone, "autoclean-counts-alone", None, ["part", "W12"],
        "A leader counts how long a member is down also while it has no majority itself.";
    AutocleanByWallClock, "autoclean-by-wall-clock", Some(34), ["cluster", "W12"],
        "How long a member was down is counted from the start of the node's clock.";
    LeaseFromReceipt, "lease-from-receipt", Some(35), ["part", "W9", "S1", "W"],
        "A lease counts from when it came and not from when it was asked for.";
    OpenBeforeAnnounced, "open-before-announced", Some(36), ["part", "S6"],
        "A new directory grants claims before the nodes have said whom they have.";
    AppliedByOwnCount, "applied-by-own-count", Some(37), ["cluster", "W1", "W2"],
        "What an entry of the meta group's log makes depends on what each node counts for itself (there is no clock to read).";
    WipedDiskKeepsId, "wiped-disk-keeps-id", Some(38), ["part", "W1", "W11", "W2", "crash"],
        "A node that has lost its disk takes part as before, although it has forgotten what it voted for.";
    DamageIsTorn, "damage-is-torn", Some(39), ["W8"],
        "From damage on everything is cut off, as if it had never been promised.";
    ExpiryStartsOver, "expiry-starts-over", Some(40), ["S7", "W"],
        "The Session Expiry Interval of an absent client starts over when its node does.";
    CreditLeakOnReconnect, "credit-leak-on-reconnect", Some(41), ["cluster", "Q5", "L6", "W"],
        "What is sent to another node again after a reset costs its credit again, which never returns.";
    UnsentLeft, "unsent-left", Some(42), ["part", "S1"],
        "What was never sent of a session is not handed on when another session of its client stays.";
    OpenBeforeSync, "open-before-sync", Some(43), ["part", "S1", "W"],
        "A node that is there again is matched by what was known of it, before it has said what has changed.";
    TombstoneForgotten, "tombstone-forgotten", Some(44), ["part", "S2", "S7"],
        "That a session out of reach ended by a clean start is forgotten, so that it comes back with its node.";
    UnknownEntrySkipped, "unknown-entry-skipped", Some(45), ["part", "W2", "W"],
        "An entry of the meta group's log that is of an unknown kind is skipped.";
    MinorityRestarts, "minority-restarts", Some(46), ["cluster", "L13"],
        "A node that had no leader sends its clients away when it meets another member again, as if it had to start anew.";
    ThreeViewsGiveUp, "three-views-give-up", Some(47), ["cluster", "Q1", "Q7", "L2", "L3"],
        "A node that had lost two or more others at once takes none of them back.";

    // What is stored.
    Qos2IdsNotRestored, "qos2-ids-not-restored", None, ["S3"],
        "The QoS 2 identifiers that a client has in use are forgotten when its node starts.";
    JointWriteTorn, "joint-write-torn", None, ["S13", "S3"],
        "A QoS 2 identifier is stored before the copies at other shards are (several shards).";
    ConfirmedUnstored, "confirmed-unstored", None, ["S13"],
        "A shard confirms to another one what it has not stored so far (several shards).";
    GroupConfirmedUnstored, "group-confirmed-unstored", None, ["S13", "S11"],
        "The same for messages of shared groups (several shards).";
    SubackBeforeStored, "suback-before-stored", None, ["S13", "S1"],
        "SUBACK is sent before the subscription is stored.";
    ConnackBeforeStored, "connack-before-stored", None, ["S7"],
        "CONNACK is sent before the session is stored.";
    DropNotStored, "drop-not-stored", None, ["S5", "W"],
        "That a full queue has given a message up is not stored.";
    TrimNotStored, "trim-not-stored", None, ["S5", "S4"],
        "That a start gave up what was too much for a queue, because the log was damaged, is not stored.";
    AckNotStored, "ack-not-stored", None, ["S4", "S2"],
        "What a client acknowledges is not stored.";
    UnsubscribeNotStored, "unsubscribe-not-stored", None, ["S2"],
        "UNSUBSCRIBE is not stored.";
    EndNotStored, "end-not-stored", None, ["S7"],
        "The end of a session is not stored.";
    WillNotStored, "will-not-stored", None, ["L8"],
        "Will Messages are not stored.";
    WillEndNotStored, "will-end-not-stored", None, ["S10"],
        "That a session has no will any more is not stored.";
    BlobNotRenewed, "blob-not-renewed", None, ["S13"],
        "A message that an earlier segment has is not written to the next one.";
    RenewalFreesEarly, "renewal-frees-early", None, ["S13", "S7"],
        "Old segments are removed when what they hold is to be stored again, and not when it is.";
    FreedInAnyOrder, "freed-in-any-order", None, ["S2", "S7", "S10"],
        "Of old segments that were removed any may be back after a power loss.";
    SnapshotWithoutSubscriptions, "snapshot-without-subscriptions", None, ["S13"],
        "What stands for a session in a shorter log has no subscriptions.";
    ReadingNotRestored, "reading-not-restored", None, ["S9b"],
        "Retained messages that were on their way when the node went are not sent after its start.";
    SentFlagLost, "sent-flag-lost", None, ["S4"],
        "What may have been sent before a crash is sent again without DUP.";
    DseqStartsOver, "dseq-starts-over", None, ["S8", "W"],
        "The order of deliveries begins anew when a session is restored.";
    LaneConfirmsAll, "lane-confirms-all", None, ["S13"],
        "Of several messages of one call to another shard all count as stored when the first one is (several shards).";
    ExpiredNotStored, "expired-not-stored", None, ["S5", "S2", "W"],
        "That a message has expired is not stored, so that it may come again after a start.";
    UnstoredDropped, "unstored-dropped", None, ["S14", "L6"],
        "Before MQTT 5 a publish that there is no space for is dropped, and later ones are acknowledged.";
    DisconnectBeforeConnack, "disconnect-before-connack", None, ["S14"],
        "A client whose CONNACK waits for the store is sent away with a DISCONNECT.";
    RestFrameStuck, "rest-frame-stuck", None, ["Q8", "L6"],
        "When the disk was full for what tells how far the log is durable, nothing is written any more.";
    RestFrameUncounted, "rest-frame-uncounted", None, ["W8", "S13"],
        "Behind what tells how far the log is durable all hangs on that being whole.";
    FullDiskStopsStart, "full-disk-stops-start", None, ["crash"],
        "A node does not start while its disk is full.";
    DamageStopsStart, "damage-stops-start", None, ["crash"],
        "A node does not start while there is no space to put a damaged segment aside.";
    TimeStartsOver, "time-starts-over", None, ["S7", "S12", "W"],
        "A node's time begins at 0 with each start, whatever the log says.";
    RecoveredTooEarly, "recovered-too-early", None, ["L8", "Q1", "S13"],
        "A client is let in, and wills are published, before the stored sessions are all there.";

    // Codec.
    DecoderDropsRest, "decoder-drops-rest", None, ["R", "L6", "L7", "S1"],
        "What comes in one read with the end of a packet that came in parts is dropped.";
    RemainingLengthOneByte, "remaining-length-one-byte", None, ["R", "S1", "S12", "L7"],
        "The Remaining Length of a PUBLISH of 128 to 255 bytes is written as one byte.";
    DupFlagMissing, "dup-flag-missing", None, ["R", "S4"],
        "What is sent again after a reconnect has no DUP flag.";
    RetainedWithoutFlag, "retained-without-flag", None, ["S9", "S12"],
        "Retained messages are sent to new subscriptions without the RETAIN flag.";
    PropertiesLost, "properties-lost", None, ["S12"],
        "Properties that are passed on unaltered are lost where a message is kept for a queue, a window or another shard.";

    // Topics, and the cache of matches.
    HashMissesParent, "hash-misses-parent", None, ["S1"],
        "The filter a/# does not match the topic a.";
    ExactChangeKeepsMatch, "exact-change-keeps-match", None, ["S1", "S2"],
        "A change of a filter without wildcards leaves the cached match of its topic.";
    PlusChangeKeepsMatch, "plus-change-keeps-match", None, ["S1", "S2"],
        "A change of a filter that begins with + leaves the cached matches of all topics.";
    ResubscribeKeepsMatch, "resubscribe-keeps-match", None, ["S12", "S2"],
        "A subscription made again with other options leaves the cached matches with the old ones.";
    MemoOfAnotherTopic, "memo-of-another-topic", None, ["S1", "S2"],
        "A publisher's remembered match is taken for another topic of the same length.";

    // Share groups.
    SharedGivenTwice, "shared-given-twice", None, ["S11", "S4"],
        "A shared message that has to wait at its member is also passed on to the next shard (several shards).";
    SharedMemberOutlivesSession, "shared-member-outlives-session", None, ["S11", "S2", "Q1", "W"],
        "A session that ends stays a member of its share groups.";

    // Window and Packet Identifiers.
    WindowOneTooMany, "window-one-too-many", None, ["R", "W"],
        "One delivery more than the client's Receive Maximum is in flight.";
    WindowLeak, "window-leak", None, ["S1", "L7"],
        "A delivery that is acknowledged out of order keeps its place in the window.";
    PacketIdIgnoresQueue, "packet-id-ignores-queue", None, ["S8", "S1", "W"],
        "A Packet Identifier is free if nothing in flight has it, whatever waits with it.";

    // Sessions, expiry, wills.
    SessionNeverExpires, "session-never-expires", None, ["S7", "W"],
        "The Session Expiry Interval of an absent client never ends.";
    WillDelayEndsSession, "will-delay-ends-session", None, ["S7", "S1"],
        "A session ends when its Will Delay Interval has passed, if that is earlier than its own end.";
    CleanStartKeepsSession, "clean-start-keeps-session", None, ["S2"],
        "Clean Start keeps the old session's subscriptions and messages, while CONNACK denies it.";
    ExpiredMessageDelivered, "expired-message-delivered", None, ["S2"],
        "A message that waited longer than its Message Expiry Interval is delivered.";
    WillOnDisconnect, "will-on-disconnect", None, ["S10"],
        "A normal DISCONNECT does not delete the will.";
    WillWaitsForSession, "will-waits-for-session", None, ["S10", "L8"],
        "A will without delay is published at the end of the session only.";
    WillTwice, "will-twice", None, ["S10"],
        "A published will stays with its session and is published again at its end.";

    KeptWillNotCancelled, "kept-will-not-cancelled", None, ["part", "S10"],
        "The delayed will of a node that is down is published although its client has come back elsewhere in time (`will_ha`).";
    KeptWillNeverOver, "kept-will-never-over", None, ["part", "S10"],
        "The cluster keeps a will although its client has disconnected, or it was published (`will_ha`).";
    KeptWillOverTooEarly, "kept-will-over-too-early", None, ["part", "S10"],
        "The cluster forgets that a will was published before it is stored that its session has none (`will_ha`).";
    LeaversWillKept, "leavers-will-kept", None, ["part"],
        "The will of a client whose node has left is published by nobody as long as that node is reached.";
    ComersRemembered, "comers-remembered", None, ["part"],
        "Every client that comes back is remembered for ever where no wills are kept.";
    WillsBeforeRoutes, "wills-before-routes", None, ["part", "L8"],
        "A node that has just started publishes wills before it knows the subscriptions at other nodes (`will_ha`).";
    WillOfEarlierStartLost, "will-of-earlier-start-lost", None, ["part", "L8"],
        "A node that is back in time does not publish the wills that the cluster has kept of its earlier start (`will_ha`).";

    // Topic Aliases.
    AliasInStale, "alias-in-stale", None, ["S12", "S1", "S2"],
        "A Topic Alias that a client gives to another topic keeps the first one.";
    AliasAboveMaximum, "alias-above-maximum", None, ["R"],
        "The broker uses one Topic Alias more than the client's maximum.";
    AliasOfRefusedForgotten, "alias-of-refused-forgotten", None, ["part", "L13"],
        "A publish that is refused after it has waited for another node gives its Topic Alias no topic.";
    AsideAfterParting, "aside-after-parting", None, ["part", "crash"],
        "What a publisher has put aside is worked on while it is being closed and has no session any more.";
    FarewellForgotten, "farewell-forgotten", None, ["part", "S7", "S10"],
        "A DISCONNECT that waits behind a publish is forgotten when its connection is gone.";
    RelOvertakesAside, "rel-overtakes-aside", None, ["part", "S3", "S4"],
        "A PUBREL frees the identifier of a repeated publish that waits for another node, which is then taken for a new one.";

    // Acknowledgements to publishers, QoS 2.
    AcksReversed, "acks-reversed", None, ["R"],
        "Acknowledgements that were withheld are sent in the opposite order.";
    WithheldAcksLost, "withheld-acks-lost", None, ["L6"],
        "Acknowledgements that were withheld are never sent.";
    NoAckWithoutSubscribers, "no-ack-without-subscribers", None, ["L6"],
        "A publish that nobody subscribed to is not acknowledged.";
    RepeatGetsPubcomp, "repeat-gets-pubcomp", None, ["R", "S1"],
        "A QoS 2 PUBLISH that is repeated is answered with PUBCOMP, before its PUBREL.";
    PubrelResendLost, "pubrel-resend-lost", None, ["R", "L7", "S1"],
        "A PUBREL is not sent again after a reconnect.";
    ResendReversed, "resend-reversed", None, ["S5", "R"],
        "What is in flight is sent again in the opposite order.";
    Qos0Overtakes, "qos0-overtakes", None, ["S5"],
        "A QoS 0 message overtakes others that wait in the queue.";

    // Hold and resume, connections that move.
    HoldNeverResumed, "hold-never-resumed", None, ["L6", "L7", "R"],
        "A connection whose SUBACK waited for other shards is never read again (several shards).";
    PublisherNeverResumed, "publisher-never-resumed", None, ["L6", "L7", "R"],
        "A publisher that was held for a slow client is not read again when that has drained.";
    BytesAfterHoldLost, "bytes-after-hold-lost", None, ["L6", "R", "S1"],
        "What a connection has sent behind the packet that it is held for is lost.";
    BytesAfterConnectLost, "bytes-after-connect-lost", None, ["L6", "R"],
        "What came with a CONNECT is lost when the connection goes to its client's shard (several shards).";
    SessionWhereItCame, "session-where-it-came", None, ["S7", "S6", "S1", "W"],
        "A client's session is made at the shard that its connection came to, so that it may have several (several shards).";
    OldConnectionLeftOpen, "old-connection-left-open", None, ["R", "W"],
        "The old connection of a client that connects again is not closed.";
    ClosedConnectionAnswered, "closed-connection-answered", None, ["crash", "W"],
        "A publisher that was held is answered and read on when its connection is gone.";

    // Subscription options, packets to clients.
    NoLocalIgnored, "no-local-ignored", None, ["S2"],
        "A client gets its own messages in spite of No Local.";
    StretchedExpiryTold, "stretched-expiry-told", None, ["cluster", "S12"],
        "A message from another node has a longer Message Expiry Interval than it was published with.";
    RetainAsPublishedLost, "retain-as-published-lost", None, ["S12"],
        "Retain As Published does not count for messages of QoS 1 and 2, or that waited.";
    RetainHandlingIgnored, "retain-handling-ignored", None, ["S9", "S2"],
        "Retained messages are sent again to a subscription that is not new, although the client asked for them if it is.";
    OneIdentifierOnly, "one-identifier-only", None, ["S12"],
        "Of overlapping subscriptions only one Subscription Identifier is sent.";
    SubackSaysLess, "suback-says-less", None, ["S12", "R"],
        "SUBACK says QoS 1 where QoS 2 was granted.";
    QosUpgraded, "qos-upgraded", None, ["S12"],
        "A message is delivered with its subscription's QoS, although it was published with a lower one.";
    PacketSizeIgnored, "packet-size-ignored", None, ["R"],
        "A PUBLISH may be larger than the client's Maximum Packet Size.";

    // Routes and lanes between shards.
    SubackBeforeInstall, "suback-before-install", None, ["S1", "S9b"],
        "SUBACK is sent before every shard has installed the subscription (several shards).";
    DeltaTruncated, "delta-truncated", None, ["S1", "S11", "Q1", "W"],
        "Of several route changes that come together only the first is installed (several shards).";
    RouteOutlivesSubscribers, "route-outlives-subscribers", None, ["Q1", "W"],
        "A shard goes on to get messages of a filter that its last subscriber has left (several shards).";
    CreditNotReturned, "credit-not-returned", None, ["W", "L6", "L7"],
        "What a shard has worked off is never credited to the sender (several shards).";
    LaneOutOfOrder, "lane-out-of-order", None, ["S5", "S9"],
        "The youngest of what waits from another shard is worked off first (several shards).";

    // Retained messages.
    RetainedCursorSkips, "retained-cursor-skips", None, ["S9", "S9b"],
        "A reader of retained messages that has to pause skips the one that it paused at.";
    RetainedIgnoresLive, "retained-ignores-live", None, ["S9", "S4"],
        "A retained message is sent although the same or a later one of its topic came live.";
    RetainedDeleteKept, "retained-delete-kept", None, ["S9"],
        "An empty retained message is kept as the topic's value.";
    RetainedUnconfirmed, "retained-unconfirmed", None, ["S9"],
        "A retained message is acknowledged before the shard that owns its topic has it (several shards).";
    StampOrderAcrossSources, "stamp-order-across-sources", None, ["S9", "S9b"],
        "A topic's later retained message is ignored if its stamp is lower, which says nothing between publishers of two \
         shards (several shards).";
    RetainedExpiryOfTheOld, "retained-expiry-of-the-old", None, ["S9", "S9b"],
        "A retained message is removed when the one that it replaced would have expired.";

    // Accounts: quotas, timers, the ledger.
    ConnectionShareLeak, "connection-share-leak", None, ["L5", "W"],
        "A connection that its client ended still counts to its listener's limit.";
    RetainedShareLeak, "retained-share-leak", None, ["S9", "S9b", "W"],
        "A deleted retained message still counts to the limit.";
    SessionTimerLeak, "session-timer-leak", None, ["W"],
        "The deadline of an absent client's session stays when the client comes back.";
    KeepAliveNeverFires, "keep-alive-never-fires", None, ["L8", "S10", "R", "W"],
        "A client that is silent for longer than its Keep Alive keeps its connection.";
    KeepAliveIgnoresPublish, "keep-alive-ignores-publish", None, ["R", "S10"],
        "A PUBLISH does not count for Keep Alive.";
    LedgerMissesInFlight, "ledger-misses-in-flight", None, ["Q9", "W"],
        "What was in flight when a session ended is in no account.";

    // Cluster.
    ReflectedProof, "reflected-proof", None, ["part", "W"],
        "A node takes its own proof, sent back to it, for the other side's.";
    EvictedAdmitted, "evicted-admitted", None, ["part", "W", "L9"],
        "A node that was removed from the cluster may connect again.";
    LowerIncarnationAdmitted, "lower-incarnation-admitted", None, ["part", "W1", "W"],
        "An earlier start of a node may connect although a later one is known.";
    StreamsOutliveIncarnation, "streams-outlive-incarnation", None, ["cluster", "S1", "L2", "W"],
        "The numbers of a link's streams go on when the peer has started anew.";
    OldControlTaken, "old-control-taken", None, ["part", "Q1", "Q7", "L2", "L3", "S3", "W"],
        "A control frame that has come before is delivered again when it is sent again after a reconnect.";
    ControlGapTaken, "control-gap-taken", None, ["part", "W", "S1"],
        "A control frame is delivered although one before it has not come, as over a relay that lost it.";
    OldRunTaken, "old-run-taken", None, ["part", "W", "S5"],
        "A data frame of the path before is delivered behind those of the present one.";
    UnackedNotResent, "unacked-not-resent", None, ["cluster", "Q1", "Q7", "L2", "L3", "S1", "W"],
        "Control frames that were on their way when a connection broke are not sent again.";
    ControlCreditLeak, "control-credit-leak", None, ["part", "W", "Q5"],
        "Control frames that are acknowledged go on to count to their limit.";
    OneWayUnnoticed, "one-way-unnoticed", None, ["part", "W", "L3"],
        "A node that hears its peer counts it as Up although the peer does not hear it.";
    FlapNotDamped, "flap-not-damped", None, ["part", "W"],
        "A link that fails again and again is Up each time that it works.";
    BulkUnlimited, "bulk-unlimited", None, ["part", "W"],
        "All of a snapshot that waits is written at once, and control waits behind it.";
    RelayForAnybody, "relay-for-anybody", None, ["part", "W"],
        "A node passes frames on between nodes that are not both its direct neighbours, as it last knew them.";
    WriteAnsweredEarly, "write-answered-early", None, ["part", "W15"],
        "A user or a ban counts as written when the leader has it, and not when most voters have.";
    WriteNotTold, "write-not-told", None, ["cluster", "L14"],
        "Users and bans that were written at another node are not known where clients log in.";
    OldProgramTakesPart, "old-program-takes-part", None, ["part", "W"],
        "A node whose program is older than what its cluster uses takes part in its decisions.";
    RefusedWhenApplied, "refused-when-applied", None, ["part"],
        "That a node cannot be let in is found when that is in the log: nobody is told, and it is asked for again and again.";
    WitnessHandsToItself, "witness-hands-to-itself", None, ["part"],
        "A witness that leads has itself lead next, and leaves those without a leader who have less than it has.";
    TermsOfAnother, "terms-of-another", None, ["part", "L5"],
        "A node that comes into a cluster obeys nobody there while the terms of the one that it was in before were later.";
    TermNeverRises, "term-never-rises", None, ["part", "L5"],
        "A leader gives no session to a client whose session was in a cluster of later terms.";
    HandedOnTwice, "handed-on-twice", None, ["part", "S3"],
        "What came to a session beside one at a node that was down comes again when that hands it on.";
    GrantedMeanwhile, "granted-meanwhile", None, ["part", "S7"],
        "A node that has too much to report says anew what it has; meanwhile others begin the sessions that are there.";
    LeavesAgain, "leaves-again", None, ["part", "Q7", "L2"],
        "A node that has left and joins again within seconds is let go of once more.";
    LaneGroupNotRedispatched, "lane-group-not-redispatched", None, ["part", "S11"],
        "A shared message that another node refuses goes to no other one (31 between nodes).";
    LaneGroupAckedEarly, "lane-group-acked-early", None, ["part", "S11", "S13", "W"],
        "A shared message is acknowledged to its node when it comes, before a member has it (32 between nodes).";
    ForwardAckedOnArrival, "forward-acked-on-arrival", None, ["part", "S1", "S13", "W"],
        "What comes from another node is acknowledged before it is stored.";
    NackToldOnce, "nack-told-once", None, ["part", "S1", "S11", "W"],
        "That a message of another node was refused is told once, and counts as acknowledged if that is lost.";
    GapAccepted, "gap-accepted", None, ["part", "S1", "S5", "W"],
        "What comes from another node is taken although something in front of it is missing.";
    ForwardGuidIgnored, "forward-guid-ignored", None, ["part", "S3"],
        "A QoS 2 message that comes a second time after a restart of its node is delivered a second time.";
    FanOutOvertaken, "fan-out-overtaken", None, ["part", "S5", "W"],
        "A publisher's message is matched while an earlier one still goes to its subscribers.";
    RetainedGoesBack, "retained-goes-back", None, ["part", "Q4"],
        "A node that starts forgets the group of retained messages that it was in, for what it knows of the members is older.";
    HintForgotten, "hint-forgotten", None, ["part", "S1", "S13"],
        "A publish for a stored session of a node that is down is acknowledged, though nobody keeps it for that node.";
    HintsNotRestored, "hints-not-restored", None, ["part", "S1", "S13"],
        "What waits for a node that is away does not outlive a restart of the node that keeps it.";
    HintsReversed, "hints-reversed", None, ["part", "S5"],
        "What has waited for a node goes there with the newest first.";
    HintDoneWhenSent, "hint-done-when-sent", None, ["part", "S1", "S13"],
        "What has waited for a node counts as come when it has been sent.";
    HintReleasedEarly, "hint-released-early", None, ["part", "S3"],
        "A node is told to forget the name of a QoS 2 message that has waited for it before it is stored that it has come.";
    FarGroupNotRedispatched, "far-group-not-redispatched", None, ["part", "S11", "S1", "S13"],
        "A shared message that comes back from another node goes to no other place.";
    AckOvertakesGate, "ack-overtakes-gate", None, ["cluster", "R", "S14"],
        "An acknowledgement does not wait behind an earlier one that waits for other nodes.";
    RepeatedForwardForgotten, "repeated-forward-forgotten", None, ["part", "S1", "S13"],
        "A QoS 2 publish that is repeated on a new connection is acknowledged although other nodes have not answered.";
    RepeatedToWhoIsGone, "repeated-to-who-is-gone", None, ["part", "L13", "S16"],
        "A QoS 2 publish that is repeated is refused because of a node that is no member any more.";
    ExpiryStretchedTwice, "expiry-stretched-twice", None, ["part", "S12"],
        "A message that goes on from the second node to a third one expires later than it was published to.";
    InwardOutOfOrder, "inward-out-of-order", None, ["cluster", "S5", "crash"],
        "What has come from another node is delivered with the last one first.";
    ForwardGuidNotStored, "forward-guid-not-stored", None, ["part", "S3"],
        "The name of a QoS 2 message of another node is not stored with it.";
    ForwardedBeforeNamed, "forwarded-before-named", None, ["part", "S3"],
        "A QoS 2 message of a stored session leaves for other nodes before its name is stored.";
    ForwardingNotRestored, "forwarding-not-restored", None, ["part", "S1", "S13"],
        "After a start a QoS 2 message that other nodes may lack counts as one that they have.";
    ClassNotChanged, "class-not-changed", None, ["part", "Q1", "S1"],
        "A session that begins to be stored keeps its routes as one that is not.";
    IncompleteForgotten, "incomplete-forgotten", None, ["part", "S1", "W"],
        "A SUBACK that changes nothing does not wait for those who did not answer the last time.";
    AckedWithoutTables, "acked-without-tables", None, ["part", "S1", "S13", "W9"],
        "A publish is matched and acknowledged while the node does not know for whom it is.";
    SharedEndsWithSession, "shared-ends-with-session", None, ["part", "S11", "S1", "S13"],
        "What a member of a shared group has not acknowledged ends with its session instead of going to another member.";
    FarMembersForgotten, "far-members-forgotten", None, ["part", "S11", "S13"],
        "A group's message for a node whose last member has just left goes to no member of another node.";
    AsideOneByOne, "aside-one-by-one", None, ["part", "L6"],
        "Of a client whose publish waits for tables nothing more is read, so that each one's time begins when the one before is told.";
    DrainedTooEarly, "drained-too-early", None, ["part", "W"],
        "A shard says that its clients have gone while they are still there.";
    RefcountOffByOne, "refcount-off-by-one", None, ["cluster", "Q1", "L3", "S1", "W"],
        "A second subscription of a filter at a shard is not counted in the node's log (5 of the testbed's list, between nodes).";
    LateDownMasks, "late-down-masks", None, ["part", "Q1", "S1", "W"],
        "The news that a node's earlier incarnation is down masks the one that runs.";
    ServedBeforeRecovery, "served-before-recovery", None, ["part", "S1", "W"],
        "A node that has started gives out its log before it has read back its durable sessions.";
    BarrierForNewRoutesOnly, "barrier-for-new-routes-only", None, ["part", "S1", "W"],
        "SUBACK does not wait if the filter has subscribers at the node already, though others may not know of them yet.";
    InstalledBeforeShards, "installed-before-shards", None, ["part", "S1", "W"],
        "A node says that it has installed a version before its shards have.";
    NumbersStartOver, "numbers-start-over", None, ["part", "S1", "W9", "W"],
        "A node that has started numbers its questions about logs as before, so that late answers count.";
    LeaseWithoutRoutes, "lease-without-routes", None, ["part", "L5"],
        "A node asks to be waited for by whose routes it does not match, and cannot.";
    LeaseWithoutVersion, "lease-without-version", None, ["part", "W9", "S1", "W"],
        "A lease counts before what the owner had subscribed to by then is installed.";
    // Cluster: membership.
    NobodyIsCalledAgain, "nobody-is-called-again", None, ["cluster", "L2", "Q7"],
        "Addresses where nobody is alive are never called again, so that two halves stay apart.";
    BumpIsIncarnation, "bump-is-incarnation", None, ["cluster", "W11", "Q1", "Q7", "L2", "W"],
        "A node that was declared down and comes back counts as one that has started anew.";
    RenewedInSilence, "renewed-in-silence", None, ["part", "L2"],
        "A node that comes back under a new identity tells nobody, and waits until it is missed.";
    SentBeforeSync, "sent-before-sync", None, ["part", "W1", "W2", "crash"],
        "A vote, and what a follower confirms of the log, is sent before it is durable.";
    OnlySeedsAreJoined, "only-seeds-are-joined", None, ["cluster", "Q7", "L2"],
        "A node without a cluster asks nobody but seeds for one, so that a seed with a new address is overlooked.";
    JoinedWhileJoining, "joined-while-joining", None, ["part", "L9", "Q7", "W"],
        "A node lets others into its cluster while it gives that one up for another.";
    LeavesTooEarly, "leaves-too-early", None, ["part", "L1", "Q7"],
        "A node that leaves goes before its vote on that is no longer needed.";
    LeavesUnheard, "leaves-unheard", None, ["part", "L1", "Q7"],
        "A node that leaves goes when its vote is no longer needed, and nobody who votes knows that yet.";
    LeavesWhileComing, "leaves-while-coming", None, ["part", "Q7"],
        "A node that leaves is let go of while it is about to be let in again.";
    RemovedIsNobody, "removed-is-nobody", None, ["part", "L1", "Q7"],
        "Who has been removed, and is asked for a vote all the same, is not known any more and not asked.";
    AnybodyIsJoined, "anybody-is-joined", None, ["part", "Q7", "L2"],
        "A node that is told to join another one joins whichever cluster lets it in first.";
    CountedWhileAway, "counted-while-away", None, ["part", "W12"],
        "A leader that was paused lets go of members for being down in that time.";
    EarlierLeaderRefuses, "earlier-leader-refuses", None, ["part", "Q7", "L2"],
        "A node is gone when somebody does not know it who led before the leader that has let it in.";
    StrangerIsNotHeard, "stranger-is-not-heard", None, ["part", "Q7", "L1", "L2"],
        "A node does not follow a leader that has come back as somebody else while this node was away.";
    OldLogGoesOn, "old-log-goes-on", None, ["part", "crash"],
        "What a node has left behind with a cluster is written behind the beginning of its next one, and it cannot start again.";
    DecidesBeforeItHears, "decides-before-it-hears", None, ["part", "W12"],
        "A leader decides whom to let go of before it hears who is reached now.";
    ComesBackAsItWas, "comes-back-as-it-was", None, ["part", "W1", "W2", "L1", "Q7"],
        "A node that comes back into a cluster whose log it has given up votes as if it still had it.";
    StaysInTwo, "stays-in-two", None, ["part", "Q7", "L2"],
        "A node does not say that it does not belong to a cluster that has let it in.";
    NeverAnswered, "never-answered", None, ["cluster", "L9"],
        "A join or leave that comes to no end is never answered.";
    LeadsBeforeSync, "leads-before-sync", None, ["part", "W1", "W2", "crash"],
        "A leader is heard before its term and its vote are durable.";
    WitnessLeads, "witness-leads", None, ["part", "W"],
        "A witness leads like anybody else.";
    WitnessKeepsItsLog, "witness-keeps-its-log", None, ["part", "L1", "Q7"],
        "A witness never leads, although it alone may have what was agreed on.";
    RemovedLeadsOn, "removed-leads-on", None, ["part", "crash"],
        "A leader that is no member any more leads until another one knows that.";
    StandsAlongside, "stands-alongside", None, ["part", "L1"],
        "Who would vote for another one stands for election itself while that one stores its vote.";
    ForcedOutComesBack, "forced-out-comes-back", None, ["part", "W", "Q7"],
        "A node that an operator has removed comes back by itself.";
    AnyoneAbandons, "anyone-abandons", None, ["part", "W", "Q7"],
        "A node gives up its cluster for another one although it is not the only member.";
    FoundsBesideOthers, "founds-beside-others", None, ["cluster", "Q7", "L2"],
        "A seed founds a cluster although another seed belongs to one.";
    AutocleanSurvivesLeader, "autoclean-survives-leader", None, ["part", "W12"],
        "For how long a member was down still counts when a node leads again after another one has.";
    RoutesOutliveMember, "routes-outlive-member", None, ["cluster", "Q1", "S2"],
        "The routes of a node that is no member any more stay matched.";
    DownNotTold, "down-not-told", None, ["part"],
        "Shards are not told that a node counts as down, so that what is under way to it never comes out.";
    BrokenNotTold, "broken-not-told", None, ["part"],
        "Shards are not told that what was under way to a node may be lost.";
    AcknowledgedWithoutTable, "acknowledged-without-table", None, ["part"],
        "Publishes are acknowledged although there is no table of a member here.";
    ServedWithoutShards, "served-without-shards", None, ["part"],
        "Others may see the log of a node before its shards have told what was stored for them.";
    StrangersAreHeard, "strangers-are-heard", None, ["part"],
        "Frames of lanes of a node that is no member are taken.";
    InstalledBeforeDisk, "installed-before-disk", None, ["part"],
        "Durable routes of others count as stored before they are.";
    // Cluster: the directory of sessions.
    GrantBeforeFenceAck, "grant-before-fence-ack", None, ["part", "S6"],
        "A client gets its session before its connection at another node has ended (6 between nodes).";
    StaleAttachTaken, "stale-attach-taken", None, ["part", "S1", "S6", "W"],
        "A connection attaches to a session that one with a higher epoch has (7 between nodes).";
    NoTolerance, "no-tolerance", None, ["part", "S6"],
        "Of two connections whose ages differ by less than these can be wrong the one that seems later wins.";
    HigherEpochWins, "higher-epoch-wins", None, ["part", "S6"],
        "After a partition the higher epoch wins, and not the later connection.";
    FenceSparesClaims, "fence-spares-claims", None, ["part", "S6"],
        "A node that has to end a connection which is not connected yet says that there is none, and the grant comes later.";
    LoserNotFenced, "loser-not-fenced", None, ["part", "S6", "Q2"],
        "Of two connections that are found after a partition the loser is not told.";
    OldTermObeyed, "old-term-obeyed", None, ["part", "S6", "W"],
        "A node takes orders of a leader of a lower term than it has promised.";
    OldRoundTaken, "old-round-taken", None, ["part", "S6", "W"],
        "What the directory has said before it was told anew, or before another one was, still counts.";
    OldClaimTaken, "old-claim-taken", None, ["part", "S6", "L10"],
        "A claim that comes late or twice is taken for a new one.";
    OtherViewObeyed, "other-view-obeyed", None, ["part", "S6"],
        "Without a quorum a node helps those who do not reach the same nodes.";
    ActingTooEarly, "acting-too-early", None, ["part", "S6"],
        "Nodes help themselves as soon as they hear no leader.";
    ProvisionalStartsOver, "provisional-starts-over", None, ["part", "W3", "W4"],
        "Epochs without a quorum are numbered as before when their node has started anew.";
    StoredHomeNotAwaited, "stored-home-not-awaited", None, ["part", "S7", "S1"],
        "A stored session whose node does not answer in a second is taken for lost.";
    LateMoveCounts, "late-move-counts", None, ["part", "W4"],
        "A session that was moved counts, although another connection has attached to the one that it was made of since.";
    MovedBack, "moved-back", None, ["part", "L13", "S6"],
        "A session that a node says late to have got takes the place of a later one there.";
    MoveForgotten, "move-forgotten", None, ["part", "Q3", "S7"],
        "A session that has come to a node does not count when a later connection there has only been promised it.";
    GivenIsHere, "given-is-here", None, ["part", "S7"],
        "A session that was given to a node that is down since is taken for being where it was.";
    RemoteTakeoverWithoutFence, "remote-takeover-without-fence", None, ["part", "S6", "L4"],
        "A connection does not end when its client has connected to another node.";
    LateTwice, "late-twice", None, ["part", "D3"],
        "What came to a session at its new node, and is handed on by the old one too, is taken twice.";
    LateForgotten, "late-forgotten", None, ["part", "D1"],
        "What comes for a session at the node that it has left is not handed on.";
    LateBehind, "late-behind", None, ["part", "D5"],
        "What was handed on comes behind what has come later.";
    FlushNotAwaited, "flush-not-awaited", None, ["part", "D5"],
        "What was left of a session goes on before all that was sent to where it was has come there.";
    NamesLeft, "names-left", None, ["part", "S3"],
        "A session forgets what it has got when it goes to another node, and takes it again of one that it was at before.";
    AwayIsNone, "away-is-none", None, ["part", "S7"],
        "A stored session whose node is down is taken for none.";
    HandedOnUnmatched, "handed-on-unmatched", None, ["part", "S2", "S12"],
        "What the node that a session has left hands on comes as it was subscribed there, whatever its client has changed since.";
    HandedOnToItself, "handed-on-to-itself", None, ["part", "S2", "S12"],
        "A client with No Local gets its own message by way of the node that its session has left.";
    GroupCopyTaken, "group-copy-taken", None, ["part", "S11"],
        "A session that has moved takes the copy that it gets as a member of a group for one that it has had.";
    StubStaysMember, "stub-stays-member", None, ["part", "S2"],
        "A session that has gone to another node stays a member of its groups where it was.";
    NoLocalOfOtherNodes, "no-local-of-other-nodes", None, ["part", "S12", "S2"],
        "A client that has come to another node gets its own message there in spite of No Local.";
    LostDeferredStays, "lost-deferred-stays", None, ["part", "Q3"],
        "A session that was to go on to another node, and has lost its client before it could, is told to end for ever.";
    JoinsOnceReached, "joins-once-reached", None, ["part", "L9"],
        "Who is to join a node with which it has a link already waits until there is another link.";
    DueWillGoesAlong, "due-will-goes-along", None, ["part", "S10"],
        "A will that the cluster keeps, and is asked about, goes along with its session, and is published there, too.";
    LettersOutliveClean, "letters-outlive-clean", None, ["part", "S2"],
        "What was for a session that a clean start has ended is handed on to the next one.";
    RecentNamesLeft, "recent-names-left", None, ["part", "S3", "S4"],
        "What came to a session just before it went to another node comes there once more, if others there get it, too.";
    FullIsNobody, "full-is-nobody", None, ["part", "S1"],
        "What a node could not store, and is not told so before it counts as down, waits for it no longer.";
    HintOfGroupForgotten, "hint-of-group-forgotten", None, ["part"],
        "Of a QoS 2 message that waits for a node's subscriber and for a group there, the second is dropped.";
    ExpiredHintsStay, "expired-hints-stay", None, ["part"],
        "What waits for a node that is away keeps its room when it has expired.";
    DeferredEndsEarly, "deferred-ends-early", None, ["part"],
        "A session that is given away late, to a client that does not come, ends long before its time.";
    LettersOfAllEnd, "letters-of-all-end", None, ["part"],
        "When any node is down a client is let in without what is still under way from the node where its session was.";
    NewHomeUnrecorded, "new-home-unrecorded", None, ["part", "S7"],
        "A stored session that begins at a node where another one of its client has ended is not known to the others.";
    NamelessAsItWas, "nameless-as-it-was", None, ["part", "S12"],
        "What a session's old node hands on after a start comes as it was subscribed there.";
    DroppedWillKept, "dropped-will-kept", None, ["part", "Q3"],
        "The cluster is not told that a session is gone of which it keeps the will, because its client has another one.";
    GoneForgotten, "gone-forgotten", None, ["part", "S7"],
        "That a session has gone to another node is not stored: a start finds it again, after it has ended there.";
    GivenBeforeStart, "given-before-start", None, ["part", "L8"],
        "A session goes to another node before the will of the connection that it had at a crash is published.";
    BegunInMemory, "begun-in-memory", None, ["part", "S7"],
        "A stored session that begins because the one before has ended under its grant is given up when its node is silent.";
    MovedOverLater, "moved-over-later", None, ["part", "S17"],
        "A session that has come to a node is taken for the one of its grant, though its connection has attached again since; nobody says when that has ended.";
    OldAttachTaken, "old-attach-taken", None, ["part", "L13"],
        "A connection has to end for one that was granted its session before their nodes could not reach each other.";
    BackTooEarly, "back-too-early", None, ["part", "S10"],
        "A client that is back before its node knows what the cluster keeps: its delayed will of before is published.";
    CleanByEpoch, "clean-by-epoch", None, ["part", "S2"],
        "A clean start without a quorum does not count against a session of before that nobody could ask.";
    OriginForgotten, "origin-forgotten", None, ["part", "S4"],
        "After a start of its node a session takes twice what comes to it and to the node that it has left.";
    GreetedBySilence, "greeted-by-silence", None, ["part", "L5"],
        "A connection that is taken over before its CONNACK has left ends without one.";
    GreetedTwice, "greeted-twice", None, ["part", "S14"],
        "A connection that ends when its CONNACK is stored, and not yet written, gets a second one.";
    LateForgetsQos0, "late-forgets-qos0", None, ["part", "Q9"],
        "QoS 0 that waits at a session's new node is dropped uncounted when what is handed on is put in front of it.";
    MovedBeforeGrant, "moved-before-grant", None, ["part", "L13"],
        "A client is let in with a grant of which its node knows a later one already.";
    EndedAwaitsStart, "ended-awaits-start", None, ["part", "crash"],
        "A stored session that has ended before its node's start is over is looked for at the end of that.";
    // Cluster: retained messages.
    RetainedAnsweredWhenSent, "retained-answered-when-sent", None, ["part", "S10"],
        "A retained message is answered before it is committed.";
    RetainedBarrierByCommit, "retained-barrier-by-commit", None, ["part", "S10"],
        "A subscriber reads retained messages as of what somebody knows to be committed, though more was acknowledged before a crash.";
    RetainedDeletedForgotten, "retained-deleted-forgotten", None, ["part", "Q8"],
        "A deletion is forgotten before all members have passed it.";
    RetainedForgottenUnchanged, "retained-forgotten-unchanged", None, ["part", "Q8"],
        "What was deleted and is forgotten counts as what never was, for a write that was kept without a leader.";
    RetainedGapTaken, "retained-gap-taken", None, ["part", "Q8"],
        "A chunk of retained messages is taken although one before it is missing.";
    RetainedGoneStays, "retained-gone-stays", None, ["part", "Q8"],
        "A retained message that was deleted while a node was away stays there.";
    RetainedLateApplied, "retained-late-applied", None, ["part", "S10"],
        "A retained write that its node has given up comes up after a later one of that node.";
    RetainedMembersGoBack, "retained-members-go-back", None, ["part", "Q7"],
        "A leader makes the retained group follow members that are no longer those.";
    RetainedNumbersOutliveStart, "retained-numbers-outlive-start", None, ["part", "S10"],
        "Retained writes of a node's start count as repetitions of those of the start before.";
    RetainedPendingStays, "retained-pending-stays", None, ["part", "Q8"],
        "What was kept without a leader is read at its node although it was dropped.";
    RetainedPendingUnlimited, "retained-pending-unlimited", None, ["part", "W"],
        "Without a leader any number of retained messages is kept.";
    RetainedPendingWins, "retained-pending-wins", None, ["part", "Q8"],
        "What was kept without a leader replaces what the majority has written since.";
    RetainedPiecesIgnored, "retained-pieces-ignored", None, ["part", "Q8"],
        "Entries are applied again to topics that have come from another node as they were later.";
    RetainedReadAtCommit, "retained-read-at-commit", None, ["part", "S10"],
        "A subscriber reads retained messages when they are committed, before they are applied.";
    RetainedRepeatApplied, "retained-repeat-applied", None, ["part", "S10"],
        "A retained write that was sent again is applied a second time.";
    RetainedSentAnew, "retained-sent-anew", None, ["part", "S10"],
        "A retained write that is sent again has another number.";
    RetainedSweepEndsFirst, "retained-sweep-ends-first", None, ["part", "W2"],
        "The old topics on a disk go before the new ones are there.";
    RetainedTakenWithoutTopics, "retained-taken-without-topics", None, ["part", "Q8"],
        "A snapshot of retained messages counts as taken before its topics have come.";
    RetainedTooLittleSent, "retained-too-little-sent", None, ["part", "Q8"],
        "A node that was away for longer than deletions are remembered gets only what has changed.";
    RetainedKeptWindow, "retained-kept-window", None, ["part"],
        "A node without a leader refuses what is retained after many writes, though few topics are kept.";
    RetainedVotesUnready, "retained-votes-unready", None, ["part", "L1"],
        "A node votes in the retained group before it has what is retained.";
    // Retained messages that nodes agree on.
    MatchedBeforeRetained, "matched-before-retained", None, ["part", "S9b", "S9"],
        "A publish with RETAIN goes to subscribers before the cluster has retained it.";
    AgreedReadTooEarly, "agreed-read-too-early", None, ["part", "S9b", "S9"],
        "Retained messages of other nodes are read before they are here.";
    AgreedBarrierIgnored, "agreed-barrier-ignored", None, ["part", "S9b", "S9"],
        "A reader of retained messages does not wait for what other nodes have acknowledged.";
    AgreedUnnamed, "agreed-unnamed", None, ["part", "S8", "S1", "S9b"],
        "What a session gets of the retained messages that all nodes agree on is not stored with it.";
    AgreedDeleteKept, "agreed-delete-kept", None, ["part", "S9"],
        "An empty payload is retained in a cluster instead of deleting.";
    AgreedNeverExpires, "agreed-never-expires", None, ["part"],
        "A retained message that has expired stays in the log of the cluster, and comes again when a node starts.";
    UnretainedAcknowledged, "unretained-acknowledged", None, ["part", "S9", "S9b", "Q4"],
        "A publish is acknowledged although the cluster could not agree to retain it.";
    LearnerFollowsNobody, "learner-follows-nobody", None, ["part", "Q4", "S9"],
        "Who does not decide about retained messages follows a leader that is gone.";
    AsideOvertakesHeld, "aside-overtakes-held", None, ["part", "S14", "S5"],
        "A publish that was put aside goes on while one before it has not gone to all that it is for, or waits until it is retained.";
    BacklogNotHeld, "backlog-not-held", None, ["part"],
        "A deletion is forgotten while a node that has come still brings what it had: that is there again.";
    CarriedOnce, "carried-once", None, ["part"],
        "What a node brings to a cluster of retained messages is lost when the group is busy.";
    AnswersForgotten, "answers-forgotten", None, ["part"],
        "A node that comes into another cluster forgets what the group of retained messages has just answered.";
    EstateLost, "estate-lost", None, ["part", "S9", "S9b"],
        "What was retained is lost when the group of retained messages begins anew.";
    NeverRenewed, "never-renewed", None, ["part", "Q4"],
        "The group of retained messages does not begin anew when it has lost its quorum for good.";
    RenewedWithLeast, "renewed-with-least", None, ["part", "S9", "S9b"],
        "The group of retained messages begins anew with who has least of it.";
    RenewedUnheard, "renewed-unheard", None, ["part", "S9", "S9b", "Q4"],
        "The group of retained messages begins anew although some may have a leader.";
    RenewedWithQuorum, "renewed-with-quorum", None, ["part", "S9", "S9b", "Q4"],
        "The group of retained messages begins anew although it has only no leader.";
    // The MQTT-SN gateway.
    SnRegisterSkipped, "sn-register-skipped", None, ["part"],
        "A message goes to an MQTT-SN client under a topic id that it was not told.";
    SnIdsStartOver, "sn-ids-start-over", None, ["part"],
        "The topic ids of an MQTT-SN client are forgotten when it connects again.";
    SnWillSurvivesClean, "sn-will-survives-clean", None, ["part"],
        "The will of an MQTT-SN client is kept although it asks for a clean session.";
    SnSleeperSent, "sn-sleeper-sent", None, ["part"],
        "Messages go to an MQTT-SN client that is asleep.";
    SnPingrespEarly, "sn-pingresp-early", None, ["part"],
        "An MQTT-SN client that is awake is told to sleep on before the broker has given what waits for it.";
    SnAckBeforeBroker, "sn-ack-before-broker", None, ["part"],
        "A message of an MQTT-SN client is acknowledged before the broker has acknowledged it.";
    SnLateCopyTaken, "sn-late-copy-taken", None, ["part"],
        "A late copy of what an MQTT-SN client sent, and was answered, is acted on again.";
    SnNoRetry, "sn-no-retry", None, ["part"],
        "What an MQTT-SN client does not answer is not sent again.";
    SnBufferUnlimited, "sn-buffer-unlimited", None, ["part"],
        "Any number of messages waits for an MQTT-SN client that is asleep.";
    SnReboundDeaf, "sn-rebound-deaf", None, ["part"],
        "An MQTT-SN client that wakes at another address is answered at its old one.";
    SnSleepNeverEnds, "sn-sleep-never-ends", None, ["part"],
        "An MQTT-SN client that does not wake in time is not lost.";
    SnDeletedWillStays, "sn-deleted-will-stays", None, ["part"],
        "An empty WILLTOPICUPD leaves the will as it is.";
    SnRefusedDelivered, "sn-refused-delivered", None, ["part"],
        "A topic that an MQTT-SN client has refused to register goes on to be delivered.";
    SnRecordNotGiven, "sn-record-not-given", None, ["part"],
        "What a gateway keeps with the session of an MQTT-SN client does not come back to it.";
    SnRecordOfBefore, "sn-record-of-before", None, ["part"],
        "Only the first that a gateway keeps with a session is kept.";
    SnOutliveIgnored, "sn-outlive-ignored", None, ["part"],
        "The session of an MQTT-SN client that began clean ends with its connection, whatever the client asked for since.";
    SnDrainedTooEarly, "sn-drained-too-early", None, ["part"],
        "An MQTT-SN client that is awake is told to sleep on though it has acknowledged something since the broker was asked for more.";
    SnCopyIsConnect, "sn-copy-is-connect", None, ["part"],
        "After a late copy of a CONNECT whatever has come from its MQTT-SN client before is forgotten.";
    SnConnectOvertakes, "sn-connect-overtakes", None, ["part"],
        "A CONNECT of an MQTT-SN client for a clean session does not wait until its former connection has ended.";
    SnMissedAnswerTold, "sn-missed-answer-told", None, ["part"],
        "An MQTT-SN client counts as having been told a topic id by an answer that comes when it sleeps.";
    SnSearchIsNoLife, "sn-search-is-no-life", None, ["part"],
        "An MQTT-SN client that says nothing but SEARCHGW counts as silent.";
    SnLateAnswerForgotten, "sn-late-answer-forgotten", None, ["part"],
        "What an MQTT-SN client acknowledges while it sleeps is sent again when it wakes.";
}
