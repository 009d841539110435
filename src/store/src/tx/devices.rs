//! Devices, their enrollments and what is known about them.

use super::{Tx, after, found, limit};
use crate::StoreError;
use crate::backend::{Conn, Run as _, native};
use crate::cell::{Cell, records, row};
use crate::records::{Device, DeviceFilter, Enrollment, Page};
use crate::schema::{devices, enrollments, facts};
use bellwether_model::{
    DeviceId, EnrollmentId, EnrollmentState, Fact, IdentityId, InvitationId, Ownership, PersonId, Platform,
    SiteId, Timestamp,
};
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Text};
use diesel::upsert::excluded;
use std::collections::BTreeMap;

diesel::define_sql_function!(fn lower(text: Nullable<Text>) -> Nullable<Text>);

row!(DeviceRow: Device in devices key (id) {
    id: DeviceId,
    platform: Platform,
    hardware_id: String,
    claims_device_id: Option<DeviceId>,
    serial: Option<String>,
    product: Option<String>,
    model: Option<String>,
    name: Option<String>,
    os_version: Option<String>,
    os_build: Option<String>,
    supervised: Option<bool>,
    ownership: Ownership,
    created_at: Timestamp,
});

row!(EnrollmentRow: Enrollment in enrollments key (id) {
    id: EnrollmentId,
    device_id: DeviceId,
    epoch: i32,
    platform: Platform,
    state: EnrollmentState,
    user_enrollment: bool,
    invitation_id: Option<InvitationId>,
    person_id: Option<PersonId>,
    identity_id: IdentityId,
    staged_identity_id: Option<IdentityId>,
    topic: Option<String>,
    test_only: bool,
    awaiting_configuration: bool,
    started_at: Timestamp,
    activated_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    end_reason: Option<String>,
    last_seen_at: Option<Timestamp>,
});

