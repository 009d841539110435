//! What the statuses of a part, or a node read later, say about it.

use bellwether_windows::syncml::{Command, Verb};

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartOutcome {
    /// Done.
    Acknowledged,
    /// Begun: the outcome follows by alert or by reading a node.
    Accepted,
    /// Not done.
    Failed,
}

/// The status of one command of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepStatus {
    /// Which: its index, then the index inside a group.
    pub path: Vec<u16>,
    /// Its verb, as [`verbs_by_path`] tells it.
    pub verb: Verb,
    /// Its node; empty for a group.
    pub uri: String,
    /// The status code.
    pub code: u16,
    /// The HRESULT behind it.
    pub original_error: Option<String>,
}

/// Path, verb and node of every command. A group, which has neither, counts as an `Exec` of no node: its status fails
/// the part unless it is good.
pub(crate) fn verbs_by_path(commands: &[Command]) -> Vec<(Vec<u16>, Verb, String)> {
    let mut found = Vec::new();
    walk(commands, &[], &mut found);
    found
}

fn walk(commands: &[Command], above: &[u16], found: &mut Vec<(Vec<u16>, Verb, String)>) {
    for (index, command) in (0_u16..).zip(commands) {
        let path = [above, &[index]].concat();
        match command {
            Command::Request(request) => {
                let uri = request.items.first().and_then(|item| item.uri()).unwrap_or_default();
                found.push((path, request.verb, uri.to_owned()));
            }
            Command::Group(group) => {
                found.push((path.clone(), Verb::Exec, String::new()));
                walk(&group.commands, &path, found);
            }
            _ => {}
        }
    }
}

/// Judges a part whose commands have all been answered.
pub(crate) fn judge_part(awaits: bool, statuses: &[StepStatus]) -> PartOutcome {
    let some_get = statuses.iter().any(|status| status.verb == Verb::Get && is_good(status.code));
    let fine = |(index, status): (usize, &StepStatus)| {
        is_good(status.code)
            || match (status.verb, status.code) {
                // A 404 for one question does not spoil the others.
                (Verb::Get, _) => some_get,
                (Verb::Delete, 404) => true,
                (Verb::Add, 418) => statuses.iter().skip(index + 1).any(|later| {
                    same_node(status, later) && matches!(later.verb, Verb::Replace | Verb::Exec)
                }),
                // A node that takes no Replace has just been added with the same data.
                (Verb::Replace, 405) => statuses.iter().take(index).any(|earlier| {
                    same_node(status, earlier) && earlier.verb == Verb::Add && is_good(earlier.code)
                }),
                _ => false,
            }
    };
    if statuses.is_empty() || !statuses.iter().enumerate().all(fine) {
        PartOutcome::Failed
    } else if awaits || statuses.iter().any(|status| status.code == 202) {
        PartOutcome::Accepted
    } else {
        PartOutcome::Acknowledged
    }
}

/// Success, and 213: a piece was taken. 214 to 216 mean cancelled, not executed and rolled back.
fn is_good(code: u16) -> bool {
    (200..=213).contains(&code)
}

fn same_node(one: &StepStatus, other: &StepStatus) -> bool {
    one.uri.eq_ignore_ascii_case(&other.uri)
}

