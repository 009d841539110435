//! The reference model's rules about what goes out and what comes back (Q4 to Q8, Q11, Q17).

use super::calls::Handed;
use super::reference::{Hits, MCommand, MDelivery, MPart, Model, over};
use bellwether_model::lifecycle::AnswerVerdict;
use bellwether_model::*;

/// What a channel is offered, and what stands in its way.
pub struct Choice {
    pub offer: Vec<PartId>,
    pub again: bool,
    pub open: Option<DeliveryId>,
    pub stuck: Vec<PartId>,
}

/// A device's session is over after so long.
const SESSION: i64 = 120_000;

impl Model {
    /// Whether a part may go out now, whatever else waits.
    fn may_go(&self, c: &MCommand, p: &MPart, now: i64, skip: bool, hits: &mut Hits) -> bool {
        if c.over() || c.held || c.expires <= now || c.not_before.is_some_and(|at| at > now) {
            return false;
        }
        if p.not_before.is_some_and(|at| at > now) {
            hits.push(if p.state == PartState::NotNow {
                "Q7 a pause after NotNow"
            } else {
                "Q8 parked parts wait"
            });
            return false;
        }
        let long_ago = |pause: i64| p.last.is_none_or(|last| last + pause <= now);
        match p.state {
            PartState::Queued => true,
            PartState::NotNow if skip && long_ago(SESSION) => {
                hits.push("Q7 what said NotNow in an earlier session has its turn");
                true
            }
            PartState::NotNow if skip => {
                hits.push("Q7 not again in the session of its NotNow");
                false
            }
            PartState::NotNow => {
                hits.push("Q7 offered again on the next call");
                true
            }
            PartState::Sent => match c.guarantee {
                Guarantee::AtMostOnce => {
                    hits.push("Q4 at most once is not sent again");
                    false
                }
                Guarantee::UntilSilent => long_ago(self.rules.silent_pause),
                Guarantee::UntilAnswered => p.sends < self.rules.max_sends || long_ago(self.rules.park_for),
            },
            _ => false,
        }
    }

    /// Everything that may go out on a channel, in order: lane, then number, then place in its command.
    fn line(
        &self,
        channel: ChannelId,
        now: i64,
        answering: &[PartId],
        skip: bool,
        hits: &mut Hits,
    ) -> Vec<(Lane, PartId)> {
        let mut line = Vec::new();
        for c in self.commands.values().filter(|c| c.channel == channel) {
            for (place, p) in c.parts.iter().enumerate() {
                if !answering.contains(&p.id) && self.may_go(c, p, now, skip, hits) {
                    line.push((rank(c.lane), c.seq, place, c.lane, p.id));
                }
            }
        }
        line.sort();
        line.into_iter().map(|(_, _, _, lane, id)| (lane, id)).collect()
    }

    pub(super) fn choose(
        &self,
        channel: ChannelId,
        now: i64,
        answering: &[PartId],
        skip: bool,
        limit: usize,
        hits: &mut Hits,
    ) -> Choice {
        let nothing = Choice { offer: Vec::new(), again: false, open: None, stuck: Vec::new() };
        let Some(row) = self.channels.get(&channel) else { return nothing };
        if !row.enabled || self.state_of(channel) != EnrollmentState::Active {
            if self.commands.values().any(|c| c.channel == channel && !c.over()) {
                hits.push("Q11 only an enabled channel of an active enrollment is offered commands");
            }
            return nothing;
        }
        let line = self.line(channel, now, answering, skip, hits);
        if line.len() > 1 {
            hits.push("Q5 the first of several");
        }
        let first = |line: &[(Lane, PartId)]| line.iter().take(limit).map(|(_, id)| *id).collect::<Vec<_>>();
        let Some(open) = self.open(channel) else { return Choice { offer: first(&line), ..nothing } };
        // What of the open delivery has no answer, once this poll's answers are in.
        let mut again = Vec::new();
        let mut stuck = Vec::new();
        for (id, answered) in &self.deliveries[&open].parts {
            let Some(command) = self.command_of(*id) else { continue };
            let c = &self.commands[&command];
            let (place, p) = c.parts.iter().enumerate().find(|(_, p)| p.id == *id).expect("its part");
            if *answered || p.state != PartState::Sent || answering.contains(id) {
                continue;
            }
            if self.may_go(c, p, now, false, hits) {
                again.push((rank(c.lane), c.seq, place, c.lane, *id));
            } else {
                stuck.push(*id);
            }
        }
        again.sort();
        let again: Vec<(Lane, PartId)> = again.into_iter().map(|(_, _, _, lane, id)| (lane, id)).collect();
        let urgent = |line: &[(Lane, PartId)]| line.iter().any(|(lane, _)| *lane == Lane::Emergency);
        let overtakes = !again.is_empty()
            && !urgent(&again)
            && line.first().is_some_and(|(lane, _)| *lane == Lane::Emergency);
        if overtakes {
            hits.push("Q5 an emergency overtakes an open delivery");
        }
        if again.is_empty() && !line.is_empty() && !stuck.is_empty() {
            hits.push("Q8 the queue moves past what is not answered");
        }
        if again.is_empty() || overtakes {
            return Choice { offer: first(&line), again: false, open: Some(open), stuck };
        }
        hits.push("Q6 an open delivery goes again before anything else");
        Choice { offer: first(&again), again: true, open: Some(open), stuck }
    }

