//! `DiagnosticLog/DiagnosticArchive`: what a machine gathers and sends to an address that it is told.

use bellwether_windows::syncml::Format;
use bellwether_windows::syncml::client::Answer;

use super::apps::text_of;
use super::{Job, State, Tree};

const RESULTS: &str = "./Device/Vendor/MSFT/DiagnosticLog/DiagnosticArchive/ArchiveResults";

/// `Exec` of `ArchiveDefinition`. A request whose id was seen before is taken and not carried out again.
pub(super) fn collect(state: &mut State, data: &str) -> Answer {
    let (Some(id), Some(url)) = (text_of(data, "ID"), text_of(data, "SasUrl")) else {
        return Answer::status(400);
    };
    if !state.collected.contains(&id) {
        state.collected.push(id.clone());
        state.jobs.push(Job::Archive { id, url });
    }
    Answer::status(200)
}

/// The archive of a request: an empty ZIP file with the request's id as its comment (APPNOTE 4.3.16).
pub(in crate::windows) fn archive(id: &str) -> Vec<u8> {
    let comment: Vec<u8> = id.bytes().take(100).collect();
    let mut zip = b"PK\x05\x06".to_vec();
    zip.extend([0; 16]);
    zip.extend([u8::try_from(comment.len()).unwrap_or_default(), 0]);
    zip.extend(comment);
    zip
}

/// How the last request went, a HRESULT.
pub(in crate::windows) fn set_archive_results(tree: &mut Tree, id: &str, error: u32) {
    let results = format!("<Collection HRESULT=\"{}\"><ID>{id}</ID></Collection>", error.cast_signed());
    tree.set(RESULTS, Format::Chr, results);
}
