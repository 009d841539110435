//! PostgreSQL's row-level security behind our own filters: queries that forgot theirs, on every table there is.
//!
//! The tables are read from the schema, so that a new one without a wall is found by its own migration.

use crate::harness::Bed;
use crate::walls::walled;
use crate::world::id;
use bellwether_model::SiteId;
use bellwether_store::Scope;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};

diesel::define_sql_function!(fn set_config(name: Text, value: Text, is_local: Bool) -> Text);

/// One row of each of two sites in every table, whatever its columns are. References are not looked at: the rows refer
/// to nothing. What B has is written down beside.
const FILL: &str = r"
CREATE TABLE public.walls_kept (name TEXT NOT NULL, was TEXT NOT NULL);
CREATE VIEW public.walls_tables AS
    SELECT c.relname::text AS name, CASE WHEN c.relname = 'sites' THEN 'id' ELSE (
        SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attname = 'site_id' AND NOT a.attisdropped) END AS owner
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'f', 'm')
        AND c.relname NOT IN ('__diesel_schema_migrations', 'walls_kept');
GRANT SELECT ON public.walls_tables TO PUBLIC;
DO $$
DECLARE t RECORD; site TEXT; names TEXT; vals TEXT; kept TEXT;
BEGIN
    FOR t IN SELECT * FROM walls_tables LOOP
        EXECUTE format('ALTER TABLE %I DISABLE TRIGGER ALL', t.name);
        FOREACH site IN ARRAY ARRAY[current_setting('walls.a'), current_setting('walls.b')] LOOP
            SELECT string_agg(quote_ident(attname), ', '), string_agg(CASE format_type(atttypid, NULL)
                    WHEN 'bytea' THEN format('decode(%L, %L)', site, 'hex')
                    WHEN 'text' THEN quote_literal(site)
                    WHEN 'boolean' THEN 'true'
                    ELSE '7' END, ', ')
                INTO names, vals
                FROM pg_attribute WHERE attrelid = t.name::regclass AND attnum > 0 AND NOT attisdropped;
            EXECUTE format('INSERT INTO %I (%s) VALUES (%s)', t.name, names, vals);
        END LOOP;
        IF t.owner IS NOT NULL THEN
            EXECUTE format('SELECT x::text FROM %I x WHERE %I = decode(%L, %L)', t.name, t.owner,
                current_setting('walls.b'), 'hex') INTO STRICT kept;
            INSERT INTO walls_kept VALUES (t.name, kept);
        END IF;
    END LOOP;
END $$";

/// As the store's role, in the scope of site A. Nothing here says whose rows are meant.
const BROKEN: &str = r"
DO $$
DECLARE t RECORD; n BIGINT; mine BIGINT;
BEGIN
    FOR t IN SELECT * FROM walls_tables LOOP
        EXECUTE format('SELECT count(*) FROM %I', t.name) INTO n;
        IF t.owner IS NULL THEN
            -- Of the whole server: none of a site's business. Two tables hold nothing but keyed hashes and counters,
            -- and sites' own transactions use them.
            IF n <> 0 AND t.name NOT IN ('idempotency', 'rates') THEN
                RAISE EXCEPTION '% shows a site % rows of the server', t.name, n;
            END IF;
            CONTINUE;
        END IF;
        EXECUTE format('SELECT count(*) FROM %I WHERE %I = decode(%L, %L)', t.name, t.owner,
            current_setting('walls.a'), 'hex') INTO mine;
        IF mine <> 1 OR n <> 1 THEN RAISE EXCEPTION '% shows % rows, % of them its own', t.name, n, mine; END IF;
        EXECUTE format('SELECT count(*) FROM %I WHERE %I = decode(%L, %L)', t.name, t.owner,
            current_setting('walls.b'), 'hex') INTO n;
        IF n <> 0 THEN RAISE EXCEPTION '% shows a row of the other site to whoever asks for it', t.name; END IF;
        EXECUTE format('UPDATE %I SET %I = %I', t.name, t.owner, t.owner);
        GET DIAGNOSTICS n = ROW_COUNT;
        IF n <> 1 THEN RAISE EXCEPTION '%: an update met % rows', t.name, n; END IF;
        BEGIN
            EXECUTE format('UPDATE %I SET %I = decode(%L, %L)', t.name, t.owner, current_setting('walls.b'), 'hex');
            RAISE EXCEPTION '%: a row was moved to the other site', t.name;
        EXCEPTION WHEN insufficient_privilege THEN NULL;
        END;
        BEGIN
            EXECUTE format('INSERT INTO %I SELECT (jsonb_populate_record(x, jsonb_build_object(%L, %L))).* FROM %I x',
                t.name, t.owner, '\x' || current_setting('walls.b'), t.name);
            RAISE EXCEPTION '%: a row was written into the other site', t.name;
        EXCEPTION WHEN insufficient_privilege THEN NULL;
        END;
        EXECUTE format('DELETE FROM %I', t.name);
        GET DIAGNOSTICS n = ROW_COUNT;
        IF n <> 1 THEN RAISE EXCEPTION '%: a delete met % rows', t.name, n; END IF;
    END LOOP;
