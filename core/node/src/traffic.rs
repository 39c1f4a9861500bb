//! Counters of bytes, packets and messages, both ways.

/// Counters since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// From clients.
    pub bytes_received: u64,
    /// Handed to drivers for clients.
    pub bytes_sent: u64,
    /// Whole packets from clients, by Control Packet type.
    pub packets_received: [u64; 16],
    /// To clients, by Control Packet type.
    pub packets_sent: [u64; 16],
    /// PUBLISH packets from clients, by QoS.
    pub messages_received: [u64; 3],
    /// PUBLISH packets to clients, by QoS; one sent again counts again.
    pub messages_sent: [u64; 3],
}

impl Traffic {
    pub(crate) fn add(&mut self, other: &Traffic) {
        fn add(sums: &mut [u64], counts: &[u64]) {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        self.bytes_received += other.bytes_received;
        self.bytes_sent += other.bytes_sent;
        add(&mut self.packets_received, &other.packets_received);
        add(&mut self.packets_sent, &other.packets_sent);
        add(&mut self.messages_received, &other.messages_received);
        add(&mut self.messages_sent, &other.messages_sent);
    }

    /// A PUBLISH to a client.
    #[inline]
    pub(crate) fn sent_message(&mut self, qos: newtmq_mqtt::QoS) {
        self.messages_sent[qos as usize] += 1;
        self.packets_sent[newtmq_mqtt::PacketType::Publish as usize] += 1;
    }
}
