//! The two ends of the trial's lanes: publishers with their log of hints, and shards that enqueue and store.

use super::*;

impl World {
    pub(super) fn publish(&mut self, from: Spot) {
        let number = self.next;
        self.next += 1;
        let qos = QoS::from_bits(self.rng.below(3) as u8).unwrap();
        let size = [8, 8, 100, 900][self.rng.below(4) as usize];
        let publication = sample(&format!("{}.{}", from.0, from.1), qos, number, size);
        let mut sending = Sending {
            publication,
            targets: Vec::new(),
            answers: 0,
            good: true,
            tried: BTreeSet::new(),
            orphan: false,
            again: false,
            hinted: false,
            repeated: false,
            gate: None,
        };
        if self.chance(250) {
            let to = self.other_spot(from);
            let what = What::Group { name: Bytes::from_static(b"$share/g/a/b"), durable: self.chance(500) };
            sending.targets.push((to.0, Target { shard: ShardId(to.1), what }));
            sending.tried.insert(to.0);
        } else {
            for spot in self.shards.keys().copied().filter(|spot| spot.0 != from.0).collect::<Vec<_>>() {
                if self.chance(700) {
                    let class = self.rng.below(3);
                    let what = What::Plain { transient: class != 1, durable: class != 0 };
                    sending.targets.push((spot.0, Target { shard: ShardId(spot.1), what }));
                }
            }
        }
        self.sendings.insert(number, sending);
        self.gate(from, number);
        self.send(from, number);
        self.acknowledge(from);
    }

    pub(super) fn gate(&mut self, from: Spot, number: u64) {
        let sending = self.sendings.get_mut(&number).unwrap();
        if sending.publication.qos() != QoS::AtMostOnce {
            let shard = self.shards.get_mut(&from).unwrap();
            let gate = shard.gates.begin(self.now, 1, Duration::from_secs(600)).expect("fan-out ends at once");
            assert_eq!(shard.gates.begin(self.now, 2, Duration::ZERO), Err(Busy), "fan-out is left");
            shard.gates.finish(gate);
            shard.gated.insert(gate, number);
            sending.gate = Some(gate);
        }
    }

    pub(super) fn other_spot(&mut self, from: Spot) -> Spot {
        loop {
            let spot = self.random_spot();
            if spot.0 != from.0 {
                return spot;
            }
        }
    }

    pub(super) fn send(&mut self, from: Spot, number: u64) {
        let sending = &self.sendings[&number];
        let post = Post {
            ticket: Ticket(number),
            publication: sending.publication.clone(),
            expires: Instant::NEVER,
            from_log: false,
        };
        let targets = sending.targets.clone();
        for node in (0..self.nodes()).filter(|node| *node != from.0) {
            let targets: Vec<Target> =
                targets.iter().filter(|(to, _)| *to == node).map(|(_, target)| target.clone()).collect();
            if targets.is_empty() {
                continue;
            }
            let mut out = Vec::new();
            let peer = self.shards.get_mut(&from).unwrap().outs.get_mut(&node).unwrap();
            let sent = peer.send(self.now, &post, &targets, &mut out);
            let sending = self.sendings.get_mut(&number).unwrap();
            sending.answers += sent.answers;
            sending.good &= sent.refused == 0 && sent.dropped == 0 && sent.closed == 0;
            if let Some(gate) = sending.gate {
                self.shards.get_mut(&from).unwrap().gates.sent(gate, &sent);
            }
            self.outputs(from, node, out);
        }
    }

