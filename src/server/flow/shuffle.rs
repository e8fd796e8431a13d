//! Decides: which queues of a level are open to a flow. Each flow has a hand of a few of them, so that a noisy flow
//! fills only its own and two flows hardly ever have all of theirs in common (shuffle sharding).

/// No hand is larger: what validation lets through takes at most 60 bits of a hash.
pub const HAND_MAX: usize = 15;

/// A hand of queues, all different.
#[derive(Clone, Copy, Debug)]
pub struct Hand {
    cards: [u32; HAND_MAX],
    size: usize,
}

impl Hand {
    #[must_use]
    pub fn cards(&self) -> &[u32] {
        &self.cards[..self.size]
    }
}

/// Deals `size` of `deck` cards by a hash: each hand as likely as any other, in any order.
#[must_use]
pub fn deal(mut hash: u64, deck: u32, size: u32) -> Hand {
    let size = size.min(deck).min(HAND_MAX as u32);
    let mut hand = Hand { cards: [0; HAND_MAX], size: 0 };
    // In ascending order, to count past what is taken already.
    let mut taken = [0_u32; HAND_MAX];
    for dealt in 0..size {
        let left = u64::from(deck - dealt);
        let mut card = (hash % left) as u32;
        hash /= left;
        let mut at = 0;
        while at < hand.size && taken[at] <= card {
            card += 1;
            at += 1;
        }
        taken.copy_within(at..hand.size, at + 1);
        taken[at] = card;
        hand.cards[hand.size] = card;
        hand.size += 1;
    }
    hand
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_hand_is_read_from_the_hash_digit_by_digit() {
        // 5 of 0..5, then of what is left: digits 4, 0, 2 in bases 5, 4, 3.
        assert_eq!(deal(4 + 5 * (4 * 2), 5, 3).cards(), [4, 0, 3]);
        assert_eq!(deal(0, 5, 5).cards(), [0, 1, 2, 3, 4]);
        assert_eq!(deal(7, 1, 1).cards(), [0]);
        assert_eq!(deal(7, 2, 9).cards().len(), 2);
    }

    #[test]
    fn every_hand_is_dealt_equally_often() {
        let mut hands = BTreeSet::new();
        for hash in 0..6 * 5 * 4 {
            let hand = deal(hash, 6, 3);
            assert_eq!(hand.cards().iter().collect::<BTreeSet<_>>().len(), 3);
            assert!(hands.insert(hand.cards().to_vec()), "{:?} twice", hand.cards());
        }
    }
}
