//! The reference model's rules about enrollments: how they end, begin again, and what does not cross (Q10).

use super::calls::Told;
use super::reference::{MChannel, MEnrollment, Model};
use bellwether_model::*;

impl Model {
    pub(super) fn supersede(&mut self, enrollment: EnrollmentId, now: i64) -> usize {
        let waiting: Vec<CommandId> = self
            .commands
            .iter()
            .filter(|(_, c)| c.enrollment == enrollment && !c.over())
            .map(|(id, _)| *id)
            .collect();
        for id in &waiting {
            self.end(*id, PartState::Superseded, now);
        }
        waiting.len()
    }

    pub(super) fn end_enrollment(&mut self, enrollment: EnrollmentId, sweep: bool, now: i64) {
        self.enrollments.get_mut(&enrollment).expect("there").state = EnrollmentState::Ended;
        self.channels.values_mut().filter(|c| c.enrollment == enrollment).for_each(|c| c.enabled = false);
        if sweep {
            self.supersede(enrollment, now);
        }
    }

    fn next_epoch(&self, device: DeviceId) -> i32 {
        self.enrollments.values().filter(|e| e.device == device).map(|e| e.epoch).max().unwrap_or(0) + 1
    }

    pub(super) fn enroll(
        &mut self,
        device: DeviceId,
        claimant: Option<DeviceId>,
        id: EnrollmentId,
        identity: IdentityId,
        channels: [ChannelId; 2],
        now: i64,
    ) {
        let (device, claims, state) = match claimant {
            None => (device, None, EnrollmentState::Active),
            Some(claimant) => (claimant, Some(device), EnrollmentState::Unproven),
        };
        if let Some(old) = self.living(device) {
            self.end_enrollment(old, true, now);
        }
        let epoch = self.next_epoch(device);
        self.enrollments.insert(id, MEnrollment { device, claims, state, epoch, identity, staged: None });
        for channel in channels {
            self.channels
                .insert(channel, MChannel { enrollment: id, enabled: true, last_seq: 0, not_now: false });
        }
    }

    pub(super) fn approve(&mut self, id: EnrollmentId, now: i64) -> bool {
        let Some(e) = self.enrollments.get(&id) else { return false };
        let (EnrollmentState::Unproven, Some(real)) = (e.state, e.claims) else { return false };
        if let Some(old) = self.living(real) {
            self.end_enrollment(old, true, now);
        }
        let epoch = self.next_epoch(real);
        let e = self.enrollments.get_mut(&id).expect("there");
        (e.device, e.claims, e.epoch, e.state) = (real, None, epoch, EnrollmentState::Active);
        self.channels.values_mut().filter(|c| c.enrollment == id).for_each(|c| c.enabled = true);
        true
    }

    pub(super) fn revive(&mut self, id: EnrollmentId, now: i64) -> Told {
        let Some(e) = self.enrollments.get(&id) else { return Told::Flag(false) };
        if e.state != EnrollmentState::Ended || e.claims.is_some() || self.living(e.device).is_some() {
            return Told::Flag(false);
        }
        let swept = self.supersede(id, now);
        if swept > 0 {
            return Told::Count(swept);
        }
        self.enrollments.get_mut(&id).expect("there").state = EnrollmentState::Active;
        self.channels.values_mut().filter(|c| c.enrollment == id).for_each(|c| c.enabled = true);
        Told::Flag(true)
    }

    pub(super) fn enable(&mut self, channel: ChannelId, on: bool) -> bool {
        let lives = self.channels.contains_key(&channel) && self.state_of(channel) != EnrollmentState::Ended;
        if lives {
            self.channels.get_mut(&channel).expect("there").enabled = on;
        }
        lives
    }
}