    pub(super) fn outputs(&mut self, spot: Spot, peer: usize, outputs: Vec<Output>) {
        let out = self.shards.get_mut(&spot).and_then(|shard| shard.outs.get_mut(&peer)).unwrap();
        for parcel in out.take().collect::<Vec<_>>() {
            assert!(self.linked.contains(&World::pair(spot.0, peer)));
            for frame in Parcel::frames(&parcel).unwrap() {
                self.transmit(spot.0, peer, &frame.unwrap());
            }
        }
        for output in outputs {
            match output {
                Output::Acked { ticket: Ticket(id) } if id >= HINT => self.hint_ended(spot, id),
                Output::Refused { ticket: Ticket(id), .. } if id >= HINT => {
                    let number = self.hint_number(spot, id);
                    self.sendings.get_mut(&number).unwrap().good = false;
                    self.hint_ended(spot, id);
                }
                Output::Acked { ticket } => self.answer(spot, ticket, Settled::Stored),
                Output::Refused { ticket, refusal } => self.answer(spot, ticket, Settled::Refused(refusal)),
                Output::Lost { ticket } => {
                    let sending = &self.sendings[&ticket.0];
                    let group = !sending.tried.is_empty();
                    assert!(!group || sending.publication.qos() == QoS::ExactlyOnce, "another member is to get it");
                    self.answer(spot, ticket, Settled::Lost);
                }
                Output::Overdue { ticket } => self.answer(spot, ticket, Settled::Overdue),
                Output::Hint { ticket, shard, seq, what, publication, .. } => {
                    let id = HINT + self.next;
                    self.next += 1;
                    let hint = Hint { id, to: (peer, shard.0), seq, what, publication, posted: false };
                    self.shards.get_mut(&spot).unwrap().disk.hints.push(hint);
                    self.sendings.get_mut(&ticket.0).unwrap().hinted = true;
                    self.answer(spot, ticket, Settled::Stored);
                }
                Output::Kept { ticket, seq } => {
                    let hints = &mut self.shards.get_mut(&spot).unwrap().disk.hints;
                    let hint = hints.iter_mut().find(|hint| hint.id == ticket.0).expect("it is in the log");
                    hint.posted = false;
                    hint.seq = seq;
                }
                Output::Redispatch { ticket, what, why, from_log, .. } => {
                    assert!(matches!(what, What::Group { .. }));
                    if from_log {
                        let number = self.hint_number(spot, ticket.0);
                        self.sendings.get_mut(&number).unwrap().good = false;
                        self.hint_ended(spot, ticket.0);
                    } else {
                        self.redispatch(spot, ticket, what, why);
                    }
                }
                Output::Opened { shard, stored, refused } => {
                    let to = (peer, shard.0);
                    // What could not be stored goes there again.
                    let of = |what| refused.iter().filter(move |(_, why)| *why == what).map(|(seq, _)| *seq);
                    let (refused, full): (Vec<u64>, Vec<u64>) =
                        (of(Refusal::NoMember).collect(), of(Refusal::Full).collect());
                    let hints = &mut self.shards.get_mut(&spot).unwrap().disk.hints;
                    for hint in
                        hints.iter().filter(|hint| hint.to == to && hint.seq.is_some_and(|seq| refused.contains(&seq)))
                    {
                        self.sendings.get_mut(&number_of(&hint.publication)).unwrap().good = false;
                    }
                    hints.retain(|hint| {
                        let goes = |seq| !full.contains(&seq) && (seq <= stored || refused.contains(&seq));
                        hint.to != to || hint.seq.is_none_or(|seq| !goes(seq))
                    });
                    hints.iter_mut().filter(|hint| hint.to == to).for_each(|hint| hint.seq = None);
                    self.drain(spot, (peer, shard.0));
                }
                Output::Room { shard } => self.drain(spot, (peer, shard.0)),
            }
        }
    }

    fn hint_number(&self, spot: Spot, id: u64) -> u64 {
        let hint = self.shards[&spot].disk.hints.iter().find(|hint| hint.id == id).expect("it is in the log");
        number_of(&hint.publication)
    }

    fn hint_ended(&mut self, spot: Spot, id: u64) {
        self.shards.get_mut(&spot).unwrap().disk.hints.retain(|hint| hint.id != id);
    }

    fn drain(&mut self, spot: Spot, to: Spot) {
        let now = self.now;
        let mut out = Vec::new();
        let shard = self.shards.get_mut(&spot).unwrap();
        let peer = shard.outs.get_mut(&to.0).unwrap();
        let mut all = true;
        for hint in shard.disk.hints.iter_mut().filter(|hint| hint.to == to && !hint.posted) {
            let post = Post {
                ticket: Ticket(hint.id),
                publication: hint.publication.clone(),
                expires: Instant::NEVER,
                from_log: true,
            };
            let target = Target { shard: ShardId(to.1), what: hint.what.clone() };
            let sent = peer.send(now, &post, &[target], &mut out);
            if sent.answers == 0 {
                all = false;
                break;
            }
            hint.posted = true;
        }
        if all {
            peer.drained(now, ShardId(to.1), &mut out);
        }
        self.outputs(spot, to.0, out);
    }

    fn redispatch(&mut self, spot: Spot, ticket: Ticket, what: What, why: Gone) {
        let tried = &self.sendings[&ticket.0].tried;
        let next = (0..self.nodes()).find(|node| *node != spot.0 && !tried.contains(node));
        let sending = self.sendings.get_mut(&ticket.0).unwrap();
        sending.answers -= 1;
        sending.repeated |= why == Gone::Down;
        let gate = sending.gate.expect("it has an answer");
        let Some(node) = next else {
            sending.good = false;
            self.shards.get_mut(&spot).unwrap().gates.settle(gate, Settled::Lost);
            return self.acknowledge(spot);
        };
        sending.tried.insert(node);
        sending.targets = vec![(node, Target { shard: ShardId(0), what })];
        self.send(spot, ticket.0);
        self.shards.get_mut(&spot).unwrap().gates.settle(gate, Settled::Lost);
        self.acknowledge(spot);
    }

