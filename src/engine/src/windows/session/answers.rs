//! What a message said: answers to parts, facts, the push channel, and leaving.

use super::{Commit, KEPT_ANSWER, KEPT_VALUES, PUSH, SAME_INFO, SIGNING, WATCH};
use crate::Engine;
use crate::error::Error;
use crate::windows::account::{Account, Answered, Going, Open};
use crate::windows::enroll::kept;
use crate::windows::plan::{PartOutcome, StepStatus, judge_part, watch_outcome};
use bellwether_certs::hash::{hex, sha256};
use bellwether_model::lifecycle::Outcome as Word;
use bellwether_model::{PartId, Timestamp};
use bellwether_store::records::Reply;
use bellwether_windows::syncml::Verb;
use bellwether_windows::syncml::session::Event;

impl Engine {
    /// What the message said; whether the PC left management.
    pub(super) fn take_events(
        &self,
        events: Vec<Event>,
        account: &mut Account,
        open: &mut Open,
        commit: &mut Commit,
    ) -> Result<bool, Error> {
        // Values first: the last status of a part closes it.
        let (values, others): (Vec<Event>, Vec<Event>) =
            events.into_iter().partition(|event| matches!(event, Event::Results { .. }));
        for event in values.into_iter().chain(others) {
            match event {
                Event::Restarted { unanswered } | Event::Aborted { unanswered } => {
                    for part in unanswered {
                        open.parts.remove(&part);
                    }
                    open.watched = false;
                    open.settled = false;
                }
                Event::Unprocessed { parts } => {
                    for part in parts {
                        open.parts.remove(&part);
                    }
                    open.settled = false;
                }
                Event::DeviceInfo(nodes) => self.take_device_info(nodes, account, commit),
                Event::Unenrolled => commit.left = true,
                Event::Status { part, path, uri, code, original_error, remaining } => {
                    let original_error = original_error.map(|text| text.chars().take(64).collect());
                    let status = Answered { path, uri, code, original_error };
                    self.take_status(&part, status, remaining, account, open, commit)?;
                }
                Event::Results { part, item, .. } => {
                    let uri = item.uri().unwrap_or_default().to_owned();
                    let data = item.data.as_ref().and_then(|d| d.as_str()).unwrap_or_default();
                    let format = item.meta.format.as_ref().map(|f| f.as_str());
                    self.take_results(&part, uri, format, data, open, commit)?;
                }
                Event::ServerNonce(nonce) => account.server_nonce = Some(nonce),
                Event::ServerRejected => {
                    tracing::warn!(identity = %commit.identity, "a PC does not accept the server's credential");
                }
                Event::Unmatched { cmd_ref } => {
                    // Q17: answered and logged, never an error.
                    tracing::info!(identity = %commit.identity, cmd_ref, "an answer to nothing in this session");
                }
                // Secrets, and words that nothing here depends on.
                _ => {}
            }
        }
        Ok(commit.left)
    }

    fn take_device_info(&self, nodes: Vec<(String, String)>, account: &mut Account, commit: &mut Commit) {
        let text: String = nodes.iter().flat_map(|(uri, value)| [uri.as_str(), "\n", value, "\n"]).collect();
        let digest = hex(&sha256(text.as_bytes()));
        let known = account.device_info.as_ref();
        if known.is_some_and(|(was, at)| *was == digest && commit.now.since(Timestamp(*at)) < SAME_INFO) {
            return;
        }
        account.device_info = Some((digest, commit.now.0));
        for (uri, value) in nodes {
            commit.add_facts(&uri, None, &value);
        }
    }