impl Tx<'_> {
    /// Site. One proven row per platform and hardware id; claims have their own.
    pub fn device_insert(&mut self, device: &Device) -> Result<(), StoreError> {
        self.in_site("device_insert", |conn, site| {
            diesel::insert_into(devices::table).values(DeviceRow::of(site, device)).run(conn)?;
            Ok(())
        })
    }

    /// Site.
    pub fn device_update(&mut self, device: &Device) -> Result<(), StoreError> {
        self.in_site("device_update", |conn, site| {
            let target =
                devices::table.filter(devices::site_id.eq(site)).filter(devices::id.eq(device.id.raw()));
            found(diesel::update(target).set(DeviceRow::of(site, device)).run(conn)?, "device")
        })
    }

    /// Site.
    pub fn device(&mut self, id: DeviceId) -> Result<Option<Device>, StoreError> {
        self.in_site("device", |conn, site| {
            let row = native!(conn => devices::table
                .filter(devices::site_id.eq(site))
                .filter(devices::id.eq(id.raw()))
                .select(DeviceRow::as_select())
                .get_result(conn))
            .optional()?;
            row.map(DeviceRow::record).transpose()
        })
    }

    /// Site. The proven row; claims are not found.
    pub fn device_by_hardware(
        &mut self,
        platform: Platform,
        hardware_id: &str,
    ) -> Result<Option<Device>, StoreError> {
        self.in_site("device_by_hardware", |conn, site| {
            let row = devices::table
                .filter(devices::site_id.eq(site))
                .filter(devices::platform.eq(platform.raw()))
                .filter(devices::hardware_id.eq(hardware_id))
                .filter(devices::claims_device_id.is_null())
                .select(DeviceRow::as_select())
                .get_result(conn)
                .optional()?;
            row.map(DeviceRow::record).transpose()
        })
    }

    /// Site. With their newest enrollment, by id; `after` is the last id of the page before.
    pub fn devices(
        &mut self,
        filter: &DeviceFilter,
        page: &Page,
    ) -> Result<Vec<(Device, Option<Enrollment>)>, StoreError> {
        self.in_site("devices", |conn, site| {
            let mut query = devices::table
                .left_join(
                    enrollments::table.on(enrollments::site_id
                        .eq(devices::site_id)
                        .and(enrollments::device_id.eq(devices::id))
                        .and(enrollments::newest.eq(true))),
                )
                .filter(devices::site_id.eq(site))
                .filter(devices::id.gt(after(page)))
                .order(devices::id)
                .limit(limit(page))
                .select((DeviceRow::as_select(), Option::<EnrollmentRow>::as_select()))
                .into_boxed();
            if let Some(platform) = filter.platform {
                query = query.filter(devices::platform.eq(platform.raw()));
            }
            if let Some(state) = filter.state {
                query = query.filter(enrollments::state.eq(state.raw()));
            }
            if let Some(search) = filter.search.as_deref().map(str::trim).filter(|s| !s.is_empty()) {
                let wanted = search.to_lowercase();
                let part =
                    format!("%{}%", wanted.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"));
                query = query.filter(
                    lower(devices::serial)
                        .eq(wanted.clone())
                        .or(lower(devices::hardware_id.nullable()).eq(wanted))
                        .or(lower(devices::name).like(part).escape('\\')),
                );
            }
            let rows: Vec<(DeviceRow, Option<EnrollmentRow>)> = query.load(conn)?;
            rows.into_iter()
                .map(|(device, enrollment)| {
                    Ok((device.record()?, enrollment.map(EnrollmentRow::record).transpose()?))
                })
                .collect()
        })
    }

    /// Site.
    pub fn device_count(&mut self) -> Result<i64, StoreError> {
        self.in_site("device_count", |conn, site| {
            Ok(devices::table.filter(devices::site_id.eq(site)).count().get_result(conn)?)
        })
    }

    /// Site. At most one pending or active enrollment per device: a database rule.
    pub fn enrollment_insert(&mut self, enrollment: &Enrollment) -> Result<(), StoreError> {
        self.in_site("enrollment_insert", |conn, site| {
            let older = enrollments::table
                .filter(enrollments::site_id.eq(site))
                .filter(enrollments::device_id.eq(enrollment.device_id.raw()))
                .filter(enrollments::newest.eq(true));
            diesel::update(older).set(enrollments::newest.eq(false)).run(conn)?;
            diesel::insert_into(enrollments::table)
                .values((EnrollmentRow::of(site, enrollment), enrollments::newest.eq(true)))
                .run(conn)?;
            Ok(())
        })
    }

    /// Site. All but `last_seen_at`, which only [`Tx::touch_enrollments`] moves.
    pub fn enrollment_update(&mut self, enrollment: &Enrollment) -> Result<(), StoreError> {
        self.in_site("enrollment_update", |conn, site| {
            let Some(current) = enrollment_row(conn, site, enrollment.id)? else {
                return Err(StoreError::NotFound("enrollment"));
            };
            let mut row = EnrollmentRow::of(site, enrollment);
            row.last_seen_at = current.last_seen_at;
            let moved = row.device_id != current.device_id;
            let target = enrollments::table
                .filter(enrollments::site_id.eq(site))
                .filter(enrollments::id.eq(enrollment.id.raw()));
            diesel::update(target).set(row).run(conn)?;
            if moved {
                // An approved claim joins the proven device.
                mark_newest(conn, site, &current.device_id)?;
                mark_newest(conn, site, enrollment.device_id.as_bytes())?;
            }
            Ok(())
        })
    }

    /// Site.
    pub fn enrollment(&mut self, id: EnrollmentId) -> Result<Option<Enrollment>, StoreError> {
        self.in_site("enrollment", |conn, site| {
            enrollment_row(conn, site, id)?.map(EnrollmentRow::record).transpose()
        })
    }

    /// Site. Newest first.
    pub fn enrollments_of_device(&mut self, id: DeviceId) -> Result<Vec<Enrollment>, StoreError> {
        self.in_site("enrollments_of_device", |conn, site| {
            let rows: Vec<EnrollmentRow> = enrollments::table
                .filter(enrollments::site_id.eq(site))
                .filter(enrollments::device_id.eq(id.raw()))
                .order(enrollments::epoch.desc())
                .select(EnrollmentRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site. Pending or active.
    pub fn living_enrollment(&mut self, device: DeviceId) -> Result<Option<Enrollment>, StoreError> {
        self.in_site("living_enrollment", |conn, site| {
            let row = enrollments::table
                .filter(enrollments::site_id.eq(site))
                .filter(enrollments::device_id.eq(device.raw()))
                .filter(living())
                .select(EnrollmentRow::as_select())
                .get_result(conn)
                .optional()?;
            row.map(EnrollmentRow::record).transpose()
        })
    }

    /// Site. How many devices a person has, those that wait for an admin among them.
    pub fn person_enrollments(&mut self, person: PersonId) -> Result<i64, StoreError> {
        self.in_site("person_enrollments", |conn, site| {
            Ok(enrollments::table
                .filter(enrollments::site_id.eq(site))
                .filter(enrollments::person_id.eq(person.raw()))
                .filter(enrollments::state.ne("ended"))
                .count()
                .get_result(conn)?)
        })
    }

    /// Site. Counts from 1; two at once are stopped by a database rule.
    pub fn next_epoch(&mut self, device: DeviceId) -> Result<i32, StoreError> {
        self.in_site("next_epoch", |conn, site| {
            let last: Option<i32> = enrollments::table
                .filter(enrollments::site_id.eq(site))
                .filter(enrollments::device_id.eq(device.raw()))
                .select(diesel::dsl::max(enrollments::epoch))
                .get_result(conn)?;
            Ok(last.unwrap_or(0).saturating_add(1))
        })
    }

    /// Site. Living enrollments that can be pushed, by topic.
    pub fn topic_counts(&mut self) -> Result<Vec<(String, i64)>, StoreError> {
        self.in_site("topic_counts", |conn, site| topic_counts(conn, Some(site)))
    }

    /// System. The same over all sites.
    pub fn topic_counts_everywhere(&mut self) -> Result<Vec<(String, i64)>, StoreError> {
        self.in_system("topic_counts_everywhere", |conn| topic_counts(conn, None))
    }

    /// System. Living enrollments of a platform that were made to last.
    pub fn living_everywhere(&mut self, platform: Platform) -> Result<i64, StoreError> {
        self.in_system("living_everywhere", |conn| {
            Ok(enrollments::table
                .filter(living())
                .filter(enrollments::platform.eq(platform.raw()))
                .filter(enrollments::test_only.eq(false))
                .count()
                .get_result(conn)?)
        })
    }

    /// System. "Last seen", batched by the caller (at most 500); never moves backwards.
    pub fn touch_enrollments(
        &mut self,
        seen: &[(SiteId, EnrollmentId, Timestamp)],
    ) -> Result<(), StoreError> {
        self.in_system("touch_enrollments", |conn| {
            for (site, id, at) in seen {
                let target = enrollments::table
                    .filter(enrollments::site_id.eq(site.raw()))
                    .filter(enrollments::id.eq(id.raw()))
                    .filter(enrollments::last_seen_at.is_null().or(enrollments::last_seen_at.lt(at.0)));
                diesel::update(target).set(enrollments::last_seen_at.eq(at.0)).run(conn)?;
            }
            Ok(())
        })
    }

    /// Site. Only values that were reported later replace the stored ones.
    pub fn facts_put(&mut self, device: DeviceId, new: &[Fact]) -> Result<(), StoreError> {
        use diesel::query_dsl::methods::FilterDsl as _;
        self.in_site("facts_put", |conn, site| {
            // One statement must not meet a row twice: the same key again replaces what was said before it.
            let mut last: BTreeMap<&str, &Fact> = BTreeMap::new();
            for fact in new {
                let kept = last.entry(&fact.key).or_insert(fact);
                if kept.reported_at <= fact.reported_at {
                    *kept = fact;
                }
            }
            let row = |fact: &Fact| {
                (
                    facts::site_id.eq(site.to_vec()),
                    facts::device_id.eq(device.raw()),
                    facts::key.eq(fact.key.clone()),
                    facts::value.eq(fact.value.to_string()),
                    facts::reported_at.eq(fact.reported_at.0),
                )
            };
            let newer = || {
                (facts::value.eq(excluded(facts::value)), facts::reported_at.eq(excluded(facts::reported_at)))
            };
            let id = (facts::site_id, facts::device_id, facts::key);
            match conn {
                Conn::Sqlite(_) => {
                    for fact in last.values() {
                        diesel::insert_into(facts::table)
                            .values(row(fact))
                            .on_conflict(id)
                            .do_update()
                            .set(newer())
                            .filter(facts::reported_at.le(excluded(facts::reported_at)))
                            .run(conn)?;
                    }
                }
                // Every statement is a way to the server and back.
                Conn::Postgres(pg) => {
                    let rows: Vec<&Fact> = last.into_values().collect();
                    for some in rows.chunks(500) {
                        diesel::insert_into(facts::table)
                            .values(some.iter().map(|fact| row(fact)).collect::<Vec<_>>())
                            .on_conflict(id)
                            .do_update()
                            .set(newer())
                            .filter(facts::reported_at.le(excluded(facts::reported_at)))
                            .execute(pg)?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Site. By key.
    pub fn facts(&mut self, device: DeviceId) -> Result<Vec<Fact>, StoreError> {
        self.in_site("facts", |conn, site| {
            let rows: Vec<(String, String, i64)> = facts::table
                .filter(facts::site_id.eq(site))
                .filter(facts::device_id.eq(device.raw()))
                .order(facts::key)
                .select((facts::key, facts::value, facts::reported_at))
                .load(conn)?;
            rows.into_iter()
                .map(|(key, value, at)| {
                    let value = serde_json::from_str(&value)
                        .map_err(|why| StoreError::Corrupt(format!("the fact {key}: {why}")))?;
                    Ok(Fact { key, value, reported_at: Timestamp(at) })
                })
                .collect()
        })
    }
}

/// Enrollments that the rule "one per device" counts.
#[diesel::dsl::auto_type(no_type_alias)]
fn living() -> _ {
    enrollments::state.eq("pending").or(enrollments::state.eq("active"))
}

fn enrollment_row(
    conn: &mut Conn,
    site: &[u8],
    id: EnrollmentId,
) -> Result<Option<EnrollmentRow>, StoreError> {
    Ok(native!(conn => enrollments::table
        .filter(enrollments::site_id.eq(site))
        .filter(enrollments::id.eq(id.raw()))
        .select(EnrollmentRow::as_select())
        .get_result(conn))
    .optional()?)
}

fn mark_newest(conn: &mut Conn, site: &[u8], device: &[u8]) -> Result<(), StoreError> {
    let of_device =
        || enrollments::table.filter(enrollments::site_id.eq(site)).filter(enrollments::device_id.eq(device));
    let last: Option<i32> = of_device().select(diesel::dsl::max(enrollments::epoch)).get_result(conn)?;
    diesel::update(of_device()).set(enrollments::newest.eq(false)).run(conn)?;
    if let Some(epoch) = last {
        let target = of_device().filter(enrollments::epoch.eq(epoch));
        diesel::update(target).set(enrollments::newest.eq(true)).run(conn)?;
    }
    Ok(())
}

fn topic_counts(conn: &mut Conn, site: Option<&[u8]>) -> Result<Vec<(String, i64)>, StoreError> {
    let base = enrollments::table
        .filter(living())
        .filter(enrollments::test_only.eq(false))
        .filter(enrollments::topic.is_not_null());
    let counts = (enrollments::topic, diesel::dsl::count_star());
    let rows: Vec<(Option<String>, i64)> = match site {
        Some(site) => base
            .filter(enrollments::site_id.eq(site))
            .group_by(enrollments::topic)
            .select(counts)
            .load(conn)?,
        None => base.group_by(enrollments::topic).select(counts).load(conn)?,
    };
    let mut rows: Vec<(String, i64)> = rows.into_iter().filter_map(|(t, n)| t.map(|t| (t, n))).collect();
    rows.sort();
    Ok(rows)
}
