//! What a PC presents when it enrolls (MS-MDE2 3.3.1, 3.4.1), and which invitation it stands for.
//!
//! Every refusal of a credential is the same fault with the same words: nobody learns whether the name, the code or
//! the time was wrong.

use super::entra::{Entra, EntraUser};
use super::fault;
use crate::Engine;
use crate::enrollment_accounts::{PASSWORD_PREFIX, PASSWORD_PURPOSE};
use crate::error::Error;
use crate::invitations::{ALL_TRIES, SOURCE_TRIES, TRY_WINDOW};
use bellwether_model::device::{ChallengePurpose, ChallengeState};
use bellwether_model::time::MINUTE;
use bellwether_model::{InvitationState, Platform, SiteId};
use bellwether_store::Scope;
use bellwether_store::records::{Challenge, EnrollmentAccount, Invitation};
use bellwether_windows::enrollment::{Credential, ErrorType, Fault, Subcode};
use secrecy::SecretString;
use std::sync::{Arc, PoisonError};

/// A security token from the sign-in page is good for so long.
const TOKEN_LIFE: i64 = 10 * MINUTE;

/// Who enrolls.
pub(super) struct Guest {
    pub site: SiteId,
    pub way: Way,
}

/// By what.
pub(super) enum Way {
    /// The one-time code of an invitation.
    Code(Invitation),
    /// A security token that our sign-in page handed out: an open challenge of an invitation.
    Token(Challenge),
    /// The password of an account for many devices.
    Account(EnrollmentAccount),
    /// A token of Entra ID of an allowed tenant: this person.
    Entra(EntraUser),
}

impl Engine {
    /// Judges a credential. `counts`: a use of a typed code is counted.
    pub(super) async fn guest(
        &self,
        credential: Option<Credential>,
        source: Option<&str>,
        counts: bool,
    ) -> Result<Guest, Fault> {
        match credential {
            None => Err(fault(Subcode::InvalidSecurity, "the request brings no credential")),
            Some(Credential::UsernameToken { username, password }) => {
                let Some(password) = password.expose_str() else { return Err(unknown()) };
                if password.starts_with(PASSWORD_PREFIX) {
                    self.by_account(&username, password, source).await
                } else {
                    self.by_code(&username, password, source, counts).await
                }
            }
            Some(Credential::UserToken(token)) => {
                let Some(token) = token.expose_str() else { return Err(unknown()) };
                self.by_token(token).await
            }
            Some(Credential::Jwt(token)) => self.by_entra(token.expose()).await,
            Some(Credential::Certificate(_)) => {
                Err(fault(Subcode::Authorization, "enrolling with a certificate is not supported")
                    .with_type(ErrorType::NotSupported))
            }
        }
    }

    async fn by_code(
        &self,
        username: &str,
        code: &str,
        source: Option<&str>,
        counts: bool,
    ) -> Result<Guest, Fault> {
        let code = code.trim();
        if code.is_empty() || code.len() > 100 {
            return Err(unknown());
        }
        let (site, invitation) = self.find_invitation(code, source, counts).await.map_err(refused)?;
        if invitation.platform != Platform::Windows {
            return Err(unknown());
        }
        let person = invitation.person_id;
        let account = self
            .store
            .read(Scope::Site(site), move |tx| {
                Ok::<_, Error>(match person {
                    Some(id) => tx.person(id)?.map(|person| person.account),
                    None => None,
                })
            })
            .await
            .map_err(refused)?;
        if account.is_some_and(|account| !is_same_account(username, &account)) {
            return Err(unknown());
        }
        Ok(Guest { site, way: Way::Code(invitation) })
    }

    async fn by_token(&self, token: &str) -> Result<Guest, Fault> {
        let hash = self.vault.code_hash("challenge", token);
        let found = self
            .store
            .read(Scope::System, move |tx| tx.challenge_by_hash(&hash).map_err(Error::from))
            .await
            .map_err(refused)?;
        let now = self.now();
        let (site, challenge) = found.ok_or_else(unknown)?;
        let good = challenge.purpose == ChallengePurpose::Enroll
            && challenge.invitation_id.is_some()
            && challenge.state != ChallengeState::Dead
            && challenge.expires_at > now;
        if !good {
            return Err(unknown());
        }
        let invitation = challenge.invitation_id;
        let open = self
            .store
            .read(Scope::Site(site), move |tx| {
                Ok::<_, Error>(match invitation {
                    Some(id) => tx.invitation(id)?,
                    None => None,
                })
            })
            .await
            .map_err(refused)?
            .is_some_and(|row| row.platform == Platform::Windows && row.state == InvitationState::Open);
        if !open {
            return Err(unknown());
        }
        Ok(Guest { site, way: Way::Token(challenge) })
    }

