//! Every route of the server, in one table. What is not here does not exist.

use crate::api::{
    self, audit, backups, commands, devices, enrollment_accounts, invitations, keys, openapi, packages, push,
};
use crate::device::{apple, package, scep, upload, windows};
use crate::tls::Side;
use crate::{enroll, health, sign_in, terms};
use actix_web::http::Method;
use actix_web::middleware::{Compress, from_fn};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Route};

/// Who a route is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Devices, which prove themselves in every request.
    Device,
    /// People with an invitation, or without anything.
    Person,
    /// Whoever holds the setup token.
    Setup,
    /// Programs with an API key.
    Key,
    /// Load balancers.
    Probe,
}

/// One route.
pub struct Entry {
    /// Method.
    pub method: Method,
    /// Pattern.
    pub path: &'static str,
    /// For whom.
    pub audience: Audience,
    /// On the listener that never asks for client certificates.
    pub on_public_listener: bool,
    /// On the listener that asks for them.
    pub on_device_listener: bool,
    make: fn() -> Route,
}

macro_rules! routes {
    ($($audience:ident $sides:ident $method:ident $path:literal => $handler:path;)+) => {
        vec![$(Entry {
            method: Method::$method,
            path: $path,
            audience: Audience::$audience,
            on_public_listener: routes!(@public $sides),
            on_device_listener: routes!(@device $sides),
            make: || web::route().to($handler),
        }),+]
    };
    (@public both) => { true };
    (@public public) => { true };
    (@public device) => { false };
    (@device both) => { true };
    (@device public) => { false };
    (@device device) => { true };
}

/// The table.
pub fn table() -> Vec<Entry> {
    routes![
        Device both PUT "/apple/mdm" => apple::mdm;
        Device both POST "/apple/mdm" => apple::mdm;
        Device public GET "/scep/{ca}" => scep::operation;
        Device public POST "/scep/{ca}" => scep::operation;
        Device public GET "/crl/{ca}" => scep::crl;
        Device public HEAD "/crl/{ca}" => scep::crl;
        Device both GET "/packages/{token}" => package::fetch;
        Device both HEAD "/packages/{token}" => package::fetch;
        Device public PUT "/uploads/{token}" => upload::receive;
        Device public PUT "/uploads/{token}/{name}" => upload::receive;
        Device public GET "/EnrollmentServer/Discovery.svc" => windows::probe;
        Device public HEAD "/EnrollmentServer/Discovery.svc" => windows::probe;
        Device public POST "/EnrollmentServer/Discovery.svc" => windows::discovery;
        Device public POST "/EnrollmentServer/Policy.svc" => windows::policy;
        Device both POST "/EnrollmentServer/Enrollment.svc" => windows::enrollment;
        Device device POST "/ManagementServer/MDM.svc" => windows::session;

        Person public GET "/enroll" => enroll::form;
        Person public HEAD "/enroll" => enroll::form;
        Person public POST "/enroll" => enroll::typed;
        Person public GET "/enroll/{code}" => enroll::page;
        Person public HEAD "/enroll/{code}" => enroll::page;
        Person public POST "/enroll/{code}" => enroll::download;
        Person public GET "/EnrollmentServer/Auth" => sign_in::form;
        Person public HEAD "/EnrollmentServer/Auth" => sign_in::form;
        Person public POST "/EnrollmentServer/Auth" => sign_in::submit;
        Person public GET "/EnrollmentServer/TermsOfUse" => terms::page;
        Person public HEAD "/EnrollmentServer/TermsOfUse" => terms::page;
        Person public POST "/EnrollmentServer/TermsOfUse" => terms::answer;
        Person public GET "/tls-ca.pem" => enroll::tls_ca_pem;
        Person public HEAD "/tls-ca.pem" => enroll::tls_ca_pem;
        Person public GET "/tls-ca.crt" => enroll::tls_ca_der;
        Person public HEAD "/tls-ca.crt" => enroll::tls_ca_der;

        Probe both GET "/livez" => health::live;
        Probe both HEAD "/livez" => health::live;
        Probe both GET "/readyz" => health::ready;
        Probe both HEAD "/readyz" => health::ready;

        Setup public POST "/api/v1/setup" => keys::setup;
        Key public GET "/api/v1/openapi.json" => openapi::document;
        Key public GET "/api/v1/keys" => keys::list;
        Key public POST "/api/v1/keys" => keys::create;
        Key public DELETE "/api/v1/keys/{id}" => keys::revoke;
        Key public GET "/api/v1/invitations" => invitations::list;
        Key public POST "/api/v1/invitations" => invitations::create;
        Key public GET "/api/v1/invitations/{id}" => invitations::show;
        Key public DELETE "/api/v1/invitations/{id}" => invitations::revoke;
        Key public GET "/api/v1/enrollment-accounts" => enrollment_accounts::list;
        Key public POST "/api/v1/enrollment-accounts" => enrollment_accounts::create;
        Key public DELETE "/api/v1/enrollment-accounts/{id}" => enrollment_accounts::revoke;
        Key public GET "/api/v1/packages" => packages::list;
        Key public POST "/api/v1/packages" => packages::upload;
        Key public GET "/api/v1/packages/{id}" => packages::show;
        Key public DELETE "/api/v1/packages/{id}" => packages::delete;
        Key public GET "/api/v1/devices" => devices::list;
        Key public GET "/api/v1/devices/{device}" => devices::show;
        Key public GET "/api/v1/devices/{device}/certificates" => devices::certificates;
        Key public DELETE "/api/v1/devices/{device}/enrollment" => devices::end;
        Key public GET "/api/v1/devices/{device}/commands" => commands::of_device;
        Key public POST "/api/v1/devices/{device}/commands" => commands::send;
        Key public POST "/api/v1/enrollments/{id}/approve" => devices::approve;
        Key public GET "/api/v1/commands" => commands::list;
        Key public POST "/api/v1/commands" => commands::send_to_many;
        Key public GET "/api/v1/commands/{id}" => commands::show;
        Key public DELETE "/api/v1/commands/{id}" => commands::cancel;
        Key public POST "/api/v1/commands/{id}/retry" => commands::retry;
        Key public GET "/api/v1/commands/{id}/result" => commands::result;
        Key public GET "/api/v1/commands/{id}/secret" => commands::secret;
        Key public GET "/api/v1/commands/{id}/upload" => commands::upload;
        Key public GET "/api/v1/jobs" => commands::jobs;
        Key public GET "/api/v1/jobs/{id}" => commands::job;
        Key public GET "/api/v1/push/apple" => push::list;
        Key public POST "/api/v1/push/apple" => push::import;
        Key public GET "/api/v1/audit" => audit::list;
        Key public GET "/api/v1/audit/verify" => audit::verify;
        Key public GET "/api/v1/events" => audit::events;
        Key public GET "/api/v1/backups" => backups::list;
        Key public POST "/api/v1/backups" => backups::create;
        Key public GET "/api/v1/quarantine" => backups::quarantine;
        Key public POST "/api/v1/quarantine/end" => backups::end_quarantine;
    ]
}