END $$";

/// Every row of B is there, to the byte; of A there is none.
const COMPARE: &str = r"
DO $$
DECLARE t RECORD; now TEXT; n BIGINT;
BEGIN
    FOR t IN SELECT * FROM walls_tables JOIN walls_kept USING (name) LOOP
        EXECUTE format('SELECT count(*), max(x::text) FROM %I x', t.name) INTO n, now;
        IF n <> 1 OR now <> t.was THEN RAISE EXCEPTION '%: % rows are left: %', t.name, n, now; END IF;
    END LOOP;
END $$";

/// Without any scope nothing is seen, and with that of a site that does not exist neither.
const NOTHING: &str = r"
DO $$
DECLARE t RECORD; n BIGINT;
BEGIN
    FOR t IN SELECT * FROM walls_tables WHERE owner IS NOT NULL LOOP
        EXECUTE format('SELECT count(*) FROM %I', t.name) INTO n;
        IF n <> 0 THEN RAISE EXCEPTION '% shows % rows to nobody', t.name, n; END IF;
    END LOOP;
END $$";

/// The scripts' own settings: they name the two sites.
fn name_sites(pg: &mut PgConnection, a: SiteId, b: SiteId) {
    diesel::select((
        set_config("walls.a", a.0.simple().to_string(), false),
        set_config("walls.b", b.0.simple().to_string(), false),
    ))
    .execute(pg)
    .expect("settings");
}

diesel::table! {
    walls_kept (name) {
        name -> Text,
    }
}

#[test]
fn row_level_security_holds_on_every_table_for_a_query_that_forgot_its_site() {
    let Some(bed) = Bed::postgres() else { return };
    let (a, b): (SiteId, SiteId) = (id(), id());
    let mut admin = PgConnection::establish(&bed.admin_url()).expect("the admin connects");
    name_sites(&mut admin, a, b);
    admin.batch_execute(FILL).expect("a row in every table");
    let tables: Vec<String> =
        walls_kept::table.select(walls_kept::name).load(&mut admin).expect("their names");
    // That the list itself was read: the first and the newest tables are on it.
    for known in ["sites", "devices", "commands", "audit", "certificates", "upload_pieces"] {
        assert!(tables.iter().any(|name| name == known), "{known}: {tables:?}");
    }
    let asked = |scope: Scope, script: &str| {
        walled(&bed.raw_url(), scope, |pg| {
            name_sites(pg, a, b);
            pg.batch_execute(script)
        })
    };
    asked(Scope::Site(id()), NOTHING).expect("a stranger sees nothing");
    let mut pg = PgConnection::establish(&bed.raw_url()).expect("the role connects");
    pg.batch_execute(NOTHING).expect("nobody sees nothing");
    asked(Scope::Site(a), BROKEN).expect("A meets A's rows only");
    admin.batch_execute(COMPARE).expect("B is as it was");
}

/// The same scripts find a wall that is missing: on a table whose policy was dropped, and on one whose security is off.
#[test]
fn a_table_without_its_wall_is_found() {
    const HOLES: [&str; 4] = [
        "ALTER TABLE facts DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE escrow NO FORCE ROW LEVEL SECURITY",
        "CREATE POLICY open ON parts USING (true)",
        "CREATE TABLE fresh (site_id BYTEA NOT NULL, id BYTEA NOT NULL)",
    ];
    for hole in HOLES {
        let Some(bed) = Bed::postgres() else { return };
        let mut pg = PgConnection::establish(&bed.raw_url()).expect("the owner connects");
        pg.batch_execute(hole).expect(hole);
        let (a, b): (SiteId, SiteId) = (id(), id());
        let mut admin = PgConnection::establish(&bed.admin_url()).expect("the admin connects");
        name_sites(&mut admin, a, b);
        admin.batch_execute(FILL).expect("a row in every table");
        let refused = walled(&bed.raw_url(), Scope::Site(a), |pg| {
            name_sites(pg, a, b);
            pg.batch_execute(BROKEN)
        });
        let table = hole.split(' ').find(|word| ["facts", "escrow", "parts", "fresh"].contains(word));
        let said = refused.expect_err(hole).to_string();
        assert!(said.starts_with(&format!("{} ", table.expect("a table"))), "{hole}: {said}");
    }
}
