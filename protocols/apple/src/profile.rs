//! Configuration profiles (`mdm/profiles/*.yaml`): the enrollment profile that the server makes, and
//! a look into those that an administrator uploads.

mod certificate;
mod decode;
mod enrollment;
mod inspect;

pub use certificate::certificate_profile;
pub use decode::{EnrollmentDetails, decode_enrollment_profile};
pub use enrollment::{
    AccessRights, EnrollmentProfile, MdmSettings, PayloadUuids, RootCertificate, ScepSettings,
};
pub use inspect::{PayloadSummary, ProfileSummary, Scope, inspect, refuse_reserved, refuse_upload};
