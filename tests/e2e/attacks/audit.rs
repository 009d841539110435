//! The audit against whoever can write the database.

use super::sql;
use crate::harness::House;
use bellwether_sim::Family;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A house with a witness and some history, all of it sealed; how many entries it has.
async fn with_history() -> (House, std::path::PathBuf, u64) {
    let folder = tempfile::tempdir().unwrap().keep();
    let file = folder.join("witness.jsonl");
    let path = file.clone();
    let house = House::with(|config| config.audit_witness = Some(path)).await;
    let mac = house.enrolled(Family::Mac).await;
    for _ in 0..6 {
        house.send(&mac, json!({ "type": "lock" })).await;
    }
    let entries = sealed(&house).await;
    assert!(entries >= 9, "{entries}");
    (house, file, entries)
}

/// Waits until nothing is unsealed.
async fn sealed(house: &House) -> u64 {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let report = verify(house).await;
        if report["unsealed"] == 0 {
            return report["entries"].as_u64().unwrap();
        }
        assert!(Instant::now() < until, "{report}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn verify(house: &House) -> Value {
    house.get("/audit/verify").await
}

/// What the verifier says while something is wrong; afterwards all is as before.
async fn found(house: &House, wrong: &str, right: &str) -> String {
    sql(house, wrong);
    let report = verify(house).await;
    assert_eq!(report["intact"], false, "{wrong}: {report}");
    sql(house, right);
    let healed = verify(house).await;
    assert_eq!(healed["intact"], true, "{wrong}: {healed}");
    report["broken"].as_str().unwrap().to_owned()
}

/// Every row that is changed, moved, taken out or put in is named, down to the first.
#[tokio::test(flavor = "multi_thread")]
async fn at_40_whoever_changes_the_audit_is_named() {
    let (house, _, entries) = with_history().await;
    let saved = "CREATE TABLE saved AS SELECT * FROM audit";
    sql(&house, saved);
    let back = "DELETE FROM audit; INSERT INTO audit SELECT * FROM saved";
    let said = found(&house, "UPDATE audit SET actor = 'key:somebody else' WHERE position = 5", back).await;
    assert!(said.starts_with("entry 5 ("), "{said}");
    let said = found(&house, "UPDATE audit SET at = at + 1 WHERE position = 4", back).await;
    assert!(said.starts_with("entry 4 ("), "{said}");
    // The details with their digest: as far as whoever has no key can make them fit.
    let said = found(&house, "UPDATE audit SET details = '{\"x\":1}' WHERE position = 6", back).await;
    assert!(said.contains("details of entry 6"), "{said}");
    let digest = "5041bf1f713df204784353e82f6a4a535931cb64f1f4b4a5aeaffcb720918b22";
    let bytes = if house.database.is_some() { format!("'\\x{digest}'") } else { format!("X'{digest}'") };
    let both =
        format!("UPDATE audit SET details = '{{\"x\":1}}', details_digest = {bytes} WHERE position = 6");
    let said = found(&house, &both, back).await;
    assert!(said.starts_with("entry 6 ("), "{said}");
    // Every link from there on is made anew, only not with the key.
    let forged = format!("UPDATE audit SET actor = 'x', chain = {bytes} WHERE position >= 3");
    let said = found(&house, &forged, back).await;
    assert!(said.starts_with("entry 3 ("), "{said}");
    let swap = "UPDATE audit SET position = -1 WHERE position = 7; UPDATE audit SET position = 7 WHERE position = 8; \
                UPDATE audit SET position = 8 WHERE position = -1";
    let said = found(&house, swap, back).await;
    assert!(said.starts_with("entry 7 ("), "{said}");
    let said = found(&house, "DELETE FROM audit WHERE position = 2", back).await;
    assert!(said.starts_with("entry 2 is missing"), "{said}");
    let closed = "DELETE FROM audit WHERE position = 2; UPDATE audit SET position = -position WHERE position > 2; \
                  UPDATE audit SET position = -position - 1 WHERE position < 0";
    let said = found(&house, closed, back).await;
    assert!(said.starts_with("entry 2 ("), "the gap was closed: {said}");
    // One more at the end, copied from another.
    let one = if house.database.is_some() {
        "decode('00', 'hex') || substr(id, 2)"
    } else {
        "CAST(X'00' || substr(id, 2) AS BLOB)"
    };
    let inserted = format!(
        "INSERT INTO audit (site_id, id, at, actor, kind, target, source, details_digest, details, position, chain) \
         SELECT site_id, {one}, at, actor, kind, target, source, details_digest, details, {}, chain FROM audit \
         WHERE position = 3",
        entries + 1
    );
    let said = found(&house, &inserted, back).await;
    assert!(said.starts_with(&format!("entry {} (", entries + 1)), "{said}");
    let said = found(&house, &format!("DELETE FROM audit WHERE position > {}", entries - 2), back).await;
    assert!(said.contains("the end was cut off"), "{said}");
    let none = "UPDATE audit_checkpoints SET at = at + 1";
    let said = found(&house, none, "UPDATE audit_checkpoints SET at = at - 1").await;
    assert!(said.contains("checkpoint"), "{said}");
    sql(&house, "DROP TABLE saved");
}

/// A shorter chain whose checkpoints were cut off as well is whole by itself. The witness knows better.
#[tokio::test(flavor = "multi_thread")]
async fn at_40_the_witness_sees_what_was_cut_off() {
    let (mut house, file, kept) = with_history().await;
    for _ in 0..3 {
        house.invite().await;
    }
    let entries = sealed(&house).await;
    assert!(kept < entries);
    let lines = std::fs::read_to_string(&file).unwrap();
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["position"], entries);
    // Down to an earlier checkpoint, which is the end of a chain that was good once.
    sql(
        &house,
        &format!(
            "DELETE FROM audit WHERE position > {kept}; DELETE FROM audit_checkpoints WHERE position > {kept}"
        ),
    );
    let report = verify(&house).await;
    assert_eq!(report["intact"], false, "{report}");
    let said = report["broken"].as_str().unwrap();
    assert!(said.contains(&format!("the witness saw {entries} entries")), "{said}");
    // The server goes on as if nothing had been: the same positions, other entries.
    for _ in 0..entries {
        house.invite().await;
    }
    sealed_anyway(&house).await;
    let report = verify(&house).await;
    let said = report["broken"].as_str().unwrap_or_default();
    assert!(said.contains("than the witness saw"), "{report}");
    // The program that asks no server says the same.
    let offline = async |house: &House| {
        let witness = format!("audit.witness={}", file.display());
        let data = house.config.data_dir.to_str().unwrap().to_owned();
        house.cli(&["--data-dir", &data, "--set", &witness, "audit", "verify"]).await
    };
    if house.database.is_none() {
        house.stop().await;
        let output = offline(&house).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success() && said.contains("than the witness saw"), "{said}");
        house.start().await;
    }
    // Without a witness nobody would know: this is what it is for.
    std::fs::write(&file, "").unwrap();
    assert_eq!(verify(&house).await["intact"], true);
    // And a witness that somebody wrote himself is no witness.
    let mut forged = last.clone();
    forged["position"] = json!(1);
    std::fs::write(&file, format!("{forged}\n")).unwrap();
    let report = verify(&house).await;
    assert!(report["broken"].as_str().unwrap().contains("line 1 of the witness"), "{report}");
}

async fn sealed_anyway(house: &House) {
    let until = Instant::now() + Duration::from_secs(20);
    while verify(house).await["unsealed"] != 0 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