    async fn by_account(&self, username: &str, password: &str, source: Option<&str>) -> Result<Guest, Fault> {
        let now = self.now();
        let hash = self.vault.code_hash(PASSWORD_PURPOSE, password);
        let bucket = format!("account:{}", source.unwrap_or("unknown"));
        let own = bucket.clone();
        let found = self
            .store
            .read(Scope::System, move |tx| {
                // 160 random bits cannot be guessed: a right password passes whatever others do.
                if let Some(found) = tx.enrollment_account_by_hash(&hash)? {
                    return Ok(Some(found));
                }
                if tx.rate_count(&own, now, TRY_WINDOW)? >= SOURCE_TRIES
                    || tx.rate_count("account:*", now, TRY_WINDOW)? >= ALL_TRIES
                {
                    return Err(Error::TooMany { retry_after_seconds: 600 });
                }
                Ok(None)
            })
            .await
            .map_err(refused)?;
        let good = found.filter(|(_, account)| {
            account.platform == Platform::Windows
                && account.revoked_at.is_none()
                && account.expires_at > now
                && is_same_account(username, &account.name)
        });
        let Some((site, account)) = good else {
            self.store
                .write(Scope::System, move |tx| {
                    tx.rate_bump(&bucket, now, TRY_WINDOW)?;
                    tx.rate_bump("account:*", now, TRY_WINDOW)?;
                    Ok::<_, Error>(())
                })
                .await
                .map_err(refused)?;
            return Err(unknown());
        };
        Ok(Guest { site, way: Way::Account(account) })
    }

    /// A token of Entra ID names the person. Whoever has an account in an allowed tenant may enroll.
    async fn by_entra(&self, token: &[u8]) -> Result<Guest, Fault> {
        let Some(entra) = self.entra() else {
            return Err(fault(Subcode::Authorization, "this server does not accept tokens of Entra ID")
                .with_type(ErrorType::NotSupported));
        };
        match entra.verify(token, self.now()).await {
            Ok(user) => Ok(Guest { site: self.default_site, way: Way::Entra(user) }),
            Err(refusal) => {
                // What was wrong is for the log; the sender learns nothing.
                tracing::info!(%refusal, "a token of Entra ID was refused");
                Err(unknown())
            }
        }
    }

    pub(super) fn entra(&self) -> Option<Arc<Entra>> {
        self.entra.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Accepts tokens of Entra ID from now on.
    pub fn set_entra(&self, entra: Arc<Entra>) {
        *self.entra.write().unwrap_or_else(PoisonError::into_inner) = Some(entra);
    }

    /// What the sign-in page hands out for a one-time code: a security token, good for ten minutes and for one
    /// certificate.
    pub async fn windows_sign_in(
        &self,
        account: &str,
        code: &str,
        source: Option<&str>,
    ) -> Result<SecretString, Error> {
        let guest =
            self.by_code(account, code, source, true).await.map_err(|fault| match fault.error_type {
                Some(ErrorType::InMaintenance) => Error::TooMany { retry_after_seconds: 600 },
                _ => Error::NotFound("invitation"),
            })?;
        let Way::Code(invitation) = guest.way else { return Err(Error::NotFound("invitation")) };
        self.mint_token(guest.site, &invitation, TOKEN_LIFE, source).await
    }
}

/// The one answer to every credential that is not good.
fn unknown() -> Fault {
    fault(Subcode::Authentication, "the user name or the one-time code is wrong, used or expired")
}

/// An error of a look-up.
pub(super) fn refused(error: Error) -> Fault {
    match error {
        Error::NotFound(_) => unknown(),
        Error::TooMany { .. } => {
            fault(Subcode::Authentication, "too many attempts from here; try again in ten minutes")
                .with_type(ErrorType::InMaintenance)
        }
        Error::Conflict(reason) | Error::Invalid(reason) | Error::CannotDo(reason) => {
            fault(Subcode::Authorization, reason).with_type(ErrorType::CustomServerError)
        }
        Error::Store(error) => {
            tracing::error!(%error, "enrollment failed");
            fault(Subcode::InternalServiceFault, "the server is busy; try again in a moment")
                .with_type(ErrorType::InMaintenance)
        }
        other => {
            tracing::error!(error = %other, "enrollment failed");
            fault(Subcode::InternalServiceFault, "the server could not do it; its log says why")
        }
    }
}

/// `ann@example.org`, also typed in capitals, and `EXAMPLE\ann` for an account without a domain.
fn is_same_account(typed: &str, account: &str) -> bool {
    let typed = typed.trim().to_lowercase();
    let account = account.to_lowercase();
    typed == account || typed.rsplit_once('\\').is_some_and(|(_, name)| name == account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_people_type_them() {
        assert!(is_same_account(" Ann@Example.org ", "ann@example.org"));
        assert!(is_same_account("EXAMPLE\\ann", "ann"));
        assert!(!is_same_account("bob@example.org", "ann@example.org"));
        assert!(!is_same_account("", "ann@example.org"));
        assert!(!is_same_account("x\\ann@evil.org", "ann@example.org"));
    }
}
