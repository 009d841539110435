//! A PC in Python that shares no code with us (lxml, cryptography, requests, openssl, libwbxml).

use crate::harness::{House, judge, root};
use crate::judges::{python, script};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// What it checks of itself: vectors, builders, and its own tree.
#[test]
fn the_python_pc_knows_its_own_vectors() {
    let Some(python) = python("lxml, cryptography, requests") else {
        return judge::missing("windows_pc.py", "no Python with lxml, cryptography and requests");
    };
    let mut command = Command::new(python);
    command.arg(script("windows_pc.py")).arg("--self-test");
    let Some(output) = judge::run("windows_pc.py", &mut command) else { return };
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let checks = report["checks"].as_array().map_or(0, Vec::len);
    assert!(output.status.success() && checks > 30, "{report:#}");
    judge::looked("windows_pc.py (self-test)", checks);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_pc_takes_the_road_in_xml() {
    road("xml").await;
}

/// The same with xml2wbxml and wbxml2xml between.
#[tokio::test(flavor = "multi_thread")]
async fn the_python_pc_takes_the_road_in_wbxml_through_libwbxml() {
    road("wbxml").await;
}

async fn road(format: &'static str) {
    let Some(python) = python("lxml, cryptography, requests") else {
        return judge::missing("windows_pc.py", "no Python with lxml, cryptography and requests");
    };
    let house = House::new().await;
    let wish = json!({ "platform": "windows", "account": "ann@example.org", "ownership": "company" });
    let made = house.post("/invitations", wish).await.good();
    let link = made["link"].as_str().unwrap().to_owned();
    let code = link.rsplit('/').next().unwrap().to_owned();
    let (ca, key) = (house.folder().join("ca.pem"), house.folder().join("api-key"));
    std::fs::write(&ca, &house.ca_pem).unwrap();
    std::fs::write(&key, house.key.expose_secret()).unwrap();
    let mut command = Command::new(python);
    command
        .arg(script("windows_pc.py"))
        .args(["--discovery", &format!("{}/EnrollmentServer/Discovery.svc", house.url)])
        // In one word: a code may begin with a dash.
        .arg(format!("--code={code}"))
        .args(["--user", "ann@example.org", "--api", &house.url, "--format", format])
        .arg("--ca")
        .arg(&ca)
        .arg("--key")
        .arg(&key);
    let catalogue = root().join("../shared/data/windows-csp-ddf.txt");
    if catalogue.is_file() {
        command.arg("--catalogue").arg(catalogue);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return judge::missing("windows_pc.py", &error.to_string()),
    };
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(2) {
        return judge::missing("windows_pc.py", &said);
    }
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let checks = report["checks"].as_array().cloned().unwrap_or_default();
    let failed: Vec<&Value> = checks.iter().filter(|check| check["ok"] != true).collect();
    assert!(output.status.success() && failed.is_empty(), "{failed:#?}\n{said}");
    assert!(checks.len() > 500, "{}", checks.len());
    judge::looked(&format!("windows_pc.py ({format})"), checks.len());
    let about = |what: &str| {
        let named = |check: &&Value| check["name"].as_str().is_some_and(|name| name.starts_with(what));
        checks.iter().filter(named).count()
    };
    let scep = about("SCEP: ");
    assert!(scep > 20, "{scep}");
    assert_eq!(about("diagnostics: "), 11);
    judge::looked("strongSwan pki --scep (a PC's certificate)", scep);
}
