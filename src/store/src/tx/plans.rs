//! How SQLite finds the rows of one owner: by the owner's index, never by walking a whole site (Q15).

use super::Tx;
use crate::backend::Conn;
use crate::backend::sqlite::Sqlite;
use crate::records::{Page, Peek, QueueRules};
use crate::{Scope, StoreError};
use bellwether_model::{Platform, Timestamp};
use diesel::connection::{Connection as _, InstrumentationEvent};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Integer, Text};
use diesel::sqlite::Sqlite as Db;
use std::sync::{Arc, Mutex};
use uuid::Uuid;

/// The text of a statement, which the database only plans.
struct Explain(String);

impl QueryFragment<Db> for Explain {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Db>) -> QueryResult<()> {
        out.push_sql("EXPLAIN QUERY PLAN ");
        out.push_sql(&self.0);
        Ok(())
    }
}
impl QueryId for Explain {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}
impl Query for Explain {
    type SqlType = (Integer, Integer, Integer, Text);
}
impl RunQueryDsl<SqliteConnection> for Explain {}

/// The statements of a method, and how SQLite would answer them.
fn plans(conn: &mut Conn, scope: Scope, call: &mut dyn FnMut(&mut Tx<'_>)) -> Vec<(String, Vec<String>)> {
    let said = Arc::new(Mutex::new(Vec::new()));
    let into = said.clone();
    let Conn::Sqlite(sqlite) = conn else { panic!("SQLite") };
    sqlite.set_instrumentation(move |event: InstrumentationEvent<'_>| {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            into.lock().expect("whole").push(query.to_string());
        }
    });
    call(&mut Tx::new(conn, scope));
    let Conn::Sqlite(sqlite) = conn else { panic!("SQLite") };
    sqlite.set_instrumentation(|_: InstrumentationEvent<'_>| {});
    let said = said.lock().expect("whole").clone();
    said.into_iter()
        .map(|text| text.split(" -- binds").next().unwrap_or_default().to_owned())
        .filter(|text| text.starts_with("SELECT"))
        .map(|text| {
            let lines: Vec<(i32, i32, i32, String)> = Explain(text.clone()).load(sqlite).expect("planned");
            (text, lines.into_iter().map(|line| line.3).collect())
        })
        .collect()
}

fn id<T: From<Uuid>>() -> T {
    T::from(Uuid::now_v7())
}

/// A query that is told what hangs on one device, person, invitation or command reads that and nothing else.
#[test]
fn q15_what_hangs_on_one_owner_is_found_by_its_index() {
    type Call = fn(&mut Tx<'_>) -> Result<(), StoreError>;
    let calls: &[(&str, Call)] = &[
        ("identities_of_invitation", |tx| tx.identities_of_invitation(id()).map(drop)),
        ("identities_of_enrollment", |tx| tx.identities_of_enrollment(id()).map(drop)),
        ("challenges_of_invitation", |tx| tx.challenges_of_invitation(id()).map(drop)),
        ("certificates_of_enrollment", |tx| tx.certificates_of_enrollment(id()).map(drop)),
        ("revoked_identities", |tx| tx.revoked_identities(id()).map(drop)),
        ("revoked_certificates", |tx| tx.revoked_certificates(id()).map(drop)),
        ("enrollments_of_device", |tx| tx.enrollments_of_device(id()).map(drop)),
        ("channels", |tx| tx.channels(id()).map(drop)),
        ("facts", |tx| tx.facts(id()).map(drop)),
        ("escrow_list", |tx| tx.escrow_list(id()).map(drop)),
        ("protocol_states", |tx| tx.protocol_states(id()).map(drop)),
        ("applied_settings", |tx| tx.applied_settings(id()).map(drop)),
        ("person_by_account", |tx| tx.person_by_account("ann").map(drop)),
        ("person_by_directory", |tx| tx.person_by_directory("entra:t:o").map(drop)),
        ("person_enrollments", |tx| tx.person_enrollments(id()).map(drop)),
        ("person_invitations", |tx| tx.person_invitations(id(), "entra:", Timestamp(1)).map(drop)),
        ("invitation_of_code_hash", |tx| tx.invitation_of_code_hash(&[1]).map(drop)),
        ("device_by_hardware", |tx| tx.device_by_hardware(Platform::Windows, "X").map(drop)),
        ("parts", |tx| tx.parts(id()).map(drop)),
        ("accepted_parts", |tx| tx.accepted_parts(id()).map(drop)),
        ("pending_count", |tx| tx.pending_count(id()).map(drop)),
        ("peek", |tx| {
            let peek = Peek { now: Timestamp(1), answering: Vec::new(), skip_not_now: false };
            let rules =
                QueueRules { max_sends: 3, park_for: 1, not_now_pause: 1, silent_pause: 1, accepted_for: 1 };
            tx.peek(id(), &peek, &rules).map(drop)
        }),
        ("enrollment_account_used", |tx| tx.enrollment_account_used(id(), Timestamp(1)).map(drop)),
        ("a page of people", |tx| tx.people(&Page { after: Some(vec![1]), limit: 5 }).map(drop)),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let store = Sqlite::open(folder.path(), 1).expect("opens");
    let mut conn = store.reader().expect("a reader");
    let mut wrong = Vec::new();
    for (name, call) in calls {
        let plans = plans(&mut conn, Scope::Site(id()), &mut |tx| call(tx).expect(name));
        assert!(!plans.is_empty(), "{name} asks nothing");
        for (text, lines) in plans {
            // `(site_id=?)` alone finds every row of the site.
            if lines.iter().any(|line| line.contains("SCAN") || line.ends_with("(site_id=?)")) {
                wrong.push(format!("{name}: {lines:?}: {text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
