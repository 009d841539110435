//! Looking at devices.

use crate::Engine;
use crate::error::Error;
use crate::permit::{Permit, may};
use crate::views::{
    CertificateView, ChannelView, DeviceDetail, DeviceView, EnrollmentView, Listed, next_page,
};
use bellwether_certs::hash::hex;
use bellwether_model::{DeviceId, EnrollmentState, Platform};
use bellwether_store::records::{Certificate, Device, DeviceFilter, Enrollment, Page};
use bellwether_store::{Scope, Tx};

impl Engine {
    /// A page of devices with their newest enrollments.
    pub async fn devices(
        &self,
        permit: &Permit<may::ReadDevices>,
        search: Option<String>,
        platform: Option<Platform>,
        state: Option<EnrollmentState>,
        cursor: Option<Vec<u8>>,
        limit: i64,
    ) -> Result<Listed<DeviceView>, Error> {
        let filter = DeviceFilter { search, platform, state };
        self.store
            .read(Scope::Site(permit.site), move |tx| {
                let rows = tx.devices(&filter, &Page { after: cursor.clone(), limit })?;
                let next = next_page(&rows, limit, |(device, _)| device.id.as_bytes());
                let items = rows
                    .into_iter()
                    .map(|(device, enrollment)| device_view(tx, device, enrollment))
                    .collect::<Result<_, Error>>()?;
                Ok(Listed { items, next })
            })
            .await
    }

    /// A device by id, serial, hardware id or name; refused when several match.
    pub async fn find_device(
        &self,
        permit: &Permit<may::ReadDevices>,
        text: &str,
    ) -> Result<DeviceId, Error> {
        if let Ok(id) = text.parse::<DeviceId>() {
            let found = self
                .store
                .read(Scope::Site(permit.site), move |tx| tx.device(id).map_err(Error::from))
                .await?;
            if let Some(device) = found {
                return Ok(device.id);
            }
        }
        let wanted = text.to_owned();
        let found = self.devices(permit, Some(wanted.clone()), None, None, None, 50).await?.items;
        let exact: Vec<&DeviceView> = found
            .iter()
            .filter(|d| {
                d.hardware_id.eq_ignore_ascii_case(&wanted)
                    || d.serial.as_deref().is_some_and(|s| s.eq_ignore_ascii_case(&wanted))
            })
            .collect();
        let candidates: Vec<&DeviceView> = if exact.is_empty() { found.iter().collect() } else { exact };
        match candidates.as_slice() {
            [one] => Ok(one.id),
            [] => Err(Error::NotFound("device")),
            many => Err(Error::Conflict(format!(
                "{} devices match; name one by its id: {}",
                many.len(),
                many.iter().take(5).map(|d| d.id.to_string()).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    /// A device with everything that is known.
    pub async fn device(
        &self,
        permit: &Permit<may::ReadDevices>,
        id: DeviceId,
    ) -> Result<DeviceDetail, Error> {
        self.store
            .read(Scope::Site(permit.site), move |tx| {
                let device = tx.device(id)?.ok_or(Error::NotFound("device"))?;
                let enrollments = tx.enrollments_of_device(id)?;
                let newest = enrollments.first().cloned();
                let mut channels = Vec::new();
                let mut escrow = Vec::new();
                let mut certificates = Vec::new();
                if let Some(newest) = &newest {
                    for channel in tx.channels(newest.id)? {
                        channels.push(ChannelView {
                            kind: channel.kind,
                            user: channel.user_name.clone(),
                            enabled: channel.enabled,
                            pushable: channel.push_token.is_some() && !channel.push_dead && !newest.test_only,
                            wake_note: channel.wake_note.clone(),
                            pending: tx.pending_count(channel.id)?,
                        });
                    }
                    escrow = tx.escrow_list(newest.id)?.into_iter().map(|e| e.field).collect();
                    certificates = tx.certificates_of_enrollment(newest.id)?;
                }
                let mut views = Vec::new();
                for enrollment in enrollments {
                    views.push(enrollment_view(tx, enrollment)?);
                }
                Ok(DeviceDetail {
                    device: device_view(tx, device, newest)?,
                    enrollments: views,
                    channels,
                    facts: tx.facts(id)?,
                    escrow,
                    certificates: certificates.into_iter().map(certificate_view).collect(),
                })
            })
            .await
    }

    /// A page of the certificates that a device got for use elsewhere, in all its enrollments, newest first.
    pub async fn certificates_of_device(
        &self,
        permit: &Permit<may::ReadDevices>,
        id: DeviceId,
        cursor: Option<Vec<u8>>,
        limit: i64,
    ) -> Result<Listed<CertificateView>, Error> {
        self.store
            .read(Scope::Site(permit.site), move |tx| {
                tx.device(id)?.ok_or(Error::NotFound("device"))?;
                let rows = tx.certificates_of_device(id, &Page { after: cursor.clone(), limit })?;
                let next = next_page(&rows, limit, |certificate| certificate.id.as_bytes());
                Ok(Listed { items: rows.into_iter().map(certificate_view).collect(), next })
            })
            .await
    }
}

fn device_view(tx: &mut Tx<'_>, d: Device, enrollment: Option<Enrollment>) -> Result<DeviceView, Error> {
    Ok(DeviceView {
        id: d.id,
        platform: d.platform,
        hardware_id: d.hardware_id,
        serial: d.serial,
        product: d.product,
        model: d.model,
        name: d.name,
        os_version: d.os_version,
        os_build: d.os_build,
        supervised: d.supervised,
        ownership: d.ownership,
        created_at: d.created_at,
        claims_device_id: d.claims_device_id,
        enrollment: enrollment.map(|e| enrollment_view(tx, e)).transpose()?,
    })
}

fn enrollment_view(tx: &mut Tx<'_>, e: Enrollment) -> Result<EnrollmentView, Error> {
    let account = match e.person_id {
        Some(id) => tx.person(id)?.map(|p| p.account),
        None => None,
    };
    Ok(EnrollmentView {
        id: e.id,
        epoch: e.epoch,
        state: e.state,
        account,
        test_only: e.test_only,
        awaiting_configuration: e.awaiting_configuration,
        started_at: e.started_at,
        activated_at: e.activated_at,
        ended_at: e.ended_at,
        end_reason: e.end_reason,
        last_seen_at: e.last_seen_at,
        identity_expires_at: tx.identity(e.identity_id)?.map(|i| i.not_after),
    })
}

fn certificate_view(c: Certificate) -> CertificateView {
    CertificateView {
        id: c.id,
        enrollment_id: c.enrollment_id,
        requested: c.requested,
        common_name: c.common_name,
        authority_id: c.authority_id,
        serial: c.serial,
        fingerprint: hex(&c.fingerprint),
        not_before: c.not_before,
        not_after: c.not_after,
        state: c.state,
        issued_at: c.issued_at,
        revoked_at: c.revoked_at,
        revoked_reason: c.revoked_reason,
    }
}
