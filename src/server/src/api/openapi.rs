//! The OpenAPI 3.1 document, generated from the handlers.

use super::Answer;
use super::{
    audit, backups, commands, devices, enrollment_accounts, invitations, keys, packages, push, views,
};
use crate::problem::Problem;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Bellwether",
        description = "Enroll, command and keep in policy the devices of an organisation. Times are RFC 3339 in UTC, ids are UUIDs. Every answer carries x-request-id.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        document,
        keys::setup, keys::list, keys::create, keys::revoke,
        invitations::list, invitations::create, invitations::show, invitations::revoke,
        enrollment_accounts::list, enrollment_accounts::create, enrollment_accounts::revoke,
        packages::list, packages::upload, packages::show, packages::delete,
        devices::list, devices::show, devices::certificates, devices::end, devices::approve,
        commands::list, commands::of_device, commands::send, commands::send_to_many, commands::show, commands::cancel,
        commands::retry, commands::result, commands::secret, commands::upload, commands::jobs, commands::job,
        push::list, push::import,
        audit::list, audit::verify, audit::events,
        backups::list, backups::create, backups::quarantine, backups::end_quarantine,
    ),
    components(schemas(Problem, views::Fact)),
    security(("key" = [])),
    modifiers(&Everywhere),
)]
struct Api;

/// What holds for every operation.
struct Everywhere;

impl Modify for Everywhere {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key, `bw_…`, in the Authorization header and nowhere else."))
            .build();
        components.add_security_scheme("key", SecurityScheme::Http(bearer));
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let problem = ResponseBuilder::new()
            .description("It was not done; says why (RFC 9457)")
            .content("application/problem+json", problem)
            .build();
        for item in document.paths.paths.values_mut() {
            let all = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
            for operation in all.into_iter().flatten() {
                operation.responses.responses.insert("default".to_owned(), RefOr::T(problem.clone()));
            }
        }
    }
}

/// The document, indented.
pub fn text() -> String {
    Api::openapi().to_pretty_json().unwrap_or_default() + "\n"
}

/// Method and path of every operation in the document.
pub fn operations() -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    for (path, item) in Api::openapi().paths.paths {
        let present = [
            ("GET", item.get.is_some()),
            ("POST", item.post.is_some()),
            ("PUT", item.put.is_some()),
            ("DELETE", item.delete.is_some()),
        ];
        all.extend(present.into_iter().filter(|(_, there)| *there).map(|(method, _)| (method, path.clone())));
    }
    all
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", operation_id = "getOpenApi", tag = "meta",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")))]
pub async fn document() -> Answer {
    Ok(actix_web::HttpResponse::Ok().insert_header(("content-type", "application/json")).body(text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `BELLWETHER_TEST_UPDATE=1 cargo test` writes the file; CI only compares.
    #[test]
    fn the_checked_in_document_is_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let now = text();
        assert!(now.contains("\"openapi\": \"3.1"), "version");
        if std::env::var_os("BELLWETHER_TEST_UPDATE").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let file = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            file == now,
            "docs/openapi.json is stale: run BELLWETHER_TEST_UPDATE=1 cargo test -p bellwether openapi"
        );
    }

    #[test]
    fn operations_have_unique_names_and_a_problem() {
        let document = serde_json::to_value(Api::openapi()).unwrap();
        let mut names = std::collections::HashSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap().to_owned();
                assert!(names.insert(name), "{method} {path}");
                assert!(operation["responses"]["default"].is_object(), "{method} {path}");
            }
        }
    }
}