    #[expect(clippy::too_many_arguments, reason = "one poll")]
    pub(super) fn hand_over(
        &mut self,
        channel: ChannelId,
        delivery: DeliveryId,
        hand: &[PartId],
        answering: &[PartId],
        skip: bool,
        now: i64,
        hits: &mut Hits,
    ) -> Handed {
        let choice = self.choose(channel, now, answering, skip, hand.len(), hits);
        if choice.offer != hand {
            hits.push("Q11 a plan that was overtaken is refused");
            return Handed::Moved;
        }
        if !choice.again {
            if let Some(open) = choice.open {
                for id in choice.stuck {
                    let command = self.command_of(id).expect("its command");
                    let (answered, most, pause) = (
                        self.commands[&command].guarantee == Guarantee::UntilAnswered,
                        self.rules.max_sends,
                        self.rules.park_for,
                    );
                    let p = self.part(id).expect("its part");
                    if answered && p.sends >= most && p.not_before.is_none() {
                        hits.push("Q8 parked after too many sends");
                        p.not_before = Some(p.last.unwrap_or(now) + pause);
                    }
                }
                self.deliveries.get_mut(&open).expect("there").open = false;
            }
            let parts = hand.iter().map(|id| (*id, false)).collect();
            self.deliveries.insert(delivery, MDelivery { channel, open: true, parts });
        }
        for id in hand {
            let command = self.command_of(*id).expect("its command");
            let c = self.commands.get_mut(&command).expect("there");
            c.first_sent = c.first_sent.or(Some(now));
            let p = self.part(*id).expect("its part");
            if p.sends > 0 {
                hits.push("Q4 sent again with the same bytes");
            }
            p.state = PartState::Sent;
            p.sends += 1;
            p.last = Some(now);
            p.not_before = None;
        }
        Handed::Done { parts: hand.len(), again: choice.again }
    }

    pub(super) fn answer(
        &mut self,
        channel: ChannelId,
        part: PartId,
        outcome: Outcome,
        now: i64,
        hits: &mut Hits,
    ) -> AnswerVerdict {
        let Some(command) = self.command_of(part) else {
            hits.push("Q17 an answer to nothing");
            return AnswerVerdict::Unknown;
        };
        let c = &self.commands[&command];
        if c.channel != channel {
            hits.push("Q17 an answer on another's channel");
            return AnswerVerdict::Unknown;
        }
        if self.state_of(channel) == EnrollmentState::Ended {
            hits.push("Q10 an answer from an enrollment that is over");
            return AnswerVerdict::Unknown;
        }
        let rules = self.rules;
        let p = self.part(part).expect("its part");
        let said = match outcome {
            Outcome::Acknowledged => PartState::Acknowledged,
            Outcome::Failed => PartState::Failed,
            Outcome::NotNow => PartState::NotNow,
            Outcome::Accepted => PartState::Accepted,
        };
        if over(p.state) {
            hits.push(if p.state == said {
                "Q4 the same last word again"
            } else {
                "Q4 a contradicting last word is not applied"
            });
            return if p.state == said { AnswerVerdict::Duplicate } else { AnswerVerdict::Conflict };
        }
        match (p.state, outcome) {
            (PartState::Queued, _) => {
                hits.push("Q17 an answer to what was not sent");
                return AnswerVerdict::Unknown;
            }
            (PartState::Accepted, Outcome::Accepted) => return AnswerVerdict::Duplicate,
            (PartState::Accepted, Outcome::NotNow) => return AnswerVerdict::Conflict,
            _ => {}
        }
        p.state = said;
        p.answer = Some(outcome);
        p.not_before = None;
        p.finished = over(said).then_some(now);
        if outcome == Outcome::NotNow {
            p.not_now += 1;
            let pause = rules.not_now_pause * i64::from(p.not_now.min(8));
            p.not_before = (pause > 0).then_some(now + pause);
        }
        let mut late = true;
        for d in self.deliveries.values_mut() {
            for (id, answered) in &mut d.parts {
                if *id == part && !*answered {
                    *answered = true;
                    late &= !d.open;
                }
            }
        }
        if late {
            hits.push("Q4 a late answer to an earlier delivery counts");
        }
        let c = self.commands.get_mut(&command).expect("there");
        if outcome == Outcome::Accepted {
            c.ends = c.ends.max(now + rules.accepted_for);
        }
        self.settle(command, now);
        AnswerVerdict::Applied
    }
}

/// Lanes in the order in which they are served.
fn rank(lane: Lane) -> u8 {
    match lane {
        Lane::Emergency => 0,
        Lane::Interactive => 1,
        Lane::Policy => 2,
        Lane::Inventory => 3,
    }
}