    fn take_status(
        &self,
        part: &str,
        status: Answered,
        remaining: usize,
        account: &mut Account,
        open: &mut Open,
        commit: &mut Commit,
    ) -> Result<(), Error> {
        let good = (200..300).contains(&status.code);
        match part {
            SIGNING => account.signs |= good,
            PUSH => {
                account.push_package = self
                    .settings
                    .windows
                    .push_package
                    .clone()
                    .filter(|_| good)
                    .or(account.push_package.take());
            }
            _ => {}
        }
        let Some(going) = open.parts.get_mut(part) else { return Ok(()) };
        going.statuses.push(status);
        if remaining > 0 {
            return Ok(());
        }
        let Some(going) = open.parts.remove(part) else { return Ok(()) };
        let Ok(id) = part.parse::<PartId>() else { return Ok(()) };
        let statuses: Vec<StepStatus> = going.steps();
        // What a machine does not have is an answer too.
        let absent = |code: u16| matches!(code, 200..=299 | 404..=406);
        let asked = going.kind == "refresh-inventory" && statuses.iter().any(|s| absent(s.code));
        let outcome = match judge_part(going.awaits, &statuses) {
            PartOutcome::Failed if asked => Word::Acknowledged,
            PartOutcome::Failed => Word::Failed,
            PartOutcome::Accepted => Word::Accepted,
            // The machine took a wipe: done it is only when the PC falls silent (RemoteWipe CSP).
            PartOutcome::Acknowledged if going.until_silent => Word::Accepted,
            PartOutcome::Acknowledged => Word::Acknowledged,
        };
        let steps: Vec<serde_json::Value> = going
            .statuses
            .iter()
            .map(|s| serde_json::json!({ "uri": s.uri, "code": s.code, "original_error": s.original_error }))
            .collect();
        let whole = serde_json::json!({ "steps": steps, "results": going.results }).to_string();
        let answer = (whole.len() <= KEPT_ANSWER)
            .then(|| self.vault.seal(commit.site, "part", id.as_bytes(), "answer", whole.as_bytes()))
            .transpose()?;
        let error = (outcome == Word::Failed).then(|| serde_json::json!({ "steps": steps }).to_string());
        if outcome == Word::Acknowledged {
            commit.confirmed.extend(going.setting.map(|setting| (id, setting)));
        }
        commit.answers.push((going.channel, id, Reply { outcome, answer, error }));
        Ok(())
    }

    fn take_results(
        &self,
        part: &str,
        uri: String,
        format: Option<&str>,
        data: &str,
        open: &mut Open,
        commit: &mut Commit,
    ) -> Result<(), Error> {
        if let Some(rest) = part.strip_prefix(WATCH) {
            let Some((id, channel, request)) = open
                .parts
                .get(part)
                .and_then(|going| Some((rest.parse::<PartId>().ok()?, going.channel, going.request.clone())))
            else {
                return Ok(());
            };
            if commit.answers.iter().any(|(_, answered, _)| *answered == id) {
                // Several values for one question: the first decides.
                return Ok(());
            }
            if uri.to_ascii_lowercase().ends_with("/errorcode") {
                // It says why; the status decides.
                if let Some(going) = open.parts.get_mut(part) {
                    going.results = vec![(String::new(), kept(data).unwrap_or_default())];
                }
                return Ok(());
            }
            let error =
                open.parts.get(part).and_then(|going| going.results.first()).map(|(_, code)| code.clone());
            let outcome = match watch_outcome(&request, &uri, data, error.as_deref()) {
                Some(PartOutcome::Acknowledged) => Word::Acknowledged,
                Some(PartOutcome::Failed) => Word::Failed,
                _ => return Ok(()),
            };
            let mut said = serde_json::json!({ "uri": uri, "value": kept(data) });
            if let (Some(said), Some(code)) = (said.as_object_mut(), error) {
                said.insert("error_code".to_owned(), code.into());
            }
            let said = said.to_string();
            let answer = self.vault.seal(commit.site, "part", id.as_bytes(), "answer", said.as_bytes())?;
            let error = (outcome == Word::Failed).then_some(said);
            commit.answers.push((channel, id, Reply { outcome, answer: Some(answer), error }));
            return Ok(());
        }
        if uri.to_ascii_lowercase().ends_with("/push/channeluri") {
            commit.channel_uri = Some(data.trim().to_owned()).filter(|uri| uri.starts_with("https://"));
        } else {
            commit.add_facts(&uri, format, data);
        }
        if let Some(going) = open.parts.get_mut(part) {
            let room = KEPT_ANSWER.saturating_sub(going.results.iter().map(|(u, v)| u.len() + v.len()).sum());
            let kept: String = data.chars().filter(|c| *c != '\0').take(room / 4).collect();
            if going.results.len() < KEPT_VALUES && room > 1024 {
                going.results.push((uri.chars().take(512).collect(), kept));
            }
        }
        Ok(())
    }
}

impl Going {
    fn steps(&self) -> Vec<StepStatus> {
        self.statuses
            .iter()
            .filter_map(|status| {
                let verb = self.verbs.iter().find(|(path, _)| *path == status.path).map(|(_, verb)| *verb);
                // The status of a group says what those of its commands say.
                verb.map(|verb: Verb| StepStatus {
                    path: status.path.clone(),
                    verb,
                    uri: status.uri.clone(),
                    code: status.code,
                    original_error: status.original_error.clone(),
                })
            })
            .collect()
    }
}
