//! Letters: what the stub of a session says to the node where the session is now. They are numbered, and each is repeated until
//! it has a receipt.

use newtmq_base::{Incarnation, InvalidField, Put, Take};
use newtmq_cluster::lane::{Epoch, Guid};
use newtmq_session::{DeliveryRecord, Message, Record};

use super::luggage::{put_epoch, take_message, take_name};

pub(super) const LETTER: u8 = 1;
pub(super) const RECEIPT: u8 = 2;
pub(super) const FLUSH: u8 = 3;

/// In a letter: another one follows.
pub(super) const MORE: u8 = 1;
/// In a letter: the session there is the one that was here; else another one of its client.
pub(super) const GIVEN: u8 = 2;

/// In the number of a letter, above its place among those of one start.
const STARTS: u32 = 32;

/// A message's name, its delivery, what is left of its expiry, and the message.
pub(super) type Letter = (Guid, DeliveryRecord, Option<u64>, Message);
/// The same, by a name of this node.
pub(super) type Late = (Guid, DeliveryRecord, Message);

/// The number before that of the first letter in a start of a node.
pub(super) const fn before_first(incarnation: Incarnation) -> u64 {
    incarnation.0 << STARTS
}

/// Whether it is the number of no letter.
pub(super) const fn is_before_first(number: u64) -> bool {
    number << STARTS == 0
}

/// Whether a letter is the next one after the last that is known. A start of its node begins again.
pub(super) const fn follows(known: u64, number: u64) -> bool {
    let is_anew = number >> STARTS > known >> STARTS && number << STARTS == 1 << STARTS;
    number == known + 1 || is_anew
}

pub(super) fn head(client: &str, kind: u8, epoch: Epoch, number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    Put(&mut bytes).text(client).byte(kind);
    put_epoch(&mut bytes, epoch);
    Put(&mut bytes).number(number);
    bytes
}

/// # Errors
/// It is none.
pub(super) fn read(take: &mut Take<'_>) -> Result<Vec<Letter>, InvalidField> {
    let mut letters = Vec::new();
    for _ in 0..take.count()? {
        let guid = take_name(take)?;
        let Ok(Record::Enqueue { delivery, .. }) = Record::decode(take.bytes()?) else {
            return Err(InvalidField("no delivery"));
        };
        let (left, message) = take_message(take)?;
        letters.push((guid, delivery, left, message));
    }
    take.end()?;
    Ok(letters)
}
