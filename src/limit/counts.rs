//! What one epoch's key holds: a running total and slots, big-endian as BITFIELD
//! writes them. A key that is absent or short reads as zeros.

use super::window::Window;

/// Slots of an epoch as suffix sums: `from(j)` is the sum of slot `j` and all later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums(Box<[u32]>);

impl Sums {
    fn new(mut slots: Vec<u32>) -> Self {
        let filled = slots
            .iter()
            .rposition(|slot| *slot > 0)
            .map_or(0, |last| last + 1);
        slots.truncate(filled);
        let mut sum = 0u32;
        for slot in slots.iter_mut().rev() {
            sum = sum.saturating_add(*slot);
            *slot = sum;
        }
        Self(slots.into_boxed_slice())
    }

    pub fn from(&self, slot: u64) -> u64 {
        usize::try_from(slot)
            .ok()
            .and_then(|slot| self.0.get(slot))
            .map_or(0, |sum| u64::from(*sum))
    }

    /// The first slot, `slot` or later, that is not empty.
    pub fn first_filled(&self, slot: u64) -> Option<u64> {
        (slot..self.0.len() as u64).find(|slot| self.from(*slot) > self.from(slot + 1))
    }
}

/// A whole key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    pub total: u64,
    pub slots: Sums,
}

impl Counted {
    pub fn parse(window: &Window, bytes: &[u8]) -> Self {
        let (total, slots) = bytes.split_at_checked(4).unwrap_or((bytes, &[]));
        let width = if window.slot_bits() == 32 { 4 } else { 2 };
        // A key of another geometry may be longer than any of ours.
        let count = usize::try_from(window.slots()).unwrap_or(0);
        Self {
            total: u64::from(number(total, 4)),
            slots: Sums::new(
                slots
                    .chunks(width)
                    .take(count)
                    .map(|slot| number(slot, width))
                    .collect(),
            ),
        }
    }
}

/// A big-endian number of `width` bytes, the missing ones zero.
fn number(bytes: &[u8], width: usize) -> u32 {
    (0..width).fold(0, |number, at| {
        number << 8 | u32::from(bytes.get(at).copied().unwrap_or(0))
    })
}
