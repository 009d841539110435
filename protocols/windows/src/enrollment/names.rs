//! Namespaces, actions and token types: the constants of MS-MDE2, MS-XCEP and MS-WSTEP.

pub(super) const SOAP: &str = "http://www.w3.org/2003/05/soap-envelope";
/// SOAP 1.1: Microsoft's sample of an RSTR is in it; accepted, never written.
pub(super) const SOAP_11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
pub(super) const ADDRESSING: &str = "http://www.w3.org/2005/08/addressing";
pub(super) const ANONYMOUS: &str = "http://www.w3.org/2005/08/addressing/anonymous";
pub(super) const UTILITY: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd";
pub(super) const SECURITY: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";
pub(super) const TRUST: &str = "http://docs.oasis-open.org/ws-sx/ws-trust/200512";
pub(super) const AUTHORIZATION: &str = "http://schemas.xmlsoap.org/ws/2006/12/authorization";
pub(super) const DISCOVERY: &str = "http://schemas.microsoft.com/windows/management/2012/01/enrollment";
pub(super) const POLICY: &str = "http://schemas.microsoft.com/windows/pki/2009/01/enrollmentpolicy";
pub(super) const ENROLLMENT: &str = "http://schemas.microsoft.com/windows/pki/2009/01/enrollment";
pub(super) const DIAGNOSTICS: &str = "http://schemas.microsoft.com/2004/09/ServiceModel/Diagnostics";
pub(super) const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";
pub(super) const XSD: &str = "http://www.w3.org/2001/XMLSchema";

pub(super) const BASE64_BINARY: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd#base64binary";
pub(super) const PASSWORD_TEXT: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-username-token-profile-1.0#PasswordText";
pub(super) const USER_TOKEN: &str =
    "http://schemas.microsoft.com/5.0.0.0/ConfigurationManager/Enrollment/DeviceEnrollmentUserToken";
pub(super) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
pub(super) const X509: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-x509-token-profile-1.0#X509v3";
pub(super) const ENROLLMENT_TOKEN: &str =
    "http://schemas.microsoft.com/5.0.0.0/ConfigurationManager/Enrollment/DeviceEnrollmentToken";
pub(super) const PROVISION_DOC: &str =
    "http://schemas.microsoft.com/5.0.0.0/ConfigurationManager/Enrollment/DeviceEnrollmentProvisionDoc";
/// The prose of Microsoft's page writes the value type so.
pub(super) const PROVISION_DOC_PROSE: &str =
    "http://schemas.microsoft.com/ConfigurationManager/Enrollment/DeviceEnrollmentProvisionDoc";
pub(super) const PKCS10: &str = "http://schemas.microsoft.com/windows/pki/2009/01/enrollment#PKCS10";
pub(super) const PKCS7: &str = "http://schemas.microsoft.com/windows/pki/2009/01/enrollment#PKCS7";
/// Microsoft's sample of a renewal puts PKCS7 into the namespace of WS-Security.
pub(super) const PKCS7_SAMPLE: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd#PKCS7";
pub(super) const ISSUE: &str = "http://docs.oasis-open.org/ws-sx/ws-trust/200512/Issue";
pub(super) const RENEW: &str = "http://docs.oasis-open.org/ws-sx/ws-trust/200512/Renew";
