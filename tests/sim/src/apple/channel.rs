//! The command channel: `Idle`, then command and report until the server has nothing more.

use bellwether_apple::checkin::{REPORT_CONTENT_TYPE, Status};
use bellwether_apple::command::{Delivered, decode_command};
use bellwether_apple::device;
use bellwether_apple::{Channel, ChannelIds};
use plist::Dictionary;

use super::answers::{Answer, Next};
use super::{AppleDevice, Behaviour};
use crate::{Error, Reply, Result};

/// No server has that many commands for one session.
const MAX_COMMANDS: usize = 1_000;

/// A command that the device was given.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The user whose channel it came through; none for the device's.
    pub user: Option<String>,
    /// `CommandUUID`.
    pub command_uuid: String,
    /// `RequestType`.
    pub request_type: String,
    /// The command, `RequestType` included.
    pub command: Dictionary,
    /// What was reported; none when nothing left the device.
    pub reported: Option<Status>,
}

/// Whether the session goes on.
enum Step {
    Reply(Reply),
    Over,
}

impl AppleDevice {
    /// One session: `Idle`, then every command is answered until there are no more. Returns what the
    /// device was told.
    ///
    /// # Errors
    /// When the server answers with another status than 200, with something that is no command, or not.
    pub async fn poll(&mut self) -> Result<Vec<Told>> {
        let ids = self.ids()?;
        self.poll_channel(&ids).await
    }

    pub(super) async fn poll_channel(&mut self, ids: &ChannelIds) -> Result<Vec<Told>> {
        let arrived = std::mem::take(&mut self.inventory.pending_apps);
        self.inventory.apps.extend(arrived);

        let first = self.told.len();
        let mut reply = self.signed_request(device::idle(ids)?, REPORT_CONTENT_TYPE).await?;
        for _ in 0..MAX_COMMANDS {
            reply = reply.ok("command channel")?;
            if reply.body.is_empty() {
                return Ok(self.told.get(first..).unwrap_or_default().to_vec());
            }
            match self.obey(ids, &reply).await? {
                Step::Reply(next) => reply = next,
                Step::Over => return Ok(self.told.get(first..).unwrap_or_default().to_vec()),
            }
        }
        Err(Error::Channel(format!("more than {MAX_COMMANDS} commands in one session")))
    }

    async fn obey(&mut self, ids: &ChannelIds, reply: &Reply) -> Result<Step> {
        let delivered = decode_command(&reply.body)?;
        let user = match &ids.channel {
            Channel::Device => None,
            Channel::User { user_id } => Some(user_id.clone()),
            Channel::SharedIpad { short_name } => Some(short_name.clone()),
        };
        let behaviour = self.script.take(&delivered.request_type);
        let obeys = !matches!(
            behaviour,
            Some(
                Behaviour::NotNow
                    | Behaviour::Error(_)
                    | Behaviour::FormatError
                    | Behaviour::Silence
                    | Behaviour::Answer(..)
            )
        );
        let answer = if obeys { self.answer(user.as_deref(), &delivered).await? } else { Answer::default() };
        let next = answer.next;
        let told = |reported| Told {
            user: user.clone(),
            command_uuid: delivered.command_uuid.clone(),
            request_type: delivered.request_type.clone(),
            command: delivered.command.clone(),
            reported,
        };
        let (record, step) = match behaviour {
            Some(Behaviour::Silence | Behaviour::LoseAnswer) => (told(None), Step::Over),
            Some(Behaviour::NotNow) => {
                let step = self.send(ids, &delivered, Answer::status(Status::NotNow)).await?;
                (told(Some(Status::NotNow)), step)
            }
            Some(Behaviour::Error(chain)) => {
                let answer = Answer { status: Status::Error, chain, ..Answer::default() };
                (told(Some(Status::Error)), self.send(ids, &delivered, answer).await?)
            }
            Some(Behaviour::FormatError) => {
                let step = self.send(ids, &delivered, Answer::status(Status::CommandFormatError)).await?;
                (told(Some(Status::CommandFormatError)), step)
            }
            Some(Behaviour::Answer(status, response)) => {
                let answer = Answer { status, response, ..Answer::default() };
                (told(Some(status)), self.send(ids, &delivered, answer).await?)
            }
            Some(Behaviour::LoseReply) => {
                let status = answer.status;
                self.send(ids, &delivered, answer).await?;
                (told(Some(status)), Step::Over)
            }
            Some(Behaviour::Duplicate) => {
                let status = answer.status;
                self.send(ids, &delivered, answer).await?;
                (told(Some(status)), Step::Reply(self.replay().await?))
            }
            Some(Behaviour::Contradict(other)) => {
                let status = answer.status;
                self.send(ids, &delivered, answer).await?;
                (told(Some(status)), self.send(ids, &delivered, Answer::status(other)).await?)
            }
            None => {
                let status = answer.status;
                (told(Some(status)), self.send(ids, &delivered, answer).await?)
            }
        };
        self.told.push(record);
        if next == Next::Wiped {
            self.wipe()?;
            return Ok(Step::Over);
        }
        Ok(step)
    }

    async fn send(&mut self, ids: &ChannelIds, delivered: &Delivered, answer: Answer) -> Result<Step> {
        let uuid = &delivered.command_uuid;
        let reply = self.report_on(ids, answer.status, uuid, &answer.chain, answer.response).await?;
        Ok(Step::Reply(reply))
    }
}