    fn answer(&mut self, spot: Spot, ticket: Ticket, settled: Settled) {
        let sending = self.sendings.get_mut(&ticket.0).unwrap();
        assert!(sending.answers > 0, "one answer too many");
        sending.answers -= 1;
        sending.good &= settled == Settled::Stored;
        let gate = sending.gate.expect("it has an answer");
        self.shards.get_mut(&spot).unwrap().gates.settle(gate, settled);
        self.acknowledge(spot);
    }

    /// What the publisher is told is true.
    pub(super) fn acknowledge(&mut self, spot: Spot) {
        while let Some((gate, _, outcome)) = self.shards.get_mut(&spot).unwrap().gates.take_ready() {
            let number = self.shards.get_mut(&spot).unwrap().gated.remove(&gate).expect("it was begun");
            let sending = &self.sendings[&number];
            if outcome == Outcome::Success && sending.good && !sending.hinted {
                self.check_acknowledged(number);
                if sending.publication.qos() == QoS::ExactlyOnce && self.chance(700) {
                    self.release(spot, number);
                }
            }
        }
    }

    fn check_acknowledged(&self, number: u64) {
        let has = |list: &[Got]| list.iter().any(|got| got.number == number);
        for (node, target) in &self.sendings[&number].targets {
            let at = (*node, target.shard.0);
            let (transient, durable) = classes(&target.what);
            let ended = self.ended.iter().any(|(spot, got)| *spot == at && got.number == number);
            let in_memory = ended || has(&self.shards[&at].got);
            assert!(!transient || in_memory, "{number} was acknowledged and is not in memory");
            assert!(!durable || has(&self.shards[&at].disk.got), "{number} was acknowledged and is not stored");
        }
    }

    fn release(&mut self, spot: Spot, number: u64) {
        let guid = self.sendings[&number].publication.guid();
        for (node, target) in self.sendings[&number].targets.clone() {
            let mut out = Vec::new();
            let peer = self.shards.get_mut(&spot).unwrap().outs.get_mut(&node).unwrap();
            peer.release(self.now, guid, &[target.shard], &mut out);
            self.outputs(spot, node, out);
        }
    }
}

impl World {
    pub(super) fn work(&mut self, spot: Spot, most: u64, refuse: u64) {
        for _ in 0..most {
            let Some(delivery) = self.shards.get_mut(&spot).unwrap().inbox.pop_front() else { break };
            let group = matches!(delivery.what, What::Group { .. });
            let release = matches!(delivery.what, What::Release(_));
            // What is refused to plain subscriptions is refused whenever it comes.
            let number = delivery.publication.as_ref().map_or(0, number_of);
            let refused = !release && if group { self.chance(refuse * 3) } else { number % 29 == 0 };
            let refusal = if self.chance(500) { Refusal::Full } else { Refusal::NoMember };
            let shard = self.shards.get_mut(&spot).unwrap();
            let unseen = shard.ins.unseen(&delivery);
            if refused && unseen.is_some() {
                shard.ins.refused(&delivery, refusal);
                continue;
            }
            let mark = shard.ins.enqueued(&delivery);
            let classes = unseen.map_or((false, false), |what| classes(&what));
            let got = delivery.publication.as_ref().map(|publication| Got {
                source: (delivery.node.0 as usize, delivery.shard.0),
                number: number_of(publication),
                qos: publication.qos(),
                group,
            });
            shard.got.extend(got.filter(|_| classes.0));
            let got = got.filter(|_| classes.1);
            shard.unsynced.push_back(Unsynced { delivery, mark, got });
        }
    }

    pub(super) fn sync(&mut self, spot: Spot, most: usize) {
        let shard = self.shards.get_mut(&spot).unwrap();
        let most = most.min(shard.unsynced.len());
        for Unsynced { delivery, mark, got } in shard.unsynced.drain(..most) {
            let key = (delivery.node.0 as usize, delivery.shard.0);
            let old = shard.disk.marks.insert(key, mark);
            assert!(old.is_none_or(|old| old <= mark), "W7: {old:?} to {mark:?}");
            if let What::Release(guid) = delivery.what {
                shard.disk.guids.push((guid, delivery.what.clone(), false));
            }
            if let Some(message) = delivery.publication.as_ref().filter(|message| message.qos() == QoS::ExactlyOnce) {
                shard.disk.guids.push((message.guid(), delivery.what.clone(), true));
            }
            shard.disk.got.extend(got);
            shard.ins.stored(delivery.node, delivery.shard, delivery.inc, delivery.seq);
        }
    }

    pub(super) fn receipts(&mut self) {
        for spot in self.shards.keys().copied().collect::<Vec<_>>() {
            let mut receipts = Vec::new();
            self.shards.get_mut(&spot).unwrap().ins.receipts(&mut receipts);
            for (node, receipt) in receipts {
                let node = node.0 as usize;
                if self.linked.contains(&World::pair(spot.0, node)) {
                    self.transmit(spot.0, node, &Frame::Receipt(receipt));
                }
            }
        }
    }
}
