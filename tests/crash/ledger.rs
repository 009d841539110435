//! What the server promised, by its own answers, and whether it holds.

use std::collections::BTreeMap;

/// A command that somebody wants: a new name for a device. Names are unique over the run.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub device: usize,
    /// The command's id; none while no answer came.
    pub id: Option<String>,
    /// The device has said that it is done, and was answered.
    pub confirmed: bool,
}

/// An invitation that nobody uses, made and perhaps taken back.
#[derive(Clone, Debug, Default)]
pub struct Paper {
    pub id: Option<String>,
    pub revoked: bool,
}

/// The book of all promises.
#[derive(Default)]
pub struct Ledger {
    /// By name, which is the idempotency key too.
    pub wishes: BTreeMap<String, Wish>,
    /// By idempotency key.
    pub papers: BTreeMap<String, Paper>,
    /// What each device was told, in order, each name once.
    pub told: BTreeMap<usize, Vec<String>>,
    /// How many calls of a device broke off. In each a Mac may have obeyed one command without a note of it.
    pub broken: BTreeMap<usize, usize>,
    /// Entries of the audit that were seen.
    pub audited: usize,
}

impl Ledger {
    /// The names that a device was told in one call, and whether the call was answered to its end.
    pub fn heard(&mut self, device: usize, names: &[String], certain: &[String]) {
        let told = self.told.entry(device).or_default();
        for name in names {
            let wish = self
                .wishes
                .get(name)
                .unwrap_or_else(|| panic!("{device} was told {name}, which nobody wants"));
            assert_eq!(wish.device, device, "{name} is for another device");
            if !told.contains(name) {
                told.push(name.clone());
            }
        }
        for name in certain {
            if let Some(wish) = self.wishes.get_mut(name) {
                wish.confirmed = true;
            }
        }
    }

    /// Q5: each device was told its names in the order in which they were wished for.
    pub fn in_order(&self) {
        for (device, told) in &self.told {
            assert!(told.is_sorted(), "device {device} was told its commands out of order: {told:?}");
        }
    }
}