/// Registers the table on a listener. Device endpoints are never compressed: clients compare lengths.
pub fn configure(side: Side, config: &mut ServiceConfig) {
    let here = |entry: &Entry| match side {
        Side::Public => entry.on_public_listener,
        Side::Device => entry.on_device_listener,
    };
    let (api, plain): (Vec<Entry>, Vec<Entry>) =
        table().into_iter().filter(here).partition(|entry| entry.path.starts_with(api::ROOT));
    for (path, entries) in by_path(plain) {
        let mut resource = web::resource(path);
        for entry in entries {
            resource = resource.route((entry.make)().method(entry.method));
        }
        config.service(resource.default_service(web::to(HttpResponse::MethodNotAllowed)));
    }
    if side == Side::Public {
        let mut scope = web::scope(api::ROOT);
        for (path, entries) in by_path(api) {
            let mut resource = web::resource(path.trim_start_matches(api::ROOT));
            for entry in entries {
                resource = resource.route((entry.make)().method(entry.method));
            }
            scope = scope.service(resource.default_service(web::to(api::no_such_method)));
        }
        let scope = scope.default_service(web::to(api::no_such_path));
        config.service(scope.wrap(from_fn(api::authenticate)).wrap(Compress::default()));
    }
    config.default_service(web::to(HttpResponse::NotFound));
}

/// What every app of ours starts from.
pub fn defaults(config: &mut ServiceConfig) {
    use crate::problem::Problem;
    config.app_data(web::PathConfig::default().error_handler(|_, _| Problem::not_found("no such id").into()));
}

fn by_path(entries: Vec<Entry>) -> Vec<(&'static str, Vec<Entry>)> {
    let mut out: Vec<(&'static str, Vec<Entry>)> = Vec::new();
    for entry in entries {
        match out.iter_mut().find(|(path, _)| *path == entry.path) {
            Some((_, all)) => all.push(entry),
            None => out.push((entry.path, vec![entry])),
        }
    }
    out
}
