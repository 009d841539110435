//! Between a record's fields and a table's columns: ids are 16 bytes, times are milliseconds, words are text.

use crate::StoreError;
use bellwether_model::device::{CertificateState, ChallengePurpose, ChallengeState, IdentityState};
use bellwether_model::permit::Grants;
use bellwether_model::*;

/// A field that has a column.
pub(crate) trait Cell: Sized {
    /// What the column holds.
    type Raw;
    /// Into the column.
    fn raw(&self) -> Self::Raw;
    /// Out of the column.
    fn cooked(raw: Self::Raw) -> Result<Self, StoreError>;
}

macro_rules! plain {
    ($($ty:ty),+) => {$(
        impl Cell for $ty {
            type Raw = $ty;
            fn raw(&self) -> $ty {
                self.clone()
            }
            fn cooked(raw: $ty) -> Result<Self, StoreError> {
                Ok(raw)
            }
        }
    )+};
}
plain!(String, i32, i64, bool, Vec<u8>);

macro_rules! ids {
    ($($ty:ty),+ $(,)?) => {$(
        impl Cell for $ty {
            type Raw = Vec<u8>;
            fn raw(&self) -> Vec<u8> {
                self.as_bytes().to_vec()
            }
            fn cooked(raw: Vec<u8>) -> Result<Self, StoreError> {
                Self::from_slice(&raw)
                    .ok_or_else(|| StoreError::Corrupt(format!("a {} has {} bytes", stringify!($ty), raw.len())))
            }
        }
    )+};
}
ids!(
    SiteId,
    DeviceId,
    EnrollmentId,
    ChannelId,
    InvitationId,
    ChallengeId,
    IdentityId,
    CertificateId,
    AuthorityId,
    PersonId,
    CommandId,
    PartId,
    DeliveryId,
    JobId,
    AuditId,
    EventId,
    ApiKeyId,
    PackageId,
    EnrollmentAccountId,
);

macro_rules! texts {
    ($($ty:ty),+ $(,)?) => {$(
        impl Cell for $ty {
            type Raw = String;
            fn raw(&self) -> String {
                self.as_str().to_owned()
            }
            fn cooked(raw: String) -> Result<Self, StoreError> {
                raw.parse().map_err(|why: bellwether_model::platform::UnknownWord| {
                    StoreError::Corrupt(format!("{raw:?} is {why}"))
                })
            }
        }
    )+};
}
texts!(
    PackageKind,
    Platform,
    ChannelKind,
    Lane,
    Guarantee,
    CommandState,
    PartState,
    EnrollmentState,
    InvitationState,
    Ownership,
    ChallengeState,
    ChallengePurpose,
    IdentityState,
    CertificateState,
    EventKind,
);

impl Cell for Timestamp {
    type Raw = i64;
    fn raw(&self) -> i64 {
        self.0
    }
    fn cooked(raw: i64) -> Result<Self, StoreError> {
        Ok(Self(raw))
    }
}

impl Cell for Grants {
    type Raw = String;
    fn raw(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }
    fn cooked(raw: String) -> Result<Self, StoreError> {
        let grants: Result<Vec<_>, _> = raw.split_whitespace().map(str::parse).collect();
        grants
            .map(Self)
            .map_err(|why: bellwether_model::permit::NotAGrant| StoreError::Corrupt(why.to_string()))
    }
}

impl<T: Cell> Cell for Option<T> {
    type Raw = Option<T::Raw>;
    fn raw(&self) -> Self::Raw {
        self.as_ref().map(Cell::raw)
    }
    fn cooked(raw: Self::Raw) -> Result<Self, StoreError> {
        raw.map(T::cooked).transpose()
    }
}

/// Declares a row: a record with its site, as diesel sees it.
macro_rules! row {
    ($row:ident : $record:ident in $table:ident key ($($key:ident),+) { $($field:ident : $ty:ty),+ $(,)? }) => {
        #[derive(diesel::Queryable, diesel::Selectable, diesel::Insertable, diesel::AsChangeset)]
        #[diesel(table_name = crate::schema::$table, primary_key(site_id, $($key),+))]
        pub(crate) struct $row {
            pub site_id: Vec<u8>,
            $(pub $field: <$ty as $crate::cell::Cell>::Raw),+
        }

        impl $row {
            /// The row of a record in a site.
            pub(crate) fn of(site: &[u8], record: &$record) -> Self {
                Self {
                    site_id: site.to_vec(),
                    $($field: <$ty as $crate::cell::Cell>::raw(&record.$field)),+
                }
            }

            /// The record in this row.
            pub(crate) fn record(self) -> Result<$record, $crate::StoreError> {
                Ok($record { $($field: <$ty as $crate::cell::Cell>::cooked(self.$field)?),+ })
            }

            /// The record with its site.
            #[allow(dead_code, reason = "not every table is read across sites")]
            pub(crate) fn with_site(self) -> Result<(bellwether_model::SiteId, $record), $crate::StoreError> {
                let site = <bellwether_model::SiteId as $crate::cell::Cell>::cooked(self.site_id.clone())?;
                Ok((site, self.record()?))
            }
        }
    };
}
pub(crate) use row;

/// Opens a list of rows.
macro_rules! records {
    ($rows:expr) => {
        $rows.into_iter().map(|row| row.record()).collect::<Result<Vec<_>, $crate::StoreError>>()
    };
}
pub(crate) use records;