/// What a watched node says; none while it goes on, or for a node that is not watched. `error` is the `ErrorCode`
/// beside it, when it was told.
pub(crate) fn watch_outcome(
    request: &str,
    uri: &str,
    value: &str,
    error: Option<&str>,
) -> Option<PartOutcome> {
    let uri = uri.to_ascii_lowercase();
    let number: i64 = value.trim().parse().ok()?;
    let (done, failed) = if uri.ends_with("/bitlocker/status/rotaterecoverypasswordsstatus") {
        (number == 0, !(0..=2).contains(&number))
    } else if !uri.ends_with("/status") {
        return None;
    } else if uri.contains("/enterprisedesktopappmanagement/msi/") {
        (number == 70, matches!(number, 30 | 60))
    } else if uri.contains("/enterprisemodernappmanagement/appinstallation/") {
        (number == 3, number == 2)
    } else if uri.contains("/clientcertificateinstall/scep/") && request.ends_with("/Enroll") {
        // "Unknown" is no outcome as long as no error is told: the machine has not begun, or does not say.
        let error = error.and_then(|code| code.trim().parse::<i64>().ok()).unwrap_or(0);
        (number == 1, number == 16 || (number == 32 && error != 0))
    } else {
        return None;
    };
    match (done, failed) {
        (true, _) => Some(PartOutcome::Acknowledged),
        (_, true) => Some(PartOutcome::Failed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::windows::plan::{PartOutcome, StepStatus, judge_part, watch_outcome};
    use PartOutcome::{Accepted, Acknowledged, Failed};
    use Verb::{Add, Delete, Exec, Get, Replace};
    use bellwether_windows::syncml::Verb;

    fn statuses(list: &[(Verb, &str, u16)]) -> Vec<StepStatus> {
        (0_u16..)
            .zip(list)
            .map(|(index, (verb, uri, code))| StepStatus {
                path: vec![index],
                verb: *verb,
                uri: (*uri).to_owned(),
                code: *code,
                original_error: None,
            })
            .collect()
    }

    #[test]
    fn parts_are_judged_by_the_table() {
        type Row<'a> = (bool, &'a [(Verb, &'a str, u16)], PartOutcome);
        let table: &[Row<'_>] = &[
            (false, &[(Exec, "a", 200)], Acknowledged),
            (false, &[(Exec, "a", 202)], Accepted),
            (false, &[(Exec, "a", 213)], Acknowledged),
            (true, &[(Add, "a", 200), (Exec, "a", 200)], Accepted),
            (true, &[(Add, "a", 418), (Exec, "A", 200)], Accepted),
            (false, &[(Add, "a", 418), (Replace, "a", 200)], Acknowledged),
            (false, &[(Add, "a", 418), (Replace, "b", 200)], Failed),
            (false, &[(Replace, "a", 200), (Add, "a", 418)], Failed),
            (false, &[(Add, "a", 418), (Replace, "a", 500)], Failed),
            (false, &[(Add, "a", 200), (Replace, "a", 405)], Acknowledged),
            (false, &[(Add, "a", 418), (Replace, "a", 405)], Failed),
            (true, &[(Add, "a", 200), (Exec, "a", 500)], Failed),
            (false, &[(Delete, "a", 404)], Acknowledged),
            (false, &[(Delete, "a", 405)], Failed),
            (false, &[(Get, "a", 404), (Get, "b", 200)], Acknowledged),
            (false, &[(Get, "a", 404), (Get, "b", 500)], Failed),
            (false, &[(Replace, "a", 500), (Get, "b", 200)], Failed),
            (false, &[(Exec, "", 507), (Replace, "a", 216)], Failed),
            (false, &[(Exec, "", 200), (Replace, "a", 215)], Failed),
            (false, &[(Exec, "a", 404)], Failed),
            (true, &[], Failed),
        ];
        for (awaits, list, expected) in table {
            assert_eq!(judge_part(*awaits, &statuses(list)), *expected, "{awaits} {list:?}");
        }
    }

    #[test]
    fn watched_nodes_tell_the_outcome() {
        let msi = "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI/%7Bx%7D/Status";
        let msix = "./Device/Vendor/MSFT/EnterpriseModernAppManagement/AppInstallation/A_b/Status";
        let scep = "./User/Vendor/MSFT/ClientCertificateInstall/SCEP/wifi/Status";
        let enroll = "Exec ./User/Vendor/MSFT/ClientCertificateInstall/SCEP/wifi/Install/Enroll";
        let rotation = "./Device/Vendor/MSFT/BitLocker/Status/RotateRecoveryPasswordsStatus";
        for (request, uri, value, expected) in [
            ("", msi, "70", Some(Acknowledged)),
            ("", msi, " 60 ", Some(Failed)),
            ("", msi, "30", Some(Failed)),
            ("", msi, "50", None),
            ("", msi, "", None),
            ("", msix, "3", Some(Acknowledged)),
            ("", msix, "2", Some(Failed)),
            ("", msix, "1", None),
            (enroll, scep, "1", Some(Acknowledged)),
            (enroll, scep, "2", None),
            (enroll, scep, "16", Some(Failed)),
            (enroll, scep, "32", None),
            (enroll, scep, "", None),
            (enroll, &scep.replace("/Status", "/ErrorCode"), "1", None),
            ("Exec ./User/Vendor/MSFT/Somewhere/Else", scep, "1", None),
            ("", rotation, "0", Some(Acknowledged)),
            ("", rotation, "1", None),
            ("", rotation, "-2147024809", Some(Failed)),
            ("", "./DevDetail/SwV", "0", None),
        ] {
            assert_eq!(watch_outcome(request, uri, value, None), expected, "{uri} {value}");
        }
        for (value, error, expected) in [
            ("32", "0", None),
            ("32", "-2146885629", Some(Failed)),
            ("2", "-2146885629", None),
            ("1", "-2146885629", Some(Acknowledged)),
            ("16", "no number", Some(Failed)),
        ] {
            assert_eq!(watch_outcome(enroll, scep, value, Some(error)), expected, "{value} {error}");
        }
    }
}
